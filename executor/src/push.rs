//! Push queries: a running query whose changes go to one reader.
//!
//! The engine never waits for a reader. What a reader does not take is kept as net changes up to a
//! bound; beyond it the reader is cut off with an error that says so.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use datafusion::arrow::datatypes::SchemaRef;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use crate::change::{ChangeBatch, consolidate};
use crate::error::{Error, Result};
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

const OPEN: u8 = 0;
const SLOW: u8 = 1;
const DROPPED: u8 = 2;
const FAILED: u8 = 3;

/// The reader's end.
#[derive(Debug)]
pub struct Subscription {
    /// The layout of the rows.
    pub schema: SchemaRef,
    /// Columns that name a row.
    pub key: Vec<usize>,
    /// Rows only ever come.
    pub append_only: bool,
    items: mpsc::Receiver<PushItem>,
    ended: Arc<AtomicU8>,
}

impl Subscription {
    /// The next changes; None when the server stops.
    ///
    /// # Errors
    /// [`Error::SlowReader`], [`Error::Dropped`].
    pub async fn next(&mut self) -> Option<Result<PushItem>> {
        if let Some(item) = self.items.recv().await {
            return Some(Ok(item));
        }
        match self.ended.load(Ordering::SeqCst) {
            SLOW => Some(Err(Error::SlowReader { limit: PENDING_ROWS })),
            DROPPED => Some(Err(Error::Dropped("read by this query".into()))),
            FAILED => Some(Err(Error::QueryFailed {
                relation: "push query".into(),
                reason: "a step failed".into(),
            })),
            _ => None,
        }
    }
}

/// The engine's end.
pub(crate) struct Subscriber {
    pub(crate) query: Query,
    schema: SchemaRef,
    pending: Vec<ChangeBatch>,
    progress: bool,
    items: mpsc::Sender<PushItem>,
    ended: Arc<AtomicU8>,
}

/// Why a reader is cut off.
pub(crate) enum End {
    Dropped,
    Failed,
}

impl Subscriber {
    /// A pair of ends for a query. With `progress` the reader also hears of epochs without change.
    pub(crate) fn new(query: Query, progress: bool) -> (Self, Subscription) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let ended = Arc::new(AtomicU8::new(OPEN));
        let dataflow = query.dataflow();
        let schema = Arc::clone(dataflow.schema().inner());
        let subscription = Subscription {
            schema: Arc::clone(&schema),
            key: dataflow.key.clone(),
            append_only: dataflow.append_only,
            items: receiver,
            ended: Arc::clone(&ended),
        };
        (Self { query, schema, pending: Vec::new(), progress, items: sender, ended }, subscription)
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
        match self.items.try_send(PushItem { epoch, changes: std::mem::take(&mut self.pending) }) {
            Ok(()) => true,
            Err(TrySendError::Closed(_)) => false,
            Err(TrySendError::Full(item)) => {
                self.pending = item.changes;
                let keep = self.rows() <= PENDING_ROWS;
                if !keep {
                    self.ended.store(SLOW, Ordering::SeqCst);
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

    pub(crate) fn end(self, why: &End) {
        let code = match why {
            End::Dropped => DROPPED,
            End::Failed => FAILED,
        };
        self.ended.store(code, Ordering::SeqCst);
    }

    fn rows(&self) -> usize {
        self.pending.iter().map(ChangeBatch::len).sum()
    }
}
