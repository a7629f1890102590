//! The engine: one thread that commits epochs to the log, one that steps them through the queries.
//!
//! ```text
//!  append, DDL, FLUSH ─► commit thread ─► step thread ─► snapshot, subscribers
//!                         log + journal     operators
//! ```
//! Everything passes both threads in one order, so a DDL statement lies between two epochs, on
//! the first run and on every replay. An append is acknowledged when its epoch is on disk; a
//! reader that needs to see it waits for the snapshot of that epoch.

mod backfill;
mod budget;
mod checkpoint;
mod checkpoints;
mod commit;
mod creation;
mod feed;
mod flow;
mod frames;
mod history;
mod lifecycle;
mod memory;
mod meta;
mod recovery;
mod relations;
mod restore;
mod shared_plans;
mod snapshot;
mod step;
mod ticks;
mod topics;
mod view;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;
use planner::{AccessChange, Catalog, Comment, Dataflow, Relation, RelationId};
use storage::backup::Copied;
use storage::log::Log;
use storage::{Clock, Epoch, Fs};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

pub use backfill::Progress;
pub use budget::SPILLED;
pub use checkpoint::CheckpointPolicy;
pub use checkpoints::{CheckpointStatus, Checkpoints};
pub(crate) use feed::Feed;
pub(crate) use history::{StreamReader, with_values};
pub use meta::Halt;
pub use snapshot::{QueryStatus, Snapshot};

use crate::error::{Error, Result};
use crate::ingest::Write;
use crate::push::Subscription;
use crate::rejects::{CodeOf, RejectRetention, Rejects};
use checkpoint::CheckpointTarget;
use commit::{AppendRequest, Change, DdlRequest, RejoinWith, Request, SubscribeRequest};
use memory::MemoryLimit;

/// Statements that may wait for the commit thread.
const QUEUE: usize = 4096;
/// Memory that rows may take between a statement and the end of its epoch's step, in KiB.
const IN_FLIGHT_KIB: usize = 1 << 20;

/// How the engine runs.
#[derive(Clone)]
pub struct EngineConfig {
    /// Where everything is kept.
    pub data_dir: PathBuf,
    /// The disk.
    pub fs: Arc<dyn Fs>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Parts of each query's state that are stepped in parallel.
    pub shards: usize,
    /// Length of a log segment in bytes.
    pub segment_bytes: u64,
    /// Most bytes of a query's state and rows, where its statement does not say.
    pub memory_limit: Option<u64>,
    /// Most bytes of all that is kept.
    pub kept_limit: Option<u64>,
    /// How long rejected rows are kept.
    pub rejects: RejectRetention,
    /// When checkpoints are made.
    pub checkpoints: CheckpointPolicy,
    /// How clients call an error: checkpoints keep it of what was rejected.
    pub code_of: Option<CodeOf>,
}

/// The acknowledgement of an append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt {
    /// The epoch that holds the rows; they are on disk.
    pub epoch: Epoch,
}

/// A running engine.
pub struct Engine {
    requests: mpsc::Sender<Request>,
    snapshots: watch::Receiver<Arc<Snapshot>>,
    in_flight: Arc<Semaphore>,
    next_id: AtomicU32,
    /// The newest epoch that a writer has been told of.
    acknowledged: AtomicU64,
    ddl: tokio::sync::Mutex<()>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    log: Arc<dyn Log>,
    rejects: Rejects,
    checkpoints: Checkpoints,
    memory: MemoryLimit,
    clock: Arc<dyn Clock>,
    started_ms: i64,
    shards: usize,
    /// Held for as long as the engine runs.
    _lock: storage::DirLock,
}

/// Ends what runs beside it when it is dropped.
#[derive(Default)]
struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Leave to change the catalog: one at a time.
pub struct DdlTurn<'a> {
    engine: &'a Engine,
    _guard: tokio::sync::MutexGuard<'a, ()>,
}

impl Engine {
    /// Opens the data directory, recovers, and starts the threads.
    ///
    /// # Errors
    /// A directory in use, and damage that would lose acknowledged data.
    pub fn start(config: &EngineConfig) -> Result<Self> {
        let lock = storage::DirLock::acquire(config.fs.as_ref(), &config.data_dir)?;
        storage::backup::clean(config.fs.as_ref(), &config.data_dir)?;
        spill::lie_in(&config.data_dir.join(SPILLED));
        let recovered = recovery::recover(config)?;
        let (sender, receiver) = mpsc::channel(QUEUE);
        let (publish, snapshots) = watch::channel(Arc::new(recovered.stepper.snapshot()));
        let rejects = recovered.stepper.rejects().clone();
        let memory = recovered.stepper.memory().clone();
        let checkpoints = Checkpoints::default();
        let target = CheckpointTarget {
            store: recovered.checkpoints,
            log: Arc::clone(&recovered.committer.log),
            requests: sender.downgrade(),
            statuses: checkpoints.clone(),
            covered: recovered.covered,
        };
        let log = Arc::clone(&target.log);
        let (committer, stepper) = (recovered.committer, recovered.stepper);
        let requests = (sender.downgrade(), receiver);
        let threads = commit::spawn(committer, stepper, requests, publish, (config.checkpoints, target))?;
        Ok(Self {
            requests: sender,
            snapshots,
            in_flight: Arc::new(Semaphore::new(IN_FLIGHT_KIB)),
            next_id: AtomicU32::new(recovered.next_id),
            acknowledged: AtomicU64::new(0),
            ddl: tokio::sync::Mutex::new(()),
            threads: Mutex::new(threads),
            log,
            rejects,
            checkpoints,
            memory,
            clock: Arc::clone(&config.clock),
            started_ms: config.clock.now_ms(),
            shards: config.shards,
            _lock: lock,
        })
    }

    /// The newest published epoch.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.snapshots.borrow())
    }

    /// The newest epoch that any writer has been told of: who reads a base relation waits for it, so
    /// that what one session was promised another one sees.
    pub fn acknowledged(&self) -> Epoch {
        self.acknowledged.load(Ordering::SeqCst)
    }

    /// The newest snapshot that holds `epoch`, when there is one.
    ///
    /// # Errors
    /// [`Error::Stale`] after `limit`.
    pub async fn snapshot_at(&self, epoch: Epoch, limit: Duration) -> Result<Arc<Snapshot>> {
        let mut snapshots = self.snapshots.clone();
        let reached = tokio::time::timeout(limit, snapshots.wait_for(|s| s.epoch >= epoch)).await;
        match reached {
            Ok(Ok(snapshot)) => Ok(Arc::clone(&snapshot)),
            Ok(Err(_)) => Err(Error::ShuttingDown),
            Err(_) => Err(Error::Stale { epoch }),
        }
    }

    /// The catalog as of now.
    pub fn catalog(&self) -> Arc<Catalog> {
        Arc::clone(&self.snapshot().catalog)
    }

    /// When it started, ms since 1970.
    pub fn started_ms(&self) -> i64 {
        self.started_ms
    }

    /// Now, ms since 1970.
    pub fn now_ms(&self) -> i64 {
        self.clock.now_ms()
    }

    /// Rows that could not be used.
    pub fn rejects(&self) -> &Rejects {
        &self.rejects
    }

    /// How the last checkpoints went.
    pub fn checkpoints(&self) -> &Checkpoints {
        &self.checkpoints
    }

    /// Appends rows to any number of relations as one atom. Returns when they are on disk.
    ///
    /// # Errors
    /// [`Error::NoMemory`], any of the disk; then none of the rows are there.
    pub async fn append(&self, writes: Vec<Write>) -> Result<Receipt> {
        if let Some(growing) = writes.iter().find(|write| write.adds_to_table())
            && let Some(limit) = self.memory.reached_with(0)
        {
            return Err(Error::NoMemory { relation: growing.relation_name().to_owned(), limit });
        }
        // What is damaged takes no more.
        let snapshot = self.snapshot();
        writes.iter().try_for_each(|write| snapshot.check(write.relation_id()))?;
        let bytes: usize = writes.iter().map(Write::bytes).sum();
        let kib = u32::try_from((bytes / 1024).clamp(1, IN_FLIGHT_KIB)).unwrap_or(u32::MAX);
        let permit =
            Arc::clone(&self.in_flight).acquire_many_owned(kib).await.map_err(|_| Error::ShuttingDown)?;
        let (reply, answer) = oneshot::channel();
        self.send(Request::Append(AppendRequest { writes, bytes, permit, reply })).await?;
        let epoch = answer.await.map_err(|_| Error::ShuttingDown)??;
        self.acknowledged.fetch_max(epoch, Ordering::SeqCst);
        Ok(Receipt { epoch })
    }

    /// Waits until everything acknowledged before is processed and visible; returns its epoch.
    ///
    /// # Errors
    /// [`Error::ShuttingDown`].
    pub async fn flush(&self) -> Result<Epoch> {
        let (reply, answer) = oneshot::channel();
        self.send(Request::Flush(reply)).await?;
        answer.await.map_err(|_| Error::ShuttingDown)
    }

    /// Copies the data directory as it is now, while everything goes on. Returns when the copy is on disk, with
    /// its epoch: everything acknowledged before the call is in it, and nothing in halves.
    ///
    /// # Errors
    /// A target that is not empty, and any of the disk; then there is no copy.
    pub async fn backup(&self, target: PathBuf) -> Result<(Epoch, Copied)> {
        let (reply, answer) = oneshot::channel();
        self.send(Request::Capture(reply)).await?;
        let (epoch, capture) = answer.await.map_err(|_| Error::ShuttingDown)??;
        // Dropped with this call, when nobody waits for it any more.
        let stop = StopOnDrop::default();
        let stopped = Arc::clone(&stop.0);
        let copied = tokio::task::spawn_blocking(move || capture.write(&target, &stopped)).await;
        Ok((epoch, copied.map_err(|e| Error::bug("backup", e.to_string()))??))
    }

    /// Starts a push query.
    ///
    /// # Errors
    /// Expressions that do not compile.
    pub async fn subscribe(
        &self,
        dataflow: Arc<Dataflow>,
        snapshot: bool,
        progress: bool,
    ) -> Result<Subscription> {
        let query = crate::query::Query::try_new(dataflow, self.shards)?;
        let (reply, answer) = oneshot::channel();
        self.send(Request::Subscribe(SubscribeRequest { query, snapshot, progress, reply })).await?;
        answer.await.map_err(|_| Error::ShuttingDown)?
    }

    /// Waits for the turn to change the catalog.
    pub async fn ddl(&self) -> DdlTurn<'_> {
        DdlTurn { engine: self, _guard: self.ddl.lock().await }
    }

    /// Drains what was accepted and stops the threads.
    pub async fn stop(&self) {
        // Nothing waits for room on the disk any longer.
        self.log.close();
        // A full or closed queue means the thread is on its way out already.
        let _ = self.requests.send(Request::Stop).await;
        let threads = std::mem::take(&mut *self.threads.lock());
        let joined = tokio::task::spawn_blocking(move || {
            for thread in threads {
                if thread.join().is_err() {
                    tracing::error!("an engine thread panicked");
                }
            }
        });
        if joined.await.is_err() {
            tracing::error!("could not wait for the engine threads");
        }
    }

    async fn send(&self, request: Request) -> Result<()> {
        self.requests.send(request).await.map_err(|_| Error::ShuttingDown)
    }
}

impl DdlTurn<'_> {
    /// The catalog to plan against.
    pub fn catalog(&self) -> Arc<Catalog> {
        self.engine.catalog()
    }

    /// The id of the next relation.
    pub fn next_id(&self) -> RelationId {
        self.engine.next_id.fetch_add(1, Ordering::SeqCst)
    }

    /// Makes a relation, durable on return; a view's first result is complete then.
    ///
    /// # Errors
    /// Expressions that do not compile (then nothing is made), and any of the disk.
    pub async fn create(&self, relation: Relation) -> Result<()> {
        if let Some(dataflow) = relation.dataflow() {
            crate::query::Query::try_new(Arc::clone(dataflow), self.engine.shards)?;
        }
        let relation = Arc::new(relation);
        if self.catalog().shares_topic(&relation) {
            // Others are on its topic: it is computed beside them, and comes to them in one epoch.
            self.rebuild(&relation).await?;
        }
        self.change(Change::Create(relation)).await
    }

    /// Removes relations; with `delete_topics` also topics that were named and that nobody else is on.
    ///
    /// # Errors
    /// Any of the disk.
    pub async fn drop(&self, relations: Vec<Arc<Relation>>, delete_topics: bool) -> Result<()> {
        self.change(Change::Drop(relations, delete_topics)).await
    }

    /// Gives a relation another name, durable on return.
    ///
    /// # Errors
    /// Any of the disk.
    pub async fn rename(&self, id: RelationId, name: String) -> Result<()> {
        self.change(Change::Rename(id, name)).await
    }

    /// Changes who may do what, durable on return.
    ///
    /// # Errors
    /// Any of the disk.
    pub async fn allow(&self, change: AccessChange) -> Result<()> {
        self.change(Change::Access(change)).await
    }

    /// Says something of a relation, durable on return.
    ///
    /// # Errors
    /// Any of the disk.
    pub async fn comment(&self, comment: Comment) -> Result<()> {
        self.change(Change::Comment(comment)).await
    }

    /// Stops a view's query; its rows stay as they are.
    ///
    /// # Errors
    /// Any of the disk.
    pub async fn halt(&self, relation: Arc<Relation>, halt: Halt) -> Result<()> {
        self.change(Change::Halt(relation, halt)).await
    }

    /// Lets a view that stands still or has failed go on: computed again beside everything else, it
    /// changes in one epoch to what it should be.
    ///
    /// # Errors
    /// What its query fails with, and any of the disk; the view is then as before.
    pub async fn resume(&self, relation: Arc<Relation>) -> Result<()> {
        self.rejoin(relation, RejoinWith::ItsQuery).await
    }

    /// Gives a view another query, in the same way. `relation` has the id of the view.
    ///
    /// # Errors
    /// As [`Self::resume`].
    pub async fn replace(&self, relation: Arc<Relation>) -> Result<()> {
        self.rejoin(relation, RejoinWith::AnotherQuery).await
    }

    async fn rejoin(&self, relation: Arc<Relation>, with: RejoinWith) -> Result<()> {
        self.rebuild(&relation).await?;
        self.change(Change::Rejoin(relation, with)).await
    }

    /// Computes a query beside everything else; what it brings waits for the journal's word.
    async fn rebuild(&self, relation: &Arc<Relation>) -> Result<()> {
        if relation.dataflow().is_none() {
            return Ok(());
        }
        let (reply, answer) = oneshot::channel();
        self.engine.send(Request::Rebuild(Arc::clone(relation), reply)).await?;
        answer.await.map_err(|_| Error::ShuttingDown)?
    }

    async fn change(&self, change: Change) -> Result<()> {
        let (reply, answer) = oneshot::channel();
        self.engine.send(Request::Ddl(DdlRequest { change, reply })).await?;
        answer.await.map_err(|_| Error::ShuttingDown)?
    }
}
