//! INSERT INTO … SELECT … EMIT CHANGES: a query whose rows go to a stream that is there.
//!
//! Source: ksqlDB, "INSERT INTO". The query has a name of its own, so that it can be paused, ended and
//! dropped; its rows are the stream's, and nobody can read it.

use std::sync::Arc;

use datafusion::common::ScalarValue;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder, cast};
use sql::Insert;

use crate::binder::{BindOptions, Binder};
use crate::catalog::{Relation, RelationId, TopicRef, ViewQuery};
use crate::create::{check_cycle, is_carried};
use crate::dataflow::{Dataflow, Joins};
use crate::error::{Error, Result};
use crate::functions::{is_rounded, rounded};

/// The query of INSERT INTO … SELECT … EMIT, as a relation that writes to the target's topic.
///
/// # Errors
/// A target that is no stream, columns that do not fit, a query whose rows change, a cycle.
pub fn plan_insert(binder: &Binder<'_>, insert: &Insert, id: RelationId, text: &str) -> Result<Relation> {
    let catalog = binder.catalog();
    let target = catalog.resolve(&insert.name)?;
    if !target.is_stream() || target.target.is_some() {
        return Err(Error::WrongKind { name: target.name.clone(), expected: "stream" });
    }
    if target.read_only {
        return Err(Error::ReadOnly { name: target.name.clone(), action: "insert into" });
    }
    let Some(query) = &insert.source else {
        return Err(Error::Definition("INSERT … EMIT needs a query".into()));
    };
    if let Some(column) = target.read_only_headers() {
        return Err(Error::Definition(format!(
            "cannot insert into \"{}\": its column \"{}\" is one of headers, which are read only",
            target.name, column.name
        )));
    }
    let emit = query.emit.unwrap_or(sql::Emit::Changes);
    let emit_final = emit == sql::Emit::Final;
    let passes_valueless = target.marks_valueless();
    let bind = BindOptions { row_time: true, emit_final, passes_valueless, ..BindOptions::default() };
    let (plan, views) = binder.plan_with_views(query, bind)?;
    let plan = as_rows_of(target, insert, plan)?;
    let dataflow = Dataflow::try_new(binder.state, &plan, Joins::StreamTable, emit)?;
    if !dataflow.append_only {
        return Err(Error::Definition(format!(
            "the query's rows change, but those of stream \"{}\" only come",
            target.name
        )));
    }
    let name = format!("insertquery_{id}");
    let relation = Relation {
        id,
        first_name: name.clone(),
        name,
        columns: target.columns.clone(),
        key: Vec::new(),
        record_key: target.record_key.clone(),
        topic: TopicRef { named: false, ..target.topic.clone() },
        partitions: target.partitions,
        kind: target.kind,
        time_column: None,
        time_format: None,
        retention: (None, None),
        idle_timeout_ms: None,
        memory_limit: None,
        read_only: false,
        query: Some(ViewQuery::Continuous(Arc::new(dataflow))),
        views,
        target: Some(target.id),
        text: text.to_owned(),
    };
    check_cycle(catalog, &relation)?;
    Ok(relation)
}

/// The query's columns in the places of the target's, each of its type; the record time and the mark of rows
/// without a value behind them.
fn as_rows_of(target: &Relation, insert: &Insert, plan: LogicalPlan) -> Result<LogicalPlan> {
    let columns = plan.schema().columns();
    let (carried, given): (Vec<_>, Vec<_>) = columns.into_iter().partition(|c| is_carried(&c.name));
    let mut places = Vec::new();
    for name in insert.columns.iter().map(sql::fold) {
        let place = target.column(&name);
        let unknown = || Error::UnknownColumn { column: name.clone(), relation: target.name.clone() };
        places.push(place.ok_or_else(unknown)?);
    }
    if places.is_empty() {
        // Fewer are the first ones, as in PostgreSQL.
        places = (0..target.columns.len()).collect();
        places.truncate(given.len().max(1));
    }
    if places.len() != given.len() {
        return Err(Error::Definition(format!(
            "INSERT names {} columns of \"{}\", but its query has {}",
            places.len(),
            target.name,
            given.len()
        )));
    }
    let mut exprs: Vec<Expr> = Vec::new();
    for (index, column) in target.columns.iter().enumerate() {
        let value = match places.iter().position(|place| *place == index) {
            Some(at) => {
                let value = Expr::Column(given[at].clone());
                let rounds = is_rounded(&value.get_type(plan.schema())?, &column.data_type);
                let value = if rounds { rounded(value, plan.schema())? } else { value };
                cast(value, column.data_type.clone())
            }
            None => Expr::Literal(ScalarValue::try_from(&column.data_type)?, None),
        };
        exprs.push(value.alias(column.name.clone()));
    }
    exprs.extend(carried.into_iter().map(Expr::Column));
    Ok(LogicalPlanBuilder::from(plan).project(exprs)?.build()?)
}
