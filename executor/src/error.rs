//! What can go wrong in motion, and whose fault it is.

use std::sync::Arc;

use datafusion::arrow::error::ArrowError;
use datafusion::common::DataFusionError;

use crate::format::Undecodable;

/// A failure while data moves.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The statement means nothing, or something we do not run.
    #[error(transparent)]
    Plan(#[from] planner::Error),
    /// The bytes failed.
    #[error("{0}")]
    Storage(#[source] Arc<storage::Error>),
    /// An expression or a kernel failed on the data it got.
    #[error("{}", first_line(.0))]
    Evaluation(ArrowError),
    /// A value is missing where one must be.
    #[error("null value in column \"{column}\" of relation \"{relation}\" violates not-null constraint")]
    NullValue {
        /// The column.
        column: String,
        /// Its relation.
        relation: String,
    },
    /// A statement writes to a relation that has no place for it.
    #[error("cannot {action} \"{relation}\": {reason}")]
    NotWritable {
        /// What was tried.
        action: &'static str,
        /// On which relation.
        relation: String,
        /// Why not.
        reason: &'static str,
    },
    /// A query that keeps the relation up to date has stopped.
    #[error("the query of \"{relation}\" has failed: {reason}")]
    QueryFailed {
        /// The relation.
        relation: String,
        /// Why.
        reason: String,
    },
    /// What a query has read would have to be read again, and is no longer there.
    #[error("no checkpoint of it can be used, and records of \"{stream}\" that it has read are gone")]
    LostHistory {
        /// The stream.
        stream: String,
    },
    /// A query needed more memory than it may have, and was stopped.
    #[error("the query of \"{relation}\" has reached the memory limit of {limit} bytes")]
    MemoryLimit {
        /// The relation.
        relation: String,
        /// The limit, bytes.
        limit: u64,
    },
    /// A recursion goes on and on.
    #[error("the recursion has not ended after {steps} steps with {rows} rows")]
    EndlessRecursion {
        /// How often it has brought rows.
        steps: usize,
        /// How many.
        rows: usize,
    },
    /// A table would grow when there is as much as there may be.
    #[error("\"{relation}\" cannot grow: what is kept has reached the memory limit of {limit} bytes")]
    NoMemory {
        /// The table.
        relation: String,
        /// The limit of all that is kept, bytes.
        limit: u64,
    },
    /// A record is no row.
    #[error("{0}")]
    Undecodable(Undecodable),
    /// A row came when what it belongs to was over.
    #[error("late: {0}")]
    Late(Lateness),
    /// A limit was reached.
    #[error("{what} exceeds the limit of {limit}")]
    Limit {
        /// What.
        what: &'static str,
        /// How much is allowed.
        limit: usize,
    },
    /// A reader fell so far behind that it was cut off.
    #[error("the reader fell behind by more than {limit} rows")]
    SlowReader {
        /// The bound on what waits for it.
        limit: usize,
    },
    /// What a reader watched is gone.
    #[error("relation \"{0}\" was dropped")]
    Dropped(String),
    /// Took longer than it may.
    #[error("the view did not reach epoch {epoch} in time")]
    Stale {
        /// The epoch waited for.
        epoch: u64,
    },
    /// The engine is stopping.
    #[error("the server is shutting down")]
    ShuttingDown,
    /// A step panicked; the query is set aside.
    #[error("internal error in {place}: {message}")]
    Bug {
        /// Where.
        place: String,
        /// What was said.
        message: String,
    },
}

/// What was over when a row came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lateness {
    /// Its window.
    Window {
        /// The window's end, ms since 1970.
        end_ms: i64,
    },
    /// The session it would be in.
    Session,
    /// The time in which it could be joined, and it met nothing.
    Join,
}

impl std::fmt::Display for Lateness {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Window { end_ms } => write!(f, "its window closed at {end_ms} ms"),
            Self::Session => f.write_str("its session has closed"),
            Self::Join => f.write_str("its time to be joined is over"),
        }
    }
}

/// The result of moving data.
pub type Result<T> = std::result::Result<T, Error>;

/// Whose fault an error is, which decides what happens next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// The statement or the row: it fails alone.
    User,
    /// The world outside: try again later.
    External,
    /// Data on disk is damaged.
    Corrupt,
    /// We are wrong: the query is set aside.
    Bug,
}

impl Error {
    /// Whose fault it is.
    pub fn class(&self) -> Class {
        match self {
            Self::Storage(error) => match error.kind() {
                storage::Kind::Corrupt => Class::Corrupt,
                storage::Kind::DiskFull | storage::Kind::Fatal => Class::External,
                storage::Kind::Exists => Class::User,
                storage::Kind::Misuse => Class::Bug,
            },
            Self::ShuttingDown | Self::SlowReader { .. } | Self::Stale { .. } => Class::External,
            Self::Bug { .. } => Class::Bug,
            _ => Class::User,
        }
    }

    pub(crate) fn bug(place: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Bug { place: place.into(), message: message.into() }
    }
}

impl From<storage::Error> for Error {
    fn from(error: storage::Error) -> Self {
        Self::Storage(Arc::new(error))
    }
}

impl From<ArrowError> for Error {
    fn from(error: ArrowError) -> Self {
        Self::Evaluation(error)
    }
}

impl From<DataFusionError> for Error {
    fn from(error: DataFusionError) -> Self {
        match error {
            DataFusionError::ArrowError(error, _) => Self::Evaluation(*error),
            other => Self::Plan(other.into()),
        }
    }
}

fn first_line(error: &ArrowError) -> String {
    let text = match error {
        ArrowError::DivideByZero => "division by zero".to_owned(),
        ArrowError::CastError(text)
        | ArrowError::ComputeError(text)
        | ArrowError::InvalidArgumentError(text)
        | ArrowError::ParseError(text)
        | ArrowError::ArithmeticOverflow(text) => text.clone(),
        other => other.to_string(),
    };
    text.lines().next().unwrap_or_default().to_owned()
}
