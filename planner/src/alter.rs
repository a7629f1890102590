//! ALTER and CREATE OR REPLACE: what becomes of a relation that is there.
//!
//! Invariant: who reads it need not notice. Its columns stay where they are, with their names and types; it may
//! get more behind them, which are NULL in the rows that are there.

use std::sync::Arc;

use sql::RelationKind;

use crate::catalog::{Catalog, Column, Relation, relation_name};
use crate::create::{check_columns, definition, if_there, same_family, wrong_kind};
use crate::error::{Error, Result};
use crate::topic_options;

/// Checks that CREATE OR REPLACE puts `new` in the place of `old`.
///
/// # Errors
/// [`Error::WrongKind`], [`Error::Definition`], [`Error::HasDependents`].
pub fn check_replace(catalog: &Catalog, old: &Relation, new: &Relation) -> Result<()> {
    let name = new.name.clone();
    if old.kind != new.kind || old.is_base() != new.is_base() {
        return Err(wrong_kind(old, new.kind));
    }
    let readers = catalog.dependents(old.id);
    if new.sources().iter().any(|s| *s == old.id || readers.iter().any(|r| r.id == *s)) {
        return Err(Error::Definition(format!("\"{name}\" would read itself")));
    }
    if new.kind == RelationKind::View {
        // Its query is written into those that name it.
        return match readers.is_empty() {
            true => Ok(()),
            false => Err(Error::HasDependents {
                name,
                dependents: readers.iter().map(|r| r.name.clone()).collect(),
            }),
        };
    }
    let added = added_columns(old, new)?;
    if old.topic != new.topic || old.partitions != new.partitions || old.record_key != new.record_key {
        return Err(Error::Definition(format!("\"{name}\" must keep its topic, with its formats and key")));
    }
    if old.key != new.key && (old.is_base() || !readers.is_empty()) {
        return Err(Error::Definition(format!("\"{name}\" must keep its key, because others read it")));
    }
    if (old.time_column, &old.time_format) != (new.time_column, &new.time_format) && old.is_base() {
        return Err(Error::Definition(format!("\"{name}\" must keep the column of its record times")));
    }
    if added.is_empty() { Ok(()) } else { check_added(catalog, new, added) }
}

/// The columns that `new` has and `old` has not.
fn added_columns<'a>(old: &Relation, new: &'a Relation) -> Result<&'a [Column]> {
    let alike = |(a, b): (&Column, &Column)| a.name == b.name && a.data_type == b.data_type;
    let kept = old.columns.iter().zip(&new.columns).take_while(|pair| alike(*pair)).count();
    match old.columns.get(kept) {
        None => Ok(&new.columns[kept..]),
        Some(changed) => Err(Error::Definition(format!(
            "\"{}\" must keep its columns, with their names, types and order, and \"{}\" is changed or not \
             there: more columns may follow them; DROP it to give it others",
            new.name, changed.name
        ))),
    }
}

/// Checks that a relation can have columns more than it had.
fn check_added(catalog: &Catalog, relation: &Relation, added: &[Column]) -> Result<()> {
    check_columns(&relation.columns)?;
    let name = &relation.name;
    for column in added.iter().filter(|_| relation.is_base()) {
        let what = match column {
            Column { headers: Some(_), .. } => "cannot be one of headers",
            Column { default: Some(_), .. } => "can have no DEFAULT",
            Column { not_null: true, .. } => "can be neither NOT NULL nor part of the key",
            _ => continue,
        };
        return Err(Error::Definition(format!(
            "column \"{}\" {what}: it is NULL in the rows that \"{name}\" has",
            column.name
        )));
    }
    let topic = catalog.topic(&relation.topic.name).filter(|_| relation.has_topic());
    let on_topic = topic.into_iter().flat_map(|topic| catalog.on_topic(topic));
    // Queries that write to it leave NULL what they do not know.
    let mut others = on_topic.filter(|other| other.id != relation.id && other.target != Some(relation.id));
    if relation.record_format().is_none() && others.next().is_some() {
        return Err(Error::Definition(format!(
            "\"{name}\" must keep its columns: others are on topic \"{}\", which holds them typed",
            relation.topic.name
        )));
    }
    topic_options::check_added(relation)
}

/// What ALTER … ADD COLUMN makes of a relation, whose statements are `text` then; None where IF EXISTS or IF NOT EXISTS leaves nothing to do.
///
/// Source: PostgreSQL, ALTER TABLE; ksqlDB, ALTER STREAM.
///
/// # Errors
/// [`Error::UnknownRelation`], [`Error::WrongKind`], [`Error::DuplicateColumn`], [`Error::Definition`].
pub fn plan_add_columns(
    catalog: &Catalog,
    statement: &sql::AddColumns,
    text: &str,
) -> Result<Option<Relation>> {
    let found = catalog.resolve(&statement.relation).cloned();
    let Some(relation) = if_there(found, statement.if_exists)? else { return Ok(None) };
    if relation.kind != statement.kind {
        return Err(wrong_kind(&relation, statement.kind));
    }
    if relation.read_only {
        return Err(Error::ReadOnly { name: relation.name.clone(), action: "alter" });
    }
    if !relation.is_base() {
        return Err(Error::Definition(format!(
            "the columns of \"{}\" are those of its query: CREATE OR REPLACE gives it another one",
            relation.name
        )));
    }
    let mut altered = relation.as_ref().clone();
    for (column, if_not_exists) in &statement.columns {
        let mut new = definition(column)?;
        new.not_null |= column.key;
        if !*if_not_exists || altered.column(&new.name).is_none() {
            altered.columns.push(new);
        }
    }
    let added = &altered.columns[relation.columns.len()..];
    if added.is_empty() {
        return Ok(None);
    }
    check_added(catalog, &altered, added)?;
    text.clone_into(&mut altered.text);
    Ok(Some(altered))
}

/// What ALTER … RENAME TO gives another name, and the name; None where IF EXISTS finds nothing.
///
/// # Errors
/// [`Error::UnknownRelation`], [`Error::WrongKind`], [`Error::DuplicateRelation`].
pub fn plan_rename(catalog: &Catalog, statement: &sql::Rename) -> Result<Option<(Arc<Relation>, String)>> {
    let found = catalog.resolve(&statement.relation).cloned();
    let Some(relation) = if_there(found, statement.if_exists)? else { return Ok(None) };
    // ALTER TABLE is for every kind, as in PostgreSQL.
    let any = statement.kind == RelationKind::Table;
    if !any && relation.kind != statement.kind && !same_family(&relation, statement.kind) {
        return Err(wrong_kind(&relation, statement.kind));
    }
    let name = relation_name(&statement.name)?;
    match catalog.get(&name) {
        Some(_) => Err(Error::DuplicateRelation { name }),
        None => Ok(Some((relation, name))),
    }
}
