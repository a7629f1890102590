//! The unit of the log and of the journal: a header and a body, each with its checksum.
//!
//! ```text
//!  0  magic "MPF1"            32  smallest time (ms)      64  part of the epoch, from 0
//!  4  CRC32C of 8..128        40  largest time (ms)       68  parts of the epoch
//!  8  CRC32C of the body      48  epoch                   72  zero, reserved
//! 12  length of the body      56  now of the epoch (ms)
//! 16  base offset            128  body, padded with zeros to a multiple of 64
//! 24  records
//! 28  format of the body (opaque here)
//! ```
//! All little-endian. The header has its own checksum so that a scan can trust a length before it
//! reads a body. Frames begin at multiples of 64 bytes. Invariant: `decode(encode(f)) == f`, and
//! any single changed byte is noticed.

use std::path::Path;

use bytes::Bytes;

use crate::error::{Error, Result};
use crate::fs::FsFile;
use crate::{Epoch, Offset};

const MAGIC: [u8; 4] = *b"MPF1";
const ALIGN: usize = 64;
/// Bodies of at most so many bytes are written with their header at once; larger ones are not copied for that.
const COPIED_BYTES: usize = 64 << 10;
/// Bytes before the body.
pub const HEADER_BYTES: usize = 128;
/// Largest body.
pub(crate) const MAX_BODY_BYTES: usize = 1 << 30;

/// What a frame says about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FrameHeader {
    /// Offset of the first record.
    pub base_offset: Offset,
    /// Number of records.
    pub count: u32,
    /// How the body is encoded; the reader above knows.
    pub format: u32,
    /// Smallest record time, ms since 1970.
    pub min_time_ms: i64,
    /// Largest record time, ms since 1970.
    pub max_time_ms: i64,
    /// The group commit that wrote it.
    pub epoch: Epoch,
    /// The wall clock of that group commit, ms since 1970.
    pub now_ms: i64,
    /// Which of the epoch's frames this is.
    pub part: u32,
    /// How many frames the epoch has, over all partitions.
    pub parts: u32,
}

/// A header with its body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// The header.
    pub header: FrameHeader,
    /// The body, without padding.
    pub body: Bytes,
}

/// A header as it stands in a file.
pub(crate) struct RawHeader {
    pub(crate) header: FrameHeader,
    body_crc: u32,
    pub(crate) body_len: usize,
}

impl RawHeader {
    /// Bytes of the whole frame, padding included.
    pub(crate) fn frame_len(&self) -> u64 {
        frame_len(self.body_len)
    }
}

pub(crate) fn frame_len(body_len: usize) -> u64 {
    (HEADER_BYTES + body_len.next_multiple_of(ALIGN)) as u64
}

impl FrameHeader {
    /// Offset after the last record.
    pub fn end_offset(&self) -> Offset {
        self.base_offset + u64::from(self.count)
    }

    /// Appends the frame with `body` to `out`.
    ///
    /// # Errors
    /// [`Error::TooLarge`].
    pub(crate) fn encode(&self, body: &[u8], out: &mut Vec<u8>) -> Result<()> {
        out.reserve(HEADER_BYTES + body.len() + ALIGN);
        self.encode_head(body, out)?;
        out.extend_from_slice(body);
        out.resize(out.len().next_multiple_of(ALIGN), 0);
        Ok(())
    }

    /// Writes the frame with `body` to a file. Returns its length.
    ///
    /// # Errors
    /// [`Error::TooLarge`], and any of the disk; part of the frame may be there then.
    pub(crate) fn write(&self, body: &[u8], file: &dyn FsFile, position: u64) -> Result<u64> {
        let mut bytes = Vec::new();
        if body.len() <= COPIED_BYTES {
            self.encode(body, &mut bytes)?;
            file.write_at(&bytes, position)?;
            return Ok(bytes.len() as u64);
        }
        self.encode_head(body, &mut bytes)?;
        file.write_at(&bytes, position)?;
        file.write_at(body, position + HEADER_BYTES as u64)?;
        let padding = body.len().next_multiple_of(ALIGN) - body.len();
        if padding > 0 {
            file.write_at(&vec![0; padding], position + (HEADER_BYTES + body.len()) as u64)?;
        }
        Ok(frame_len(body.len()))
    }

    /// Appends what stands before a body.
    fn encode_head(&self, body: &[u8], out: &mut Vec<u8>) -> Result<()> {
        if body.len() > MAX_BODY_BYTES {
            return Err(Error::TooLarge { bytes: body.len(), limit: MAX_BODY_BYTES });
        }
        let mut fields = Vec::with_capacity(HEADER_BYTES - 8);
        fields.extend_from_slice(&crc32c::crc32c(body).to_le_bytes());
        fields.extend_from_slice(&u32::try_from(body.len()).unwrap_or(u32::MAX).to_le_bytes());
        fields.extend_from_slice(&self.base_offset.to_le_bytes());
        fields.extend_from_slice(&self.count.to_le_bytes());
        fields.extend_from_slice(&self.format.to_le_bytes());
        fields.extend_from_slice(&self.min_time_ms.to_le_bytes());
        fields.extend_from_slice(&self.max_time_ms.to_le_bytes());
        fields.extend_from_slice(&self.epoch.to_le_bytes());
        fields.extend_from_slice(&self.now_ms.to_le_bytes());
        fields.extend_from_slice(&self.part.to_le_bytes());
        fields.extend_from_slice(&self.parts.to_le_bytes());
        fields.resize(HEADER_BYTES - 8, 0);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&crc32c::crc32c(&fields).to_le_bytes());
        out.extend_from_slice(&fields);
        Ok(())
    }
}

/// Reads a header; None if the bytes are not one.
pub(crate) fn decode_header(bytes: &[u8]) -> Option<RawHeader> {
    let mut fields = Fields { bytes: bytes.get(8..HEADER_BYTES)? };
    if bytes.get(..4)? != MAGIC || bytes.get(4..8)? != crc32c::crc32c(fields.bytes).to_le_bytes() {
        return None;
    }
    let (body_crc, body_len) = (fields.u32()?, fields.u32()? as usize);
    let header = FrameHeader {
        base_offset: fields.u64()?,
        count: fields.u32()?,
        format: fields.u32()?,
        min_time_ms: fields.i64()?,
        max_time_ms: fields.i64()?,
        epoch: fields.u64()?,
        now_ms: fields.i64()?,
        part: fields.u32()?,
        parts: fields.u32()?,
    };
    (body_len <= MAX_BODY_BYTES).then_some(RawHeader { header, body_crc, body_len })
}

/// Checks a body against its header.
pub(crate) fn check_body(raw: &RawHeader, body: &[u8], path: &Path, position: u64) -> Result<()> {
    if crc32c::crc32c(body) == raw.body_crc {
        return Ok(());
    }
    Err(Error::corrupt(
        path,
        position,
        format!("checksum of the records from offset {} differs", raw.header.base_offset),
    ))
}

struct Fields<'a> {
    bytes: &'a [u8],
}

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, tail) = self.bytes.split_first_chunk::<N>()?;
        self.bytes = tail;
        Some(*head)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    fn i64(&mut self) -> Option<i64> {
        self.take().map(i64::from_le_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::{Disk, Fs};

    #[test]
    fn every_changed_byte_is_noticed() {
        let header = FrameHeader { base_offset: 7, count: 3, epoch: 9, parts: 1, ..Default::default() };
        let mut bytes = Vec::new();
        header.encode(b"three records", &mut bytes).unwrap();
        assert_eq!(bytes.len() % ALIGN, 0);
        for position in 0..HEADER_BYTES + 13 {
            let mut changed = bytes.clone();
            changed[position] ^= 0x40;
            let sound = decode_header(&changed).is_some_and(|raw| {
                check_body(&raw, &changed[HEADER_BYTES..HEADER_BYTES + raw.body_len], Path::new("f"), 0)
                    .is_ok()
            });
            assert!(!sound, "byte {position}");
        }
        assert_eq!(decode_header(&bytes).map(|raw| raw.header), Some(header));
    }

    #[test]
    fn a_frame_is_written_as_it_is_encoded() {
        let directory = tempfile::tempdir().unwrap();
        let header = FrameHeader { count: 1, epoch: 3, parts: 1, ..Default::default() };
        for length in [0, 7, 64, COPIED_BYTES, COPIED_BYTES + 1, COPIED_BYTES + 64] {
            let (body, mut bytes) = (vec![7; length], Vec::new());
            header.encode(&body, &mut bytes).unwrap();
            let path = directory.path().join(length.to_string());
            let file = Disk.open(&path).unwrap();
            assert_eq!(header.write(&body, file.as_ref(), 0).unwrap(), bytes.len() as u64);
            let mut written = vec![1; usize::try_from(file.length().unwrap()).unwrap()];
            file.read_at(&mut written, 0).unwrap();
            assert_eq!(written, bytes, "{length}");
        }
    }
}
