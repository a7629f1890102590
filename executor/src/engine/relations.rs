//! What the step thread keeps for each relation.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, BooleanArray, Int64Array, RecordBatch};
use planner::Relation;
use storage::{Epoch, Offset};

use super::history::full_batch;
use super::snapshot::QueryStatus;
use crate::change::ChangeBatch;
use crate::error::{Error, Result};
use crate::ingest::{DELETED, table_key, table_schema};
use crate::layout::nullable;
use crate::operator::Changes;
use crate::query::Query;
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

/// A relation that a query keeps.
pub(crate) struct View {
    pub(crate) relation: Arc<Relation>,
    pub(crate) query: Query,
    /// Its rows, unless they only come and are in its topic.
    pub(crate) store: Option<TableStore>,
    pub(crate) status: QueryStatus,
    /// The last epoch whose changes are in its topic.
    pub(crate) topic_epoch: Epoch,
    /// Offset of the next record of its topic.
    pub(crate) next_offset: Offset,
    /// Distance to the base relations: views of one level do not read each other.
    pub(crate) level: usize,
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

impl View {
    /// Brings changes of the query's result to where readers find them, and returns them in the
    /// relation's full layout.
    pub(crate) fn keep(&mut self, changes: Changes, now_ms: i64) -> Result<Changes> {
        let mut kept = Vec::with_capacity(changes.len());
        for batch in changes {
            let batch = self.full_layout(batch, now_ms)?;
            self.next_offset += batch.len() as u64;
            self.status.rows_out += batch.len() as u64;
            kept.push(batch);
        }
        if let Some(store) = &self.store {
            store.apply(&kept)?;
        }
        Ok(kept)
    }

    /// A result batch in the relation's layout: own columns and, for a stream, pseudo-columns.
    fn full_layout(&self, batch: ChangeBatch, now_ms: i64) -> Result<ChangeBatch> {
        let width = self.relation.columns.len();
        if !self.relation.is_stream() {
            let schema = nullable(&self.relation.schema());
            let rows = RecordBatch::try_new(schema, batch.rows.columns()[..width].to_vec())?;
            return Ok(batch.with_rows(rows));
        }
        let mut columns = batch.rows.columns()[..width].to_vec();
        let time: ArrayRef = match batch.rows.columns().get(width) {
            Some(carried) => Arc::clone(carried),
            None => Arc::new(Int64Array::from_value(now_ms, batch.len())),
        };
        columns.push(time);
        let schema = crate::ingest::topic_schema(&self.relation);
        let rows = full_batch(&self.relation, &RecordBatch::try_new(schema, columns)?, 0, self.next_offset)?;
        Ok(batch.with_rows(rows))
    }
}
