//! INSERT … ON CONFLICT: what becomes of rows whose key is there.
//!
//! The new rows meet the table's in a join, under the table's lock; what comes out is written as any INSERT is.
//! Without ON CONFLICT an INSERT replaces the row of its key. Source: PostgreSQL, INSERT, "ON CONFLICT Clause".

use std::ops::ControlFlow;
use std::sync::Arc;

use datafusion::arrow::array::{RecordBatch, UInt32Array};
use datafusion::arrow::compute::take_record_batch;
use datafusion::arrow::row::{RowConverter, SortField};
use executor::PullContext;
use planner::Relation;
use sql::sqlparser::ast::{Expr, Ident, VisitMut, VisitorMut};
use sql::{ConflictAction, OnConflict};

use super::returning::{WRITTEN, Written};
use super::{Parameters, held};
use crate::pg::WireError;
use crate::session::Session;

/// Checks that the table has the key that a conflict would be about.
pub(super) fn check(relation: &Relation, conflict: &OnConflict) -> Result<(), WireError> {
    let named: Vec<String> = conflict.columns.iter().map(sql::fold).collect();
    let key: Vec<&String> = relation.key.iter().map(|k| &relation.columns[*k].name).collect();
    let is_key = named.len() == key.len() && key.iter().all(|k| named.contains(k));
    if relation.key.is_empty() || !(named.is_empty() || is_key) {
        let message = "there is no unique or exclusion constraint matching the ON CONFLICT specification";
        return Err(
            WireError::new("42P10", message).hint("ON CONFLICT names the columns of the primary key.")
        );
    }
    Ok(())
}

/// The rows to write, of those that an INSERT gives. The caller holds the table's lock.
pub(super) async fn resolve(
    session: &mut Session,
    relation: &Arc<Relation>,
    conflict: &OnConflict,
    rows: RecordBatch,
    parameters: &Parameters,
) -> Result<RecordBatch, WireError> {
    let rows = once_each(relation, conflict, rows)?;
    let query = sql::parse_query(&meeting(relation, conflict)?)?;
    let snapshot = session.snapshot().await?;
    let written = Written(rows);
    let binder = session.question_binder(&snapshot.catalog).with_fallback(&written);
    let plan = parameters.apply(binder.batch(&query)?.plan)?;
    let answer = PullContext { snapshot, state: session.state() }.answer(plan).await?;
    let all = held::no_more_rows(answer).await?;
    let columns = relation.columns.iter().zip(all.columns());
    let columns = columns.map(|(column, array)| super::insert::assigned(session, array, column));
    let columns = columns.collect::<Result<Vec<_>, WireError>>()?;
    Ok(RecordBatch::try_new(written.0.schema(), columns)?)
}

/// Of rows with one key the first; with DO UPDATE there must be one.
fn once_each(
    relation: &Relation,
    conflict: &OnConflict,
    rows: RecordBatch,
) -> Result<RecordBatch, WireError> {
    let key: Vec<_> = relation.key.iter().map(|k| Arc::clone(rows.column(*k))).collect();
    let fields = key.iter().map(|array| SortField::new(array.data_type().clone())).collect();
    let encoded = RowConverter::new(fields)?.convert_columns(&key)?;
    let mut seen = std::collections::HashSet::new();
    let first: Vec<u32> =
        (0u32..).zip(encoded.iter()).filter(|(_, row)| seen.insert(*row)).map(|(n, _)| n).collect();
    if first.len() == rows.num_rows() {
        return Ok(rows);
    }
    if matches!(conflict.action, ConflictAction::Update { .. }) {
        let message = "ON CONFLICT DO UPDATE command cannot affect row a second time";
        let hint = "Ensure that no rows proposed for insertion within the same command have duplicate keys.";
        return Err(WireError::new("21000", message).hint(hint));
    }
    Ok(take_record_batch(&rows, &UInt32Array::from(first))?)
}

/// The query whose rows are to be written: new rows beside those that are there.
fn meeting(relation: &Relation, conflict: &OnConflict) -> Result<String, WireError> {
    let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
    let table = quoted(&relation.name);
    let keys = relation.key.iter().map(|k| quoted(&relation.columns[*k].name));
    let equal: Vec<String> = keys.map(|k| format!("{table}.{k} = excluded.{k}")).collect();
    let is_there = format!("{table}.{} IS NOT NULL", quoted(&relation.columns[relation.key[0]].name));
    let (assignments, selection) = match &conflict.action {
        ConflictAction::Nothing => (&[][..], None),
        ConflictAction::Update { assignments, selection } => (assignments.as_slice(), selection.as_deref()),
    };
    for (name, _) in assignments {
        let name = sql::fold(name);
        match relation.column(&name) {
            None => {
                let message = format!("column \"{name}\" of relation \"{}\" does not exist", relation.name);
                return Err(WireError::new("42703", message));
            }
            Some(at) if relation.key.contains(&at) => {
                return Err(WireError::unsupported("a new key in ON CONFLICT DO UPDATE"));
            }
            Some(_) => {}
        }
    }
    let value = |name: &str| {
        let assigned = assignments.iter().find(|(column, _)| sql::fold(column) == name);
        let new = assigned.map(|(_, value)| of_table(relation, value).to_string());
        let old = || format!("{table}.{}", quoted(name));
        let (new, quoted) = (new.unwrap_or_else(old), quoted(name));
        format!("CASE WHEN {is_there} THEN ({new}) ELSE excluded.{quoted} END AS {quoted}")
    };
    let values: Vec<String> = relation.columns.iter().map(|column| value(&column.name)).collect();
    let kept = match (&conflict.action, selection) {
        (ConflictAction::Nothing, _) => format!(" WHERE NOT ({is_there})"),
        (_, Some(condition)) => {
            format!(" WHERE NOT ({is_there}) OR ({})", of_table(relation, condition))
        }
        _ => String::new(),
    };
    Ok(format!(
        "SELECT {} FROM \"{WRITTEN}\" AS excluded LEFT JOIN {table} ON {}{kept}",
        values.join(", "),
        equal.join(" AND ")
    ))
}

/// An expression in which a bare column is the table's: `excluded` is named.
fn of_table(relation: &Relation, expr: &Expr) -> Expr {
    struct Qualify<'a>(&'a Relation);
    impl VisitorMut for Qualify<'_> {
        type Break = ();
        fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
            if let Expr::Identifier(name) = expr
                && self.0.column(&sql::fold(name)).is_some()
            {
                *expr = Expr::CompoundIdentifier(vec![Ident::with_quote('"', &self.0.name), name.clone()]);
            }
            ControlFlow::Continue(())
        }
    }
    let mut expr = expr.clone();
    // The visitor never breaks.
    let _ = VisitMut::visit(&mut expr, &mut Qualify(relation));
    expr
}
