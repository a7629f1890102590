//! Queries that stand still, go on, and become others.
//!
//! A query that goes on is computed again beside everything else, as a new one is. Then the journal
//! says that it goes on with the next epoch, and in that epoch its rows change by what they had
//! missed: its readers and its topic see one change like any other. Invariant: until that epoch the
//! view is what it was; after it, what its query says.

use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use planner::{Relation, RelationId};
use storage::Epoch;
use tokio::sync::oneshot;

use super::backfill::{Building, Built};
use super::creation::Target;
use super::history::TopicReader;
use super::meta::Halt;
use super::relations::{State, upsert};
use super::step::Stepper;
use super::view::{View, topic_changes};
use crate::change::{ChangeBatch, consolidate};
use crate::error::{Error, Result};
use crate::format::Codec;
use crate::ingest::{table_key, table_schema};
use crate::layout::{nullable, widened};
use crate::operator::Changes;
use crate::query::Query;
use crate::rejects::StepRejects;
use crate::table::TableStore;

/// A query that is computed and waits for the journal's word.
pub(super) struct Rebuilt {
    relation: Arc<Relation>,
    pub(super) building: Building,
    built: Built,
}

impl Rebuilt {
    pub(super) fn id(&self) -> RelationId {
        self.relation.id
    }
}

impl Stepper {
    /// Stops a view's query.
    pub(crate) fn halt(&mut self, id: RelationId, halt: Halt) {
        let epoch = self.epoch;
        if let Some(State::View(view)) = self.states.get_mut(&id) {
            view.halt(halt, epoch);
        }
        self.release_shared_plans();
        self.weigh(id);
        self.rebuilt.retain(|r| r.relation.id != id);
    }

    /// A view that does not run.
    pub(crate) fn standing_relation(&self, id: RelationId) -> Option<Arc<Relation>> {
        let view = self.states.get(&id)?.view()?;
        view.stands().then(|| Arc::clone(&view.relation))
    }

    /// Computes a view's query again, beside the view. The answer says that it is done.
    pub(crate) fn rebuild(&mut self, relation: Arc<Relation>, reply: Option<oneshot::Sender<Result<()>>>) {
        let checked = self.standing(&relation).and_then(|dataflow| {
            self.check_sources(&dataflow)?;
            Query::try_new(dataflow, self.shards)
        });
        self.build(Target::Rejoin { relation, reply }, checked);
    }

    fn standing(&self, relation: &Relation) -> Result<Arc<planner::Dataflow>> {
        let there = self.states.get(&relation.id).and_then(State::view).is_some()
            || self.catalog.shares_topic(relation);
        let dataflow = relation.dataflow().filter(|_| there);
        dataflow.cloned().ok_or_else(|| Error::Dropped(relation.name.clone()))
    }

    pub(super) fn rebuilt(
        &mut self,
        relation: Arc<Relation>,
        building: Building,
        built: Built,
        reply: Option<oneshot::Sender<Result<()>>>,
    ) {
        if let Built { result: Err(error), .. } = built {
            self.answer(&relation, reply, Err(error));
            return;
        }
        self.rebuilt.retain(|r| r.relation.id != relation.id);
        let named = Arc::clone(&relation);
        self.rebuilt.push(Rebuilt { relation, building, built });
        self.answer(&named, reply, Ok(()));
    }

    /// The view goes on with the next epoch, as `relation` says. What has not been computed is, now:
    /// so it is after a restart.
    pub(crate) fn rejoin(&mut self, relation: &Arc<Relation>) -> Result<()> {
        if relation.is_base() {
            return self.widen(relation);
        }
        if relation.dataflow().is_none() {
            return self.set_catalog(self.catalog.with(Arc::clone(relation)));
        }
        if !self.rebuilt.iter().any(|r| r.relation.id == relation.id) {
            self.rebuild(Arc::clone(relation), None);
            self.wait_for_building();
        }
        let at = self.rebuilt.iter().position(|r| r.relation.id == relation.id);
        let Some(rebuilt) = at.map(|at| self.rebuilt.swap_remove(at)) else {
            return Err(Error::Dropped(relation.name.clone()));
        };
        let view = self.rejoining(rebuilt)?;
        self.states.insert(relation.id, State::View(Box::new(view)));
        self.set_catalog(self.catalog.with(Arc::clone(relation)))?;
        self.share_tables(relation.id);
        self.share_view(relation.id);
        Ok(())
    }

    /// A relation that is written to has more columns from now on. Rows that are there have NULL in them; plans that
    /// know it without them go on as they are ([`Relation::place`]).
    fn widen(&mut self, relation: &Arc<Relation>) -> Result<()> {
        let state = match self.states.remove(&relation.id) {
            Some(State::Table(store, _)) => {
                let own = relation.columns.len();
                let store = store.widened(table_schema(relation), table_key(relation), own)?;
                State::Table(store, Codec::of(relation))
            }
            Some(State::Stream(_)) => State::Stream(Codec::of(relation)),
            _ => return Err(Error::Dropped(relation.name.clone())),
        };
        self.install(relation, state)
    }

    /// The view with its new query and what it has missed.
    fn rejoining(&self, rebuilt: Rebuilt) -> Result<View> {
        let Rebuilt { relation, building, built } = rebuilt;
        let Built { mut query, result, .. } = built;
        let mut result = result?;
        let mut rejects = StepRejects::default();
        for missed in building.missed {
            result.extend(query.step(&missed.changes, missed.now_ms, &mut rejects)?);
        }
        let Some(old) = self.states.get(&relation.id).and_then(State::view) else {
            return Err(Error::Dropped(relation.name.clone()));
        };
        if relation.is_stream() && !old.stands() {
            // Up to here the stream has the rows of the query before.
            result.clear();
        }
        let epochs = old.topic_epochs.clone();
        let mut view = View::try_new(&relation, query, epochs, self.memory_limit)?;
        view.status = old.status.clone();
        view.halted_at = old.halted_at;
        view.expect(&result)?;
        let spills = view.budget.spills();
        spill::within(spills, || self.take_what_was_missed(view, old, result))
    }

    /// The view with the rows of the one before it, and what they have to change by to be `result`.
    fn take_what_was_missed(&self, mut view: View, old: &View, result: Changes) -> Result<View> {
        let relation = Arc::clone(&view.relation);
        if let (Some(store), Some(_)) = (&mut view.store, &old.store) {
            // Rows that only came may go now.
            let schema = nullable(&relation.full_schema());
            *store = TableStore::try_new(Arc::clone(&schema), &relation.key)?;
            let widen = |batch: ChangeBatch| -> Result<ChangeBatch> {
                let rows = widened(batch.rows.clone(), &schema, relation.columns.len())?;
                Ok(batch.with_rows(rows))
            };
            let rows = self.rows_of(old)?.into_iter().map(widen).collect::<Result<Vec<_>>>()?;
            store.apply(&rows)?;
        }
        view.rejoins = Some(view.difference(result, self.now_ms)?);
        Ok(view)
    }

    /// The rows a view has: those of its table, or of its topic when a failure has cleared the table.
    fn rows_of(&self, view: &View) -> Result<Changes> {
        if view.status.error.is_none() || !view.relation.has_topic() {
            let batches = view.store.as_ref().map(|s| s.version().batches()).transpose()?;
            return Ok(batches.into_iter().flatten().map(ChangeBatch::inserted).collect());
        }
        let Some(ends) = self.topics.get(&view.relation.topic.name) else { return Ok(Changes::new()) };
        let topic = TopicReader::new(Arc::clone(&self.log), Arc::clone(ends));
        let mut changes = Changes::new();
        let records = TableStore::try_new(table_schema(&view.relation), &view.relation.key)?;
        for partition in 0..topic.partitions() {
            let mut cursor = topic.cursor(partition);
            while let Some(placed) = cursor.next()? {
                let arrival = placed.arrival()?;
                // Others may have written to the topic; they do not make the view's rows.
                if arrival.part != view.relation.id {
                    continue;
                }
                let Some(codec) = &view.codec else {
                    changes.extend(topic_changes(&view.relation, arrival.batches)?);
                    continue;
                };
                for batch in &arrival.batches {
                    upsert(&view.relation, &records, &codec.decode(batch)?.rows)?;
                }
            }
        }
        let schema = nullable(&view.relation.full_schema());
        let width = schema.fields().len();
        for batch in records.version().batches()? {
            let rows = RecordBatch::try_new(Arc::clone(&schema), batch.columns()[..width].to_vec())?;
            changes.push(ChangeBatch::inserted(rows));
        }
        consolidate(&schema, changes)
    }

    /// The last epoch whose rows a stream has, if it stands still.
    pub(super) fn since(&self, relation: &Relation) -> Option<Epoch> {
        let view = self.states.get(&relation.id)?.view()?;
        let since = if view.stands() { view.halted_at } else { self.epoch };
        // One that has just been made has nothing yet.
        (relation.is_stream() && since > 0).then_some(since)
    }
}
