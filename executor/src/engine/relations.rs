//! What the step thread keeps for each relation.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, BooleanArray, RecordBatch};
use planner::Relation;
use storage::Offset;

use super::history::full_batch;
use super::view::View;
use crate::change::ChangeBatch;
use crate::error::{Error, Result};
use crate::ingest::{DELETED, table_key, table_schema};
use crate::operator::Changes;
use crate::table::TableStore;

/// Rows of one epoch for a base relation's partition, in its topic's layout.
#[derive(Debug)]
pub(crate) struct Input {
    pub(crate) relation: Arc<Relation>,
    pub(crate) partition: u32,
    pub(crate) base_offset: Offset,
    pub(crate) batches: Vec<RecordBatch>,
}

/// A relation as the engine runs it.
pub(crate) enum State {
    /// Written to, append-only: its rows are in the log.
    Stream,
    /// Written to by key.
    Table(TableStore),
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
}

/// Changes of a base relation that an input brings.
pub(crate) fn base_changes(state: &State, input: &Input) -> Result<Changes> {
    match state {
        State::Stream => {
            let mut base = input.base_offset;
            let mut out = Vec::with_capacity(input.batches.len());
            for batch in &input.batches {
                out.push(ChangeBatch::inserted(full_batch(&input.relation, batch, input.partition, base)?));
                base += batch.num_rows() as u64;
            }
            Ok(out)
        }
        State::Table(store) => {
            let schema = table_schema(&input.relation);
            let mut out = Vec::new();
            for batch in &input.batches {
                let marked = batch.schema().index_of(DELETED)?;
                let deleted = batch.column(marked).as_any().downcast_ref::<BooleanArray>();
                let columns: Vec<ArrayRef> = batch
                    .columns()
                    .iter()
                    .enumerate()
                    .filter(|(i, _)| *i != marked)
                    .map(|(_, c)| Arc::clone(c))
                    .collect();
                let rows = RecordBatch::try_new(Arc::clone(&schema), columns)?;
                out.extend(store.upsert(&rows, deleted)?);
            }
            Ok(out)
        }
        State::View(_) | State::Expanded => Err(Error::bug("engine", "rows for a relation that has a query")),
    }
}

/// The state of a new base relation.
pub(crate) fn new_base(relation: &Relation) -> Result<State> {
    if relation.is_stream() {
        return Ok(State::Stream);
    }
    Ok(State::Table(TableStore::try_new(table_schema(relation), &table_key(relation))?))
}
