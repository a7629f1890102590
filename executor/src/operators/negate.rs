//! Takes back what its input brings. Linear: weights change sign.

use datafusion::arrow::array::Int64Array;

use crate::change::ChangeBatch;
use crate::error::Result;
use crate::operator::{Changes, Operator};
use crate::rejects::StepRejects;

pub(crate) struct Negate;

impl Operator for Negate {
    fn step(&mut self, inputs: Vec<Changes>, _: &mut StepRejects) -> Result<Changes> {
        let negated = inputs.into_iter().flatten().map(|batch| {
            let weights: Int64Array = (0..batch.len()).map(|row| Some(-batch.weight(row))).collect();
            ChangeBatch::weighted(batch.rows, weights)
        });
        Ok(negated.collect())
    }
}
