//! Subqueries in what aggregates, OVER and ORDER BY compute with: columns of a projection below them, where
//! subqueries are resolved.
//!
//! Invariant: what is above has the columns it had, with their names.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, Result};
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder};

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
        let (LogicalPlan::Aggregate(_) | LogicalPlan::Window(_) | LogicalPlan::Sort(_)) = node else {
            return Ok(None);
        };
        let exprs = node.expressions();
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
        let (old, computed) = (Arc::clone(node.schema()), exprs.len());
        let passed = match &node {
            LogicalPlan::Aggregate(_) => 0,
            _ => old.fields().len() - if matches!(node, LogicalPlan::Window(_)) { computed } else { 0 },
        };
        let plan = node.with_new_exprs(exprs, vec![below])?;
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
