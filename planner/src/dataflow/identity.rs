//! Which nodes of different queries bring the same rows, so that one can work for both.
//!
//! Two nodes have the same identity when the plans that end in them are the same but for the names of tables.
//! Invariant: only a node whose rows depend on nothing but the rows there are has one: not on their order, on
//! the epochs they came in, or on the order in which floating-point numbers are added. So it does not matter
//! which of two queries was made first, or how its history was read.

use std::collections::HashMap;
use std::fmt::Write;

use datafusion::arrow::datatypes::DataType;
use datafusion::common::Column;
use datafusion::common::DFSchema;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::logical_expr::expr::Sort;
use datafusion::logical_expr::{Expr, ExprSchemable};
use sha2::{Digest, Sha256};

use super::{Dataflow, Node, NodeId, NodeKind};

/// Aggregates whose value depends on the values alone.
const ORDERLESS: [&str; 11] =
    ["count", "sum", "avg", "min", "max", "bool_and", "bool_or", "every", "bit_and", "bit_or", "bit_xor"];

/// What a node brings: equal in any two queries whose nodes bring the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PlanIdentity([u8; 32]);

impl Dataflow {
    /// A node and all that it reads, directly or not: inputs first, each once.
    pub fn below(&self, root: NodeId) -> Vec<NodeId> {
        let mut below = Vec::new();
        // Nodes on the way down, with how many of their inputs are done.
        let mut way = vec![(root, 0)];
        let mut met = vec![false; self.nodes.len()];
        met[root] = true;
        while let Some((id, done)) = way.pop() {
            match self.nodes[id].inputs.get(done) {
                Some(input) => {
                    way.push((id, done + 1));
                    if !std::mem::replace(&mut met[*input], true) {
                        way.push((*input, 0));
                    }
                }
                None => below.push(id),
            }
        }
        below
    }

    /// The identity of each node that has one and keeps state, or has one below it that does.
    pub fn identities(&self) -> &[Option<PlanIdentity>] {
        self.identities.get_or_init(|| {
            let texts: Vec<Option<String>> = self.nodes.iter().map(|node| self.text(node)).collect();
            (0..self.nodes.len()).map(|id| self.identity(id, &texts)).collect()
        })
    }

    fn identity(&self, root: NodeId, texts: &[Option<String>]) -> Option<PlanIdentity> {
        let below = self.below(root);
        if !below.iter().any(|id| keeps_state(&self.nodes[*id].kind)) {
            return None;
        }
        let places: HashMap<NodeId, usize> = below.iter().enumerate().map(|(at, id)| (*id, at)).collect();
        let mut hash = Sha256::new();
        for id in &below {
            let inputs: Vec<usize> = self.nodes[*id].inputs.iter().map(|input| places[input]).collect();
            hash.update(format!("{inputs:?} {}\n", texts[*id].as_ref()?));
        }
        Some(PlanIdentity(hash.finalize().into()))
    }

    /// What a node does with its inputs; None if that depends on more than their rows.
    fn text(&self, node: &Node) -> Option<String> {
        let input = |n: usize| -> Option<&DFSchema> { Some(&self.nodes[*node.inputs.get(n)?].schema) };
        let mut text = format!("{} ", node.kind.name());
        // Writing to a string cannot fail.
        match &node.kind {
            NodeKind::Source { relation, columns } => {
                // Where columns are behind its own depends on how many those were.
                let (own, marks) = (relation.columns.len(), relation.marks_valueless());
                let _ = write!(text, "{} {columns:?} {own} {marks}", relation.id);
            }
            NodeKind::Now | NodeKind::Union | NodeKind::Negate => {}
            NodeKind::Filter(predicate) => text.push_str(&expression(predicate, input(0)?)?),
            NodeKind::TemporalFilter(predicates) => {
                let with_now = input(0)?.join(input(1)?).ok()?;
                text.push_str(&expressions(predicates, &with_now)?);
            }
            NodeKind::Project(exprs) => text.push_str(&expressions(exprs, input(0)?)?),
            NodeKind::Window { time, spec, merged } if spec.grace_ms.is_none() => {
                let _ = write!(text, "{} {spec:?} {merged:?}", expression(time, input(0)?)?);
            }
            NodeKind::Aggregate { group, aggregates } => {
                let rows = input(0)?;
                let exact = group.iter().all(|e| e.get_type(rows).is_ok_and(|t| is_exact(&t)));
                if !exact || !aggregates.iter().all(|e| is_orderless(e, rows)) {
                    return None;
                }
                let _ = write!(text, "{} {}", expressions(group, rows)?, expressions(aggregates, rows)?);
            }
            NodeKind::TopN { partition, order, skip, fetch, numbered } => {
                let _ = write!(text, "{skip} {fetch} {numbered} {}", expressions(partition, input(0)?)?);
                for Sort { expr, asc, nulls_first } in order {
                    let _ = write!(text, " {} {asc} {nulls_first}", expression(expr, input(0)?)?);
                }
            }
            NodeKind::Greatest { partition, value, least } => {
                let _ = write!(text, "{least} {} ", expressions(partition, input(0)?)?);
                text.push_str(&expression(value, input(0)?)?);
            }
            NodeKind::Join { on, filter, null_equal, within: None } => {
                let _ = write!(text, "{null_equal}");
                for (left, right) in on {
                    let (left, right) = (expression(left, input(0)?)?, expression(right, input(1)?)?);
                    let _ = write!(text, " {left} = {right}");
                }
                if let Some(filter) = filter {
                    let _ = write!(text, " and {}", expression(filter, &node.schema)?);
                }
            }
            _ => return None,
        }
        let _ = write!(text, " {:?}", node.schema.inner());
        Some(text)
    }
}

fn keeps_state(kind: &NodeKind) -> bool {
    matches!(
        kind,
        NodeKind::Aggregate { .. }
            | NodeKind::TopN { .. }
            | NodeKind::Greatest { .. }
            | NodeKind::Join { .. }
            | NodeKind::TemporalFilter(_)
    )
}

fn expressions(exprs: &[Expr], input: &DFSchema) -> Option<String> {
    let all = exprs.iter().map(|e| expression(e, input)).collect::<Option<Vec<_>>>()?;
    Some(format!("[{}]", all.join("; ")))
}

/// An expression as text, its columns by their place: a table's name in a query says nothing.
fn expression(expr: &Expr, input: &DFSchema) -> Option<String> {
    let placed = expr.clone().transform(|expr| {
        Ok(match expr {
            Expr::Column(column) => {
                let at = input.index_of_column(&column)?;
                Transformed::yes(Expr::Column(Column::new_unqualified(at.to_string())))
            }
            Expr::Alias(alias) => Transformed::yes(*alias.expr),
            other => Transformed::no(other),
        })
    });
    Some(format!("{:?}", placed.ok()?.data))
}

fn is_orderless(aggregate: &Expr, input: &DFSchema) -> bool {
    let Expr::AggregateFunction(function) = aggregate.clone().unalias() else { return false };
    let name = function.func.name();
    let exact = |arg: &Expr| arg.get_type(input).is_ok_and(|t| is_exact(&t));
    ORDERLESS.contains(&name) && (name == "count" || function.params.args.iter().all(exact))
}

/// Whether equal values of a type are the same, and adding them has one result.
fn is_exact(data_type: &DataType) -> bool {
    !data_type.is_floating() && !data_type.is_nested() && !matches!(data_type, DataType::Interval(_))
}
