//! The logical node that places rows in sessions: rows of one key, each at most a gap after the one
//! before, are one session.
//!
//! Shape: each row that has a time comes out once, with the bounds of its session behind it. A batch
//! query, and a continuous one without an operator for it, replaces the node by a plan of OVER windows
//! ([`expand_sessions`]); GROUP BY over what only comes has an operator of its own
//! (`dataflow/session.rs`).
//! Source: ksqlDB, "Time and Windows": a session's bounds are its rows', both inclusive.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::fmt;
use std::hash::{Hash, Hasher};

use datafusion::arrow::array::types::IntervalMonthDayNano;
use datafusion::arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchemaRef, Result, ScalarValue, TableReference};
use datafusion::functions_aggregate::{min_max, sum};
use datafusion::functions_window::lead_lag::lag;
use datafusion::logical_expr::expr::WindowFunction;
use datafusion::logical_expr::{
    Expr, ExprFunctionExt, ExprSchemable, LogicalPlan, LogicalPlanBuilder, UserDefinedLogicalNodeCore,
    WindowFrame, WindowFunctionDefinition, lit, when,
};

/// What makes a session.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SessionSpec {
    /// The time of a row: ms since 1970 as BIGINT, a timestamp or a date.
    pub time: Expr,
    /// What names whose sessions they are.
    pub keys: Vec<Expr>,
    /// Longest time between two rows of a session, ms.
    pub gap_ms: i64,
    /// How long after its end and the gap a session takes rows. None: for ever.
    pub grace_ms: Option<i64>,
    /// The window ends a gap after its last row, not with it.
    pub end_after_gap: bool,
}

/// Places rows in sessions.
#[derive(Debug, Clone)]
pub struct SessionAssign {
    /// The rows.
    pub input: LogicalPlan,
    /// The sessions.
    pub spec: SessionSpec,
    qualifier: Option<TableReference>,
    names: [String; 2],
    schema: DFSchemaRef,
}

const BEGINS: &str = "\u{1}begins";
const NUMBER: &str = "\u{1}number";

/// The plan with every session node replaced by OVER windows.
///
/// # Errors
/// Whatever DataFusion says of the pieces.
pub fn expand_sessions(plan: LogicalPlan) -> Result<LogicalPlan> {
    let expanded = plan.transform_up_with_subqueries(|node| {
        let LogicalPlan::Extension(extension) = &node else { return Ok(Transformed::no(node)) };
        match extension.node.as_any().downcast_ref::<SessionAssign>() {
            Some(sessions) => Ok(Transformed::yes(sessions.as_windows()?)),
            None => Ok(Transformed::no(node)),
        }
    })?;
    Ok(expanded.data)
}

impl SessionAssign {
    /// `names` are those of the two new columns.
    ///
    /// # Errors
    /// If the time is none, or a column of that name is there already.
    pub fn try_new(
        input: LogicalPlan,
        spec: SessionSpec,
        qualifier: Option<TableReference>,
        names: [String; 2],
    ) -> Result<Self> {
        let schema = std::sync::Arc::clone(windows(&input, &spec, qualifier.as_ref(), &names)?.schema());
        Ok(Self { input, spec, qualifier, names, schema })
    }

    /// The same rows by OVER windows.
    fn as_windows(&self) -> Result<LogicalPlan> {
        windows(&self.input, &self.spec, self.qualifier.as_ref(), &self.names)
    }
}

/// A row more than the gap after its predecessor begins a session, the count of beginnings numbers it,
/// and its first and last time are its bounds.
fn windows(
    input: &LogicalPlan,
    spec: &SessionSpec,
    qualifier: Option<&TableReference>,
    names: &[String; 2],
) -> Result<LogicalPlan> {
    let (time, keys) = (&spec.time, &spec.keys);
    let columns: Vec<Expr> = input.schema().columns().into_iter().map(Expr::Column).collect();
    let gap = gap(spec.gap_ms, &time.get_type(input.schema())?);
    let by_time = vec![time.clone().sort(true, true)];
    let before =
        lag(time.clone(), Some(1), None).partition_by(keys.clone()).order_by(by_time.clone()).build()?;
    let begins = when(time.clone().gt(before.clone() + gap.clone()), lit(1i64)).otherwise(lit(0i64))?;
    let named = |name: &str| Expr::Column(Column::from_name(name));
    let number = Expr::from(WindowFunction::new(
        WindowFunctionDefinition::AggregateUDF(sum::sum_udaf()),
        vec![named(BEGINS)],
    ))
    .partition_by(keys.clone())
    .order_by(by_time)
    // Rows of one time are in one session.
    .window_frame(WindowFrame::new(Some(false)))
    .build()?;
    let session: Vec<Expr> = keys.iter().cloned().chain([named(NUMBER)]).collect();
    let bound = |function| {
        Expr::from(WindowFunction::new(WindowFunctionDefinition::AggregateUDF(function), vec![time.clone()]))
            .partition_by(session.clone())
            .build()
    };
    let (first, last) = (bound(min_max::min_udaf())?, bound(min_max::max_udaf())?);
    let column = |e: &Expr| Expr::Column(Column::from_name(e.schema_name().to_string()));
    let end = if spec.end_after_gap { column(&last) + gap } else { column(&last) };
    let [start_name, end_name] = names;
    let with = |more: Expr, name: &str| columns.iter().cloned().chain([more.alias(name)]).collect::<Vec<_>>();
    LogicalPlanBuilder::from(input.clone())
        .filter(time.clone().is_not_null())?
        .window(vec![before.clone()])?
        .project(with(replace(begins, &before)?, BEGINS))?
        .window(vec![number.clone()])?
        .project(with(column(&number), NUMBER))?
        .window(vec![first.clone(), last.clone()])?
        .project(columns.iter().cloned().chain([
            column(&first).alias_qualified(qualifier.cloned(), start_name),
            end.alias_qualified(qualifier.cloned(), end_name),
        ]))?
        .build()
}

/// The gap in the unit of the time.
fn gap(gap_ms: i64, time: &DataType) -> Expr {
    match time {
        DataType::Int64 => lit(gap_ms),
        _ => {
            let interval = IntervalMonthDayNano::new(0, 0, gap_ms.saturating_mul(1_000_000));
            lit(ScalarValue::IntervalMonthDayNano(Some(interval)))
        }
    }
}

/// The expression with a window call replaced by the column that holds it.
fn replace(expr: Expr, call: &Expr) -> Result<Expr> {
    let name = call.schema_name().to_string();
    let column = Expr::Column(Column::from_name(name));
    Ok(expr
        .transform(|e| Ok(if e == *call { Transformed::yes(column.clone()) } else { Transformed::no(e) }))?
        .data)
}

impl UserDefinedLogicalNodeCore for SessionAssign {
    fn name(&self) -> &'static str {
        "SessionAssign"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        std::iter::once(&self.spec.time).chain(&self.spec.keys).cloned().collect()
    }

    /// A row that is filtered out may part a session: only whole keys can go first.
    fn prevent_predicate_push_down_columns(&self) -> HashSet<String> {
        let is_key =
            |name: &str| self.spec.keys.iter().any(|k| matches!(k, Expr::Column(c) if c.name == name));
        self.schema.fields().iter().map(|f| f.name().clone()).filter(|name| !is_key(name)).collect()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionAssign: {} gap={}ms", self.spec.time, self.spec.gap_ms)
    }

    fn with_exprs_and_inputs(&self, exprs: Vec<Expr>, mut inputs: Vec<LogicalPlan>) -> Result<Self> {
        let mut exprs = exprs.into_iter();
        match (exprs.next(), inputs.pop()) {
            (Some(time), Some(input)) => {
                let spec = SessionSpec { time, keys: exprs.collect(), ..self.spec.clone() };
                Self::try_new(input, spec, self.qualifier.clone(), self.names.clone())
            }
            _ => datafusion::common::internal_err!("sessions have one input and a time"),
        }
    }

    fn necessary_children_exprs(&self, output_columns: &[usize]) -> Option<Vec<Vec<usize>>> {
        let own = self.input.schema().fields().len();
        Some(vec![output_columns.iter().copied().filter(|c| *c < own).collect()])
    }
}

// Schemas follow from the rest, and LogicalPlan has no total order.
impl PartialEq for SessionAssign {
    fn eq(&self, other: &Self) -> bool {
        self.spec == other.spec && self.names == other.names && self.input == other.input
    }
}

impl Eq for SessionAssign {}

impl Hash for SessionAssign {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.spec.hash(state);
        self.input.hash(state);
    }
}

impl PartialOrd for SessionAssign {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        self.input.partial_cmp(&other.input)
    }
}
