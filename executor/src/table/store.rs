//! The writer's side of a table: an index from keys to rows, and the chunks.

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::arrow::array::{
    Array, ArrayRef, BooleanArray, Int64Array, RecordBatch, UInt32Array, new_empty_array,
};
use datafusion::arrow::buffer::{BooleanBuffer, Buffer};
use datafusion::arrow::compute::{concat_batches, interleave};
use datafusion::arrow::datatypes::SchemaRef;
use parking_lot::{RwLock, RwLockReadGuard};

use super::chunk::{Chunk, ChunkState};
use super::row_keys::RowKeys;
use super::version::TableVersion;
use crate::change::ChangeBatch;
use crate::error::{Error, Result};
use crate::keys::{KeyTable, RowCodec, Slot};
use crate::layout::{batch_of, own_buffers, take_rows};
use crate::state::{Image, StateReader};

/// Most rows of a chunk.
const CHUNK_ROWS: usize = 16 * 1024;

/// Where a row lies: chunk and row in it.
type Position = (u32, u32);
/// Of a key whose row has gone while the epoch's changes are applied: most get another one at once.
const VACANT: Position = (u32::MAX, u32::MAX);

/// A materialised table. Clones share it.
#[derive(Clone)]
pub struct TableStore(Arc<RwLock<Inner>>);

impl std::fmt::Debug for TableStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TableStore")
    }
}

#[derive(Clone)]
struct Inner {
    schema: SchemaRef,
    /// Columns of the key; all of them when rows have none. The index knows those by their hash.
    key: Vec<usize>,
    unique: bool,
    /// Rows only come, and have no key: none is ever looked for.
    append_only: bool,
    codec: Arc<RowCodec>,
    index: KeyTable,
    /// The row of each key.
    positions: Vec<Position>,
    /// Further rows of a key that is not unique.
    more: HashMap<Slot, Vec<Position>>,
    chunks: Vec<Option<ChunkState>>,
    /// Keys whose row has gone while changes are applied.
    vacated: Vec<Slot>,
    /// Chunks in use, oldest first.
    order: Vec<u32>,
    free: Vec<u32>,
    /// Chunks at the end of the order whose rows the index does not have yet. Only a bag has such: they
    /// are indexed when there is nothing else to do, and all of them before a row is taken back.
    unindexed: usize,
    /// Chunks that became mostly holes since the last merge.
    sparse: Vec<u32>,
    rows: usize,
    change: u64,
    /// Chunks that have been made.
    births: u64,
}

impl TableStore {
    /// An empty table whose rows are named by the columns `key`; without any, rows are a bag.
    ///
    /// # Errors
    /// If a key column's type has no order.
    pub fn try_new(schema: SchemaRef, key: &[usize]) -> Result<Self> {
        let unique = !key.is_empty();
        let key: Vec<usize> = if unique { key.to_vec() } else { (0..schema.fields().len()).collect() };
        let codec = RowCodec::try_new(key.iter().map(|k| schema.field(*k).data_type().clone()))?;
        Ok(Self(Arc::new(RwLock::new(Inner {
            schema,
            key,
            unique,
            append_only: false,
            codec: Arc::new(codec),
            index: KeyTable::default(),
            positions: Vec::new(),
            more: HashMap::new(),
            chunks: Vec::new(),
            vacated: Vec::new(),
            order: Vec::new(),
            free: Vec::new(),
            unindexed: 0,
            sparse: Vec::new(),
            rows: 0,
            change: 0,
            births: 0,
        }))))
    }

    /// An empty table whose rows are a bag that only grows: without an index.
    ///
    /// # Errors
    /// If a column's type has no order.
    pub fn append_only(schema: SchemaRef) -> Result<Self> {
        let store = Self::try_new(schema, &[])?;
        store.0.write().append_only = true;
        Ok(store)
    }

    /// The rows of a table with a key in a layout with more columns, the last of its `own` ones: NULL in all of them.
    /// What holds versions of this one keeps it.
    ///
    /// # Errors
    /// [`Error::Bug`] where rows are a bag, known by all their columns.
    pub(crate) fn widened(&self, schema: SchemaRef, key: Vec<usize>, own: usize) -> Result<Self> {
        let inner = self.0.read();
        if !inner.unique {
            return Err(Error::bug("table", "a bag gets columns"));
        }
        let mut wide = inner.clone();
        (wide.schema, wide.key) = (Arc::clone(&schema), key);
        for chunk in wide.chunks.iter_mut().flatten() {
            chunk.widen(&schema, own)?;
        }
        wide.change += 1;
        Ok(Self(Arc::new(RwLock::new(wide))))
    }

    /// In how many columns it keeps rows.
    pub(crate) fn width(&self) -> usize {
        self.0.read().schema.fields().len()
    }

    /// Applies the net changes of one epoch.
    ///
    /// # Errors
    /// [`Error::Bug`] when a row is taken back that is not there.
    pub fn apply(&self, changes: &[ChangeBatch]) -> Result<()> {
        let mut inner = self.0.write();
        for batch in changes {
            inner.take_back(batch)?;
        }
        for batch in changes {
            inner.add(batch)?;
        }
        inner.forget_vacated();
        inner.merge()
    }

    /// Writes rows by key, the last of a key winning; `deleted` marks rows that remove their key.
    /// Returns the net change.
    ///
    /// # Errors
    /// Only a bug's.
    pub fn upsert(&self, rows: &RecordBatch, deleted: Option<&BooleanArray>) -> Result<Vec<ChangeBatch>> {
        let mut inner = self.0.write();
        let changes = inner.upsert_changes(rows, deleted)?;
        for batch in &changes {
            inner.take_back(batch)?;
        }
        for batch in &changes {
            inner.add(batch)?;
        }
        inner.forget_vacated();
        inner.merge()?;
        Ok(changes)
    }

    /// The rows as they are now.
    pub fn version(&self) -> TableVersion {
        let mut inner = self.0.write();
        let order = inner.order.clone();
        let chunks = order
            .iter()
            .filter_map(|id| inner.chunks[*id as usize].as_mut().map(ChunkState::publish))
            .collect();
        TableVersion {
            schema: Arc::clone(&inner.schema),
            chunks: Arc::new(chunks),
            rows: inner.rows,
            change: inner.change,
            births: inner.births,
            store: self.clone(),
        }
    }

    /// Puts the rows into a checkpoint. They are held, not copied.
    pub(crate) fn save(&self, image: &mut Image) {
        let version = self.version();
        image.count(version.chunks.len());
        for chunk in version.chunks.iter() {
            let live = chunk.live.as_ref().map(|mask| mask.values().values());
            image.vector(live.unwrap_or_default());
            image.rows(&chunk.rows);
        }
    }

    /// Takes the rows back, into a table that has none: in their order, without those that had gone.
    ///
    /// # Errors
    /// [`Error::Bug`] when they are not a table's.
    pub(crate) fn load(&self, state: &mut StateReader<'_>) -> Result<()> {
        let mut inner = self.0.write();
        for _ in 0..state.count()? {
            let (mask, rows): (Vec<u8>, RecordBatch) = (state.vector()?, state.rows()?);
            let live = (!mask.is_empty()).then(|| {
                let mask = BooleanBuffer::new(Buffer::from_vec(mask), 0, rows.num_rows());
                BooleanArray::from(mask)
            });
            let rows = Chunk { rows, live }.batch()?;
            let rows = batch_of(&inner.schema, rows.columns().to_vec(), rows.num_rows())?;
            if rows.num_rows() > 0 {
                inner.add_chunk(rows)?;
            }
        }
        inner.change += 1;
        Ok(())
    }

    /// Lets all rows go. Versions that were published keep theirs.
    pub fn clear(&self) {
        let mut inner = self.0.write();
        inner.index = KeyTable::default();
        (inner.positions, inner.chunks, inner.order) = (Vec::new(), Vec::new(), Vec::new());
        (inner.free, inner.sparse, inner.unindexed) = (Vec::new(), Vec::new(), 0);
        inner.more.clear();
        inner.vacated.clear();
        inner.rows = 0;
        inner.change += 1;
    }

    /// Whether rows wait to be indexed.
    pub(crate) fn has_unindexed(&self) -> bool {
        self.0.read().unindexed > 0
    }

    /// Indexes some of the rows that wait for it.
    ///
    /// # Errors
    /// Only a bug's.
    pub(crate) fn index_some(&self) -> Result<()> {
        let mut inner = self.0.write();
        inner.index_next()?;
        if inner.unindexed == 0 { inner.merge() } else { Ok(()) }
    }

    /// Bytes of rows and index.
    pub fn bytes(&self) -> usize {
        let inner = self.0.read();
        inner.index.bytes()
            + inner.positions.capacity() * size_of::<Position>()
            + inner.chunks.iter().flatten().map(ChunkState::bytes).sum::<usize>()
    }

    /// A column of the rows that have the keys of `rows`, which may lack columns behind the key.
    ///
    /// # Errors
    /// [`Error::Bug`] when a row is not there.
    pub(crate) fn column_of(&self, rows: &RecordBatch, column: usize) -> Result<ArrayRef> {
        let inner = self.0.read();
        if !inner.unique {
            return Err(Error::bug("table", "rows of a bag are looked up by key"));
        }
        let keys = inner.row_keys(rows)?;
        let found = |row| keys.find(&inner.index, row).ok_or_else(missing);
        let slots = (0..rows.num_rows()).map(found).collect::<Result<Vec<_>>>()?;
        let columns = TableReader(inner).columns(&slots, &[column])?;
        Ok(Arc::clone(&columns[0]))
    }

    /// The rows as they are now, to be found by key.
    pub(crate) fn reader(&self) -> TableReader<'_> {
        TableReader(self.0.read())
    }

    pub(super) fn key(&self) -> Vec<usize> {
        let inner = self.0.read();
        if inner.unique { inner.key.clone() } else { Vec::new() }
    }

    /// The row of a key as it was when a version was published, by the index; None when the index has moved
    /// on and cannot say.
    pub(super) fn lookup(
        &self,
        version: &TableVersion,
        key: &[ArrayRef],
    ) -> Result<Option<Vec<RecordBatch>>> {
        let inner = self.0.read();
        let encoded = inner.codec.encode(key, 1)?;
        let Some(slot) = inner.index.find(encoded.row(0)) else {
            return Ok((inner.change == version.change).then(Vec::new));
        };
        let (chunk, row) = inner.positions[slot as usize];
        let chunk = inner.chunks.get(chunk as usize).and_then(Option::as_ref);
        // Rows never come back: one that is here now, in a chunk that was there then, was here then.
        let chunk = chunk.filter(|chunk| chunk.birth <= version.births);
        Ok(chunk.map(|chunk| vec![chunk.rows.slice(row as usize, 1)]))
    }
}

/// Finds rows of a table by key. Nobody writes to the table meanwhile.
pub(crate) struct TableReader<'a>(RwLockReadGuard<'a, Inner>);

impl TableReader<'_> {
    /// The row of a key, encoded as its columns are, with the hash of that.
    pub(crate) fn find(&self, hash: u64, key: &[u8]) -> Option<Slot> {
        self.0.index.find_hashed(hash, key)
    }

    /// Some columns of rows that were found.
    pub(crate) fn columns(&self, rows: &[Slot], columns: &[usize]) -> Result<Vec<ArrayRef>> {
        let positions: Vec<Position> = rows.iter().map(|slot| self.0.positions[*slot as usize]).collect();
        if positions.is_empty() {
            let schema = &self.0.schema;
            return Ok(columns.iter().map(|c| new_empty_array(schema.field(*c).data_type())).collect());
        }
        self.0.gather_columns(&positions, columns)
    }
}

impl Inner {
    fn key_columns(&self, rows: &RecordBatch) -> Vec<datafusion::arrow::array::ArrayRef> {
        self.key.iter().map(|k| Arc::clone(rows.column(*k))).collect()
    }

    /// Removes the rows of negative weight.
    fn take_back(&mut self, batch: &ChangeBatch) -> Result<()> {
        if batch.weights.as_ref().is_none_or(|w| w.values().iter().all(|w| *w > 0)) {
            return Ok(());
        }
        if self.append_only {
            return Err(missing());
        }
        if self.unindexed > 0 {
            while self.unindexed > 0 {
                self.index_next()?;
            }
            self.merge()?;
        }
        let keys = self.row_keys(&batch.rows)?;
        for row in 0..batch.len() {
            keys.warm(&self.index, row);
            for _ in batch.weight(row)..0 {
                let slot = keys.find(&self.index, row).ok_or_else(missing)?;
                if self.positions[slot as usize] == VACANT {
                    return Err(missing());
                }
                if self.more.contains_key(&slot) {
                    self.put_last(slot, &batch.rows.slice(row, 1))?;
                }
                self.remove(slot);
            }
        }
        self.change += 1;
        Ok(())
    }

    /// What the index knows rows by.
    fn row_keys(&self, rows: &RecordBatch) -> Result<RowKeys> {
        let columns = self.key_columns(rows);
        match self.unique {
            true => RowKeys::by_value(&self.codec, &columns, rows.num_rows()),
            false => RowKeys::by_hash(&columns, rows.num_rows()),
        }
    }

    /// Of the rows with one hash, makes one with the values of `row` the next to go.
    fn put_last(&mut self, slot: Slot, row: &RecordBatch) -> Result<()> {
        let wanted = self.codec.encode(&self.key_columns(row), 1)?;
        let is_wanted = |position: &Position| -> Result<bool> {
            let found = self.gather(&[*position])?;
            Ok(self.codec.encode(&self.key_columns(&found), 1)?.row(0) == wanted.row(0))
        };
        let more = self.more.get(&slot).map_or(&[][..], Vec::as_slice);
        let mut at = None;
        for (n, position) in more.iter().enumerate().rev() {
            if is_wanted(position)? {
                at = Some(n);
                break;
            }
        }
        if at.is_none() && !is_wanted(&self.positions[slot as usize])? {
            return Err(missing());
        }
        let Some(more) = self.more.get_mut(&slot) else { return Ok(()) };
        let last = more.len() - 1;
        match at {
            Some(at) => more.swap(at, last),
            None => std::mem::swap(&mut more[last], &mut self.positions[slot as usize]),
        }
        Ok(())
    }

    fn remove(&mut self, slot: Slot) {
        let extra = self.more.get_mut(&slot).and_then(Vec::pop);
        let (chunk, row) = extra.unwrap_or(self.positions[slot as usize]);
        if let Some(state) = &mut self.chunks[chunk as usize] {
            let was = state.is_sparse();
            state.remove(row as usize);
            if state.is_sparse() && !was {
                self.sparse.push(chunk);
            }
            self.rows -= 1;
        }
        match extra {
            Some(_) => {
                if self.more.get(&slot).is_some_and(Vec::is_empty) {
                    self.more.remove(&slot);
                }
            }
            None if self.unique => {
                self.positions[slot as usize] = VACANT;
                self.vacated.push(slot);
            }
            None => self.index.remove(slot),
        }
    }

    /// Lets go of the keys that got no other row.
    fn forget_vacated(&mut self) {
        for slot in std::mem::take(&mut self.vacated) {
            if self.positions[slot as usize] == VACANT {
                self.index.remove(slot);
            }
        }
    }

    /// Adds the rows of positive weight.
    fn add(&mut self, batch: &ChangeBatch) -> Result<()> {
        let mut indices: Vec<u32> = Vec::new();
        for row in 0..batch.len() {
            for _ in 0..batch.weight(row).max(0) {
                indices.push(u32::try_from(row).unwrap_or(u32::MAX));
            }
        }
        if indices.is_empty() {
            return Ok(());
        }
        let whole = indices.len() == batch.len() && batch.weights.is_none();
        let rows =
            if whole { batch.rows.clone() } else { take_rows(&batch.rows, &UInt32Array::from(indices))? };
        let rows = RecordBatch::try_new(Arc::clone(&self.schema), rows.columns().to_vec())?;
        self.change += 1;
        for start in (0..rows.num_rows()).step_by(CHUNK_ROWS) {
            self.add_chunk(rows.slice(start, CHUNK_ROWS.min(rows.num_rows() - start)))?;
        }
        Ok(())
    }

    fn add_chunk(&mut self, rows: RecordBatch) -> Result<()> {
        let rows = own_buffers(rows)?;
        let id = self.new_chunk();
        self.rows += rows.num_rows();
        self.order.push(id);
        let slots = if self.unique { self.index_rows(id, &rows)? } else { Vec::new() };
        self.unindexed += usize::from(!self.unique && !self.append_only);
        self.chunks[id as usize] = Some(ChunkState::new(rows, slots, self.next_birth()));
        Ok(())
    }

    fn next_birth(&mut self) -> u64 {
        self.births += 1;
        self.births
    }

    /// Indexes the oldest chunk that is not.
    fn index_next(&mut self) -> Result<()> {
        let Some(at) = self.order.len().checked_sub(self.unindexed).filter(|at| *at < self.order.len())
        else {
            return Ok(());
        };
        let id = self.order[at];
        self.unindexed -= 1;
        let Some(rows) = self.chunks[id as usize].as_ref().map(|chunk| chunk.rows.clone()) else {
            return Ok(());
        };
        let slots = self.index_rows(id, &rows)?;
        if let Some(chunk) = &mut self.chunks[id as usize] {
            chunk.slots = slots;
        }
        Ok(())
    }

    /// Puts the rows of a chunk into the index; returns their slots.
    fn index_rows(&mut self, id: u32, rows: &RecordBatch) -> Result<Vec<Slot>> {
        let keys = self.row_keys(rows)?;
        let mut slots = Vec::with_capacity(rows.num_rows());
        for row in 0..rows.num_rows() {
            keys.warm(&self.index, row);
            let (slot, new) = keys.insert(&mut self.index, row);
            let position = (id, u32::try_from(row).unwrap_or(u32::MAX));
            if new {
                if self.positions.len() <= slot as usize {
                    self.positions.resize(self.index.capacity(), (0, 0));
                }
                self.positions[slot as usize] = position;
            } else if self.unique {
                if std::mem::replace(&mut self.positions[slot as usize], position) != VACANT {
                    return Err(Error::bug("table", "two rows have one key"));
                }
            } else {
                self.more.entry(slot).or_default().push(position);
            }
            slots.push(slot);
        }
        Ok(slots)
    }

    /// The number of a chunk that is not in use.
    fn new_chunk(&mut self) -> u32 {
        self.free.pop().unwrap_or_else(|| {
            self.chunks.push(None);
            u32::try_from(self.chunks.len() - 1).unwrap_or(u32::MAX)
        })
    }

    /// Merges small neighbours and rewrites chunks that are mostly holes, so that the number of
    /// chunks stays logarithmic in the number of writes.
    fn merge(&mut self) -> Result<()> {
        while let [.., before, last] = self.order.as_slice() {
            let (a, b) = (self.live(*before), self.live(*last));
            // Of two chunks the index has both or neither.
            if a + b > CHUNK_ROWS || a > 2 * b.max(1) || self.unindexed == 1 {
                break;
            }
            let ids = [*before, *last];
            self.order.truncate(self.order.len() - 2);
            if self.append_only || self.unindexed > 1 {
                self.join(&ids)?;
            } else {
                self.rewrite(&ids, self.order.len())?;
            }
        }
        for id in std::mem::take(&mut self.sparse) {
            // Merged already, its number may belong to another chunk by now.
            let sparse = self.chunks[id as usize].as_ref().is_some_and(ChunkState::is_sparse);
            if let Some(at) = self.order.iter().position(|o| *o == id).filter(|_| sparse) {
                self.order.remove(at);
                self.rewrite(&[id], at)?;
            }
        }
        Ok(())
    }

    fn live(&self, id: u32) -> usize {
        self.chunks[id as usize].as_ref().map_or(0, |c| c.n_live)
    }

    /// Makes one of the last chunks, whose rows are all there and not in the index.
    fn join(&mut self, ids: &[u32]) -> Result<()> {
        let whole = ids.iter().filter_map(|id| self.chunks[*id as usize].take()).map(|c| c.rows);
        let rows = concat_batches(&self.schema, &whole.collect::<Vec<_>>())?;
        self.free.extend(ids);
        let new = self.new_chunk();
        self.chunks[new as usize] = Some(ChunkState::new(rows, Vec::new(), self.next_birth()));
        self.order.push(new);
        self.unindexed = self.unindexed.saturating_sub(1);
        Ok(())
    }

    /// Replaces chunks by one with their live rows, at place `at` of the order.
    fn rewrite(&mut self, ids: &[u32], at: usize) -> Result<()> {
        // The new chunk's number is none of the old ones: a row's new place must not look like the
        // old place of another.
        let new = self.new_chunk();
        let mut parts = Vec::new();
        let mut slots: Vec<Slot> = Vec::new();
        // Where the rows of each old chunk are now.
        let mut moved: Vec<(u32, Vec<u32>)> = Vec::with_capacity(ids.len());
        for id in ids {
            let Some(chunk) = self.chunks[*id as usize].take() else { continue };
            let live = chunk.live_rows();
            let mut places = vec![u32::MAX; chunk.slots.len()];
            for row in &live {
                places[*row as usize] = u32::try_from(slots.len()).unwrap_or(u32::MAX);
                slots.push(chunk.slots[*row as usize]);
            }
            moved.push((*id, places));
            parts.push(take_rows(&chunk.rows, &UInt32Array::from(live))?);
        }
        self.free.extend(ids);
        if slots.is_empty() {
            self.free.push(new);
            return Ok(());
        }
        for slot in &slots {
            let update = |position: &mut Position| {
                if let Some((_, places)) = moved.iter().find(|(id, _)| *id == position.0) {
                    *position = (new, places[position.1 as usize]);
                }
            };
            update(&mut self.positions[*slot as usize]);
            if let Some(more) = self.more.get_mut(slot) {
                more.iter_mut().for_each(update);
            }
        }
        let rows = concat_batches(&self.schema, &parts)?;
        self.chunks[new as usize] = Some(ChunkState::new(rows, slots, self.next_birth()));
        self.order.insert(at, new);
        Ok(())
    }

    /// What an upsert changes: the old rows of its keys go, the last rows of its keys come.
    fn upsert_changes(&self, rows: &RecordBatch, deleted: Option<&BooleanArray>) -> Result<Vec<ChangeBatch>> {
        let encoded = self.codec.encode(&self.key_columns(rows), rows.num_rows())?;
        let mut seen = KeyTable::default();
        let mut last: Vec<usize> = Vec::new();
        for row in 0..rows.num_rows() {
            let (slot, new) = seen.insert(encoded.row(row));
            if new {
                last.push(row);
            } else {
                last[slot as usize] = row;
            }
        }
        let mut old: Vec<Position> = Vec::new();
        let mut new: Vec<u32> = Vec::new();
        for row in last {
            if let Some(slot) = self.index.find(encoded.row(row)) {
                old.push(self.positions[slot as usize]);
            }
            if deleted.is_none_or(|d| d.is_null(row) || !d.value(row)) {
                new.push(u32::try_from(row).unwrap_or(u32::MAX));
            }
        }
        let mut changes = Vec::new();
        if !old.is_empty() {
            let gone = self.gather(&old)?;
            let weights = Int64Array::from_value(-1, gone.num_rows());
            changes.push(ChangeBatch::weighted(gone, weights));
        }
        if !new.is_empty() {
            let came = take_rows(rows, &UInt32Array::from(new))?;
            changes.push(ChangeBatch::inserted(came));
        }
        Ok(changes)
    }

    fn gather(&self, positions: &[Position]) -> Result<RecordBatch> {
        let all: Vec<usize> = (0..self.schema.fields().len()).collect();
        let columns = self.gather_columns(positions, &all)?;
        Ok(batch_of(&self.schema, columns, positions.len())?)
    }

    fn gather_columns(&self, positions: &[Position], columns: &[usize]) -> Result<Vec<ArrayRef>> {
        let mut ids: Vec<u32> = positions.iter().map(|p| p.0).collect();
        ids.sort_unstable();
        ids.dedup();
        let batches: Vec<&RecordBatch> =
            ids.iter().filter_map(|id| self.chunks[*id as usize].as_ref().map(|c| &c.rows)).collect();
        let indices: Vec<(usize, usize)> = positions
            .iter()
            .map(|(chunk, row)| (ids.binary_search(chunk).unwrap_or(0), *row as usize))
            .collect();
        debug_assert!(
            positions
                .iter()
                .all(|(c, r)| self.chunks[*c as usize].as_ref().is_some_and(|c| c.is_live(*r as usize)))
        );
        let gathered = columns.iter().map(|column| {
            let arrays: Vec<&dyn Array> = batches.iter().map(|b| b.column(*column).as_ref()).collect();
            Ok(interleave(&arrays, &indices)?)
        });
        gathered.collect()
    }
}

fn missing() -> Error {
    Error::bug("table", "a row is taken back that is not there")
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::datatypes::{DataType, Field, Schema};

    use super::*;

    fn rows(values: impl IntoIterator<Item = i64>) -> RecordBatch {
        let column: ArrayRef = Arc::new(values.into_iter().collect::<Int64Array>());
        RecordBatch::try_from_iter([("v", column)]).unwrap()
    }

    fn change(values: impl IntoIterator<Item = i64>, weight: i64) -> ChangeBatch {
        let rows = rows(values);
        let weights = Int64Array::from_value(weight, rows.num_rows());
        ChangeBatch::weighted(rows, weights)
    }

    fn sum(store: &TableStore) -> (usize, i64) {
        let batches = store.version().batches().unwrap();
        let value = |b: &RecordBatch| -> i64 {
            let column = b.column(0).as_any().downcast_ref::<Int64Array>().unwrap();
            column.iter().flatten().sum()
        };
        (batches.iter().map(RecordBatch::num_rows).sum(), batches.iter().map(value).sum())
    }

    /// Rows of a bag go whether they were indexed before or are only then, and the number of chunks
    /// stays small in both cases.
    #[test]
    fn a_bag_is_indexed_when_it_must_be() {
        for idle in [false, true] {
            let schema = Arc::new(Schema::new(vec![Field::new("v", DataType::Int64, true)]));
            let store = TableStore::try_new(schema, &[]).unwrap();
            for n in 0..500 {
                // Every row is there twice.
                store.apply(&[change([n, n], 1)]).unwrap();
                if idle {
                    store.index_some().unwrap();
                }
            }
            assert_eq!(store.has_unindexed(), !idle);
            assert_eq!(sum(&store), (1000, 499 * 500));
            store.apply(&[change((0..500).filter(|n| n % 5 != 0), -1)]).unwrap();
            assert_eq!(sum(&store).0, 600);
            for n in 500..1000 {
                store
                    .apply(&[change([n - 500].into_iter().filter(|n| n % 5 == 0), -1), change([n], 1)])
                    .unwrap();
            }
            assert_eq!(sum(&store).0, 1000);
            assert!(store.0.read().order.len() < 16, "{} chunks", store.0.read().order.len());
            store.apply(&[change(0..1000, -1)]).unwrap();
            assert_eq!(sum(&store), (0, 0));
            assert!(store.apply(&[change([1], -1)]).is_err(), "it is not there");
        }
    }

    /// Whatever has come and gone since: a version finds what it holds, or says that it cannot.
    #[test]
    fn versions_find_their_own_rows() {
        use rand::{Rng, SeedableRng};
        let fields = ["k", "v"].map(|name| Field::new(name, DataType::Int64, true));
        let schema = Arc::new(Schema::new(fields.to_vec()));
        let store = TableStore::try_new(Arc::clone(&schema), &[0]).unwrap();
        let mut random = rand::rngs::SmallRng::seed_from_u64(7);
        let (mut versions, mut found) = (Vec::new(), 0);
        for value in 0..400 {
            let keys: Vec<i64> =
                (0..random.random_range(1..40)).map(|_| random.random_range(0..60)).collect();
            let gone: BooleanArray = keys.iter().map(|_| Some(random.random_bool(0.3))).collect();
            let values = Int64Array::from_value(value, keys.len());
            let columns: Vec<ArrayRef> = vec![Arc::new(Int64Array::from(keys)), Arc::new(values)];
            let rows = RecordBatch::try_new(Arc::clone(&schema), columns).unwrap();
            store.upsert(&rows, Some(&gone)).unwrap();
            versions.push(store.version());
            let version = &versions[random.random_range(versions.len().saturating_sub(6)..versions.len())];
            for key in 0..60i64 {
                let Some(rows) = version.lookup(&[key.into()]).unwrap() else { continue };
                found += 1;
                let wanted = |batch: RecordBatch| {
                    let keys = batch.column(0).as_any().downcast_ref::<Int64Array>().unwrap().clone();
                    (0..keys.len()).filter(|row| keys.value(*row) == key).map(|r| batch.slice(r, 1)).collect()
                };
                let held: Vec<RecordBatch> = version
                    .batches()
                    .unwrap()
                    .into_iter()
                    .flat_map(|b| -> Vec<RecordBatch> { wanted(b) })
                    .collect();
                assert_eq!(rows, held, "key {key} after {value} changes");
            }
        }
        assert!(found > 5_000, "{found} look-ups had an answer");
    }
}
