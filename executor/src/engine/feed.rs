//! What a stream held when a push query began, run through the query as its reader takes it.
//!
//! A query whose rows come of one row each needs nothing to be computed before: its reader gets the history by
//! and by, and a thousand readers who take nothing cost a piece of it each, not all of it. Invariant: the history
//! ends with the epoch at which the query began; what comes later comes to it from the step thread.

use std::sync::Arc;

use planner::{Dataflow, NodeKind};
use storage::Epoch;

use super::history::{EpochMerge, StreamReader};
use crate::change::ChangeBatch;
use crate::error::Result;
use crate::operator::Changes;
use crate::push::PushItem;
use crate::query::{EpochChanges, Query};
use crate::rejects::StepRejects;

/// Rows run through the query at a time, at least, if there are as many.
const FEED_ROWS: usize = 4096;
/// Bytes read at a time, if a frame is not larger.
const READ_BYTES: usize = 64 << 10;

/// The history of one stream for one reader.
pub(crate) struct Feed {
    query: Query,
    stream: StreamReader,
    history: EpochMerge,
    at: (Epoch, i64),
    /// The reader is told of the epoch although there is nothing in it.
    tells: bool,
}

impl Feed {
    /// Whether each row of a query's result comes of one row of one stream.
    pub(crate) fn is_possible(dataflow: &Dataflow) -> bool {
        let mut sources = dataflow.source_relations();
        let one = sources.next().is_some_and(|relation| relation.is_stream()) && sources.next().is_none();
        let each = |kind: &NodeKind| {
            matches!(
                kind,
                NodeKind::Source { .. }
                    | NodeKind::Filter(_)
                    | NodeKind::Project(_)
                    | NodeKind::Unnest { .. }
            )
        };
        one && dataflow.nodes.iter().all(|node| each(&node.kind))
            && dataflow.nodes.iter().filter(|node| matches!(node.kind, NodeKind::Source { .. })).count() == 1
    }

    /// With `tells` the reader hears of the epoch also when there is no history.
    pub(super) fn new(query: Query, stream: StreamReader, at: (Epoch, i64), tells: bool) -> Self {
        let history = EpochMerge::new(std::iter::once(&stream.topic), READ_BYTES);
        Self { query, stream, history, at, tells }
    }

    /// The next piece; None at the end.
    ///
    /// # Errors
    /// Damage, and what the query says.
    pub(crate) fn next(&mut self) -> Result<Option<PushItem>> {
        loop {
            let mut rows = Changes::new();
            while rows.iter().map(ChangeBatch::len).sum::<usize>() < FEED_ROWS
                && let Some(inputs) = self.history.next_epoch()?
            {
                for (_, arrival) in &inputs.arrivals {
                    rows.extend(self.stream.changes(arrival, (inputs.epoch, inputs.now_ms))?);
                }
            }
            let (epoch, now_ms) = self.at;
            if rows.is_empty() {
                let tells = std::mem::take(&mut self.tells);
                return Ok(tells.then(|| PushItem { epoch, changes: Changes::new() }));
            }
            let changes = EpochChanges::from([(self.stream.relation.id, Arc::new(rows))]);
            let changes = self.query.step(&changes, now_ms, &mut StepRejects::default())?;
            if !changes.is_empty() {
                self.tells = false;
                return Ok(Some(PushItem { epoch, changes }));
            }
        }
    }
}

impl std::fmt::Debug for Feed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Feed({:?})", self.stream)
    }
}
