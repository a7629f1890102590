//! One file of a partition: frames one after the other, named by the offset of its first record.
//!
//! Invariant: only the segment that grows keeps its file open. A sealed one is opened for each read: a log of any
//! length takes one descriptor a partition.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use super::index::Index;
use crate::error::{Error, Result};
use crate::frame::{self, Frame, FrameHeader, RawHeader, decode_header};
use crate::fs::{Fs, FsFile};
use crate::{HEADER_BYTES, Offset};

/// A segment and where its frames are.
pub(crate) struct Segment {
    pub(crate) base: Offset,
    pub(crate) path: PathBuf,
    pub(crate) index: Index,
}

/// A segment with its file: the one that grows, or one that is being read.
pub(crate) struct OpenSegment {
    pub(crate) segment: Segment,
    pub(crate) file: Arc<dyn FsFile>,
}

/// The end of a segment, open to be read.
pub(crate) struct Extent {
    file: Arc<dyn FsFile>,
    path: PathBuf,
    position: u64,
    end: u64,
}

/// Where a scan of a segment stopped.
pub(crate) enum Tail {
    /// At the end of the file.
    Whole,
    /// At bytes that are not a sound frame, with nothing sound after them.
    Torn,
}

/// What a segment holds.
pub(crate) struct SegmentCheck {
    pub(crate) base: Offset,
    pub(crate) end: Offset,
    pub(crate) frames: u64,
    /// Of whole frames.
    pub(crate) bytes: u64,
    /// Behind the last whole frame.
    pub(crate) torn_bytes: u64,
    /// The epoch that these bytes say they are of, unless they can be computed again.
    pub(crate) torn_epoch: Option<crate::Epoch>,
    pub(crate) last_epoch: crate::Epoch,
}

/// Reads every frame of a segment and changes nothing.
///
/// # Errors
/// [`Error::Corrupt`] for a frame that is damaged before others that are whole, or a name that is no offset.
pub(crate) fn check_segment(fs: &dyn Fs, path: &Path) -> Result<SegmentCheck> {
    let base = path.file_stem().and_then(|stem| stem.to_str()?.parse().ok());
    let base = base.ok_or_else(|| Error::corrupt(path, 0, "its name is no offset"))?;
    let mut frames = 0;
    let file = fs.open_to_read(path)?;
    let (OpenSegment { segment, file }, _) = OpenSegment::open(file, path, base, |_| frames += 1)?;
    let Index { len: bytes, end, last_epoch, .. } = segment.index;
    let torn_bytes = file.length()?.saturating_sub(bytes);
    let mut torn_epoch = None;
    if torn_bytes >= HEADER_BYTES as u64 {
        let mut header = [0; HEADER_BYTES];
        file.read_at(&mut header, bytes)?;
        torn_epoch = decode_header(&header).filter(|raw| raw.header.parts > 0).map(|raw| raw.header.epoch);
    }
    Ok(SegmentCheck { base, end, frames, bytes, torn_bytes, torn_epoch, last_epoch })
}

impl Segment {
    fn new(path: PathBuf, base: Offset) -> Self {
        Self { base, path, index: Index::new(base) }
    }

    /// Looks into a sealed segment: at its index where that is sound, or else at every frame.
    pub(crate) fn sealed(fs: &dyn Fs, path: &Path, base: Offset) -> Result<Self> {
        let file = fs.open_to_read(path)?;
        if let Some(index) = Index::load(fs, &path.with_extension("idx"), file.length()?) {
            return Ok(Self { base, path: path.to_owned(), index });
        }
        let mut open = OpenSegment { segment: Self::new(path.to_owned(), base), file: file.into() };
        match open.scan(|_| ())? {
            Tail::Whole => Ok(open.segment),
            Tail::Torn => {
                Err(Error::corrupt(path, open.segment.index.len, "a sealed segment ends in damaged bytes"))
            }
        }
    }

    /// The header of the last frame of a sealed segment.
    pub(crate) fn last_header(&self, fs: &dyn Fs) -> Result<Option<FrameHeader>> {
        let Some(last) = self.index.end.checked_sub(1).filter(|last| *last >= self.base) else {
            return Ok(None);
        };
        let mut frames = Vec::new();
        self.extent(fs, last)?.read(last..self.index.end, usize::MAX, &mut frames)?;
        Ok(frames.last().map(|frame| frame.header))
    }

    /// A sealed segment from the frame that holds an offset on.
    pub(crate) fn extent(&self, fs: &dyn Fs, from: Offset) -> Result<Extent> {
        Ok(self.extent_of(fs.open_to_read(&self.path)?.into(), from))
    }

    fn extent_of(&self, file: Arc<dyn FsFile>, from: Offset) -> Extent {
        Extent { file, path: self.path.clone(), position: self.index.seek(from), end: self.index.len }
    }
}

impl Extent {
    /// Bytes of its frames.
    pub(crate) fn bytes(&self) -> u64 {
        self.end - self.position
    }

    /// Frames that hold offsets in `range`, about `max_bytes` of them.
    pub(crate) fn read(&self, range: Range<Offset>, max_bytes: usize, out: &mut Vec<Frame>) -> Result<()> {
        let mut position = self.position;
        let mut bytes = 0;
        while position < self.end && bytes < max_bytes {
            let mut header = [0; HEADER_BYTES];
            self.file.read_at(&mut header, position)?;
            let raw = decode_header(&header)
                .ok_or_else(|| Error::corrupt(&self.path, position, "no frame where one was written"))?;
            if raw.header.base_offset >= range.end {
                break;
            }
            if raw.header.end_offset() > range.start {
                let mut body = vec![0; raw.body_len];
                self.file.read_at(&mut body, position + HEADER_BYTES as u64)?;
                frame::check_body(&raw, &body, &self.path, position)?;
                bytes += body.len();
                out.push(Frame { header: raw.header, body: body.into() });
            }
            position += raw.frame_len();
        }
        Ok(())
    }
}

impl OpenSegment {
    /// Makes an empty segment whose first record will have offset `base`.
    pub(crate) fn create(fs: &dyn Fs, directory: &Path, base: Offset) -> Result<Self> {
        let path = directory.join(format!("{base:020}.seg"));
        let file = fs.open(&path)?;
        fs.sync_dir(directory)?;
        Ok(Self { segment: Segment::new(path, base), file: file.into() })
    }

    /// Looks into the last segment, reading every frame of its file. `seen` gets the header of each.
    pub(crate) fn open(
        file: Box<dyn FsFile>,
        path: &Path,
        base: Offset,
        seen: impl FnMut(&RawHeader),
    ) -> Result<(Self, Tail)> {
        let mut open = Self { segment: Segment::new(path.to_owned(), base), file: file.into() };
        let tail = open.scan(seen)?;
        Ok((open, tail))
    }

    /// Reads the frames in order into the index.
    ///
    /// A bad frame followed by a sound one is damage, not a torn tail: records that were acknowledged would be
    /// lost, so it is an error. What can be computed again was not synced, and a loss of power may leave any
    /// part of it: it ends where the first of it is missing.
    fn scan(&mut self, mut seen: impl FnMut(&RawHeader)) -> Result<Tail> {
        let len = self.file.length()?;
        let mut position = 0;
        while position < len {
            match self.frame_at(position, len) {
                Ok(Some((raw, _))) if raw.header.base_offset == self.segment.index.end => {
                    seen(&raw);
                    self.segment.index.push(&raw.header, position, raw.frame_len());
                    position += raw.frame_len();
                }
                Ok(_) | Err(Error::Corrupt { .. }) => {
                    self.refuse_damage_in_the_middle(position, len)?;
                    return Ok(Tail::Torn);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(Tail::Whole)
    }

    fn refuse_damage_in_the_middle(&self, bad: u64, len: u64) -> Result<()> {
        let mut rest = vec![0; usize::try_from(len - bad).unwrap_or(0)];
        self.file.read_at(&mut rest, bad)?;
        let mut at = 64;
        while let Some(bytes) = rest.get(at..) {
            let later = decode_header(bytes)
                .filter(|raw| raw.header.base_offset > self.segment.index.end && raw.header.parts > 0);
            if later.is_some_and(|raw| {
                bytes
                    .get(HEADER_BYTES..HEADER_BYTES + raw.body_len)
                    .is_some_and(|body| frame::check_body(&raw, body, &self.segment.path, 0).is_ok())
            }) {
                return Err(Error::corrupt(
                    &self.segment.path,
                    bad,
                    format!(
                        "records from offset {} are damaged, later ones are whole",
                        self.segment.index.end
                    ),
                ));
            }
            if bytes.is_empty() {
                break;
            }
            at += 64;
        }
        Ok(())
    }

    /// The frame at `position`, checked; None if there is no header.
    fn frame_at(&self, position: u64, len: u64) -> Result<Option<(RawHeader, Bytes)>> {
        if position + HEADER_BYTES as u64 > len {
            return Ok(None);
        }
        let mut header = [0; HEADER_BYTES];
        self.file.read_at(&mut header, position)?;
        let Some(raw) = decode_header(&header) else { return Ok(None) };
        if position + raw.frame_len() > len {
            return Ok(None);
        }
        let mut body = vec![0; raw.body_len];
        self.file.read_at(&mut body, position + HEADER_BYTES as u64)?;
        frame::check_body(&raw, &body, &self.segment.path, position)?;
        Ok(Some((raw, body.into())))
    }

    /// The segment from the frame that holds an offset on.
    pub(crate) fn extent(&self, from: Offset) -> Extent {
        self.segment.extent_of(Arc::clone(&self.file), from)
    }

    /// Cuts the file after the frames the index knows.
    pub(crate) fn cut(&self) -> Result<()> {
        self.file.truncate(self.segment.index.len)?;
        self.file.sync()
    }

    /// Forgets and cuts every frame from `epoch` on.
    pub(crate) fn cut_from_epoch(&mut self, epoch: crate::Epoch) -> Result<()> {
        let old = std::mem::replace(&mut self.segment.index, Index::new(self.segment.base));
        let mut position = 0;
        while position < old.len {
            let mut header = [0; HEADER_BYTES];
            self.file.read_at(&mut header, position)?;
            let Some(raw) = decode_header(&header).filter(|raw| raw.header.epoch < epoch) else { break };
            self.segment.index.push(&raw.header, position, raw.frame_len());
            position += raw.frame_len();
        }
        self.cut()
    }
}
