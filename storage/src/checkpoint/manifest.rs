//! What a checkpoint consists of: for each section the places of its pages.
//!
//! On disk it is one frame, whose checksums tell whether it is whole.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::pages::{PageId, PagePlace};
use crate::Epoch;
use crate::error::{Error, Result};
use crate::frame::{self, FrameHeader, HEADER_BYTES};
use crate::fs::Fs;

/// The layout of the frame's body.
const FORMAT: u32 = 0x6d70_0001;
/// Bytes of a page's place.
const PLACE_BYTES: usize = 32;
/// Length of an identity.
const ID_BYTES: usize = 16;

/// A complete checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Manifest {
    /// The epoch whose state it is.
    pub epoch: Epoch,
    pub(super) sections: BTreeMap<String, Vec<PagePlace>>,
}

impl Manifest {
    /// Names of its sections.
    pub fn sections(&self) -> impl Iterator<Item = &str> {
        self.sections.keys().map(String::as_str)
    }

    /// Bytes of all its sections.
    pub fn bytes(&self) -> u64 {
        self.places().map(|place| u64::from(place.len)).sum()
    }

    /// Bytes of a section; 0 if it has none of that name.
    pub fn section_bytes(&self, name: &str) -> u64 {
        let places = self.sections.get(name).into_iter().flatten();
        places.map(|place| u64::from(place.len)).sum()
    }

    /// The places of all its pages.
    pub(super) fn places(&self) -> impl Iterator<Item = &PagePlace> {
        self.sections.values().flatten()
    }

    /// Where the manifest of an epoch is.
    pub(super) fn path(directory: &Path, epoch: Epoch) -> PathBuf {
        directory.join(format!("{epoch:020}.manifest"))
    }

    pub(super) fn encode(&self) -> Result<Vec<u8>> {
        let mut body = Vec::new();
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX).to_le_bytes();
        body.extend(count(self.sections.len()));
        for (name, places) in &self.sections {
            body.extend(count(name.len()));
            body.extend(name.as_bytes());
            body.extend(count(places.len()));
            for place in places {
                body.extend(place.id.0);
                body.extend(place.position.to_le_bytes());
                body.extend(place.file.to_le_bytes());
                body.extend(place.len.to_le_bytes());
            }
        }
        let header = FrameHeader { epoch: self.epoch, format: FORMAT, count: 1, ..Default::default() };
        let mut bytes = Vec::new();
        header.encode(&body, &mut bytes)?;
        Ok(bytes)
    }

    pub(super) fn read(fs: &dyn Fs, path: &Path) -> Result<Self> {
        let file = fs.open_to_read(path)?;
        let mut bytes = vec![0; usize::try_from(file.length()?).unwrap_or(usize::MAX)];
        file.read_at(&mut bytes, 0)?;
        let damaged = |reason: &str| Error::corrupt(path, 0, reason);
        let raw = frame::decode_header(&bytes).ok_or_else(|| damaged("it does not begin as a manifest"))?;
        if raw.header.format != FORMAT {
            return Err(damaged("its layout is that of another version"));
        }
        let body = bytes
            .get(HEADER_BYTES..HEADER_BYTES + raw.body_len)
            .ok_or_else(|| damaged("it ends before its time"))?;
        frame::check_body(&raw, body, path, 0)?;
        let sections = sections(&mut Fields(body)).ok_or_else(|| damaged("its sections make no sense"))?;
        Ok(Self { epoch: raw.header.epoch, sections })
    }
}

fn sections(body: &mut Fields<'_>) -> Option<BTreeMap<String, Vec<PagePlace>>> {
    let mut sections = BTreeMap::new();
    for _ in 0..body.u32()? {
        let length = body.u32()? as usize;
        let name = String::from_utf8(body.take(length)?.to_vec()).ok()?;
        let pages = body.u32()? as usize;
        let mut places = Vec::with_capacity(pages.min(body.0.len() / PLACE_BYTES));
        for _ in 0..pages {
            let id = PageId(body.take(ID_BYTES)?.try_into().ok()?);
            let position = u64::from_le_bytes(body.take(8)?.try_into().ok()?);
            places.push(PagePlace { id, position, file: body.u32()?, len: body.u32()? });
        }
        sections.insert(name, places);
    }
    Some(sections)
}

struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(n)?;
        self.0 = tail;
        Some(head)
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?))
    }
}
