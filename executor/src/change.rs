//! A batch of changes: rows with integer weights, +1 for a row that came, -1 for one that went.
//!
//! No weights means all +1: rows that only come take the fast path everywhere.
//! Source: Budiu et al., "DBSP: Automatic Incremental View Maintenance" (VLDB 2023), Z-sets.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, BooleanArray, Int64Array, RecordBatch, UInt32Array};
use datafusion::arrow::compute::{concat, concat_batches, filter, filter_record_batch, take};
use datafusion::arrow::datatypes::SchemaRef;

use crate::error::Result;
use crate::keys::{KeyTable, RowCodec};
use crate::layout::take_rows;

/// Rows that came and went. Rows and weights have equal length; no weight is null.
#[derive(Debug, Clone)]
pub struct ChangeBatch {
    /// The rows.
    pub rows: RecordBatch,
    /// Their weights; None is all +1.
    pub weights: Option<Int64Array>,
}

impl ChangeBatch {
    /// Rows that came.
    pub fn inserted(rows: RecordBatch) -> Self {
        Self { rows, weights: None }
    }

    /// Rows that came or went.
    pub fn weighted(rows: RecordBatch, weights: Int64Array) -> Self {
        debug_assert_eq!(rows.num_rows(), weights.len(), "a weight for each row");
        Self { rows, weights: Some(weights) }
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.rows.num_rows()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The weight of a row.
    pub fn weight(&self, row: usize) -> i64 {
        self.weights.as_ref().map_or(1, |w| w.value(row))
    }

    /// Number of rows that went.
    pub(crate) fn retracted(&self) -> u64 {
        self.weights.as_ref().map_or(0, |w| w.values().iter().filter(|w| **w < 0).count() as u64)
    }

    /// The same changes with other columns of equal length.
    pub(crate) fn with_rows(&self, rows: RecordBatch) -> Self {
        Self { rows, weights: self.weights.clone() }
    }

    pub(crate) fn filter(&self, mask: &BooleanArray) -> Result<Self> {
        let weights = self.weights.as_ref().map(|w| filter(w, mask)).transpose()?;
        Ok(Self { rows: filter_record_batch(&self.rows, mask)?, weights: weights.as_ref().map(int64) })
    }

    pub(crate) fn take(&self, indices: &UInt32Array) -> Result<Self> {
        let weights = self.weights.as_ref().map(|w| take(w, indices, None)).transpose()?;
        Ok(Self { rows: take_rows(&self.rows, indices)?, weights: weights.as_ref().map(int64) })
    }

    /// Each row as often as its weight says: what only comes has no weights.
    pub(crate) fn repeated(&self) -> Result<Self> {
        let copies = (0..self.len()).flat_map(|row| {
            let row_id = u32::try_from(row).unwrap_or(u32::MAX);
            (0..self.weight(row)).map(move |_| row_id)
        });
        Ok(Self::inserted(take_rows(&self.rows, &copies.collect::<UInt32Array>())?))
    }

    /// One batch of several with the same layout.
    pub(crate) fn concat(schema: &SchemaRef, batches: &[Self]) -> Result<Self> {
        let rows = concat_batches(schema, batches.iter().map(|b| &b.rows))?;
        if batches.iter().all(|b| b.weights.is_none()) {
            return Ok(Self::inserted(rows));
        }
        let weights: Vec<ArrayRef> = batches
            .iter()
            .map(|b| -> ArrayRef {
                Arc::new(b.weights.clone().unwrap_or_else(|| Int64Array::from_value(1, b.len())))
            })
            .collect();
        let weights = concat(&weights.iter().map(AsRef::as_ref).collect::<Vec<_>>())?;
        Ok(Self { rows, weights: Some(int64(&weights)) })
    }
}

fn int64(array: &ArrayRef) -> Int64Array {
    Int64Array::from(array.to_data())
}

/// The net of changes: a row that goes and comes does neither, rows that go are given once with the sum
/// of their weights. Those that go are first, each in the order of first appearance.
pub(crate) fn consolidate(schema: &SchemaRef, batches: Vec<ChangeBatch>) -> Result<Vec<ChangeBatch>> {
    if batches.iter().all(|b| b.retracted() == 0) {
        return Ok(batches);
    }
    let all = ChangeBatch::concat(schema, &batches)?;
    let codec = RowCodec::try_new(schema.fields().iter().map(|f| f.data_type().clone()))?;
    let encoded = codec.encode(all.rows.columns(), all.len())?;
    let mut going = KeyTable::default();
    let (mut rows, mut weights): (Vec<u32>, Vec<i64>) = (Vec::new(), Vec::new());
    let number = |row: usize| u32::try_from(row).unwrap_or(u32::MAX);
    for row in (0..all.len()).filter(|row| all.weight(*row) < 0) {
        let (slot, new) = going.insert(encoded.row(row));
        if new {
            rows.push(number(row));
            weights.push(0);
        }
        weights[slot as usize] += all.weight(row);
    }
    let (mut coming, mut came): (Vec<u32>, Vec<i64>) = (Vec::new(), Vec::new());
    for row in (0..all.len()).filter(|row| all.weight(*row) > 0) {
        let mut left = all.weight(row);
        if let Some(slot) = going.find(encoded.row(row)) {
            let gone = &mut weights[slot as usize];
            let met = left.min(-*gone);
            *gone += met;
            left -= met;
        }
        if left > 0 {
            coming.push(number(row));
            came.push(left);
        }
    }
    let kept: (Vec<u32>, Vec<i64>) = rows.into_iter().zip(weights).filter(|(_, w)| *w != 0).unzip();
    let (indices, weights) = ([kept.0, coming].concat(), [kept.1, came].concat());
    if indices.is_empty() {
        return Ok(Vec::new());
    }
    let rows = take_rows(&all.rows, &UInt32Array::from(indices))?;
    if weights.iter().all(|w| *w == 1) {
        return Ok(vec![ChangeBatch::inserted(rows)]);
    }
    Ok(vec![ChangeBatch::weighted(rows, Int64Array::from(weights))])
}
