//! Expands the elements of lists. Linear: each row's elements have its weight.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, Int64Array, RecordBatch};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use crate::change::ChangeBatch;
use crate::error::{Error, Result};
use crate::expression::resilient;
use crate::fragment::Fragment;
use crate::layout::batch_of;
use crate::operator::{Changes, Operator};
use crate::rejects::StepRejects;

pub(crate) struct Unnest {
    fragment: Fragment,
    schema: SchemaRef,
    /// The layout with the weight behind it.
    weighted: SchemaRef,
}

impl Unnest {
    pub(crate) fn new(fragment: Fragment, schema: SchemaRef) -> Self {
        let mut fields: Vec<Field> = schema.fields().iter().map(|f| f.as_ref().clone()).collect();
        fields.push(Field::new("\u{1}weight", DataType::Int64, true));
        Self { fragment, schema, weighted: Arc::new(Schema::new(fields)) }
    }

    fn expand(&self, batch: &ChangeBatch) -> Result<Changes> {
        let weights = batch.weights.clone().unwrap_or_else(|| Int64Array::from_value(1, batch.len()));
        let mut columns: Vec<ArrayRef> = batch.rows.columns().to_vec();
        columns.push(Arc::new(weights));
        let rows = RecordBatch::try_new(Arc::clone(self.fragment.input()), columns)?;
        let expanded = self.fragment.run(rows, &self.weighted)?;
        expanded.into_iter().map(|rows| self.change(&rows, batch.weights.is_some())).collect()
    }

    fn change(&self, rows: &RecordBatch, weighted: bool) -> Result<ChangeBatch> {
        let (weights, columns) =
            rows.columns().split_last().ok_or_else(|| Error::bug("unnest", "the weight is missing"))?;
        let rows = batch_of(&self.schema, columns.to_vec(), rows.num_rows())?;
        let weights = weighted.then(|| Int64Array::from(weights.to_data()));
        Ok(ChangeBatch { rows, weights })
    }
}

impl Operator for Unnest {
    fn step(&mut self, inputs: Vec<Changes>, rejects: &mut StepRejects) -> Result<Changes> {
        let mut out = Vec::new();
        for batch in inputs.into_iter().flatten().filter(|b| !b.is_empty()) {
            out.extend(resilient(&batch, rejects, &mut |b| self.expand(b))?.into_iter().flatten());
        }
        Ok(out)
    }
}
