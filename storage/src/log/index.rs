//! A sparse index of one segment: where the frame with an offset begins.
//!
//! Kept in memory, written beside a sealed segment, rebuilt from the segment when it is missing or
//! does not fit. Invariant: entries grow in both columns; the first is the segment's first frame.

use std::path::Path;

use crate::error::Result;
use crate::frame::{FrameHeader, decode_header};
use crate::fs::Fs;
use crate::{Epoch, HEADER_BYTES, Offset};

/// Bytes of a segment between two entries, at least.
const STRIDE_BYTES: u64 = 64 << 10;
/// The index file's frame says so in its format field.
const FORMAT: u32 = u32::from_le_bytes(*b"IDX1");
const ENTRY_BYTES: usize = 16;

/// The index and what the whole segment is like.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Index {
    entries: Vec<(Offset, u64)>,
    /// Length of the indexed part of the segment.
    pub(crate) len: u64,
    /// Offset after the last record.
    pub(crate) end: Offset,
    /// Largest record time, ms.
    pub(crate) max_time_ms: i64,
    /// Epoch of the last frame.
    pub(crate) last_epoch: Epoch,
}

impl Index {
    pub(crate) fn new(base: Offset) -> Self {
        Self { entries: Vec::new(), len: 0, end: base, max_time_ms: i64::MIN, last_epoch: 0 }
    }

    /// Notes a frame that begins at `position` and takes `bytes`.
    pub(crate) fn push(&mut self, header: &FrameHeader, position: u64, bytes: u64) {
        let due = self.entries.last().is_none_or(|(_, last)| position - last >= STRIDE_BYTES);
        if due {
            self.entries.push((header.base_offset, position));
        }
        self.len = position + bytes;
        self.end = header.end_offset();
        self.max_time_ms = self.max_time_ms.max(header.max_time_ms);
        self.last_epoch = header.epoch;
    }

    /// Where to begin to look for `offset`.
    pub(crate) fn seek(&self, offset: Offset) -> u64 {
        let after = self.entries.partition_point(|(base, _)| *base <= offset);
        after.checked_sub(1).and_then(|i| self.entries.get(i)).map_or(0, |(_, position)| *position)
    }

    /// Writes it as a file.
    pub(crate) fn store(&self, fs: &dyn Fs, path: &Path) -> Result<()> {
        let mut body = Vec::with_capacity(8 + self.entries.len() * ENTRY_BYTES);
        body.extend_from_slice(&self.len.to_le_bytes());
        for (offset, position) in &self.entries {
            body.extend_from_slice(&offset.to_le_bytes());
            body.extend_from_slice(&position.to_le_bytes());
        }
        let header = FrameHeader {
            base_offset: self.end,
            format: FORMAT,
            max_time_ms: self.max_time_ms,
            epoch: self.last_epoch,
            ..Default::default()
        };
        let mut bytes = Vec::new();
        header.encode(&body, &mut bytes)?;
        let file = fs.open(path)?;
        file.truncate(0)?;
        file.write_at(&bytes, 0)
    }

    /// Reads it back; None when it is not whole or not for a segment of `segment_len` bytes.
    pub(crate) fn load(fs: &dyn Fs, path: &Path, segment_len: u64) -> Option<Self> {
        let file = fs.open_existing(path).ok()??;
        let mut bytes = vec![0; usize::try_from(file.length().ok()?).ok()?];
        file.read_at(&mut bytes, 0).ok()?;
        let raw = decode_header(&bytes)?;
        let body = bytes.get(HEADER_BYTES..HEADER_BYTES + raw.body_len)?;
        crate::frame::check_body(&raw, body, path, 0).ok()?;
        let (len, entries) = body.split_first_chunk::<8>()?;
        let len = u64::from_le_bytes(*len);
        if raw.header.format != FORMAT || len != segment_len {
            return None;
        }
        let number = |bytes: &[u8]| bytes.try_into().map(u64::from_le_bytes).ok();
        let entries = entries
            .chunks_exact(ENTRY_BYTES)
            .map(|entry| Some((number(entry.get(..8)?)?, number(entry.get(8..)?)?)))
            .collect::<Option<Vec<_>>>()?;
        Some(Self {
            entries,
            len,
            end: raw.header.base_offset,
            max_time_ms: raw.header.max_time_ms,
            last_epoch: raw.header.epoch,
        })
    }
}
