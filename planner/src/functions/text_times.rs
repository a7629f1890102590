//! Times written as text, compared with a column of times: they are read as the column's type is.
//! DataFusion would read both in nanoseconds, which end in the year 2262.

use datafusion::arrow::datatypes::DataType;
use datafusion::common::{DFSchema, Result};
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::{Expr, ExprSchemable, cast};

use super::interval::comparison;

/// Plans comparisons of times with text.
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
            }
        }
        Ok(PlannerResult::Original(expr))
    }
}
