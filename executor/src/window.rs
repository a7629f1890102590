//! Window arithmetic: which windows hold a time, and when one is closed.
//!
//! Windows are half-open, [start, end), and aligned to 1970-01-01 UTC, not to the first row.
//! A window whose start would be negative is left out, as ksqlDB does.
//! Source: ksqlDB, "Time and Windows in ksqlDB Queries".

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, Int64Array, RecordBatch, UInt32Array};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, SchemaRef, TimeUnit};
use planner::WindowSpec;

use crate::error::Result;
use crate::layout::{batch_of, take_rows};

/// Ticks of a time type in one millisecond; None if the type is coarser or no time.
pub(crate) fn ticks_per_ms(data_type: &DataType) -> i64 {
    match data_type {
        DataType::Timestamp(TimeUnit::Microsecond, _) => 1_000,
        DataType::Timestamp(TimeUnit::Nanosecond, _) => 1_000_000,
        _ => 1,
    }
}

/// A time column in milliseconds since 1970.
///
/// # Errors
/// If the column is not a time.
pub(crate) fn to_ms(times: &ArrayRef) -> Result<Int64Array> {
    let millis = match times.data_type() {
        DataType::Int64 => Arc::clone(times),
        DataType::Timestamp(_, zone) => {
            let ms = cast(times, &DataType::Timestamp(TimeUnit::Millisecond, zone.clone()))?;
            cast(&ms, &DataType::Int64)?
        }
        _ => cast(&cast(times, &DataType::Timestamp(TimeUnit::Millisecond, None))?, &DataType::Int64)?,
    };
    Ok(Int64Array::from(millis.to_data()))
}

/// Starts of the windows that hold `time`, ascending.
pub(crate) fn starts(spec: &WindowSpec, time: i64) -> impl Iterator<Item = i64> {
    let last = time - time.rem_euclid(spec.advance_ms);
    let reach = spec.size_ms - (time - last) - 1;
    let first = last - reach.max(0) / spec.advance_ms * spec.advance_ms;
    let advance = spec.advance_ms;
    let empty = reach < 0;
    (0..)
        .map(move |n| first + n * advance)
        .take_while(move |start| *start <= last && !empty)
        .filter(move |start| *start >= 0 || time < 0)
}

/// The windows that hold `time`, beginning and end: those of one beginning in the order of their ends.
fn windows(spec: &WindowSpec, time: i64) -> impl Iterator<Item = (i64, i64)> {
    let (size, step) = (spec.size_ms, spec.step_ms.unwrap_or(spec.size_ms));
    starts(spec, time).flat_map(move |start| {
        let first = start + ((time - start) / step + 1) * step;
        (0..)
            .map(move |n| first + n * step)
            .take_while(move |end| *end <= start + size)
            .map(move |end| (start, end))
    })
}

/// Rows placed in windows: which row, and its window's beginning and end in ms.
pub(crate) struct Placed {
    pub(crate) rows: Vec<u32>,
    windows_ms: Vec<(i64, i64)>,
}

/// Places each row whose time is not null; `keep` may refuse a (row, window end).
pub(crate) fn place(
    spec: &WindowSpec,
    times_ms: &Int64Array,
    mut keep: impl FnMut(usize, i64) -> bool,
) -> Placed {
    let mut placed =
        Placed { rows: Vec::with_capacity(times_ms.len()), windows_ms: Vec::with_capacity(times_ms.len()) };
    let tumbling = spec.step_ms.is_none() && spec.size_ms == spec.advance_ms;
    for row in (0..times_ms.len()).filter(|row| times_ms.is_valid(*row)) {
        let mut put = |window: (i64, i64)| {
            if keep(row, window.1) {
                placed.rows.push(u32::try_from(row).unwrap_or(u32::MAX));
                placed.windows_ms.push(window);
            }
        };
        let time = times_ms.value(row);
        if tumbling {
            let start = time - time.rem_euclid(spec.size_ms);
            put((start, start + spec.size_ms));
        } else {
            windows(spec, time).for_each(put);
        }
    }
    placed
}

impl Placed {
    /// The rows with the two bounds behind them, in the layout `schema`.
    pub(crate) fn batch(&self, rows: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
        let indices = UInt32Array::from(self.rows.clone());
        let whole =
            self.rows.len() == rows.num_rows() && self.rows.iter().enumerate().all(|(i, r)| i == *r as usize);
        let mut columns =
            if whole { rows.columns().to_vec() } else { take_rows(rows, &indices)?.columns().to_vec() };
        let bound = |side: fn(&(i64, i64)) -> i64| -> Result<ArrayRef> {
            let data_type = schema.field(columns.len()).data_type();
            let ticks = ticks_per_ms(data_type);
            let values = self.windows_ms.iter().map(|window| side(window) * ticks);
            let values = Int64Array::from_iter_values(values);
            let array: ArrayRef = Arc::new(values);
            Ok(if *data_type == DataType::Int64 { array } else { cast(&array, data_type)? })
        };
        let (start, end) = (bound(|window| window.0)?, bound(|window| window.1)?);
        columns.extend([start, end]);
        Ok(batch_of(schema, columns, self.rows.len())?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_hold_their_times() {
        let spec = |size_ms, advance_ms| WindowSpec { size_ms, advance_ms, step_ms: None, grace_ms: None };
        let at = |s: &WindowSpec, t| starts(s, t).collect::<Vec<_>>();
        assert_eq!(at(&spec(10, 10), 0), [0]);
        assert_eq!(at(&spec(10, 10), 9), [0]);
        assert_eq!(at(&spec(10, 10), 10), [10]);
        assert_eq!(at(&spec(30, 10), 25), [0, 10, 20]);
        assert_eq!(at(&spec(30, 10), 5), [0]);
        assert_eq!(at(&spec(30, 20), 45), [20, 40]);
        assert_eq!(at(&spec(10, 10), -1), [-10]);
        let cumulating = WindowSpec { step_ms: Some(5), ..spec(15, 15) };
        let ends = |t| windows(&cumulating, t).collect::<Vec<_>>();
        assert_eq!(ends(0), [(0, 5), (0, 10), (0, 15)]);
        assert_eq!(ends(9), [(0, 10), (0, 15)]);
        assert_eq!(ends(29), [(15, 30)]);
    }
}
