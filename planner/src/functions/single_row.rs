//! `single_row(rows, value)`: the value, where there is one row at most; what scalar subqueries are checked with.
//!
//! Source: PostgreSQL, "Scalar Subqueries"; SQLSTATE 21000.

use std::sync::Arc;

use datafusion::arrow::array::AsArray;
use datafusion::arrow::datatypes::Int64Type;
use datafusion::common::exec_err;
use datafusion::logical_expr::{ScalarUDF, Signature, Volatility};

use super::scalar::scalar_function_of;

/// Its name, in plans alone.
pub(crate) const SINGLE_ROW: &str = "single_row";

/// The function.
pub(crate) fn single_row() -> Arc<ScalarUDF> {
    let signature = Signature::any(2, Volatility::Immutable);
    scalar_function_of(
        SINGLE_ROW,
        signature,
        |types| Ok(types[1].clone()),
        |args, _| {
            if args[0].as_primitive::<Int64Type>().iter().flatten().any(|rows| rows > 1) {
                return exec_err!("more than one row returned by a subquery used as an expression");
            }
            Ok(Arc::clone(&args[1]))
        },
    )
}
