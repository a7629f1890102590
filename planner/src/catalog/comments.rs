//! What is said of relations and their columns: COMMENT ON.
//!
//! Invariant: a comment goes with its relation. Source: PostgreSQL, "COMMENT".

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::RelationId;

/// One comment, made or taken away.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Comment {
    /// Of what relation.
    pub relation: RelationId,
    /// Of which of its columns; None is the relation itself.
    pub column: Option<String>,
    /// What is said; None takes it away.
    pub text: Option<String>,
}

/// All comments.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Comments(BTreeMap<(RelationId, Option<String>), String>);

impl Comments {
    /// What is said of a relation, or of one of its columns.
    pub fn of(&self, relation: RelationId, column: Option<&str>) -> Option<&str> {
        self.0.get(&(relation, column.map(str::to_owned))).map(String::as_str)
    }

    /// All of them: relation, column, text.
    pub fn iter(&self) -> impl Iterator<Item = (RelationId, Option<&str>, &str)> {
        self.0.iter().map(|((relation, column), text)| (*relation, column.as_deref(), text.as_str()))
    }

    pub(super) fn with(&self, comment: &Comment) -> Self {
        let (key, mut all) = ((comment.relation, comment.column.clone()), self.0.clone());
        match &comment.text {
            Some(text) => drop(all.insert(key, text.clone())),
            None => drop(all.remove(&key)),
        }
        Self(all)
    }

    pub(super) fn without(&self, relations: &[RelationId]) -> Self {
        let mut all = self.0.clone();
        all.retain(|(relation, _), _| !relations.contains(relation));
        Self(all)
    }
}
