//! Sums, differences and products of whole numbers (and ksqlDB's sum of texts): an error where the result does not fit, as in PostgreSQL.
//! DataFusion's wrap around, which is a wrong answer.
//!
//! A literal beside an INTEGER or SMALLINT is one too where it fits, so that the result has that type.
//! Source: PostgreSQL, "Numeric Types": "Attempts to store values outside of the allowed range will result in an
//! error"; int4pl in int.c.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, Datum};
use datafusion::arrow::compute::kernels::numeric::{add, mul, sub};
use datafusion::arrow::datatypes::DataType;
use datafusion::arrow::error::ArrowError;
use datafusion::common::{DFSchema, DataFusionError, Result, ScalarValue, exec_err};
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::{
    Expr, ExprSchemable, Operator, ScalarUDF, Signature, Volatility, binary_expr, cast, lit,
};
use sql::sqlparser::ast::BinaryOperator;

use super::scalar::scalar_function_of;

type Kernel = fn(&dyn Datum, &dyn Datum) -> std::result::Result<ArrayRef, ArrowError>;

/// The functions in the place of operators.
const FUNCTIONS: [(&str, Kernel); 3] = [("int_add", add), ("int_sub", sub), ("int_mul", mul)];

/// Plans arithmetic of whole numbers.
#[derive(Debug)]
pub(super) struct CheckedPlanner;

impl ExprPlanner for CheckedPlanner {
    fn plan_binary_op(&self, expr: RawBinaryExpr, schema: &DFSchema) -> Result<PlannerResult<RawBinaryExpr>> {
        let at = match expr.op {
            BinaryOperator::Plus => 0,
            BinaryOperator::Minus => 1,
            BinaryOperator::Multiply => 2,
            _ => return Ok(PlannerResult::Original(expr)),
        };
        let types = (expr.left.get_type(schema), expr.right.get_type(schema));
        let (Ok(left), Ok(right)) = types else { return Ok(PlannerResult::Original(expr)) };
        // ksqlDB's sum of texts.
        if at == 0 && left.is_string() && right.is_string() {
            let both = Operator::StringConcat;
            return Ok(PlannerResult::Planned(binary_expr(expr.left, both, expr.right)));
        }
        let (Some(left_width), Some(right_width)) = (width(&left), width(&right)) else {
            return Ok(PlannerResult::Original(expr));
        };
        let narrow = |e: &Expr, other: u8| literal(e).filter(|n| other == 1 && i32::try_from(*n).is_ok());
        let widths = match (narrow(&expr.left, right_width), narrow(&expr.right, left_width)) {
            (Some(_), _) => (right_width, right_width),
            (_, Some(_)) => (left_width, left_width),
            _ => (left_width, right_width),
        };
        let common = match widths.0.max(widths.1) {
            _ if left == DataType::Int16 && right == DataType::Int16 => DataType::Int16,
            1 => DataType::Int32,
            _ => DataType::Int64,
        };
        let side = |e: Expr, data_type: &DataType| match literal(&e).map(i32::try_from) {
            Some(Ok(small)) if common == DataType::Int32 => lit(small),
            _ if *data_type == common => e,
            _ => cast(e, common.clone()),
        };
        let arguments = vec![side(expr.left, &left), side(expr.right, &right)];
        Ok(PlannerResult::Planned(function(at).call(arguments)))
    }
}

/// 1 for numbers of up to four bytes, 2 for those of eight.
fn width(data_type: &DataType) -> Option<u8> {
    match data_type {
        DataType::Int16 | DataType::Int32 => Some(1),
        DataType::Int64 => Some(2),
        _ => None,
    }
}

fn literal(expr: &Expr) -> Option<i64> {
    match expr {
        Expr::Literal(ScalarValue::Int64(number), _) => *number,
        _ => None,
    }
}

/// All of them.
pub(super) fn functions() -> Vec<Arc<ScalarUDF>> {
    (0..FUNCTIONS.len()).map(function).collect()
}

fn function(at: usize) -> Arc<ScalarUDF> {
    let (name, kernel) = FUNCTIONS[at];
    let whole = vec![DataType::Int16, DataType::Int32, DataType::Int64];
    let signature = Signature::uniform(2, whole, Volatility::Immutable);
    scalar_function_of(
        name,
        signature,
        |types| Ok(types[0].clone()),
        move |args, _| {
            let whole = match args[0].data_type() {
                DataType::Int16 => "smallint",
                DataType::Int32 => "integer",
                _ => "bigint",
            };
            match kernel(&args[0], &args[1]) {
                Ok(result) => Ok(result),
                Err(ArrowError::ArithmeticOverflow(_)) => exec_err!("{whole} out of range"),
                Err(error) => Err(DataFusionError::from(error)),
            }
        },
    )
}
