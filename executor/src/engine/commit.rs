//! The commit thread: takes what has arrived, makes one epoch of it, syncs, acknowledges.
//!
//! There is no timer: while one epoch syncs, the next one gathers. Invariant: an acknowledged
//! epoch is on disk; epochs and catalog changes reach the step thread in the order they became so.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::compute::concat_batches;
use planner::{AccessChange, Catalog, Comment, Relation, RelationId};
use storage::backup::{self, Capture};
use storage::log::{Log, Retention, Sync, TopicPartition};
use storage::meta::{Journal, MetaStore};
use storage::{Clock, Epoch, Fs, Offset};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot, watch};

use super::checkpoint::{CheckpointPolicy, CheckpointTarget, Checkpointer, Covers};
use super::meta::{Halt, MetaRecord};
use super::snapshot::Snapshot;
use super::step::Stepper;
use super::topics::{Arrival, Arrivals};
use super::{frames, ticks};
use crate::error::{Error, Result};
use crate::ingest::{Write, numbered, topic_schema};
use crate::layout::widened;
use crate::push::Subscription;
use crate::query::Query;

/// Rows of one epoch take at most about this much, unless one statement is larger.
const EPOCH_BYTES: usize = 64 << 20;
/// Epochs between the two threads.
const AHEAD: usize = 2;
/// Batches smaller than this become one.
const SMALL_ROWS: usize = 1024;
/// How often it is looked whether a new query has its first result.
const BUILDING: Duration = Duration::from_millis(1);
/// How long there must be nothing to do before tables are indexed.
const IDLE: Duration = Duration::from_millis(1);
/// How often waiting subscribers are tried again.
const RETRY: Duration = Duration::from_millis(20);
/// Epochs of time alone are at least this far apart: each is a synced record.
const TICK: Duration = Duration::from_millis(100);
/// When an epoch that was asked for has not come, because the disk failed, it is asked for again.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// How often old segments are looked for, in milliseconds.
const RETENTION_MS: i64 = 5_000;

pub(crate) enum Request {
    Append(AppendRequest),
    Ddl(DdlRequest),
    Subscribe(SubscribeRequest),
    /// Computes a view's query again, beside the view.
    Rebuild(Arc<Relation>, oneshot::Sender<Result<()>>),
    Flush(oneshot::Sender<Epoch>),
    /// Records that are in two checkpoints.
    Covered(Covers),
    /// The files as they are between two epochs.
    Capture(oneshot::Sender<Result<(Epoch, Capture)>>),
    /// A query changes by itself at this time, ms since 1970.
    Tick(i64),
    Stop,
}

pub(crate) struct AppendRequest {
    pub(crate) writes: Vec<Write>,
    pub(crate) bytes: usize,
    pub(crate) permit: OwnedSemaphorePermit,
    pub(crate) reply: oneshot::Sender<Result<Epoch>>,
}

pub(crate) enum Change {
    Create(Arc<Relation>),
    /// With the topics that were named, or without them.
    Drop(Vec<Arc<Relation>>, bool),
    Halt(Arc<Relation>, Halt),
    Rename(RelationId, String),
    /// Others may do other things from now on.
    Access(AccessChange),
    /// Something is said of a relation.
    Comment(Comment),
    /// The view goes on, with the query it has or with another one.
    Rejoin(Arc<Relation>, RejoinWith),
}

/// What a view goes on with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RejoinWith {
    ItsQuery,
    AnotherQuery,
}

pub(crate) struct DdlRequest {
    pub(crate) change: Change,
    pub(crate) reply: oneshot::Sender<Result<()>>,
}

pub(crate) struct SubscribeRequest {
    pub(crate) query: Query,
    pub(crate) snapshot: bool,
    pub(crate) progress: bool,
    pub(crate) reply: oneshot::Sender<Result<Subscription>>,
}

/// What the step thread is given, in order.
enum Work {
    Epoch {
        epoch: Epoch,
        now_ms: i64,
        arrivals: Arrivals,
        permits: Vec<OwnedSemaphorePermit>,
    },
    /// With its entry in the journal.
    Ddl(DdlRequest, u64),
    Subscribe(SubscribeRequest),
    Rebuild(Arc<Relation>, oneshot::Sender<Result<()>>),
    Flush(oneshot::Sender<Epoch>),
}

/// Everything the commit thread owns.
pub(crate) struct Committer {
    /// Where everything is.
    pub(crate) directory: (Arc<dyn Fs>, PathBuf),
    pub(crate) log: Arc<dyn Log>,
    pub(crate) journal: Journal,
    pub(crate) projection: Arc<dyn MetaStore>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) epoch: Epoch,
    pub(crate) catalog: Catalog,
    /// Deals writes to the partitions of a stream.
    pub(crate) turn: u32,
    pub(crate) retained_at_ms: i64,
    /// The last entry of the journal that made or changed a query.
    pub(crate) revision: u64,
    /// What two checkpoints have of the log, should it let go of it.
    pub(crate) covers: Covers,
    /// The time of the last epoch.
    pub(crate) committed_at_ms: i64,
}

/// Starts both threads.
pub(crate) fn spawn(
    committer: Committer,
    stepper: Stepper,
    (sender, requests): (mpsc::WeakSender<Request>, mpsc::Receiver<Request>),
    publish: watch::Sender<Arc<Snapshot>>,
    (policy, checkpoints): (CheckpointPolicy, CheckpointTarget),
) -> Result<Vec<JoinHandle<()>>> {
    let timer = Timer { clock: Arc::clone(&committer.clock), requests: sender, asked: None };
    let checkpointer = Checkpointer::start(policy, checkpoints)?;
    let (work, receiver) = sync_channel(AHEAD);
    let failed = |e: std::io::Error| Error::bug("start", e.to_string());
    let step = Builder::new()
        .name("step".into())
        .spawn(move || step_loop(stepper, timer, checkpointer, &receiver, &publish))
        .map_err(failed)?;
    let commit = Builder::new()
        .name("commit".into())
        .spawn(move || commit_loop(committer, requests, &work))
        .map_err(failed)?;
    Ok(vec![commit, step])
}

/// Asks for an epoch when a query changes by itself.
struct Timer {
    clock: Arc<dyn Clock>,
    requests: mpsc::WeakSender<Request>,
    /// The time it has asked for, and when it did.
    asked: Option<(i64, Instant)>,
}

impl Timer {
    /// How long nothing has to happen; asks for an epoch when something has.
    fn wait(&mut self, due_ms: Option<i64>) -> Option<Duration> {
        let due = due_ms?;
        let left = due.saturating_sub(self.clock.now_ms());
        if left > 0 {
            return Some(Duration::from_millis(left.unsigned_abs()));
        }
        if let Some((time, at)) = self.asked {
            let wait = if time == due { ASK_AGAIN } else { TICK };
            if let Some(left) = wait.checked_sub(at.elapsed()) {
                return Some(left.min(TICK));
            }
        }
        if let Some(requests) = self.requests.upgrade()
            && requests.try_send(Request::Tick(due)).is_ok()
        {
            self.asked = Some((due, Instant::now()));
        }
        Some(TICK)
    }
}

fn step_loop(
    mut stepper: Stepper,
    mut timer: Timer,
    mut checkpointer: Checkpointer,
    work: &Receiver<Work>,
    publish: &watch::Sender<Arc<Snapshot>>,
) {
    let mut waiting = false;
    loop {
        let building = stepper.is_building().then_some(BUILDING);
        let retry = waiting.then_some(RETRY);
        let idle = stepper.has_unindexed().then_some(IDLE);
        let limits = [building, retry, idle, checkpointer.wait(&stepper), timer.wait(stepper.due_ms())];
        let next = match limits.into_iter().flatten().min() {
            Some(limit) => work.recv_timeout(limit),
            None => work.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        match next {
            Ok(Work::Epoch { epoch, now_ms, arrivals, permits }) => {
                stepper.step(epoch, now_ms, arrivals);
                publish.send_replace(Arc::new(stepper.snapshot()));
                drop(permits);
            }
            Ok(Work::Ddl(request, revision)) => {
                ddl(&mut stepper, request, publish);
                stepper.has_taken(revision);
            }
            Ok(Work::Subscribe(request)) => {
                stepper.subscribe(request.query, request.snapshot, request.progress, request.reply);
            }
            Ok(Work::Rebuild(relation, reply)) => stepper.rebuild(relation, Some(reply)),
            Ok(Work::Flush(reply)) => {
                let _ = reply.send(stepper.epoch());
            }
            Err(RecvTimeoutError::Timeout) => stepper.index_some(),
            Err(RecvTimeoutError::Disconnected) => return checkpointer.finish(&mut stepper),
        }
        if stepper.is_building() && stepper.finish_built() {
            publish.send_replace(Arc::new(stepper.snapshot()));
        }
        stepper.send_answers();
        waiting = stepper.retry_subscribers();
        checkpointer.tend(&mut stepper);
    }
}

fn ddl(stepper: &mut Stepper, request: DdlRequest, publish: &watch::Sender<Arc<Snapshot>>) {
    let DdlRequest { change, reply } = request;
    match change {
        Change::Create(relation) => {
            stepper.create(&relation, Some(reply));
            publish.send_replace(Arc::new(stepper.snapshot()));
        }
        Change::Drop(relations, delete_topics) => {
            let ids: Vec<_> = relations.iter().map(|r| r.id).collect();
            let dropped = stepper.drop_relations(&ids, delete_topics);
            publish.send_replace(Arc::new(stepper.snapshot()));
            // Whoever asked may have gone.
            let _ = reply.send(dropped);
        }
        Change::Halt(relation, halt) => {
            stepper.halt(relation.id, halt);
            publish.send_replace(Arc::new(stepper.snapshot()));
            let _ = reply.send(Ok(()));
        }
        Change::Rename(id, name) => {
            stepper.rename(id, &name);
            publish.send_replace(Arc::new(stepper.snapshot()));
            let _ = reply.send(Ok(()));
        }
        Change::Access(change) => {
            let allowed = Arc::new(stepper.catalog().access().with(&change));
            stepper.adopt(&stepper.catalog().with_access(allowed));
            publish.send_replace(Arc::new(stepper.snapshot()));
            let _ = reply.send(Ok(()));
        }
        Change::Comment(comment) => {
            stepper.adopt(&stepper.catalog().with_comment(&comment));
            publish.send_replace(Arc::new(stepper.snapshot()));
            let _ = reply.send(Ok(()));
        }
        Change::Rejoin(relation, _) => {
            let _ = reply.send(stepper.rejoin(&relation));
        }
    }
}

fn commit_loop(mut committer: Committer, mut requests: mpsc::Receiver<Request>, work: &SyncSender<Work>) {
    let mut held: Option<Request> = None;
    while let Some(request) = held.take().or_else(|| requests.blocking_recv()) {
        let passed = match request {
            Request::Append(first) => {
                let group = gather(first, &mut requests, &mut held);
                committer.commit(group, work)
            }
            Request::Ddl(request) => committer.ddl(request, work),
            Request::Subscribe(request) => work.send(Work::Subscribe(request)).is_ok(),
            Request::Rebuild(relation, reply) => work.send(Work::Rebuild(relation, reply)).is_ok(),
            Request::Flush(reply) => work.send(Work::Flush(reply)).is_ok(),
            Request::Capture(reply) => {
                let (fs, directory) = &committer.directory;
                // Whoever asked may have gone.
                let captured = backup::capture(fs, directory).map_err(Error::from);
                let _ = reply.send(captured.map(|capture| (committer.epoch, capture)));
                true
            }
            Request::Tick(due_ms) => committer.tick(due_ms, work),
            Request::Covered(covers) => {
                committer.covers = covers;
                true
            }
            Request::Stop => break,
        };
        if !passed {
            tracing::error!("the step thread is gone");
            return;
        }
    }
    committer.stop();
}

/// Appends that can share an epoch: those already waiting, up to the next other request.
fn gather(
    first: AppendRequest,
    requests: &mut mpsc::Receiver<Request>,
    held: &mut Option<Request>,
) -> Vec<AppendRequest> {
    let mut bytes = first.bytes;
    let mut group = vec![first];
    while bytes < EPOCH_BYTES {
        match requests.try_recv() {
            Ok(Request::Append(next)) => {
                bytes += next.bytes;
                group.push(next);
            }
            Ok(other) => {
                *held = Some(other);
                break;
            }
            Err(_) => break,
        }
    }
    group
}

/// Rows for one partition.
struct Part {
    relation: Arc<Relation>,
    partition: u32,
    batches: Vec<RecordBatch>,
}

impl Committer {
    /// Commits a group as one epoch. False when the step thread is gone.
    fn commit(&mut self, group: Vec<AppendRequest>, work: &SyncSender<Work>) -> bool {
        let mut accepted = Vec::with_capacity(group.len());
        for request in group {
            match request.writes.iter().find(|w| self.catalog.by_id(w.relation.id).is_none()) {
                Some(write) => {
                    let _ = request.reply.send(Err(Error::Dropped(write.relation.name.clone())));
                }
                None => accepted.push(request),
            }
        }
        if accepted.is_empty() {
            return true;
        }
        let writes: Vec<Write> = accepted.iter_mut().flat_map(|r| std::mem::take(&mut r.writes)).collect();
        if writes.iter().all(|w| w.num_rows() == 0) {
            // Nothing happens, so there is no epoch that anybody could wait for.
            accepted.into_iter().for_each(|request| drop(request.reply.send(Ok(self.epoch))));
            return true;
        }
        let now_ms = self.clock.now_ms();
        let epoch = self.epoch + 1;
        match self.write(epoch, now_ms, writes) {
            Ok(arrivals) => {
                (self.epoch, self.committed_at_ms) = (epoch, now_ms);
                let mut permits = Vec::with_capacity(accepted.len());
                for request in accepted {
                    let _ = request.reply.send(Ok(epoch));
                    permits.push(request.permit);
                }
                let passed = work.send(Work::Epoch { epoch, now_ms, arrivals, permits }).is_ok();
                self.retain(now_ms);
                passed
            }
            Err(error) => {
                tracing::error!(%error, "could not commit");
                let shared = match error {
                    Error::Storage(shared) => Some(shared),
                    _ => None,
                };
                for request in accepted {
                    let error = shared
                        .clone()
                        .map_or_else(|| Error::bug("commit", "rows did not encode"), Error::Storage);
                    let _ = request.reply.send(Err(error));
                }
                true
            }
        }
    }

    /// An epoch without rows, unless one has come since it was asked for. False when the step thread is
    /// gone.
    fn tick(&mut self, due_ms: i64, work: &SyncSender<Work>) -> bool {
        if self.committed_at_ms >= due_ms {
            return true;
        }
        let (epoch, now_ms) = (self.epoch + 1, self.clock.now_ms());
        match ticks::commit(&self.log, epoch, now_ms) {
            Ok(arrivals) => {
                (self.epoch, self.committed_at_ms) = (epoch, now_ms);
                work.send(Work::Epoch { epoch, now_ms, arrivals, permits: Vec::new() }).is_ok()
            }
            Err(error) => {
                tracing::error!(%error, "could not commit a tick");
                true
            }
        }
    }

    fn write(&mut self, epoch: Epoch, now_ms: i64, writes: Vec<Write>) -> Result<Arrivals> {
        let parts = self.parts(writes)?;
        let appends = parts
            .iter()
            .map(|part| frames::append(part.at(), &part.batches, now_ms))
            .collect::<Result<Vec<_>>>()?;
        self.log.commit(epoch, now_ms, &appends, Sync::Durable)?;
        let mut arrivals = Arrivals::new();
        for Part { relation, partition, batches } in parts {
            let arrival = Arrival { part: relation.id, partition, base: 0, batches };
            arrivals.entry(relation.topic.name.clone()).or_default().push(arrival);
        }
        Ok(arrivals)
    }

    /// Writes by partition, in the order they came.
    fn parts(&mut self, writes: Vec<Write>) -> Result<Vec<Part>> {
        let mut parts: BTreeMap<(RelationId, u32), (Part, i64)> = BTreeMap::new();
        for write in writes.into_iter().filter(|w| w.num_rows() > 0) {
            // A key must always meet the same partition; a stream's writes are dealt out.
            let turn = if write.is_stream() { self.turn % write.relation.partitions } else { 0 };
            self.turn = self.turn.wrapping_add(1);
            for (partition, rows) in write.parts {
                let partition = partition.unwrap_or(turn);
                let relation = Arc::clone(&write.relation);
                let (part, next) = match parts.entry((relation.id, partition)) {
                    std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
                    std::collections::btree_map::Entry::Vacant(entry) => {
                        let part = Part { relation, partition, batches: Vec::new() };
                        let end = i64::try_from(self.log.bounds(&part.at())?.end).unwrap_or(i64::MAX);
                        entry.insert((part, end))
                    }
                };
                let rows = numbered(rows, *next)?;
                let rows = as_topic_has_them(&self.catalog, &write.relation, rows)?;
                *next += i64::try_from(rows.num_rows()).unwrap_or(i64::MAX);
                part.batches.push(rows);
            }
        }
        parts.into_values().map(|(part, _)| part.with_small_batches_joined()).collect()
    }

    /// A catalog change: topics first (they are nothing without the journal's word), then the
    /// journal, then the step thread.
    fn ddl(&mut self, request: DdlRequest, work: &SyncSender<Work>) -> bool {
        let before = self.catalog.clone();
        match self.decide(&request.change) {
            Ok(revision) => {
                self.revision = revision;
                let goes_on = match &request.change {
                    Change::Rejoin(..) => true,
                    // What it brings to a topic that is there comes in an epoch of its own.
                    Change::Create(relation) => {
                        relation.dataflow().is_some() && before.shares_topic(relation)
                    }
                    _ => false,
                };
                let mut passed = work.send(Work::Ddl(request, revision)).is_ok();
                if goes_on {
                    // The epoch in which the view goes on need not wait for rows.
                    passed = passed && self.tick(i64::MAX, work);
                }
                self.remove_topics(&before);
                passed
            }
            Err(error) => {
                let _ = request.reply.send(Err(error));
                true
            }
        }
    }

    /// Removes what is on disk of topics that are no more.
    fn remove_topics(&self, before: &Catalog) {
        for topic in before.topics().filter(|topic| self.catalog.topic(&topic.name).is_none()) {
            for part in &topic.parts {
                // What is left of it is swept at the next start.
                if let Err(error) = self.log.drop_topic(&part.log_name) {
                    tracing::warn!(topic = %topic.name, %error, "could not remove a topic");
                }
            }
        }
    }

    /// What a query wrote to a topic that outlives it cannot be computed again.
    fn keep_written(&self, dropped: &[Arc<Relation>], after: &Catalog) -> Result<()> {
        for relation in dropped.iter().filter(|r| r.has_topic() && !r.is_base()) {
            if after.topic(&relation.topic.name).is_some() {
                self.log.sync_topic(&relation.log_name())?;
            }
        }
        Ok(())
    }

    /// Returns the entry of the journal.
    fn decide(&mut self, change: &Change) -> Result<u64> {
        let record = match change {
            Change::Create(relation) => {
                if relation.has_topic() {
                    self.log.create_topic(&relation.log_name(), relation.partitions)?;
                }
                MetaRecord::create(relation)
            }
            Change::Halt(relation, halt) => MetaRecord::Halt { id: relation.id, halt: *halt },
            Change::Rename(id, name) => MetaRecord::Rename { id: *id, name: name.clone() },
            Change::Access(change) => MetaRecord::Access(change.clone()),
            Change::Comment(comment) => MetaRecord::Comment(comment.clone()),
            Change::Rejoin(relation, RejoinWith::ItsQuery) => MetaRecord::Resume { id: relation.id },
            Change::Rejoin(relation, RejoinWith::AnotherQuery) => {
                MetaRecord::Replace { id: relation.id, text: relation.text.clone() }
            }
            Change::Drop(relations, delete_topics) => {
                let ids: Vec<_> = relations.iter().map(|r| r.id).collect();
                self.keep_written(relations, &self.catalog.without(&ids, *delete_topics))?;
                MetaRecord::Drop { ids, delete_topics: *delete_topics }
            }
        };
        let revision = self.journal.append(self.epoch, &record.encode()?)?;
        self.catalog = match change {
            Change::Create(relation) | Change::Rejoin(relation, _) => self.catalog.with(Arc::clone(relation)),
            Change::Halt(..) => self.catalog.clone(),
            Change::Comment(comment) => self.catalog.with_comment(comment),
            Change::Rename(id, name) => self.catalog.renamed(*id, name),
            Change::Access(change) => self.catalog.with_access(Arc::new(self.catalog.access().with(change))),
            Change::Drop(relations, delete_topics) => {
                self.catalog.without(&relations.iter().map(|r| r.id).collect::<Vec<_>>(), *delete_topics)
            }
        };
        if !self.projection.apply(revision, &record.projection()) {
            tracing::warn!("the metadata projection is behind and will be rebuilt at the next start");
        }
        Ok(revision)
    }

    /// Lets go of old segments of streams that no start would have to read again: what views have read
    /// is in two checkpoints, and no query has been made since that might read it.
    fn retain(&mut self, now_ms: i64) {
        if now_ms - self.retained_at_ms < RETENTION_MS {
            return;
        }
        self.retained_at_ms = now_ms;
        let covered = self.covers.revision >= self.revision;
        if covered {
            let ticks = TopicPartition { topic: ticks::relation().log_name(), partition: 0 };
            self.let_go(
                &ticks,
                Retention { max_bytes: Some(0), max_age_ms: None },
                now_ms,
                self.covers.ticks,
            );
        }
        for relation in self.catalog.iter().filter(|r| r.is_stream() && r.is_base()) {
            let retention = Retention { max_age_ms: relation.retention.0, max_bytes: relation.retention.1 };
            if retention == Retention::default() {
                continue;
            }
            // Offsets of a topic that several write to count all of them.
            if self.catalog.shares_topic(relation) {
                continue;
            }
            let readers = self.catalog.dependents(relation.id);
            let stand = readers.iter().any(|reader| self.covers.standing.contains(&reader.id));
            for partition in 0..relation.partitions {
                let at = TopicPartition { topic: relation.log_name(), partition };
                let ends = self.covers.ends.get(&at.topic).and_then(|ends| ends.get(partition as usize));
                let hold = match ends {
                    _ if readers.is_empty() => u64::MAX,
                    Some(end) if covered && !stand => *end,
                    _ => 0,
                };
                self.let_go(&at, retention, now_ms, hold);
            }
        }
    }

    fn let_go(&self, at: &TopicPartition, retention: Retention, now_ms: i64, hold: Offset) {
        if let Err(error) = self.log.retain(at, retention, now_ms, hold) {
            tracing::warn!(topic = %at.topic, %error, "could not remove old segments");
        }
    }

    fn stop(&mut self) {
        let stopped =
            MetaRecord::Stopped.encode().and_then(|body| Ok(self.journal.append(self.epoch, &body)?));
        if let Err(error) = stopped {
            tracing::warn!(%error, "could not note the end");
        }
    }
}

/// Rows as their topic has them now: their relation may have got columns since they were written down.
fn as_topic_has_them(catalog: &Catalog, written: &Arc<Relation>, rows: RecordBatch) -> Result<RecordBatch> {
    match catalog.by_id(written.id) {
        Some(now) if !Arc::ptr_eq(now, written) && now.record_format().is_none() => {
            Ok(widened(rows, &topic_schema(now), now.columns.len())?)
        }
        _ => Ok(rows),
    }
}

impl Part {
    fn at(&self) -> TopicPartition {
        TopicPartition { topic: self.relation.log_name(), partition: self.partition }
    }

    fn with_small_batches_joined(mut self) -> Result<Self> {
        if self.batches.len() > 1 && self.batches.iter().any(|b| b.num_rows() < SMALL_ROWS) {
            self.batches = vec![concat_batches(&self.batches[0].schema(), &self.batches)?];
        }
        Ok(self)
    }
}
