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

use crate::error::Result;

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

/// Keys and their slots. Bytes of all keys lie in one arena.
#[derive(Debug, Default)]
pub(crate) struct KeyTable {
    table: HashTable<Slot>,
    entries: Vec<Entry>,
    arena: Vec<u8>,
    free: Vec<Slot>,
    garbage: usize,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    hash: u64,
    start: usize,
    len: u32,
}

impl KeyTable {
    /// One more than the largest slot ever given.
    pub(crate) fn capacity(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.arena.capacity() + self.entries.capacity() * size_of::<Entry>() + self.table.capacity() * 5
    }

    pub(crate) fn key(&self, slot: Slot) -> &[u8] {
        let entry = &self.entries[slot as usize];
        &self.arena[entry.start..entry.start + entry.len as usize]
    }

    pub(crate) fn find(&self, key: &[u8]) -> Option<Slot> {
        self.find_hashed(hash(key), key)
    }

    pub(crate) fn find_hashed(&self, hash: u64, key: &[u8]) -> Option<Slot> {
        self.table.find(hash, |slot| self.key(*slot) == key).copied()
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
        if let Some(slot) = self.find_hashed(hash, key) {
            return (slot, false);
        }
        let entry =
            Entry { hash, start: self.arena.len(), len: u32::try_from(key.len()).unwrap_or(u32::MAX) };
        self.arena.extend_from_slice(key);
        let slot = match self.free.pop() {
            Some(slot) => {
                self.entries[slot as usize] = entry;
                slot
            }
            None => {
                self.entries.push(entry);
                Slot::try_from(self.entries.len() - 1).unwrap_or(Slot::MAX)
            }
        };
        let entries = &self.entries;
        self.table.insert_unique(hash, slot, |s| entries[*s as usize].hash);
        (slot, true)
    }

    /// Gives a slot back.
    pub(crate) fn remove(&mut self, slot: Slot) {
        let entry = self.entries[slot as usize];
        if let Ok(found) = self.table.find_entry(entry.hash, |s| *s == slot) {
            found.remove();
            self.garbage += entry.len as usize;
            self.entries[slot as usize].len = 0;
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
        for entry in &mut self.entries {
            let key = &self.arena[entry.start..entry.start + entry.len as usize];
            entry.start = arena.len();
            arena.extend_from_slice(key);
        }
        self.arena = arena;
        self.garbage = 0;
        if self.table.len() * 4 < self.table.capacity() {
            let entries = &self.entries;
            self.table.shrink_to_fit(|s| entries[*s as usize].hash);
        }
    }
}
