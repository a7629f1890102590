//! What can go wrong with bytes, and what the caller does about it.

use std::io;
use std::path::{Path, PathBuf};

/// A failure of storage.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system refused.
    #[error("could not {action} \"{}\"", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The bytes on disk are not the bytes that were written.
    #[error("\"{}\" is damaged at byte {position}: {reason}", path.display())]
    Corrupt {
        /// The damaged file.
        path: PathBuf,
        /// Where.
        position: u64,
        /// What does not fit.
        reason: String,
    },
    /// A write or sync failed before; the file must not be used until it is opened again.
    ///
    /// Source: Rebello et al., "Can Applications Recover from fsync Failures?" (USENIX ATC 2020).
    #[error("\"{}\" was closed to writing after a failed write", path.display())]
    Poisoned {
        /// The file.
        path: PathBuf,
    },
    /// Another process holds the directory.
    #[error("data directory \"{}\" is in use by another server", path.display())]
    Locked {
        /// The directory.
        path: PathBuf,
    },
    /// No such topic or partition.
    #[error("topic \"{topic}\" has no partition {partition}")]
    NoSuchPartition {
        /// The topic.
        topic: String,
        /// The partition.
        partition: u32,
    },
    /// A copy would be put among other files.
    #[error("\"{}\" is not empty", path.display())]
    NotEmpty {
        /// The directory.
        path: PathBuf,
    },
    /// Files changed faster than they could be opened.
    #[error("the files in \"{}\" changed while they were opened", path.display())]
    Busy {
        /// Their directory.
        path: PathBuf,
    },
    /// Who wanted it done wants it no longer.
    #[error("stopped on request")]
    Stopped,
    /// A frame larger than the format can say.
    #[error("a batch of {bytes} bytes exceeds the limit of {limit}")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The largest possible.
        limit: usize,
    },
}

/// The result of a storage operation.
pub type Result<T> = std::result::Result<T, Error>;

/// What a caller can do about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// No space is left: free some and try again.
    DiskFull,
    /// The disk failed: restart after a repair.
    Fatal,
    /// The data is damaged.
    Corrupt,
    /// There is something already: choose another place.
    Exists,
    /// The caller asked for something that is not there.
    Misuse,
}

impl Error {
    /// What to do about it.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Io { source, .. } if is_full(source) => Kind::DiskFull,
            Self::Io { .. } | Self::Poisoned { .. } | Self::Locked { .. } => Kind::Fatal,
            Self::Corrupt { .. } => Kind::Corrupt,
            Self::NoSuchPartition { .. } | Self::TooLarge { .. } | Self::Busy { .. } | Self::Stopped => {
                Kind::Misuse
            }
            Self::NotEmpty { .. } => Kind::Exists,
        }
    }

    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }

    pub(crate) fn corrupt(path: &Path, position: u64, reason: impl Into<String>) -> Self {
        Self::Corrupt { path: path.to_owned(), position, reason: reason.into() }
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
