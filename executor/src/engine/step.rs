//! The step thread: one epoch after the other through tables, views and subscribers.
//!
//! Invariant: what is published is the state after a whole epoch; a query that fails is set aside
//! with everything that reads it, and the others go on.

use std::collections::{BTreeMap, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use datafusion::arrow::array::{Int64Array, RecordBatch};
use datafusion::arrow::datatypes::{DataType, Field, Schema};
use planner::{Catalog, Relation, RelationId};
use rayon::prelude::*;
use storage::log::{Append, Log, Sync, TopicPartition};
use storage::{Epoch, Offset};

use super::history::{EpochMerge, StreamReader};
use super::relations::{Input, State, View, base_changes, new_base};
use super::snapshot::{QueryStatus, Snapshot};
use crate::change::{ChangeBatch, consolidate};
use crate::error::{Error, Result};
use crate::format::{ARROW_STREAM, encode_batches};
use crate::layout::nullable;
use crate::operator::Changes;
use crate::push::{End, Subscriber, Subscription};
use crate::query::{EpochChanges, Query};
use crate::rejects::{Reject, Rejects, StepRejects};
use crate::table::{TableStore, TableVersion};

/// Name of the weight in a result topic's rows.
const WEIGHT: &str = "\u{1}weight";
/// Rows fed to a new query at a time.
const BACKFILL_ROWS: usize = 256 * 1024;

/// Everything the step thread owns.
pub(crate) struct Stepper {
    log: Arc<dyn Log>,
    shards: usize,
    epoch: Epoch,
    now_ms: i64,
    catalog: Arc<Catalog>,
    states: BTreeMap<RelationId, State>,
    versions: HashMap<RelationId, TableVersion>,
    streams: HashMap<RelationId, Vec<(Offset, Offset)>>,
    subscribers: Vec<Subscriber>,
    rejects: Rejects,
}

impl Stepper {
    pub(crate) fn new(log: Arc<dyn Log>, shards: usize) -> Self {
        Self {
            log,
            shards,
            epoch: 0,
            now_ms: 0,
            catalog: Arc::new(Catalog::default()),
            states: BTreeMap::new(),
            versions: HashMap::new(),
            streams: HashMap::new(),
            subscribers: Vec::new(),
            rejects: Rejects::default(),
        }
    }

    pub(crate) fn rejects(&self) -> &Rejects {
        &self.rejects
    }

    pub(crate) fn catalog(&self) -> &Arc<Catalog> {
        &self.catalog
    }

    pub(crate) fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Says which epoch is the last one, when nothing of it is left to step.
    pub(crate) fn begin_at(&mut self, epoch: Epoch, now_ms: i64) {
        self.epoch = epoch;
        self.now_ms = self.now_ms.max(now_ms);
    }

    /// What readers may see now.
    pub(crate) fn snapshot(&self) -> Snapshot {
        let queries = self.states.iter().filter_map(|(id, state)| match state {
            State::View(view) => Some((*id, view.status.clone())),
            _ => None,
        });
        Snapshot {
            epoch: self.epoch,
            now_ms: self.now_ms,
            catalog: Arc::clone(&self.catalog),
            tables: self.versions.clone(),
            streams: self.streams.clone(),
            queries: queries.collect(),
            log: Arc::clone(&self.log),
        }
    }

    /// Takes one epoch through everything.
    pub(crate) fn step(&mut self, epoch: Epoch, now_ms: i64, inputs: &[Input]) {
        self.epoch = epoch;
        self.now_ms = now_ms;
        let mut changes = EpochChanges::new();
        for input in inputs {
            self.take_input(input, &mut changes);
        }
        self.step_views(&mut changes);
        for id in changes.keys() {
            self.publish_table(*id);
        }
        self.step_subscribers(&changes);
    }

    fn take_input(&mut self, input: &Input, changes: &mut EpochChanges) {
        let id = input.relation.id;
        let Some(state) = self.states.get(&id) else { return };
        match base_changes(state, input) {
            Ok(new) => {
                let all = changes.entry(id).or_default();
                Arc::make_mut(all).extend(new);
            }
            Err(error) => tracing::error!(relation = %input.relation.name, %error, "could not apply rows"),
        }
        if let Some(bounds) = self.streams.get_mut(&id).and_then(|b| b.get_mut(input.partition as usize)) {
            let rows: usize = input.batches.iter().map(|b| b.num_rows()).sum();
            bounds.1 = input.base_offset + rows as u64;
        }
    }

    /// Views level by level; those of one level in parallel.
    fn step_views(&mut self, changes: &mut EpochChanges) {
        let deepest = self.states.values().filter_map(State::view).map(|v| v.level).max().unwrap_or(0);
        for level in 1..=deepest {
            let (epoch, now_ms, log, rejects) = (self.epoch, self.now_ms, &self.log, &self.rejects);
            let seen: &EpochChanges = changes;
            let mut views: Vec<(RelationId, &mut View)> = self
                .states
                .iter_mut()
                .filter_map(|(id, state)| match state {
                    State::View(view) if view.level == level && view.is_touched(seen) => {
                        Some((*id, view.as_mut()))
                    }
                    _ => None,
                })
                .collect();
            let run =
                |(id, view): (RelationId, &mut View)| (id, view.step(epoch, now_ms, seen, log, rejects));
            let results: Vec<(RelationId, Option<Changes>)> = if views.len() > 1 {
                views.into_par_iter().map(run).collect()
            } else {
                views.drain(..).map(run).collect()
            };
            for (id, result) in results {
                match result {
                    Some(new) => {
                        changes.insert(id, Arc::new(new));
                    }
                    None => self.fail_readers(id),
                }
            }
        }
        self.move_stream_ends();
    }

    fn move_stream_ends(&mut self) {
        for (id, state) in &self.states {
            if let State::View(view) = state
                && let Some(bounds) = self.streams.get_mut(id).and_then(|b| b.first_mut())
            {
                bounds.1 = view.next_offset;
            }
        }
    }

    /// A view whose source has stopped stops too: going on would give wrong answers.
    fn fail_readers(&mut self, id: RelationId) {
        let name = self.catalog.by_id(id).map(|r| r.name.clone()).unwrap_or_default();
        for reader in self.catalog.dependents(id) {
            if let Some(State::View(view)) = self.states.get_mut(&reader.id) {
                view.status
                    .error
                    .get_or_insert_with(|| format!("it reads \"{name}\", whose query has failed"));
            }
        }
        let stopped = |s: &mut Subscriber| s.query.dataflow().sources().contains(&id);
        for subscriber in self.subscribers.extract_if(.., stopped) {
            subscriber.end(&End::Failed);
        }
    }

    fn publish_table(&mut self, id: RelationId) {
        let store = match self.states.get(&id) {
            Some(State::Table(store)) => Some(store),
            Some(State::View(view)) => view.store.as_ref(),
            _ => None,
        };
        if let Some(store) = store {
            self.versions.insert(id, store.version());
        }
    }

    fn step_subscribers(&mut self, changes: &EpochChanges) {
        let epoch = self.epoch;
        let mut rejects = StepRejects::default();
        let kept = self.subscribers.drain(..).filter_map(|mut subscriber| {
            let touched = subscriber.query.dataflow().sources().iter().any(|s| changes.contains_key(s));
            let stepped = if touched { subscriber.query.step(changes, &mut rejects) } else { Ok(Vec::new()) };
            match stepped {
                Ok(new) => subscriber.send(epoch, new).then_some(subscriber),
                Err(error) => {
                    tracing::error!(%error, "a push query failed");
                    subscriber.end(&End::Failed);
                    None
                }
            }
        });
        self.subscribers = kept.collect();
    }

    /// Gives waiting subscribers another chance; true while some still wait.
    pub(crate) fn retry_subscribers(&mut self) -> bool {
        let epoch = self.epoch;
        self.subscribers.retain_mut(|s| s.retry(epoch));
        self.subscribers.iter().any(Subscriber::has_pending)
    }

    /// Makes a relation, with a view's first result. `topic_epoch` is the last epoch whose changes
    /// its topic already holds, after a restart.
    pub(crate) fn create(
        &mut self,
        relation: &Arc<Relation>,
        topic_epoch: Epoch,
        topic_end: Offset,
    ) -> Result<()> {
        let state = match relation.dataflow() {
            None if relation.is_base() => new_base(relation)?,
            None => State::Expanded,
            Some(dataflow) => {
                let query = Query::try_new(Arc::clone(dataflow), self.shards)?;
                let mut view = self.view(relation, query, topic_epoch)?;
                self.backfill_view(&mut view, topic_end);
                State::View(Box::new(view))
            }
        };
        self.streams.insert(relation.id, self.bounds(relation));
        if let State::View(view) = &state
            && view.store.is_none()
        {
            self.streams.insert(relation.id, vec![(0, view.next_offset)]);
        }
        if !relation.is_stream() {
            self.streams.remove(&relation.id);
        }
        self.states.insert(relation.id, state);
        self.publish_table(relation.id);
        self.catalog = Arc::new(self.catalog.with(Arc::clone(relation)));
        Ok(())
    }

    fn bounds(&self, relation: &Relation) -> Vec<(Offset, Offset)> {
        let partition = |partition| {
            let at = TopicPartition { topic: relation.topic(), partition };
            self.log.bounds(&at).map_or((0, 0), |b| (b.start, b.start))
        };
        (0..relation.partitions).map(partition).collect()
    }

    fn view(&self, relation: &Arc<Relation>, query: Query, topic_epoch: Epoch) -> Result<View> {
        let store = if relation.is_stream() {
            None
        } else {
            Some(TableStore::try_new(nullable(&relation.schema()), &relation.key)?)
        };
        let level = |id: &RelationId| self.states.get(id).and_then(State::view).map_or(0, |v| v.level);
        let level = 1 + relation.sources().iter().map(level).max().unwrap_or(0);
        let status = QueryStatus::default();
        let relation = Arc::clone(relation);
        Ok(View { relation, query, store, status, topic_epoch, next_offset: 0, level })
    }

    /// Runs a new view over everything that is there. What goes wrong sets the view aside.
    fn backfill_view(&mut self, view: &mut View, topic_end: Offset) {
        let sources = view.relation.sources();
        let failed =
            sources.iter().find_map(|id| self.states.get(id)?.view()?.status.error.clone().map(|_| *id));
        if let Some(id) = failed {
            let name = self.catalog.by_id(id).map(|r| r.name.clone()).unwrap_or_default();
            view.status.error = Some(format!("it reads \"{name}\", whose query has failed"));
            return;
        }
        let started = Instant::now();
        let mut rejects = StepRejects::default();
        let result = self.backfill(&mut view.query, &mut rejects);
        let (epoch, now_ms) = (self.epoch, self.now_ms);
        let kept = result.and_then(|changes| view.keep(changes, now_ms)).and_then(|changes| {
            // After a restart the topic may hold the first result and more.
            if topic_end == 0 { view.write_topic(epoch, now_ms, &changes, &self.log) } else { Ok(()) }
        });
        view.topic_epoch = view.topic_epoch.max(epoch);
        if let Err(error) = kept {
            view.fail(&error);
        }
        view.note(&self.rejects, rejects, epoch, now_ms);
        view.status.busy_us += u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
        view.status.state_bytes = view.query.state_bytes();
    }

    /// The result of a new query over all there is at this epoch: tables as they are, streams in
    /// the order of their epochs.
    fn backfill(&self, query: &mut Query, rejects: &mut StepRejects) -> Result<Changes> {
        let mut out = Vec::new();
        let mut tables = EpochChanges::new();
        let mut streams = Vec::new();
        for id in query.dataflow().sources() {
            if let Some(version) = self.versions.get(&id) {
                let batches =
                    version.batches()?.into_iter().filter(|b| b.num_rows() > 0).map(ChangeBatch::inserted);
                tables.insert(id, Arc::new(batches.collect()));
            } else if let (Some(bounds), Some(relation)) = (self.streams.get(&id), self.catalog.by_id(id)) {
                streams.push(StreamReader::new(Arc::clone(&self.log), Arc::clone(relation), bounds.clone()));
            }
        }
        out.extend(query.step(&tables, rejects)?);
        let by_epoch = query.needs_epochs();
        let mut history = EpochMerge::new(streams);
        let mut pending = EpochChanges::new();
        let mut rows = 0;
        while let Some(epoch) = history.next_epoch()? {
            for input in &epoch.inputs {
                rows += input.batches.iter().map(|b| b.num_rows()).sum::<usize>();
                let all = pending.entry(input.relation.id).or_default();
                Arc::make_mut(all).extend(base_changes(&State::Stream, input)?);
            }
            if by_epoch || rows >= BACKFILL_ROWS {
                out.extend(query.step(&std::mem::take(&mut pending), rejects)?);
                rows = 0;
            }
        }
        out.extend(query.step(&pending, rejects)?);
        match out.first().map(|b| b.rows.schema()) {
            Some(schema) => consolidate(&schema, out),
            None => Ok(out),
        }
    }

    /// Removes relations and everything kept for them.
    pub(crate) fn drop_relations(&mut self, ids: &[RelationId]) {
        for id in ids {
            self.states.remove(id);
            self.versions.remove(id);
            self.streams.remove(id);
        }
        let gone =
            |s: &mut Subscriber| s.query.dataflow().sources().iter().any(|source| ids.contains(source));
        for subscriber in self.subscribers.extract_if(.., gone) {
            subscriber.end(&End::Dropped);
        }
        self.catalog = Arc::new(self.catalog.without(ids));
    }

    /// Starts a push query; with `snapshot` its reader first gets the current result.
    pub(crate) fn subscribe(
        &mut self,
        mut query: Query,
        snapshot: bool,
        progress: bool,
    ) -> Result<Subscription> {
        let mut rejects = StepRejects::default();
        let current = self.backfill(&mut query, &mut rejects)?;
        let (mut subscriber, subscription) = Subscriber::new(query, progress);
        let first = if snapshot { current } else { Vec::new() };
        if subscriber.send(self.epoch, first) {
            self.subscribers.push(subscriber);
        }
        Ok(subscription)
    }
}

impl State {
    pub(crate) fn view(&self) -> Option<&View> {
        match self {
            Self::View(view) => Some(view),
            _ => None,
        }
    }
}

impl View {
    fn is_touched(&self, changes: &EpochChanges) -> bool {
        self.status.error.is_none() && self.query.dataflow().sources().iter().any(|s| changes.contains_key(s))
    }

    /// One epoch; None when the query failed and was set aside.
    fn step(
        &mut self,
        epoch: Epoch,
        now_ms: i64,
        changes: &EpochChanges,
        log: &Arc<dyn Log>,
        all_rejects: &Rejects,
    ) -> Option<Changes> {
        let started = Instant::now();
        let mut rejects = StepRejects::default();
        let kept = catch_unwind(AssertUnwindSafe(|| -> Result<Changes> {
            let result = self.query.step(changes, &mut rejects)?;
            let kept = self.keep(result, now_ms)?;
            self.write_topic(epoch, now_ms, &kept, log)?;
            Ok(kept)
        }))
        .unwrap_or_else(|_| Err(Error::bug("a view", "its table could not be kept")));
        self.note(all_rejects, rejects, epoch, now_ms);
        let sources = self.query.dataflow().sources();
        let rows_in =
            sources.iter().filter_map(|s| changes.get(s)).flat_map(|c| c.iter()).map(|b| b.len() as u64);
        self.status.rows_in += rows_in.sum::<u64>();
        self.status.busy_us += u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.status.state_bytes = self.query.state_bytes();
        match kept {
            Ok(changes) => Some(changes),
            Err(error) => {
                self.fail(&error);
                None
            }
        }
    }

    fn fail(&mut self, error: &Error) {
        tracing::error!(relation = %self.relation.name, %error, "query failed and is set aside");
        self.status.error = Some(error.to_string());
    }

    fn note(&mut self, all: &Rejects, step: StepRejects, epoch: Epoch, now_ms: i64) {
        if step.count == 0 {
            return;
        }
        self.status.rejected += step.count;
        let relation = &self.relation.name;
        let kept = step.kept.into_iter().map(|(reason, row)| Reject {
            relation: relation.clone(),
            epoch,
            now_ms,
            reason,
            row,
        });
        all.extend(kept.collect(), step.count);
    }

    /// Writes changes to the result topic, unless it holds this epoch already: after a restart the
    /// same epochs are stepped again.
    fn write_topic(
        &mut self,
        epoch: Epoch,
        now_ms: i64,
        changes: &Changes,
        log: &Arc<dyn Log>,
    ) -> Result<()> {
        if !self.relation.has_topic() || epoch <= self.topic_epoch || changes.is_empty() {
            return Ok(());
        }
        let batches = changes.iter().map(|b| topic_batch(&self.relation, b)).collect::<Result<Vec<_>>>()?;
        let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
        let Some(schema) = batches.first().map(RecordBatch::schema) else { return Ok(()) };
        let append = Append {
            to: TopicPartition { topic: self.relation.topic(), partition: 0 },
            count: u32::try_from(rows).unwrap_or(u32::MAX),
            format: ARROW_STREAM,
            times_ms: (now_ms, now_ms),
            body: encode_batches(&schema, &batches)?,
        };
        log.commit(epoch, now_ms, &[append], Sync::Derived)?;
        self.topic_epoch = epoch;
        Ok(())
    }
}

/// Changes as a result topic keeps them: a stream's rows with their time, a table's with their weight.
fn topic_batch(relation: &Relation, batch: &ChangeBatch) -> Result<RecordBatch> {
    let width = relation.columns.len();
    if relation.is_stream() {
        let columns = batch.rows.columns()[..=width].to_vec();
        return Ok(RecordBatch::try_new(crate::ingest::topic_schema(relation), columns)?);
    }
    let mut fields: Vec<Field> =
        nullable(&relation.schema()).fields().iter().map(|f| f.as_ref().clone()).collect();
    fields.push(Field::new(WEIGHT, DataType::Int64, false));
    let mut columns = batch.rows.columns().to_vec();
    columns.push(Arc::new(batch.weights.clone().unwrap_or_else(|| Int64Array::from_value(1, batch.len()))));
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
}
