//! The bytes: a partitioned log of opaque frames, a journal of decisions, a projection of that journal
//! for look-ups, and checkpoints of opaque state. Knows no SQL and no Arrow.
//!
//! Invariant: what `commit` and `Journal::append` return is on disk. Next: `executor` gives the
//! frames meaning.

#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

pub mod backup;
mod check;
pub mod checkpoint;
mod clock;
mod error;
mod frame;
mod fs;
mod lock;
pub mod log;
pub mod meta;

pub use check::{CheckReport, Finding, check};
pub use clock::{Clock, ManualClock, SystemClock};
pub use error::{Error, Kind, Result};
pub use frame::{Frame, FrameHeader, HEADER_BYTES};
pub use fs::{Disk, Fs, FsFile, Room};
pub use lock::DirLock;

/// Position of a record in its partition.
pub type Offset = u64;
/// Number of a group commit, global to a data directory, from 1.
pub type Epoch = u64;
