//! What the index of a table knows rows by: the bytes of their key, or where rows are a bag, the hash of
//! the whole row.
//!
//! Two rows of a bag with one hash are told apart where one of them goes, by their values; the index
//! holds eight bytes for a row of any width.

use datafusion::arrow::array::ArrayRef;
use datafusion::common::hash_utils::{RandomState, create_hashes};

use crate::error::Result;
use crate::keys::{EncodedRows, KeyTable, RowCodec, Slot};

/// The same on every run.
const HASHER: RandomState = RandomState::with_seed(0x006d_696c_6c70_6f6e);

/// What a batch's rows are known by.
pub(super) enum RowKeys {
    Bytes(EncodedRows),
    Hashes(Vec<u64>),
}

impl RowKeys {
    /// By the values of `columns`.
    pub(super) fn by_value(codec: &RowCodec, columns: &[ArrayRef], rows: usize) -> Result<Self> {
        Ok(Self::Bytes(codec.encode(columns, rows)?))
    }

    /// By the hash of `columns`.
    pub(super) fn by_hash(columns: &[ArrayRef], rows: usize) -> Result<Self> {
        let mut hashes = vec![0; rows];
        create_hashes(columns, &HASHER, &mut hashes)?;
        Ok(Self::Hashes(hashes))
    }

    pub(super) fn find(&self, index: &KeyTable, row: usize) -> Option<Slot> {
        match self {
            Self::Bytes(rows) => index.find(rows.row(row)),
            Self::Hashes(hashes) => index.find(&hashes[row].to_le_bytes()),
        }
    }

    pub(super) fn insert(&self, index: &mut KeyTable, row: usize) -> (Slot, bool) {
        match self {
            Self::Bytes(rows) => index.insert(rows.row(row)),
            Self::Hashes(hashes) => index.insert(&hashes[row].to_le_bytes()),
        }
    }
}
