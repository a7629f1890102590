//! Places rows in windows and refuses those that come after a window's grace.
//!
//! A (row, window) is late when the window's end lies at or before stream time less grace. Stream
//! time is the largest time seen in earlier epochs: it moves only between epochs, so the order of
//! rows inside one does not matter. Rows that are taken back pass whatever their time: what was
//! counted can be uncounted.
//! Source: ksqlDB, "Late arriving events"; Kafka Streams, KStreamWindowAggregate.

use datafusion::arrow::array::Array;
use datafusion::arrow::array::{Int64Array, UInt32Array};
use datafusion::arrow::compute::{max, min, take};
use datafusion::arrow::datatypes::SchemaRef;
use planner::WindowSpec;

use super::stream_clock::{StreamClock, now_ms};
use super::window_merger::WindowMerger;
use crate::change::ChangeBatch;
use crate::error::{Error, Lateness, Result};
use crate::expression::{Expression, resilient, row_text};
use crate::operator::{Changes, Operator};
use crate::rejects::StepRejects;
use crate::state::{Image, StateReader, Stateful};
use crate::window;

pub(crate) struct AssignWindows {
    time: Expression,
    spec: WindowSpec,
    /// Makes equal rows one, where little of them matters.
    merger: Option<WindowMerger>,
    schema: SchemaRef,
    clock: StreamClock,
    /// Windows that end here or before are closed.
    closed_ms: i64,
}

impl AssignWindows {
    pub(crate) fn new(
        time: Expression,
        spec: WindowSpec,
        merger: Option<WindowMerger>,
        idle_ms: Option<i64>,
        schema: SchemaRef,
    ) -> Self {
        Self { time, spec, merger, schema, clock: StreamClock::new(idle_ms), closed_ms: i64::MIN }
    }

    /// The rows, equal ones together unless one is late: each late row is told of.
    fn merged(&self, batch: ChangeBatch, times: Int64Array) -> Result<(ChangeBatch, Int64Array)> {
        match &self.merger {
            Some(merger) if min(&times).is_none_or(|first| first >= self.closed_ms) => {
                merger.merge(&batch, &times, &self.spec)
            }
            _ => Ok((batch, times)),
        }
    }

    fn assign(
        &self,
        batch: &ChangeBatch,
        times: &Int64Array,
        late: &mut Vec<(usize, i64)>,
    ) -> Result<ChangeBatch> {
        let closed = self.closed_ms;
        let placed = window::place(&self.spec, times, |row, end| {
            let open = end > closed || batch.weight(row) < 0;
            if !open {
                late.push((row, end));
            }
            open
        });
        let rows = placed.batch(&batch.rows, &self.schema)?;
        let indices = UInt32Array::from(placed.rows);
        let weights = batch.weights.as_ref().map(|w| take(w, &indices, None)).transpose()?;
        Ok(ChangeBatch { rows, weights: weights.map(|w| Int64Array::from(w.to_data())) })
    }
}

impl Operator for AssignWindows {
    fn step(&mut self, inputs: Vec<Changes>, rejects: &mut StepRejects) -> Result<Changes> {
        let mut inputs = inputs.into_iter();
        let (rows, now) = (inputs.next().unwrap_or_default(), inputs.next().and_then(|c| now_ms(&c)));
        let began = self.clock.begin(now);
        self.closed_ms = self.spec.grace_ms.map_or(i64::MIN, |grace| began.saturating_sub(grace));
        let mut out = Vec::new();
        let mut newest = None;
        for batch in rows {
            let parts = resilient(&batch, rejects, &mut |b| {
                Ok((b.clone(), window::to_ms(&self.time.evaluate(&b.rows)?)?))
            })?;
            for (part, times) in parts {
                newest = newest.max(max(&times));
                let (part, times) = self.merged(part, times)?;
                let mut late = Vec::new();
                out.push(self.assign(&part, &times, &mut late)?);
                for (row, end) in late {
                    let error = Error::Late(Lateness::Window { end_ms: end });
                    rejects.push(error, || row_text(&part.rows, row));
                }
            }
        }
        self.clock.end(newest, now);
        out.retain(|b| !b.is_empty());
        Ok(out)
    }

    fn save(&self, image: &mut Image) {
        self.clock.save(image);
    }

    fn load(&mut self, state: &mut StateReader<'_>) -> Result<()> {
        self.clock.load(state)
    }
}
