//! Keys of state: rows as comparable bytes, and a table from such bytes to small dense numbers.
//!
//! Hashing has a fixed seed: the same changes give the same slots on every run and every machine.

use std::hash::BuildHasher;

use datafusion::arrow::array::ArrayRef;
use datafusion::arrow::compute::SortOptions;
use datafusion::arrow::datatypes::DataType;
use datafusion::arrow::row::{RowConverter, Rows, SortField};
use foldhash::fast::FixedState;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry as TableEntry;

use crate::error::Result;
use crate::state::{Image, Plain, StateReader, Stateful};

/// Turns columns into bytes, one string for each row, and back. Equal rows have equal bytes, and
/// bytes compare as rows do.
#[derive(Debug)]
pub(crate) struct RowCodec {
    converter: Option<RowConverter>,
}

/// Encoded rows; with no columns every row is the empty string.
pub(crate) struct EncodedRows(Option<Rows>);

impl RowCodec {
    pub(crate) fn try_new(types: impl IntoIterator<Item = DataType>) -> Result<Self> {
        Self::ordered(types.into_iter().map(|t| (t, SortOptions::default())))
    }

    /// Bytes that compare as an ORDER BY says.
    pub(crate) fn ordered(types: impl IntoIterator<Item = (DataType, SortOptions)>) -> Result<Self> {
        let fields: Vec<SortField> =
            types.into_iter().map(|(t, options)| SortField::new_with_options(t, options)).collect();
        let converter = if fields.is_empty() { None } else { Some(RowConverter::new(fields)?) };
        Ok(Self { converter })
    }

    pub(crate) fn encode(&self, columns: &[ArrayRef], _rows: usize) -> Result<EncodedRows> {
        Ok(EncodedRows(self.converter.as_ref().map(|c| c.convert_columns(columns)).transpose()?))
    }

    pub(crate) fn decode<'a>(&self, rows: impl IntoIterator<Item = &'a [u8]>) -> Result<Vec<ArrayRef>> {
        let Some(converter) = &self.converter else { return Ok(Vec::new()) };
        let parser = converter.parser();
        let parsed: Vec<_> = rows.into_iter().collect();
        Ok(converter.convert_rows(parsed.iter().map(|bytes| parser.parse(bytes)))?)
    }
}

impl EncodedRows {
    pub(crate) fn row(&self, index: usize) -> &[u8] {
        self.0.as_ref().map_or(&[], |rows| rows.row(index).data())
    }
}

const HASHER: FixedState = FixedState::with_seed(0x006d_696c_6c70_6f6e);

/// The hash of a key, the same everywhere and always.
pub(crate) fn hash(key: &[u8]) -> u64 {
    HASHER.hash_one(key)
}

/// Number of a key in its table; given again after the key was removed.
pub(crate) type Slot = u32;

/// Bytes of the arena are handed out in units of this: an entry then names any place in 32 GiB.
const UNIT: usize = 8;

/// Keys and their slots. Bytes of all keys lie in one arena.
///
/// A look-up that finds nothing touches the table alone, one that finds its key an entry and the key:
/// half of each hash lies in the table, so that neither a false match nor growth looks further.
#[derive(Debug, Default)]
pub(crate) struct KeyTable {
    table: HashTable<Tagged>,
    entries: Vec<Entry>,
    arena: Vec<u8>,
    /// Units of the arena in use. Past the last one the addition fails, and with it the query.
    units: u32,
    free: Vec<Slot>,
    garbage: usize,
}

/// A slot with the lower half of its key's hash.
#[derive(Debug, Clone, Copy)]
struct Tagged {
    tag: u32,
    slot: Slot,
}

/// Where a key lies.
#[derive(Debug, Clone, Copy)]
struct Entry {
    unit: u32,
    len: u32,
}

impl Entry {
    fn bytes<'a>(&self, arena: &'a [u8]) -> &'a [u8] {
        let start = self.unit as usize * UNIT;
        &arena[start..start + self.len as usize]
    }
}

/// The lower half of a hash.
#[allow(clippy::cast_possible_truncation, reason = "half of it is meant")]
fn tag_of(hash: u64) -> u32 {
    hash as u32
}

/// The table takes the bucket from the low bits and a mark from the high ones.
fn spread(tag: u32) -> u64 {
    u64::from(tag) << 32 | u64::from(tag)
}

impl KeyTable {
    /// One more than the largest slot ever given.
    pub(crate) fn capacity(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.arena.capacity()
            + self.entries.capacity() * size_of::<Entry>()
            + self.table.capacity() * (size_of::<Tagged>() + 1)
    }

    pub(crate) fn key(&self, slot: Slot) -> &[u8] {
        self.entries[slot as usize].bytes(&self.arena)
    }

    pub(crate) fn find(&self, key: &[u8]) -> Option<Slot> {
        self.find_hashed(hash(key), key)
    }

    pub(crate) fn find_hashed(&self, hash: u64, key: &[u8]) -> Option<Slot> {
        let tag = tag_of(hash);
        self.table.find(spread(tag), |t| t.tag == tag && self.key(t.slot) == key).map(|t| t.slot)
    }

    /// All slots in use of a table from which no key was removed, oldest first.
    pub(crate) fn slots(&self) -> impl Iterator<Item = Slot> + use<> {
        0..Slot::try_from(self.entries.len()).unwrap_or(Slot::MAX)
    }

    /// The slot of a key, and whether it is new.
    pub(crate) fn insert(&mut self, key: &[u8]) -> (Slot, bool) {
        self.insert_hashed(hash(key), key)
    }

    pub(crate) fn insert_hashed(&mut self, hash: u64, key: &[u8]) -> (Slot, bool) {
        let Self { table, entries, arena, units, free, .. } = self;
        let tag = tag_of(hash);
        let same = |t: &Tagged| t.tag == tag && entries[t.slot as usize].bytes(arena) == key;
        match table.entry(spread(tag), same, |t| spread(t.tag)) {
            TableEntry::Occupied(found) => (found.get().slot, false),
            TableEntry::Vacant(vacant) => {
                let entry = append(arena, units, key);
                let slot = match free.pop() {
                    Some(slot) => {
                        entries[slot as usize] = entry;
                        slot
                    }
                    None => {
                        entries.push(entry);
                        Slot::try_from(entries.len() - 1).unwrap_or(Slot::MAX)
                    }
                };
                vacant.insert(Tagged { tag, slot });
                (slot, true)
            }
        }
    }

    /// Gives a slot back.
    pub(crate) fn remove(&mut self, slot: Slot) {
        let tag = tag_of(hash(self.key(slot)));
        if let Ok(found) = self.table.find_entry(spread(tag), |t| t.slot == slot) {
            found.remove();
            let entry = &mut self.entries[slot as usize];
            self.garbage += (entry.len as usize).next_multiple_of(UNIT);
            entry.len = 0;
            self.free.push(slot);
            self.compact();
        }
    }

    /// Rewrites the arena when most of it belongs to keys that are gone.
    fn compact(&mut self) {
        if self.garbage < 4096 || self.garbage * 2 < self.arena.len() {
            return;
        }
        let mut arena = Vec::with_capacity(self.arena.len() - self.garbage);
        let mut units = 0;
        for entry in &mut self.entries {
            *entry = append(&mut arena, &mut units, entry.bytes(&self.arena));
        }
        (self.arena, self.units, self.garbage) = (arena, units, 0);
        if self.table.len() * 4 < self.table.capacity() {
            self.table.shrink_to_fit(|t| spread(t.tag));
        }
    }
}

impl Plain for Entry {
    const BYTES: usize = 8;

    fn put(self, out: &mut Vec<u8>) {
        (self.unit, self.len).put(out);
    }

    fn get(bytes: &[u8]) -> Self {
        let (unit, len) = Plain::get(bytes);
        Self { unit, len }
    }
}

impl Stateful for KeyTable {
    fn save(&self, image: &mut Image) {
        image.vector(&self.entries);
        image.vector(&self.arena);
        image.vector(&self.free);
        image.value(self.units);
        image.count(self.garbage);
    }

    fn load(&mut self, state: &mut StateReader<'_>) -> Result<()> {
        (self.entries, self.arena, self.free) = (state.vector()?, state.vector()?, state.vector()?);
        (self.units, self.garbage) = (state.value()?, state.count()?);
        let mut is_free = vec![false; self.entries.len()];
        self.free.iter().for_each(|slot| is_free[*slot as usize] = true);
        self.table = HashTable::with_capacity(self.entries.len() - self.free.len());
        for slot in (0..).take(self.entries.len()).filter(|slot| !is_free[*slot as usize]) {
            let tag = tag_of(hash(self.key(slot)));
            self.table.insert_unique(spread(tag), Tagged { tag, slot }, |t| spread(t.tag));
        }
        Ok(())
    }
}

/// Puts a key at the end of the arena.
fn append(arena: &mut Vec<u8>, units: &mut u32, key: &[u8]) -> Entry {
    let entry = Entry { unit: *units, len: u32::try_from(key.len()).unwrap_or(u32::MAX) };
    *units += u32::try_from(key.len().div_ceil(UNIT)).unwrap_or(u32::MAX);
    arena.extend_from_slice(key);
    arena.resize(arena.len().next_multiple_of(UNIT), 0);
    entry
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_keep_their_slots_until_they_are_removed() {
        let mut table = KeyTable::default();
        let key = |n: u32| format!("key {n:06}").into_bytes();
        for n in 0..5000 {
            assert_eq!(table.insert(&key(n)), (n, true));
        }
        assert_eq!(table.insert(b""), (5000, true), "a key may be empty");
        (0..5000).step_by(2).for_each(|n| table.remove(n));
        for n in 0..5000 {
            assert_eq!(table.find(&key(n)), (n % 2 == 1).then_some(n));
        }
        assert_eq!((table.find(b""), table.key(4999)), (Some(5000), key(4999).as_slice()));
        let (slot, new) = table.insert(&key(7777));
        assert!(new && slot < 5000 && slot % 2 == 0, "a slot is given again");
        assert_eq!(table.key(slot), key(7777));
    }
}
