//! Epochs without rows: time passes for queries that depend on it although nothing is written.
//!
//! A tick is a record of a topic of its own, so that it is an epoch like any other: durable before
//! anything follows from it, and the same again on every replay.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, Int64Array, RecordBatch};
use planner::{Encoding, Relation, RelationKind, TopicRef};
use storage::Epoch;
use storage::log::{Log, Sync, TopicPartition};

use super::frames;
use super::topics::{Arrival, Arrivals};
use crate::error::Result;
use crate::ingest::topic_schema;

/// The relation whose topic ticks are in. Nobody can name it: relations are numbered from 1.
pub(super) fn relation() -> Arc<Relation> {
    Arc::new(Relation {
        id: 0,
        name: "ticks".into(),
        kind: RelationKind::Stream,
        columns: Vec::new(),
        key: Vec::new(),
        record_key: Vec::new(),
        topic: TopicRef { name: topic(), named: false, encoding: Encoding::Columns },
        partitions: 1,
        time_column: None,
        time_format: None,
        retention: (None, None),
        idle_timeout_ms: None,
        memory_limit: None,
        read_only: false,
        query: None,
        views: Vec::new(),
        target: None,
        text: String::new(),
        first_name: "ticks".into(),
    })
}

/// The name of their topic, which nobody can give to another.
pub(super) fn topic() -> String {
    String::new()
}

/// Makes an epoch of nothing but its time; returns what it brings.
pub(super) fn commit(log: &Arc<dyn Log>, epoch: Epoch, now_ms: i64) -> Result<Arrivals> {
    let relation = relation();
    let schema = topic_schema(&relation);
    let time: ArrayRef = Arc::new(Int64Array::from_value(now_ms, 1));
    let record = RecordBatch::try_new(schema, vec![time])?;
    let to = TopicPartition { topic: relation.log_name(), partition: 0 };
    let append = frames::append(to, std::slice::from_ref(&record), now_ms)?;
    log.commit(epoch, now_ms, &[append], Sync::Durable)?;
    let arrival = Arrival { part: relation.id, partition: 0, base: 0, batches: vec![record] };
    Ok(Arrivals::from([(topic(), vec![arrival])]))
}
