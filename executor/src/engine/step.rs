//! The step thread: one epoch after the other through tables, views and subscribers.
//!
//! Invariant: what is published is the state after a whole epoch; a query that fails is set aside
//! with everything that reads it, and the others go on.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use planner::{Catalog, Dataflow, Relation, RelationId, Topic};
use rayon::prelude::*;
use storage::log::{Log, TopicPartition};
use storage::{Epoch, Offset};

use super::EngineConfig;
use super::backfill::Building;
use super::creation::{Answer, Target};
use super::flow::Flow;
use super::history::reject;
use super::lifecycle::Rebuilt;
use super::memory::{Memory, MemoryLimit, PUSH_QUERIES};
use super::relations::State;
use super::shared_plans::SharedPlans;
use super::snapshot::Snapshot;
use super::ticks;
use super::topics::{Arrival, Arrivals, TopicEnds};
use super::view::{Output, View};
use crate::error::{Error, Result};
use crate::operator::Changes;
use crate::push::{End, Subscriber};
use crate::query::{EpochChanges, Query};
use crate::rejects::{Rejects, StepRejects};
use crate::table::{TableStore, TableVersion};

/// Everything the step thread owns.
pub(crate) struct Stepper {
    pub(super) log: Arc<dyn Log>,
    pub(super) shards: usize,
    pub(super) memory_limit: Option<u64>,
    pub(super) memory: Memory,
    pub(super) epoch: Epoch,
    pub(super) now_ms: i64,
    /// The last entry of the journal that has come to pass.
    pub(super) revision: u64,
    /// Ticks that have been stepped.
    pub(super) ticks: Offset,
    pub(super) catalog: Arc<Catalog>,
    pub(super) states: BTreeMap<RelationId, State>,
    pub(super) versions: HashMap<RelationId, TableVersion>,
    pub(super) topics: HashMap<String, Arc<TopicEnds>>,
    pub(super) flow: Flow,
    /// What several queries have in common.
    pub(super) shared: SharedPlans,
    pub(super) subscribers: Vec<Subscriber>,
    pub(super) building: Vec<(Target, Building)>,
    /// Push queries that wait until others have their first result.
    pub(super) waiting: VecDeque<(Target, Query)>,
    pub(super) rebuilt: Vec<Rebuilt>,
    pub(super) answers: Vec<Answer>,
    pub(super) rejects: Rejects,
    latest: LatestTimes,
}

/// The latest record time of what came for each relation in an epoch, and for each view of what it read.
pub(super) type LatestTimes = HashMap<RelationId, i64>;

impl Stepper {
    pub(crate) fn new(log: Arc<dyn Log>, config: &EngineConfig) -> Self {
        Self {
            log,
            shards: config.shards,
            memory_limit: config.memory_limit,
            memory: Memory::new(MemoryLimit::new(config.kept_limit)),
            epoch: 0,
            now_ms: 0,
            revision: 0,
            ticks: 0,
            catalog: Arc::new(Catalog::default()),
            states: BTreeMap::new(),
            versions: HashMap::new(),
            topics: HashMap::new(),
            flow: Flow::default(),
            shared: SharedPlans::default(),
            subscribers: Vec::new(),
            building: Vec::new(),
            waiting: VecDeque::new(),
            rebuilt: Vec::new(),
            answers: Vec::new(),
            rejects: Rejects::new(config.rejects, config.code_of),
            latest: LatestTimes::new(),
        }
    }

    pub(crate) fn memory(&self) -> &MemoryLimit {
        self.memory.limit()
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

    /// Says which entry of the journal has come to pass.
    pub(crate) fn has_taken(&mut self, revision: u64) {
        self.revision = self.revision.max(revision);
    }

    pub(crate) fn revision(&self) -> u64 {
        self.revision
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
            topics: self.topics.clone(),
            queries: queries.collect(),
            building: self.building.iter().filter_map(|(target, b)| target.progress(b)).collect(),
            log: Arc::clone(&self.log),
            rejects: self.rejects.clone(),
        }
    }

    /// Takes one epoch through everything.
    pub(crate) fn step(&mut self, epoch: Epoch, now_ms: i64, mut arrivals: Arrivals) {
        self.epoch = epoch;
        self.now_ms = now_ms;
        self.latest.clear();
        if let Some(tick) = arrivals.remove(&ticks::topic()) {
            self.ticks += tick.iter().map(|arrival| arrival.rows() as u64).sum::<u64>();
        }
        let mut changes = EpochChanges::new();
        self.deliver(0, &mut arrivals, &mut changes);
        for level in 1..=self.flow.deepest {
            self.step_shared_plans(level, &mut changes);
            self.step_views(level, &mut arrivals, &mut changes);
            self.deliver(level, &mut arrivals, &mut changes);
        }
        for id in changes.keys() {
            self.publish_table(*id);
        }
        self.step_subscribers(&changes);
        self.end_what_is_too_much();
        self.release_shared_plans();
        let rebuilt = self.rebuilt.iter_mut().map(|r| &mut r.building);
        for building in self.building.iter_mut().map(|(_, b)| b).chain(rebuilt) {
            building.miss(epoch, now_ms, &changes);
        }
        // Whoever asked is gone: it is computed again when somebody asks again.
        self.rebuilt.retain(|r| !r.building.is_behind());
    }

    /// Gives relations what has arrived in their topics, once nobody writes to them any more.
    fn deliver(&mut self, level: usize, arrivals: &mut Arrivals, changes: &mut EpochChanges) {
        if arrivals.is_empty() {
            return;
        }
        for delivery in self.flow.deliveries(level) {
            let Some(mut arrived) = arrivals.remove(&delivery.topic) else { continue };
            let Some(ends) = self.topics.get_mut(&delivery.topic) else { continue };
            arrived.sort_by_key(|a| (a.part, a.partition));
            arrived.iter_mut().for_each(|arrival| Arc::make_mut(ends).number(arrival));
            let latest = arrived.iter().filter_map(Arrival::latest_ms).max();
            for id in &delivery.relations {
                self.latest.extend(latest.map(|latest| (*id, latest)));
                let (Some(state), Some(relation)) = (self.states.get(id), self.catalog.by_id(*id)) else {
                    continue;
                };
                // Records are decoded when somebody reads them.
                if relation.is_stream() && relation.record_format().is_some() && !self.is_read(*id) {
                    continue;
                }
                let mut unread = Vec::new();
                for arrival in &arrived {
                    match state.changes(relation, arrival, &mut unread) {
                        Ok(new) => Arc::make_mut(changes.entry(*id).or_default()).extend(new),
                        Err(error) => {
                            tracing::error!(relation = %relation.name, %error, "could not apply rows");
                        }
                    }
                }
                reject(&self.rejects, relation, unread, (self.epoch, self.now_ms));
            }
        }
    }

    /// Whether a query reads a relation, or is about to.
    fn is_read(&self, id: RelationId) -> bool {
        self.flow.is_read(id)
            || self.subscribers.iter().any(|s| s.query.sources().contains(&id))
            || self.building.iter().any(|(_, b)| b.reads(id))
            || self.rebuilt.iter().any(|r| r.building.reads(id))
    }

    /// The views of a level, in parallel.
    fn step_views(&mut self, level: usize, arrivals: &mut Arrivals, changes: &mut EpochChanges) {
        let (epoch, now_ms, log, rejects) = (self.epoch, self.now_ms, &self.log, &self.rejects);
        let shared = &self.shared;
        let (seen, flow, latest): (&EpochChanges, &Flow, &LatestTimes) = (changes, &self.flow, &self.latest);
        let mut views: Vec<(RelationId, &mut View)> = self
            .states
            .iter_mut()
            .filter_map(|(id, state)| match state {
                State::View(view) if flow.query(*id) == level && view.is_touched(seen, now_ms) => {
                    shared.report(&mut view.shared);
                    Some((*id, view.as_mut()))
                }
                _ => None,
            })
            .collect();
        let run =
            |(id, view): (RelationId, &mut View)| (id, view.step(epoch, now_ms, seen, latest, log, rejects));
        let results: Vec<(RelationId, Option<Output>)> = if views.len() > 1 {
            views.into_par_iter().map(run).collect()
        } else {
            views.drain(..).map(run).collect()
        };
        for (id, result) in results {
            match result {
                Some(output) => self.take_output(id, output, arrivals, changes),
                None => {
                    // Nobody may read its rows any more.
                    self.versions.remove(&id);
                    self.fail_readers(id);
                }
            }
            self.weigh(id);
        }
    }

    fn take_output(
        &mut self,
        id: RelationId,
        output: Output,
        arrivals: &mut Arrivals,
        changes: &mut EpochChanges,
    ) {
        let latest = self.states.get(&id).and_then(State::view).and_then(|v| v.latest_ms(&self.latest));
        self.latest.extend(latest.map(|latest| (id, latest)));
        if let Some(new) = output.changes {
            changes.insert(id, Arc::new(new));
        }
        if let Some(relation) = self.catalog.by_id(id).filter(|_| !output.written.is_empty()) {
            let written = output.written.into_iter();
            let new = written.map(|(partition, batches)| Arrival { part: id, partition, base: 0, batches });
            arrivals.entry(relation.topic.name.clone()).or_default().extend(new);
        }
    }

    /// A view whose source has stopped stops too: going on would give wrong answers.
    fn fail_readers(&mut self, id: RelationId) {
        let (name, epoch) = (self.catalog.by_id(id).map(|r| r.name.clone()).unwrap_or_default(), self.epoch);
        for reader in self.catalog.readers(id) {
            if let Some(State::View(view)) = self.states.get_mut(&reader.id) {
                view.status.error.get_or_insert_with(|| View::reads_failed(&name));
                view.halted_at = epoch.saturating_sub(1);
                view.rejoins = None;
                view.release();
            }
            self.weigh(reader.id);
        }
        let stopped = |s: &mut Subscriber| s.query.sources().contains(&id);
        for subscriber in self.subscribers.extract_if(.., stopped) {
            subscriber.end(End::Failed(View::reads_failed(&name)));
        }
    }

    fn publish_table(&mut self, id: RelationId) {
        if let Some(store) = self.store(id) {
            self.versions.insert(id, store.version());
        }
        self.weigh(id);
    }

    /// Takes note of what a relation keeps in memory.
    pub(super) fn weigh(&mut self, id: RelationId) {
        if let Some(state) = self.states.get(&id) {
            self.memory.note(id, state.kept_bytes());
            state
                .view()
                .filter(|view| view.budget.spills())
                .into_iter()
                .for_each(|v| self.shared.spill_for(v));
        }
    }

    /// Ends queries while more is kept than may be.
    pub(super) fn end_what_is_too_much(&mut self) {
        let runs = |states: &BTreeMap<RelationId, State>, id| {
            let view = states.get(&id).and_then(State::view);
            id == PUSH_QUERIES || view.is_some_and(|view| view.status.error.is_none())
        };
        let may_end = |stepper: &Self, id| runs(&stepper.states, id) || stepper.shared.get(id).is_some();
        while let Some((id, limit)) = self.memory.too_much(|id| may_end(self, id)) {
            let relation = self.catalog.by_id(id).map(|r| r.name.clone()).unwrap_or_default();
            let error = Error::MemoryLimit { relation, limit };
            if id == PUSH_QUERIES {
                self.end_largest_subscriber(limit);
            } else if self.shared.get(id).is_some() {
                self.fail_shared_plan(id, &error, self.epoch);
            } else {
                self.fail_view(id, &error, self.epoch);
            }
        }
    }

    fn step_subscribers(&mut self, changes: &EpochChanges) {
        let (epoch, now_ms) = (self.epoch, self.now_ms);
        let mut rejects = StepRejects::default();
        // What the same queries without state have brought already.
        let mut same: HashMap<u64, Changes> = HashMap::new();
        let kept = self.subscribers.drain(..).filter_map(|mut subscriber| {
            let shared = subscriber.row_by_row.then(|| subscriber.query.fingerprint());
            let stepped = match shared.and_then(|query| same.get(&query)) {
                Some(brought) => Ok(brought.clone()),
                None if subscriber.query.is_touched(changes, now_ms) => {
                    subscriber.query.step(changes, now_ms, &mut rejects)
                }
                None => Ok(Vec::new()),
            };
            if let (Some(query), Ok(brought)) = (shared, &stepped) {
                same.entry(query).or_insert_with(|| brought.clone());
            }
            match stepped {
                Ok(new) => subscriber.send(epoch, new).then_some(subscriber),
                Err(error) => {
                    tracing::error!(%error, "a push query failed");
                    subscriber.end(End::Failed(error.to_string()));
                    None
                }
            }
        });
        self.subscribers = kept.collect();
        self.weigh_subscribers();
    }

    /// Takes note of what push queries keep, and ends those that keep more than a query may.
    fn weigh_subscribers(&mut self) {
        if let Some(limit) = self.memory_limit {
            for subscriber in self.subscribers.extract_if(.., |s| s.bytes() > limit) {
                subscriber.end(End::OutOfMemory(limit));
            }
        }
        self.memory.note(PUSH_QUERIES, self.subscribers.iter().map(Subscriber::bytes).sum());
    }

    /// Ends the push query that keeps most.
    fn end_largest_subscriber(&mut self, limit: u64) {
        let largest = (0..self.subscribers.len()).max_by_key(|at| self.subscribers[*at].bytes());
        if let Some(at) = largest {
            self.subscribers.swap_remove(at).end(End::OutOfMemory(limit));
        }
        self.weigh_subscribers();
    }

    /// When a view or a push query changes by itself, ms since 1970.
    pub(crate) fn due_ms(&self) -> Option<i64> {
        if self.states.values().filter_map(State::view).any(|view| view.rejoins.is_some()) {
            return Some(0);
        }
        let views = self.states.values().filter_map(State::view).filter(|view| view.status.error.is_none());
        let views = views.map(|view| &view.query);
        let queries = views.chain(self.subscribers.iter().map(|s| &s.query));
        queries.filter_map(Query::due_ms).min()
    }

    /// Whether tables wait to be indexed.
    pub(crate) fn has_unindexed(&self) -> bool {
        self.view_stores().any(TableStore::has_unindexed)
    }

    /// Indexes some rows of a table that waits for it: there is nothing else to do.
    pub(crate) fn index_some(&self) {
        if let Some(store) = self.view_stores().find(|store| store.has_unindexed())
            && let Err(error) = store.index_some()
        {
            tracing::error!(%error, "could not index a table");
        }
    }

    fn view_stores(&self) -> impl Iterator<Item = &TableStore> {
        self.states.values().filter_map(State::view).filter_map(|view| view.store.as_ref())
    }

    /// Gives waiting subscribers another chance; true while some still wait.
    pub(crate) fn retry_subscribers(&mut self) -> bool {
        let epoch = self.epoch;
        self.subscribers.retain_mut(|s| s.retry(epoch));
        self.subscribers.iter().any(Subscriber::has_pending)
    }

    /// Tells who waits, now that everything is published.
    pub(crate) fn send_answers(&mut self) {
        self.answers.drain(..).for_each(Answer::send);
    }

    /// Puts the state of a relation that the catalog has where everybody sees it.
    pub(super) fn put(&mut self, id: RelationId, state: State) {
        let failed = state.view().is_some_and(|view| view.status.error.is_some());
        self.states.insert(id, state);
        if !failed {
            self.publish_table(id);
        }
    }

    /// Sets a view aside, with those that read it; `last` is the last epoch it has.
    pub(super) fn fail_view(&mut self, id: RelationId, error: &Error, last: Epoch) {
        if let Some(State::View(view)) = self.states.get_mut(&id) {
            view.fail(error);
            view.halted_at = last;
        }
        self.versions.remove(&id);
        self.weigh(id);
        self.fail_readers(id);
    }

    /// Up to where a part of a topic has been stepped.
    pub(super) fn stepped(&self, topic: &str, partition: u32, part: RelationId) -> Offset {
        if topic == ticks::topic() {
            return self.ticks;
        }
        let ends = self.topics.get(topic).and_then(|ends| ends.partitions.get(partition as usize));
        ends.and_then(|ends| ends.parts.iter().find(|p| p.relation == part)).map_or(0, |part| part.end)
    }

    /// Sets the views aside that were computed anew although records that they had read are gone.
    pub(super) fn fail_what_lost_history(&mut self) {
        let views: Vec<_> = self.catalog.iter().filter(|r| r.dataflow().is_some()).cloned().collect();
        for view in views {
            if let Some(stream) = view.dataflow().and_then(|dataflow| self.lost_history(dataflow)) {
                self.fail_view(view.id, &Error::LostHistory { stream }, self.epoch);
            }
        }
    }

    /// A topic was found to be damaged.
    pub(super) fn damage(&mut self, topic: &str, error: storage::Error) -> Result<()> {
        let ends = self.topics.entry(topic.to_owned()).or_default();
        Arc::make_mut(ends).take_damage(error)
    }

    pub(super) fn is_damaged(&self, topic: &str) -> bool {
        self.topics.get(topic).is_some_and(|ends| ends.damage.is_some())
    }

    /// Sets the views aside that read or write what is damaged.
    pub(super) fn fail_what_is_damaged(&mut self) {
        for relation in self.catalog.iter().cloned().collect::<Vec<_>>() {
            let damage = self.topics.get(&relation.topic.name).and_then(|ends| ends.damage.clone());
            let Some(damage) = damage.filter(|_| relation.has_topic()) else { continue };
            if relation.dataflow().is_some() {
                self.fail_view(relation.id, &Error::Storage(damage), self.epoch);
            } else {
                self.fail_readers(relation.id);
            }
        }
        self.release_shared_plans();
    }

    /// A stream that a query reads and of which the log has let records go.
    pub(super) fn lost_history(&self, dataflow: &Dataflow) -> Option<String> {
        let sources = dataflow.source_relations().filter(|source| source.is_stream());
        let partitions = |name: &str| self.topics.get(name).map(|topic| topic.partitions.as_slice());
        for source in sources {
            for (number, partition) in (0u32..).zip(partitions(&source.topic.name).unwrap_or_default()) {
                let lost = partition.parts.iter().any(|part| {
                    let at = TopicPartition { topic: part.log_name.to_string(), partition: number };
                    self.log.bounds(&at).is_ok_and(|there| there.start > 0)
                });
                if lost {
                    return Some(source.name.clone());
                }
            }
        }
        None
    }

    /// Puts a relation where everybody sees it.
    pub(super) fn install(&mut self, relation: &Arc<Relation>, state: State) -> Result<()> {
        self.set_catalog(self.catalog.with(Arc::clone(relation)))?;
        self.states.insert(relation.id, state);
        self.publish_table(relation.id);
        self.share_tables(relation.id);
        self.share_view(relation.id);
        Ok(())
    }

    /// Lets a view, and those that read it, look rows up in the tables that are there.
    pub(super) fn share_tables(&mut self, id: RelationId) {
        let readers = self.catalog.iter().filter(|r| r.id == id || r.sources().contains(&id));
        for reader in readers.filter(|r| r.dataflow().is_some()).map(|r| r.id).collect::<Vec<_>>() {
            let Some(mut state) = self.states.remove(&reader) else { continue };
            if let State::View(view) = &mut state {
                view.query.look_up_in(|table| self.store(table));
            }
            self.states.insert(reader, state);
        }
        let mut plans = std::mem::take(&mut self.shared.plans);
        for plan in plans.iter_mut().filter(|plan| plan.query.sources().contains(&id)) {
            plan.query.look_up_in(|table| self.store(table));
        }
        self.shared.plans = plans;
    }

    /// The rows of a table, or of a view that keeps them.
    pub(super) fn store(&self, id: RelationId) -> Option<TableStore> {
        self.states.get(&id).and_then(State::store).cloned()
    }

    /// The catalog is another one: so are the topics there are, and the order of an epoch.
    pub(super) fn set_catalog(&mut self, catalog: Catalog) -> Result<()> {
        self.topics.retain(|name, _| catalog.topic(name).is_some());
        for topic in catalog.topics() {
            let ends = self.topics.entry(topic.name.clone()).or_default();
            if !ends.has_parts(topic) {
                Arc::make_mut(ends).add_parts(topic, &self.log)?;
            }
        }
        self.flow = Flow::of(&catalog);
        self.catalog = Arc::new(catalog);
        self.release_shared_plans();
        self.place_shared_plans();
        Ok(())
    }

    /// A relation has another name from now on. Queries that read it know it by its id.
    pub(crate) fn rename(&mut self, id: RelationId, name: &str) {
        self.catalog = Arc::new(self.catalog.renamed(id, name));
        if let (Some(State::View(view)), Some(relation)) = (self.states.get_mut(&id), self.catalog.by_id(id))
        {
            view.relation = Arc::clone(relation);
        }
    }

    /// Others may do what they may in this catalog, and the same is said of relations.
    pub(crate) fn adopt(&mut self, words: &Catalog) {
        self.catalog = Arc::new(self.catalog.with_words_of(words));
    }

    /// A part of a topic that a relation left behind.
    pub(crate) fn keep_topic(&mut self, topic: Topic) -> Result<()> {
        self.set_catalog(self.catalog.with_topic(topic))
    }

    /// Removes relations and everything kept for them.
    pub(crate) fn drop_relations(&mut self, ids: &[RelationId], delete_topics: bool) -> Result<()> {
        for id in ids {
            self.states.remove(id);
            self.versions.remove(id);
            self.memory.forget(*id);
        }
        self.rebuilt.retain(|r| !ids.contains(&r.id()));
        let gone = |s: &mut Subscriber| s.query.sources().iter().any(|source| ids.contains(source));
        for subscriber in self.subscribers.extract_if(.., gone) {
            subscriber.end(End::Dropped);
        }
        self.set_catalog(self.catalog.without(ids, delete_topics))
    }
}
