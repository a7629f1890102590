//! The journal: decisions in order, each synced before its statement is acknowledged.
//!
//! One file of frames; the offset of a frame is the entry's revision. Invariant: an entry that
//! `append` returned for is read back by every later `open`, or `open` refuses.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::error::{Error, Result};
use crate::frame::{self, FrameHeader, decode_header};
use crate::fs::{Fs, FsFile};
use crate::{Epoch, HEADER_BYTES};

/// One decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its number, from 1.
    pub revision: u64,
    /// The last epoch before it.
    pub after_epoch: Epoch,
    /// What was decided.
    pub body: Bytes,
}

/// The open journal.
pub struct Journal {
    inner: Mutex<Inner>,
}

struct Inner {
    file: Box<dyn FsFile>,
    path: std::path::PathBuf,
    len: u64,
    revision: u64,
    poisoned: bool,
}

/// What a journal holds.
pub(crate) struct JournalCheck {
    pub(crate) entries: u64,
    /// The epoch after which the last one was taken.
    pub(crate) after_epoch: Epoch,
    /// Behind the last whole entry.
    pub(crate) torn_bytes: u64,
}

impl Journal {
    /// Opens the journal and returns all its entries; that there are `known` of them is known from elsewhere.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when an entry before the last one is damaged, or a known one is not there. Nothing is cut
    /// then.
    pub fn open(fs: &Arc<dyn Fs>, path: &Path, known: u64) -> Result<(Self, Vec<Entry>)> {
        if let Some(directory) = path.parent() {
            fs.create_dirs(directory)?;
        }
        let file = fs.open(path)?;
        let mut bytes = vec![0; usize::try_from(file.length()?).unwrap_or(usize::MAX)];
        file.read_at(&mut bytes, 0)?;
        let (entries, len) = decode(path, &bytes)?;
        let revision = entries.last().map_or(0, |e| e.revision);
        if revision < known {
            let missing = format!("it ends with entry {revision}, and a checkpoint came after entry {known}");
            return Err(Error::corrupt(path, len, missing));
        }
        if len < bytes.len() as u64 {
            tracing::warn!(path = %path.display(), kept_bytes = len, "cut the torn end of the journal");
            file.truncate(len)?;
            file.sync()?;
        }
        if let Some(directory) = path.parent() {
            fs.sync_dir(directory)?;
        }
        let inner = Inner { file, path: path.to_owned(), len, revision, poisoned: false };
        Ok((Self { inner: Mutex::new(inner) }, entries))
    }

    /// What a journal holds. It is left as it is.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when an entry before the last one is damaged.
    pub(crate) fn check(fs: &dyn Fs, path: &Path) -> Result<JournalCheck> {
        let file = fs.open_to_read(path)?;
        let mut bytes = vec![0; usize::try_from(file.length()?).unwrap_or(usize::MAX)];
        file.read_at(&mut bytes, 0)?;
        let (entries, len) = decode(path, &bytes)?;
        Ok(JournalCheck {
            entries: entries.len() as u64,
            after_epoch: entries.last().map_or(0, |entry| entry.after_epoch),
            torn_bytes: bytes.len() as u64 - len,
        })
    }

    /// Appends an entry and syncs; returns its revision.
    ///
    /// # Errors
    /// [`Error::Poisoned`] after an earlier failure; otherwise any of the disk.
    pub fn append(&self, after_epoch: Epoch, body: &[u8]) -> Result<u64> {
        let mut inner = self.inner.lock();
        if inner.poisoned {
            return Err(Error::Poisoned { path: inner.path.clone() });
        }
        let revision = inner.revision + 1;
        let header =
            FrameHeader { base_offset: revision, count: 1, epoch: after_epoch, ..Default::default() };
        let mut bytes = Vec::new();
        header.encode(body, &mut bytes)?;
        if let Err(error) = inner.file.write_at(&bytes, inner.len) {
            inner.poisoned = inner.file.truncate(inner.len).is_err();
            return Err(error);
        }
        if let Err(error) = inner.file.sync() {
            inner.poisoned = true;
            return Err(error);
        }
        inner.len += bytes.len() as u64;
        inner.revision = revision;
        Ok(revision)
    }
}

/// The entries and the length of the sound part.
fn decode(path: &Path, bytes: &[u8]) -> Result<(Vec<Entry>, u64)> {
    let mut entries: Vec<Entry> = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let Some(entry) = entry_at(path, bytes, at, entries.len() as u64 + 1) else { break };
        at += usize::try_from(frame::frame_len(entry.body.len())).unwrap_or(usize::MAX);
        entries.push(entry);
    }
    let mut later = at.saturating_add(64);
    while later < bytes.len() {
        if bytes
            .get(later..)
            .and_then(decode_header)
            .is_some_and(|raw| raw.header.base_offset > entries.len() as u64)
        {
            return Err(Error::corrupt(
                path,
                at as u64,
                format!("entry {} is damaged, later ones are whole", entries.len() + 1),
            ));
        }
        later += 64;
    }
    Ok((entries, at as u64))
}

fn entry_at(path: &Path, bytes: &[u8], at: usize, revision: u64) -> Option<Entry> {
    let raw = decode_header(bytes.get(at..)?)?;
    let body = bytes.get(at + HEADER_BYTES..at + HEADER_BYTES + raw.body_len)?;
    frame::check_body(&raw, body, path, at as u64).ok()?;
    (raw.header.base_offset == revision).then(|| Entry {
        revision,
        after_epoch: raw.header.epoch,
        body: Bytes::copy_from_slice(body),
    })
}
