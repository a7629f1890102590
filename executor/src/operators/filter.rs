//! Keeps rows for which the predicate is true. Linear: weights pass through.

use crate::error::Result;
use crate::expression::{Expression, resilient};
use crate::operator::{Changes, Operator};
use crate::rejects::StepRejects;

pub(crate) struct Filter(pub(crate) Expression);

impl Operator for Filter {
    fn step(&mut self, inputs: Vec<Changes>, rejects: &mut StepRejects) -> Result<Changes> {
        let mut out = Vec::new();
        for batch in inputs.into_iter().flatten() {
            out.extend(resilient(&batch, rejects, &mut |b| b.filter(&self.0.mask(&b.rows)?))?);
        }
        out.retain(|b| !b.is_empty());
        Ok(out)
    }
}
