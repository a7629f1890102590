//! Layouts of rows.

use std::sync::Arc;

use datafusion::arrow::array::ArrayData;
use datafusion::arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, UInt32Array, new_null_array};
use datafusion::arrow::buffer::NullBuffer;
use datafusion::arrow::compute::take_arrays;
use datafusion::arrow::datatypes::{FieldRef, Schema, SchemaRef};
use datafusion::arrow::error::ArrowError;

/// More than rows need in their buffers that is not worth a copy.
const LITTLE_BYTES: usize = 4 << 10;

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

/// Bytes of the values that rows have, whatever else lies in the same buffers.
pub fn own_bytes(rows: &RecordBatch) -> usize {
    let bytes = |column: &ArrayRef| column.to_data().get_slice_memory_size();
    rows.columns().iter().map(|column| bytes(column).unwrap_or(column.get_array_memory_size())).sum()
}

/// The rows in buffers that hold little else: what is read from the log shares its frame's, and a part of a large
/// batch all of its.
///
/// # Errors
/// None that is known.
pub(crate) fn own_buffers(rows: RecordBatch) -> Result<RecordBatch, ArrowError> {
    let mut held: Vec<(usize, usize)> = Vec::new();
    rows.columns().iter().for_each(|column| allocations(&column.to_data(), &mut held));
    if held.iter().map(|(_, bytes)| bytes).sum::<usize>() <= 2 * own_bytes(&rows) + LITTLE_BYTES {
        return Ok(rows);
    }
    let all: UInt32Array = (0..u32::try_from(rows.num_rows()).unwrap_or(u32::MAX)).collect();
    take_rows(&rows, &all)
}

/// Notes the allocations that an array's buffers lie in, by address and length.
fn allocations(array: &ArrayData, into: &mut Vec<(usize, usize)>) {
    for buffer in array.buffers().iter().chain(array.nulls().map(NullBuffer::buffer)) {
        let allocation = (buffer.data_ptr().as_ptr() as usize, buffer.capacity());
        if !into.contains(&allocation) {
            into.push(allocation);
        }
    }
    array.child_data().iter().for_each(|child| allocations(child, into));
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
