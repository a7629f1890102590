//! Rows that only come, as columns: numbered in the order in which they came, never looked for.
//!
//! Invariant: rows lie in chunks in the order of their numbers; small chunks are merged, so their
//! count stays logarithmic in the number of batches below the size of a chunk.

use datafusion::arrow::array::{Array, ArrayRef, RecordBatch, UInt32Array, new_empty_array};
use datafusion::arrow::compute::{concat_batches, interleave, take};
use datafusion::arrow::datatypes::SchemaRef;

use super::keyed_rows::RowId;
use crate::error::Result;
use crate::layout::{batch_of, own_buffers, own_bytes};
use crate::state::{Image, StateReader, Stateful};

/// Chunks are merged up to so many rows.
const CHUNK_ROWS: usize = 8 * 1024;

/// Rows by number.
pub(super) struct RowChunks {
    schema: SchemaRef,
    chunks: Vec<RecordBatch>,
    /// The number of each chunk's first row.
    starts: Vec<RowId>,
    rows: usize,
    bytes: usize,
}

impl RowChunks {
    pub(super) fn new(schema: SchemaRef) -> Self {
        Self { schema, chunks: Vec::new(), starts: Vec::new(), rows: 0, bytes: 0 }
    }

    /// Adds rows; they are numbered on from the last one.
    pub(super) fn push(&mut self, rows: &RecordBatch) -> Result<()> {
        let rows = own_buffers(rows.clone())?;
        self.starts.push(RowId::try_from(self.rows).unwrap_or(RowId::MAX));
        self.rows += rows.num_rows();
        self.bytes += own_bytes(&rows);
        self.chunks.push(rows);
        self.merge()
    }

    /// Number of rows.
    pub(super) fn len(&self) -> usize {
        self.rows
    }

    fn merge(&mut self) -> Result<()> {
        while let [.., before, last] = self.chunks.as_slice() {
            let (a, b) = (before.num_rows(), last.num_rows());
            if a + b > CHUNK_ROWS || a > 2 * b {
                break;
            }
            let merged = concat_batches(before.schema_ref(), [before, last])?;
            self.bytes -= own_bytes(before) + own_bytes(last);
            self.bytes += own_bytes(&merged);
            self.chunks.truncate(self.chunks.len() - 2);
            self.starts.pop();
            self.chunks.push(merged);
        }
        Ok(())
    }

    /// Columns of the rows with these numbers.
    pub(super) fn columns(&self, ids: &[RowId]) -> Result<Vec<ArrayRef>> {
        let chunk_of = |id: RowId| self.starts.partition_point(|start| *start <= id).saturating_sub(1);
        let mut used: Vec<usize> = ids.iter().map(|id| chunk_of(*id)).collect();
        let places: Vec<(usize, usize)> =
            ids.iter().zip(&used).map(|(id, chunk)| (*chunk, (id - self.starts[*chunk]) as usize)).collect();
        used.sort_unstable();
        used.dedup();
        if let [one] = used.as_slice() {
            let rows: UInt32Array =
                places.iter().map(|(_, row)| u32::try_from(*row).unwrap_or(u32::MAX)).collect();
            let columns = self.chunks[*one].columns().iter();
            return columns.map(|c| Ok(take(c, &rows, None)?)).collect();
        }
        let rank = |chunk: usize| used.binary_search(&chunk).unwrap_or(0);
        let places: Vec<(usize, usize)> = places.into_iter().map(|(chunk, row)| (rank(chunk), row)).collect();
        (0..self.schema.fields().len())
            .map(|column| {
                if places.is_empty() {
                    return Ok(new_empty_array(self.schema.field(column).data_type()));
                }
                let arrays: Vec<&dyn Array> =
                    used.iter().map(|chunk| self.chunks[*chunk].column(column).as_ref()).collect();
                Ok(interleave(&arrays, &places)?)
            })
            .collect()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes + self.chunks.capacity() * size_of::<RecordBatch>()
    }
}

impl Stateful for RowChunks {
    fn save(&self, image: &mut Image) {
        image.count(self.chunks.len());
        self.chunks.iter().for_each(|chunk| image.rows(chunk));
    }

    fn load(&mut self, state: &mut StateReader<'_>) -> Result<()> {
        for _ in 0..state.count()? {
            let rows = state.rows()?;
            let chunk = batch_of(&self.schema, rows.columns().to_vec(), rows.num_rows())?;
            self.starts.push(RowId::try_from(self.rows).unwrap_or(RowId::MAX));
            self.rows += chunk.num_rows();
            self.bytes += own_bytes(&chunk);
            self.chunks.push(chunk);
        }
        Ok(())
    }
}
