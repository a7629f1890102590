//! Push queries: a running query whose changes go to one reader.
//!
//! The engine never waits for a reader. What a reader does not take is kept as net changes up to a
//! bound; beyond it the reader is cut off with an error that says so.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use datafusion::arrow::datatypes::SchemaRef;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use crate::change::{ChangeBatch, consolidate};
use crate::engine::Feed;
use crate::error::{Error, Result};
use crate::layout::own_bytes;
use crate::query::Query;

/// Items between the engine and a reader.
const QUEUE: usize = 16;
/// Rows that may wait for a reader.
pub(crate) const PENDING_ROWS: usize = 1 << 20;

/// What happened in one epoch, or in several that the reader was too slow for.
#[derive(Debug, Clone)]
pub struct PushItem {
    /// The last epoch in it.
    pub epoch: u64,
    /// Net changes; empty for an epoch without any.
    pub changes: Vec<ChangeBatch>,
}

impl PushItem {
    /// Memory of its rows, as if nobody else had them.
    fn bytes(&self) -> u64 {
        bytes_of(&self.changes)
    }
}

fn bytes_of(changes: &[ChangeBatch]) -> u64 {
    changes.iter().map(|batch| own_bytes(&batch.rows) as u64).sum()
}

/// Why a reader is cut off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum End {
    /// It took too little.
    Slow,
    /// What it watches is gone.
    Dropped,
    /// A step failed, for this reason.
    Failed(String),
    /// Its state would be more than this many bytes.
    OutOfMemory(u64),
}

impl End {
    fn error(&self) -> Error {
        let relation = || "a push query".to_owned();
        match self {
            Self::Slow => Error::SlowReader { limit: PENDING_ROWS },
            Self::Dropped => Error::Dropped("read by this query".into()),
            Self::Failed(reason) => Error::QueryFailed { relation: relation(), reason: reason.clone() },
            Self::OutOfMemory(limit) => Error::MemoryLimit { relation: relation(), limit: *limit },
        }
    }
}

/// The reader's end.
#[derive(Debug)]
pub struct Subscription {
    /// The layout of the rows.
    pub schema: SchemaRef,
    /// Columns that name a row.
    pub key: Vec<usize>,
    /// Rows only ever come.
    pub append_only: bool,
    /// What was there before.
    feed: Option<Box<Feed>>,
    items: mpsc::Receiver<PushItem>,
    /// Bytes of the items between the engine and the reader.
    queued: Arc<AtomicU64>,
    ended: Arc<OnceLock<End>>,
}

impl Subscription {
    /// The next changes; None when the server stops.
    ///
    /// # Errors
    /// [`Error::SlowReader`], [`Error::Dropped`], [`Error::QueryFailed`], [`Error::MemoryLimit`]; of its history
    /// what the disk and the query say.
    pub async fn next(&mut self) -> Option<Result<PushItem>> {
        if let Some(feed) = &mut self.feed {
            match feed.next() {
                Ok(Some(item)) => return Some(Ok(item)),
                Ok(None) => self.feed = None,
                // A stream that was dropped has no records either.
                Err(error) => return Some(Err(self.ended.get().map_or(error, End::error))),
            }
        }
        if let Some(item) = self.items.recv().await {
            self.queued.fetch_sub(item.bytes(), Ordering::Relaxed);
            return Some(Ok(item));
        }
        self.ended.get().map(|why| Err(why.error()))
    }

    /// The same after a history.
    pub(crate) fn after(self, feed: Feed) -> Self {
        Self { feed: Some(Box::new(feed)), ..self }
    }
}

/// The engine's end.
pub(crate) struct Subscriber {
    pub(crate) query: Query,
    /// Each row of its result comes of one row: two with the same query get the same changes.
    pub(crate) row_by_row: bool,
    schema: SchemaRef,
    pending: Vec<ChangeBatch>,
    progress: bool,
    items: mpsc::Sender<PushItem>,
    queued: Arc<AtomicU64>,
    ended: Arc<OnceLock<End>>,
}

impl Subscriber {
    /// A pair of ends for a query. With `progress` the reader also hears of epochs without change.
    pub(crate) fn new(query: Query, progress: bool) -> (Self, Subscription) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let (ended, queued) = (Arc::new(OnceLock::new()), Arc::new(AtomicU64::new(0)));
        let dataflow = query.dataflow();
        let schema = Arc::clone(dataflow.schema().inner());
        let subscription = Subscription {
            schema: Arc::clone(&schema),
            key: dataflow.key.clone(),
            append_only: dataflow.append_only,
            feed: None,
            items: receiver,
            queued: Arc::clone(&queued),
            ended: Arc::clone(&ended),
        };
        let pending = Vec::new();
        let row_by_row = Feed::is_possible(query.dataflow());
        (Self { query, row_by_row, schema, pending, progress, items: sender, queued, ended }, subscription)
    }

    /// Hands over changes. False when the reader is gone or cut off.
    pub(crate) fn send(&mut self, epoch: u64, changes: Vec<ChangeBatch>) -> bool {
        if changes.is_empty() && self.pending.is_empty() && !self.progress {
            return !self.items.is_closed();
        }
        let behind = !self.pending.is_empty();
        self.pending.extend(changes);
        if behind {
            let schema = self.pending.first().map_or_else(|| Arc::clone(&self.schema), |b| b.rows.schema());
            if self.items.capacity() > 0 || self.rows() > PENDING_ROWS / 2 {
                match consolidate(&schema, std::mem::take(&mut self.pending)) {
                    Ok(net) => self.pending = net,
                    Err(_) => return false,
                }
            }
        }
        let item = PushItem { epoch, changes: std::mem::take(&mut self.pending) };
        let bytes = item.bytes();
        self.queued.fetch_add(bytes, Ordering::Relaxed);
        match self.items.try_send(item) {
            Ok(()) => true,
            Err(TrySendError::Closed(_)) => false,
            Err(TrySendError::Full(item)) => {
                self.queued.fetch_sub(bytes, Ordering::Relaxed);
                self.pending = item.changes;
                let keep = self.rows() <= PENDING_ROWS;
                if !keep {
                    self.cut_off(End::Slow);
                }
                keep
            }
        }
    }

    /// Sends what is still waiting, if there is room now. False when the reader is gone.
    pub(crate) fn retry(&mut self, epoch: u64) -> bool {
        self.pending.is_empty() || self.send(epoch, Vec::new())
    }

    pub(crate) fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Ends it; its reader is told why.
    pub(crate) fn end(self, why: End) {
        self.cut_off(why);
    }

    fn cut_off(&self, why: End) {
        // The first reason counts.
        let _ = self.ended.set(why);
    }

    /// Bytes of its query's state, and of what waits for a reader who is behind.
    pub(crate) fn bytes(&self) -> u64 {
        let state = self.query.state_bytes() as u64;
        if self.pending.is_empty() {
            return state;
        }
        state + bytes_of(&self.pending) + self.queued.load(Ordering::Relaxed)
    }

    fn rows(&self) -> usize {
        self.pending.iter().map(ChangeBatch::len).sum()
    }
}
