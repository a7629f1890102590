//! What is known about a node's rows: whether they may be taken back, and which columns name one.

use datafusion::logical_expr::{Expr, LogicalPlan};

use super::{Node, NodeId, NodeKind};
use crate::catalog::RelationKind;

/// What is known about a node by what is known about its inputs. Each node is asked once: outer joins read
/// their sides several times, so that there are more ways down than anybody could walk.
fn derived<T: Clone>(nodes: &[Node], id: NodeId, of: impl Fn(&Node, &[T]) -> T) -> T {
    let mut known: Vec<T> = Vec::with_capacity(id + 1);
    for node in &nodes[..id] {
        known.push(of(node, &known));
    }
    of(&nodes[id], &known)
}

/// Whether rows of a node only ever come.
pub(super) fn append_only(nodes: &[Node], id: NodeId) -> bool {
    derived(nodes, id, only_grows)
}

fn only_grows(node: &Node, known: &[bool]) -> bool {
    match &node.kind {
        NodeKind::Source { relation, .. } => relation.is_stream(),
        NodeKind::EmitFinal { .. } => true,
        NodeKind::SessionAggregate { emit_final, .. } => *emit_final,
        NodeKind::TemporalFilter(_)
        | NodeKind::Now
        | NodeKind::Aggregate { .. }
        | NodeKind::TopN { .. }
        | NodeKind::Greatest { .. }
        | NodeKind::Recompute { .. }
        | NodeKind::Negate => false,
        // A window may be told the time besides.
        NodeKind::Lookup { .. } | NodeKind::Window { .. } => {
            node.inputs.first().is_some_and(|left| known[*left])
        }
        _ => node.inputs.iter().all(|input| known[*input]),
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
        NodeKind::TopN { partition, skip, fetch, numbered, .. } => {
            let (inner, width) = input(0).unwrap_or_default();
            let schema = &nodes[node.inputs[0]].schema;
            let number = numbered.then_some(width);
            let columns = partition.iter().map(|e| column_index(e, schema));
            match columns.chain(number.map(Some)).collect::<Option<Vec<_>>>() {
                // A row for each partition and number.
                Some(columns) if *numbered || (*skip == 0 && *fetch == 1 && !columns.is_empty()) => columns,
                _ => inner,
            }
        }
        NodeKind::Filter(_)
        | NodeKind::TemporalFilter(_)
        | NodeKind::EmitFinal { .. }
        | NodeKind::Greatest { .. } => input(0).map(|(key, _)| key).unwrap_or_default(),
        NodeKind::Project(exprs) => {
            let (key, _) = input(0).unwrap_or_default();
            let schema = &nodes[node.inputs[0]].schema;
            positions(&key, |k| exprs.iter().position(|e| column_index(e, schema) == Some(*k)))
        }
        NodeKind::Aggregate { group, .. } => (0..group.len()).collect(),
        NodeKind::SessionAggregate { columns, .. } => (0..columns.len()).collect(),
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

/// Columns of a node's rows that are the key of their records: the first input's, as far as they are
/// passed on. The key of a join of one pair is what both are: the left one where it is passed on.
///
/// Source: ksqlDB, "Partition data to enable joins".
pub(super) fn record_key(nodes: &[Node], id: NodeId) -> Vec<usize> {
    key_parts(nodes, id).iter().filter_map(|equal| equal.first().copied()).collect()
}

/// The columns of the key of a node's rows, by name, that its projections leave out; none where the rows have
/// a key, or never had one. `key` is what a node's rows are known by.
pub(super) fn lost_key(nodes: &[Node], id: NodeId, key: fn(&[Node], NodeId) -> Vec<usize>) -> Vec<String> {
    let node = &nodes[id];
    if !key(nodes, id).is_empty() {
        return Vec::new();
    }
    match &node.kind {
        NodeKind::Source { relation, columns } => {
            let lost = relation.record_key.iter().filter(|at| !columns.contains(at));
            lost.map(|at| relation.columns[*at].name.clone()).collect()
        }
        NodeKind::Project(exprs) => {
            let input = node.inputs[0];
            let schema = &nodes[input].schema;
            let columns = key(nodes, input);
            if columns.is_empty() {
                return lost_key(nodes, input, key);
            }
            let passes = |at: &usize| exprs.iter().any(|e| column_index(e, schema) == Some(*at));
            let lost = columns.iter().filter(|at| !passes(at));
            lost.map(|at| schema.field(*at).name().clone()).collect()
        }
        NodeKind::Filter(_)
        | NodeKind::TemporalFilter(_)
        | NodeKind::EmitFinal { .. }
        | NodeKind::Greatest { .. }
        | NodeKind::Join { .. }
        | NodeKind::Lookup { .. } => lost_key(nodes, node.inputs[0], key),
        _ => Vec::new(),
    }
}

/// Of each part of the record key the columns that hold it: those that joins made equal.
fn key_parts(nodes: &[Node], id: NodeId) -> Vec<Vec<usize>> {
    let node = &nodes[id];
    let one = |key: Vec<usize>| key.into_iter().map(|k| vec![k]).collect();
    let Some(first) = node.inputs.first() else {
        let NodeKind::Source { relation, columns } = &node.kind else { return Vec::new() };
        return one(positions(&relation.record_key, |k| columns.iter().position(|c| c == k)));
    };
    let schema = &nodes[*first].schema;
    match &node.kind {
        NodeKind::Project(exprs) => kept(&key_parts(nodes, *first), |k| {
            let passes = |(at, e): (usize, &Expr)| (column_index(e, schema) == Some(k)).then_some(at);
            exprs.iter().enumerate().filter_map(passes).collect()
        }),
        NodeKind::Join { on, .. } | NodeKind::Lookup { on, .. } => {
            let parts = key_parts(nodes, *first);
            let [(left, right)] = on.as_slice() else { return parts };
            let Some(second) = node.inputs.get(1) else { return parts };
            let width = schema.fields().len();
            let equal_to = |parts: &[Vec<usize>], at: usize| match parts {
                [equal] if equal.contains(&at) => equal.clone(),
                _ => vec![at],
            };
            let mut equal = Vec::new();
            if let Some(at) = column_index(left, schema) {
                equal.extend(equal_to(&parts, at));
            }
            if let Some(at) = column_index(right, &nodes[*second].schema) {
                let right = equal_to(&key_parts(nodes, *second), at);
                equal.extend(right.into_iter().map(|at| width + at));
            }
            if equal.is_empty() { parts } else { vec![equal] }
        }
        NodeKind::Unnest { .. } => {
            let names: Vec<_> = node.schema.columns();
            kept(&key_parts(nodes, *first), |k| {
                names.iter().position(|c| *c == schema.columns()[k]).into_iter().collect()
            })
        }
        NodeKind::Aggregate { .. } | NodeKind::SessionAggregate { .. } => one(key(nodes, id)),
        _ => key_parts(nodes, *first),
    }
}

/// The parts of a key where their columns have gone; no key when one of them is nowhere any more.
fn kept(parts: &[Vec<usize>], places: impl Fn(usize) -> Vec<usize>) -> Vec<Vec<usize>> {
    let moved = parts.iter().map(|equal| equal.iter().flat_map(|k| places(*k)).collect::<Vec<_>>());
    let moved: Vec<Vec<usize>> = moved.collect();
    if moved.iter().any(Vec::is_empty) { Vec::new() } else { moved }
}

/// How long all streams that a node's rows come from may be idle; None when one may be for ever.
pub(super) fn idle_ms(nodes: &[Node], id: NodeId) -> Option<i64> {
    derived(nodes, id, |node, known| match &node.kind {
        NodeKind::Source { relation, .. } => relation.idle_timeout_ms,
        _ => {
            let inputs = node.inputs.iter().filter(|input| !matches!(nodes[**input].kind, NodeKind::Now));
            inputs.map(|input| known[*input]).collect::<Option<Vec<_>>>()?.into_iter().max()
        }
    })
}

/// Whether a node's changes of an epoch never hold a row and its opposite.
pub(super) fn is_net(nodes: &[Node], id: NodeId) -> bool {
    let node = &nodes[id];
    match &node.kind {
        NodeKind::Aggregate { .. }
        | NodeKind::SessionAggregate { .. }
        | NodeKind::TopN { .. }
        | NodeKind::Recompute { .. } => true,
        // Rows whose values differ are not the same.
        NodeKind::Filter(_) | NodeKind::Greatest { .. } => is_net(nodes, node.inputs[0]),
        NodeKind::Union if is_difference(nodes, node) => true,
        // Rows that differ must differ in what is left of them.
        NodeKind::Project(exprs) => {
            let schema = &nodes[node.inputs[0]].schema;
            let kept = |at: usize| exprs.iter().any(|e| column_index(e, schema) == Some(at));
            is_net(nodes, node.inputs[0]) && (0..schema.fields().len()).all(kept)
        }
        _ => append_only(nodes, id),
    }
}

/// Whether a node is a union of rows with those that are taken away from them.
pub(super) fn is_difference(nodes: &[Node], node: &Node) -> bool {
    let negated = |input: &NodeId| matches!(nodes[*input].kind, NodeKind::Negate);
    matches!(node.kind, NodeKind::Union) && node.inputs.iter().any(negated)
}

/// All of `key` mapped, or nothing.
fn positions(key: &[usize], find: impl Fn(&usize) -> Option<usize>) -> Vec<usize> {
    key.iter().map(find).collect::<Option<Vec<_>>>().unwrap_or_default()
}

/// The column an expression passes through unchanged.
pub(super) fn column_index(expr: &Expr, schema: &datafusion::common::DFSchema) -> Option<usize> {
    match expr {
        Expr::Column(column) => schema.maybe_index_of_column(column),
        Expr::Alias(alias) => column_index(&alias.expr, schema),
        _ => None,
    }
}
