//! Queries that stand still, go on, and become others.
//!
//! A query that goes on is computed again beside everything else, as a new one is. Then the journal
//! says that it goes on with the next epoch, and in that epoch its rows change by what they had
//! missed: its readers and its topic see one change like any other. Invariant: until that epoch the
//! view is what it was; after it, what its query says.

use std::sync::Arc;

use planner::{Relation, RelationId};
use storage::Epoch;
use storage::log::TopicPartition;
use tokio::sync::oneshot;

use super::backfill::{Building, Built};
use super::creation::Target;
use super::history::{StreamReader, decode_frame};
use super::meta::Halt;
use super::relations::State;
use super::step::Stepper;
use super::view::{View, topic_changes};
use crate::error::{Error, Result};
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
        let there = self.states.get(&relation.id).and_then(State::view).is_some();
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
        if relation.dataflow().is_none() {
            self.catalog = Arc::new(self.catalog.with(Arc::clone(relation)));
            return Ok(());
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
        self.catalog = Arc::new(self.catalog.with(Arc::clone(relation)));
        self.set_levels();
        Ok(())
    }

    /// Views may read others than before, so those that read them may be further from the base.
    fn set_levels(&mut self) {
        loop {
            let level = |id: &RelationId| self.states.get(id).and_then(State::view).map_or(0, |v| v.level);
            let mut wanted = self.states.iter().filter_map(|(id, state)| {
                let view = state.view()?;
                let wanted = 1 + view.relation.sources().iter().map(level).max().unwrap_or(0);
                (wanted > view.level).then_some((*id, wanted))
            });
            let Some((id, wanted)) = wanted.next() else { return };
            if let Some(State::View(view)) = self.states.get_mut(&id) {
                view.level = wanted;
            }
        }
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
        let mut view = self.view(&relation, query, old.topic_epoch)?;
        view.status = old.status.clone();
        (view.next_offset, view.halted_at) = (old.next_offset, old.halted_at);
        if let (Some(store), Some(rows)) = (&mut view.store, &old.store) {
            // Rows that only came may go now.
            *store = TableStore::try_new(Arc::clone(rows.version().schema()), &relation.key)?;
            store.apply(&self.rows_of(old)?)?;
        }
        view.rejoins = Some(view.difference(result, self.now_ms)?);
        Ok(view)
    }

    /// The rows a view has: those of its table, or of its topic when a failure has cleared the table.
    fn rows_of(&self, view: &View) -> Result<Changes> {
        if view.status.error.is_none() || !view.relation.has_topic() {
            let batches = view.store.as_ref().map(|s| s.version().batches()).transpose()?;
            return Ok(batches.into_iter().flatten().map(crate::change::ChangeBatch::inserted).collect());
        }
        let relation = Arc::clone(&view.relation);
        let bounds = self.log.bounds(&TopicPartition { topic: relation.topic(), partition: 0 })?;
        let topic = StreamReader::new(Arc::clone(&self.log), relation, vec![(bounds.start, bounds.end)]);
        let (mut changes, mut next) = (Vec::new(), bounds.start);
        while let Some((frames, after)) = topic.frames(0, next)? {
            for frame in &frames {
                changes.extend(topic_changes(&view.relation, decode_frame(frame)?)?);
            }
            next = after;
        }
        crate::change::consolidate(&crate::layout::nullable(&view.relation.schema()), changes)
    }

    /// The last epoch whose rows a stream has, if it stands still.
    pub(super) fn since(&self, relation: &Relation) -> Option<Epoch> {
        let view = self.states.get(&relation.id)?.view()?;
        relation.is_stream().then(|| if view.stands() { view.halted_at } else { self.epoch })
    }
}
