//! `&&`: whether two arrays have an element in common.
//!
//! NULL is no element that anything has. Source: PostgreSQL, "Array Functions and Operators".

use std::sync::Arc;

use datafusion::arrow::array::make_comparator;
use datafusion::arrow::array::{Array, ArrayRef, AsArray, BooleanArray};
use datafusion::arrow::compute::{SortOptions, cast};
use datafusion::arrow::datatypes::DataType;
use datafusion::common::{DFSchema, Result, plan_err};
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::{ScalarUDF, Signature, Volatility};
use sql::sqlparser::ast::BinaryOperator;

use super::scalar::scalar_function_of;

/// Plans the operator.
#[derive(Debug)]
pub(super) struct ArrayPlanner;

impl ExprPlanner for ArrayPlanner {
    fn plan_binary_op(&self, expr: RawBinaryExpr, _: &DFSchema) -> Result<PlannerResult<RawBinaryExpr>> {
        Ok(match expr.op {
            BinaryOperator::PGOverlap => PlannerResult::Planned(overlaps().call(vec![expr.left, expr.right])),
            _ => PlannerResult::Original(expr),
        })
    }
}

/// All of them.
pub(super) fn functions() -> Vec<Arc<ScalarUDF>> {
    vec![overlaps()]
}

fn overlaps() -> Arc<ScalarUDF> {
    let result = |types: &[DataType]| match types {
        [DataType::List(_) | DataType::Null, DataType::List(_) | DataType::Null] => Ok(DataType::Boolean),
        _ => plan_err!("operator && needs two arrays"),
    };
    scalar_function_of("array_overlaps", Signature::any(2, Volatility::Immutable), result, |args, rows| {
        have_common(&args[0], &args[1], rows)
    })
}

fn have_common(left: &ArrayRef, right: &ArrayRef, rows: usize) -> Result<ArrayRef> {
    if left.data_type() == &DataType::Null || right.data_type() == &DataType::Null {
        return Ok(Arc::new(BooleanArray::new_null(rows)));
    }
    let right = cast(right, left.data_type())?;
    let (left, right) = (left.as_list::<i32>(), right.as_list::<i32>());
    let (left_values, right_values) = (left.values(), right.values());
    let compare = make_comparator(left_values, right_values, SortOptions::default())?;
    let known = |values: &ArrayRef, at: &usize| values.is_valid(*at);
    let places = |offsets: &[i32], row: usize| {
        let place = |at: i32| usize::try_from(at).unwrap_or_default();
        place(offsets[row])..place(offsets[row + 1])
    };
    let has = |row: usize| {
        let theirs = places(right.value_offsets(), row).filter(|at| known(right_values, at));
        let theirs: Vec<usize> = theirs.collect();
        let mut own = places(left.value_offsets(), row).filter(|at| known(left_values, at));
        own.any(|own| theirs.iter().any(|their| compare(own, *their).is_eq()))
    };
    let both = |row: usize| left.is_valid(row) && right.is_valid(row);
    Ok(Arc::new((0..rows).map(|row| both(row).then(|| has(row))).collect::<BooleanArray>()))
}
