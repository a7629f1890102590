//! All rows of all inputs, in the order of the inputs.

use std::sync::Arc;

use datafusion::arrow::array::{RecordBatch, RecordBatchOptions};
use datafusion::arrow::datatypes::SchemaRef;

use crate::error::Result;
use crate::operator::{Changes, Operator};
use crate::rejects::StepRejects;

pub(crate) struct Union {
    pub(crate) schema: SchemaRef,
}

impl Operator for Union {
    fn step(&mut self, inputs: Vec<Changes>, _: &mut StepRejects) -> Result<Changes> {
        inputs
            .into_iter()
            .flatten()
            .map(|batch| {
                let options = RecordBatchOptions::new().with_row_count(Some(batch.len()));
                let columns = batch.rows.columns().to_vec();
                Ok(batch.with_rows(RecordBatch::try_new_with_options(
                    Arc::clone(&self.schema),
                    columns,
                    &options,
                )?))
            })
            .collect()
    }
}
