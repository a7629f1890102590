//! `&&`: whether two arrays have an element in common; NULL is no element that anything has. And `array_remove`,
//! for which NULL is an element as others are.
//!
//! Source: PostgreSQL, "Array Functions and Operators".

use std::ops::Range;
use std::sync::Arc;

use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, ListArray, UInt32Array, make_comparator,
};
use datafusion::arrow::buffer::OffsetBuffer;
use datafusion::arrow::compute::{SortOptions, cast, take};
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
    vec![overlaps(), remove()]
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

fn remove() -> Arc<ScalarUDF> {
    let result = |types: &[DataType]| match types {
        [list @ (DataType::List(_) | DataType::Null), _] => Ok(list.clone()),
        _ => plan_err!("array_remove needs an array"),
    };
    scalar_function_of("array_remove", Signature::any(2, Volatility::Immutable), result, |args, _| {
        without(&args[0], &args[1])
    })
}

/// Lists without the elements that equal a value of each.
fn without(lists: &ArrayRef, values: &ArrayRef) -> Result<ArrayRef> {
    let DataType::List(field) = lists.data_type() else { return Ok(Arc::clone(lists)) };
    let values = cast(values, field.data_type())?;
    let lists = lists.as_list::<i32>();
    let elements = lists.values();
    let compare = make_comparator(elements, &values, SortOptions::default())?;
    let (mut kept, mut lengths) = (Vec::new(), Vec::with_capacity(lists.len()));
    for row in 0..lists.len() {
        let before = kept.len();
        if lists.is_valid(row) {
            let own = places(lists.value_offsets(), row).filter(|at| compare(*at, row).is_ne());
            kept.extend(own.map(|at| u32::try_from(at).unwrap_or(u32::MAX)));
        }
        lengths.push(kept.len() - before);
    }
    let elements = take(elements, &UInt32Array::from(kept), None)?;
    let offsets = OffsetBuffer::from_lengths(lengths);
    Ok(Arc::new(ListArray::try_new(Arc::clone(field), offsets, elements, lists.nulls().cloned())?))
}

/// Where the elements of a row's list are.
fn places(offsets: &[i32], row: usize) -> Range<usize> {
    let place = |at: i32| usize::try_from(at).unwrap_or_default();
    place(offsets[row])..place(offsets[row + 1])
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
    let has = |row: usize| {
        let theirs = places(right.value_offsets(), row).filter(|at| known(right_values, at));
        let theirs: Vec<usize> = theirs.collect();
        let mut own = places(left.value_offsets(), row).filter(|at| known(left_values, at));
        own.any(|own| theirs.iter().any(|their| compare(own, *their).is_eq()))
    };
    let both = |row: usize| left.is_valid(row) && right.is_valid(row);
    Ok(Arc::new((0..rows).map(|row| both(row).then(|| has(row))).collect::<BooleanArray>()))
}
