//! The calls of a GROUP BY's select list: what each is, and its arguments over a batch.

use datafusion::arrow::array::{ArrayRef, BooleanArray, Int64Array};
use datafusion::arrow::datatypes::DataType;

use super::accumulators::{Accumulator, Input, accumulator};
use super::distinct::Distinct;
use crate::change::ChangeBatch;
use crate::error::Result;
use crate::expression::Expression;
use crate::keys::Slot;

/// One aggregate of the select list.
pub(crate) struct AggregateCall {
    pub(crate) function: String,
    /// None counts rows.
    pub(crate) argument: Option<Expression>,
    /// Each value of the argument counts once.
    pub(crate) distinct: bool,
    pub(crate) argument_type: DataType,
    pub(crate) filter: Option<Expression>,
    pub(crate) result: DataType,
}

impl AggregateCall {
    /// Its state for all groups; `retracting` when rows may be taken back.
    pub(super) fn accumulator(&self, retracting: bool) -> Result<Box<dyn Accumulator>> {
        let inner = accumulator(&self.function, &self.argument_type, &self.result, retracting)?;
        Ok(if self.distinct { Box::new(Distinct::try_new(inner, &self.argument_type)?) } else { inner })
    }
}

/// What the calls see of a batch.
pub(super) struct Arguments {
    values: Vec<Option<ArrayRef>>,
    masks: Vec<Option<BooleanArray>>,
    weights: Option<Int64Array>,
}

impl Arguments {
    pub(super) fn evaluate(calls: &[AggregateCall], batch: &ChangeBatch) -> Result<Self> {
        let values = calls.iter().map(|c| c.argument.as_ref().map(|e| e.evaluate(&batch.rows)).transpose());
        let masks = calls.iter().map(|c| c.filter.as_ref().map(|e| e.mask(&batch.rows)).transpose());
        Ok(Self {
            values: values.collect::<Result<_>>()?,
            masks: masks.collect::<Result<_>>()?,
            weights: batch.weights.clone(),
        })
    }

    /// The weight of a row.
    pub(super) fn weight(&self, row: u32) -> i64 {
        self.weights.as_ref().map_or(1, |w| w.value(row as usize))
    }

    /// Brings `rows` to the groups `slots`, one for each.
    pub(super) fn update(
        &self,
        accumulators: &mut [Box<dyn Accumulator>],
        slots: &[Slot],
        rows: &[u32],
    ) -> Result<()> {
        for (call, accumulator) in accumulators.iter_mut().enumerate() {
            accumulator.update(&Input {
                slots,
                rows,
                values: self.values[call].as_ref(),
                mask: self.masks[call].as_ref(),
                weights: self.weights.as_ref(),
            })?;
        }
        Ok(())
    }
}
