//! Sides of joins that need no state: rows of a table that are found by its key are found in the table.
//!
//! So a table is kept once, however many queries look rows up in it. Invariant: what is said here
//! depends on the plan alone, so that a join does the same on every replay.

use std::sync::Arc;

use datafusion::logical_expr::{Expr, ExprSchemable};

use super::{Dataflow, Node, NodeKind};
use crate::catalog::Relation;

/// A side of a join that is a table with its key.
#[derive(Debug, Clone)]
pub struct SharedSide {
    /// 0 for the left side, 1 for the right one.
    pub side: usize,
    /// The table.
    pub relation: Arc<Relation>,
    /// Its columns that the join reads, in [`Relation::full_schema`].
    pub columns: Vec<usize>,
    /// The pairs of the join's condition, in the order of the table's key.
    pub order: Vec<usize>,
}

impl Dataflow {
    /// The side of a join whose rows are in a table that others keep; the right one if both are.
    pub fn shared_side(&self, node: &Node) -> Option<SharedSide> {
        match &node.kind {
            NodeKind::Join { on, within: None, .. } => {
                self.table_side(node, on, 1).or_else(|| self.table_side(node, on, 0))
            }
            NodeKind::Lookup { on, .. } => self.table_side(node, on, 1),
            _ => None,
        }
    }

    fn table_side(&self, node: &Node, on: &[(Expr, Expr)], side: usize) -> Option<SharedSide> {
        let input = &self.nodes[node.inputs[side]];
        let other = &self.nodes[node.inputs[1 - side]];
        let NodeKind::Source { relation, columns } = &input.kind else { return None };
        if relation.is_stream() || relation.key.is_empty() || relation.key.len() != on.len() {
            return None;
        }
        let mut named = Vec::with_capacity(on.len());
        for (left, right) in on {
            let (own, theirs) = if side == 0 { (left, right) } else { (right, left) };
            let Expr::Column(column) = own else { return None };
            if own.get_type(&input.schema).ok()? != theirs.get_type(&other.schema).ok()? {
                return None;
            }
            named.push(columns[input.schema.maybe_index_of_column(column)?]);
        }
        let order =
            relation.key.iter().map(|key| named.iter().position(|n| n == key)).collect::<Option<_>>()?;
        Some(SharedSide { side, relation: Arc::clone(relation), columns: columns.clone(), order })
    }
}
