//! NUMERIC as PostgreSQL divides it: quotients with sixteen digits behind the point, and no overflow
//! on the way to one that fits.
//!
//! Source: PostgreSQL, "Numeric Types"; select_div_scale in numeric.c, whose scale is at least 16.

use datafusion::arrow::datatypes::DataType;
use datafusion::common::{DFSchema, Result};
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::{BinaryExpr, Expr, ExprSchemable, Operator, cast};
use sql::sqlparser::ast::BinaryOperator;

/// Digits behind the point of a quotient.
const SCALE: i8 = 16;
/// All digits of a decimal of 128 bits, and of one of 256.
const DIGITS: u8 = 38;
const WIDE_DIGITS: u8 = 76;

/// Plans quotients of decimals.
#[derive(Debug)]
pub(super) struct QuotientPlanner;

impl ExprPlanner for QuotientPlanner {
    fn plan_binary_op(&self, expr: RawBinaryExpr, schema: &DFSchema) -> Result<PlannerResult<RawBinaryExpr>> {
        if expr.op != BinaryOperator::Divide {
            return Ok(PlannerResult::Original(expr));
        }
        let (Ok(left), Ok(right)) = (expr.left.get_type(schema), expr.right.get_type(schema)) else {
            return Ok(PlannerResult::Original(expr));
        };
        let decimal = |t: &DataType| matches!(t, DataType::Decimal128(..));
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

fn scale(data_type: &DataType) -> i8 {
    match data_type {
        DataType::Decimal128(_, scale) => *scale,
        _ => 0,
    }
}
