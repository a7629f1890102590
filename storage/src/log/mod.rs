//! Topics: named, partitioned, append-only sequences of frames.
//!
//! [`Log`] is what the engine sees; [`EmbeddedLog`] is the backend in this process. A second
//! backend (Kafka) has the same shape: one `commit` for each epoch, reads by offset.

mod embedded;
mod index;
mod partition;
mod recovery;
mod segment;

use std::ops::Range;

use bytes::Bytes;

pub use embedded::{EmbeddedLog, LogConfig};
pub use recovery::Recovered;
pub(crate) use segment::{SegmentCheck, check_segment};

use crate::error::Result;
use crate::frame::Frame;
use crate::{Epoch, Offset};

/// A topic's partition.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicPartition {
    /// Name of the topic, unique for ever.
    pub topic: String,
    /// Partition, from 0.
    pub partition: u32,
}

/// Records to append to one partition as one frame.
#[derive(Debug, Clone)]
pub struct Append {
    /// Where to.
    pub to: TopicPartition,
    /// Number of records.
    pub count: u32,
    /// How the body is encoded.
    pub format: u32,
    /// Smallest and largest record time, ms since 1970.
    pub times_ms: (i64, i64),
    /// The records.
    pub body: Bytes,
}

/// How a commit reaches the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sync {
    /// On disk when `commit` returns.
    Durable,
    /// With the operating system: for what can be computed again.
    Derived,
}

/// A partitioned log.
pub trait Log: Send + std::marker::Sync {
    /// Makes a topic; one that is there already is left as it is.
    ///
    /// # Errors
    /// Any of the disk.
    fn create_topic(&self, topic: &str, partitions: u32) -> Result<()>;

    /// Removes a topic with all its records, if it is there.
    ///
    /// # Errors
    /// Any of the disk.
    fn drop_topic(&self, topic: &str) -> Result<()>;

    /// Makes everything that was appended to a topic durable.
    ///
    /// # Errors
    /// Any of the disk.
    fn sync_topic(&self, topic: &str) -> Result<()>;

    /// Names of all topics.
    fn topics(&self) -> Vec<String>;

    /// Appends all of `appends` as `epoch`, all or nothing, and returns the offset given to the
    /// first record of each. Epochs must grow.
    ///
    /// # Errors
    /// After an error nothing of the epoch is there; after a failed sync the log takes no more.
    fn commit(&self, epoch: Epoch, now_ms: i64, appends: &[Append], sync: Sync) -> Result<Vec<Offset>>;

    /// Waits until a full disk may have room again; false when the log is closed and there is nothing to wait
    /// for.
    fn wait_for_room(&self) -> bool;

    /// Ends every wait.
    fn close(&self);

    /// Whole frames from the one that holds `from` up to `until`, at least one if there is any,
    /// no more than fit in `max_bytes`.
    ///
    /// # Errors
    /// [`crate::Error::Corrupt`] names file and byte.
    fn read(&self, at: &TopicPartition, from: Offset, until: Offset, max_bytes: usize) -> Result<Vec<Frame>>;

    /// First offset still there and the one after the last.
    ///
    /// # Errors
    /// [`crate::Error::NoSuchPartition`].
    fn bounds(&self, at: &TopicPartition) -> Result<Range<Offset>>;

    /// Bytes on disk of a partition.
    ///
    /// # Errors
    /// [`crate::Error::NoSuchPartition`].
    fn size_bytes(&self, at: &TopicPartition) -> Result<u64>;

    /// Removes whole segments that are older than `retention` allows and wholly before `hold`.
    /// Returns how many went.
    ///
    /// # Errors
    /// Any of the disk.
    fn retain(&self, at: &TopicPartition, retention: Retention, now_ms: i64, hold: Offset) -> Result<usize>;
}

/// How long and how much a topic keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Retention {
    /// Records older than this may go.
    pub max_age_ms: Option<i64>,
    /// The oldest may go when a partition is larger than this.
    pub max_bytes: Option<u64>,
}
