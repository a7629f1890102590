//! Rows that could not be used: kept with place and reason, counted for ever, bounded in number.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::error::Error;

/// Most rejects that are kept; older ones go, their count stays.
const KEPT: usize = 10_000;
/// Most that one epoch of one query keeps apart; the rest is counted.
const PER_STEP: usize = 100;

/// A row that was not used.
#[derive(Debug, Clone)]
pub struct Reject {
    /// The relation whose query refused it, or whose record it was.
    pub relation: String,
    /// Partition and offset of its record, where it is one record.
    pub place: Option<(u32, u64)>,
    /// The epoch it came in.
    pub epoch: u64,
    /// The wall clock of that epoch, ms since 1970.
    pub now_ms: i64,
    /// Why.
    pub error: Arc<Error>,
    /// The row, as text.
    pub row: String,
    /// The bytes that are at fault.
    pub raw: Option<Bytes>,
}

/// The rejects of a server.
#[derive(Debug, Default, Clone)]
pub struct Rejects(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    kept: VecDeque<Reject>,
    count: u64,
}

impl Rejects {
    /// Adds rejects; `count` may be larger than their number.
    pub(crate) fn extend(&self, rejects: Vec<Reject>, count: u64) {
        let mut inner = self.0.lock();
        inner.count += count;
        inner.kept.extend(rejects);
        while inner.kept.len() > KEPT {
            inner.kept.pop_front();
        }
    }

    /// Those that are kept, oldest first.
    pub fn list(&self) -> Vec<Reject> {
        self.0.lock().kept.iter().cloned().collect()
    }

    /// How many there have been.
    pub fn count(&self) -> u64 {
        self.0.lock().count
    }
}

/// What one step of one query rejects.
#[derive(Debug, Default)]
pub(crate) struct StepRejects {
    pub(crate) kept: Vec<(Arc<Error>, String)>,
    pub(crate) count: u64,
}

impl StepRejects {
    /// Notes a row; its text is only made if it will be kept.
    pub(crate) fn push(&mut self, error: Error, row: impl FnOnce() -> String) {
        self.count += 1;
        if self.kept.len() < PER_STEP {
            self.kept.push((Arc::new(error), row()));
        }
    }

    /// Adds those of a part of the step.
    pub(crate) fn append(&mut self, other: Self) {
        self.count += other.count;
        let room = PER_STEP.saturating_sub(self.kept.len());
        self.kept.extend(other.kept.into_iter().take(room));
    }
}
