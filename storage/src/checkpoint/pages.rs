//! Pages of bytes: how they are named, where they lie, and the file that takes new ones.
//!
//! A page's name is the first half of the SHA-256 of its bytes: it says whether two pages are the same,
//! and whether what is read is what was written.

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::fs::{Fs, FsFile};

/// Largest page, bytes.
pub const PAGE_BYTES: usize = 64 << 10;
/// Bytes that are written at a time.
const BUFFER_BYTES: usize = 4 << 20;

/// What a page is named by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct PageId(pub(super) [u8; 16]);

impl PageId {
    pub(super) fn of(bytes: &[u8]) -> Self {
        let mut id = [0; 16];
        id.iter_mut().zip(Sha256::digest(bytes)).for_each(|(to, from)| *to = from);
        Self(id)
    }
}

/// Where a page lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PagePlace {
    pub(super) id: PageId,
    pub(super) file: u32,
    pub(super) position: u64,
    pub(super) len: u32,
}

/// Where a page file is.
pub(super) fn path(directory: &Path, file: u32) -> PathBuf {
    directory.join(format!("{file:010}.pages"))
}

/// A page file that grows.
pub(super) struct PageFile {
    number: u32,
    file: Box<dyn FsFile>,
    written: u64,
    buffer: Vec<u8>,
}

impl PageFile {
    pub(super) fn create(fs: &dyn Fs, directory: &Path, number: u32) -> Result<Self> {
        let file = fs.open(&path(directory, number))?;
        // Left by a checkpoint that was never complete.
        file.truncate(0)?;
        Ok(Self { number, file, written: 0, buffer: Vec::new() })
    }

    pub(super) fn push(&mut self, id: PageId, bytes: &[u8]) -> Result<PagePlace> {
        let position = self.written + self.buffer.len() as u64;
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= BUFFER_BYTES {
            self.flush()?;
        }
        let len = u32::try_from(bytes.len())
            .map_err(|_| Error::TooLarge { bytes: bytes.len(), limit: PAGE_BYTES })?;
        Ok(PagePlace { id, file: self.number, position, len })
    }

    fn flush(&mut self) -> Result<()> {
        self.file.write_at(&self.buffer, self.written)?;
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    /// Puts everything on disk; returns how many bytes it has.
    pub(super) fn finish(mut self) -> Result<u64> {
        self.flush()?;
        self.file.sync()?;
        Ok(self.written)
    }
}

/// Reads a page and checks that it is what it was.
pub(super) fn read(file: &dyn FsFile, path: &Path, place: &PagePlace) -> Result<Vec<u8>> {
    let mut bytes = vec![0; place.len as usize];
    file.read_at(&mut bytes, place.position)?;
    if PageId::of(&bytes) != place.id {
        return Err(Error::corrupt(path, place.position, "a page of a checkpoint is not what was written"));
    }
    Ok(bytes)
}
