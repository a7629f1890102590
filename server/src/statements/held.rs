//! Rows that a statement holds until it writes them: no more than one statement may hold, and within the memory that
//! questions share.
//!
//! Invariant: a statement whose rows have no end ends with an error, or when it is cancelled, and takes nobody with it.

use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::compute::concat_batches;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use executor::{Answer, own_bytes};
use futures::StreamExt;

use crate::pg::WireError;
use crate::session::{PENDING_BYTES, Session, too_large};

/// What a statement has taken of the memory that questions share; it is given back when this is dropped.
pub(super) struct Held {
    what: &'static str,
    reservation: MemoryReservation,
}

impl Held {
    /// For the rows of a statement, which is called `what`.
    pub(super) fn new(session: &Session, what: &'static str) -> Self {
        let pool = Arc::clone(&session.shared.state.runtime_env().memory_pool);
        Self { what, reservation: MemoryConsumer::new(what).register(&pool) }
    }

    /// Takes as many bytes more.
    pub(super) fn grow(&mut self, bytes: usize) -> Result<(), WireError> {
        if self.reservation.size() + bytes > PENDING_BYTES {
            return Err(too_large(self.what));
        }
        Ok(self.reservation.try_grow(bytes)?)
    }
}

/// All rows of an answer, which may have no end.
pub(super) async fn all_rows(
    session: &Session,
    what: &'static str,
    answer: Answer,
) -> Result<RecordBatch, WireError> {
    let mut held = Held::new(session, what);
    collected(answer, |batch| held.grow(own_bytes(batch))).await
}

/// All rows of an answer, no more than a table or a statement has already: who removes rows is not out of memory.
pub(super) async fn no_more_rows(answer: Answer) -> Result<RecordBatch, WireError> {
    collected(answer, |_| Ok(())).await
}

async fn collected(
    mut answer: Answer,
    mut take: impl FnMut(&RecordBatch) -> Result<(), WireError>,
) -> Result<RecordBatch, WireError> {
    let mut batches = Vec::new();
    while let Some(batch) = answer.rows.next().await.transpose()? {
        take(&batch)?;
        batches.push(batch);
        // One that never waits could not be cancelled.
        tokio::task::yield_now().await;
    }
    Ok(concat_batches(&answer.schema, &batches)?)
}
