//! Rows that were written together, and which of them are still there.

use std::sync::Arc;

use datafusion::arrow::array::{BooleanArray, RecordBatch};
use datafusion::arrow::compute::filter_record_batch;

use crate::error::Result;
use crate::keys::Slot;

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
pub(super) struct ChunkState {
    pub(super) rows: RecordBatch,
    /// The key of each row; empty where rows are never looked for.
    pub(super) slots: Vec<Slot>,
    live: Vec<bool>,
    pub(super) n_live: usize,
    /// What readers hold, until a row goes.
    published: Option<Arc<Chunk>>,
}

impl ChunkState {
    pub(super) fn new(rows: RecordBatch, slots: Vec<Slot>) -> Self {
        let n_live = rows.num_rows();
        Self { rows, slots, live: vec![true; n_live], n_live, published: None }
    }

    pub(super) fn remove(&mut self, row: usize) {
        if std::mem::replace(&mut self.live[row], false) {
            self.n_live -= 1;
            self.published = None;
        }
    }

    pub(super) fn is_live(&self, row: usize) -> bool {
        self.live[row]
    }

    /// Whether less than half of its rows are there.
    pub(super) fn is_sparse(&self) -> bool {
        self.n_live * 2 < self.live.len()
    }

    pub(super) fn publish(&mut self) -> Arc<Chunk> {
        let state = &*self;
        let chunk = match &state.published {
            Some(chunk) => Arc::clone(chunk),
            None => {
                let live = (state.n_live < state.live.len()).then(|| BooleanArray::from(state.live.clone()));
                Arc::new(Chunk { rows: state.rows.clone(), live })
            }
        };
        self.published = Some(Arc::clone(&chunk));
        chunk
    }

    pub(super) fn live_rows(&self) -> Vec<u32> {
        (0u32..).zip(&self.live).filter(|(_, live)| **live).map(|(row, _)| row).collect()
    }

    pub(super) fn bytes(&self) -> usize {
        self.rows.get_array_memory_size() + self.slots.capacity() * 5
    }
}
