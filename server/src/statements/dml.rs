//! UPDATE and DELETE: read the rows, write what becomes of them, nobody else in between.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, RecordBatch};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{Field, Schema};
use executor::{PullContext, Write};
use planner::{BatchQuery, Privilege, Relation};
use sql::sqlparser::ast::{Expr, Ident, ObjectName, SelectItem, TableWithJoins};
use sql::{Delete, Statement, Update};
use tokio::sync::OwnedRwLockWriteGuard;

use super::insert::{refuse_read_only, relation_for};
use super::{Outcome, Parameters, held, insert, returning};
use crate::pg::WireError;
use crate::session::Session;

/// A statement that changes rows of a table.
struct Change<'a> {
    name: &'a ObjectName,
    alias: Option<&'a Ident>,
    assignments: &'a [(Ident, Expr)],
    /// Other relations whose rows the assignments and the condition may name.
    others: &'a [TableWithJoins],
    selection: Option<&'a Expr>,
}

pub(crate) async fn update(
    session: &mut Session,
    update: &Update,
    parameters: &Parameters,
) -> Result<Outcome, WireError> {
    let change = change_of_update(update);
    let relation = writable(session, &update.name, Privilege::Update)?;
    let targets = assigned(&relation, &update.assignments)?;
    let guard = session.lock(relation.id).await?;
    refuse_after_own_write(session, &relation)?;
    let rows = read(session, &relation, &change, parameters).await?;
    let count = rows.num_rows();
    let width = rows.num_columns() - targets.len();
    let old = rows.project(&(0..width).collect::<Vec<_>>())?;
    let mut columns: Vec<ArrayRef> = old.columns().to_vec();
    for (i, target) in targets.iter().enumerate() {
        columns[*target] = insert::assigned(session, rows.column(width + i), &relation.columns[*target])?;
    }
    let new = RecordBatch::try_new(Write::memory_schema(&relation), columns)?;
    let now = session.engine().now_ms();
    let mut writes = Vec::new();
    // A row whose key changes leaves its old key.
    if targets.iter().any(|t| relation.key.contains(t)) {
        writes.push(Write::delete(&relation, &old, now)?);
    }
    writes.push(Write::replace(&relation, &new, now)?);
    let returned = returned(session, &relation, update.alias.as_ref(), &update.returning, &new)?;
    finish(session, guard, writes, count).await?;
    match returned {
        Some(returned) => returning::answer(session, returned, parameters, "UPDATE").await,
        None => Ok(Outcome::done(format!("UPDATE {count}"))),
    }
}

pub(crate) async fn delete(
    session: &mut Session,
    delete: &Delete,
    parameters: &Parameters,
) -> Result<Outcome, WireError> {
    let change = change_of_delete(delete);
    let relation = writable(session, &delete.name, Privilege::Delete)?;
    let guard = session.lock(relation.id).await?;
    refuse_after_own_write(session, &relation)?;
    let rows = read(session, &relation, &change, parameters).await?;
    let count = rows.num_rows();
    let write = Write::delete(&relation, &rows, session.engine().now_ms())?;
    let returned = returned(session, &relation, delete.alias.as_ref(), &delete.returning, &rows)?;
    finish(session, guard, vec![write], count).await?;
    match returned {
        Some(returned) => returning::answer(session, returned, parameters, "DELETE").await,
        None => Ok(Outcome::done(format!("DELETE {count}"))),
    }
}

/// TRUNCATE: the rows of all tables go at once.
pub(crate) async fn truncate(session: &mut Session, names: &[ObjectName]) -> Result<Outcome, WireError> {
    let tables = names.iter().map(|name| Ok((writable(session, name, Privilege::Delete)?, name)));
    let mut tables = tables.collect::<Result<Vec<_>, WireError>>()?;
    // One order of locks for everyone.
    tables.sort_by_key(|(relation, _)| relation.id);
    tables.dedup_by_key(|(relation, _)| relation.id);
    let (mut guards, mut writes, mut count) = (Vec::new(), Vec::new(), 0);
    for (relation, name) in tables {
        guards.extend(session.lock(relation.id).await?);
        refuse_after_own_write(session, &relation)?;
        let all = Change { name, alias: None, assignments: &[], others: &[], selection: None };
        let rows = read(session, &relation, &all, &Parameters::default()).await?;
        count += rows.num_rows();
        writes.push(Write::delete(&relation, &rows, session.engine().now_ms())?);
    }
    finish(session, guards, writes, count).await?;
    Ok(Outcome::done("TRUNCATE TABLE"))
}

/// What RETURNING says of rows, before they are written: it may be an error.
fn returned(
    session: &Session,
    relation: &Relation,
    alias: Option<&Ident>,
    items: &[SelectItem],
    rows: &RecordBatch,
) -> Result<Option<BatchQuery>, WireError> {
    if items.is_empty() {
        return Ok(None);
    }
    returning::bind(session, relation, alias, items, rows).map(Some)
}

/// Names and types of what RETURNING gives.
pub(super) fn returned_columns(
    session: &Session,
    statement: &Statement,
) -> Result<Option<BatchQuery>, WireError> {
    let (name, alias, items) = match statement {
        Statement::Insert(insert) => (&insert.name, None, &insert.returning),
        Statement::Update(update) => (&update.name, update.alias.as_ref(), &update.returning),
        Statement::Delete(delete) => (&delete.name, delete.alias.as_ref(), &delete.returning),
        _ => return Ok(None),
    };
    let relation = relation_for(session, name, &[Privilege::Select])?;
    returned(session, &relation, alias, items, &returning::no_rows(&relation))
}

/// Writes what a statement has found out under locks of tables; a transaction keeps its own.
pub(super) async fn finish(
    session: &mut Session,
    guards: impl IntoIterator<Item = OwnedRwLockWriteGuard<()>>,
    writes: Vec<Write>,
    count: usize,
) -> Result<(), WireError> {
    let guards: Vec<_> = guards.into_iter().collect();
    if count == 0 {
        return Ok(());
    }
    if guards.is_empty() {
        return session.write(writes).await;
    }
    // The locks are held already; taking them again as any other write does would wait for ever.
    let receipt = session.engine().append(writes).await?;
    session.saw(receipt.epoch);
    drop(guards);
    Ok(())
}

fn change_of_update(update: &Update) -> Change<'_> {
    Change {
        name: &update.name,
        alias: update.alias.as_ref(),
        assignments: &update.assignments,
        others: &update.others,
        selection: update.selection.as_ref(),
    }
}

fn change_of_delete(delete: &Delete) -> Change<'_> {
    Change {
        name: &delete.name,
        alias: delete.alias.as_ref(),
        assignments: &[],
        others: &delete.others,
        selection: delete.selection.as_ref(),
    }
}

fn writable(session: &Session, name: &ObjectName, changes: Privilege) -> Result<Arc<Relation>, WireError> {
    // Which rows there are is told by what becomes of them.
    let relation = relation_for(session, name, &[changes, Privilege::Select])?;
    if relation.is_stream() {
        let message = format!("cannot change rows of stream \"{}\": a stream only grows", relation.name);
        return Err(WireError::new("42809", message).hint("Use a table for rows that change."));
    }
    refuse_read_only(&relation, "change rows of")?;
    if !relation.is_base() {
        let message = format!("cannot change rows of \"{}\": they come from its query", relation.name);
        return Err(WireError::new("42809", message));
    }
    Ok(relation)
}

pub(super) fn refuse_after_own_write(session: &Session, relation: &Relation) -> Result<(), WireError> {
    if session.written().contains(&relation.id) {
        let message = "UPDATE or DELETE of a table that the same transaction has written to";
        return Err(WireError::unsupported(message).hint("COMMIT first."));
    }
    Ok(())
}

fn assigned(relation: &Relation, assignments: &[(Ident, Expr)]) -> Result<Vec<usize>, WireError> {
    let mut targets = Vec::new();
    for (name, _) in assignments {
        let name = sql::fold(name);
        let index = relation.column(&name).ok_or_else(|| {
            WireError::new(
                "42703",
                format!("column \"{name}\" of relation \"{}\" does not exist", relation.name),
            )
        })?;
        if targets.contains(&index) {
            return Err(WireError::new("42601", format!("multiple assignments to same column \"{name}\"")));
        }
        targets.push(index);
    }
    Ok(targets)
}

/// The query that reads the rows to be changed, with the new values behind them.
fn reading(relation: &Relation, change: &Change<'_>) -> Result<sql::Query, WireError> {
    let quote = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
    let schema = Write::memory_schema(relation);
    let source = change.alias.map_or_else(|| quote(&relation.name), |a| quote(&sql::fold(a)));
    let mut items: Vec<String> =
        schema.fields().iter().map(|f| format!("{source}.{}", quote(f.name()))).collect();
    for (i, (column, value)) in change.assignments.iter().enumerate() {
        let value = match value {
            Expr::Identifier(word) if sql::fold(word) == "default" && word.quote_style.is_none() => {
                let column = relation.column(&sql::fold(column)).map(|c| &relation.columns[c]);
                column.and_then(|c| c.default.clone()).unwrap_or_else(|| "NULL".into())
            }
            value => value.to_string(),
        };
        items.push(format!("({value}) AS \"\u{1}set{i}\""));
    }
    let alias = change.alias.map(|a| format!(" AS {a}")).unwrap_or_default();
    let condition = change.selection.map(|s| format!(" WHERE {s}")).unwrap_or_default();
    let others: String = change.others.iter().map(|other| format!(", {other}")).collect();
    // A row that meets several of others changes once.
    let mut once = String::new();
    if !others.is_empty() {
        let key: Vec<&str> = Write::memory_key(relation).into_iter().map(|at| items[at].as_str()).collect();
        once = format!("DISTINCT ON ({}) ", key.join(", "));
    }
    let items = items.join(", ");
    let text = format!("SELECT {once}{items} FROM {}{alias}{others}{condition}", change.name);
    Ok(sql::parse_query(&text)?)
}

async fn read(
    session: &mut Session,
    relation: &Arc<Relation>,
    change: &Change<'_>,
    parameters: &Parameters,
) -> Result<RecordBatch, WireError> {
    let query = reading(relation, change)?;
    let snapshot = session.snapshot().await?;
    let schema = Write::memory_schema(relation);
    let target = Some((relation.id, &schema));
    let binder = session.question_binder(&snapshot.catalog).with_target(target);
    let bound = binder.batch(&query)?;
    let plan = parameters.apply(bound.plan)?;
    let answer = PullContext { snapshot, state: session.state() }.answer(plan).await?;
    as_kept(&held::no_more_rows(answer).await?, &schema)
}

/// Rows whose first columns are a table's, with these in the types that the table has them in.
fn as_kept(rows: &RecordBatch, table: &Schema) -> Result<RecordBatch, WireError> {
    let (schema, mut columns) = (rows.schema(), rows.columns().to_vec());
    let mut fields: Vec<Field> = schema.fields().iter().map(|field| field.as_ref().clone()).collect();
    for (own, (column, field)) in table.fields().iter().zip(columns.iter_mut().zip(&mut fields)) {
        *column = cast(column, own.data_type())?;
        field.set_data_type(own.data_type().clone());
    }
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
}

/// Types of the parameters of an UPDATE or DELETE.
pub(super) async fn parameter_types(
    session: &mut Session,
    statement: &Statement,
) -> Result<Vec<Field>, WireError> {
    let (name, change, privilege) = match statement {
        Statement::Update(update) => (&update.name, change_of_update(update), Privilege::Update),
        Statement::Delete(delete) => (&delete.name, change_of_delete(delete), Privilege::Delete),
        _ => return Ok(Vec::new()),
    };
    let relation = writable(session, name, privilege)?;
    let query = reading(&relation, &change)?;
    let snapshot = session.snapshot().await?;
    let schema = Write::memory_schema(&relation);
    let target = Some((relation.id, &schema));
    let binder = session.question_binder(&snapshot.catalog).with_target(target);
    let bound = binder.batch(&query)?;
    let mut types = super::prepare::parameter_types(&bound.plan)?;
    // SET column = $1 needs the column's type, which a bare parameter does not tell.
    for (index, (_, value)) in assigned(&relation, change.assignments)?.into_iter().zip(change.assignments) {
        if let Expr::Value(v) = value
            && let sql::sqlparser::ast::Value::Placeholder(p) = &v.value
            && let Some(slot) =
                p.trim_start_matches('$').parse::<usize>().ok().and_then(|n| types.get_mut(n.wrapping_sub(1)))
        {
            *slot = session.settings.in_zone(relation.columns[index].field());
        }
    }
    Ok(types)
}
