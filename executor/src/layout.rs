//! Layouts of rows.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, UInt32Array, new_null_array};
use datafusion::arrow::compute::take_arrays;
use datafusion::arrow::datatypes::{FieldRef, Schema, SchemaRef};
use datafusion::arrow::error::ArrowError;

/// The layout with NULL allowed everywhere: a result's columns may hold it whatever was declared.
pub fn nullable(schema: &Schema) -> SchemaRef {
    let fields: Vec<_> = schema.fields().iter().map(|f| f.as_ref().clone().with_nullable(true)).collect();
    Arc::new(Schema::new(fields))
}

/// Rows that were written before their relation got more columns, in the layout they would have now: the columns
/// that they lack, up to the `own` of the relation, are NULL.
///
/// # Errors
/// Rows of another relation.
pub fn widened(rows: RecordBatch, schema: &SchemaRef, own: usize) -> Result<RecordBatch, ArrowError> {
    let lacking = schema.fields().len().saturating_sub(rows.num_columns());
    if lacking == 0 {
        return Ok(rows);
    }
    let at = own.saturating_sub(lacking);
    let mut columns = rows.columns().to_vec();
    let none = |field: &FieldRef| new_null_array(field.data_type(), rows.num_rows());
    columns.splice(at..at, schema.fields()[at..own].iter().map(none));
    batch_of(schema, columns, rows.num_rows())
}

/// Columns as a batch of so many rows, which may have no columns at all.
///
/// # Errors
/// Columns that are not the layout's.
pub fn batch_of(schema: &SchemaRef, columns: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch, ArrowError> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)
}

/// The rows at some places, also of a batch without columns.
///
/// # Errors
/// Places that are outside.
pub fn take_rows(rows: &RecordBatch, indices: &UInt32Array) -> Result<RecordBatch, ArrowError> {
    batch_of(&rows.schema(), take_arrays(rows.columns(), indices, None)?, indices.len())
}
