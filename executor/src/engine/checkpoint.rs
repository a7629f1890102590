//! Checkpoints: what the engine is after an epoch, copied between two epochs and written beside them.
//!
//! Tables and the rows of append-only joins lie in chunks that nobody changes, so they are held and not
//! copied; all other state is. The next start reads the newest checkpoint and steps only the epochs that
//! came after it. Invariant: a checkpoint is complete on disk only after the result topics are, up to its
//! epoch. Next: `storage/src/checkpoint/` keeps it, `restore.rs` reads it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use planner::{NodeId, RelationId};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use storage::checkpoint::{CheckpointStore, Written};
use storage::log::Log;
use storage::{Epoch, Offset};
use tokio::sync::mpsc;

use super::checkpoints::{CheckpointStatus, Checkpoints};
use super::commit::Request;
use super::creation::Target;
use super::meta::Halt;
use super::relations::State;
use super::shared_plans::SharedPlan;
use super::step::Stepper;
use super::topics::PartitionEnds;
use super::view::View;
use crate::error::{Error, Result};
use crate::state::{Image, LAYOUT};

/// The section that says what the others are.
pub(super) const HEAD: &str = "engine";
/// The section of rejected rows.
pub(super) const REJECTS: &str = "rejects";
/// Between two checkpoints lies at least so many times what the last one took.
const SPACING: u32 = 10;
/// And so many times as long as the epochs waited: fewer than one in a hundred waits at all.
const PAUSES_APART: u32 = 100;
/// How often it is looked whether one is done.
const LOOK_AGAIN: Duration = Duration::from_millis(5);
/// How much later one is tried that could not be made.
const LATER: Duration = Duration::from_millis(100);

/// When checkpoints are made.
#[derive(Debug, Clone, Copy)]
pub struct CheckpointPolicy {
    /// How long after the last one; None: never.
    pub every: Option<Duration>,
    /// One is made when the engine stops.
    pub at_stop: bool,
}

impl Default for CheckpointPolicy {
    fn default() -> Self {
        Self { every: Some(Duration::from_secs(10)), at_stop: true }
    }
}

/// The engine at an epoch, apart from the rows and the state of relations.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Head {
    pub(super) layout: u32,
    pub(super) epoch: Epoch,
    pub(super) now_ms: i64,
    /// The last entry of the journal that has come to pass.
    pub(super) revision: u64,
    /// Ticks that have been stepped.
    pub(super) ticks: Offset,
    /// Every relation there is; views say more.
    pub(super) relations: BTreeMap<RelationId, Option<ViewHead>>,
    pub(super) topics: BTreeMap<String, Vec<PartitionEnds>>,
    pub(super) rejected: u64,
    /// What several views have in common, each after those that it reads.
    #[serde(default)]
    pub(super) shared: Vec<SharedHead>,
}

/// A shared plan beside its state.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct SharedHead {
    pub(super) id: RelationId,
    pub(super) shards: usize,
}

/// A view beside its rows and its state.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct ViewHead {
    /// What the state belongs to: another plan has another state.
    pub(super) fingerprint: u64,
    pub(super) shards: usize,
    pub(super) rows_in: u64,
    pub(super) rows_out: u64,
    pub(super) busy_us: u64,
    pub(super) rejected: u64,
    pub(super) halt: Option<Halt>,
    pub(super) error: Option<String>,
    pub(super) over_limit: Option<u64>,
    pub(super) halted_at: Epoch,
    /// Rows out, rows taken back and microseconds of each operator.
    pub(super) work: Vec<(u64, u64, u64)>,
    /// The shared plans that it reads, directly or not, each with the node of its dataflow that is the same.
    #[serde(default)]
    pub(super) shared: Vec<(NodeId, RelationId)>,
}

/// The section with the rows of a table or a view.
pub(super) fn rows_section(id: RelationId) -> String {
    format!("{id:010}/rows")
}

/// The section with the state of a view's query, or of a shared plan.
pub(super) fn state_section(id: RelationId) -> String {
    format!("{id:010}/state")
}

/// A checkpoint on its way to the disk.
pub(super) struct Capture {
    epoch: Epoch,
    head: Vec<u8>,
    sections: Vec<(String, Image)>,
    /// Logs that queries write: on disk before this is.
    derived: Vec<String>,
    /// What the log need not keep once no older checkpoint is left.
    covers: Covers,
    pause: Duration,
    copied: usize,
}

/// Up to where a checkpoint makes the log's records dispensable.
#[derive(Debug, Clone, Default)]
pub(crate) struct Covers {
    pub(crate) revision: u64,
    /// The next offset of each partition of a log.
    pub(crate) ends: HashMap<String, Vec<Offset>>,
    pub(crate) ticks: Offset,
    /// Queries that stand still: they read everything again when they go on.
    pub(crate) standing: Vec<RelationId>,
}

impl Stepper {
    /// Copies everything, as it is after the last epoch; None while a query is on its way to its first
    /// result, or is about to go on.
    pub(super) fn capture(&mut self) -> Result<Option<Capture>> {
        let started = Instant::now();
        let makes = |target: &Target| !matches!(target, Target::Subscriber { .. });
        let rejoins = self.states.values().filter_map(State::view).any(|view| view.rejoins.is_some());
        if rejoins || self.building.iter().any(|(target, _)| makes(target)) {
            return Ok(None);
        }
        let states: Vec<_> = self.states.iter_mut().collect();
        let mut sections: Vec<(String, Image)> = states.into_par_iter().flat_map_iter(sections_of).collect();
        let read = self.plans_of_views();
        let shared: Vec<&mut SharedPlan> =
            self.shared.plans.iter_mut().filter(|plan| read.contains(&plan.id)).collect();
        let heads = shared.iter().map(|plan| SharedHead { id: plan.id, shards: plan.query.shards() });
        let heads = heads.collect();
        sections.par_extend(shared.into_par_iter().map(|plan| {
            let mut image = Image::default();
            spill::within(plan.spills, || plan.query.save(&mut image));
            (state_section(plan.id), image)
        }));
        let mut head = Head {
            layout: LAYOUT,
            epoch: self.epoch,
            now_ms: self.now_ms,
            revision: self.revision,
            ticks: self.ticks,
            relations: BTreeMap::new(),
            topics: BTreeMap::new(),
            rejected: self.rejects.count(),
            shared: heads,
        };
        for (id, state) in &self.states {
            let view = state.view().map(|view| ViewHead::of(view, self.shared.read_by(&view.query)));
            head.relations.insert(*id, view);
        }
        for (name, ends) in &self.topics {
            head.topics.insert(name.clone(), ends.partitions.clone());
        }
        let mut rejects = Image::default();
        rejects.later(self.rejects.encoded());
        sections.push((REJECTS.to_owned(), rejects));
        let copied = sections.iter().map(|(_, image)| image.copied()).sum();
        Ok(Some(Capture {
            epoch: self.epoch,
            head: serde_json::to_vec(&head).map_err(|e| Error::bug("checkpoint", e.to_string()))?,
            sections,
            derived: self.derived_logs(),
            covers: self.covers(),
            pause: started.elapsed(),
            copied,
        }))
    }

    fn derived_logs(&self) -> Vec<String> {
        let derived = self.catalog.iter().filter(|r| r.has_topic() && !r.is_base());
        derived.map(|relation| relation.log_name()).collect()
    }

    fn covers(&self) -> Covers {
        let mut ends: HashMap<String, Vec<Offset>> = HashMap::new();
        for partition in self.topics.values().flat_map(|topic| &topic.partitions) {
            for part in &partition.parts {
                ends.entry(part.log_name.to_string()).or_default().push(part.end);
            }
        }
        let standing = self.states.iter().filter(|(_, state)| state.view().is_some_and(View::stands));
        let standing = standing.map(|(id, _)| *id).collect();
        Covers { revision: self.revision, ends, ticks: self.ticks, standing }
    }
}

/// Rows and state of a relation.
fn sections_of((id, state): (&RelationId, &mut State)) -> Vec<(String, Image)> {
    let mut sections = Vec::new();
    let mut add = |name: String, save: &mut dyn FnMut(&mut Image)| {
        let mut image = Image::default();
        save(&mut image);
        sections.push((name, image));
    };
    if let Some(store) = state.store() {
        add(rows_section(*id), &mut |image| store.save(image));
    }
    if let State::View(view) = state {
        let spills = view.budget.spills();
        add(state_section(*id), &mut |image| spill::within(spills, || view.query.save(image)));
    }
    sections
}

impl ViewHead {
    fn of(view: &View, shared: Vec<(NodeId, RelationId)>) -> Self {
        let status = &view.status;
        let work = status.operators.iter().map(|o| (o.rows_out, o.rows_retracted, o.busy_us));
        Self {
            fingerprint: view.query.fingerprint(),
            shards: view.query.shards(),
            rows_in: status.rows_in,
            rows_out: status.rows_out,
            busy_us: status.busy_us,
            rejected: status.rejected,
            halt: status.halt,
            error: status.error.clone(),
            over_limit: status.over_limit,
            halted_at: view.halted_at,
            work: work.collect(),
            shared,
        }
    }
}

/// Puts a checkpoint on disk.
fn write(store: &mut CheckpointStore, log: &Arc<dyn Log>, capture: Capture) -> Result<Written> {
    capture.derived.iter().try_for_each(|topic| log.sync_topic(topic))?;
    let mut writer = store.begin(capture.epoch);
    for (name, image) in capture.sections {
        image.encode(|page| Ok(writer.page(&name, page)?))?;
    }
    for page in capture.head.chunks(storage::checkpoint::PAGE_BYTES) {
        writer.page(HEAD, page)?;
    }
    Ok(writer.commit()?)
}

/// What the writing thread tells when a checkpoint is done, or not.
struct Done {
    took: Duration,
    pause: Duration,
}

/// Makes checkpoints: decides when, and has a thread that writes them.
pub(crate) struct Checkpointer {
    policy: CheckpointPolicy,
    captures: Option<SyncSender<Capture>>,
    done: Receiver<Done>,
    thread: Option<JoinHandle<()>>,
    /// One is being written.
    busy: bool,
    /// When the last one was begun, and when it is time for the next one.
    begun: Instant,
    due: Instant,
    /// The epoch and the journal's entry of the last one.
    covered: (Epoch, u64),
}

/// What the thread writes with.
pub(crate) struct CheckpointTarget {
    pub(crate) store: CheckpointStore,
    pub(crate) log: Arc<dyn Log>,
    /// Where the commit thread is told what it may forget.
    pub(crate) requests: mpsc::WeakSender<Request>,
    pub(crate) statuses: Checkpoints,
    /// The epoch and the journal's entry of the checkpoint that the engine began from.
    pub(crate) covered: (Epoch, u64),
}

impl Checkpointer {
    /// Starts the thread.
    pub(crate) fn start(policy: CheckpointPolicy, target: CheckpointTarget) -> Result<Self> {
        let covered = target.covered;
        let (captures, receiver) = sync_channel(1);
        let (told, done) = sync_channel(1);
        let thread = Builder::new()
            .name("checkpoint".into())
            .spawn(move || write_all(target, &receiver, &told))
            .map_err(|e| Error::bug("start", e.to_string()))?;
        let begun = Instant::now();
        let due = begun + policy.every.unwrap_or_default();
        let (captures, thread) = (Some(captures), Some(thread));
        Ok(Self { policy, captures, done, thread, busy: false, begun, due, covered })
    }

    /// How long there is nothing to do; None: until something happens.
    pub(crate) fn wait(&self, stepper: &Stepper) -> Option<Duration> {
        self.policy.every?;
        if !self.busy && (stepper.epoch(), stepper.revision) == self.covered {
            return None;
        }
        Some(self.due.saturating_duration_since(Instant::now()).max(LOOK_AGAIN))
    }

    /// Makes a checkpoint if it is time for one.
    pub(crate) fn tend(&mut self, stepper: &mut Stepper) {
        let Some(every) = self.policy.every else { return };
        if let Ok(done) = self.done.try_recv() {
            self.busy = false;
            self.due = self.begun + every.max(done.took * SPACING).max(done.pause * PAUSES_APART);
        }
        let now = (stepper.epoch(), stepper.revision);
        if !self.busy && now != self.covered && Instant::now() >= self.due {
            self.make(stepper, now, every);
        }
    }

    fn make(&mut self, stepper: &mut Stepper, now: (Epoch, u64), every: Duration) {
        self.begun = Instant::now();
        self.due = self.begun + every;
        match stepper.capture() {
            Ok(Some(capture)) => {
                let sent = self.captures.as_ref().is_some_and(|captures| captures.send(capture).is_ok());
                (self.busy, self.covered) = (sent, now);
            }
            // A query is on its way.
            Ok(None) => self.due = self.begun + every.min(LATER),
            Err(error) => tracing::error!(%error, "could not make a checkpoint"),
        }
    }

    /// Makes a last one, and waits until it is there: the next start has nothing to step again.
    pub(crate) fn finish(mut self, stepper: &mut Stepper) {
        let now = (stepper.epoch(), stepper.revision);
        if let Some(every) = self.policy.every.filter(|_| self.policy.at_stop && now != self.covered) {
            if self.busy && self.done.recv().is_ok() {
                self.busy = false;
            }
            self.make(stepper, now, every);
        }
        self.captures = None;
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the checkpoint thread panicked");
        }
    }
}

fn write_all(mut target: CheckpointTarget, captures: &Receiver<Capture>, told: &SyncSender<Done>) {
    // What the checkpoint before makes dispensable: this one might be damaged.
    let mut before: Option<Covers> = None;
    while let Ok(capture) = captures.recv() {
        let started = Instant::now();
        let (epoch, pause, copied) = (capture.epoch, capture.pause, capture.copied);
        let covers = capture.covers.clone();
        match write(&mut target.store, &target.log, capture) {
            Ok(written) => {
                let took = started.elapsed();
                tracing::debug!(epoch, ?written, ?pause, ?took, copied, "checkpoint");
                target.statuses.push(CheckpointStatus { epoch, written, pause, took, copied });
                if let (Some(before), Some(requests)) = (before.replace(covers), target.requests.upgrade()) {
                    // A queue that is full gets the next one.
                    let _ = requests.try_send(Request::Covered(before));
                }
            }
            Err(error) => tracing::error!(%error, epoch, "could not write a checkpoint"),
        }
        if told.send(Done { took: started.elapsed(), pause }).is_err() {
            return;
        }
    }
}
