//! Keys of state: rows as comparable bytes, and a table from such bytes to small dense numbers.
//!
//! Hashing has a fixed seed: the same changes give the same slots on every run and every machine.

mod arena;
mod cells;
mod table;

use std::hash::BuildHasher;

use datafusion::arrow::array::ArrayRef;
use datafusion::arrow::compute::SortOptions;
use datafusion::arrow::datatypes::DataType;
use datafusion::arrow::row::{RowConverter, Rows, SortField};
use foldhash::fast::FixedState;

pub(crate) use self::table::{KeyTable, Slot};
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
    /// The hash of each of the first `rows`.
    pub(crate) fn hashes(&self, rows: usize) -> Vec<u64> {
        (0..rows).map(|row| hash(self.row(row))).collect()
    }

    pub(crate) fn row(&self, index: usize) -> &[u8] {
        self.0.as_ref().map_or(&[], |rows| rows.row(index).data())
    }
}

const HASHER: FixedState = FixedState::with_seed(0x006d_696c_6c70_6f6e);

/// The hash of a key, the same everywhere and always.
pub(crate) fn hash(key: &[u8]) -> u64 {
    HASHER.hash_one(key)
}
