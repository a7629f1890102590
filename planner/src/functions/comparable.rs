//! Refuses comparisons of text with numbers: PostgreSQL has no operator for them, and as texts 9 is above 10.
//!
//! Beside a literal, which may be meant as either, DataFusion's coercion stays. Source: PostgreSQL, "Operator Type
//! Resolution".

use datafusion::arrow::datatypes::DataType;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, Result};
use datafusion::logical_expr::expr::InList;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{BinaryExpr, Expr, ExprSchemable, LogicalPlan, Operator};

use crate::error::Error;

/// Looks at every expression of a plan whose types are not coerced yet.
///
/// # Errors
/// [`Error::NoOperator`].
pub(crate) fn check_comparisons(plan: &LogicalPlan) -> Result<()> {
    plan.apply_with_subqueries(|node| {
        let schema = match node {
            LogicalPlan::TableScan(scan) => scan.projected_schema.as_ref().clone(),
            node => merge_schema(&node.inputs()),
        };
        if let LogicalPlan::Join(join) = node {
            join.on.iter().try_for_each(|(left, right)| compare(left, right, "=", &schema))?;
        }
        node.apply_expressions(|expr| {
            expr.apply(|expr| {
                check(expr, &schema)?;
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    Ok(())
}

fn check(expr: &Expr, schema: &DFSchema) -> Result<()> {
    match expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) if compares(*op) => {
            compare(left, right, &op.to_string(), schema)
        }
        Expr::InList(InList { expr, list, .. }) => {
            list.iter().try_for_each(|item| compare(expr, item, "=", schema))
        }
        _ => Ok(()),
    }
}

fn compares(operator: Operator) -> bool {
    use Operator::{Eq, Gt, GtEq, IsDistinctFrom, IsNotDistinctFrom, Lt, LtEq, NotEq};
    matches!(operator, Eq | NotEq | Lt | LtEq | Gt | GtEq | IsDistinctFrom | IsNotDistinctFrom)
}

fn compare(left: &Expr, right: &Expr, operator: &str, schema: &DFSchema) -> Result<()> {
    let constant = |e: &Expr| e.column_refs().is_empty();
    if constant(left) || constant(right) {
        return Ok(());
    }
    let (Ok(a), Ok(b)) = (left.get_type(schema), right.get_type(schema)) else { return Ok(()) };
    let mixed = |text: &DataType, number: &DataType| text.is_string() && number.is_numeric();
    if mixed(&a, &b) || mixed(&b, &a) {
        return Err(Error::NoOperator { left: a, operator: operator.to_owned(), right: b }.into());
    }
    Ok(())
}
