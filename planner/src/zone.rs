//! A question as it is meant in a session's time zone.
//!
//! Instants (TIMESTAMPTZ) are kept in UTC. Where a session has another zone, its question sees them as Arrow's
//! timestamps of that zone: functions, casts and whoever writes the answer then know it from the type.
//! Invariant: only what a value looks like and what day it belongs to changes, never the instant. Queries that go on
//! for ever have no session and stay in UTC.
//! Source: PostgreSQL, "Date/Time Types", Time Zones.

use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Field, FieldRef, TimeUnit};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchema, Result, ScalarValue};
use datafusion::logical_expr::expr::{Cast, Placeholder, ScalarFunction, TryCast};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, Projection, Union, Values, lit};

use crate::functions::at_time_zone;

/// Functions that show the time of day of an instant, or its day.
const LOCAL: [&str; 2] = ["to_char", "date"];

/// The type in a zone, if it is one of instants.
fn type_in_zone(data_type: &DataType, zone: &str) -> Option<DataType> {
    match data_type {
        DataType::Timestamp(unit, Some(_)) => Some(DataType::Timestamp(*unit, Some(zone.into()))),
        _ => None,
    }
}

/// The field with its type in a zone.
pub fn field_in_zone(field: &Field, zone: &str) -> Field {
    match type_in_zone(field.data_type(), zone) {
        Some(data_type) => field.clone().with_data_type(data_type),
        None => field.clone(),
    }
}

/// The plan in a zone. Not for plans of queries that go on.
///
/// # Errors
/// Whatever DataFusion says of the pieces.
pub(crate) fn in_zone(plan: LogicalPlan, zone: &str) -> Result<LogicalPlan> {
    plan.transform_up_with_subqueries(|node| node_in_zone(node, zone))?.data.recompute_schema()
}

fn node_in_zone(node: LogicalPlan, zone: &str) -> Result<Transformed<LogicalPlan>> {
    if let LogicalPlan::TableScan(_) = &node {
        return scan_in_zone(node, zone);
    }
    let schema = merge_schema(&node.inputs());
    let names = NamePreserver::new(&node);
    let node = node.map_expressions(|expr| {
        let name = names.save(&expr);
        expr_in_zone(expr, &schema, zone).map(|expr| expr.update_data(|expr| name.restore(expr)))
    })?;
    let node = match node.data {
        // These two keep the types that they had.
        LogicalPlan::Values(Values { schema, values }) => {
            let fields = schema
                .iter()
                .map(|(qualifier, field)| (qualifier.cloned(), Arc::new(field_in_zone(field, zone))));
            let schema = DFSchema::new_with_metadata(fields.collect(), schema.metadata().clone())?;
            LogicalPlan::Values(Values { schema: Arc::new(schema), values })
        }
        LogicalPlan::Union(union) => LogicalPlan::Union(Union::try_new_with_loose_types(union.inputs)?),
        node => node.recompute_schema()?,
    };
    Ok(Transformed::yes(node))
}

/// What it reads, with its instants in the zone, under the same names.
fn scan_in_zone(scan: LogicalPlan, zone: &str) -> Result<Transformed<LogicalPlan>> {
    if !scan.schema().fields().iter().any(|field| is_instant(field.data_type())) {
        return Ok(Transformed::no(scan));
    }
    let shown = |(qualifier, field): (Option<&datafusion::common::TableReference>, &FieldRef)| {
        let column = Expr::Column(Column::new(qualifier.cloned(), field.name()));
        match type_in_zone(field.data_type(), zone) {
            Some(data_type) => cast(column, data_type).alias_qualified(qualifier.cloned(), field.name()),
            None => column,
        }
    };
    let columns = scan.schema().iter().map(shown).collect();
    Ok(Transformed::yes(LogicalPlan::Projection(Projection::try_new(columns, Arc::new(scan))?)))
}

fn expr_in_zone(expr: Expr, schema: &DFSchema, zone: &str) -> Result<Transformed<Expr>> {
    expr.transform_up(|expr| {
        let changed = match expr {
            Expr::Cast(Cast { expr, field }) => cast_in_zone(*expr, &field, schema, zone),
            Expr::TryCast(TryCast { expr, field }) => {
                Expr::TryCast(TryCast { expr, field: Arc::new(field_in_zone(&field, zone)) })
            }
            Expr::ScalarFunction(function) => function_in_zone(function, schema, zone),
            Expr::OuterReferenceColumn(field, column) => {
                Expr::OuterReferenceColumn(Arc::new(field_in_zone(&field, zone)), column)
            }
            Expr::Placeholder(Placeholder { id, field }) => {
                let field = field.map(|field| Arc::new(field_in_zone(&field, zone)));
                Expr::Placeholder(Placeholder { id, field })
            }
            Expr::Literal(ScalarValue::TimestampMicrosecond(at, Some(_)), metadata) => {
                Expr::Literal(ScalarValue::TimestampMicrosecond(at, Some(zone.into())), metadata)
            }
            other => return Ok(Transformed::no(other)),
        };
        Ok(Transformed::yes(changed))
    })
}

fn cast_in_zone(expr: Expr, field: &FieldRef, schema: &DFSchema, zone: &str) -> Expr {
    let instant = expr.get_type(schema).is_ok_and(|from| is_instant(&from));
    match field.data_type() {
        DataType::Timestamp(TimeUnit::Microsecond, None) if instant => local(expr, zone),
        DataType::Timestamp(_, None) | DataType::Date32 | DataType::Time64(_) if instant => {
            Expr::Cast(Cast { expr: Box::new(local(expr, zone)), field: Arc::clone(field) })
        }
        _ => Expr::Cast(Cast { expr: Box::new(expr), field: Arc::new(field_in_zone(field, zone)) }),
    }
}

fn function_in_zone(mut function: ScalarFunction, schema: &DFSchema, zone: &str) -> Expr {
    if LOCAL.contains(&function.name())
        && let Some(first) = function.args.first_mut()
        && first.get_type(schema).is_ok_and(|from| is_instant(&from))
    {
        *first = local(std::mem::take(first), zone);
    }
    // Without a zone of its own it means the session's.
    if function.name() == "make_timestamptz" && function.args.len() == 6 {
        function.args.push(lit(zone));
    }
    let expr = Expr::ScalarFunction(function);
    match expr.get_type(schema).ok().and_then(|given| type_in_zone(&given, zone)) {
        Some(data_type) => cast(expr, data_type),
        None => expr,
    }
}

/// The time on the wall in the zone.
fn local(instant: Expr, zone: &str) -> Expr {
    at_time_zone().call(vec![lit(zone), instant])
}

fn cast(expr: Expr, data_type: DataType) -> Expr {
    Expr::Cast(Cast { expr: Box::new(expr), field: Arc::new(Field::new("", data_type, true)) })
}

fn is_instant(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Timestamp(_, Some(_)))
}
