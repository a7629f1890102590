//! Subqueries in what aggregates, OVER, ORDER BY and DISTINCT ON compute with: columns of a projection below them, where
//! subqueries are resolved.
//!
//! Invariant: what is above has the columns it had, with their names.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, Result};
use datafusion::logical_expr::{Distinct, DistinctOn, Expr, LogicalPlan, LogicalPlanBuilder, SortExpr};

/// A node whose subqueries stand below it.
pub(super) struct Apart {
    node: LogicalPlan,
    exprs: Vec<Expr>,
    /// The columns of its input, and the values of the subqueries.
    pub(super) below: LogicalPlan,
}

impl Apart {
    /// None for a node that has no subqueries, or has them where they belong; `found` have been before.
    pub(super) fn of(node: &LogicalPlan, found: &mut usize) -> Result<Option<Self>> {
        let (LogicalPlan::Aggregate(_)
        | LogicalPlan::Window(_)
        | LogicalPlan::Sort(_)
        | LogicalPlan::Distinct(Distinct::On(_))) = node
        else {
            return Ok(None);
        };
        let exprs = computed(node);
        let has_subquery = |e: &Expr| e.exists(|e| Ok(matches!(e, Expr::ScalarSubquery(_))));
        if !exprs.iter().map(has_subquery).collect::<Result<Vec<_>>>()?.contains(&true) {
            return Ok(None);
        }
        let [input] = node.inputs()[..] else { return Ok(None) };
        let mut columns: Vec<Expr> = input.schema().columns().into_iter().map(Expr::Column).collect();
        let mut value = |e: Expr| {
            let Expr::ScalarSubquery(_) = e else { return Ok(Transformed::no(e)) };
            *found += 1;
            let name = format!("\u{1}argument{found}");
            columns.push(e.alias(&name));
            Ok(Transformed::new(Expr::Column(Column::from_name(name)), true, TreeNodeRecursion::Jump))
        };
        let replaced = exprs.into_iter().map(|e| Ok(e.transform_down(&mut value)?.data));
        let exprs = replaced.collect::<Result<Vec<_>>>()?;
        let below = LogicalPlanBuilder::from(input.clone()).project(columns)?.build()?;
        Ok(Some(Self { node: node.clone(), exprs, below }))
    }

    /// The node above what its subqueries have become.
    pub(super) fn above(self, below: LogicalPlan) -> Result<LogicalPlan> {
        let Self { node, exprs, .. } = self;
        let (old, count) = (Arc::clone(node.schema()), exprs.len());
        let passed = match &node {
            LogicalPlan::Aggregate(_) | LogicalPlan::Distinct(_) => 0,
            _ => old.fields().len() - if matches!(node, LogicalPlan::Window(_)) { count } else { 0 },
        };
        let plan = with_computed(node, exprs, below)?;
        // A call over a subquery has another name now, and stands behind more columns.
        let new = plan.schema().columns();
        let behind = new.len() - (old.fields().len() - passed);
        let columns = old.columns().into_iter().enumerate().map(|(at, column)| {
            if at < passed {
                return Expr::Column(column);
            }
            let made = Expr::Column(new[behind + at - passed].clone());
            made.alias_qualified(column.relation, column.name)
        });
        LogicalPlanBuilder::from(plan).project(columns.collect::<Vec<_>>())?.build()
    }
}

/// What a node computes with. DataFusion does not give all of DISTINCT ON, nor take it back.
fn computed(node: &LogicalPlan) -> Vec<Expr> {
    let LogicalPlan::Distinct(Distinct::On(on)) = node else { return node.expressions() };
    let sorts = on.sort_expr.iter().flatten().map(|sort| sort.expr.clone());
    on.on_expr.iter().chain(&on.select_expr).cloned().chain(sorts).collect()
}

/// The node with other expressions over another input.
fn with_computed(node: LogicalPlan, mut exprs: Vec<Expr>, below: LogicalPlan) -> Result<LogicalPlan> {
    let LogicalPlan::Distinct(Distinct::On(on)) = node else {
        return node.with_new_exprs(exprs, vec![below]);
    };
    let mut select = exprs.split_off(on.on_expr.len());
    let sorts = select.split_off(on.select_expr.len());
    let sorts = on.sort_expr.map(|old| {
        let sorts = old.into_iter().zip(sorts);
        sorts.map(|(sort, expr)| SortExpr { expr, ..sort }).collect()
    });
    let on = DistinctOn::try_new(exprs, select, sorts, Arc::new(below))?;
    Ok(LogicalPlan::Distinct(Distinct::On(on)))
}
