//! Everything a reader sees, at one epoch.

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::common::ScalarValue;
use planner::{Catalog, RelationId};
use storage::log::Log;
use storage::{Epoch, Offset};

use super::backfill::Progress;
use super::history::{StreamReader, TopicReader};
use super::meta::Halt;
use super::topics::TopicEnds;
use crate::error::{Error, Result};
use crate::query::OperatorStatus;
use crate::rejects::Rejects;
use crate::table::TableVersion;

/// All relations at one epoch.
pub struct Snapshot {
    /// The epoch.
    pub epoch: Epoch,
    /// Its wall clock, ms since 1970.
    pub now_ms: i64,
    /// The relations.
    pub catalog: Arc<Catalog>,
    /// Rows of tables and of views that keep them.
    pub(crate) tables: HashMap<RelationId, TableVersion>,
    /// How far topics go.
    pub(crate) topics: HashMap<String, Arc<TopicEnds>>,
    /// Queries, by the relation they keep.
    pub(crate) queries: HashMap<RelationId, QueryStatus>,
    /// Views on their way to their first result.
    pub building: Vec<(String, Arc<Progress>)>,
    pub(crate) log: Arc<dyn Log>,
    pub(crate) rejects: Rejects,
}

/// How a query does.
#[derive(Debug, Clone, Default)]
pub struct QueryStatus {
    /// Rows its sources brought so far.
    pub rows_in: u64,
    /// Rows its result changed by.
    pub rows_out: u64,
    /// Time spent in it, microseconds.
    pub busy_us: u64,
    /// Bytes of its state.
    pub state_bytes: usize,
    /// How each operator of its dataflow does.
    pub operators: Arc<Vec<OperatorStatus>>,
    /// Rows it rejected.
    pub rejected: u64,
    /// It stands still or has ended, because somebody said so.
    pub halt: Option<Halt>,
    /// Why it stopped, if it did.
    pub error: Option<String>,
    /// The memory limit it went over, if that is why.
    pub over_limit: Option<u64>,
    /// Its state and rows are more than fits in memory, and lie in a file.
    pub spills: bool,
}

impl QueryStatus {
    /// What it is doing, in a word.
    pub fn state(&self) -> &'static str {
        match (&self.error, self.halt) {
            (Some(_), _) => "error",
            (None, Some(Halt::Paused)) => "paused",
            (None, Some(Halt::Terminated)) => "terminated",
            (None, None) => "running",
        }
    }
}

impl Snapshot {
    /// The rows of a table or view.
    ///
    /// # Errors
    /// [`Error::QueryFailed`] when its query has stopped: old rows would be a wrong answer.
    pub fn table(&self, id: RelationId) -> Result<Option<&TableVersion>> {
        self.check(id)?;
        Ok(self.tables.get(&id))
    }

    /// The row of a key, by the index: a value for each of the key's columns. None when this snapshot's table
    /// cannot say so quickly, because it has moved on: a newer one may.
    ///
    /// # Errors
    /// [`Error::QueryFailed`].
    pub fn find(&self, id: RelationId, key: &[ScalarValue]) -> Result<Option<Vec<RecordBatch>>> {
        match self.table(id)? {
            Some(version) => version.lookup(key),
            None => Ok(None),
        }
    }

    /// A reader of a stream's records up to this epoch.
    ///
    /// # Errors
    /// [`Error::QueryFailed`].
    pub(crate) fn stream(&self, id: RelationId) -> Result<Option<StreamReader>> {
        self.check(id)?;
        let Some(relation) = self.catalog.by_id(id).filter(|r| r.is_stream()) else { return Ok(None) };
        let Some(ends) = self.topics.get(&relation.topic.name) else { return Ok(None) };
        let topic = TopicReader::new(Arc::clone(&self.log), Arc::clone(ends));
        Ok(Some(StreamReader::new(Arc::clone(relation), topic, self.rejects.clone())))
    }

    /// Whether a relation can be used: its query runs, and its topic is as it was written.
    pub(crate) fn check(&self, id: RelationId) -> Result<()> {
        let topic = self.catalog.by_id(id).filter(|r| r.has_topic()).map(|r| &r.topic.name);
        if let Some(damage) = topic.and_then(|topic| self.topics.get(topic)?.damage.clone()) {
            return Err(Error::Storage(damage));
        }
        let Some(QueryStatus { error: Some(reason), over_limit, .. }) = self.queries.get(&id) else {
            return Ok(());
        };
        let relation = self.catalog.by_id(id).map(|r| r.name.clone()).unwrap_or_default();
        Err(match over_limit {
            Some(limit) => Error::MemoryLimit { relation, limit: *limit },
            None => Error::QueryFailed { relation, reason: reason.clone() },
        })
    }

    /// How the query of a relation does.
    pub fn query(&self, id: RelationId) -> Option<&QueryStatus> {
        self.queries.get(&id)
    }

    /// Bounds of the partitions of a topic: first offset, next offset.
    pub fn offsets(&self, topic: &str) -> Vec<(Offset, Offset)> {
        let partitions = self.topics.get(topic).map_or(&[][..], |ends| &ends.partitions);
        partitions.iter().map(|p| (p.start, p.end)).collect()
    }
}
