//! What the step thread keeps for each relation.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, BooleanArray, RecordBatch};
use planner::Relation;

use super::history::{Unread, rows_of};
use super::topics::Arrival;
use super::view::View;
use crate::change::ChangeBatch;
use crate::error::{Error, Result};
use crate::format::Codec;
use crate::ingest::{DELETED, table_key, table_schema};
use crate::operator::Changes;
use crate::table::TableStore;

/// A relation as the engine runs it.
pub(crate) enum State {
    /// Written to, append-only: its rows are in its topic.
    Stream(Option<Codec>),
    /// Written to by key.
    Table(TableStore, Option<Codec>),
    /// Kept by a query.
    View(Box<View>),
    /// Expanded where it is named.
    Expanded,
}

impl State {
    pub(crate) fn view(&self) -> Option<&View> {
        match self {
            Self::View(view) => Some(view),
            _ => None,
        }
    }

    /// The rows of a table, or of a view that keeps them.
    pub(super) fn store(&self) -> Option<&TableStore> {
        match self {
            Self::Table(store, _) => Some(store),
            Self::View(view) => view.store.as_ref(),
            _ => None,
        }
    }

    /// Bytes of its rows and state in memory.
    pub(super) fn kept_bytes(&self) -> u64 {
        let rows = self.store().map_or(0, TableStore::bytes);
        match self.view() {
            // What others keep for it is within its limit too.
            Some(view) if view.budget.spills() => {
                view.budget.in_memory((rows + view.status.state_bytes) as u64)
            }
            Some(view) => (rows + view.own_bytes) as u64,
            None => rows as u64,
        }
    }

    /// Changes of a relation that an arrival in its topic brings; `unread` gets the records that are
    /// no rows.
    pub(super) fn changes(
        &self,
        relation: &Relation,
        arrival: &Arrival,
        unread: &mut Vec<Unread>,
    ) -> Result<Changes> {
        match self {
            Self::Stream(codec) => stream_changes(relation, codec.as_ref(), arrival, unread),
            Self::View(view) => stream_changes(relation, view.codec.as_ref(), arrival, unread),
            Self::Table(store, codec) => table_changes(relation, store, codec.as_ref(), arrival, unread),
            Self::Expanded => Err(Error::bug("engine", "rows for a relation that has none")),
        }
    }
}

/// A stream's rows that an arrival brings, as changes.
pub(super) fn stream_changes(
    relation: &Relation,
    codec: Option<&Codec>,
    arrival: &Arrival,
    unread: &mut Vec<Unread>,
) -> Result<Changes> {
    let rows = rows_of(relation, codec, arrival, unread)?;
    Ok(rows.into_iter().map(ChangeBatch::inserted).collect())
}

fn table_changes(
    relation: &Relation,
    store: &TableStore,
    codec: Option<&Codec>,
    arrival: &Arrival,
    unread: &mut Vec<Unread>,
) -> Result<Changes> {
    let mut base = arrival.base;
    let mut out = Vec::new();
    for batch in &arrival.batches {
        match codec {
            None => out.extend(upsert(relation, store, batch)?),
            Some(codec) => {
                let decoded = codec.decode(batch)?;
                out.extend(upsert(relation, store, &decoded.rows)?);
                unread.extend(Unread::of(decoded.bad, arrival.partition, base));
            }
        }
        base += batch.num_rows() as u64;
    }
    Ok(out)
}

/// Puts rows that have a topic's layout into a table.
pub(super) fn upsert(relation: &Relation, store: &TableStore, batch: &RecordBatch) -> Result<Changes> {
    let marked = batch.schema().index_of(DELETED)?;
    let deleted = batch.column(marked).as_any().downcast_ref::<BooleanArray>();
    let columns: Vec<ArrayRef> = batch
        .columns()
        .iter()
        .enumerate()
        .filter(|(i, _)| *i != marked)
        .map(|(_, c)| Arc::clone(c))
        .collect();
    let rows = RecordBatch::try_new(table_schema(relation), columns)?;
    Ok(store.upsert(&rows, deleted)?.into_iter().collect())
}

/// The state of a new base relation.
pub(crate) fn new_base(relation: &Arc<Relation>) -> Result<State> {
    let codec = Codec::of(relation);
    if relation.is_stream() {
        return Ok(State::Stream(codec));
    }
    Ok(State::Table(TableStore::try_new(table_schema(relation), &table_key(relation))?, codec))
}
