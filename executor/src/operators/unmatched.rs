//! Rows of one side of a join WITHIN a time that meet nothing: given when their time to be joined is
//! over, or at once.
//!
//! Two rows with the same values meet the same rows, so a row is known by its values.
//! Invariant: a row is given here once, or was in a pair before its time was over; what was given at
//! once may be in a pair later.
//! Source: ksqlDB, "WITHIN and GRACE PERIOD"; Kafka Streams, KStreamKStreamJoin.

use std::sync::Arc;

use datafusion::arrow::array::{Array, Int64Array};
use datafusion::arrow::compute::max;
use datafusion::arrow::datatypes::SchemaRef;

use super::timed_rows::TimedRows;
use crate::change::ChangeBatch;
use crate::error::{Error, Result};
use crate::expression::Expression;
use crate::keys::KeyTable;
use crate::layout::batch_of;
use crate::operator::{Changes, Operator};
use crate::rejects::StepRejects;
use crate::state::{Image, StateReader, Stateful};

pub(crate) struct Unmatched {
    /// The times of own and of other rows, ms.
    times: [Expression; 2],
    wait_ms: i64,
    eager: bool,
    /// Own columns are the first ones of a pair.
    left: bool,
    schema: SchemaRef,
    stream_time: i64,
    /// Rows that met nothing yet, by the last stream time at which they can.
    waiting: TimedRows,
}

impl Unmatched {
    pub(crate) fn try_new(
        times: [Expression; 2],
        wait_ms: i64,
        eager: bool,
        left: bool,
        schema: SchemaRef,
    ) -> Result<Self> {
        let waiting = TimedRows::try_new(Arc::clone(&schema))?;
        Ok(Self { times, wait_ms, eager, left, schema, stream_time: i64::MIN, waiting })
    }

    /// Own rows of pairs, which no longer wait.
    fn met(&mut self, pairs: Changes) -> Result<KeyTable> {
        let (width, mut met) = (self.schema.fields().len(), KeyTable::default());
        for batch in pairs {
            let from = if self.left { 0 } else { batch.rows.num_columns() - width };
            let columns = batch.rows.columns()[from..from + width].to_vec();
            let own = ChangeBatch::inserted(batch_of(&self.schema, columns, batch.len())?);
            let (rows, times) = (self.waiting.encode(&own)?, self.own_times(&own)?);
            for row in 0..own.len() {
                met.insert(rows.row(row));
                self.waiting.forget(self.over(&times, row), rows.row(row));
            }
        }
        Ok(met)
    }

    fn own_times(&self, batch: &ChangeBatch) -> Result<Int64Array> {
        Ok(Int64Array::from(self.times[0].evaluate(&batch.rows)?.to_data()))
    }

    /// The last stream time at which a row can meet another; a row without a time meets none.
    fn over(&self, times: &Int64Array, row: usize) -> i64 {
        if times.is_valid(row) { times.value(row).saturating_add(self.wait_ms) } else { i64::MIN }
    }
}

impl Operator for Unmatched {
    fn step(&mut self, inputs: Vec<Changes>, _: &mut StepRejects) -> Result<Changes> {
        let mut inputs = inputs.into_iter();
        let mut next = || inputs.next().unwrap_or_default();
        let (own, other, pairs) = (next(), next(), next());
        let met = self.met(pairs)?;
        let mut newest = i64::MIN;
        for batch in &other {
            let times = Int64Array::from(self.times[1].evaluate(&batch.rows)?.to_data());
            newest = newest.max(max(&times).unwrap_or(i64::MIN));
        }
        for batch in &own {
            let (rows, times) = (self.waiting.encode(batch)?, self.own_times(batch)?);
            newest = newest.max(max(&times).unwrap_or(i64::MIN));
            for row in (0..batch.len()).filter(|row| met.find(rows.row(*row)).is_none()) {
                self.waiting.add(self.over(&times, row), rows.row(row), batch.weight(row));
            }
        }
        self.stream_time = self.stream_time.max(newest);
        let until = if self.eager { i64::MAX } else { self.stream_time.saturating_sub(1) };
        let Some(alone) = self.waiting.take(until)? else { return Ok(Vec::new()) };
        if alone.retracted() > 0 {
            return Err(Error::bug("unmatched", "a row was taken back that was never there"));
        }
        alone.repeated().map(|alone| vec![alone])
    }

    fn save(&self, image: &mut Image) {
        image.value(self.stream_time);
        self.waiting.save(image);
    }

    fn load(&mut self, state: &mut StateReader<'_>) -> Result<()> {
        self.stream_time = state.value()?;
        self.waiting.load(state)
    }

    fn state_bytes(&self) -> usize {
        self.waiting.bytes()
    }
}
