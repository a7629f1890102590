//! One side of a join: its rows by key, with weights.

use datafusion::arrow::array::{Array, Int64Array};
use datafusion::arrow::datatypes::SchemaRef;

use crate::change::ChangeBatch;
use crate::error::{Error, Result};
use crate::expression::Expression;
use crate::keys::{EncodedRows, KeyTable, RowCodec, Slot};

/// Number of a row in a side.
pub(crate) type RowId = u32;

/// Rows by key.
pub(crate) struct JoinSide {
    exprs: Vec<Expression>,
    key_codec: RowCodec,
    row_codec: RowCodec,
    null_equal: bool,
    keys: KeyTable,
    /// Rows of each key.
    lists: Vec<Vec<RowId>>,
    /// Distinct rows; the slot is the row's id.
    rows: KeyTable,
    weights: Vec<i64>,
}

/// The keys of a batch; rows with a NULL in theirs match nothing.
pub(crate) struct BatchKeys {
    encoded: EncodedRows,
    usable: Vec<bool>,
}

impl BatchKeys {
    pub(crate) fn key(&self, row: usize) -> Option<&[u8]> {
        self.usable[row].then(|| self.encoded.row(row))
    }
}

impl JoinSide {
    pub(crate) fn try_new(
        exprs: Vec<Expression>,
        key_types: Vec<datafusion::arrow::datatypes::DataType>,
        schema: &SchemaRef,
        null_equal: bool,
    ) -> Result<Self> {
        Ok(Self {
            exprs,
            key_codec: RowCodec::try_new(key_types)?,
            row_codec: RowCodec::try_new(schema.fields().iter().map(|f| f.data_type().clone()))?,
            null_equal,
            keys: KeyTable::default(),
            lists: Vec::new(),
            rows: KeyTable::default(),
            weights: Vec::new(),
        })
    }

    pub(crate) fn batch_keys(&self, batch: &ChangeBatch) -> Result<BatchKeys> {
        let columns = self.exprs.iter().map(|e| e.evaluate(&batch.rows)).collect::<Result<Vec<_>>>()?;
        let mut usable = vec![true; batch.len()];
        if !self.null_equal {
            for column in &columns {
                if let Some(nulls) = column.logical_nulls() {
                    usable.iter_mut().enumerate().for_each(|(row, ok)| *ok &= nulls.is_valid(row));
                }
            }
        }
        Ok(BatchKeys { encoded: self.key_codec.encode(&columns, batch.len())?, usable })
    }

    /// Adds the changes of a batch.
    pub(crate) fn apply(&mut self, batch: &ChangeBatch, keys: &BatchKeys) -> Result<()> {
        let encoded = self.row_codec.encode(batch.rows.columns(), batch.len())?;
        for row in 0..batch.len() {
            if let Some(key) = keys.key(row) {
                self.change(key, encoded.row(row), batch.weight(row));
            }
        }
        Ok(())
    }

    fn change(&mut self, key: &[u8], row: &[u8], weight: i64) {
        let (id, new) = self.rows.insert(row);
        if self.weights.len() <= id as usize {
            self.weights.resize(self.rows.capacity(), 0);
        }
        self.weights[id as usize] += weight;
        let (slot, _) = self.keys.insert(key);
        if self.lists.len() <= slot as usize {
            self.lists.resize(self.keys.capacity(), Vec::new());
        }
        if new {
            self.lists[slot as usize].push(id);
        }
        if self.weights[id as usize] == 0 {
            self.forget(slot, id);
        }
    }

    fn forget(&mut self, slot: Slot, id: RowId) {
        let list = &mut self.lists[slot as usize];
        if let Some(at) = list.iter().position(|r| *r == id) {
            list.remove(at);
        }
        if list.is_empty() {
            *list = Vec::new();
            self.keys.remove(slot);
        }
        self.rows.remove(id);
    }

    /// Rows with that key, oldest first.
    pub(crate) fn matches(&self, key: &[u8]) -> &[RowId] {
        self.keys.find(key).map_or(&[], |slot| &self.lists[slot as usize])
    }

    pub(crate) fn weight(&self, id: RowId) -> i64 {
        self.weights[id as usize]
    }

    /// Columns of the rows with these ids.
    pub(crate) fn columns(&self, ids: &[RowId]) -> Result<Vec<datafusion::arrow::array::ArrayRef>> {
        self.row_codec.decode(ids.iter().map(|id| self.rows.key(*id)))
    }

    pub(crate) fn bytes(&self) -> usize {
        let lists: usize = self.lists.iter().map(|l| l.capacity() * 4 + size_of::<Vec<RowId>>()).sum();
        self.keys.bytes() + self.rows.bytes() + self.weights.capacity() * 8 + lists
    }

    /// Refuses a state in which a row was taken back that never came.
    pub(crate) fn check(&self) -> Result<()> {
        if cfg!(debug_assertions) && self.weights.iter().any(|w| *w < 0) {
            return Err(Error::bug("join", "a row was taken back that was never there"));
        }
        Ok(())
    }
}

/// Weights of joined rows.
pub(crate) fn product(left: &[i64], right: &[i64]) -> Option<Int64Array> {
    let products: Vec<i64> = left.iter().zip(right).map(|(l, r)| l * r).collect();
    products.iter().any(|w| *w != 1).then(|| Int64Array::from(products))
}
