//! Computes columns. Linear: weights pass through.

use datafusion::arrow::datatypes::SchemaRef;

use crate::error::Result;
use crate::expression::{Expression, resilient};
use crate::layout::batch_of;
use crate::operator::{Changes, Operator};
use crate::rejects::StepRejects;

pub(crate) struct Project {
    pub(crate) exprs: Vec<Expression>,
    pub(crate) schema: SchemaRef,
}

impl Operator for Project {
    fn step(&mut self, inputs: Vec<Changes>, rejects: &mut StepRejects) -> Result<Changes> {
        let mut out = Vec::new();
        for batch in inputs.into_iter().flatten() {
            out.extend(resilient(&batch, rejects, &mut |b| {
                let columns = self.exprs.iter().map(|e| e.evaluate(&b.rows)).collect::<Result<Vec<_>>>()?;
                Ok(b.with_rows(batch_of(&self.schema, columns, b.len())?))
            })?);
        }
        Ok(out)
    }
}
