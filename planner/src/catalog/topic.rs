//! Topics as the catalog knows them: what their records are, and which relations write to them.
//!
//! A topic is one sequence of records for each partition. On disk it has a *part* for each relation
//! that writes to it; within an epoch the parts come in the order of their relations. Invariant: a
//! part stays as long as its topic, also when its relation is dropped.

use std::collections::BTreeMap;

use super::{Relation, RelationId};

/// Where a relation's rows are, and as what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicRef {
    /// Name of the topic.
    pub name: String,
    /// WITH (kafka_topic = …): the topic outlives its relations.
    pub named: bool,
    /// What the topic holds.
    pub encoding: Encoding,
}

/// What a topic holds of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// Its columns, typed.
    Columns,
    /// A record as Kafka has it: bytes of a key and of a value.
    Records(RecordFormat),
}

/// How a relation reads and writes records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordFormat {
    /// The format of keys.
    pub key: Format,
    /// The format of values.
    pub value: Format,
    /// Whether a value of one column is an object all the same (JSON).
    pub wrapped: bool,
    /// The bounds of a window are behind the key.
    pub window: Option<KeyWindow>,
}

/// The window of a record's key, as Kafka Streams writes it: its beginning in ms, big-endian; a session's
/// end before that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyWindow {
    /// The columns of its beginning and end, BIGINT.
    pub bounds: [usize; 2],
    /// Its length, which is not written; None for a session.
    pub size_ms: Option<i64>,
}

/// A format of keys or values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// There is no key.
    None,
    /// One primitive value, big-endian or as it is.
    Kafka,
    /// JSON.
    Json,
    /// Values separated by a character.
    Delimited(char),
}

impl Format {
    /// Its name, as WITH (…) has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Kafka => "kafka",
            Self::Json => "json",
            Self::Delimited(_) => "delimited",
        }
    }
}

/// A topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topic {
    /// Its name.
    pub name: String,
    /// Number of partitions.
    pub partitions: u32,
    /// It holds records, not columns.
    pub records: bool,
    /// It outlives its relations.
    pub named: bool,
    /// What is on disk, oldest relation first.
    pub parts: Vec<TopicPart>,
}

/// What one relation has written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicPart {
    /// The relation.
    pub relation: RelationId,
    /// Its name in the log, unique for ever.
    pub log_name: String,
    /// The relation is there.
    pub live: bool,
}

impl Topic {
    /// The topic with the part of `relation` alone.
    pub fn of(relation: &Relation) -> Self {
        Self {
            name: relation.topic.name.clone(),
            partitions: relation.partitions,
            records: relation.topic.encoding != Encoding::Columns,
            named: relation.topic.named,
            parts: vec![TopicPart { relation: relation.id, log_name: relation.log_name(), live: true }],
        }
    }
}

/// All topics, by name.
#[derive(Debug, Clone, Default)]
pub(super) struct Topics(BTreeMap<String, Topic>);

impl Topics {
    pub(super) fn get(&self, name: &str) -> Option<&Topic> {
        self.0.get(name)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Topic> {
        self.0.values()
    }

    /// Adds the parts of `topic`, and the topic if it is not there.
    pub(super) fn add(&mut self, topic: Topic) {
        let Some(there) = self.0.get_mut(&topic.name) else {
            self.0.insert(topic.name.clone(), topic);
            return;
        };
        there.named |= topic.named;
        for part in topic.parts {
            if !there.parts.iter().any(|p| p.relation == part.relation) {
                there.parts.push(part);
            }
        }
        there.parts.sort_by_key(|p| p.relation);
    }

    /// Notes that relations are gone. A topic that has none left goes too, unless it was named and is
    /// not to be deleted.
    pub(super) fn leave(&mut self, ids: &[RelationId], delete: bool) {
        self.0.retain(|_, topic| {
            let mut left = false;
            for part in topic.parts.iter_mut().filter(|p| ids.contains(&p.relation)) {
                (part.live, left) = (false, true);
            }
            !left || topic.parts.iter().any(|p| p.live) || (topic.named && !delete)
        });
    }
}
