//! How queries come to be: begun, built beside everything else, and taken in.
//!
//! Invariant: a relation is in the catalog only with its first result, and whoever asked for it is
//! told once, after what he asked for is published.

use std::sync::Arc;

use planner::{Dataflow, Relation};
use storage::Epoch;
use tokio::sync::oneshot;

use super::backfill::{Backfill, Building, Built, Missed, Progress};
use super::budget::Budget;
use super::feed::Feed;
use super::history::{StreamReader, TopicReader};
use super::memory::Allowance;
use super::meta::Halt;
use super::relations::{State, new_base};
use super::step::{LatestTimes, Stepper};
use super::topics::Arrival;
use super::view::{View, Written};
use crate::change::ChangeBatch;
use crate::error::{Error, Result};
use crate::operator::Changes;
use crate::push::{Subscriber, Subscription};
use crate::query::{EpochChanges, Query};
use crate::rejects::StepRejects;

/// Push queries on their way to a first result at a time; more of them wait.
const MOST_BUILDING: usize = 4;

/// What a query reads, at one epoch.
struct Sources {
    tables: EpochChanges,
    streams: Vec<StreamReader>,
    total: u64,
}

/// What a query becomes when it has its first result.
pub(super) enum Target {
    View(NewView),
    /// A view that stood still, or gets another query, beside the view as it is.
    Rejoin {
        relation: Arc<Relation>,
        reply: Option<oneshot::Sender<Result<()>>>,
    },
    Subscriber {
        snapshot: bool,
        progress: bool,
        reply: oneshot::Sender<Result<Subscription>>,
    },
}

/// A view on its way.
pub(super) struct NewView {
    relation: Arc<Relation>,
    /// Where its topic ends already: it is made again after a restart.
    topic: TopicEnd,
    reply: Reply,
}

/// The last epoch whose changes each partition of a result topic holds.
#[derive(Debug, Clone, Default)]
pub(crate) struct TopicEnd {
    pub(crate) epochs: Vec<Epoch>,
}

/// Where an answer goes; nowhere, when the journal asks again after a restart.
pub(crate) type Reply = Option<oneshot::Sender<Result<()>>>;

/// An answer that waits until what it tells of is published.
pub(super) enum Answer {
    Made(oneshot::Sender<Result<()>>, Result<()>),
    Subscribed(oneshot::Sender<Result<Subscription>>, Result<Subscription>),
}

impl Answer {
    pub(super) fn send(self) {
        // Whoever asked may have gone.
        match self {
            Self::Made(reply, result) => drop(reply.send(result)),
            Self::Subscribed(reply, result) => drop(reply.send(result)),
        }
    }
}

impl Target {
    /// The view that is being made, and how far it is.
    pub(super) fn progress(&self, building: &Building) -> Option<(String, Arc<Progress>)> {
        match self {
            Self::View(view) => Some((view.relation.name.clone(), Arc::clone(&building.progress))),
            Self::Rejoin { .. } | Self::Subscriber { .. } => None,
        }
    }
}

impl Stepper {
    /// Makes a relation; a view's first result is computed beside everything else, and the view is
    /// there when it is done.
    pub(crate) fn create(&mut self, relation: &Arc<Relation>, reply: Reply) {
        self.begin(relation, TopicEnd::default(), reply);
    }

    /// Makes a relation again, as the journal says, and waits for it.
    pub(crate) fn create_again(&mut self, relation: &Arc<Relation>, topic: TopicEnd) {
        self.begin(relation, topic, None);
        self.wait_for_building();
    }

    /// Takes in everything that is on its way, however long it takes.
    pub(super) fn wait_for_building(&mut self) {
        while let Some((target, building)) = self.building.pop() {
            let built = building.wait();
            self.finish(target, building, built);
        }
    }

    fn begin(&mut self, relation: &Arc<Relation>, topic: TopicEnd, reply: Reply) {
        let made = match relation.dataflow() {
            None if relation.is_base() => new_base(relation).and_then(|state| self.install(relation, state)),
            None => self.install(relation, State::Expanded),
            Some(dataflow) if self.catalog.shares_topic(relation) => {
                self.join_topic(relation, dataflow, topic)
            }
            Some(dataflow) => {
                let query = Query::try_new(Arc::clone(dataflow), self.shards);
                let target = Target::View(NewView { relation: Arc::clone(relation), topic, reply });
                return self.build(target, query);
            }
        };
        self.answer(relation, reply, made);
    }

    /// Makes a view whose topic others read: its first result comes to them in the next epoch.
    fn join_topic(
        &mut self,
        relation: &Arc<Relation>,
        dataflow: &Arc<Dataflow>,
        topic: TopicEnd,
    ) -> Result<()> {
        let query = Query::try_new(Arc::clone(dataflow), self.shards)?;
        let mut view = View::try_new(relation, query, topic.epochs, self.memory_limit)?;
        view.status.halt = Some(Halt::Paused);
        self.install(relation, State::View(Box::new(view)))?;
        self.rejoin(relation)
    }

    /// Starts a push query; with `snapshot` its reader first gets the current result.
    pub(crate) fn subscribe(
        &mut self,
        query: Query,
        snapshot: bool,
        progress: bool,
        reply: oneshot::Sender<Result<Subscription>>,
    ) {
        if Feed::is_possible(query.dataflow()) {
            let started = self.feed(query, snapshot, progress);
            self.answers.push(Answer::Subscribed(reply, started));
            return;
        }
        let target = Target::Subscriber { snapshot, progress, reply };
        if self.building.len() >= MOST_BUILDING {
            self.waiting.push_back((target, query));
        } else {
            self.build(target, Ok(query));
        }
    }

    /// A push query that needs no first result.
    fn feed(&mut self, query: Query, snapshot: bool, progress: bool) -> Result<Subscription> {
        self.check_sources(query.dataflow())?;
        let mut feed = None;
        if snapshot && let Some(stream) = self.sources_now(query.dataflow())?.streams.pop() {
            let history = Query::try_new(Arc::clone(query.dataflow()), 1)?;
            feed = Some(Feed::new(history, stream, (self.epoch, self.now_ms), progress));
        }
        let (mut subscriber, mut subscription) = Subscriber::new(query, progress);
        let open = match feed {
            Some(feed) => {
                subscription = subscription.after(feed);
                true
            }
            None => subscriber.send(self.epoch, Vec::new()),
        };
        if open {
            self.subscribers.push(subscriber);
        }
        Ok(subscription)
    }

    /// Starts queries that waited until others had their first result.
    fn build_waiting(&mut self) {
        while self.building.len() < MOST_BUILDING
            && let Some((target, query)) = self.waiting.pop_front()
        {
            let wanted = !matches!(&target, Target::Subscriber { reply, .. } if reply.is_closed());
            if wanted {
                self.build(target, Ok(query));
            }
        }
    }

    /// Starts a query's way to its first result.
    pub(super) fn build(&mut self, target: Target, query: Result<Query>) {
        let at = (self.epoch, self.now_ms);
        let since = match &target {
            Target::Rejoin { relation, .. } => self.since(relation),
            _ => None,
        };
        let allowance = self.allowance(&target);
        let started = query.and_then(|query| {
            let backfill = self.backfill(query.dataflow(), since, allowance)?;
            Building::start(query, backfill, at)
        });
        match started {
            Ok(building) => self.building.push((target, building)),
            Err(error) => self.refuse(target, error),
        }
    }

    fn refuse(&mut self, target: Target, error: Error) {
        match target {
            Target::Rejoin { relation, reply } => self.answer(&relation, reply, Err(error)),
            Target::View(view) => self.answer(&view.relation, view.reply, Err(error)),
            Target::Subscriber { reply, .. } => self.answers.push(Answer::Subscribed(reply, Err(error))),
        }
    }

    pub(super) fn answer(&mut self, relation: &Relation, reply: Reply, made: Result<()>) {
        match (reply, made) {
            (Some(reply), made) => self.answers.push(Answer::Made(reply, made)),
            (None, Err(error)) => {
                tracing::error!(relation = %relation.name, %error, "could not be made again and is left out");
            }
            (None, Ok(())) => {}
        }
    }

    /// Whether queries are on their way to their first result.
    pub(crate) fn is_building(&self) -> bool {
        !self.building.is_empty()
    }

    /// Takes in the queries that have their first result; true when there were any.
    pub(crate) fn finish_built(&mut self) -> bool {
        let (mut waiting, mut done) = (Vec::new(), Vec::new());
        for (target, building) in std::mem::take(&mut self.building) {
            match building.built() {
                Some(built) => done.push((target, building, built)),
                None => waiting.push((target, building)),
            }
        }
        self.building = waiting;
        let any = !done.is_empty();
        for (target, building, built) in done {
            self.finish(target, building, built);
        }
        if any {
            self.end_what_is_too_much();
            self.build_waiting();
        }
        any
    }

    fn finish(&mut self, target: Target, building: Building, built: Result<Built>) {
        match (target, built) {
            (target, Err(error)) => self.refuse(target, error),
            (Target::Rejoin { relation, reply }, Ok(built)) => self.rebuilt(relation, building, built, reply),
            (Target::View(new), Ok(built)) => {
                let made =
                    self.finished_view(&new, built, building.at).and_then(|(mut view, mut written)| {
                        for missed in building.missed {
                            if view.status.error.is_none() {
                                let Missed { epoch, now_ms, changes } = missed;
                                let output = view.step(
                                    epoch,
                                    now_ms,
                                    &changes,
                                    &LatestTimes::new(),
                                    &self.log,
                                    &self.rejects,
                                );
                                written.extend(output.into_iter().flat_map(|output| output.written));
                            }
                        }
                        self.install(&new.relation, State::View(Box::new(view)))?;
                        self.count_written(&new.relation, written);
                        Ok(())
                    });
                self.answer(&new.relation, new.reply, made);
            }
            (Target::Subscriber { snapshot, progress, reply }, Ok(built)) => {
                let started = self.finished_subscriber(built, building, snapshot, progress);
                self.answers.push(Answer::Subscribed(reply, started));
            }
        }
    }

    /// What a new view has written is in its topic from now on.
    fn count_written(&mut self, relation: &Relation, written: Written) {
        let Some(ends) = self.topics.get_mut(&relation.topic.name) else { return };
        for (partition, batches) in written {
            let mut arrival = Arrival { part: relation.id, partition, base: 0, batches };
            Arc::make_mut(ends).number(&mut arrival);
        }
    }

    fn finished_subscriber(
        &mut self,
        built: Built,
        building: Building,
        snapshot: bool,
        progress: bool,
    ) -> Result<Subscription> {
        let Built { mut query, result, .. } = built;
        self.check_sources(query.dataflow())?;
        let current = result?;
        let mut rejects = StepRejects::default();
        let mut later = Vec::new();
        for missed in building.missed {
            later.push((missed.epoch, query.step(&missed.changes, missed.now_ms, &mut rejects)?));
        }
        query.look_up_in(|table| self.store(table));
        self.share_subscriber(&mut query);
        let (mut subscriber, subscription) = Subscriber::new(query, progress);
        let first = if snapshot { current } else { Vec::new() };
        let mut open = subscriber.send(building.at.0, first);
        for (epoch, changes) in later {
            open = open && subscriber.send(epoch, changes);
        }
        if open {
            self.subscribers.push(subscriber);
        }
        Ok(subscription)
    }

    /// The view that a first result makes. What goes wrong sets the view aside.
    fn finished_view(
        &self,
        new: &NewView,
        built: Built,
        (epoch, now_ms): (Epoch, i64),
    ) -> Result<(View, Written)> {
        let Built { query, result, rejects, busy_us } = built;
        let epochs = new.topic.epochs.clone();
        let mut view = View::try_new(&new.relation, query, epochs, self.memory_limit)?;
        if let Some((name, _)) = self.failed_source(view.query.dataflow()) {
            view.status.error = Some(View::reads_failed(name));
            return Ok((view, Vec::new()));
        }
        let kept = result.and_then(|changes| {
            view.expect(&changes)?;
            spill::within(view.budget.spills(), || {
                let changes = view.keep(changes, now_ms)?;
                view.measure();
                view.check_memory()?;
                let written = view.written(&changes, now_ms)?;
                // After a restart the topic may hold the first result and more.
                view.write_topic(epoch, now_ms, &written, &self.log)?;
                Ok(written)
            })
        });
        view.has_written(epoch);
        let written = kept.unwrap_or_else(|error| {
            view.fail(&error);
            Vec::new()
        });
        view.note(&self.rejects, rejects, epoch, now_ms);
        view.status.busy_us += busy_us;
        Ok((view, written))
    }

    fn allowance(&self, target: &Target) -> Allowance {
        let relation = match target {
            Target::View(NewView { relation, .. }) | Target::Rejoin { relation, .. } => Some(relation),
            Target::Subscriber { .. } => None,
        };
        let name = relation.map_or_else(|| "a push query".into(), |relation| relation.name.clone());
        let own = relation.and_then(|relation| relation.memory_limit).or(self.memory_limit);
        Allowance::new(name, Budget::new(own), self.memory().clone())
    }

    fn backfill(&self, dataflow: &Dataflow, since: Option<Epoch>, allowance: Allowance) -> Result<Backfill> {
        let Sources { tables, streams, total } = self.sources_now(dataflow)?;
        let progress = Arc::new(Progress { total, ..Progress::default() });
        Ok(Backfill { tables, streams, progress, allowance, since })
    }

    /// All that a new query has to read, at this epoch.
    fn sources_now(&self, dataflow: &Dataflow) -> Result<Sources> {
        let mut tables = EpochChanges::new();
        let mut streams = Vec::new();
        let mut total = 0;
        for planned in dataflow.source_relations() {
            let id = planned.id;
            // It may have got columns since.
            let relation = self.catalog.by_id(id).unwrap_or(planned);
            if let Some(version) = self.versions.get(&id) {
                let batches =
                    version.batches()?.into_iter().filter(|b| b.num_rows() > 0).map(ChangeBatch::inserted);
                total += version.num_rows() as u64;
                let rows: Changes = batches.collect();
                tables.insert(id, Arc::new(rows));
            } else if let Some(ends) = self.topics.get(&relation.topic.name).filter(|_| relation.is_stream())
            {
                if ends.damage.is_some() {
                    // The query is set aside once it is there.
                    continue;
                }
                let topic = TopicReader::new(Arc::clone(&self.log), Arc::clone(ends));
                total += topic.rows();
                streams.push(StreamReader::new(Arc::clone(relation), topic, self.rejects.clone()));
            } else if !self.states.contains_key(&id) {
                return Err(Error::Dropped(relation.name.clone()));
            }
        }
        Ok(Sources { tables, streams, total })
    }

    /// Whether everything a query reads is still there and runs.
    pub(super) fn check_sources(&self, dataflow: &Dataflow) -> Result<()> {
        if let Some(gone) = dataflow.source_relations().find(|r| !self.states.contains_key(&r.id)) {
            return Err(Error::Dropped(gone.name.clone()));
        }
        match self.failed_source(dataflow) {
            Some((name, reason)) => Err(Error::QueryFailed { relation: name.to_owned(), reason }),
            None => Ok(()),
        }
    }

    /// A relation that a query reads and whose own query has failed or whose topic is damaged, and why.
    fn failed_source<'a>(&self, dataflow: &'a Dataflow) -> Option<(&'a str, String)> {
        dataflow.source_relations().find_map(|relation| {
            let ends = self.topics.get(&relation.topic.name).filter(|_| relation.has_topic());
            let damage = ends.and_then(|ends| ends.damage.as_ref()).map(ToString::to_string);
            let failure = || self.states.get(&relation.id)?.view()?.status.error.clone();
            Some((relation.name.as_str(), damage.or_else(failure)?))
        })
    }
}
