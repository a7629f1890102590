//! Times and uuids written as text, compared with a column of them: they are read as the column's type is.
//! DataFusion would read times in nanoseconds, which end in the year 2262, and a uuid not at all.

use datafusion::arrow::compute::kernels::cast_utils::string_to_datetime;
use datafusion::arrow::datatypes::DataType;
use datafusion::common::{DFSchema, Result};
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::{Expr, ExprSchemable, cast, lit};

use sql::UUID;

use super::interval::comparison;
use super::text_types::as_uuid;

/// Columns of milliseconds since 1970 that ksqlDB compares with texts.
const MS_COLUMNS: [&str; 3] = ["rowtime", "windowstart", "windowend"];

/// A text beside one of these columns in milliseconds; None where it is no time, or no such text.
///
/// Source: ksqlDB, "ROWTIME": "a string that represents a datetime in ISO 8601 form".
pub(super) fn as_ms(column: &Expr, text: &Expr) -> Option<Expr> {
    let (Expr::Column(column), Expr::Literal(text, _)) = (column, text) else { return None };
    if !MS_COLUMNS.contains(&column.name.as_str()) {
        return None;
    }
    let time = string_to_datetime(&chrono::Utc, text.try_as_str()??).ok()?;
    Some(lit(time.timestamp_millis()))
}

/// A literal text as a boolean.
fn as_boolean(text: &Expr) -> Option<Expr> {
    let Expr::Literal(text, _) = text else { return None };
    parse_boolean(text.try_as_str()??.trim()).map(lit)
}

/// The boolean that a text is to PostgreSQL.
pub fn parse_boolean(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "t" | "true" | "y" | "yes" | "on" | "1" => Some(true),
        "f" | "false" | "n" | "no" | "off" | "0" => Some(false),
        _ => None,
    }
}

/// Plans comparisons of times, uuids and booleans with text.
#[derive(Debug)]
pub(super) struct TextTimePlanner;

impl ExprPlanner for TextTimePlanner {
    fn plan_binary_op(
        &self,
        mut expr: RawBinaryExpr,
        schema: &DFSchema,
    ) -> Result<PlannerResult<RawBinaryExpr>> {
        let types = (expr.left.get_type(schema), expr.right.get_type(schema));
        let (Ok(left), Ok(right)) = types else { return Ok(PlannerResult::Original(expr)) };
        let is_text = |e: &Expr| matches!(e, Expr::Literal(value, _) if value.data_type().is_string());
        if comparison(&expr.op).is_some() {
            if matches!(left, DataType::Timestamp(..)) && is_text(&expr.right) {
                expr.right = cast(expr.right, left);
            } else if matches!(right, DataType::Timestamp(..)) && is_text(&expr.left) {
                expr.left = cast(expr.left, right);
            } else if left == DataType::Boolean
                && let Some(value) = as_boolean(&expr.right)
            {
                expr.right = value;
            } else if let Some(ms) = as_ms(&expr.left, &expr.right) {
                expr.right = ms;
            } else if let Some(ms) = as_ms(&expr.right, &expr.left) {
                expr.left = ms;
            } else if left == UUID && right != UUID {
                expr.right = as_uuid(expr.right);
            } else if right == UUID && left != UUID {
                expr.left = as_uuid(expr.left);
            }
        }
        Ok(PlannerResult::Original(expr))
    }
}
