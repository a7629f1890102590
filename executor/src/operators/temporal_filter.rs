//! Rows for as long as conditions on now() hold for them.
//!
//! Each condition is true for a row up to one moment or from one on; the moment is found by halving
//! the time in which it lies, so whatever grows with now() can be compared with: intervals of months
//! and the beginning of a day too. What is to come and what is to leave waits in the order of its
//! time. Invariant: after an epoch the result holds the rows whose span has the epoch's time in it.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, AsArray, BooleanArray, RecordBatch, TimestampMicrosecondArray};
use datafusion::arrow::datatypes::{SchemaRef, TimestampMicrosecondType};

use super::timed_rows::TimedRows;
use crate::change::ChangeBatch;
use crate::error::{Error, Result};
use crate::expression::{Expression, resilient};
use crate::operator::{Changes, Operator};
use crate::rejects::StepRejects;
use crate::state::{Image, StateReader, Stateful};

/// Spans are looked for between these times, ms: from 1900 to 2200. Before and after is for ever.
const FIRST: i64 = -2_208_988_800_000;
const LAST: i64 = 7_258_118_400_000;
/// Microseconds in a millisecond.
const TICKS: i64 = 1_000;

pub(crate) struct TemporalFilter {
    predicates: Vec<Expression>,
    /// The rows' layout with now behind it.
    with_now: SchemaRef,
    now: i64,
    /// Changes to come, by the time at which they do.
    waiting: TimedRows,
}

/// From when, and until when, each row of a batch is in the result: [from, until).
struct Spans {
    from: Vec<i64>,
    until: Vec<i64>,
}

impl TemporalFilter {
    pub(crate) fn try_new(
        predicates: Vec<Expression>,
        schema: SchemaRef,
        with_now: SchemaRef,
    ) -> Result<Self> {
        Ok(Self { predicates, with_now, now: i64::MIN, waiting: TimedRows::try_new(schema)? })
    }

    fn spans(&self, rows: &RecordBatch) -> Result<Spans> {
        let mut spans =
            Spans { from: vec![i64::MIN; rows.num_rows()], until: vec![i64::MAX; rows.num_rows()] };
        for predicate in &self.predicates {
            self.narrow(predicate, rows, &mut spans)?;
        }
        Ok(spans)
    }

    /// Cuts spans down to where a condition is true.
    fn narrow(&self, predicate: &Expression, rows: &RecordBatch, spans: &mut Spans) -> Result<()> {
        let n = rows.num_rows();
        // Where the condition is still as it was at first, and where it is not.
        let mut between = vec![(FIRST, LAST); n];
        let at_first = self.holds(predicate, rows, &vec![FIRST; n])?;
        let at_last = self.holds(predicate, rows, &vec![LAST; n])?;
        let mut width = LAST - FIRST;
        while width > 1 {
            width -= width / 2;
            let middle: Vec<i64> = between.iter().map(|(low, high)| low + (high - low) / 2).collect();
            let at_middle = self.holds(predicate, rows, &middle)?;
            for (row, (low, high)) in between.iter_mut().enumerate() {
                let side = if at_middle.value(row) == at_first.value(row) { low } else { high };
                *side = middle[row];
            }
        }
        for (row, (_, turn)) in between.into_iter().enumerate() {
            match (at_first.value(row), at_last.value(row)) {
                (true, true) => {}
                (false, false) => spans.until[row] = i64::MIN,
                (true, false) => spans.until[row] = spans.until[row].min(turn),
                (false, true) => spans.from[row] = spans.from[row].max(turn),
            }
        }
        Ok(())
    }

    fn holds(&self, predicate: &Expression, rows: &RecordBatch, now_ms: &[i64]) -> Result<BooleanArray> {
        let now: TimestampMicrosecondArray = now_ms.iter().map(|ms| Some(ms * TICKS)).collect();
        let mut columns = rows.columns().to_vec();
        columns.push(Arc::new(now.with_timezone("UTC")) as ArrayRef);
        predicate.mask(&RecordBatch::try_new(Arc::clone(&self.with_now), columns)?)
    }

    fn take(&mut self, batch: &ChangeBatch, spans: &Spans, out: &mut Changes) -> Result<()> {
        let encoded = self.waiting.encode(batch)?;
        let mut here = Vec::with_capacity(batch.len());
        for row in 0..batch.len() {
            let (from, until) = (spans.from[row], spans.until[row]);
            let lasts = from < until && until > self.now;
            here.push(lasts && from <= self.now);
            if lasts && from > self.now {
                self.waiting.add(from, encoded.row(row), batch.weight(row));
            }
            if lasts && until < i64::MAX {
                self.waiting.add(until, encoded.row(row), -batch.weight(row));
            }
        }
        let here = batch.filter(&BooleanArray::from(here))?;
        if !here.is_empty() {
            out.push(here);
        }
        Ok(())
    }
}

impl Operator for TemporalFilter {
    fn step(&mut self, inputs: Vec<Changes>, rejects: &mut StepRejects) -> Result<Changes> {
        let mut inputs = inputs.into_iter();
        let changes = inputs.next().unwrap_or_default();
        let clock = inputs.next().and_then(|c| c.into_iter().next());
        let clock = clock.ok_or_else(|| Error::bug("temporal filter", "the epoch has no time"))?;
        let now = clock.rows.column(0).as_primitive::<TimestampMicrosecondType>().value(0) / TICKS;
        self.now = self.now.max(now);
        let mut out: Changes = self.waiting.take(self.now)?.into_iter().collect();
        for batch in changes {
            let parts = resilient(&batch, rejects, &mut |b| Ok((b.clone(), self.spans(&b.rows)?)))?;
            for (part, spans) in parts {
                self.take(&part, &spans, &mut out)?;
            }
        }
        Ok(out)
    }

    fn due_ms(&self) -> Option<i64> {
        self.waiting.first()
    }

    fn save(&self, image: &mut Image) {
        image.value(self.now);
        self.waiting.save(image);
    }

    fn load(&mut self, state: &mut StateReader<'_>) -> Result<()> {
        self.now = state.value()?;
        self.waiting.load(state)
    }

    fn state_bytes(&self) -> usize {
        self.waiting.bytes()
    }
}
