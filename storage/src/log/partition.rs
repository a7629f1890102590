//! A partition: sealed segments, one that grows, and the last frames in memory.
//!
//! Invariant: offsets are dense; a reader sees a frame only after its commit returned.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use super::recovery::Seen;
use super::segment::{Segment, Tail};
use super::{LogConfig, Retention};
use crate::error::{Error, Result};
use crate::frame::{Frame, FrameHeader};
use crate::fs::Fs;
use crate::{Epoch, Offset};

/// The segments of one partition, in order; the last one grows.
pub(crate) struct Partition {
    directory: PathBuf,
    segments: Vec<Segment>,
    recent: Recent,
    /// The last segment ends in bytes that are no frame.
    torn: bool,
    /// Set by a failed sync; nothing is written after that.
    poisoned: bool,
}

/// The last committed frames, for readers that follow the end.
#[derive(Default)]
struct Recent {
    frames: VecDeque<Frame>,
    bytes: usize,
}

/// A frame that is written but not yet committed.
pub(crate) struct Written {
    frame: Frame,
    position: u64,
    bytes: u64,
}

impl Partition {
    pub(crate) fn create(fs: &dyn Fs, directory: &Path) -> Result<Self> {
        fs.create_dir(directory)?;
        let segment = Segment::create(fs, directory, 0)?;
        Ok(Self {
            directory: directory.to_owned(),
            segments: vec![segment],
            recent: Recent::default(),
            torn: false,
            poisoned: false,
        })
    }

    /// Opens what is on disk; `seen` learns the epochs of the last segment.
    pub(crate) fn open(fs: &dyn Fs, directory: &Path, seen: &mut Seen) -> Result<Self> {
        let mut paths: Vec<(Offset, PathBuf)> =
            fs.list(directory)?.into_iter().filter_map(|path| Some((segment_base(&path)?, path))).collect();
        paths.sort();
        let Some((base, last)) = paths.pop() else { return Self::create(fs, directory) };
        let mut segments = Vec::new();
        for (base, path) in &paths {
            segments.push(Segment::open_sealed(fs, path, *base)?);
        }
        let (active, tail) = Segment::open_active(fs, &last, base, |raw| seen.frame(&raw.header))?;
        let torn = matches!(tail, Tail::Torn);
        if torn {
            seen.torn(&last, active.index.len);
        }
        segments.push(active);
        for pair in segments.windows(2) {
            if let [before, after] = pair
                && before.index.end != after.base
            {
                return Err(Error::corrupt(
                    &after.path,
                    0,
                    format!("records from offset {} are missing", before.index.end),
                ));
            }
        }
        Ok(Self {
            directory: directory.to_owned(),
            segments,
            recent: Recent::default(),
            torn,
            poisoned: false,
        })
    }

    /// Cuts a torn end off the last segment.
    pub(crate) fn cut_torn(&mut self) -> Result<()> {
        if std::mem::take(&mut self.torn) { self.active()?.cut() } else { Ok(()) }
    }

    fn active(&self) -> Result<&Segment> {
        self.segments.last().ok_or_else(|| Error::Poisoned { path: self.directory.clone() })
    }

    pub(crate) fn start(&self) -> Offset {
        self.segments.first().map_or(0, |s| s.base)
    }

    pub(crate) fn end(&self) -> Offset {
        self.segments.last().map_or(0, |s| s.index.end)
    }

    pub(crate) fn size_bytes(&self) -> u64 {
        self.segments.iter().map(|s| s.index.len).sum()
    }

    pub(crate) fn last_epoch(&self) -> Epoch {
        self.segments.iter().rev().map(|s| s.index.last_epoch).find(|e| *e > 0).unwrap_or(0)
    }

    /// Writes a frame after the last one; it counts only after [`Self::commit`].
    pub(crate) fn write(
        &mut self,
        fs: &dyn Fs,
        config: &LogConfig,
        header: FrameHeader,
        body: &bytes::Bytes,
    ) -> Result<Written> {
        if self.poisoned {
            return Err(Error::Poisoned { path: self.directory.clone() });
        }
        if self.active()?.index.len >= config.segment_bytes {
            self.roll(fs)?;
        }
        let header = FrameHeader { base_offset: self.end(), ..header };
        let mut bytes = Vec::new();
        header.encode(body, &mut bytes)?;
        let active = self.active()?;
        let position = active.index.len;
        active.file.write_at(&bytes, position)?;
        Ok(Written { frame: Frame { header, body: body.clone() }, position, bytes: bytes.len() as u64 })
    }

    /// Makes written frames durable. A failure poisons the partition: the kernel may have dropped
    /// the pages, and a second sync that succeeds would mean nothing.
    pub(crate) fn sync(&mut self) -> Result<()> {
        let synced = self.active().and_then(|segment| segment.file.sync());
        self.poisoned |= synced.is_err();
        synced
    }

    /// Shows a written frame to readers.
    pub(crate) fn commit(&mut self, written: Written, config: &LogConfig) {
        if let Some(segment) = self.segments.last_mut() {
            segment.index.push(&written.frame.header, written.position, written.bytes);
        }
        self.recent.push(written.frame, config.recent_bytes);
    }

    /// Takes back what was written and not committed.
    pub(crate) fn undo(&mut self) {
        let undone = self.active().and_then(|segment| segment.file.truncate(segment.index.len));
        self.poisoned |= undone.is_err();
    }

    fn roll(&mut self, fs: &dyn Fs) -> Result<()> {
        let sealed = self.active()?;
        sealed.file.sync()?;
        sealed.index.store(fs, &sealed.path.with_extension("idx"))?;
        let next = Segment::create(fs, &self.directory, self.end())?;
        self.segments.push(next);
        Ok(())
    }

    pub(crate) fn read(&self, from: Offset, until: Offset, max_bytes: usize) -> Result<Vec<Frame>> {
        let mut out = Vec::new();
        if self.recent.read(from, until, max_bytes, &mut out) {
            return Ok(out);
        }
        let first = self.segments.partition_point(|s| s.index.end <= from);
        for segment in self.segments.iter().skip(first) {
            let bytes: usize = out.iter().map(|f| f.body.len()).sum();
            if bytes >= max_bytes || segment.base >= until {
                break;
            }
            segment.read(from, until, max_bytes - bytes, &mut out)?;
        }
        Ok(out)
    }

    pub(crate) fn cut_from_epoch(&mut self, epoch: Epoch) -> Result<()> {
        match self.segments.last_mut() {
            Some(segment) if segment.index.last_epoch >= epoch => segment.cut_from_epoch(epoch),
            _ => Ok(()),
        }
    }

    /// Removes the oldest sealed segments that `retention` lets go and nothing at `hold` needs.
    pub(crate) fn retain(
        &mut self,
        fs: &dyn Fs,
        retention: Retention,
        now_ms: i64,
        hold: Offset,
    ) -> Result<usize> {
        let mut size = self.size_bytes();
        let mut removable = 0;
        for segment in self.segments.iter().take(self.segments.len().saturating_sub(1)) {
            let old = retention
                .max_age_ms
                .is_some_and(|age| segment.index.max_time_ms < now_ms.saturating_sub(age));
            let large = retention.max_bytes.is_some_and(|most| size > most);
            if !(old || large) || segment.index.end > hold {
                break;
            }
            size -= segment.index.len;
            removable += 1;
        }
        for segment in self.segments.drain(..removable) {
            fs.remove(&segment.path)?;
            fs.remove(&segment.path.with_extension("idx"))?;
        }
        if removable > 0 {
            fs.sync_dir(&self.directory)?;
        }
        Ok(removable)
    }
}

impl Recent {
    fn push(&mut self, frame: Frame, most: usize) {
        self.bytes += frame.body.len();
        self.frames.push_back(frame);
        while self.bytes > most
            && let Some(old) = self.frames.pop_front()
        {
            self.bytes -= old.body.len();
        }
    }

    /// Reads from memory; false when `from` lies before the first frame here.
    fn read(&self, from: Offset, until: Offset, max_bytes: usize, out: &mut Vec<Frame>) -> bool {
        if self.frames.front().is_none_or(|f| f.header.base_offset > from) {
            return false;
        }
        let mut bytes = 0;
        for frame in self.frames.iter().filter(|f| f.header.end_offset() > from) {
            if frame.header.base_offset >= until || bytes >= max_bytes {
                break;
            }
            bytes += frame.body.len();
            out.push(frame.clone());
        }
        true
    }
}

fn segment_base(path: &Path) -> Option<Offset> {
    (path.extension()? == "seg").then(|| path.file_stem()?.to_str()?.parse().ok()).flatten()
}
