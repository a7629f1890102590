//! A partition: sealed segments, one that grows, and the last frames in memory.
//!
//! Invariant: offsets are dense; a reader sees a frame only after its commit returned. Nothing here waits for a
//! disk but to open a file: what is written, synced and read is so by those who hold the partition no longer, and one
//! thread at a time writes.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::index::Index;
use super::recovery::Seen;
use super::segment::{Extent, OpenSegment, Segment, Tail};
use super::{LogConfig, Retention};
use crate::error::{Error, Result};
use crate::frame::{Frame, FrameHeader};
use crate::fs::{Fs, FsFile};
use crate::{Epoch, Offset};

/// The segments of one partition, in order.
pub(crate) struct Partition {
    directory: PathBuf,
    sealed: Vec<Segment>,
    /// The last one, which grows.
    active: OpenSegment,
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

/// Where the next frame goes.
pub(crate) struct Place {
    file: Arc<dyn FsFile>,
    position: u64,
    base_offset: Offset,
}

/// A frame that is written but not yet committed.
pub(crate) struct Written {
    frame: Frame,
    position: u64,
    bytes: u64,
}

impl Place {
    /// Writes a frame; it counts only after [`Partition::commit`].
    pub(crate) fn write(self, header: FrameHeader, body: &bytes::Bytes) -> Result<Written> {
        let header = FrameHeader { base_offset: self.base_offset, ..header };
        let bytes = header.write(body, self.file.as_ref(), self.position)?;
        let frame = Frame { header, body: body.clone() };
        Ok(Written { frame, position: self.position, bytes })
    }
}

/// A segment that is full.
pub(crate) struct Full {
    file: Arc<dyn FsFile>,
    path: PathBuf,
    index: Index,
    directory: PathBuf,
}

impl Full {
    /// Makes the segment durable, with its index beside it, and the one that comes after it.
    pub(crate) fn next(self, fs: &dyn Fs) -> Result<OpenSegment> {
        self.file.sync()?;
        self.index.store(fs, &self.path.with_extension("idx"))?;
        OpenSegment::create(fs, &self.directory, self.index.end)
    }
}

/// Where frames are found.
pub(crate) enum Found {
    InMemory(Vec<Frame>),
    OnDisk(Vec<Extent>),
}

impl Partition {
    pub(crate) fn create(fs: &dyn Fs, directory: &Path) -> Result<Self> {
        fs.create_dirs(directory)?;
        Ok(Self {
            directory: directory.to_owned(),
            sealed: Vec::new(),
            active: OpenSegment::create(fs, directory, 0)?,
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
        let sealed =
            paths.iter().map(|(base, path)| Segment::sealed(fs, path, *base)).collect::<Result<Vec<_>>>()?;
        let (active, tail) = OpenSegment::open(fs.open(&last)?, &last, base, |raw| seen.frame(&raw.header))?;
        // The last epoch that is whole may have ended the segment before: a crash came as this one began.
        if active.segment.index.len == 0
            && let Some(before) = sealed.last()
            && let Some(header) = before.last_header(fs)?
        {
            seen.frame(&header);
        }
        let torn = matches!(tail, Tail::Torn);
        if torn {
            seen.torn(&last, active.segment.index.len);
        }
        let all = || sealed.iter().chain([&active.segment]);
        for (before, after) in all().zip(all().skip(1)) {
            if before.index.end != after.base {
                let missing = format!("records from offset {} are missing", before.index.end);
                return Err(Error::corrupt(&after.path, 0, missing));
            }
        }
        let directory = directory.to_owned();
        Ok(Self { directory, sealed, active, recent: Recent::default(), torn, poisoned: false })
    }

    /// The file whose end is torn, and where.
    pub(crate) fn torn_at(&self) -> Option<(PathBuf, u64)> {
        self.torn.then(|| (self.active.segment.path.clone(), self.active.segment.index.len))
    }

    /// Cuts a torn end off the last segment.
    pub(crate) fn cut_torn(&mut self) -> Result<()> {
        if std::mem::take(&mut self.torn) { self.active.cut() } else { Ok(()) }
    }

    fn segments(&self) -> impl DoubleEndedIterator<Item = &Segment> {
        self.sealed.iter().chain([&self.active.segment])
    }

    pub(crate) fn start(&self) -> Offset {
        self.sealed.first().unwrap_or(&self.active.segment).base
    }

    pub(crate) fn end(&self) -> Offset {
        self.active.segment.index.end
    }

    pub(crate) fn size_bytes(&self) -> u64 {
        self.segments().map(|s| s.index.len).sum()
    }

    pub(crate) fn last_epoch(&self) -> Epoch {
        self.segments().rev().map(|s| s.index.last_epoch).find(|e| *e > 0).unwrap_or(0)
    }

    /// The last segment, once it is as long as segments get.
    pub(crate) fn full(&self, config: &LogConfig) -> Option<Full> {
        let OpenSegment { segment: Segment { path, index, .. }, file } = &self.active;
        (index.len >= config.segment_bytes).then(|| Full {
            file: Arc::clone(file),
            path: path.clone(),
            index: index.clone(),
            directory: self.directory.clone(),
        })
    }

    /// Goes on in another segment.
    pub(crate) fn go_on_in(&mut self, next: OpenSegment) {
        self.sealed.push(std::mem::replace(&mut self.active, next).segment);
    }

    /// Where the next frame goes.
    ///
    /// # Errors
    /// [`Error::Poisoned`].
    pub(crate) fn place(&self) -> Result<Place> {
        if self.poisoned {
            return Err(Error::Poisoned { path: self.directory.clone() });
        }
        let position = self.active.segment.index.len;
        Ok(Place { file: self.file(), position, base_offset: self.end() })
    }

    /// The file that has to be synced.
    pub(crate) fn file(&self) -> Arc<dyn FsFile> {
        Arc::clone(&self.active.file)
    }

    /// Takes no more after a sync failed: the kernel may have dropped the pages, and a second sync that succeeds
    /// would mean nothing.
    pub(crate) fn poison(&mut self) {
        self.poisoned = true;
    }

    /// Shows a written frame to readers.
    pub(crate) fn commit(&mut self, written: Written, config: &LogConfig) {
        self.active.segment.index.push(&written.frame.header, written.position, written.bytes);
        self.recent.push(written.frame, config.recent_bytes);
    }

    /// Takes back what was written and not committed.
    pub(crate) fn undo(&mut self) {
        let undone = self.active.file.truncate(self.active.segment.index.len);
        self.poisoned |= undone.is_err();
    }

    /// Where frames with offsets in `from..until` are, about `max_bytes` of them.
    pub(crate) fn find(&self, fs: &dyn Fs, from: Offset, until: Offset, max_bytes: usize) -> Result<Found> {
        let mut frames = Vec::new();
        if self.recent.read(from, until, max_bytes, &mut frames) {
            return Ok(Found::InMemory(frames));
        }
        let (mut extents, mut bytes) = (Vec::new(), 0);
        let first = self.sealed.partition_point(|s| s.index.end <= from);
        for segment in self.sealed.iter().skip(first).take_while(|segment| segment.base < until) {
            if bytes >= max_bytes as u64 {
                return Ok(Found::OnDisk(extents));
            }
            let extent = segment.extent(fs, from)?;
            bytes += extent.bytes();
            extents.push(extent);
        }
        extents.push(self.active.extent(from));
        Ok(Found::OnDisk(extents))
    }

    pub(crate) fn cut_from_epoch(&mut self, epoch: Epoch) -> Result<()> {
        if self.active.segment.index.last_epoch < epoch {
            return Ok(());
        }
        self.active.cut_from_epoch(epoch)
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
        for segment in &self.sealed {
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
        for segment in self.sealed.drain(..removable) {
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
