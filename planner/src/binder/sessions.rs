//! Session windows: rows of one key, each at most a gap after the one before, make a window.
//!
//! They are a plan of OVER windows, so that the batch answer and the continuous one have one source:
//! a row more than the gap after its predecessor begins a session, the count of beginnings numbers
//! it, and its first and last time are its bounds.
//! Source: ksqlDB, "Time and Windows": a session's bounds are its rows', both inclusive.

use datafusion::common::{Column, Result, ScalarValue, TableReference};
use datafusion::functions_aggregate::{min_max, sum};
use datafusion::functions_window::lead_lag::lag;
use datafusion::logical_expr::expr::WindowFunction;
use datafusion::logical_expr::{
    Expr, ExprFunctionExt, ExprSchemable, LogicalPlan, LogicalPlanBuilder, WindowFrame,
    WindowFunctionDefinition, lit, when,
};

use datafusion::arrow::array::types::IntervalMonthDayNano;
use datafusion::arrow::datatypes::DataType;

/// A session window.
pub(super) struct Sessions {
    pub(super) time: Expr,
    pub(super) gap_ms: i64,
    pub(super) keys: Vec<Expr>,
    /// The window ends a gap after its last row, not with it.
    pub(super) end_after_gap: bool,
    /// Names of the two bounds.
    pub(super) names: [String; 2],
}

const BEGINS: &str = "\u{1}begins";
const NUMBER: &str = "\u{1}number";

impl Sessions {
    /// The input's rows that have a time, with the bounds of their session behind them.
    pub(super) fn plan(self, input: LogicalPlan, qualifier: Option<TableReference>) -> Result<LogicalPlan> {
        let columns: Vec<Expr> = input.schema().columns().into_iter().map(Expr::Column).collect();
        let gap = self.gap(self.time.get_type(input.schema())?);
        let by_time = vec![self.time.clone().sort(true, true)];
        let before = lag(self.time.clone(), Some(1), None)
            .partition_by(self.keys.clone())
            .order_by(by_time.clone())
            .build()?;
        let begins =
            when(self.time.clone().gt(before.clone() + gap.clone()), lit(1i64)).otherwise(lit(0i64))?;
        let named = |name: &str| Expr::Column(Column::from_name(name));
        let number = Expr::from(WindowFunction::new(
            WindowFunctionDefinition::AggregateUDF(sum::sum_udaf()),
            vec![named(BEGINS)],
        ))
        .partition_by(self.keys.clone())
        .order_by(by_time)
        // Rows of one time are in one session.
        .window_frame(WindowFrame::new(Some(false)))
        .build()?;
        let session: Vec<Expr> = self.keys.iter().cloned().chain([named(NUMBER)]).collect();
        let bound = |function| {
            Expr::from(WindowFunction::new(
                WindowFunctionDefinition::AggregateUDF(function),
                vec![self.time.clone()],
            ))
            .partition_by(session.clone())
            .build()
        };
        let (first, last) = (bound(min_max::min_udaf())?, bound(min_max::max_udaf())?);
        let column = |e: &Expr| Expr::Column(Column::from_name(e.schema_name().to_string()));
        let end = if self.end_after_gap { column(&last) + gap } else { column(&last) };
        let [start_name, end_name] = self.names;
        let with =
            |more: Expr, name: &str| columns.iter().cloned().chain([more.alias(name)]).collect::<Vec<_>>();
        LogicalPlanBuilder::from(input)
            .filter(self.time.clone().is_not_null())?
            .window(vec![before.clone()])?
            .project(with(replace(begins, &before)?, BEGINS))?
            .window(vec![number.clone()])?
            .project(with(column(&number), NUMBER))?
            .window(vec![first.clone(), last.clone()])?
            .project(columns.iter().cloned().chain([
                column(&first).alias_qualified(qualifier.clone(), start_name),
                end.alias_qualified(qualifier, end_name),
            ]))?
            .build()
    }

    /// The gap in the unit of the time.
    fn gap(&self, time: DataType) -> Expr {
        match time {
            DataType::Int64 => lit(self.gap_ms),
            _ => {
                let interval = IntervalMonthDayNano::new(0, 0, self.gap_ms.saturating_mul(1_000_000));
                lit(ScalarValue::IntervalMonthDayNano(Some(interval)))
            }
        }
    }
}

/// The expression with a window call replaced by the column that holds it.
fn replace(expr: Expr, call: &Expr) -> Result<Expr> {
    use datafusion::common::tree_node::{Transformed, TreeNode};
    let name = call.schema_name().to_string();
    let column = Expr::Column(Column::from_name(name));
    Ok(expr
        .transform(|e| Ok(if e == *call { Transformed::yes(column.clone()) } else { Transformed::no(e) }))?
        .data)
}
