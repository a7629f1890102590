//! Rows that are there from the beginning: VALUES, and SELECT without FROM.

use std::sync::Arc;

use datafusion::arrow::array::{RecordBatch, RecordBatchOptions};
use datafusion::arrow::compute::concat_batches;
use datafusion::arrow::datatypes::{Schema, SchemaRef};

use crate::change::ChangeBatch;
use crate::error::Result;
use crate::expression::Expression;
use crate::operator::{Changes, Operator};
use crate::rejects::StepRejects;

pub(crate) struct Values {
    pub(crate) rows: Vec<Vec<Expression>>,
    pub(crate) schema: SchemaRef,
    pub(crate) given: bool,
}

impl Operator for Values {
    fn step(&mut self, _: Vec<Changes>, _: &mut StepRejects) -> Result<Changes> {
        if std::mem::replace(&mut self.given, true) {
            return Ok(Vec::new());
        }
        let one = RecordBatchOptions::new().with_row_count(Some(1));
        let nothing = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), Vec::new(), &one)?;
        let rows = self
            .rows
            .iter()
            .map(|row| {
                let columns = row.iter().map(|e| e.evaluate(&nothing)).collect::<Result<Vec<_>>>()?;
                Ok(RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &one)?)
            })
            .collect::<Result<Vec<_>>>()?;
        Ok(vec![ChangeBatch::inserted(concat_batches(&self.schema, &rows)?)])
    }
}
