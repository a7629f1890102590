//! The journal's vocabulary: what a catalog change is on disk.
//!
//! A relation is kept as the statement that made it; replaying it against the same catalog gives
//! the same relation (docs/decisions/0004-ddl-as-text.md).

use planner::{AccessChange, Comment, Relation, RelationId, Topic, TopicPart};
use serde::{Deserialize, Serialize};
use storage::meta::MetaOp;

use crate::error::{Error, Result};

/// Why a query does not run although nothing is wrong with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Halt {
    /// PAUSE.
    Paused,
    /// TERMINATE.
    Terminated,
}

/// One entry of the journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum MetaRecord {
    /// A relation is made; `topic` is where its rows are, which may outlive it.
    Create {
        id: RelationId,
        name: String,
        text: String,
        #[serde(default)]
        topic: Option<TopicRecord>,
    },
    /// The query of a relation is another one from now on.
    Replace { id: RelationId, text: String },
    /// A relation has another name from now on.
    Rename { id: RelationId, name: String },
    /// A query stands still, or has ended.
    Halt { id: RelationId, halt: Halt },
    /// A query that stood still or failed goes on.
    Resume { id: RelationId },
    /// Relations are removed, and perhaps topics that were named.
    Drop {
        ids: Vec<RelationId>,
        #[serde(default)]
        delete_topics: bool,
    },
    /// Others may do other things.
    Access(AccessChange),
    /// Something is said of a relation.
    Comment(Comment),
    /// A clean end: every epoch up to the entry's is whole.
    Stopped,
}

/// A topic with the part of one relation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TopicRecord {
    name: String,
    named: bool,
    partitions: u32,
    records: bool,
    log_name: String,
}

impl TopicRecord {
    fn of(relation: &Relation) -> Self {
        let Topic { name, partitions, records, named, .. } = Topic::of(relation);
        Self { name, named, partitions, records, log_name: relation.log_name() }
    }

    /// The topic, with the part of a relation that is there or not.
    pub(crate) fn topic(&self, relation: RelationId, live: bool) -> Topic {
        Topic {
            name: self.name.clone(),
            partitions: self.partitions,
            records: self.records,
            named: self.named,
            parts: vec![TopicPart { relation, log_name: self.log_name.clone(), live }],
        }
    }
}

impl MetaRecord {
    pub(crate) fn create(relation: &Relation) -> Self {
        let topic = relation.has_topic().then(|| TopicRecord::of(relation));
        Self::Create { id: relation.id, name: relation.name.clone(), text: relation.text.clone(), topic }
    }

    pub(crate) fn encode(&self) -> Result<Vec<u8>> {
        serde_json::to_vec(self).map_err(|e| Error::bug("journal", e.to_string()))
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self> {
        serde_json::from_slice(bytes).map_err(|e| Error::bug("journal", e.to_string()))
    }

    /// The id of the relation it makes.
    pub(crate) fn created(&self) -> Option<RelationId> {
        match self {
            Self::Create { id, .. } => Some(*id),
            _ => None,
        }
    }

    /// What the projection keeps of it: the statement of each relation.
    pub(crate) fn projection(&self) -> Vec<MetaOp> {
        match self {
            Self::Create { id, text, .. } => {
                vec![MetaOp::Put(definition_key(*id), text.clone().into_bytes().into())]
            }
            Self::Replace { id, text } => {
                vec![MetaOp::Put(definition_key(*id), text.clone().into_bytes().into())]
            }
            Self::Rename { .. } | Self::Halt { .. } | Self::Resume { .. } => Vec::new(),
            Self::Drop { ids, .. } => ids.iter().map(|id| MetaOp::Delete(definition_key(*id))).collect(),
            Self::Access(_) | Self::Comment(_) | Self::Stopped => Vec::new(),
        }
    }
}

/// The projection's key of a relation's statement.
pub(crate) fn definition_key(id: RelationId) -> Vec<u8> {
    format!("definition/{id:010}").into_bytes()
}
