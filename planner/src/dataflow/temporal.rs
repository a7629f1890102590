//! now() in filters: rows that come and leave by themselves as time passes.
//!
//! `ts > now() - INTERVAL '5 minutes'` holds for a row from one moment on, or up to one, because one
//! side of the comparison only grows with now(). Invariant: a condition that is not of that form is
//! refused; so each row has one span of time in which it is in the result.
//! Source: Materialize, "Temporal filters", for the idea.

use std::sync::{Arc, LazyLock};

use datafusion::arrow::datatypes::{DataType, Field, TimeUnit};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchema, DFSchemaRef, exec_err};
use datafusion::logical_expr::logical_plan as logical;
use datafusion::logical_expr::utils::split_conjunction_owned;
use datafusion::logical_expr::{
    Between, BinaryExpr, ColumnarValue, Expr, LogicalPlan, Operator, ScalarFunctionArgs, ScalarUDF,
    ScalarUDFImpl, Signature, Volatility, cast,
};

use super::convert::Converter;
use super::{NodeId, NodeKind};
use crate::error::{Error, Result};

/// The epoch's clock in expressions and rows.
const NOW: &str = "\u{1}now";

static MARK: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| {
    Arc::new(ScalarUDF::new_from_impl(Mark { signature: Signature::nullary(Volatility::Immutable) }))
});

fn time_type() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

/// Stands for now() in a plan. It has no value while planning, so the optimizer leaves it alone.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Mark {
    signature: Signature,
}

impl ScalarUDFImpl for Mark {
    fn name(&self) -> &str {
        NOW
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> datafusion::common::Result<DataType> {
        Ok(time_type())
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> datafusion::common::Result<ColumnarValue> {
        exec_err!("the time of an epoch is not known while planning")
    }
}

/// The plan with now() in conditions marked; whether there is any.
pub(super) fn mark(plan: &LogicalPlan) -> Result<(LogicalPlan, bool)> {
    let marked = plan.clone().transform_up_with_subqueries(|node| match node {
        LogicalPlan::Filter(filter) => {
            let predicate = marked(filter.predicate)?;
            Ok(predicate.update_data(|p| LogicalPlan::Filter(logical::Filter::new(p, filter.input))))
        }
        LogicalPlan::Join(mut join) if join.filter.is_some() => {
            let condition = join.filter.take().map(marked).transpose()?;
            let changed = condition.as_ref().is_some_and(|c| c.transformed);
            join.filter = condition.map(|c| c.data);
            let join = LogicalPlan::Join(join);
            Ok(if changed { Transformed::yes(join) } else { Transformed::no(join) })
        }
        node => Ok(Transformed::no(node)),
    })?;
    Ok((marked.data, marked.transformed))
}

fn marked(expr: Expr) -> datafusion::common::Result<Transformed<Expr>> {
    expr.transform(|e| {
        let Expr::ScalarFunction(function) = &e else { return Ok(Transformed::no(e)) };
        let now = || MARK.call(Vec::new());
        Ok(match function.name() {
            "now" | "current_timestamp" => Transformed::yes(now()),
            "current_date" | "today" => Transformed::yes(cast(now(), DataType::Date32)),
            _ => Transformed::no(e),
        })
    })
}

/// Whether an expression depends on the time of the epoch.
pub(super) fn depends_on_now(expr: &Expr) -> bool {
    expr.exists(|e| Ok(is_mark(e))).unwrap_or(false)
}

fn is_mark(expr: &Expr) -> bool {
    matches!(expr, Expr::ScalarFunction(f) if f.name() == NOW)
}

/// Refuses what depends on now() outside of a filter.
pub(super) fn refuse(expr: &Expr) -> Result<()> {
    if depends_on_now(expr) { Err(not_a_span(expr)) } else { Ok(()) }
}

fn not_a_span(expr: &Expr) -> Error {
    let shown = expr.to_string().replace(NOW, "now");
    Error::continuous(
        format!("the condition {shown}"),
        "compare with now() in a condition of its own, as in: ts > now() - INTERVAL '5 minutes'",
    )
}

impl Converter {
    /// The rows of `input` for which a condition holds; parts that depend on now() hold for a while.
    pub(super) fn filter(&mut self, predicate: &Expr, input: NodeId, schema: &DFSchemaRef) -> Result<NodeId> {
        if !depends_on_now(predicate) {
            return Ok(self.push(NodeKind::Filter(predicate.clone()), vec![input], schema));
        }
        let parts = split_conjunction_owned(predicate.clone()).into_iter().flat_map(bounds);
        let (temporal, plain): (Vec<Expr>, Vec<Expr>) = parts.partition(depends_on_now);
        let rows = match plain.into_iter().reduce(Expr::and) {
            Some(predicate) => self.push(NodeKind::Filter(predicate), vec![input], schema),
            None => input,
        };
        let predicates = temporal.into_iter().map(span).collect::<Result<Vec<_>>>()?;
        let now = self.push(NodeKind::Now, Vec::new(), &now_schema()?);
        Ok(self.push(NodeKind::TemporalFilter(predicates), vec![rows, now], schema))
    }
}

/// The layout of the epoch's clock: one column.
pub(super) fn now_schema() -> Result<DFSchemaRef> {
    let field = Arc::new(Field::new(NOW, time_type(), false));
    Ok(Arc::new(DFSchema::new_with_metadata(vec![(None, field)], Default::default())?))
}

/// x BETWEEN a AND b as its two comparisons.
fn bounds(expr: Expr) -> Vec<Expr> {
    match expr {
        Expr::Between(Between { expr, negated: false, low, high }) => {
            vec![expr.clone().gt_eq(*low), expr.lt_eq(*high)]
        }
        other => vec![other],
    }
}

/// A comparison that is true up to a moment or from one on, over the rows with now behind them.
fn span(expr: Expr) -> Result<Expr> {
    let compares = |op: Operator| matches!(op, Operator::Lt | Operator::LtEq | Operator::Gt | Operator::GtEq);
    let monotonic = match &expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) if compares(*op) => {
            (is_monotonic(left) && !depends_on_now(right)) || (is_monotonic(right) && !depends_on_now(left))
        }
        _ => false,
    };
    if !monotonic {
        return Err(not_a_span(&expr));
    }
    let now = |e: Expr| {
        Ok(if is_mark(&e) {
            Transformed::yes(Expr::Column(Column::from_name(NOW)))
        } else {
            Transformed::no(e)
        })
    };
    Ok(expr.transform(now)?.data)
}

fn is_monotonic_sum(left: &Expr, right: &Expr) -> bool {
    (is_monotonic(left) && !depends_on_now(right)) || (is_monotonic(right) && !depends_on_now(left))
}

/// Whether a value only grows, or only shrinks, as now() grows.
fn is_monotonic(expr: &Expr) -> bool {
    let positive = |e: &Expr| match e {
        Expr::Literal(value, _) => value
            .cast_to(&DataType::Float64)
            .is_ok_and(|v| matches!(v, datafusion::common::ScalarValue::Float64(Some(n)) if n > 0.0)),
        _ => false,
    };
    match expr {
        e if is_mark(e) => true,
        Expr::Alias(alias) => is_monotonic(&alias.expr),
        Expr::Cast(c) => !c.field.data_type().is_string() && is_monotonic(&c.expr),
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Plus | Operator::Minus, right }) => {
            is_monotonic_sum(left, right)
        }
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Multiply | Operator::Divide, right }) => {
            is_monotonic(left) && positive(right)
        }
        Expr::ScalarFunction(f) => match (f.name(), f.args.as_slice()) {
            ("int_add" | "int_sub", [left, right]) => is_monotonic_sum(left, right),
            ("int_mul", [left, right]) => is_monotonic(left) && positive(right),
            ("date_trunc", [Expr::Literal(..), value]) => is_monotonic(value),
            ("date_part", [Expr::Literal(part, _), value]) => {
                matches!(part.try_as_str(), Some(Some(p)) if p.eq_ignore_ascii_case("epoch"))
                    && is_monotonic(value)
            }
            ("floor" | "ceil" | "round", [value]) => is_monotonic(value),
            _ => false,
        },
        _ => false,
    }
}
