//! The catalog: one immutable value that says which relations there are.
//!
//! Invariant: every change makes a new value; whoever holds an old one goes on reading it.

mod name;
mod relation;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

pub(crate) use name::relation_name;
pub use relation::{Column, PSEUDO_COLUMNS, Relation, RelationId, RelationKind, ViewQuery};

use sql::sqlparser::ast::ObjectName;

use crate::error::{Error, Result};

/// All relations, by id (which grows with creation) and by name.
#[derive(Debug, Clone, Default)]
pub struct Catalog {
    relations: BTreeMap<RelationId, Arc<Relation>>,
    names: HashMap<String, RelationId>,
}

impl Catalog {
    /// The relation of that name.
    pub fn get(&self, name: &str) -> Option<&Arc<Relation>> {
        self.names.get(name).and_then(|id| self.relations.get(id))
    }

    /// The relation of that name, or an error that names one much like it.
    ///
    /// # Errors
    /// [`Error::UnknownRelation`].
    pub fn find(&self, name: &str) -> Result<&Arc<Relation>> {
        self.get(name)
            .ok_or_else(|| Error::UnknownRelation { name: name.to_owned(), similar: self.similar(name) })
    }

    /// The relation that a name in a statement means.
    ///
    /// # Errors
    /// [`Error::UnknownRelation`].
    pub fn resolve(&self, name: &ObjectName) -> Result<&Arc<Relation>> {
        match relation_name(name) {
            Ok(bare) => self.find(&bare),
            Err(_) => Err(Error::UnknownRelation { name: name.to_string(), similar: None }),
        }
    }

    /// The relation with that id.
    pub fn by_id(&self, id: RelationId) -> Option<&Arc<Relation>> {
        self.relations.get(&id)
    }

    /// All relations, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Relation>> {
        self.relations.values()
    }

    /// The catalog with one relation more.
    pub fn with(&self, relation: Arc<Relation>) -> Self {
        let mut next = self.clone();
        next.names.insert(relation.name.clone(), relation.id);
        next.relations.insert(relation.id, relation);
        next
    }

    /// The catalog without these.
    pub fn without(&self, ids: &[RelationId]) -> Self {
        let mut next = self.clone();
        for id in ids {
            if let Some(relation) = next.relations.remove(id) {
                next.names.remove(&relation.name);
            }
        }
        next
    }

    /// Relations that read `id`, directly or through others, nearest first.
    pub fn dependents(&self, id: RelationId) -> Vec<Arc<Relation>> {
        let mut found: Vec<Arc<Relation>> = Vec::new();
        // A view that was replaced may read what is younger than it.
        loop {
            let is_new = |r: &&Arc<Relation>| !found.iter().any(|f| f.id == r.id);
            let reads =
                |r: &&Arc<Relation>| r.sources().iter().any(|s| *s == id || found.iter().any(|f| f.id == *s));
            let next: Vec<Arc<Relation>> =
                self.relations.values().filter(is_new).filter(reads).cloned().collect();
            if next.is_empty() {
                return found;
            }
            found.extend(next);
        }
    }

    fn similar(&self, name: &str) -> Option<String> {
        self.names
            .keys()
            .map(|candidate| (distance(name, candidate), candidate))
            .filter(|(d, _)| *d <= 2.max(name.len() / 4))
            .min()
            .map(|(_, candidate)| candidate.clone())
    }
}

/// Edit distance of two short names.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, cb) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(ca != *cb);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row.last().copied().unwrap_or(0)
}
