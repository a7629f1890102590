//! NUMERIC as PostgreSQL has it: a number with a point beside a NUMERIC is one too, and quotients have
//! sixteen digits behind the point, without an overflow on the way to one that fits.
//!
//! Elsewhere such a number is a double: DataFusion's common type of a double and a NUMERIC is NUMERIC,
//! in which large doubles have no place, so `coalesce(x, 0.0)` must not meet one.
//!
//! Source: PostgreSQL, "Numeric Types"; select_div_scale in numeric.c, whose scale is at least 16.

use datafusion::arrow::datatypes::DataType;
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::{BinaryExpr, Expr, ExprSchemable, Operator, cast, lit};
use sql::sqlparser::ast::BinaryOperator;

/// Digits behind the point of a quotient.
const SCALE: i8 = 16;
/// All digits of a decimal of 128 bits, and of one of 256.
const DIGITS: u8 = 38;
const WIDE_DIGITS: u8 = 76;

/// Plans operations with decimals.
#[derive(Debug)]
pub(super) struct NumericPlanner;

impl ExprPlanner for NumericPlanner {
    fn plan_binary_op(
        &self,
        mut expr: RawBinaryExpr,
        schema: &DFSchema,
    ) -> Result<PlannerResult<RawBinaryExpr>> {
        let (Ok(mut left), Ok(mut right)) = (expr.left.get_type(schema), expr.right.get_type(schema)) else {
            return Ok(PlannerResult::Original(expr));
        };
        let decimal = |t: &DataType| matches!(t, DataType::Decimal128(..));
        if decimal(&left)
            && let Some(value) = exact_literal(&expr.right)
        {
            (right, expr.right) = (value.data_type(), lit(value));
        } else if decimal(&right)
            && let Some(value) = exact_literal(&expr.left)
        {
            (left, expr.left) = (value.data_type(), lit(value));
        }
        if expr.op != BinaryOperator::Divide {
            return Ok(PlannerResult::Original(expr));
        }
        let exact = |t: &DataType| decimal(t) || t.is_integer();
        if !(exact(&left) && exact(&right) && (decimal(&left) || decimal(&right))) {
            return Ok(PlannerResult::Original(expr));
        }
        let scale = scale(&left).max(SCALE);
        let dividend = cast(expr.left, DataType::Decimal256(WIDE_DIGITS, scale));
        let divisor = cast(expr.right, DataType::Decimal256(WIDE_DIGITS, self::scale(&right)));
        let quotient =
            Expr::BinaryExpr(BinaryExpr::new(Box::new(dividend), Operator::Divide, Box::new(divisor)));
        Ok(PlannerResult::Planned(cast(quotient, DataType::Decimal128(DIGITS, scale))))
    }
}

/// The decimal that a number with a point was written as; None if it is no such number, or too long.
fn exact_literal(expr: &Expr) -> Option<ScalarValue> {
    let Expr::Literal(ScalarValue::Float64(Some(number)), _) = expr else { return None };
    let text = number.to_string();
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
    let digits = format!("{whole}{fraction}");
    let precision =
        u8::try_from(digits.trim_start_matches(['-', '0']).len().max(fraction.len()).max(1)).ok()?;
    let scale = i8::try_from(fraction.len()).ok()?;
    let value = digits.parse::<i128>().ok().filter(|_| precision <= DIGITS)?;
    Some(ScalarValue::Decimal128(Some(value), precision, scale))
}

fn scale(data_type: &DataType) -> i8 {
    match data_type {
        DataType::Decimal128(_, scale) => *scale,
        _ => 0,
    }
}
