//! EMIT FINAL: the rows of a window, once, when no more can come to it.
//!
//! A window is closed when its end and its grace lie at or before stream time, the exact complement
//! of what makes a row late. Stream time is that of the epoch: rows of one epoch still count.
//! Invariant: what has been given is never taken back.
//! Source: ksqlDB, "Time and Windows", EMIT FINAL; Kafka Streams, Suppressed.untilWindowCloses.

use datafusion::arrow::array::Array;
use datafusion::arrow::datatypes::SchemaRef;

use super::stream_clock::{StreamClock, now_ms};
use super::timed_rows::TimedRows;
use crate::change::ChangeBatch;
use crate::error::{Error, Result};
use crate::expression::{Expression, resilient};
use crate::operator::{Changes, Operator};
use crate::rejects::StepRejects;
use crate::state::{Image, StateReader, Stateful};
use crate::window;

pub(crate) struct EmitFinal {
    end: Expression,
    time: Expression,
    grace_ms: i64,
    clock: StreamClock,
    /// Windows that end here or before are closed.
    closed_ms: i64,
    /// Rows of open windows, by the window's end.
    open: TimedRows,
}

impl EmitFinal {
    pub(crate) fn try_new(
        end: Expression,
        time: Expression,
        grace_ms: i64,
        idle_ms: Option<i64>,
        schema: SchemaRef,
    ) -> Result<Self> {
        let clock = StreamClock::new(idle_ms);
        Ok(Self { end, time, grace_ms, clock, closed_ms: i64::MIN, open: TimedRows::try_new(schema)? })
    }

    fn take(&mut self, batch: &ChangeBatch) -> Result<()> {
        let ends = window::to_ms(&self.end.evaluate(&batch.rows)?)?;
        let rows = self.open.encode(batch)?;
        for row in 0..batch.len() {
            // A closed window has been given; what a late deletion does to it is not told.
            if ends.is_valid(row) && ends.value(row) > self.closed_ms {
                self.open.add(ends.value(row), rows.row(row), batch.weight(row));
            }
        }
        Ok(())
    }

    fn closed(&mut self) -> Result<Changes> {
        let Some(rows) = self.open.take(self.closed_ms)? else { return Ok(Vec::new()) };
        if rows.retracted() > 0 {
            return Err(Error::bug("EMIT FINAL", "a row was taken back that was never there"));
        }
        Ok(vec![rows.repeated()?])
    }
}

impl Operator for EmitFinal {
    fn step(&mut self, inputs: Vec<Changes>, _: &mut StepRejects) -> Result<Changes> {
        let mut inputs = inputs.into_iter();
        let mut next = || inputs.next().unwrap_or_default();
        let (rows, timeline, now) = (next(), next(), now_ms(&next()));
        self.closed_ms = self.clock.begin(now).saturating_sub(self.grace_ms);
        for batch in rows {
            self.take(&batch)?;
        }
        let mut newest = None;
        for batch in timeline {
            // A time that cannot be computed is rejected where the row is placed in its window.
            let mut seen = StepRejects::default();
            let times = resilient(&batch, &mut seen, &mut |b| window::to_ms(&self.time.evaluate(&b.rows)?))?;
            for times in times {
                newest = newest.max(datafusion::arrow::compute::max(&times));
            }
        }
        self.closed_ms = self.clock.end(newest, now).saturating_sub(self.grace_ms);
        self.closed()
    }

    fn due_ms(&self) -> Option<i64> {
        self.clock.reaches(self.open.first()?.saturating_add(self.grace_ms))
    }

    fn save(&self, image: &mut Image) {
        self.clock.save(image);
        image.value(self.closed_ms);
        self.open.save(image);
    }

    fn load(&mut self, state: &mut StateReader<'_>) -> Result<()> {
        self.clock.load(state)?;
        self.closed_ms = state.value()?;
        self.open.load(state)
    }

    fn state_bytes(&self) -> usize {
        self.open.bytes()
    }
}
