//! How many of several values are NULL, or are not.
//!
//! Source: PostgreSQL, "Comparison Functions and Operators".

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, Int32Array};
use datafusion::arrow::datatypes::DataType;
use datafusion::logical_expr::{ScalarUDF, Signature, Volatility};

use super::scalar::scalar_function;

/// Both of them.
pub(super) fn functions() -> Vec<Arc<ScalarUDF>> {
    let function = |name, wanted| {
        let signature = Signature::variadic_any(Volatility::Immutable);
        scalar_function(name, signature, DataType::Int32, move |args, rows| Ok(count(args, rows, wanted)))
    };
    vec![function("num_nulls", true), function("num_nonnulls", false)]
}

fn count(args: &[ArrayRef], rows: usize, nulls: bool) -> ArrayRef {
    let all: Vec<_> = args.iter().map(|array| array.logical_nulls()).collect();
    let of_row = |row: usize| {
        let found = all.iter().filter(|own| own.as_ref().is_some_and(|own| own.is_null(row)) == nulls);
        i32::try_from(found.count()).unwrap_or(i32::MAX)
    };
    Arc::new((0..rows).map(of_row).collect::<Int32Array>())
}
