//! The catalog: one immutable value that says which relations there are.
//!
//! Invariant: every change makes a new value; whoever holds an old one goes on reading it.

mod access;
mod comments;
mod name;
mod relation;
mod row_security;
mod topic;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

pub use access::{Access, AccessChange, FIRST_ROLE, Grantee, Privilege, Role, Securable};
pub use comments::{Comment, Comments};
pub(crate) use name::relation_name;
pub use relation::{Column, PSEUDO_COLUMNS, Relation, RelationId, RelationKind, VALUELESS, ViewQuery};
pub use row_security::{Policy, RowSecurity};
pub use topic::{Encoding, Format, KeyWindow, RecordFormat, Topic, TopicPart, TopicRef};

use sql::sqlparser::ast::ObjectName;

use crate::error::{Error, Result};

/// Refuses what a role may not do with a relation.
///
/// # Errors
/// [`Error::Denied`]; [`Error::RowSecurity`] where it may see some rows only, and would write.
pub fn check_privilege(
    catalog: &Catalog,
    role: &str,
    privilege: Privilege,
    relation: &Relation,
) -> Result<()> {
    if !catalog.access().may(role, privilege, Securable::Relation(relation.id)) {
        return Err(Error::Denied { what: relation.kind.noun(), name: relation.name.clone() });
    }
    match privilege == Privilege::Select || catalog.access().sees_all(role, relation.id) {
        true => Ok(()),
        false => Err(Error::RowSecurity { name: relation.name.clone(), why: "policies are for reading" }),
    }
}

/// Refuses what only the owner of a relation may do.
///
/// # Errors
/// [`Error::NotOwner`].
pub fn check_owner(catalog: &Catalog, role: &str, relation: &Relation) -> Result<()> {
    match catalog.access().owns(role, relation.id) {
        true => Ok(()),
        false => Err(Error::NotOwner { what: relation.kind.noun(), name: relation.name.clone() }),
    }
}

/// All relations, by id (which grows with creation) and by name, all topics, and who may do what with them.
#[derive(Debug, Clone, Default)]
pub struct Catalog {
    relations: BTreeMap<RelationId, Arc<Relation>>,
    names: HashMap<String, RelationId>,
    topics: topic::Topics,
    access: Arc<Access>,
    comments: Arc<Comments>,
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

    /// Relations that can be read, oldest first: not the queries of INSERT.
    pub fn visible(&self) -> impl Iterator<Item = &Arc<Relation>> {
        self.iter().filter(|relation| relation.target.is_none())
    }

    /// The catalog with one relation more.
    pub fn with(&self, relation: Arc<Relation>) -> Self {
        let mut next = self.clone();
        if relation.has_topic() {
            next.topics.add(Topic::of(&relation));
        }
        next.names.insert(relation.name.clone(), relation.id);
        next.relations.insert(relation.id, relation);
        next
    }

    /// The catalog in which a relation has another name.
    pub fn renamed(&self, id: RelationId, name: &str) -> Self {
        let mut next = self.clone();
        if let Some(relation) = next.relations.get_mut(&id) {
            next.names.remove(&relation.name);
            next.names.insert(name.to_owned(), id);
            *relation = Arc::new(relation.renamed(name));
        }
        next
    }

    /// The catalog with a topic, or with parts more of it.
    pub fn with_topic(&self, topic: Topic) -> Self {
        let mut next = self.clone();
        next.topics.add(topic);
        next
    }

    /// The catalog without these, and without their topics if they were not named and nobody else has
    /// them; with `delete_topics` also without those that were.
    pub fn without(&self, ids: &[RelationId], delete_topics: bool) -> Self {
        let mut next = self.clone();
        for id in ids {
            if let Some(relation) = next.relations.remove(id) {
                next.names.remove(&relation.name);
            }
        }
        next.topics.leave(ids, delete_topics);
        next.access = Arc::new(next.access.without(ids));
        next.comments = Arc::new(next.comments.without(ids));
        next
    }

    /// Who may do what.
    pub fn access(&self) -> &Arc<Access> {
        &self.access
    }

    /// The catalog in which others may do other things.
    pub fn with_access(&self, access: Arc<Access>) -> Self {
        Self { access, ..self.clone() }
    }

    /// What is said of relations and their columns.
    pub fn comments(&self) -> &Comments {
        &self.comments
    }

    /// The catalog with a comment, or without it.
    pub fn with_comment(&self, comment: &Comment) -> Self {
        Self { comments: Arc::new(self.comments.with(comment)), ..self.clone() }
    }

    /// The catalog in which others may do what they may in `other`, and the same is said.
    pub fn with_words_of(&self, other: &Self) -> Self {
        let (access, comments) = (Arc::clone(&other.access), Arc::clone(&other.comments));
        Self { access, comments, ..self.clone() }
    }

    /// The topic of that name.
    pub fn topic(&self, name: &str) -> Option<&Topic> {
        self.topics.get(name)
    }

    /// All topics, by name.
    pub fn topics(&self) -> impl Iterator<Item = &Topic> {
        self.topics.iter()
    }

    /// Whether others have written to a relation's topic, or may.
    pub fn shares_topic(&self, relation: &Relation) -> bool {
        let topic = self.topics.get(&relation.topic.name).filter(|_| relation.has_topic());
        topic.is_some_and(|topic| topic.parts.iter().any(|part| part.relation != relation.id))
    }

    /// The relations whose rows are in a topic, oldest first.
    pub fn on_topic<'a>(&'a self, topic: &'a Topic) -> impl Iterator<Item = &'a Arc<Relation>> {
        topic.parts.iter().filter_map(|part| self.relations.get(&part.relation))
    }

    /// Relations that read `id`, directly or through others, nearest first.
    pub fn readers(&self, id: RelationId) -> Vec<Arc<Relation>> {
        self.reached(id, |relation, ids| relation.sources().iter().any(|s| ids.contains(s)))
    }

    /// Relations that cannot be without `id`: those that read or name it, directly or through others, and the
    /// queries that write to it or to one of them.
    pub fn dependents(&self, id: RelationId) -> Vec<Arc<Relation>> {
        self.reached(id, |relation, ids| {
            relation.sources().iter().chain(&relation.views).chain(&relation.target).any(|s| ids.contains(s))
        })
    }

    fn reached(&self, id: RelationId, needs: fn(&Relation, &[RelationId]) -> bool) -> Vec<Arc<Relation>> {
        let mut found: Vec<Arc<Relation>> = Vec::new();
        // A view that was replaced may read what is younger than it.
        loop {
            let ids: Vec<RelationId> = std::iter::once(id).chain(found.iter().map(|f| f.id)).collect();
            let is_new = |r: &&Arc<Relation>| !ids.contains(&r.id);
            let next: Vec<Arc<Relation>> =
                self.relations.values().filter(is_new).filter(|r| needs(r, &ids)).cloned().collect();
            if next.is_empty() {
                return found;
            }
            found.extend(next);
        }
    }

    /// These relations and all that their rows come from: what they read, and who writes to their topics.
    pub fn upstream(&self, ids: &[RelationId]) -> Vec<RelationId> {
        let mut seen = ids.to_vec();
        let mut next = 0;
        while let Some(id) = seen.get(next) {
            next += 1;
            let Some(relation) = self.relations.get(id) else { continue };
            let topic = self.topics.get(&relation.topic.name).filter(|_| relation.has_topic());
            let writers = topic.into_iter().flat_map(|t| t.parts.iter().map(|part| part.relation));
            for other in relation.sources().into_iter().chain(writers) {
                if !seen.contains(&other) {
                    seen.push(other);
                }
            }
        }
        seen
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
