//! Places rows in windows and refuses those that come after a window's grace.
//!
//! A (row, window) is late when the window's end lies at or before stream time less grace. Stream
//! time is the largest time seen in earlier epochs: it moves only between epochs, so the order of
//! rows inside one does not matter. Rows that are taken back pass whatever their time: what was
//! counted can be uncounted.
//! Source: ksqlDB, "Late arriving events"; Kafka Streams, KStreamWindowAggregate.

use datafusion::arrow::array::Array;
use datafusion::arrow::array::{Int64Array, UInt32Array};
use datafusion::arrow::compute::take;
use datafusion::arrow::datatypes::SchemaRef;
use planner::WindowSpec;

use crate::change::ChangeBatch;
use crate::error::Result;
use crate::expression::{Expression, resilient, row_text};
use crate::operator::{Changes, Operator};
use crate::rejects::StepRejects;
use crate::window;

pub(crate) struct AssignWindows {
    time: Expression,
    spec: WindowSpec,
    schema: SchemaRef,
    /// Largest time of all earlier epochs, ms.
    stream_time: i64,
}

impl AssignWindows {
    pub(crate) fn new(time: Expression, spec: WindowSpec, schema: SchemaRef) -> Self {
        Self { time, spec, schema, stream_time: i64::MIN }
    }

    fn assign(
        &self,
        batch: &ChangeBatch,
        times: &Int64Array,
        late: &mut Vec<(usize, i64)>,
    ) -> Result<ChangeBatch> {
        let closed = self.spec.grace_ms.map_or(i64::MIN, |grace| self.stream_time.saturating_sub(grace));
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
        let mut out = Vec::new();
        let mut newest = self.stream_time;
        for batch in inputs.into_iter().flatten() {
            let parts = resilient(&batch, rejects, &mut |b| {
                Ok((b.clone(), window::to_ms(&self.time.evaluate(&b.rows)?)?))
            })?;
            for (part, times) in parts {
                let mut late = Vec::new();
                out.push(self.assign(&part, &times, &mut late)?);
                for (row, end) in late {
                    rejects
                        .push(format!("late: its window closed at {end} ms"), || row_text(&part.rows, row));
                }
                newest = newest.max(datafusion::arrow::compute::max(&times).unwrap_or(i64::MIN));
            }
        }
        self.stream_time = newest;
        out.retain(|b| !b.is_empty());
        Ok(out)
    }
}
