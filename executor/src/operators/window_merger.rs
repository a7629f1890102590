//! Rows of an epoch that are equal in what matters and fall into the same windows, made one.
//!
//! Windows begin and end at multiples of a pane, the greatest common divisor of their lengths: two rows
//! of one pane are in the same windows.
//! Invariant: as a Z-set over the columns that matter and the windows, nothing changes.
//! Source: Li et al., "No Pane, No Gain: Efficient Evaluation of Sliding-Window Aggregates over Data
//! Streams" (SIGMOD Record 2005).

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, Int64Array, UInt32Array};
use datafusion::arrow::datatypes::{DataType, Schema};
use planner::WindowSpec;

use crate::change::ChangeBatch;
use crate::error::Result;
use crate::keys::{KeyTable, RowCodec};
use crate::layout::take_rows;

/// Batches smaller than this stay as they are.
const SMALL_ROWS: usize = 64;

/// Merges the rows of a batch.
pub(crate) struct WindowMerger {
    columns: Vec<usize>,
    codec: RowCodec,
}

impl WindowMerger {
    /// `columns` of `input` matter.
    pub(crate) fn try_new(columns: &[usize], input: &Schema) -> Result<Self> {
        let types = columns.iter().map(|c| input.field(*c).data_type().clone());
        let codec = RowCodec::try_new(types.chain([DataType::Int64]))?;
        Ok(Self { columns: columns.to_vec(), codec })
    }

    /// The rows, and a time of each one's pane, ms.
    pub(super) fn merge(
        &self,
        batch: &ChangeBatch,
        times_ms: &Int64Array,
        spec: &WindowSpec,
    ) -> Result<(ChangeBatch, Int64Array)> {
        if batch.len() < SMALL_ROWS {
            return Ok((batch.clone(), times_ms.clone()));
        }
        let pane = pane_ms(spec);
        let panes: Int64Array = times_ms.unary(|time| time - time.rem_euclid(pane));
        let mut columns: Vec<ArrayRef> =
            self.columns.iter().map(|c| Arc::clone(batch.rows.column(*c))).collect();
        columns.push(Arc::new(panes.clone()));
        let encoded = self.codec.encode(&columns, batch.len())?;
        let mut seen = KeyTable::default();
        let (mut first, mut weights): (Vec<u32>, Vec<i64>) = (Vec::new(), Vec::new());
        for row in 0..batch.len() {
            let (slot, new) = seen.insert(encoded.row(row));
            if new {
                first.push(u32::try_from(row).unwrap_or(u32::MAX));
                weights.push(0);
            }
            weights[slot as usize] += batch.weight(row);
        }
        let kept: (Vec<u32>, Vec<i64>) = first.into_iter().zip(weights).filter(|(_, w)| *w != 0).unzip();
        let first = UInt32Array::from(kept.0);
        let times = datafusion::arrow::compute::take(&panes, &first, None)?;
        let rows = take_rows(&batch.rows, &first)?;
        Ok((ChangeBatch::weighted(rows, Int64Array::from(kept.1)), Int64Array::from(times.to_data())))
    }
}

/// What all lengths are multiples of.
fn pane_ms(spec: &WindowSpec) -> i64 {
    let gcd = |mut a: i64, mut b: i64| {
        while b != 0 {
            (a, b) = (b, a % b);
        }
        a
    };
    gcd(gcd(spec.size_ms, spec.advance_ms), spec.step_ms.unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panes_divide_all_lengths() {
        let spec = |size_ms, advance_ms, step_ms| WindowSpec { size_ms, advance_ms, step_ms, grace_ms: None };
        assert_eq!(pane_ms(&spec(10, 2, None)), 2);
        assert_eq!(pane_ms(&spec(10, 4, None)), 2);
        assert_eq!(pane_ms(&spec(9, 9, Some(3))), 3);
    }
}
