//! NUMERIC as PostgreSQL has it: a number with a point beside a NUMERIC is one too, and quotients have
//! sixteen digits behind the point, without an overflow on the way to one that fits.
//!
//! Elsewhere such a number is a double: DataFusion's common type of a double and a NUMERIC is NUMERIC,
//! in which large doubles have no place, so `coalesce(x, 0.0)` must not meet one.
//!
//! Beside a REAL, whole numbers and NUMERIC are doubles, as is the result. A number with a fraction becomes a whole
//! one by rounding, not by cutting off (0037).
//!
//! Source: PostgreSQL, "Numeric Types" and "Operator Type Resolution"; select_div_scale in numeric.c, whose scale is
//! at least 16; dtoi4 in float.c.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, ListArray};
use datafusion::arrow::compute::cast as cast_values;
use datafusion::arrow::datatypes::{DataType, Field, Float64Type};
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::{
    BinaryExpr, Expr, ExprSchemable, Operator, ScalarUDF, Signature, Volatility, cast, lit,
};
use sql::sqlparser::ast::BinaryOperator;

use super::scalar::{scalar_function, scalar_function_of};

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
        let exact = |t: &DataType| decimal(t) || t.is_integer();
        let real = DataType::Float32;
        if is_arithmetic(&expr.op) && ((left == real && exact(&right)) || (exact(&left) && right == real)) {
            let double = |e: Expr| cast(e, DataType::Float64);
            (expr.left, expr.right) = (double(expr.left), double(expr.right));
            return Ok(PlannerResult::Original(expr));
        }
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

fn is_arithmetic(operator: &BinaryOperator) -> bool {
    use BinaryOperator::{Divide, Minus, Modulo, Multiply, Plus};
    matches!(operator, Plus | Minus | Multiply | Divide | Modulo)
}

/// Whether a value of one type is rounded to become one of another.
pub fn is_rounded(from: &DataType, to: &DataType) -> bool {
    match (from, to) {
        (DataType::List(from), DataType::List(to)) => is_rounded(from.data_type(), to.data_type()),
        _ => is_whole(to) && has_fraction(from),
    }
}

/// Whether values of a type are SQL's whole numbers.
fn is_whole(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Int16 | DataType::Int32 | DataType::Int64)
}

/// Whether values of a type may have a fraction.
fn has_fraction(data_type: &DataType) -> bool {
    data_type.is_floating() || matches!(data_type, DataType::Decimal128(_, scale) if *scale > 0)
}

/// A number, or each of a list, without its fraction: doubles to the even one of two that are as near, NUMERIC away from zero.
pub(crate) fn rounded(number: Expr, schema: &DFSchema) -> Result<Expr> {
    Ok(match number.get_type(schema)? {
        DataType::Decimal128(precision, scale) => {
            let digits = u8::try_from(i16::from(precision) - i16::from(scale) + 1).unwrap_or(DIGITS);
            cast(number, DataType::Decimal128(digits.clamp(1, DIGITS), 0))
        }
        DataType::List(_) => nearest_of_each().call(vec![number]),
        _ => nearest().call(vec![number]),
    })
}

/// The same for values that there are already.
///
/// # Errors
/// None, for numbers.
pub fn rounded_values(numbers: &ArrayRef) -> Result<ArrayRef> {
    if let DataType::List(_) = numbers.data_type() {
        let lists = numbers.as_list::<i32>();
        let values = rounded_values(lists.values())?;
        let field = Arc::new(Field::new_list_field(values.data_type().clone(), true));
        let (offsets, nulls) = (lists.offsets().clone(), lists.nulls().cloned());
        return Ok(Arc::new(ListArray::try_new(field, offsets, values, nulls)?));
    }
    if numbers.data_type().is_decimal() {
        return Ok(cast_values(numbers, &DataType::Decimal128(DIGITS, 0))?);
    }
    let numbers = cast_values(numbers, &DataType::Float64)?;
    let numbers = numbers.as_primitive::<Float64Type>();
    Ok(Arc::new(numbers.unary::<_, Float64Type>(f64::round_ties_even)))
}

/// All of them.
pub(super) fn functions() -> Vec<Arc<ScalarUDF>> {
    vec![nearest(), nearest_of_each()]
}

fn nearest() -> Arc<ScalarUDF> {
    let signature = Signature::exact(vec![DataType::Float64], Volatility::Immutable);
    scalar_function("rint", signature, DataType::Float64, |args, _| rounded_values(&args[0]))
}

fn nearest_of_each() -> Arc<ScalarUDF> {
    let signature = Signature::any(1, Volatility::Immutable);
    scalar_function_of(
        "rint_of_each",
        signature,
        |types| Ok(without_fraction(&types[0])),
        |args, _| rounded_values(&args[0]),
    )
}

/// The type of rounded values.
fn without_fraction(data_type: &DataType) -> DataType {
    match data_type {
        DataType::List(field) => DataType::new_list(without_fraction(field.data_type()), true),
        number if number.is_decimal() => DataType::Decimal128(DIGITS, 0),
        _ => DataType::Float64,
    }
}

fn scale(data_type: &DataType) -> i8 {
    match data_type {
        DataType::Decimal128(_, scale) => *scale,
        _ => 0,
    }
}
