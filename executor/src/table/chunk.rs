//! Rows that were written together, and which of them are still there.

use std::sync::Arc;

use datafusion::arrow::array::{BooleanArray, RecordBatch};
use datafusion::arrow::buffer::{BooleanBuffer, Buffer};
use datafusion::arrow::compute::filter_record_batch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::arrow::util::bit_util;

use crate::error::Result;
use crate::keys::Slot;
use crate::layout::{own_bytes, widened};

/// What readers hold: rows and a mask of those that are there.
#[derive(Debug, Clone)]
pub(crate) struct Chunk {
    pub(crate) rows: RecordBatch,
    /// None: all of them.
    pub(crate) live: Option<BooleanArray>,
}

impl Chunk {
    /// The rows that are there.
    pub(crate) fn batch(&self) -> Result<RecordBatch> {
        match &self.live {
            None => Ok(self.rows.clone()),
            Some(mask) => Ok(filter_record_batch(&self.rows, mask)?),
        }
    }
}

/// What the writer knows of a chunk.
#[derive(Clone)]
pub(super) struct ChunkState {
    pub(super) rows: RecordBatch,
    /// The key of each row; empty where rows are never looked for, or not yet.
    pub(super) slots: Vec<Slot>,
    /// A bit for each row that is there, as masks have them: to publish is to copy.
    live: Vec<u8>,
    /// Bytes of its rows.
    row_bytes: usize,
    pub(super) n_live: usize,
    /// Which of a table's chunks it is, in the order in which they were made.
    pub(super) birth: u64,
    /// What readers hold, until a row goes.
    published: Option<Arc<Chunk>>,
}

impl ChunkState {
    pub(super) fn new(rows: RecordBatch, slots: Vec<Slot>, birth: u64) -> Self {
        let n_live = rows.num_rows();
        let (live, row_bytes) = (vec![u8::MAX; n_live.div_ceil(8)], own_bytes(&rows));
        Self { rows, slots, live, row_bytes, n_live, birth, published: None }
    }

    /// Its rows in a layout with more columns, the last of its `own` ones, and NULL in them.
    pub(super) fn widen(&mut self, schema: &SchemaRef, own: usize) -> Result<()> {
        self.rows = widened(self.rows.clone(), schema, own)?;
        self.row_bytes = own_bytes(&self.rows);
        self.published = None;
        Ok(())
    }

    pub(super) fn remove(&mut self, row: usize) {
        if self.is_live(row) {
            bit_util::unset_bit(&mut self.live, row);
            self.n_live -= 1;
            self.published = None;
        }
    }

    pub(super) fn is_live(&self, row: usize) -> bool {
        bit_util::get_bit(&self.live, row)
    }

    /// Whether less than half of its rows are there.
    pub(super) fn is_sparse(&self) -> bool {
        self.n_live * 2 < self.rows.num_rows()
    }

    pub(super) fn publish(&mut self) -> Arc<Chunk> {
        let state = &*self;
        let chunk = match &state.published {
            Some(chunk) => Arc::clone(chunk),
            None => {
                let live = (state.n_live < state.rows.num_rows()).then(|| BooleanArray::from(state.mask()));
                Arc::new(Chunk { rows: state.rows.clone(), live })
            }
        };
        self.published = Some(Arc::clone(&chunk));
        chunk
    }

    fn mask(&self) -> BooleanBuffer {
        BooleanBuffer::new(Buffer::from_slice_ref(&self.live), 0, self.rows.num_rows())
    }

    pub(super) fn live_rows(&self) -> Vec<u32> {
        self.mask().set_indices().map(|row| u32::try_from(row).unwrap_or(u32::MAX)).collect()
    }

    pub(super) fn bytes(&self) -> usize {
        self.row_bytes + self.slots.capacity() * size_of::<Slot>() + self.live.capacity()
    }
}
