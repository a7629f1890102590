//! What the index of a table knows rows by: the bytes of their key, or where rows are a bag, the hash of
//! the whole row.
//!
//! Two rows of a bag with one hash are told apart where one of them goes, by their values; the index
//! holds eight bytes for a row of any width.

use datafusion::arrow::array::ArrayRef;
use datafusion::common::hash_utils::{RandomState, create_hashes};

use crate::error::Result;
use crate::keys::{EncodedRows, KeyTable, RowCodec, Slot, hash};

/// The same on every run.
const HASHER: RandomState = RandomState::with_seed(0x006d_696c_6c70_6f6e);

/// What a batch's rows are known by, with the hash that the index takes.
pub(super) struct RowKeys {
    keys: Keys,
    hashes: Vec<u64>,
}

enum Keys {
    Values(EncodedRows),
    Hashes(Vec<u64>),
}

impl RowKeys {
    /// By the values of `columns`.
    pub(super) fn by_value(codec: &RowCodec, columns: &[ArrayRef], rows: usize) -> Result<Self> {
        let keys = codec.encode(columns, rows)?;
        let hashes = keys.hashes(rows);
        Ok(Self { keys: Keys::Values(keys), hashes })
    }

    /// By the hash of `columns`.
    pub(super) fn by_hash(columns: &[ArrayRef], rows: usize) -> Result<Self> {
        let mut keys = vec![0; rows];
        create_hashes(columns, &HASHER, &mut keys)?;
        let hashes = keys.iter().map(|key| hash(&key.to_le_bytes())).collect();
        Ok(Self { keys: Keys::Hashes(keys), hashes })
    }

    /// Prepares look-ups from that row on, where it is time to.
    pub(super) fn warm(&self, index: &KeyTable, row: usize) {
        index.warm(row, self.hashes.len(), |row| self.hashes[row]);
    }

    pub(super) fn find(&self, index: &KeyTable, row: usize) -> Option<Slot> {
        let hash = self.hashes[row];
        match &self.keys {
            Keys::Values(rows) => index.find_hashed(hash, rows.row(row)),
            Keys::Hashes(keys) => index.find_hashed(hash, &keys[row].to_le_bytes()),
        }
    }

    pub(super) fn insert(&self, index: &mut KeyTable, row: usize) -> (Slot, bool) {
        let hash = self.hashes[row];
        match &self.keys {
            Keys::Values(rows) => index.insert_hashed(hash, rows.row(row)),
            Keys::Hashes(keys) => index.insert_hashed(hash, &keys[row].to_le_bytes()),
        }
    }
}
