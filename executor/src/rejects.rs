//! Rows that could not be used: kept with place and reason, counted for ever, bounded in number.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// How many rejects are kept, and for how long; older ones go, their count stays.
#[derive(Debug, Clone, Copy)]
pub struct RejectRetention {
    /// Most of them.
    pub rows: usize,
    /// For how long, ms of the server's clock.
    pub age_ms: i64,
}

impl Default for RejectRetention {
    fn default() -> Self {
        Self { rows: 10_000, age_ms: 7 * 24 * 3_600_000 }
    }
}

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
    pub reason: Reason,
    /// The row, as text.
    pub row: String,
    /// The bytes that are at fault.
    pub raw: Option<Bytes>,
}

/// Why a row was not used.
#[derive(Debug, Clone)]
pub enum Reason {
    /// This went wrong.
    Error(Arc<Error>),
    /// This had gone wrong before the last start: its words, and its code for clients.
    Recorded {
        /// The words.
        text: String,
        /// The code.
        code: String,
    },
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Error(error) => error.fmt(f),
            Self::Recorded { text, .. } => f.write_str(text),
        }
    }
}

/// How an error is called where clients see it.
pub type CodeOf = fn(&Error) -> &'static str;

/// A reject as checkpoints keep it.
#[derive(Serialize, Deserialize)]
struct Record {
    relation: String,
    place: Option<(u32, u64)>,
    epoch: u64,
    now_ms: i64,
    text: String,
    code: String,
    row: String,
    raw: Option<Vec<u8>>,
}

/// The rejects of a server.
#[derive(Debug, Default, Clone)]
pub struct Rejects(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    kept: VecDeque<Reject>,
    /// Records among them: whoever reads a topic again meets them again.
    places: HashSet<(String, u32, u64)>,
    count: u64,
    retention: RejectRetention,
    code_of: Option<CodeOf>,
}

impl Rejects {
    pub(crate) fn new(retention: RejectRetention, code_of: Option<CodeOf>) -> Self {
        Self(Arc::new(Mutex::new(Inner { retention, code_of, ..Inner::default() })))
    }

    /// Those that are kept, to be encoded some time later.
    pub(crate) fn encoded(&self) -> impl FnOnce() -> Result<Vec<u8>> + Send + 'static {
        let (kept, code_of) = (self.list(), self.0.lock().code_of);
        move || Self::encode(kept, code_of)
    }

    fn encode(kept: Vec<Reject>, code_of: Option<CodeOf>) -> Result<Vec<u8>> {
        let record = |reject: Reject| {
            let (text, code) = match reject.reason {
                Reason::Error(error) => (error.to_string(), code_of.map_or("", |of| of(&error)).to_owned()),
                Reason::Recorded { text, code } => (text, code),
            };
            let Reject { relation, place, epoch, now_ms, row, raw, .. } = reject;
            Record { relation, place, epoch, now_ms, text, code, row, raw: raw.map(|raw| raw.to_vec()) }
        };
        let records: Vec<Record> = kept.into_iter().map(record).collect();
        serde_json::to_vec(&records).map_err(|e| Error::bug("rejects", e.to_string()))
    }

    /// Takes them back; there have been `count`.
    pub(crate) fn decode(&self, bytes: &[u8], count: u64) -> Result<()> {
        let records: Vec<Record> =
            serde_json::from_slice(bytes).map_err(|e| Error::bug("rejects", e.to_string()))?;
        let reject = |record: Record| {
            let Record { relation, place, epoch, now_ms, text, code, row, raw } = record;
            let (reason, raw) = (Reason::Recorded { text, code }, raw.map(Bytes::from));
            Reject { relation, place, epoch, now_ms, reason, row, raw }
        };
        let kept: Vec<Reject> = records.into_iter().map(reject).collect();
        let places = kept.iter().filter_map(|r| r.place.map(|(p, offset)| (r.relation.clone(), p, offset)));
        self.0.lock().places.extend(places);
        self.extend(kept, count);
        Ok(())
    }

    /// Adds records that are no rows, each once for its relation.
    pub(crate) fn extend_records(&self, rejects: impl Iterator<Item = Reject>) {
        let mut new = Vec::new();
        {
            let mut inner = self.0.lock();
            new.extend(rejects.filter(|reject| {
                let at = reject.place.map(|(partition, offset)| (reject.relation.clone(), partition, offset));
                at.is_none_or(|at| inner.places.insert(at))
            }));
        }
        let count = new.len() as u64;
        self.extend(new, count);
    }

    /// Adds rejects; `count` may be larger than their number.
    pub(crate) fn extend(&self, rejects: Vec<Reject>, count: u64) {
        let mut inner = self.0.lock();
        inner.count += count;
        inner.kept.extend(rejects);
        let RejectRetention { rows, age_ms } = inner.retention;
        let oldest = inner.kept.back().map_or(i64::MIN, |newest| newest.now_ms.saturating_sub(age_ms));
        while inner.kept.len() > rows || inner.kept.front().is_some_and(|first| first.now_ms < oldest) {
            if let Some(Reject { relation, place: Some((partition, offset)), .. }) = inner.kept.pop_front() {
                inner.places.remove(&(relation, partition, offset));
            }
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
#[derive(Debug, Clone, Default)]
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
