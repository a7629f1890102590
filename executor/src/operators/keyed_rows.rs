//! Rows by key, with weights: a side of a join, the partitions of a recomputation.

use datafusion::arrow::array::{Array, Int64Array, UInt32Array};
use datafusion::arrow::datatypes::SchemaRef;

use super::shards::shard_of;
use crate::change::ChangeBatch;
use crate::error::{Error, Result};
use crate::expression::{Expression, resilient};
use crate::keys::{EncodedRows, KeyTable, RowCodec, Slot, hash};
use crate::rejects::StepRejects;

/// Number of a row in a side.
pub(crate) type RowId = u32;

/// Rows by key, each distinct row once.
pub(crate) struct KeyedRows {
    exprs: Vec<Expression>,
    key_codec: RowCodec,
    row_codec: RowCodec,
    null_equal: bool,
    /// Rows only come: each is kept as it is, and none is ever looked for.
    append_only: bool,
    keys: KeyTable,
    /// Rows of each key.
    lists: Vec<Vec<RowId>>,
    /// Distinct rows; the slot is the row's id.
    rows: KeyTable,
    weights: Vec<i64>,
    /// Bytes behind the lists: kept, since counting them would take time in proportion to the keys.
    list_bytes: usize,
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

/// A batch of changes with its keys.
pub(crate) type Keyed = (ChangeBatch, BatchKeys);

/// Changes cut by the shard of their keys; one list for each shard. Rows whose key cannot be
/// computed are rejected.
pub(crate) fn shard_changes(
    changes: impl IntoIterator<Item = ChangeBatch>,
    shards: &[&KeyedRows],
    rejects: &mut StepRejects,
) -> Result<Vec<Vec<Keyed>>> {
    let mut out: Vec<Vec<Keyed>> = shards.iter().map(|_| Vec::new()).collect();
    for batch in changes {
        for (shard, keyed) in resilient(&batch, rejects, &mut |b| split(b, shards))?.into_iter().flatten() {
            out[shard].push(keyed);
        }
    }
    Ok(out)
}

fn split(batch: &ChangeBatch, shards: &[&KeyedRows]) -> Result<Vec<(usize, Keyed)>> {
    let keys = shards[0].batch_keys(batch)?;
    if shards.len() == 1 {
        return Ok(vec![(0, (batch.clone(), keys))]);
    }
    let mut rows = vec![Vec::new(); shards.len()];
    for row in 0..batch.len() {
        if let Some(key) = keys.key(row) {
            rows[shard_of(hash(key), shards.len())].push(u32::try_from(row).unwrap_or(u32::MAX));
        }
    }
    rows.into_iter()
        .enumerate()
        .filter(|(_, rows)| !rows.is_empty())
        .map(|(shard, rows)| {
            let part = batch.take(&UInt32Array::from(rows))?;
            let keys = shards[shard].batch_keys(&part)?;
            Ok((shard, (part, keys)))
        })
        .collect()
}

impl KeyedRows {
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
            append_only: false,
            keys: KeyTable::default(),
            lists: Vec::new(),
            rows: KeyTable::default(),
            weights: Vec::new(),
            list_bytes: 0,
        })
    }

    /// For rows that are never taken back.
    pub(crate) fn append_only(self, append_only: bool) -> Self {
        Self { append_only, ..self }
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
        let (id, new) = if self.append_only { (self.rows.append(row), true) } else { self.rows.insert(row) };
        if self.weights.len() <= id as usize {
            self.weights.resize(self.rows.capacity(), 0);
        }
        self.weights[id as usize] += weight;
        let (slot, _) = self.keys.insert(key);
        if self.lists.len() <= slot as usize {
            self.lists.resize(self.keys.capacity(), Vec::new());
        }
        if new {
            let list = &mut self.lists[slot as usize];
            let before = list.capacity();
            list.push(id);
            self.list_bytes += (list.capacity() - before) * size_of::<RowId>();
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
            self.list_bytes -= std::mem::take(list).capacity() * size_of::<RowId>();
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

    /// The rows with that key, oldest first, each as often as its weight says.
    pub(crate) fn expand(&self, key: &[u8], into: &mut Vec<RowId>) {
        for id in self.matches(key) {
            into.extend((0..self.weight(*id)).map(|_| *id));
        }
    }

    /// Columns of the rows with these ids.
    pub(crate) fn columns(&self, ids: &[RowId]) -> Result<Vec<datafusion::arrow::array::ArrayRef>> {
        self.row_codec.decode(ids.iter().map(|id| self.rows.key(*id)))
    }

    pub(crate) fn bytes(&self) -> usize {
        let lists = self.lists.capacity() * size_of::<Vec<RowId>>() + self.list_bytes;
        self.keys.bytes() + self.rows.bytes() + self.weights.capacity() * size_of::<i64>() + lists
    }

    /// Refuses a state in which a row was taken back that never came.
    pub(crate) fn check(&self) -> Result<()> {
        if cfg!(debug_assertions) && self.weights.iter().any(|w| *w < 0) {
            return Err(Error::bug("keyed rows", "a row was taken back that was never there"));
        }
        Ok(())
    }
}

/// Weights of joined rows.
pub(crate) fn product(left: &[i64], right: &[i64]) -> Option<Int64Array> {
    let products: Vec<i64> = left.iter().zip(right).map(|(l, r)| l * r).collect();
    products.iter().any(|w| *w != 1).then(|| Int64Array::from(products))
}
