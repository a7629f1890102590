//! GROUP BY a session over rows that only come: one operator that keeps a state for each session and
//! merges them when a row closes the gap.
//!
//! Everything else about sessions is a plan of OVER windows (`session_assign.rs`); the converter asks
//! for it by `Converter::sessions_apart`.

use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema};
use datafusion::logical_expr::logical_plan as logical;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan};

use super::aggregate::is_incremental;
use super::convert::Converter;
use super::{NodeId, NodeKind, properties};
use crate::error::{Error, Result};
use crate::session_assign::SessionAssign;
use crate::window_assign::default_grace_ms;

/// What a column of a grouped session is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionColumn {
    /// A key, by its place among them.
    Key(usize),
    /// The first time.
    Start,
    /// The last time, or a gap after it.
    End,
}

impl Converter {
    /// The operator of a GROUP BY over sessions; None when there is none for it.
    pub(super) fn session_aggregate(&mut self, aggregate: &logical::Aggregate) -> Result<Option<NodeId>> {
        let mut group = aggregate.group_expr.clone();
        let mut calls: Vec<Expr> = aggregate.aggr_expr.iter().map(|e| e.clone().unalias()).collect();
        let Some(sessions) = lower(&aggregate.input, &mut group, &mut calls)? else { return Ok(None) };
        let Some(columns) = columns(sessions, &group) else { return Ok(None) };
        let schema = sessions.input.schema();
        for (i, call) in calls.iter().enumerate() {
            let result = aggregate.schema.field(group.len() + i).data_type();
            let bounded = call.column_refs().iter().any(|c| schema.maybe_index_of_column(c).is_none());
            if bounded || !is_mergeable(call) || !is_incremental(call, schema, result)? {
                return Ok(None);
            }
        }
        let whole = matches!(
            sessions.spec.time.get_type(schema)?,
            DataType::Int64
                | DataType::Timestamp(
                    TimeUnit::Millisecond | TimeUnit::Microsecond | TimeUnit::Nanosecond,
                    _
                )
        );
        if !whole {
            return Ok(None);
        }
        let input = self.node(&sessions.input)?;
        if !properties::append_only(&self.nodes, input) {
            return Ok(None);
        }
        let emit_final = self.emit == sql::Emit::Final;
        let mut spec = sessions.spec.clone();
        if emit_final {
            spec.grace_ms.get_or_insert(0);
        }
        let closes = spec.grace_ms.is_some();
        let kind = NodeKind::SessionAggregate { spec, columns, aggregates: calls, emit_final };
        let inputs = self.told_time(vec![input], closes)?;
        Ok(Some(self.push(kind, inputs, &aggregate.schema)))
    }

    /// Sessions that have to be OVER windows: the plan is made again with them.
    pub(super) fn sessions_apart(&mut self) -> Error {
        self.apart = true;
        Error::continuous("these sessions", "")
    }
}

/// Refuses what sessions as OVER windows cannot do: they take rows for ever and never close.
pub(super) fn refuse_apart(plan: &LogicalPlan, emit: sql::Emit) -> Result<()> {
    let mut wanted = None;
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::Extension(extension) = node
            && let Some(sessions) = extension.node.as_any().downcast_ref::<SessionAssign>()
        {
            let spec = &sessions.spec;
            if emit == sql::Emit::Final {
                wanted = Some("EMIT FINAL");
            } else if spec.grace_ms.is_some_and(|grace| grace != default_grace_ms(spec.gap_ms)) {
                wanted = Some("GRACE PERIOD");
            }
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    let hint = "group a stream by the session alone, with count, sum, avg, min, max, bool_and or bool_or";
    wanted.map_or(Ok(()), |wanted| Err(Error::continuous(format!("{wanted} of these sessions"), hint)))
}

/// The sessions that an aggregate's rows are, with the aggregate's expressions in terms of them.
fn lower<'a>(
    plan: &'a LogicalPlan,
    group: &mut [Expr],
    calls: &mut [Expr],
) -> Result<Option<&'a SessionAssign>> {
    let mut at = plan;
    loop {
        let below: Vec<Expr> = match at {
            LogicalPlan::Extension(extension) => {
                return Ok(extension.node.as_any().downcast_ref::<SessionAssign>());
            }
            LogicalPlan::Projection(projection) => {
                projection.expr.iter().cloned().map(Expr::unalias).collect()
            }
            LogicalPlan::SubqueryAlias(alias) => {
                alias.input.schema().columns().into_iter().map(Expr::Column).collect()
            }
            _ => return Ok(None),
        };
        for expr in group.iter_mut().chain(calls.iter_mut()) {
            *expr = substituted(expr.clone(), at.schema(), &below)?;
        }
        match at.inputs().first() {
            Some(input) => at = input,
            None => return Ok(None),
        }
    }
}

/// The expression with each column of `schema` replaced by what it is.
fn substituted(expr: Expr, schema: &Arc<DFSchema>, by: &[Expr]) -> Result<Expr> {
    let replaced = expr.transform(|e| {
        let at = match &e {
            Expr::Column(column) => schema.maybe_index_of_column(column),
            _ => None,
        };
        Ok(at.and_then(|at| by.get(at)).map_or_else(|| Transformed::no(e), |b| Transformed::yes(b.clone())))
    })?;
    Ok(replaced.data)
}

/// What each expression of GROUP BY is; None when they are not the keys and bounds of the sessions.
fn columns(sessions: &SessionAssign, group: &[Expr]) -> Option<Vec<SessionColumn>> {
    use datafusion::logical_expr::UserDefinedLogicalNodeCore;
    let own = sessions.input.schema();
    let bounds: Vec<Column> = sessions.schema().columns().split_off(own.fields().len());
    let index = |e: &Expr| match e {
        Expr::Column(column) => own.maybe_index_of_column(column),
        _ => None,
    };
    let same = |a: &Expr, b: &Expr| a == b || index(a).is_some_and(|at| index(b) == Some(at));
    let is = |e: &Expr, bound: usize| matches!(e, Expr::Column(c) if bounds.get(bound).is_some_and(|b| b.name == c.name) && index(e).is_none());
    let column = |expr: &Expr| {
        if is(expr, 0) {
            return Some(SessionColumn::Start);
        }
        if is(expr, 1) {
            return Some(SessionColumn::End);
        }
        sessions.spec.keys.iter().position(|key| same(key, expr)).map(SessionColumn::Key)
    };
    let columns = group.iter().map(column).collect::<Option<Vec<_>>>()?;
    let keyed = (0..sessions.spec.keys.len()).all(|k| {
        let key = |n: usize| same(&sessions.spec.keys[n], &sessions.spec.keys[k]);
        columns.iter().any(|c| matches!(c, SessionColumn::Key(n) if key(*n)))
    });
    let bounded = columns.iter().any(|c| matches!(c, SessionColumn::Start | SessionColumn::End));
    (keyed && bounded).then_some(columns)
}

/// Whether two states of the call can become one.
fn is_mergeable(call: &Expr) -> bool {
    match call {
        Expr::AggregateFunction(f) => !f.params.distinct || matches!(f.func.name(), "min" | "max"),
        _ => false,
    }
}
