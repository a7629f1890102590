//! What is known about a node's rows: whether they may be taken back, and which columns name one.

use datafusion::logical_expr::{Expr, LogicalPlan};

use super::{Node, NodeId, NodeKind};
use crate::catalog::RelationKind;

/// Whether rows of a node only ever come.
pub(super) fn append_only(nodes: &[Node], id: NodeId) -> bool {
    let node = &nodes[id];
    match &node.kind {
        NodeKind::Source { relation, .. } => relation.is_stream(),
        NodeKind::EmitFinal { .. } => true,
        NodeKind::TemporalFilter(_)
        | NodeKind::Now
        | NodeKind::Aggregate { .. }
        | NodeKind::TopN { .. }
        | NodeKind::Recompute { .. }
        | NodeKind::Negate => false,
        NodeKind::Lookup { .. } => node.inputs.first().is_some_and(|left| append_only(nodes, *left)),
        _ => node.inputs.iter().all(|input| append_only(nodes, *input)),
    }
}

/// Columns of a node's rows whose values name one row at a time; empty if none are known.
pub(super) fn key(nodes: &[Node], id: NodeId) -> Vec<usize> {
    let node = &nodes[id];
    let input = |n: usize| node.inputs.get(n).map(|id| (key(nodes, *id), nodes[*id].schema.fields().len()));
    match &node.kind {
        NodeKind::Source { relation, columns } if relation.kind != RelationKind::Stream => {
            positions(&relation.key, |k| columns.iter().position(|c| c == k))
        }
        NodeKind::Filter(_)
        | NodeKind::TemporalFilter(_)
        | NodeKind::TopN { .. }
        | NodeKind::EmitFinal { .. } => input(0).map(|(key, _)| key).unwrap_or_default(),
        NodeKind::Project(exprs) => {
            let (key, _) = input(0).unwrap_or_default();
            let schema = &nodes[node.inputs[0]].schema;
            positions(&key, |k| exprs.iter().position(|e| column_index(e, schema) == Some(*k)))
        }
        NodeKind::Aggregate { group, .. } => (0..group.len()).collect(),
        NodeKind::Recompute { key_columns, kept, fragment, .. } => match fragment.as_ref() {
            LogicalPlan::Aggregate(_) => key_columns.clone(),
            // A window adds columns to rows.
            _ => {
                let (key, _) = input(0).unwrap_or_default();
                positions(&key, |k| kept.get(*k).copied().flatten())
            }
        },
        NodeKind::Window { .. } => match input(0) {
            Some((key, width)) if !key.is_empty() => key.into_iter().chain([width, width + 1]).collect(),
            _ => Vec::new(),
        },
        NodeKind::Join { .. } => match (input(0), input(1)) {
            (Some((left, width)), Some((right, _))) if !left.is_empty() && !right.is_empty() => {
                left.into_iter().chain(right.into_iter().map(|k| width + k)).collect()
            }
            _ => Vec::new(),
        },
        _ => Vec::new(),
    }
}

/// All of `key` mapped, or nothing.
fn positions(key: &[usize], find: impl Fn(&usize) -> Option<usize>) -> Vec<usize> {
    key.iter().map(find).collect::<Option<Vec<_>>>().unwrap_or_default()
}

/// The column an expression passes through unchanged.
fn column_index(expr: &Expr, schema: &datafusion::common::DFSchema) -> Option<usize> {
    match expr {
        Expr::Column(column) => schema.maybe_index_of_column(column),
        Expr::Alias(alias) => column_index(&alias.expr, schema),
        _ => None,
    }
}
