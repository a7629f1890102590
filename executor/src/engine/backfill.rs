//! The first result of a new query, computed beside the step thread while epochs go on.
//!
//! What is there at one epoch is pinned (tables by version, streams by offset) and run through the
//! query on a thread of its own; epochs that come meanwhile are kept, and taken once the first result
//! is there. Invariant: the query has then seen every epoch once, in order, as if nobody had hurried.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::thread::Builder;

use storage::Epoch;

use super::history::{EpochMerge, READ_BYTES, StreamReader};
use super::memory::Allowance;
use crate::change::{ChangeBatch, consolidate};
use crate::error::{Error, Result};
use crate::layout::own_bytes;
use crate::operator::Changes;
use crate::query::{EpochChanges, Query};
use crate::rejects::StepRejects;

/// Rows fed to a new query at a time.
const BACKFILL_ROWS: usize = 256 * 1024;
/// Rows of epochs kept for a query that is still at its first result; with more, the others wait.
const MISSED_ROWS: usize = 4 << 20;

/// How far a first result is.
#[derive(Debug, Default)]
pub struct Progress {
    /// Rows done.
    pub done: AtomicU64,
    /// Rows there are.
    pub total: u64,
}

/// What a new query has to read, at one epoch.
pub(super) struct Backfill {
    pub(super) tables: EpochChanges,
    pub(super) streams: Vec<StreamReader>,
    pub(super) progress: Arc<Progress>,
    pub(super) allowance: Allowance,
    /// A stream that goes on: it has the rows of this epoch and of those before.
    pub(super) since: Option<Epoch>,
}

impl Backfill {
    /// The result: tables as they are, streams in the order of their epochs.
    pub(super) fn run(self, query: &mut Query, now_ms: i64, rejects: &mut StepRejects) -> Result<Changes> {
        let Self { tables, streams, progress, mut allowance, mut since } = self;
        let batches = || tables.values().flat_map(|c| c.iter());
        let rows: usize = batches().map(ChangeBatch::len).sum();
        // Tables come as a whole: state is about as large as they are.
        let bytes: usize = batches().map(|batch| own_bytes(&batch.rows)).sum();
        allowance.own.prepare(&allowance.relation, bytes as u64);
        let mut out = step(query, &tables, now_ms, rejects, &allowance)?;
        progress.done.fetch_add(rows as u64, Ordering::Relaxed);
        check_memory(&mut allowance, query, &out)?;
        let by_epoch = query.needs_epochs();
        let mut history = EpochMerge::new(streams.iter().map(|stream| &stream.topic), READ_BYTES);
        let mut pending = EpochChanges::new();
        let (mut rows, mut unweighed) = (0, 0);
        while let Some(epoch) = history.next_epoch()? {
            if since.take_if(|since| epoch.epoch > *since).is_some() {
                step(query, &std::mem::take(&mut pending), now_ms, rejects, &allowance)?;
                out.clear();
                (rows, *rejects) = (0, StepRejects::default());
            }
            for (stream, arrival) in &epoch.arrivals {
                rows += arrival.rows();
                let all = pending.entry(streams[*stream].relation.id).or_default();
                Arc::make_mut(all).extend(streams[*stream].changes(arrival, (epoch.epoch, epoch.now_ms))?);
            }
            if by_epoch || rows >= BACKFILL_ROWS {
                // Where epochs count, so do their times: a source that was idle was idle then.
                let at_ms = if by_epoch { epoch.now_ms } else { now_ms };
                out.extend(step(query, &std::mem::take(&mut pending), at_ms, rejects, &allowance)?);
                progress.done.fetch_add(rows as u64, Ordering::Relaxed);
                unweighed += std::mem::take(&mut rows);
                if unweighed >= BACKFILL_ROWS {
                    unweighed = 0;
                    check_memory(&mut allowance, query, &out)?;
                }
            }
        }
        out.extend(step(query, &pending, now_ms, rejects, &allowance)?);
        if since.is_some() {
            // Nothing has come since.
            (out, *rejects) = (Vec::new(), StepRejects::default());
        }
        progress.done.fetch_add(rows as u64, Ordering::Relaxed);
        match out.first().map(|b| b.rows.schema()) {
            Some(schema) => spill::within(allowance.own.spills(), || consolidate(&schema, out)),
            None => Ok(out),
        }
    }
}

fn step(
    query: &mut Query,
    changes: &EpochChanges,
    now_ms: i64,
    rejects: &mut StepRejects,
    allowance: &Allowance,
) -> Result<Changes> {
    spill::within(allowance.own.spills(), || query.step(changes, now_ms, rejects))
}

fn check_memory(allowance: &mut Allowance, query: &Query, out: &Changes) -> Result<()> {
    let rows: usize = out.iter().map(|batch| own_bytes(&batch.rows)).sum();
    allowance.check(query.state_bytes() + rows)
}

/// A first result.
pub(super) struct Built {
    pub(super) query: Query,
    pub(super) result: Result<Changes>,
    pub(super) rejects: StepRejects,
    /// Time it took, µs.
    pub(super) busy_us: u64,
}

/// An epoch that went by meanwhile.
pub(super) struct Missed {
    pub(super) epoch: Epoch,
    pub(super) now_ms: i64,
    pub(super) changes: EpochChanges,
}

/// A query on its way to its first result.
pub(super) struct Building {
    /// The epoch of the first result, and its clock.
    pub(super) at: (Epoch, i64),
    pub(super) missed: Vec<Missed>,
    pub(super) progress: Arc<Progress>,
    missed_rows: usize,
    sources: Vec<planner::RelationId>,
    /// Every epoch counts, for its time.
    timed: bool,
    built: Receiver<Built>,
}

impl Building {
    /// Starts the thread.
    pub(super) fn start(mut query: Query, backfill: Backfill, at: (Epoch, i64)) -> Result<Self> {
        let (sender, built) = sync_channel(1);
        let (sources, timed) = (query.sources().to_vec(), query.is_timed());
        let progress = Arc::clone(&backfill.progress);
        let run = move || {
            let started = std::time::Instant::now();
            let mut rejects = StepRejects::default();
            let result = catch_unwind(AssertUnwindSafe(|| backfill.run(&mut query, at.1, &mut rejects)))
                .unwrap_or_else(|_| Err(Error::bug("backfill", "it panicked")));
            let busy_us = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
            // Whoever waited may be gone with the engine.
            let _ = sender.send(Built { query, result, rejects, busy_us });
        };
        Builder::new()
            .name("backfill".into())
            .spawn(run)
            .map_err(|e| Error::bug("backfill", e.to_string()))?;
        Ok(Self { at, missed: Vec::new(), progress, missed_rows: 0, sources, timed, built })
    }

    /// Whether the query reads a relation.
    pub(super) fn reads(&self, id: planner::RelationId) -> bool {
        self.sources.contains(&id)
    }

    /// Keeps an epoch's changes for later.
    pub(super) fn miss(&mut self, epoch: Epoch, now_ms: i64, changes: &EpochChanges) {
        let own: EpochChanges =
            self.sources.iter().filter_map(|id| changes.get(id).map(|c| (*id, Arc::clone(c)))).collect();
        if self.timed || !own.is_empty() {
            self.missed_rows += own.values().flat_map(|c| c.iter()).map(ChangeBatch::len).sum::<usize>();
            self.missed.push(Missed { epoch, now_ms, changes: own });
        }
    }

    /// Whether more has been missed than may be kept.
    pub(super) fn is_behind(&self) -> bool {
        self.missed_rows > MISSED_ROWS
    }

    /// The first result, once it is there; waits for it when too much has been missed.
    pub(super) fn built(&self) -> Option<Result<Built>> {
        if self.is_behind() {
            return Some(self.wait());
        }
        match self.built.try_recv() {
            Ok(built) => Some(Ok(built)),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => Some(self.wait()),
        }
    }

    /// The first result, however long it takes.
    pub(super) fn wait(&self) -> Result<Built> {
        self.built.recv().map_err(|_| Error::bug("backfill", "its thread is gone"))
    }
}
