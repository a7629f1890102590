//! Where topics end, and what arrives in them.
//!
//! A topic's records are those of its parts, epoch by epoch, within an epoch part by part. Its offsets
//! number them in that order. Invariant: the ends say exactly which records have been delivered.

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::arrow::array::{AsArray, RecordBatch};
use datafusion::arrow::compute::max;
use datafusion::arrow::datatypes::Int64Type;
use planner::{RelationId, Topic};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use storage::log::{Log, TopicPartition};
use storage::{Kind, Offset};

use crate::error::Result;
use crate::ingest::ROW_TIME;

/// Records of one epoch for a partition of a topic, written by one relation.
#[derive(Debug)]
pub(crate) struct Arrival {
    /// Whose part of the topic it is.
    pub(crate) part: RelationId,
    pub(crate) partition: u32,
    /// Offset in the topic of the first record.
    pub(crate) base: Offset,
    /// As the topic holds them.
    pub(crate) batches: Vec<RecordBatch>,
}

impl Arrival {
    pub(crate) fn rows(&self) -> usize {
        self.batches.iter().map(RecordBatch::num_rows).sum()
    }

    /// The latest time of its records, ms since 1970.
    pub(crate) fn latest_ms(&self) -> Option<i64> {
        let times =
            self.batches.iter().filter_map(|batch| batch.column_by_name(ROW_TIME)?.as_primitive_opt());
        times.filter_map(max::<Int64Type>).max()
    }
}

/// Records of one epoch, by topic.
pub(crate) type Arrivals = BTreeMap<String, Vec<Arrival>>;

/// How far a topic goes.
#[derive(Debug, Clone, Default)]
pub(crate) struct TopicEnds {
    pub(crate) partitions: Vec<PartitionEnds>,
    /// Something of it is not as it was written: nothing of it can be read, or written to it.
    pub(crate) damage: Option<Arc<storage::Error>>,
}

/// How far a partition goes. Checkpoints keep it as it is.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct PartitionEnds {
    pub(crate) start: Offset,
    pub(crate) end: Offset,
    pub(crate) parts: Vec<PartEnds>,
}

/// What one relation wrote to a partition.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct PartEnds {
    pub(crate) relation: RelationId,
    #[serde(serialize_with = "write_name", deserialize_with = "read_name")]
    pub(crate) log_name: Arc<str>,
    pub(crate) start: Offset,
    pub(crate) end: Offset,
}

fn write_name<S: Serializer>(name: &Arc<str>, out: S) -> std::result::Result<S::Ok, S::Error> {
    out.serialize_str(name)
}

fn read_name<'de, D: Deserializer<'de>>(name: D) -> std::result::Result<Arc<str>, D::Error> {
    String::deserialize(name).map(Arc::from)
}

fn note(damage: &mut Option<Arc<storage::Error>>, error: storage::Error) -> Result<()> {
    if error.kind() != Kind::Corrupt {
        return Err(error.into());
    }
    tracing::error!(%error, "a topic is damaged and out of use");
    damage.get_or_insert_with(|| Arc::new(error));
    Ok(())
}

impl TopicEnds {
    /// Adds the parts of a topic that are not there yet, as far as nothing of them has been delivered.
    pub(crate) fn add_parts(&mut self, topic: &Topic, log: &Arc<dyn Log>) -> Result<()> {
        self.partitions.resize_with(topic.partitions as usize, PartitionEnds::default);
        for (number, partition) in (0u32..).zip(&mut self.partitions) {
            for part in &topic.parts {
                if partition.parts.iter().any(|p| p.relation == part.relation) {
                    continue;
                }
                let at = TopicPartition { topic: part.log_name.clone(), partition: number };
                let start = match log.bounds(&at) {
                    Ok(there) => there.start,
                    Err(error) => note(&mut self.damage, error).map(|()| 0)?,
                };
                let log_name = Arc::from(part.log_name.as_str());
                partition.parts.push(PartEnds { relation: part.relation, log_name, start, end: start });
                partition.parts.sort_by_key(|p| p.relation);
                partition.start += start;
                partition.end += start;
            }
        }
        Ok(())
    }

    /// Notes damage; any other error is one.
    pub(crate) fn take_damage(&mut self, error: storage::Error) -> Result<()> {
        note(&mut self.damage, error)
    }

    /// Whether every part of a topic is there.
    pub(crate) fn has_parts(&self, topic: &Topic) -> bool {
        self.partitions.first().is_some_and(|p| p.parts.len() == topic.parts.len())
    }

    /// Numbers what arrives.
    pub(crate) fn number(&mut self, arrival: &mut Arrival) {
        let Some(partition) = self.partitions.get_mut(arrival.partition as usize) else { return };
        arrival.base = partition.end;
        let rows = arrival.rows() as u64;
        partition.end += rows;
        if let Some(part) = partition.parts.iter_mut().find(|p| p.relation == arrival.part) {
            part.end += rows;
        }
    }
}
