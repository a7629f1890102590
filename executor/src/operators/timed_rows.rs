//! Rows by the time at which something happens to them, with weights: windows that are to close, rows
//! that are to come or to leave.

use std::collections::BTreeMap;

use datafusion::arrow::array::Int64Array;
use datafusion::arrow::datatypes::SchemaRef;

use crate::change::ChangeBatch;
use crate::error::Result;
use crate::keys::{EncodedRows, RowCodec};
use crate::layout::batch_of;
use crate::state::{Image, StateReader, Stateful};

/// What a B-tree keeps for each entry beside the row's own bytes.
const ENTRY_BYTES: usize = 48;

/// Rows in the order of their times, those of one time in the order of their values.
pub(super) struct TimedRows {
    codec: RowCodec,
    schema: SchemaRef,
    rows: BTreeMap<(i64, Box<[u8]>), i64>,
    bytes: usize,
}

impl TimedRows {
    pub(super) fn try_new(schema: SchemaRef) -> Result<Self> {
        let codec = RowCodec::try_new(schema.fields().iter().map(|f| f.data_type().clone()))?;
        Ok(Self { codec, schema, rows: BTreeMap::new(), bytes: 0 })
    }

    /// The rows of a batch as they are kept.
    pub(super) fn encode(&self, batch: &ChangeBatch) -> Result<EncodedRows> {
        self.codec.encode(batch.rows.columns(), batch.len())
    }

    /// Adds to the weight of a row at a time; without weight it goes.
    pub(super) fn add(&mut self, time: i64, row: &[u8], weight: i64) {
        let key: (i64, Box<[u8]>) = (time, row.into());
        let size = row.len() + ENTRY_BYTES;
        let bytes = &mut self.bytes;
        let sum = self.rows.entry(key.clone()).or_insert_with(|| {
            *bytes += size;
            0
        });
        *sum += weight;
        if *sum == 0 {
            self.rows.remove(&key);
            self.bytes -= size;
        }
    }

    /// Lets a row of a time go, however often it is there.
    pub(super) fn forget(&mut self, time: i64, row: &[u8]) {
        if self.rows.remove(&(time, Box::from(row))).is_some() {
            self.bytes -= row.len() + ENTRY_BYTES;
        }
    }

    /// Takes out the rows whose time is `until` or before; None when there are none.
    pub(super) fn take(&mut self, until: i64) -> Result<Option<ChangeBatch>> {
        let (mut rows, mut weights): (Vec<Box<[u8]>>, Vec<i64>) = (Vec::new(), Vec::new());
        while let Some(first) = self.rows.first_entry().filter(|e| e.key().0 <= until) {
            let ((_, row), weight) = first.remove_entry();
            self.bytes -= row.len() + ENTRY_BYTES;
            rows.push(row);
            weights.push(weight);
        }
        if rows.is_empty() {
            return Ok(None);
        }
        let columns = self.codec.decode(rows.iter().map(AsRef::as_ref))?;
        let rows = batch_of(&self.schema, columns, weights.len())?;
        Ok(Some(ChangeBatch::weighted(rows, Int64Array::from(weights))))
    }

    /// The first time there is.
    pub(super) fn first(&self) -> Option<i64> {
        self.rows.first_key_value().map(|((time, _), _)| *time)
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Stateful for TimedRows {
    fn save(&self, image: &mut Image) {
        image.count(self.rows.len());
        for ((time, row), weight) in &self.rows {
            image.value((*time, *weight));
            image.bytes(row);
        }
    }

    fn load(&mut self, state: &mut StateReader<'_>) -> Result<()> {
        let count = state.count()?;
        let mut rows = Vec::with_capacity(count.min(1 << 20));
        for _ in 0..count {
            let ((time, weight), row): ((i64, i64), Vec<u8>) = (state.value()?, state.bytes()?);
            self.bytes += row.len() + ENTRY_BYTES;
            rows.push(((time, row.into_boxed_slice()), weight));
        }
        // They come in order, which makes it a tree at once.
        self.rows = rows.into_iter().collect();
        Ok(())
    }
}
