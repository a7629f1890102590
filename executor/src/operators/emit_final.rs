//! EMIT FINAL: the rows of a window, once, when no more can come to it.
//!
//! A window is closed when its end and its grace lie at or before stream time, the exact complement
//! of what makes a row late. Stream time is that of the epoch: rows of one epoch still count.
//! Invariant: what has been given is never taken back.
//! Source: ksqlDB, "Time and Windows", EMIT FINAL; Kafka Streams, Suppressed.untilWindowCloses.

use datafusion::arrow::array::{Array, UInt32Array};
use datafusion::arrow::compute::take_record_batch;
use datafusion::arrow::datatypes::SchemaRef;

use super::timed_rows::TimedRows;
use crate::change::ChangeBatch;
use crate::error::{Error, Result};
use crate::expression::{Expression, resilient};
use crate::operator::{Changes, Operator};
use crate::rejects::StepRejects;
use crate::window;

pub(crate) struct EmitFinal {
    end: Expression,
    time: Expression,
    grace_ms: i64,
    stream_time: i64,
    /// Rows of open windows, by the window's end.
    open: TimedRows,
}

impl EmitFinal {
    pub(crate) fn try_new(
        end: Expression,
        time: Expression,
        grace_ms: i64,
        schema: SchemaRef,
    ) -> Result<Self> {
        Ok(Self { end, time, grace_ms, stream_time: i64::MIN, open: TimedRows::try_new(schema)? })
    }

    /// Windows that end here or before are closed.
    fn closed_ms(&self) -> i64 {
        self.stream_time.saturating_sub(self.grace_ms)
    }

    fn take(&mut self, batch: &ChangeBatch) -> Result<()> {
        let ends = window::to_ms(&self.end.evaluate(&batch.rows)?)?;
        let rows = self.open.encode(batch)?;
        for row in 0..batch.len() {
            // A closed window has been given; what a late deletion does to it is not told.
            if ends.is_valid(row) && ends.value(row) > self.closed_ms() {
                self.open.add(ends.value(row), rows.row(row), batch.weight(row));
            }
        }
        Ok(())
    }

    fn closed(&mut self) -> Result<Changes> {
        let Some(rows) = self.open.take(self.closed_ms())? else { return Ok(Vec::new()) };
        if rows.retracted() > 0 {
            return Err(Error::bug("EMIT FINAL", "a row was taken back that was never there"));
        }
        // A row that is there twice is given twice: what only comes has no weights.
        let copies = (0..rows.len()).flat_map(|row| {
            let row_id = u32::try_from(row).unwrap_or(u32::MAX);
            (0..rows.weight(row)).map(move |_| row_id)
        });
        let copies: UInt32Array = copies.collect();
        Ok(vec![ChangeBatch::inserted(take_record_batch(&rows.rows, &copies)?)])
    }
}

impl Operator for EmitFinal {
    fn step(&mut self, inputs: Vec<Changes>, _: &mut StepRejects) -> Result<Changes> {
        let mut inputs = inputs.into_iter();
        for batch in inputs.next().unwrap_or_default() {
            self.take(&batch)?;
        }
        for batch in inputs.next().unwrap_or_default() {
            // A time that cannot be computed is rejected where the row is placed in its window.
            let mut seen = StepRejects::default();
            let times = resilient(&batch, &mut seen, &mut |b| window::to_ms(&self.time.evaluate(&b.rows)?))?;
            for times in times {
                let newest = datafusion::arrow::compute::max(&times).unwrap_or(i64::MIN);
                self.stream_time = self.stream_time.max(newest);
            }
        }
        self.closed()
    }

    fn state_bytes(&self) -> usize {
        self.open.bytes()
    }
}
