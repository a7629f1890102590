//! Inner equi-join, kept up to date on both sides: with changes dL and dR,
//! the result changes by dL ⋈ R + (L + dL) ⋈ dR.
//!
//! State is cut into shards by the hash of the join key.
//! Source: Budiu et al., "DBSP" (VLDB 2023), incremental bilinear operators.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, UInt32Array};
use datafusion::arrow::compute::take_record_batch;
use datafusion::arrow::datatypes::{DataType, SchemaRef};

use super::keyed_rows::{Keyed, KeyedRows, RowId, product, shard_changes};
use super::shards::step_shards;
use crate::change::ChangeBatch;
use crate::error::Result;
use crate::expression::{Expression, resilient};
use crate::operator::{Changes, Operator};
use crate::rejects::StepRejects;

/// Rows of an output batch, at least where there are that many.
const OUTPUT_ROWS: usize = 8 * 1024;

/// What a join is made of.
pub(crate) struct JoinSpec {
    /// Key expressions of the left and the right side.
    pub(crate) on: [Vec<Expression>; 2],
    pub(crate) key_types: Vec<DataType>,
    pub(crate) inputs: [SchemaRef; 2],
    pub(crate) filter: Option<Expression>,
    pub(crate) null_equal: bool,
    /// Sides whose rows only come.
    pub(crate) append_only: [bool; 2],
    pub(crate) schema: SchemaRef,
}

pub(crate) struct Join {
    filter: Option<Expression>,
    schema: SchemaRef,
    shards: Vec<[KeyedRows; 2]>,
}

impl JoinSpec {
    pub(crate) fn side(&self, side: usize) -> Result<KeyedRows> {
        let rows = KeyedRows::try_new(
            self.on[side].clone(),
            self.key_types.clone(),
            &self.inputs[side],
            self.null_equal,
        )?;
        Ok(rows.append_only(self.append_only[side]))
    }
}

impl Join {
    pub(crate) fn try_new(spec: &JoinSpec, shards: usize) -> Result<Self> {
        let shards =
            (0..shards.max(1)).map(|_| Ok([spec.side(0)?, spec.side(1)?])).collect::<Result<Vec<_>>>()?;
        Ok(Self { filter: spec.filter.clone(), schema: Arc::clone(&spec.schema), shards })
    }
}

impl Operator for Join {
    fn step(&mut self, inputs: Vec<Changes>, rejects: &mut StepRejects) -> Result<Changes> {
        let rows: usize = inputs.iter().flatten().map(ChangeBatch::len).sum();
        if rows == 0 {
            return Ok(Vec::new());
        }
        let mut sides = inputs
            .into_iter()
            .enumerate()
            .map(|(side, changes)| shard_changes(changes, &self.shards[0][side], self.shards.len(), rejects));
        let left = sides.next().transpose()?.unwrap_or_default();
        let right = sides.next().transpose()?.unwrap_or_default();
        drop(sides);
        let sharded: Vec<[Vec<Keyed>; 2]> = left.into_iter().zip(right).map(|(l, r)| [l, r]).collect();
        let schema = &self.schema;
        let joined = step_shards(&mut self.shards, sharded, rows, |shard, changes| {
            step_shard(shard, changes, schema)
        })?;
        let mut out = Vec::new();
        for batch in joined {
            out.extend(filtered(batch, self.filter.as_ref(), rejects)?);
        }
        Ok(out)
    }

    fn state_bytes(&self) -> usize {
        self.shards.iter().flatten().map(KeyedRows::bytes).sum()
    }
}

/// Rows that the join's further condition holds for.
pub(super) fn filtered(
    batch: ChangeBatch,
    filter: Option<&Expression>,
    rejects: &mut StepRejects,
) -> Result<Changes> {
    match filter {
        None => Ok(vec![batch]),
        Some(filter) => resilient(&batch, rejects, &mut |b| b.filter(&filter.mask(&b.rows)?)),
    }
}

fn step_shard(shard: &mut [KeyedRows; 2], changes: [Vec<Keyed>; 2], schema: &SchemaRef) -> Result<Changes> {
    let [left, right] = shard;
    let [left_changes, right_changes] = changes;
    let mut out = Vec::new();
    for changes in &left_changes {
        probe(changes, right, true, schema, &mut out)?;
    }
    for changes in &left_changes {
        left.apply(changes)?;
    }
    for changes in &right_changes {
        probe(changes, left, false, schema, &mut out)?;
    }
    for changes in &right_changes {
        right.apply(changes)?;
    }
    left.check()?;
    right.check()?;
    Ok(out)
}

/// All pairs of a batch with the rows of the other side, in pieces of bounded size.
fn probe(
    changes: &Keyed,
    other: &KeyedRows,
    batch_is_left: bool,
    schema: &SchemaRef,
    out: &mut Changes,
) -> Result<()> {
    let batch = &changes.batch;
    let mut pairs = Pairs::default();
    for row in 0..batch.len() {
        for id in other.matches(changes.hash(row), changes.key(row)) {
            pairs.push(row, batch.weight(row), id, other.weight(id));
            if pairs.rows.len() >= OUTPUT_ROWS {
                out.push(std::mem::take(&mut pairs).batch(batch, other, batch_is_left, schema)?);
            }
        }
    }
    if !pairs.rows.is_empty() {
        out.push(pairs.batch(batch, other, batch_is_left, schema)?);
    }
    Ok(())
}

/// Pairs of a batch's row and another side's row.
#[derive(Default)]
struct Pairs {
    rows: Vec<u32>,
    ids: Vec<RowId>,
    weights: [Vec<i64>; 2],
}

impl Pairs {
    fn push(&mut self, row: usize, weight: i64, id: RowId, other_weight: i64) {
        self.rows.push(u32::try_from(row).unwrap_or(u32::MAX));
        self.ids.push(id);
        self.weights[0].push(weight);
        self.weights[1].push(other_weight);
    }

    fn batch(
        self,
        batch: &ChangeBatch,
        other: &KeyedRows,
        left: bool,
        schema: &SchemaRef,
    ) -> Result<ChangeBatch> {
        let own = take_record_batch(&batch.rows, &UInt32Array::from(self.rows))?;
        let theirs = other.columns(&self.ids)?;
        let rows = glue(own.columns(), &theirs, left, self.ids.len(), schema)?;
        Ok(ChangeBatch { rows, weights: product(&self.weights[0], &self.weights[1]) })
    }
}

/// Columns of both sides beside each other, left ones first.
pub(super) fn glue(
    own: &[ArrayRef],
    theirs: &[ArrayRef],
    own_left: bool,
    rows: usize,
    schema: &SchemaRef,
) -> Result<RecordBatch> {
    let (left, right) = if own_left { (own, theirs) } else { (theirs, own) };
    let columns = left.iter().chain(right).cloned().collect();
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    Ok(RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)?)
}
