//! Rows of a side of a join WITHIN a time, and when each is let go: when stream time has passed its
//! time and how long it waits.

use std::collections::BTreeMap;

use datafusion::arrow::array::{Array, Int64Array};
use datafusion::arrow::compute::max;

use super::keyed_rows::{Keyed, KeyedRows, RowId};
use crate::error::Result;
use crate::expression::Expression;
use crate::state::{Image, StateReader, Stateful};

/// What a B-tree keeps for each entry.
const ENTRY_BYTES: usize = 48;

/// When a side's rows are let go.
#[derive(Debug, Clone)]
pub(crate) struct Expiry {
    /// The time of a row, ms.
    pub(crate) time: Expression,
    /// How long after it the row can be joined, ms of stream time.
    pub(crate) wait_ms: i64,
    /// A row that meets nothing is in the result all the same.
    pub(crate) padded: bool,
}

/// The rows of a side by the last stream time at which they can be joined.
pub(super) struct RowExpiry {
    spec: Expiry,
    due: BTreeMap<i64, Vec<RowId>>,
    rows: usize,
    /// Largest time of a row so far.
    pub(super) newest: i64,
}

impl RowExpiry {
    pub(super) fn new(spec: Expiry) -> Self {
        Self { spec, due: BTreeMap::new(), rows: 0, newest: i64::MIN }
    }

    /// The times of a batch's rows, ms.
    pub(super) fn times(&self, keyed: &Keyed) -> Result<Int64Array> {
        Ok(Int64Array::from(self.spec.time.evaluate(&keyed.batch.rows)?.to_data()))
    }

    /// Whether a row of this time, if it meets nothing, is lost.
    pub(super) fn is_late(&self, time: i64, stream_time: i64) -> bool {
        !self.spec.padded && time.saturating_add(self.spec.wait_ms) < stream_time
    }

    /// Notes rows that were added; those without a time meet nothing and are kept for nothing.
    pub(super) fn note(&mut self, ids: &[RowId], times: &Int64Array) {
        for (row, id) in ids.iter().enumerate() {
            let time = if times.is_valid(row) {
                times.value(row).saturating_add(self.spec.wait_ms)
            } else {
                i64::MIN
            };
            self.due.entry(time).or_default().push(*id);
        }
        self.rows += ids.len();
        self.newest = self.newest.max(max(times).unwrap_or(i64::MIN));
    }

    /// Lets go of the rows of `side` whose time is over.
    pub(super) fn expire(&mut self, side: &mut KeyedRows, stream_time: i64) -> Result<()> {
        let mut ids = Vec::new();
        while let Some(first) = self.due.first_entry().filter(|e| *e.key() < stream_time) {
            ids.extend(first.remove());
        }
        self.rows -= ids.len();
        // The same row may have come more than once.
        ids.sort_unstable();
        ids.dedup();
        side.forget(&ids).map(|_| ())
    }

    pub(super) fn bytes(&self) -> usize {
        self.due.len() * ENTRY_BYTES + self.rows * size_of::<RowId>()
    }
}

impl Stateful for RowExpiry {
    fn save(&self, image: &mut Image) {
        image.value(self.newest);
        image.count(self.due.len());
        for (time, ids) in &self.due {
            image.value(*time);
            image.vector(ids);
        }
    }

    fn load(&mut self, state: &mut StateReader<'_>) -> Result<()> {
        self.newest = state.value()?;
        for _ in 0..state.count()? {
            let (time, ids): (i64, Vec<RowId>) = (state.value()?, state.vector()?);
            self.rows += ids.len();
            self.due.insert(time, ids);
        }
        Ok(())
    }
}
