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
use tokio::sync::oneshot;

use super::backfill::{Backfill, Building, Built, Progress};
use super::history::StreamReader;
use super::relations::{Input, State, View, base_changes, new_base};
use super::snapshot::{QueryStatus, Snapshot};
use crate::change::ChangeBatch;
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
    building: Vec<Building<Target>>,
    answers: Vec<Answer>,
    rejects: Rejects,
}

/// What a query becomes when it has its first result.
pub(crate) enum Target {
    View { relation: Arc<Relation>, topic_epoch: Epoch, topic_end: Offset, reply: Reply<()> },
    Subscriber { snapshot: bool, progress: bool, reply: Reply<Subscription> },
}

/// Where an answer goes; nowhere, when the journal asks again after a restart.
pub(crate) type Reply<T> = Option<oneshot::Sender<Result<T>>>;

/// An answer that waits until what it tells of is published.
enum Answer {
    Made(Reply<()>, Result<()>),
    Subscribed(Reply<Subscription>, Result<Subscription>),
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
            building: Vec::new(),
            answers: Vec::new(),
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
            building: self.building.iter().filter_map(Building::view).collect(),
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
        for building in &mut self.building {
            building.miss(epoch, now_ms, &changes);
        }
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
                    None => {
                        // Nobody may read its rows any more.
                        self.versions.remove(&id);
                        self.fail_readers(id);
                    }
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

    /// Makes a relation; a view's first result is computed beside everything else, and the view is
    /// there when it is done.
    pub(crate) fn create(&mut self, relation: &Arc<Relation>, reply: Reply<()>) {
        if let Err((error, reply)) = self.begin(relation, 0, 0, reply) {
            self.answers.push(Answer::Made(reply, Err(error)));
        }
    }

    /// Tells who waits, now that everything is published.
    pub(crate) fn send_answers(&mut self) {
        for answer in self.answers.drain(..) {
            // Whoever asked may have gone.
            match answer {
                Answer::Made(Some(reply), result) => drop(reply.send(result)),
                Answer::Subscribed(Some(reply), result) => drop(reply.send(result)),
                Answer::Made(None, _) | Answer::Subscribed(None, _) => {}
            }
        }
    }

    /// Makes a relation again, as the journal says. `topic_epoch` is the last epoch whose changes its
    /// topic holds already, `topic_end` the end of that.
    pub(crate) fn create_again(
        &mut self,
        relation: &Arc<Relation>,
        topic_epoch: Epoch,
        topic_end: Offset,
    ) -> Result<()> {
        self.begin(relation, topic_epoch, topic_end, None).map_err(|(error, _)| error)?;
        while let Some(building) = self.building.pop() {
            let built = building.wait();
            self.finish(building, built);
        }
        Ok(())
    }

    fn begin(
        &mut self,
        relation: &Arc<Relation>,
        topic_epoch: Epoch,
        topic_end: Offset,
        reply: Reply<()>,
    ) -> std::result::Result<(), (Error, Reply<()>)> {
        let state = match relation.dataflow() {
            None if relation.is_base() => match new_base(relation) {
                Ok(state) => state,
                Err(error) => return Err((error, reply)),
            },
            None => State::Expanded,
            Some(dataflow) => {
                let query = match Query::try_new(Arc::clone(dataflow), self.shards) {
                    Ok(query) => query,
                    Err(error) => return Err((error, reply)),
                };
                let relation = Arc::clone(relation);
                let target = Target::View { relation, topic_epoch, topic_end, reply };
                return self.build(target, query).map_err(|e| (e, None));
            }
        };
        self.install(relation, state);
        self.answers.push(Answer::Made(reply, Ok(())));
        Ok(())
    }

    /// Starts a query's way to its first result.
    fn build(&mut self, target: Target, query: Query) -> Result<()> {
        let backfill = self.backfill(&query)?;
        self.building.push(Building::start(target, query, backfill, (self.epoch, self.now_ms))?);
        Ok(())
    }

    /// Whether queries are on their way to their first result.
    pub(crate) fn is_building(&self) -> bool {
        !self.building.is_empty()
    }

    /// Takes in the queries that have their first result; true when there were any.
    pub(crate) fn finish_built(&mut self) -> bool {
        let (mut waiting, mut done) = (Vec::new(), Vec::new());
        for building in std::mem::take(&mut self.building) {
            match building.built() {
                Some(built) => done.push((building, built)),
                None => waiting.push(building),
            }
        }
        self.building = waiting;
        let any = !done.is_empty();
        for (building, built) in done {
            self.finish(building, built);
        }
        any
    }

    fn finish(&mut self, building: Building<Target>, built: Result<Built>) {
        let Building { target, at, missed, .. } = building;
        match (target, built) {
            (Target::View { relation, topic_epoch, topic_end, reply }, Ok(built)) => {
                let made = self.finished_view(&relation, built, topic_epoch, topic_end, at);
                let made = made.map(|mut view| {
                    for epoch in missed {
                        if view.status.error.is_none() {
                            view.step(epoch.epoch, epoch.now_ms, &epoch.changes, &self.log, &self.rejects);
                        }
                    }
                    self.install(&relation, State::View(Box::new(view)));
                });
                self.answers.push(Answer::Made(reply, made));
            }
            (Target::Subscriber { snapshot, progress, reply }, Ok(built)) => {
                let Built { mut query, result, .. } = built;
                let readable = self.check_sources(&query);
                let started = readable.and(result).and_then(|current| {
                    let mut rejects = StepRejects::default();
                    let mut later = Vec::new();
                    for epoch in missed {
                        later.push((epoch.epoch, query.step(&epoch.changes, &mut rejects)?));
                    }
                    let (mut subscriber, subscription) = Subscriber::new(query, progress);
                    let first = if snapshot { current } else { Vec::new() };
                    let mut open = subscriber.send(at.0, first);
                    for (epoch, changes) in later {
                        open = open && subscriber.send(epoch, changes);
                    }
                    if open {
                        self.subscribers.push(subscriber);
                    }
                    Ok(subscription)
                });
                self.answers.push(Answer::Subscribed(reply, started));
            }
            (Target::View { reply, .. }, Err(error)) => self.answers.push(Answer::Made(reply, Err(error))),
            (Target::Subscriber { reply, .. }, Err(error)) => {
                self.answers.push(Answer::Subscribed(reply, Err(error)));
            }
        }
    }

    /// Whether everything a query reads is still there and runs.
    fn check_sources(&self, query: &Query) -> Result<()> {
        for id in query.dataflow().sources() {
            let status = self.states.get(&id).map(|state| state.view().map(|v| &v.status));
            let name = || self.catalog.by_id(id).map(|r| r.name.clone()).unwrap_or_default();
            match status {
                None => return Err(Error::Dropped(name())),
                Some(Some(QueryStatus { error: Some(reason), .. })) => {
                    return Err(Error::QueryFailed { relation: name(), reason: reason.clone() });
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Puts a relation where everybody sees it.
    fn install(&mut self, relation: &Arc<Relation>, state: State) {
        if relation.is_stream() {
            let bounds = match &state {
                State::View(view) if view.store.is_none() => vec![(0, view.next_offset)],
                _ => self.bounds(relation),
            };
            self.streams.insert(relation.id, bounds);
        }
        self.states.insert(relation.id, state);
        self.publish_table(relation.id);
        self.catalog = Arc::new(self.catalog.with(Arc::clone(relation)));
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
            let schema = nullable(&relation.schema());
            let grows = query.dataflow().append_only && relation.key.is_empty();
            Some(if grows {
                TableStore::append_only(schema)?
            } else {
                TableStore::try_new(schema, &relation.key)?
            })
        };
        let level = |id: &RelationId| self.states.get(id).and_then(State::view).map_or(0, |v| v.level);
        let level = 1 + relation.sources().iter().map(level).max().unwrap_or(0);
        let status = QueryStatus::default();
        let relation = Arc::clone(relation);
        Ok(View { relation, query, store, status, topic_epoch, next_offset: 0, level })
    }

    /// The view that a first result makes. What goes wrong sets the view aside.
    fn finished_view(
        &self,
        relation: &Arc<Relation>,
        built: Built,
        topic_epoch: Epoch,
        topic_end: Offset,
        (epoch, now_ms): (Epoch, i64),
    ) -> Result<View> {
        let Built { query, result, rejects, busy_us } = built;
        let mut view = self.view(relation, query, topic_epoch)?;
        let sources = relation.sources();
        let failed =
            sources.iter().find_map(|id| self.states.get(id)?.view()?.status.error.clone().map(|_| *id));
        if let Some(id) = failed {
            let name = self.catalog.by_id(id).map(|r| r.name.clone()).unwrap_or_default();
            view.status.error = Some(format!("it reads \"{name}\", whose query has failed"));
            return Ok(view);
        }
        let kept = result.and_then(|changes| view.keep(changes, now_ms)).and_then(|changes| {
            view.check_memory()?;
            // After a restart the topic may hold the first result and more.
            if topic_end == 0 { view.write_topic(epoch, now_ms, &changes, &self.log) } else { Ok(()) }
        });
        view.topic_epoch = view.topic_epoch.max(epoch);
        if let Err(error) = kept {
            view.fail(&error);
        }
        view.note(&self.rejects, rejects, epoch, now_ms);
        view.status.busy_us += busy_us;
        view.status.operators = view.query.operators();
        view.status.state_bytes = view.query.state_bytes();
        Ok(view)
    }

    /// All that a new query has to read, at this epoch.
    fn backfill(&self, query: &Query) -> Result<Backfill> {
        let mut tables = EpochChanges::new();
        let mut streams = Vec::new();
        let mut total = 0;
        for id in query.dataflow().sources() {
            if let Some(version) = self.versions.get(&id) {
                let batches =
                    version.batches()?.into_iter().filter(|b| b.num_rows() > 0).map(ChangeBatch::inserted);
                total += version.num_rows() as u64;
                tables.insert(id, Arc::new(batches.collect()));
            } else if let (Some(bounds), Some(relation)) = (self.streams.get(&id), self.catalog.by_id(id)) {
                total += bounds.iter().map(|(start, end)| end - start).sum::<u64>();
                streams.push(StreamReader::new(Arc::clone(&self.log), Arc::clone(relation), bounds.clone()));
            }
        }
        let progress = Arc::new(Progress { total, ..Progress::default() });
        Ok(Backfill { tables, streams, progress })
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
        query: Query,
        snapshot: bool,
        progress: bool,
        reply: oneshot::Sender<Result<Subscription>>,
    ) {
        let target = Target::Subscriber { snapshot, progress, reply: Some(reply) };
        // A target that cannot be built is dropped, which its reader notices.
        if let Err(error) = self.build(target, query) {
            tracing::error!(%error, "could not start a push query");
        }
    }
}

impl Building<Target> {
    /// The view that is being made, and how far it is.
    fn view(&self) -> Option<(String, Arc<Progress>)> {
        match &self.target {
            Target::View { relation, .. } => Some((relation.name.clone(), Arc::clone(&self.progress))),
            Target::Subscriber { .. } => None,
        }
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
            self.check_memory()?;
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
        self.status.operators = self.query.operators();
        self.status.state_bytes = self.status.operators.iter().map(|o| o.state_bytes).sum();
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
        if let Error::MemoryLimit { limit, .. } = error {
            self.status.over_limit = Some(*limit);
        }
        self.query.release();
        self.status.state_bytes = 0;
        if let Some(store) = &mut self.store {
            store.clear();
        }
    }

    /// Refuses to go on with more state and rows than the view may have.
    fn check_memory(&self) -> Result<()> {
        let Some(limit) = self.relation.memory_limit else { return Ok(()) };
        let rows = self.store.as_ref().map_or(0, TableStore::bytes);
        if (self.query.state_bytes() + rows) as u64 > limit {
            return Err(Error::MemoryLimit { relation: self.relation.name.clone(), limit });
        }
        Ok(())
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
