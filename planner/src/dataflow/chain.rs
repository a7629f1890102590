//! OVER windows on OVER windows, computed together where all of them have a part of PARTITION BY in
//! common: one fragment, rows and results kept once. Session windows are such a chain.

use std::sync::Arc;

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema};
use datafusion::logical_expr::{Expr, LogicalPlan, Operator};

use super::convert::Converter;
use super::fragment::RowsInput;
use super::ranking::common_columns;
use super::{NodeId, NodeKind};
use crate::error::Result;

impl Converter {
    /// The chain of windows that ends in `top`; None when there is no chain, or nothing in common.
    pub(super) fn window_chain(&mut self, top: &LogicalPlan) -> Result<Option<NodeId>> {
        let Some((links, base)) = chain(top) else { return Ok(None) };
        let Some(partition) = common(&links, base.schema()) else { return Ok(None) };
        let outputs: Vec<Option<Column>> =
            top.schema().columns().iter().map(|output| trace(output, &links)).collect();
        let place = |column: &Column| outputs.iter().position(|o| o.as_ref() == Some(column));
        let Some(key_columns) = partition.iter().map(place).collect::<Option<Vec<_>>>() else {
            return Ok(None);
        };
        let kept = base.schema().columns().iter().map(place).collect();
        let input = self.node(base)?;
        let mut fragment = RowsInput::plan(&self.nodes[input].schema)?;
        for link in links.iter().rev() {
            fragment = link.with_new_exprs(link.expressions(), vec![fragment])?;
        }
        let partition = partition.into_iter().map(Expr::Column).collect();
        let fragment = Arc::new(fragment);
        let kind = NodeKind::Recompute { partition, key_columns, kept, fragment };
        Ok(Some(self.push(kind, vec![input], top.schema())))
    }
}

/// Windows and the projections between them, the last first, and what they are over.
fn chain(top: &LogicalPlan) -> Option<(Vec<&LogicalPlan>, &LogicalPlan)> {
    let (mut links, mut at, mut windows) = (Vec::new(), top, 0);
    loop {
        match at {
            LogicalPlan::Window(window) => {
                windows += 1;
                links.push(at);
                at = &window.input;
            }
            LogicalPlan::Projection(projection) if projection.expr.iter().all(cannot_fail) => {
                links.push(at);
                at = &projection.input;
            }
            _ => break,
        }
    }
    // Projections below the lowest window belong to what the chain is over.
    while let Some(LogicalPlan::Projection(_)) = links.last() {
        at = links.pop()?;
    }
    (windows > 1).then_some((links, at))
}

/// Whether an expression has a value for every row: a row that fails must be rejected alone, which
/// is only done outside of fragments.
fn cannot_fail(expr: &Expr) -> bool {
    let mut safe = true;
    let walked = expr.apply(|e| {
        safe &= match e {
            Expr::Column(_) | Expr::Literal(..) | Expr::Alias(_) | Expr::Case(_) | Expr::Not(_) => true,
            Expr::IsNull(_) | Expr::IsNotNull(_) => true,
            Expr::BinaryExpr(binary) => {
                binary.op.supports_propagation() || matches!(binary.op, Operator::Plus | Operator::Minus)
            }
            _ => false,
        };
        Ok(if safe { TreeNodeRecursion::Continue } else { TreeNodeRecursion::Stop })
    });
    safe && walked.is_ok()
}

/// Columns of the base by which every window of the chain is parted; None when there are none.
fn common(links: &[&LogicalPlan], base: &DFSchema) -> Option<Vec<Column>> {
    let mut partitions = Vec::new();
    for (at, link) in links.iter().enumerate() {
        let LogicalPlan::Window(window) = link else { continue };
        for call in &window.window_expr {
            let Expr::WindowFunction(function) = call.clone().unalias() else { return None };
            let parts = function.params.partition_by.iter().filter_map(Expr::try_as_col);
            let below = parts.filter_map(|column| trace(column, &links[at + 1..]));
            partitions.push(below.filter(|column| base.has_column(column)).collect());
        }
    }
    Some(common_columns(partitions)).filter(|c| !c.is_empty())
}

/// The column of the base that a column above the links is.
fn trace(column: &Column, links: &[&LogicalPlan]) -> Option<Column> {
    let mut column = column.clone();
    for link in links {
        match link {
            LogicalPlan::Projection(projection) => {
                let at = projection.schema.maybe_index_of_column(&column)?;
                match projection.expr.get(at)?.clone().unalias() {
                    Expr::Column(below) => column = below,
                    _ => return None,
                }
            }
            LogicalPlan::Window(window) => {
                if !window.input.schema().has_column(&column) {
                    return None;
                }
            }
            _ => return None,
        }
    }
    Some(column)
}
