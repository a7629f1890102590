//! GROUP BY: incremental where the executor has accumulators for all calls, else recomputed for
//! the groups that change; GROUPING SETS as a union of plain groupings.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Field};
use datafusion::common::{Column, DFSchema, DFSchemaRef, ScalarValue};
use datafusion::logical_expr::logical_plan as logical;
use datafusion::logical_expr::utils::grouping_set_to_exprlist;
use datafusion::logical_expr::{Expr, ExprSchemable, GroupingSet, LogicalPlan};

use super::convert::Converter;
use super::fragment::{Hoisted, RowsInput};
use super::{Node, NodeId, NodeKind};
use crate::error::{Error, Result};

/// Most columns of a CUBE, as PostgreSQL has it.
const MAX_CUBE: usize = 12;

impl Converter {
    pub(super) fn aggregate(&mut self, aggregate: &logical::Aggregate) -> Result<NodeId> {
        if let Some(sessions) = self.session_aggregate(aggregate)? {
            return Ok(sessions);
        }
        let input = self.node(&aggregate.input)?;
        match aggregate.group_expr.as_slice() {
            [Expr::GroupingSet(sets)] => self.grouping_sets(input, aggregate, &plain_sets(sets)?),
            group => {
                let input = self.merge_windows(input, group, &aggregate.aggr_expr);
                let grouped = self.group_by(input, group, &aggregate.aggr_expr, &aggregate.schema)?;
                self.when_closed(grouped, input, group)
            }
        }
    }

    /// Groups by `group`; the result has its values and then those of the calls.
    fn group_by(
        &mut self,
        input: NodeId,
        group: &[Expr],
        calls: &[Expr],
        schema: &DFSchemaRef,
    ) -> Result<NodeId> {
        let input_schema = Arc::clone(&self.nodes[input].schema);
        let incremental = calls
            .iter()
            .enumerate()
            .map(|(i, call)| is_incremental(call, &input_schema, schema.field(group.len() + i).data_type()))
            .collect::<Result<Vec<_>>>()?;
        if incremental.into_iter().all(|yes| yes) {
            let kind = NodeKind::Aggregate { group: group.to_vec(), aggregates: calls.to_vec() };
            return Ok(self.push(kind, vec![input], schema));
        }
        let mut hoisted = Hoisted::default();
        let group: Vec<Expr> = group.iter().map(|e| hoisted.column(e.clone())).collect();
        let calls = calls.iter().map(|c| hoisted.call(c)).collect::<Result<Vec<_>>>()?;
        let below = self.hoist(input, hoisted)?;
        let leaf = Arc::new(RowsInput::plan(&self.nodes[below].schema)?);
        let fragment = LogicalPlan::Aggregate(logical::Aggregate::try_new(leaf, group.clone(), calls)?);
        let key_columns = (0..group.len()).collect();
        let fragment = Arc::new(fragment);
        let kind = NodeKind::Recompute { partition: group, key_columns, kept: Vec::new(), fragment };
        Ok(self.push(kind, vec![below], schema))
    }

    /// The input, its rows merged before they are placed in their windows where each falls into several
    /// and the grouping needs little of them: counting the same auction of a second ten times is one row
    /// with weight ten.
    fn merge_windows(&mut self, input: NodeId, group: &[Expr], calls: &[Expr]) -> NodeId {
        // Columns may be left out between the two.
        let narrows =
            matches!(&self.nodes[input].kind, NodeKind::Project(exprs) if exprs.iter().all(is_column));
        let window = if narrows { self.nodes[input].inputs[0] } else { input };
        // Nodes that others read stay as they are.
        if input + 1 != self.nodes.len() || window + 1 + usize::from(narrows) != self.nodes.len() {
            return input;
        }
        let Some(merged) = self.merged_columns(window, group, calls) else { return input };
        let mut above = self.nodes.split_off(window).into_iter();
        let Some(Node { kind: NodeKind::Window { time, spec, .. }, inputs, schema }) = above.next() else {
            return input;
        };
        let window = self.push(NodeKind::Window { time, spec, merged: Some(merged) }, inputs, &schema);
        above.fold(window, |below, node| self.push(node.kind, vec![below], &node.schema))
    }

    /// Columns of a window's input that a grouping needs, where merging rows that are equal in them pays.
    fn merged_columns(&self, window: NodeId, group: &[Expr], calls: &[Expr]) -> Option<Vec<usize>> {
        let node = &self.nodes[window];
        let NodeKind::Window { time, spec, merged: None } = &node.kind else { return None };
        let below = &self.nodes[node.inputs[0]].schema;
        let own = below.fields().len();
        let used = |exprs: &[Expr]| -> BTreeSet<usize> {
            let columns = exprs.iter().flat_map(|e| e.column_refs());
            columns.filter_map(|c| node.schema.maybe_index_of_column(c)).filter(|i| *i < own).collect()
        };
        let kept = used(group);
        let timed = time.column_refs().into_iter().filter_map(|c| below.maybe_index_of_column(c));
        let pays = spec.size_ms > spec.step_ms.unwrap_or(spec.advance_ms)
            && used(calls).is_subset(&kept)
            && timed.into_iter().all(|c| !kept.contains(&c));
        pays.then(|| kept.into_iter().collect())
    }

    /// Under EMIT FINAL, groups of a window come when it closes.
    fn when_closed(&mut self, grouped: NodeId, input: NodeId, group: &[Expr]) -> Result<NodeId> {
        let Some(window) = self.window_below(input).filter(|_| self.emit == sql::Emit::Final) else {
            return Ok(grouped);
        };
        let NodeKind::Window { time, spec, .. } = self.nodes[window].kind.clone() else {
            return Ok(grouped);
        };
        let bounds = self.nodes[window].schema.fields();
        let end = bounds.last().map(|f| f.name().clone()).unwrap_or_default();
        let is_end = |e: &Expr| matches!(e, Expr::Column(c) if c.name == end);
        let Some(at) = group.iter().position(is_end) else { return Ok(grouped) };
        let schema = Arc::clone(&self.nodes[grouped].schema);
        let end = Expr::Column(schema.columns()[at].clone());
        let timeline = self.nodes[window].inputs[0];
        let kind = NodeKind::EmitFinal { end, time, grace_ms: spec.grace_ms.unwrap_or(0) };
        let inputs = self.told_time(vec![grouped, timeline], true)?;
        Ok(self.push(kind, inputs, &schema))
    }

    /// The nearest window assignment that a node's rows come from.
    fn window_below(&self, node: NodeId) -> Option<NodeId> {
        match &self.nodes[node].kind {
            NodeKind::Window { .. } => Some(node),
            _ => self.nodes[node].inputs.iter().find_map(|input| self.window_below(*input)),
        }
    }

    /// Computes hoisted expressions, after the input's columns where those are kept.
    pub(super) fn hoist(&mut self, input: NodeId, hoisted: Hoisted) -> Result<NodeId> {
        let from = Arc::clone(&self.nodes[input].schema);
        if hoisted.keep_columns && hoisted.exprs.is_empty() {
            return Ok(input);
        }
        let (mut fields, mut exprs) = (Vec::new(), Vec::new());
        if hoisted.keep_columns {
            fields.extend(from.iter().map(|(q, f)| (q.cloned(), Arc::clone(f))));
            exprs.extend(from.columns().into_iter().map(Expr::Column));
        }
        for (at, expr) in hoisted.exprs.into_iter().enumerate() {
            let field = Field::new(Hoisted::name(at), expr.get_type(&from)?, true);
            fields.push((None, Arc::new(field)));
            exprs.push(expr);
        }
        let schema: DFSchemaRef = Arc::new(DFSchema::new_with_metadata(fields, HashMap::new())?);
        Ok(self.push(NodeKind::Project(exprs), vec![input], &schema))
    }

    /// One grouping for each set, the missing keys NULL, with DataFusion's number of the set: a bit
    /// for each missing key, the first key highest, and above them how often the set came before.
    fn grouping_sets(
        &mut self,
        input: NodeId,
        aggregate: &logical::Aggregate,
        sets: &[Vec<Expr>],
    ) -> Result<NodeId> {
        let all: Vec<Expr> = grouping_set_to_exprlist(&aggregate.group_expr)?.into_iter().cloned().collect();
        let schema = &aggregate.schema;
        let mut seen: HashMap<u64, u64> = HashMap::new();
        let mut parts = Vec::new();
        for set in sets {
            let missing = all.iter().fold(0u64, |bits, key| bits << 1 | u64::from(!set.contains(key)));
            let before = seen.entry(missing).or_default();
            let id = missing | *before << all.len();
            *before += 1;
            parts.push(self.grouping_set(input, aggregate, &all, set, id)?);
        }
        Ok(self.push(NodeKind::Union, parts, schema))
    }

    fn grouping_set(
        &mut self,
        input: NodeId,
        aggregate: &logical::Aggregate,
        all: &[Expr],
        set: &[Expr],
        id: u64,
    ) -> Result<NodeId> {
        let schema = &aggregate.schema;
        let keys: Vec<usize> = (0..all.len()).filter(|i| set.contains(&all[*i])).collect();
        let group: Vec<Expr> = keys.iter().map(|k| all[*k].clone()).collect();
        let calls = all.len() + 1..schema.fields().len();
        let fields = keys
            .iter()
            .copied()
            .chain(calls.clone())
            .enumerate()
            .map(|(n, i)| {
                let field = schema.field(i).as_ref().clone().with_name(name(n)).with_nullable(true);
                (None, Arc::new(field))
            })
            .collect();
        let narrow: DFSchemaRef = Arc::new(DFSchema::new_with_metadata(fields, HashMap::new())?);
        let grouped = self.group_by(input, &group, &aggregate.aggr_expr, &narrow)?;
        let column = |n: usize| Expr::Column(Column::from_name(name(n)));
        let mut exprs = Vec::new();
        for i in 0..all.len() {
            exprs.push(match keys.iter().position(|k| *k == i) {
                Some(n) => column(n),
                None => Expr::Literal(ScalarValue::try_from(schema.field(i).data_type())?, None),
            });
        }
        let id = ScalarValue::UInt64(Some(id)).cast_to(schema.field(all.len()).data_type())?;
        exprs.push(Expr::Literal(id, None));
        exprs.extend((0..calls.len()).map(|n| column(keys.len() + n)));
        Ok(self.push(NodeKind::Project(exprs), vec![grouped], schema))
    }
}

/// ROLLUP and CUBE as the sets they stand for.
fn plain_sets(sets: &GroupingSet) -> Result<Vec<Vec<Expr>>> {
    match sets {
        GroupingSet::GroupingSets(sets) => Ok(sets.clone()),
        GroupingSet::Rollup(keys) => Ok((0..=keys.len()).map(|n| keys[..n].to_vec()).collect()),
        GroupingSet::Cube(keys) if keys.len() <= MAX_CUBE => Ok((0u32..1 << keys.len())
            .map(|bits| {
                let chosen = keys.iter().enumerate().filter(|(i, _)| bits >> i & 1 == 1);
                chosen.map(|(_, key)| key.clone()).collect()
            })
            .collect()),
        GroupingSet::Cube(_) => {
            Err(Error::Definition(format!("CUBE of more than {MAX_CUBE} columns has too many groupings")))
        }
    }
}

fn is_column(expr: &Expr) -> bool {
    matches!(expr, Expr::Column(_))
}

fn name(n: usize) -> String {
    format!("\u{1}set{n}")
}

/// Whether the executor has an accumulator for the call that can take rows back.
pub(super) fn is_incremental(call: &Expr, input: &DFSchema, result: &DataType) -> Result<bool> {
    let Expr::AggregateFunction(function) = call.clone().unalias() else {
        return Err(Error::continuous(format!("the aggregate {call}"), ""));
    };
    let params = &function.params;
    if !params.order_by.is_empty() || params.null_treatment.is_some() || params.args.len() > 1 {
        return Ok(false);
    }
    let argument = params.args.first().map(|a| a.get_type(input)).transpose()?;
    let numeric = argument.as_ref().is_some_and(|t| t.is_numeric() && *t != DataType::Float16);
    Ok(match function.func.name() {
        "count" => true,
        "sum" | "avg" => {
            let accumulates = matches!(
                result,
                DataType::Int64 | DataType::UInt64 | DataType::Float64 | DataType::Decimal128(..)
            );
            numeric && accumulates
        }
        "min" | "max" => argument.is_some_and(|t| !t.is_nested() && t != DataType::Null),
        "bool_and" | "bool_or" => argument == Some(DataType::Boolean),
        _ => false,
    })
}
