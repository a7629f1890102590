//! Rows by key, with weights: a side of a join, the partitions of a recomputation.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, Int64Array, UInt32Array};
use datafusion::arrow::buffer::NullBuffer;
use datafusion::arrow::datatypes::{DataType, SchemaRef};

use super::row_chunks::RowChunks;
use super::shards::shard_of;
use crate::change::ChangeBatch;
use crate::error::{Error, Result};
use crate::expression::{Expression, resilient};
use crate::keys::{EncodedRows, KeyTable, RowCodec, hash};
use crate::layout::batch_of;
use crate::rejects::StepRejects;
use crate::state::{Image, StateReader, Stateful};

/// Number of a row in a side.
pub(crate) type RowId = u32;

/// Rows by key.
pub(crate) struct KeyedRows {
    exprs: Vec<Expression>,
    key_codec: RowCodec,
    null_equal: bool,
    schema: SchemaRef,
    keys: KeyTable,
    /// First and last row of each key.
    ends: Vec<(RowId, RowId)>,
    /// The row after each row of the same key.
    next: Vec<RowId>,
    /// The row before each; none where rows only come.
    before: Vec<RowId>,
    rows: Rows,
    /// Weights of rows; where rows only come, none as long as all are 1.
    weights: Vec<i64>,
}

/// The rows themselves.
enum Rows {
    /// Each distinct row once; the slot is the row's id.
    Distinct { codec: RowCodec, table: KeyTable },
    /// Rows only come: none is ever looked for.
    Appended(RowChunks),
}

/// Whole rows of a batch as bytes, with their hashes.
struct RowBytes {
    encoded: EncodedRows,
    hashes: Vec<u64>,
}

impl RowBytes {
    fn encode(codec: &RowCodec, batch: &ChangeBatch) -> Result<Self> {
        let encoded = codec.encode(batch.rows.columns(), batch.len())?;
        let hashes = encoded.hashes(batch.len());
        Ok(Self { encoded, hashes })
    }
}

/// The end of a list.
const NONE: RowId = RowId::MAX;

/// The keys of a batch.
pub(crate) struct BatchKeys {
    encoded: EncodedRows,
    hashes: Vec<u64>,
    /// Rows whose key has a NULL, where NULL matches nothing.
    nulls: Option<NullBuffer>,
}

impl BatchKeys {
    /// The key of a row, with its hash; None when it matches nothing.
    pub(crate) fn key(&self, row: usize) -> Option<(u64, &[u8])> {
        let usable = self.nulls.as_ref().is_none_or(|nulls| nulls.is_valid(row));
        usable.then(|| (self.hashes[row], self.encoded.row(row)))
    }

    /// Rows whose key can match something; None is all.
    fn usable(&self) -> Option<Vec<u32>> {
        let rows = self.nulls.as_ref()?.valid_indices();
        Some(rows.map(|row| u32::try_from(row).unwrap_or(u32::MAX)).collect())
    }
}

/// A batch of changes with its keys; rows that match nothing are left out.
pub(crate) struct Keyed {
    pub(crate) batch: ChangeBatch,
    keys: Arc<BatchKeys>,
    /// For each row of the batch its row among the keys; None is its own.
    places: Option<Vec<u32>>,
}

impl Keyed {
    fn place(&self, row: usize) -> usize {
        self.places.as_ref().map_or(row, |places| places[row] as usize)
    }

    pub(crate) fn key(&self, row: usize) -> &[u8] {
        self.keys.encoded.row(self.place(row))
    }

    pub(crate) fn hash(&self, row: usize) -> u64 {
        self.keys.hashes[self.place(row)]
    }
}

/// Changes cut by the shard of their keys; one list for each shard. Rows whose key cannot be
/// computed are rejected.
pub(crate) fn shard_changes(
    changes: impl IntoIterator<Item = ChangeBatch>,
    side: &KeyedRows,
    shards: usize,
    rejects: &mut StepRejects,
) -> Result<Vec<Vec<Keyed>>> {
    let mut out: Vec<Vec<Keyed>> = (0..shards).map(|_| Vec::new()).collect();
    for batch in changes {
        for parts in resilient(&batch, rejects, &mut |b| side.split(b, shards))? {
            for (shard, part) in parts {
                out[shard].push(part);
            }
        }
    }
    Ok(out)
}

impl KeyedRows {
    pub(crate) fn try_new(
        exprs: Vec<Expression>,
        key_types: Vec<DataType>,
        schema: &SchemaRef,
        null_equal: bool,
    ) -> Result<Self> {
        let codec = RowCodec::try_new(schema.fields().iter().map(|f| f.data_type().clone()))?;
        Ok(Self {
            exprs,
            key_codec: RowCodec::try_new(key_types)?,
            null_equal,
            schema: Arc::clone(schema),
            keys: KeyTable::default(),
            ends: Vec::new(),
            next: Vec::new(),
            before: Vec::new(),
            rows: Rows::Distinct { codec, table: KeyTable::default() },
            weights: Vec::new(),
        })
    }

    /// For rows that are never taken back.
    pub(crate) fn append_only(self, append_only: bool) -> Self {
        if !append_only {
            return self;
        }
        let rows = Rows::Appended(RowChunks::new(Arc::clone(&self.schema)));
        Self { rows, ..self }
    }

    /// Lets all rows go.
    pub(crate) fn clear(&mut self) {
        match &mut self.rows {
            Rows::Distinct { table, .. } => *table = KeyTable::default(),
            Rows::Appended(chunks) => *chunks = RowChunks::new(Arc::clone(&self.schema)),
        }
        self.keys = KeyTable::default();
        (self.ends, self.next, self.before) = (Vec::new(), Vec::new(), Vec::new());
        self.weights = Vec::new();
    }

    pub(crate) fn batch_keys(&self, batch: &ChangeBatch) -> Result<BatchKeys> {
        let columns = self.exprs.iter().map(|e| e.evaluate(&batch.rows)).collect::<Result<Vec<_>>>()?;
        let nulls = if self.null_equal {
            None
        } else {
            columns
                .iter()
                .fold(None, |all, column| NullBuffer::union(all.as_ref(), column.logical_nulls().as_ref()))
        };
        let nulls = nulls.filter(|nulls| nulls.null_count() > 0);
        let encoded = self.key_codec.encode(&columns, batch.len())?;
        let hashes = encoded.hashes(batch.len());
        Ok(BatchKeys { encoded, hashes, nulls })
    }

    /// A batch with its keys.
    pub(crate) fn keyed(&self, batch: &ChangeBatch) -> Result<Keyed> {
        let keys = self.batch_keys(batch)?;
        let places = keys.usable();
        let batch = match &places {
            Some(rows) => batch.take(&UInt32Array::from(rows.clone()))?,
            None => batch.clone(),
        };
        Ok(Keyed { batch, keys: Arc::new(keys), places })
    }

    fn split(&self, batch: &ChangeBatch, shards: usize) -> Result<Vec<(usize, Keyed)>> {
        if shards == 1 {
            return Ok(vec![(0, self.keyed(batch)?)]);
        }
        let keys = Arc::new(self.batch_keys(batch)?);
        let mut rows = vec![Vec::new(); shards];
        let mut deal = |row: u32| rows[shard_of(keys.hashes[row as usize], shards)].push(row);
        match keys.usable() {
            Some(usable) => usable.into_iter().for_each(&mut deal),
            None => (0..u32::try_from(batch.len()).unwrap_or(u32::MAX)).for_each(&mut deal),
        }
        rows.into_iter()
            .enumerate()
            .filter(|(_, rows)| !rows.is_empty())
            .map(|(shard, rows)| {
                let part = batch.take(&UInt32Array::from(rows.clone()))?;
                Ok((shard, Keyed { batch: part, keys: Arc::clone(&keys), places: Some(rows) }))
            })
            .collect()
    }

    /// Adds rows that come, and returns their ids.
    pub(crate) fn add(&mut self, changes: &Keyed) -> Result<Vec<RowId>> {
        let Rows::Distinct { codec, .. } = &self.rows else {
            return Err(Error::bug("keyed rows", "rows that are let go are kept by value"));
        };
        let batch = &changes.batch;
        let rows = RowBytes::encode(codec, batch)?;
        Ok((0..batch.len()).map(|row| self.change_row(changes, &rows, row)).collect())
    }

    /// Lets rows go, however often they are there, and returns that change.
    pub(crate) fn forget(&mut self, ids: &[RowId]) -> Result<Option<ChangeBatch>> {
        if ids.is_empty() {
            return Ok(None);
        }
        let rows = batch_of(&self.schema, self.columns(ids)?, ids.len())?;
        let weights = Int64Array::from_iter_values(ids.iter().map(|id| -self.weight(*id)));
        let gone = ChangeBatch::weighted(rows, weights);
        self.apply(&self.keyed(&gone)?)?;
        Ok(Some(gone))
    }

    /// Adds the changes of a batch.
    pub(crate) fn apply(&mut self, changes: &Keyed) -> Result<()> {
        let batch = &changes.batch;
        match &mut self.rows {
            Rows::Distinct { codec, .. } => {
                let rows = RowBytes::encode(codec, batch)?;
                for row in 0..batch.len() {
                    self.change_row(changes, &rows, row);
                }
            }
            Rows::Appended(chunks) => {
                let first = chunks.len();
                chunks.push(&batch.rows)?;
                for row in 0..batch.len() {
                    self.keys.warm(row, batch.len(), |row| changes.hash(row));
                    let id = RowId::try_from(first + row).unwrap_or(NONE);
                    self.link(changes.hash(row), changes.key(row), id);
                    self.weigh(id, batch.weight(row));
                }
            }
        }
        Ok(())
    }

    /// The weight of a row that only comes.
    fn weigh(&mut self, id: RowId, weight: i64) {
        if weight != 1 || !self.weights.is_empty() {
            self.weights.resize(id as usize, 1);
            self.weights.push(weight);
        }
    }

    fn change_row(&mut self, changes: &Keyed, rows: &RowBytes, row: usize) -> RowId {
        let Rows::Distinct { table, .. } = &mut self.rows else { return NONE };
        let count = rows.hashes.len();
        self.keys.warm(row, count, |row| changes.hash(row));
        table.warm(row, count, |row| rows.hashes[row]);
        let (key_hash, key, weight) = (changes.hash(row), changes.key(row), changes.batch.weight(row));
        let (id, new) = table.insert_hashed(rows.hashes[row], rows.encoded.row(row));
        if self.weights.len() <= id as usize {
            self.weights.resize(table.capacity(), 0);
        }
        self.weights[id as usize] += weight;
        let gone = self.weights[id as usize] == 0;
        if new && !gone {
            self.link(key_hash, key, id);
        } else if gone {
            if !new {
                self.unlink(key_hash, key, id);
            }
            if let Rows::Distinct { table, .. } = &mut self.rows {
                table.remove(id);
            }
        }
        id
    }

    /// Puts a row at the end of its key's list.
    fn link(&mut self, key_hash: u64, key: &[u8], id: RowId) {
        let (slot, new) = self.keys.insert_hashed(key_hash, key);
        if self.ends.len() <= slot as usize {
            self.ends.resize(self.keys.capacity(), (NONE, NONE));
        }
        if self.next.len() <= id as usize {
            self.next.resize(id as usize + 1, NONE);
        }
        self.next[id as usize] = NONE;
        let ends = &mut self.ends[slot as usize];
        let last = if new { NONE } else { ends.1 };
        if new {
            *ends = (id, id);
        } else {
            self.next[last as usize] = id;
            ends.1 = id;
        }
        if matches!(self.rows, Rows::Distinct { .. }) {
            self.before.resize(self.next.len(), NONE);
            self.before[id as usize] = last;
        }
    }

    /// Takes a row out of its key's list; a key without rows goes.
    fn unlink(&mut self, key_hash: u64, key: &[u8], id: RowId) {
        let Some(slot) = self.keys.find_hashed(key_hash, key) else { return };
        let (before, after) = (self.before[id as usize], self.next[id as usize]);
        let ends = &mut self.ends[slot as usize];
        match before {
            NONE => ends.0 = after,
            before => self.next[before as usize] = after,
        }
        match after {
            NONE => ends.1 = before,
            after => self.before[after as usize] = before,
        }
        if before == NONE && after == NONE {
            self.keys.remove(slot);
        }
    }

    /// Rows with that key, oldest first.
    pub(crate) fn matches(&self, key_hash: u64, key: &[u8]) -> impl Iterator<Item = RowId> {
        let first = self.keys.find_hashed(key_hash, key).map_or(NONE, |slot| self.ends[slot as usize].0);
        let some = |id: RowId| (id != NONE).then_some(id);
        std::iter::successors(some(first), move |id| some(self.next[*id as usize]))
    }

    pub(crate) fn weight(&self, id: RowId) -> i64 {
        self.weights.get(id as usize).copied().unwrap_or(1)
    }

    /// The rows with that key, oldest first, each as often as its weight says.
    pub(crate) fn expand(&self, key: &[u8], into: &mut Vec<RowId>) {
        for id in self.matches(hash(key), key) {
            into.extend((0..self.weight(id)).map(|_| id));
        }
    }

    /// Columns of the rows with these ids.
    pub(crate) fn columns(&self, ids: &[RowId]) -> Result<Vec<ArrayRef>> {
        match &self.rows {
            Rows::Distinct { codec, table } => codec.decode(ids.iter().map(|id| table.key(*id))),
            Rows::Appended(chunks) => chunks.columns(ids),
        }
    }

    pub(crate) fn bytes(&self) -> usize {
        let rows = match &self.rows {
            Rows::Distinct { table, .. } => table.bytes(),
            Rows::Appended(chunks) => chunks.bytes(),
        };
        let lists = self.ends.capacity() * size_of::<(RowId, RowId)>()
            + (self.next.capacity() + self.before.capacity()) * size_of::<RowId>();
        self.keys.bytes() + rows + lists + self.weights.capacity() * size_of::<i64>()
    }

    /// Refuses a state in which a row was taken back that never came.
    pub(crate) fn check(&self) -> Result<()> {
        if cfg!(debug_assertions) && self.weights.iter().any(|w| *w < 0) {
            return Err(Error::bug("keyed rows", "a row was taken back that was never there"));
        }
        Ok(())
    }
}

impl Stateful for KeyedRows {
    fn save(&self, image: &mut Image) {
        self.keys.save(image);
        image.vector(&self.ends);
        image.vector(&self.next);
        image.vector(&self.before);
        image.vector(&self.weights);
        match &self.rows {
            Rows::Distinct { table, .. } => table.save(image),
            Rows::Appended(chunks) => chunks.save(image),
        }
    }

    fn load(&mut self, state: &mut StateReader<'_>) -> Result<()> {
        self.keys.load(state)?;
        (self.ends, self.next) = (state.vector()?, state.vector()?);
        (self.before, self.weights) = (state.vector()?, state.vector()?);
        match &mut self.rows {
            Rows::Distinct { table, .. } => table.load(state),
            Rows::Appended(chunks) => chunks.load(state),
        }
    }
}

/// Weights of joined rows.
pub(crate) fn product(left: &[i64], right: &[i64]) -> Option<Int64Array> {
    let products: Vec<i64> = left.iter().zip(right).map(|(l, r)| l * r).collect();
    products.iter().any(|w| *w != 1).then(|| Int64Array::from(products))
}
