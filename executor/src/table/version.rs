//! A table at one epoch.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, RecordBatch};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::ScalarValue;

use super::chunk::Chunk;
use super::store::TableStore;
use crate::error::Result;
use crate::layout::own_bytes;

/// The rows of a table at one epoch. Cheap to clone; holds them however the table changes.
#[derive(Debug, Clone)]
pub struct TableVersion {
    pub(super) schema: SchemaRef,
    pub(super) chunks: Arc<Vec<Arc<Chunk>>>,
    pub(super) rows: usize,
    /// The store's change counter when this was published.
    pub(super) change: u64,
    /// Chunks that the store had made until then.
    pub(super) births: u64,
    pub(super) store: TableStore,
}

impl TableVersion {
    /// The layout of its rows.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Number of rows.
    pub fn num_rows(&self) -> usize {
        self.rows
    }

    /// Bytes of its rows.
    pub fn bytes(&self) -> usize {
        self.chunks.iter().map(|chunk| own_bytes(&chunk.rows)).sum()
    }

    /// All rows, in the order they were written.
    ///
    /// # Errors
    /// Only a bug's.
    pub fn batches(&self) -> Result<Vec<RecordBatch>> {
        self.chunks.iter().map(|chunk| chunk.batch()).collect()
    }

    /// The row with a key, by the index: one value for each of the key's columns. None when the table has
    /// moved on since this version, or a value is not one of its column's: then the caller must scan.
    pub(crate) fn lookup(&self, key: &[ScalarValue]) -> Result<Option<Vec<RecordBatch>>> {
        let columns = self.store.key();
        if columns.len() != key.len() {
            return Ok(None);
        }
        let values = columns
            .iter()
            .zip(key)
            .map(|(column, value)| exactly(value, self.schema.field(*column).data_type()));
        match values.collect::<Option<Vec<ArrayRef>>>() {
            Some(values) => self.store.lookup(self, &values),
            None => Ok(None),
        }
    }

    /// Columns of its key.
    pub(crate) fn key(&self) -> Vec<usize> {
        self.store.key()
    }
}

/// A value in another type, where it loses nothing: else it would find another key. NULL equals nothing.
fn exactly(value: &ScalarValue, data_type: &DataType) -> Option<ArrayRef> {
    if value.is_null() {
        return None;
    }
    let value = value.to_array().ok()?;
    if value.data_type() == data_type {
        return Some(value);
    }
    let there = cast(&value, data_type).ok()?;
    let back = cast(&there, value.data_type()).ok()?;
    (back.to_data() == value.to_data()).then_some(there)
}
