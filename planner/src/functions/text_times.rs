//! Times and uuids written as text, compared with a column of them: they are read as the column's type is.
//! DataFusion would read times in nanoseconds, which end in the year 2262, and a uuid not at all.

use datafusion::arrow::datatypes::DataType;
use datafusion::common::{DFSchema, Result};
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::{Expr, ExprSchemable, cast};

use sql::UUID;

use super::interval::comparison;
use super::text_types::as_uuid;

/// Plans comparisons of times and uuids with text.
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
            } else if left == UUID && right != UUID {
                expr.right = as_uuid(expr.right);
            } else if right == UUID && left != UUID {
                expr.left = as_uuid(expr.left);
            }
        }
        Ok(PlannerResult::Original(expr))
    }
}
