//! One side of a join: rows by key of its own, or a table that is kept anyway and finds them.
//!
//! A side that can be a table's is its own while the query is computed for the first time, beside the
//! table; then it lets its rows go and looks them up there. Invariant: both give the same rows in the
//! same order, so that it does not matter when that was.

use datafusion::arrow::array::ArrayRef;

use super::keyed_rows::{Keyed, KeyedRows, RowId};
use crate::error::Result;
use crate::state::{Image, StateReader, Stateful};
use crate::table::{TableReader, TableStore};

pub(crate) struct JoinSide {
    /// Its rows; and how the key of a row is computed, whoever keeps them.
    rows: KeyedRows,
    shared: Option<Shared>,
}

struct Shared {
    table: TableStore,
    /// Columns of the table that the join reads.
    columns: Vec<usize>,
}

/// A side's rows, while nobody changes them.
pub(super) enum SideReader<'a> {
    Own(&'a KeyedRows),
    Shared(TableReader<'a>, &'a [usize]),
}

impl JoinSide {
    pub(super) fn new(rows: KeyedRows) -> Self {
        Self { rows, shared: None }
    }

    /// How keys are computed.
    pub(super) fn keys(&self) -> &KeyedRows {
        &self.rows
    }

    /// The rows that it keeps itself.
    pub(super) fn own(&mut self) -> &mut KeyedRows {
        &mut self.rows
    }

    /// From now on the rows are those of a table, which has all of them.
    pub(super) fn share(&mut self, table: &TableStore, columns: Vec<usize>) {
        self.rows.clear();
        self.shared = Some(Shared { table: table.clone(), columns });
    }

    /// Adds changes; a table has them already.
    pub(super) fn apply(&mut self, changes: &Keyed) -> Result<()> {
        if self.shared.is_some() { Ok(()) } else { self.rows.apply(changes) }
    }

    pub(super) fn reader(&self) -> SideReader<'_> {
        match &self.shared {
            None => SideReader::Own(&self.rows),
            Some(Shared { table, columns }) => SideReader::Shared(table.reader(), columns),
        }
    }

    pub(super) fn check(&self) -> Result<()> {
        self.rows.check()
    }

    pub(super) fn bytes(&self) -> usize {
        self.rows.bytes()
    }
}

impl Stateful for JoinSide {
    fn save(&self, image: &mut Image) {
        self.rows.save(image);
    }

    fn load(&mut self, state: &mut StateReader<'_>) -> Result<()> {
        self.rows.load(state)
    }
}

impl SideReader<'_> {
    /// Gives the rows of a key, each with its weight, oldest first.
    pub(super) fn each(
        &self,
        hash: u64,
        key: &[u8],
        mut give: impl FnMut(RowId, i64) -> Result<()>,
    ) -> Result<()> {
        match self {
            Self::Own(rows) => rows.matches(hash, key).try_for_each(|id| give(id, rows.weight(id))),
            Self::Shared(table, _) => table.find(hash, key).map_or(Ok(()), |id| give(id, 1)),
        }
    }

    /// Columns of the rows with these ids.
    pub(super) fn columns(&self, ids: &[RowId]) -> Result<Vec<ArrayRef>> {
        match self {
            Self::Own(rows) => rows.columns(ids),
            Self::Shared(table, columns) => table.columns(ids, columns),
        }
    }
}
