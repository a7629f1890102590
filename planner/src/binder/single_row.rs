//! Scalar subqueries that may have more rows than one: their value is that of the only row, NULL without one,
//! and an error where there are more.
//!
//! Invariant: behind here every scalar subquery has one row by its form, or by a key.
//! Source: PostgreSQL, "Scalar Subqueries"; SQLSTATE 21000.

use std::collections::HashSet;
use std::sync::Arc;

use datafusion::arrow::datatypes::DataType;
use datafusion::common::metadata::FieldMetadata;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, Result, internal_err};
use datafusion::functions_aggregate::expr_fn::{array_agg, bool_and, count, min};
use datafusion::functions_nested::expr_fn::array_element;
use datafusion::logical_expr::logical_plan as logical;
use datafusion::logical_expr::logical_plan::FetchType;
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, Operator, Subquery, lit};

use crate::functions::{SINGLE_ROW, single_row};
use crate::source::RelationSource;

/// Gives each scalar subquery of a plan one row.
pub(super) fn ensure(plan: LogicalPlan) -> Result<LogicalPlan> {
    let ensured = plan.transform_up_with_subqueries(|node| {
        node.map_expressions(|expr| {
            expr.transform(|e| match e {
                Expr::ScalarSubquery(subquery) if !is_one_row(&subquery.subquery) => {
                    let plan = Arc::new(only_row(&subquery.subquery)?);
                    Ok(Transformed::yes(Expr::ScalarSubquery(Subquery { subquery: plan, ..subquery })))
                }
                e => Ok(Transformed::no(e)),
            })
        })
    })?;
    Ok(ensured.data)
}

/// The value of a plan's only row, as one row.
fn only_row(plan: &LogicalPlan) -> Result<LogicalPlan> {
    let (qualifier, field) = plan.schema().qualified_field(0);
    let column = Expr::Column(Column::new(qualifier.cloned(), field.name()));
    let nested = field.data_type().is_nested();
    let value = match field.data_type() {
        DataType::Boolean => bool_and(column),
        _ if nested => array_agg(column),
        _ => min(column),
    };
    let one = LogicalPlanBuilder::from(plan.clone()).aggregate(Vec::<Expr>::new(), [count(lit(1)), value])?;
    let mut columns = one.schema().columns().into_iter().map(Expr::Column);
    let (Some(rows), Some(value)) = (columns.next(), columns.next()) else {
        return internal_err!("an aggregate without its columns");
    };
    let value = if nested { array_element(value, lit(1)) } else { value };
    let metadata = Some(FieldMetadata::from(field.as_ref())).filter(|metadata| !metadata.is_empty());
    let checked = single_row().call(vec![rows, value]);
    one.project([checked.alias_with_metadata(field.name(), metadata)])?.build()
}

/// The check of a plan's only row, and what it reads: how many rows there are, and the value.
pub(super) struct Check<'a> {
    pub(super) below: &'a LogicalPlan,
    value: &'a Expr,
}

impl<'a> Check<'a> {
    /// That of [`only_row`]; None for a plan that needs none.
    pub(super) fn of(plan: &'a LogicalPlan) -> Option<Self> {
        let LogicalPlan::Projection(projection) = plan else { return None };
        let [value] = projection.expr.as_slice() else { return None };
        let is_check = matches!(value.clone().unalias(), Expr::ScalarFunction(f) if f.name() == SINGLE_ROW);
        is_check.then_some(Self { below: &projection.input, value })
    }

    /// The check over other columns, as a column of that name.
    pub(super) fn over(self, read: &[Column], name: &str) -> Result<Expr> {
        let places = self.below.schema().columns();
        let over = self.value.clone().transform(|e| {
            let Expr::Column(column) = &e else { return Ok(Transformed::no(e)) };
            let at = places.iter().position(|place| place == column);
            let other = at.and_then(|at| read.get(at)).cloned();
            Ok(other
                .map_or_else(|| Transformed::no(e.clone()), |other| Transformed::yes(Expr::Column(other))))
        })?;
        Ok(match over.data {
            Expr::Alias(alias) => alias.expr.alias_with_metadata(name, alias.metadata),
            other => other.alias(name),
        })
    }
}

/// Whether a subquery gives one row at most, by its form or by a key.
fn is_one_row(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Aggregate(aggregate) => aggregate.group_expr.is_empty(),
        LogicalPlan::EmptyRelation(_) => true,
        LogicalPlan::Values(values) => values.values.len() == 1,
        LogicalPlan::Filter(filter) => is_one_row(&filter.input) || is_of_one_key(filter),
        LogicalPlan::Projection(_)
        | LogicalPlan::SubqueryAlias(_)
        | LogicalPlan::Subquery(_)
        | LogicalPlan::Sort(_)
        | LogicalPlan::Distinct(logical::Distinct::All(_)) => plan.inputs().into_iter().all(is_one_row),
        LogicalPlan::Limit(limit) => {
            matches!(limit.get_fetch_type(), Ok(FetchType::Literal(Some(0 | 1)))) || is_one_row(&limit.input)
        }
        _ => false,
    }
}

/// Whether a condition says what every column of a table's key is.
fn is_of_one_key(filter: &logical::Filter) -> bool {
    let mut below = filter.input.as_ref();
    while let LogicalPlan::SubqueryAlias(alias) = below {
        below = &alias.input;
    }
    let LogicalPlan::TableScan(scan) = below else { return false };
    let source: &dyn std::any::Any = scan.source.as_ref();
    let Some(relation) = source.downcast_ref::<RelationSource>().map(|source| &source.relation) else {
        return false;
    };
    let conditions = split_conjunction(&filter.predicate).into_iter();
    let said: HashSet<&str> = conditions.filter_map(column_that_equals).collect();
    !relation.key.is_empty() && relation.key.iter().all(|k| said.contains(relation.columns[*k].name.as_str()))
}

/// The column of `column = …`, where the other side does not depend on the same rows, as a subquery may.
fn column_that_equals(condition: &Expr) -> Option<&str> {
    let Expr::BinaryExpr(binary) = condition else { return None };
    let sides = [(&binary.left, &binary.right), (&binary.right, &binary.left)];
    sides.into_iter().filter(|_| binary.op == Operator::Eq).find_map(|(column, other)| {
        match column.as_ref() {
            Expr::Column(column) if !other.any_column_refs() && !has_subquery(other) => {
                Some(column.name.as_str())
            }
            _ => None,
        }
    })
}

fn has_subquery(expr: &Expr) -> bool {
    let subquery =
        |e: &Expr| Ok(matches!(e, Expr::ScalarSubquery(_) | Expr::InSubquery(_) | Expr::Exists(_)));
    expr.exists(subquery).unwrap_or(true)
}
