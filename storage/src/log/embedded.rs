//! The log in this process: `topics/NAME/PARTITION/BASE.seg` under one directory.
//!
//! `commit` is the group commit: it writes every frame of an epoch, syncs every file it touched,
//! and only then shows any of them. Epoch and part numbers in the frame headers make the epoch
//! atomic over partitions without a second sync (docs/decisions/0001-log-format.md).

use std::collections::HashMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Condvar, Mutex, RwLock};

use super::partition::{Found, Partition, Written};
use super::recovery::{Decision, Recovered, Seen};
use super::segment::Extent;
use super::{Append, Log, Retention, Sync, TopicPartition};
use crate::error::{Error, Kind, Result};
use crate::frame::{Frame, FrameHeader};
use crate::fs::{Fs, Room};
use crate::{Epoch, Offset};

/// Sizes of the embedded log.
#[derive(Debug, Clone, Copy)]
pub struct LogConfig {
    /// A segment is sealed when it is this long.
    pub segment_bytes: u64,
    /// Frames of a partition that stay in memory.
    pub recent_bytes: usize,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { segment_bytes: 256 << 20, recent_bytes: 1 << 20 }
    }
}

/// A topic on disk.
enum Topic {
    Whole(Partitions),
    /// Something of it is not as it was written: it is out of use, and its files stay as they are.
    Damaged(Error),
}

type Partitions = Vec<Arc<Mutex<Partition>>>;

/// The embedded log.
pub struct EmbeddedLog {
    fs: Arc<dyn Fs>,
    root: PathBuf,
    config: LogConfig,
    topics: RwLock<HashMap<String, Topic>>,
    closed: (Mutex<bool>, Condvar),
}

/// The part of a disk that new records leave to the results of those there are, and the most of it in bytes.
const RESERVED_PART: u64 = 50;
const RESERVED_BYTES: u64 = 64 << 20;
/// How often it is tried whether a full disk has room.
const ROOM_AGAIN: Duration = Duration::from_millis(100);

impl EmbeddedLog {
    /// Opens the log under `root`. `acknowledged` is an epoch known to have been acknowledged: a
    /// torn file that would lose it is damage. `live` says which topics still exist; what is left
    /// of others is removed. A damaged topic is out of use: whatever is asked of it is [`Error::Corrupt`].
    ///
    /// # Errors
    /// Any of the disk.
    pub fn open(
        fs: Arc<dyn Fs>,
        root: &Path,
        config: LogConfig,
        acknowledged: Epoch,
        live: impl Fn(&str) -> bool,
    ) -> Result<(Self, Recovered)> {
        fs.create_dirs(root)?;
        let mut seen = Seen::default();
        let mut topics = HashMap::new();
        for path in fs.list(root)? {
            let Some(name) = path.file_name().and_then(|n| n.to_str()) else { continue };
            if !live(name) {
                fs.remove(&path)?;
                continue;
            }
            let topic = match open_partitions(fs.as_ref(), &path, &mut seen) {
                Ok(partitions) => Topic::Whole(partitions),
                Err(error) if error.kind() == Kind::Corrupt => {
                    seen.cannot_tell(u32::try_from(fs.list(&path)?.len()).unwrap_or(u32::MAX));
                    Topic::Damaged(error)
                }
                Err(error) => return Err(error),
            };
            topics.insert(name.to_owned(), topic);
        }
        let newest = topics.values().flat_map(Topic::partitions).map(|p| p.lock().last_epoch()).max();
        // Nothing is cut before it is known that nothing acknowledged goes with it.
        let Decision { recovered, torn_is_damage } = seen.decide(acknowledged, newest.unwrap_or(0));
        for topic in topics.values_mut() {
            let torn = topic.partitions().iter().find_map(|partition| partition.lock().torn_at());
            if let Some((path, position)) = torn.filter(|_| torn_is_damage) {
                let reason = format!("what follows was acknowledged up to epoch {acknowledged}");
                *topic = Topic::Damaged(Error::corrupt(&path, position, reason));
            }
            for partition in topic.partitions() {
                partition.lock().cut_torn()?;
                if let Some(epoch) = recovered.cut_epoch {
                    partition.lock().cut_from_epoch(epoch)?;
                }
            }
        }
        Ok((
            Self {
                fs,
                root: root.to_owned(),
                config,
                topics: RwLock::new(topics),
                closed: Default::default(),
            },
            recovered,
        ))
    }

    /// Refuses new records while the disk is all but full: what comes of those that were accepted has room, and
    /// who reads does not wait for it.
    fn leave_reserve(&self) -> Result<()> {
        // A disk that does not tell refuses by itself.
        let Ok(Room { free, size }) = self.fs.room(&self.root) else { return Ok(()) };
        if free < (size / RESERVED_PART).min(RESERVED_BYTES) {
            return Err(Error::io("write", &self.root)(std::io::ErrorKind::StorageFull.into()));
        }
        Ok(())
    }

    fn partition(&self, at: &TopicPartition) -> Result<Arc<Mutex<Partition>>> {
        let topics = self.topics.read();
        let there = match topics.get(&at.topic) {
            Some(Topic::Damaged(Error::Corrupt { path, position, reason })) => {
                return Err(Error::corrupt(path, *position, reason.clone()));
            }
            Some(topic) => topic.partitions().get(at.partition as usize),
            None => None,
        };
        let none = || Error::NoSuchPartition { topic: at.topic.clone(), partition: at.partition };
        there.cloned().ok_or_else(none)
    }

    fn write(&self, partition: &Mutex<Partition>, header: FrameHeader, body: &Bytes) -> Result<Written> {
        let full = partition.lock().full(&self.config);
        if let Some(full) = full {
            let next = full.next(self.fs.as_ref())?;
            partition.lock().go_on_in(next);
        }
        let place = partition.lock().place()?;
        place.write(header, body)
    }

    fn commit_to(
        &self,
        partitions: &[Arc<Mutex<Partition>>],
        stamp: FrameHeader,
        appends: &[Append],
        sync: Sync,
    ) -> Result<Vec<Offset>> {
        let mut written = Vec::with_capacity(appends.len());
        for (index, (partition, append)) in partitions.iter().zip(appends).enumerate() {
            let header = FrameHeader {
                count: append.count,
                format: append.format,
                min_time_ms: append.times_ms.0,
                max_time_ms: append.times_ms.1,
                part: u32::try_from(index).unwrap_or(u32::MAX),
                ..stamp
            };
            written.push(self.write(partition, header, &append.body)?);
        }
        if sync == Sync::Durable {
            partitions.iter().try_for_each(|partition| self::sync(partition))?;
        }
        let mut offsets = Vec::with_capacity(appends.len());
        for (partition, written) in partitions.iter().zip(written) {
            let mut partition = partition.lock();
            offsets.push(partition.end());
            partition.commit(written, &self.config);
        }
        Ok(offsets)
    }
}

impl Topic {
    /// Those that can be used.
    fn partitions(&self) -> &[Arc<Mutex<Partition>>] {
        match self {
            Self::Whole(partitions) => partitions,
            Self::Damaged(_) => &[],
        }
    }
}

/// Makes what was written durable. Who reads does not wait for it.
fn sync(partition: &Mutex<Partition>) -> Result<()> {
    let file = partition.lock().file();
    let synced = file.sync();
    if synced.is_err() {
        partition.lock().poison();
    }
    synced
}

/// Frames with offsets in a range, about `max_bytes` of them.
fn read_all(extents: &[Extent], range: Range<Offset>, max_bytes: usize) -> Result<Vec<Frame>> {
    let mut frames: Vec<Frame> = Vec::new();
    for extent in extents {
        let left = max_bytes.saturating_sub(frames.iter().map(|frame| frame.body.len()).sum());
        if left == 0 {
            break;
        }
        extent.read(range.clone(), left, &mut frames)?;
    }
    Ok(frames)
}

fn open_partitions(fs: &dyn Fs, topic: &Path, seen: &mut Seen) -> Result<Partitions> {
    let mut numbered: Vec<(u32, PathBuf)> = fs
        .list(topic)?
        .into_iter()
        .filter_map(|path| Some((path.file_name()?.to_str()?.parse().ok()?, path)))
        .collect();
    numbered.sort();
    numbered.iter().map(|(_, path)| Ok(Arc::new(Mutex::new(Partition::open(fs, path, seen)?)))).collect()
}

impl Log for EmbeddedLog {
    fn create_topic(&self, topic: &str, partitions: u32) -> Result<()> {
        let mut topics = self.topics.write();
        let opened = match topics.entry(topic.to_owned()).or_insert_with(|| Topic::Whole(Vec::new())) {
            Topic::Whole(opened) => opened,
            Topic::Damaged(_) => return Ok(()),
        };
        let directory = self.root.join(topic);
        for number in u32::try_from(opened.len()).unwrap_or(u32::MAX)..partitions {
            let partition = Partition::create(self.fs.as_ref(), &directory.join(number.to_string()))?;
            opened.push(Arc::new(Mutex::new(partition)));
        }
        Ok(())
    }

    fn drop_topic(&self, topic: &str) -> Result<()> {
        self.topics.write().remove(topic);
        self.fs.remove(&self.root.join(topic))
    }

    fn sync_topic(&self, topic: &str) -> Result<()> {
        let partitions = self.topics.read().get(topic).map(|t| t.partitions().to_vec()).unwrap_or_default();
        partitions.iter().try_for_each(|partition| self::sync(partition))
    }

    fn topics(&self) -> Vec<String> {
        self.topics.read().keys().cloned().collect()
    }

    /// Each append goes to a partition of its own: two for one partition would be one frame.
    fn commit(&self, epoch: Epoch, now_ms: i64, appends: &[Append], sync: Sync) -> Result<Vec<Offset>> {
        if sync == Sync::Durable {
            self.leave_reserve()?;
        }
        let partitions = appends.iter().map(|a| self.partition(&a.to)).collect::<Result<Vec<_>>>()?;
        // What can be computed again says nothing about which epochs were acknowledged.
        let parts = if sync == Sync::Durable { u32::try_from(appends.len()).unwrap_or(u32::MAX) } else { 0 };
        let stamp = FrameHeader { epoch, now_ms, parts, ..Default::default() };
        let committed = self.commit_to(&partitions, stamp, appends, sync);
        if committed.is_err() {
            for partition in &partitions {
                partition.lock().undo();
            }
        }
        committed
    }

    fn wait_for_room(&self) -> bool {
        let (closed, ended) = &self.closed;
        let mut closed = closed.lock();
        if !*closed {
            ended.wait_for(&mut closed, ROOM_AGAIN);
        }
        !*closed
    }

    fn close(&self) {
        *self.closed.0.lock() = true;
        self.closed.1.notify_all();
    }

    fn read(&self, at: &TopicPartition, from: Offset, until: Offset, max_bytes: usize) -> Result<Vec<Frame>> {
        let found = self.partition(at)?.lock().find(self.fs.as_ref(), from, until, max_bytes)?;
        match found {
            Found::InMemory(frames) => Ok(frames),
            Found::OnDisk(extents) => read_all(&extents, from..until, max_bytes),
        }
    }

    fn bounds(&self, at: &TopicPartition) -> Result<Range<Offset>> {
        let partition = self.partition(at)?;
        let partition = partition.lock();
        Ok(partition.start()..partition.end())
    }

    fn size_bytes(&self, at: &TopicPartition) -> Result<u64> {
        Ok(self.partition(at)?.lock().size_bytes())
    }

    fn retain(&self, at: &TopicPartition, retention: Retention, now_ms: i64, hold: Offset) -> Result<usize> {
        self.partition(at)?.lock().retain(self.fs.as_ref(), retention, now_ms, hold)
    }
}
