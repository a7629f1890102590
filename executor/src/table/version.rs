//! A table at one epoch.

use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;

use super::chunk::Chunk;
use super::store::TableStore;
use crate::error::Result;

/// The rows of a table at one epoch. Cheap to clone; holds them however the table changes.
#[derive(Debug, Clone)]
pub struct TableVersion {
    pub(super) schema: SchemaRef,
    pub(super) chunks: Arc<Vec<Arc<Chunk>>>,
    pub(super) rows: usize,
    /// The store's change counter when this was published.
    pub(super) change: u64,
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
        self.chunks.iter().map(|chunk| chunk.rows.get_array_memory_size()).sum()
    }

    /// All rows, in the order they were written.
    ///
    /// # Errors
    /// Only a bug's.
    pub fn batches(&self) -> Result<Vec<RecordBatch>> {
        self.chunks.iter().map(|chunk| chunk.batch()).collect()
    }

    /// The rows with one of these keys, by the index; None when the table has moved on since this
    /// version, so that the caller must scan.
    pub(crate) fn lookup(&self, keys: &[RecordBatch]) -> Result<Option<Vec<RecordBatch>>> {
        self.store.lookup(self.change, keys)
    }

    /// Columns of its key.
    pub(crate) fn key(&self) -> Vec<usize> {
        self.store.key()
    }
}
