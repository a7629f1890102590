//! Rows that have the greatest value of their group, written as a join of rows with max() over the same rows.
//!
//! Where the values of rows only grow, as counts of rows that only come do, a row that is not among the
//! greatest can only come to be one by a change of its own: the others need not be kept, and nothing is joined.
//! Invariant: what is not exactly this join stays a join.

use std::sync::Arc;

use datafusion::arrow::datatypes::DataType;
use datafusion::common::{JoinType, NullEquality};
use datafusion::logical_expr::expr::AggregateFunction;
use datafusion::logical_expr::logical_plan as logical;
use datafusion::logical_expr::{Expr, ExprSchemable, Operator};

use super::convert::{Converter, equalities};
use super::properties::{append_only, column_index};
use super::{NodeId, NodeKind};
use crate::error::Result;

/// The side of a join that is max() or min() over groups of rows.
struct Extreme {
    /// The node whose rows are grouped, below all projections.
    base: NodeId,
    /// Columns of `base` that the side's aggregate has: those it groups by, then the value.
    columns: Vec<usize>,
    /// It is the least value that counts.
    least: bool,
}

impl Converter {
    /// The node of a join that chooses the rows of one side which have the greatest, or least, value of their
    /// group; None for any other join.
    pub(super) fn greatest(&mut self, join: &logical::Join, sides: [NodeId; 2]) -> Result<Option<NodeId>> {
        let semi = join.join_type == JoinType::LeftSemi;
        if !(semi || join.join_type == JoinType::Inner)
            || join.null_equality != NullEquality::NullEqualsNothing
        {
            return Ok(None);
        }
        for side in [0, 1].into_iter().take(if semi { 1 } else { 2 }) {
            let (rows, most) = (sides[side], sides[1 - side]);
            let Some(extreme) = self.extreme(most) else { continue };
            let Some(pairs) = pairs(join, side, extreme.least) else { continue };
            let Some(chosen) = self.chosen_by(rows, most, &extreme, &pairs) else { continue };
            if self.under_projects(rows) != extreme.base || !self.only_rises(&extreme) {
                continue;
            }
            let Some((value, partition)) = chosen.split_last() else { continue };
            let schema = Arc::clone(&self.nodes[rows].schema);
            if !is_whole(&value.get_type(&schema)?) {
                continue;
            }
            let columns = self.joined_columns(sides, side, &chosen);
            let value = value.clone().cast_to(&DataType::Int64, &schema)?;
            let kind = NodeKind::Greatest { partition: partition.to_vec(), value, least: extreme.least };
            if semi {
                return Ok(Some(self.push(kind, vec![rows], &schema)));
            }
            let Some(columns) = columns else { continue };
            let greatest = self.push(kind, vec![rows], &schema);
            return Ok(Some(self.push(NodeKind::Project(columns), vec![greatest], &join.schema)));
        }
        Ok(None)
    }

    /// The columns of an inner join out of the rows that are chosen; None where they are not all there.
    fn joined_columns(&self, sides: [NodeId; 2], rows: usize, chosen: &[Expr]) -> Option<Vec<Expr>> {
        let own = self.nodes[sides[rows]].schema.columns().into_iter().map(Expr::Column).collect();
        let most = sides[1 - rows];
        let width = self.nodes[most].schema.fields().len();
        let theirs = (0..width).map(|at| chosen.get(self.origin(most, at)?).cloned());
        let theirs: Vec<Expr> = theirs.collect::<Option<_>>()?;
        let (left, right): (Vec<Expr>, Vec<Expr>) = if rows == 0 { (own, theirs) } else { (theirs, own) };
        Some([left, right].concat())
    }

    /// The first node below a node that is more than a projection.
    fn under_projects(&self, id: NodeId) -> NodeId {
        match self.nodes[id].kind {
            NodeKind::Project(_) => self.under_projects(self.nodes[id].inputs[0]),
            _ => id,
        }
    }

    /// Where a column of a node comes from unchanged, below all projections.
    fn origin(&self, id: NodeId, column: usize) -> Option<usize> {
        let NodeKind::Project(exprs) = &self.nodes[id].kind else { return Some(column) };
        let input = self.nodes[id].inputs[0];
        self.origin(input, column_index(exprs.get(column)?, &self.nodes[input].schema)?)
    }

    /// What a node is, if it is one max() or min() over groups.
    fn extreme(&self, id: NodeId) -> Option<Extreme> {
        let node = &self.nodes[self.under_projects(id)];
        let NodeKind::Aggregate { group, aggregates } = &node.kind else { return None };
        let [aggregate] = aggregates.as_slice() else { return None };
        let call = call(aggregate)?;
        let least = match call.func.name() {
            "max" => false,
            "min" => true,
            _ => return None,
        };
        let [value] = call.params.args.as_slice() else { return None };
        if call.params.filter.is_some() {
            return None;
        }
        let input = node.inputs[0];
        let schema = &self.nodes[input].schema;
        let columns = group.iter().chain([value]).map(|e| self.origin(input, column_index(e, schema)?));
        Some(Extreme { base: self.under_projects(input), columns: columns.collect::<Option<_>>()?, least })
    }

    /// The columns of `rows` that a join's pairs make equal to each column of the extreme's aggregate, which
    /// must be those it was computed from.
    fn chosen_by(
        &self,
        rows: NodeId,
        most: NodeId,
        extreme: &Extreme,
        pairs: &[(Expr, Expr)],
    ) -> Option<Vec<Expr>> {
        let mut chosen = vec![None; extreme.columns.len()];
        for (own, theirs) in pairs {
            let at = self.origin(most, column_index(theirs, &self.nodes[most].schema)?)?;
            let from = self.origin(rows, column_index(own, &self.nodes[rows].schema)?)?;
            if from != extreme.columns[at] {
                return None;
            }
            chosen[at].get_or_insert_with(|| own.clone());
        }
        chosen.into_iter().collect()
    }

    /// Whether a row's value can only become more extreme: a count, or itself an extreme, of rows that only come.
    fn only_rises(&self, extreme: &Extreme) -> bool {
        let node = &self.nodes[extreme.base];
        let NodeKind::Aggregate { group, aggregates } = &node.kind else { return false };
        let value = extreme.columns.last().and_then(|at| aggregates.get(at.checked_sub(group.len())?));
        let name = value.and_then(call).map(|call| call.func.name());
        let rises: &[&str] = if extreme.least { &["min"] } else { &["max", "count"] };
        name.is_some_and(|name| rises.contains(&name)) && append_only(&self.nodes, node.inputs[0])
    }
}

/// The pairs a join compares, the rows' side first: all for equality, but the value, which may also be asked to
/// be no less than the greatest.
fn pairs(join: &logical::Join, rows: usize, least: bool) -> Option<Vec<(Expr, Expr)>> {
    let mut pairs = if join.on.is_empty() { Vec::new() } else { equalities(join) };
    if let Some(filter) = &join.filter {
        let Expr::BinaryExpr(compared) = filter else { return None };
        let (left, right) = (compared.left.as_ref().clone(), compared.right.as_ref().clone());
        let on_left = column_index(&left, join.left.schema()).is_some();
        let (left, right, op) = match on_left {
            true => (left, right, compared.op),
            false => (right, left, compared.op.swap()?),
        };
        let op = if rows == 0 { op } else { op.swap()? };
        let no_less = if least { Operator::LtEq } else { Operator::GtEq };
        if op != Operator::Eq && op != no_less {
            return None;
        }
        pairs.push((left, right));
    }
    if rows == 1 {
        pairs.iter_mut().for_each(|(left, right)| std::mem::swap(left, right));
    }
    Some(pairs)
}

fn call(expr: &Expr) -> Option<&AggregateFunction> {
    match expr {
        Expr::AggregateFunction(function) => Some(function),
        Expr::Alias(alias) => call(&alias.expr),
        _ => None,
    }
}

/// Values that are compared as whole numbers.
fn is_whole(data_type: &DataType) -> bool {
    data_type.is_signed_integer()
        || matches!(data_type, DataType::Timestamp(..) | DataType::Date32 | DataType::Int64)
}
