//! The parts of a UNION in one type for each column.
//!
//! DataFusion finds it when it optimizes; until then a union has the types of its first part, which is what a
//! relation made of it would be given. Invariant: what is above has the types it will have.
//!
//! Source: PostgreSQL, "UNION, CASE, and Related Constructs".

use std::sync::Arc;

use datafusion::common::Result;
use datafusion::common::tree_node::{Transformed, TreeNodeRecursion};
use datafusion::logical_expr::LogicalPlan;
use datafusion::logical_expr::expr_rewriter::coerce_plan_expr_for_schema;
use datafusion::logical_expr::logical_plan::Union;
use datafusion::optimizer::analyzer::type_coercion::coerce_union_schema;

/// Gives the parts of every union the same types.
pub(super) fn agree(plan: LogicalPlan) -> Result<LogicalPlan> {
    let mut any = false;
    plan.apply_with_subqueries(|node| {
        any |= matches!(node, LogicalPlan::Union(union) if differs(union));
        Ok(if any { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    if !any {
        return Ok(plan);
    }
    let agreed = plan.transform_up_with_subqueries(|node| match node {
        LogicalPlan::Union(union) if differs(&union) => {
            let schema = Arc::new(coerce_union_schema(&union.inputs)?);
            let part = |input: &Arc<LogicalPlan>| {
                Ok(Arc::new(coerce_plan_expr_for_schema(input.as_ref().clone(), &schema)?))
            };
            let inputs = union.inputs.iter().map(part).collect::<Result<Vec<_>>>()?;
            Ok(Transformed::yes(LogicalPlan::Union(Union { inputs, schema })))
        }
        LogicalPlan::Union(union) => Ok(Transformed::no(LogicalPlan::Union(union))),
        // What is below may have other types now.
        node => Ok(Transformed::yes(node.recompute_schema()?)),
    })?;
    Ok(agreed.data)
}

fn differs(union: &Union) -> bool {
    let types = |plan: &LogicalPlan| -> Vec<_> {
        plan.schema().fields().iter().map(|field| field.data_type().clone()).collect()
    };
    let mut parts = union.inputs.iter().map(|input| types(input));
    let first = parts.next();
    parts.any(|part| Some(part) != first)
}
