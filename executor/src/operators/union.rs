//! All rows of all inputs, in the order of the inputs; of a difference what is left of them.
//!
//! What a difference takes away has come with what it is taken from. Were both passed on, each outer join above
//! would make several rows of each, and a few dozen of them more than there is memory for.

use datafusion::arrow::datatypes::SchemaRef;

use crate::change::consolidate;
use crate::error::Result;
use crate::layout::batch_of;
use crate::operator::{Changes, Operator};
use crate::rejects::StepRejects;

pub(crate) struct Union {
    pub(crate) schema: SchemaRef,
    /// Some of the inputs take away what others bring.
    pub(crate) difference: bool,
}

impl Operator for Union {
    fn step(&mut self, inputs: Vec<Changes>, _: &mut StepRejects) -> Result<Changes> {
        let rows = inputs
            .into_iter()
            .flatten()
            .map(|batch| {
                let columns = batch.rows.columns().to_vec();
                Ok(batch.with_rows(batch_of(&self.schema, columns, batch.len())?))
            })
            .collect::<Result<Changes>>()?;
        match rows.first().filter(|_| self.difference) {
            Some(first) => {
                let schema = first.rows.schema();
                consolidate(&schema, rows)
            }
            None => Ok(rows),
        }
    }
}
