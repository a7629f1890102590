//! Intervals as PostgreSQL counts with them: a month is 30 days and a day 24 hours where two are
//! compared, and they can be multiplied and divided by numbers.
//!
//! Source: PostgreSQL, "Date/Time Functions and Operators"; interval_cmp_value in timestamp.c.

use std::sync::Arc;

use datafusion::arrow::array::types::{IntervalMonthDayNano, IntervalMonthDayNanoType};
use datafusion::arrow::array::{ArrayRef, AsArray, Int64Array, PrimitiveArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Float64Type, IntervalUnit, TimeUnit};
use datafusion::common::{DFSchema, Result, exec_err};
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::{
    BinaryExpr, Expr, ExprSchemable, Operator, ScalarUDF, Signature, Volatility, cast as cast_expr,
};
use sql::sqlparser::ast::BinaryOperator;

use super::scalar::scalar_function;

const INTERVAL: DataType = DataType::Interval(IntervalUnit::MonthDayNano);
const TIME: DataType = DataType::Timestamp(TimeUnit::Microsecond, None);
const DAY_NANOS: i64 = 86_400_000_000_000;

/// Plans comparisons and products of intervals.
#[derive(Debug)]
pub(super) struct IntervalPlanner;

impl ExprPlanner for IntervalPlanner {
    fn plan_binary_op(&self, expr: RawBinaryExpr, schema: &DFSchema) -> Result<PlannerResult<RawBinaryExpr>> {
        let (Ok(left), Ok(right)) = (expr.left.get_type(schema), expr.right.get_type(schema)) else {
            return Ok(PlannerResult::Original(expr));
        };
        let spans = |t: &DataType| matches!(t, DataType::Interval(_) | DataType::Duration(_));
        let compared = comparison(&expr.op).filter(|_| {
            spans(&left) && spans(&right) && (left != right || matches!(left, DataType::Interval(_)))
        });
        if let Some(op) = compared {
            let side = |e: Expr| Box::new(span().call(vec![e]));
            return Ok(PlannerResult::Planned(Expr::BinaryExpr(BinaryExpr::new(
                side(expr.left),
                op,
                side(expr.right),
            ))));
        }
        // A day and a span of time are a time.
        if let (op @ (BinaryOperator::Plus | BinaryOperator::Minus), Some((day, span))) =
            (&expr.op, day_and_span((&expr.left, &left), (&expr.right, &right)))
        {
            let op = if *op == BinaryOperator::Plus { Operator::Plus } else { Operator::Minus };
            let midnight = Box::new(cast_expr(day.clone(), TIME));
            let time = BinaryExpr::new(midnight, op, Box::new(span.clone()));
            return Ok(PlannerResult::Planned(Expr::BinaryExpr(time)));
        }
        let number = |t: &DataType| t.is_numeric();
        let scaled = match (&left, &expr.op, &right) {
            (DataType::Interval(_), BinaryOperator::Multiply, n) if number(n) => {
                Some(("interval_mul", expr.left.clone(), expr.right.clone()))
            }
            (n, BinaryOperator::Multiply, DataType::Interval(_)) if number(n) => {
                Some(("interval_mul", expr.right.clone(), expr.left.clone()))
            }
            (DataType::Interval(_), BinaryOperator::Divide, n) if number(n) => {
                Some(("interval_div", expr.left.clone(), expr.right.clone()))
            }
            _ => None,
        };
        Ok(match scaled {
            Some((name, interval, factor)) => {
                PlannerResult::Planned(scaling(name).call(vec![interval, factor]))
            }
            None => PlannerResult::Original(expr),
        })
    }
}

/// A date and an interval among two operands; the interval does not stand first where it is taken away.
fn day_and_span<'a>(
    (left, left_type): (&'a Expr, &DataType),
    (right, right_type): (&'a Expr, &DataType),
) -> Option<(&'a Expr, &'a Expr)> {
    match (left_type, right_type) {
        (DataType::Date32, DataType::Interval(_)) => Some((left, right)),
        (DataType::Interval(_), DataType::Date32) => Some((right, left)),
        _ => None,
    }
}

pub(super) fn comparison(op: &BinaryOperator) -> Option<Operator> {
    Some(match op {
        BinaryOperator::Eq => Operator::Eq,
        BinaryOperator::NotEq => Operator::NotEq,
        BinaryOperator::Lt => Operator::Lt,
        BinaryOperator::LtEq => Operator::LtEq,
        BinaryOperator::Gt => Operator::Gt,
        BinaryOperator::GtEq => Operator::GtEq,
        _ => return None,
    })
}

/// All functions on intervals.
pub(super) fn functions() -> Vec<Arc<ScalarUDF>> {
    let justified = |name, justify: fn(IntervalMonthDayNano) -> IntervalMonthDayNano| {
        let signature = Signature::exact(vec![INTERVAL], Volatility::Immutable);
        scalar_function(name, signature, INTERVAL, move |args, _| {
            let intervals = args[0].as_primitive::<IntervalMonthDayNanoType>();
            Ok(Arc::new(intervals.unary::<_, IntervalMonthDayNanoType>(justify)))
        })
    };
    vec![
        span(),
        scaling("interval_mul"),
        scaling("interval_div"),
        justified("justify_hours", justify_hours),
        justified("justify_days", justify_days),
        justified("justify_interval", justify_interval),
    ]
}

/// Hours beyond a day are days.
fn justify_hours(interval: IntervalMonthDayNano) -> IntervalMonthDayNano {
    let (days, nanoseconds) = carry_hours(interval);
    let (days, nanoseconds) = match (days.signum(), nanoseconds.signum()) {
        (1, -1) => (days - 1, nanoseconds + DAY_NANOS),
        (-1, 1) => (days + 1, nanoseconds - DAY_NANOS),
        _ => (days, nanoseconds),
    };
    IntervalMonthDayNano::new(interval.months, days, nanoseconds)
}

/// Days beyond 30 are months.
fn justify_days(interval: IntervalMonthDayNano) -> IntervalMonthDayNano {
    let (months, days) = carry_days(interval.months, interval.days);
    let (months, days) = match (months.signum(), days.signum()) {
        (1, -1) => (months - 1, days + 30),
        (-1, 1) => (months + 1, days - 30),
        _ => (months, days),
    };
    IntervalMonthDayNano::new(months, days, interval.nanoseconds)
}

/// Both, and all parts of one sign.
fn justify_interval(interval: IntervalMonthDayNano) -> IntervalMonthDayNano {
    let (days, nanoseconds) = carry_hours(interval);
    let (months, days) = carry_days(interval.months, days);
    let below = (i64::from(days) * DAY_NANOS).saturating_add(nanoseconds).signum();
    let (months, days) = match (months.signum(), below) {
        (1, -1) => (months - 1, days + 30),
        (-1, 1) => (months + 1, days - 30),
        _ => (months, days),
    };
    justify_hours(IntervalMonthDayNano::new(months, days, nanoseconds))
}

/// Days, with those that are in the hours, and the hours that are left.
fn carry_hours(interval: IntervalMonthDayNano) -> (i32, i64) {
    let days = i32::try_from(interval.nanoseconds / DAY_NANOS).unwrap_or(i32::MAX);
    (interval.days.saturating_add(days), interval.nanoseconds % DAY_NANOS)
}

/// Months, with those that are in the days, and the days that are left.
fn carry_days(months: i32, days: i32) -> (i32, i32) {
    (months.saturating_add(days / 30), days % 30)
}

/// The length of an interval in microseconds.
fn span() -> Arc<ScalarUDF> {
    scalar_function("interval_span", Signature::any(1, Volatility::Immutable), DataType::Int64, |args, _| {
        let intervals = cast(&args[0], &INTERVAL)?;
        let spans = intervals.as_primitive::<IntervalMonthDayNanoType>().iter().map(|i| {
            let i = i?;
            let days = i64::from(i.months) * 30 + i64::from(i.days);
            Some(days.saturating_mul(DAY_NANOS / 1000).saturating_add(i.nanoseconds / 1000))
        });
        Ok(Arc::new(spans.collect::<Int64Array>()))
    })
}

fn scaling(name: &'static str) -> Arc<ScalarUDF> {
    let signature = Signature::exact(vec![INTERVAL, DataType::Float64], Volatility::Immutable);
    scalar_function(name, signature, INTERVAL, move |args, _| scaled(args, name == "interval_div"))
}

fn scaled(args: &[ArrayRef], divide: bool) -> Result<ArrayRef> {
    let (intervals, factors) =
        (args[0].as_primitive::<IntervalMonthDayNanoType>(), args[1].as_primitive::<Float64Type>());
    let mut out = Vec::with_capacity(intervals.len());
    for (interval, factor) in intervals.iter().zip(factors) {
        let (Some(interval), Some(factor)) = (interval, factor) else {
            out.push(None);
            continue;
        };
        if divide && factor == 0.0 {
            return exec_err!("division by zero");
        }
        out.push(Some(scale(interval, if divide { 1.0 / factor } else { factor })));
    }
    Ok(Arc::new(out.into_iter().collect::<PrimitiveArray<IntervalMonthDayNanoType>>()))
}

/// Parts of months become days and parts of days hours, never the other way.
#[allow(clippy::cast_possible_truncation, reason = "whole parts of numbers in range; others saturate")]
#[allow(clippy::cast_precision_loss, reason = "PostgreSQL counts in doubles too")]
fn scale(interval: IntervalMonthDayNano, factor: f64) -> IntervalMonthDayNano {
    let months = f64::from(interval.months) * factor;
    let days = f64::from(interval.days) * factor + round(months.fract() * 30.0);
    let nanos = interval.nanoseconds as f64 * factor + round(days.fract()) * DAY_NANOS as f64;
    IntervalMonthDayNano::new(
        months.trunc() as i32,
        days.trunc() as i32,
        (nanos / 1000.0).round() as i64 * 1000,
    )
}

/// To a millionth: what is less comes from rounding.
fn round(value: f64) -> f64 {
    (value * 1e6).round() / 1e6
}

/// A span of time with a clock's hours, as Arrow reads it: `1 day 04:05:06` is 1 day 4 hours 5 minutes 6 seconds. None
/// for one without, or that makes no sense.
///
/// Source: PostgreSQL, "Interval Input".
pub fn interval_units(text: &str) -> Option<String> {
    let clock = |word: &str| -> Option<String> {
        let (sign, clock) = match word.strip_prefix('-') {
            Some(clock) => ("-", clock),
            None => ("", word.strip_prefix('+').unwrap_or(word)),
        };
        let parts: Vec<&str> = clock.split(':').collect();
        let number = |part: &&str| part.parse::<f64>().is_ok_and(|n| n >= 0.0);
        if !(2..=3).contains(&parts.len()) || !parts.iter().all(number) {
            return None;
        }
        let units = ["hours", "minutes", "seconds"];
        let parts = parts.iter().zip(units).map(|(part, unit)| format!("{sign}{part} {unit}"));
        Some(parts.collect::<Vec<_>>().join(" "))
    };
    let words = text.split_whitespace().map(|word| match word.contains(':') {
        true => clock(word),
        false => Some(word.to_owned()),
    });
    let words = words.collect::<Option<Vec<_>>>()?;
    text.contains(':').then(|| words.join(" "))
}
