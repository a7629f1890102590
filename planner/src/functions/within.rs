//! Whether two rows of streams are close enough in time to be joined WITHIN; the dataflow finds the
//! call among a join's conditions and knows from it when a row's time to be joined is over.

use std::sync::Arc;

use datafusion::arrow::array::{Array, AsArray, BooleanArray};
use datafusion::arrow::datatypes::{DataType, Int64Type};
use datafusion::logical_expr::{ScalarUDF, Signature, Volatility};

use super::scalar_function;

/// Its arguments: the left row's time, the right one's, how much earlier and later than the left row
/// the right one may be, and the grace, NULL where the statement has none; all in ms.
pub(crate) const WITHIN: &str = "__millpond_joins_within";

pub(super) fn function() -> Arc<ScalarUDF> {
    let signature = Signature::exact(vec![DataType::Int64; 5], Volatility::Immutable);
    scalar_function(WITHIN, signature, DataType::Boolean, |arguments, rows| {
        let column = |n: usize| arguments[n].as_primitive::<Int64Type>();
        let (left, right, before, after) = (column(0), column(1), column(2), column(3));
        let close = |row: usize| {
            let known = (0..4).all(|n| arguments[n].is_valid(row));
            known.then(|| {
                let difference = right.value(row).saturating_sub(left.value(row));
                difference >= -before.value(row) && difference <= after.value(row)
            })
        };
        Ok(Arc::new((0..rows).map(close).collect::<BooleanArray>()))
    })
}
