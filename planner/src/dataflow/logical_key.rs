//! Columns that name a row of a query's result, as far as functional dependencies of joins tell.
//!
//! A join whose right rows are found by their whole key has at most one of them for each left row, so
//! the left key names its rows. Invariant: two rows of a result never agree in these columns.

use datafusion::logical_expr::{Expr, Join, JoinType, LogicalPlan};

use crate::source::RelationSource;

/// The key of a plan's rows; None where none is known.
pub(super) fn key(plan: &LogicalPlan) -> Option<Vec<usize>> {
    match plan {
        LogicalPlan::TableScan(scan) => {
            let source: &dyn std::any::Any = scan.source.as_ref();
            let relation = &source.downcast_ref::<RelationSource>()?.relation;
            let shown = |k: &usize| match &scan.projection {
                Some(columns) => columns.iter().position(|c| c == k),
                None => Some(*k),
            };
            if relation.is_stream() { None } else { all(relation.key.iter().map(shown)) }
        }
        LogicalPlan::Projection(projection) => {
            let schema = projection.input.schema();
            let place = |k: usize| projection.expr.iter().position(|e| column(e, schema) == Some(k));
            all(key(&projection.input)?.into_iter().map(place))
        }
        LogicalPlan::Filter(filter) => key(&filter.input),
        LogicalPlan::SubqueryAlias(alias) => key(&alias.input),
        LogicalPlan::Aggregate(aggregate) => {
            let sets = aggregate.group_expr.iter().any(|e| matches!(e, Expr::GroupingSet(_)));
            (!sets && !aggregate.group_expr.is_empty()).then(|| (0..aggregate.group_expr.len()).collect())
        }
        LogicalPlan::Join(join) => of_join(join),
        _ => None,
    }
}

fn of_join(join: &Join) -> Option<Vec<usize>> {
    let (left, right) = (key(&join.left), key(&join.right));
    let width = join.left.schema().fields().len();
    let joined = |side: usize| -> Vec<usize> {
        let schema = if side == 0 { join.left.schema() } else { join.right.schema() };
        let exprs = join.on.iter().map(|(l, r)| if side == 0 { l } else { r });
        exprs.filter_map(|e| column(e, schema)).collect()
    };
    let is_found = |key: &Option<Vec<usize>>, side: usize| {
        let on = joined(side);
        key.as_ref().is_some_and(|key| key.iter().all(|k| on.contains(k)))
    };
    let (one_left, one_right) = (is_found(&left, 0), is_found(&right, 1));
    let shifted = right.map(|key| key.into_iter().map(|k| k + width).collect::<Vec<_>>());
    match join.join_type {
        JoinType::Inner if one_right => left,
        JoinType::Inner if one_left => shifted,
        JoinType::Left if one_right => left,
        JoinType::Right if one_left => shifted,
        JoinType::LeftSemi | JoinType::LeftAnti => left,
        _ => None,
    }
}

/// All of a key, or nothing.
fn all(key: impl Iterator<Item = Option<usize>>) -> Option<Vec<usize>> {
    key.collect::<Option<Vec<_>>>().filter(|key| !key.is_empty())
}

fn column(expr: &Expr, schema: &datafusion::common::DFSchema) -> Option<usize> {
    match expr {
        Expr::Column(name) => schema.maybe_index_of_column(name),
        Expr::Alias(alias) => column(&alias.expr, schema),
        _ => None,
    }
}
