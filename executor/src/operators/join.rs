//! Inner equi-join, kept up to date on both sides: with changes dL and dR,
//! the result changes by dL ⋈ R + (L + dL) ⋈ dR.
//!
//! State is cut into shards by the hash of the join key. A side that is a table with its key is looked up
//! in the table; it has its changes already, so they are taken first, against the other side as it was.
//! Source: Budiu et al., "DBSP" (VLDB 2023), incremental bilinear operators.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, RecordBatch, UInt32Array};
use datafusion::arrow::datatypes::{DataType, SchemaRef};

use super::join_side::{JoinSide, SideReader};
use super::keyed_rows::{Keyed, KeyedRows, RowId, product, shard_changes};
use super::row_expiry::{Expiry, RowExpiry};
use super::shards::{save_shards, step_shards};
use crate::change::ChangeBatch;
use crate::error::{Error, Lateness, Result};
use crate::expression::{Expression, resilient, row_text};
use crate::keys::{KeyTable, RowCodec};
use crate::layout::{batch_of, take_rows};
use crate::operator::{Changes, Operator};
use crate::rejects::StepRejects;
use crate::state::{Image, StateReader, Stateful};
use crate::table::TableStore;

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
    /// How long rows of each side are kept; None: for ever.
    pub(crate) within: Option<[Expiry; 2]>,
    /// The side that is looked up in a table.
    pub(crate) shared: Option<usize>,
    pub(crate) schema: SchemaRef,
}

pub(crate) struct Join {
    filter: Option<Expression>,
    schema: SchemaRef,
    shards: Vec<Shard>,
    shared: Option<usize>,
    /// Largest time of all earlier epochs, where rows are let go.
    stream_time: i64,
}

struct Shard {
    sides: [JoinSide; 2],
    /// The side whose changes are taken first.
    first: usize,
    expiry: Option<[RowExpiry; 2]>,
    /// Rows of the epoch, with their side, that are lost if they met nothing: their time was over.
    late: Vec<(usize, RecordBatch)>,
}

impl JoinSpec {
    pub(crate) fn side(&self, side: usize) -> Result<KeyedRows> {
        let rows = KeyedRows::try_new(
            self.on[side].clone(),
            self.key_types.clone(),
            &self.inputs[side],
            self.null_equal,
        )?;
        Ok(rows.append_only(self.append_only[side] && self.within.is_none()))
    }

    fn shard(&self) -> Result<Shard> {
        Ok(Shard {
            sides: [JoinSide::new(self.side(0)?), JoinSide::new(self.side(1)?)],
            first: self.shared.unwrap_or(0),
            expiry: self
                .within
                .as_ref()
                .map(|sides| sides.each_ref().map(|side| RowExpiry::new(side.clone()))),
            late: Vec::new(),
        })
    }
}

impl Join {
    pub(crate) fn try_new(spec: &JoinSpec, shards: usize) -> Result<Self> {
        let shards = (0..shards.max(1)).map(|_| spec.shard()).collect::<Result<Vec<_>>>()?;
        let (filter, schema) = (spec.filter.clone(), Arc::clone(&spec.schema));
        Ok(Self { filter, schema, shards, shared: spec.shared, stream_time: i64::MIN })
    }
}

impl Operator for Join {
    fn step(&mut self, inputs: Vec<Changes>, rejects: &mut StepRejects) -> Result<Changes> {
        let rows: usize = inputs.iter().flatten().map(ChangeBatch::len).sum();
        if rows == 0 {
            return Ok(Vec::new());
        }
        let mut sides = inputs.into_iter().enumerate().map(|(side, changes)| {
            let (rows, shards) = (self.shards[0].sides[side].keys(), self.shards.len());
            shard_changes(changes, rows, shards, rejects)
        });
        let left = sides.next().transpose()?.unwrap_or_default();
        let right = sides.next().transpose()?.unwrap_or_default();
        drop(sides);
        let sharded: Vec<[Vec<Keyed>; 2]> = left.into_iter().zip(right).map(|(l, r)| [l, r]).collect();
        let (schema, stream_time) = (&self.schema, self.stream_time);
        let joined = step_shards(&mut self.shards, sharded, rows, |shard, changes| {
            shard.step(changes, schema, stream_time)
        })?;
        let mut out = Vec::new();
        for batch in joined {
            out.extend(filtered(batch, self.filter.as_ref(), rejects)?);
        }
        self.tell_of_late(&out, rejects)?;
        self.let_go()?;
        Ok(out)
    }

    fn share(&mut self, table: &TableStore, columns: Vec<usize>) {
        let Some(side) = self.shared else { return };
        self.shards.iter_mut().for_each(|shard| shard.sides[side].share(table, columns.clone()));
    }

    fn save(&self, image: &mut Image) {
        image.value(self.stream_time);
        save_shards(&self.shards, image, |shard, image| {
            shard.sides.iter().for_each(|side| side.save(image));
            shard.expiry.iter().flatten().for_each(|expiry| expiry.save(image));
        });
    }

    fn load(&mut self, state: &mut StateReader<'_>) -> Result<()> {
        self.stream_time = state.value()?;
        for shard in &mut self.shards {
            shard.sides.iter_mut().try_for_each(|side| side.load(state))?;
            shard.expiry.iter_mut().flatten().try_for_each(|expiry| expiry.load(state))?;
        }
        Ok(())
    }

    fn state_bytes(&self) -> usize {
        let expiry = |s: &Shard| s.expiry.iter().flatten().map(RowExpiry::bytes).sum::<usize>();
        self.shards.iter().map(|s| s.sides.iter().map(JoinSide::bytes).sum::<usize>() + expiry(s)).sum()
    }
}

impl Join {
    /// Rejects the rows that came when their time was over and are in no pair.
    fn tell_of_late(&mut self, pairs: &Changes, rejects: &mut StepRejects) -> Result<()> {
        let mut met: [Option<Met>; 2] = [None, None];
        for (side, row) in self.shards.iter_mut().flat_map(|s| std::mem::take(&mut s.late)) {
            let met = match &mut met[side] {
                Some(met) => met,
                none => none.insert(Met::of(pairs, side, &row)?),
            };
            if !met.holds(&row)? {
                rejects.push(Error::Late(Lateness::Join), || row_text(&row, 0));
            }
        }
        Ok(())
    }

    /// Moves stream time on and lets go of the rows whose time is over.
    fn let_go(&mut self) -> Result<()> {
        let newest = self.shards.iter().filter_map(|s| s.expiry.as_ref()).flatten().map(|e| e.newest).max();
        let Some(newest) = newest else { return Ok(()) };
        self.stream_time = self.stream_time.max(newest);
        for Shard { sides, expiry, .. } in &mut self.shards {
            for (side, expiry) in sides.iter_mut().zip(expiry.iter_mut().flatten()) {
                expiry.expire(side.own(), self.stream_time)?;
            }
        }
        Ok(())
    }
}

/// The rows of one side that are in an epoch's pairs, each once.
struct Met {
    codec: RowCodec,
    rows: KeyTable,
}

impl Met {
    /// Those of `side`; `row` is any row of it.
    fn of(pairs: &Changes, side: usize, row: &RecordBatch) -> Result<Self> {
        let codec = RowCodec::try_new(row.schema().fields().iter().map(|f| f.data_type().clone()))?;
        let mut rows = KeyTable::default();
        for batch in pairs {
            let columns = batch.rows.columns();
            let from = if side == 0 { 0 } else { columns.len() - row.num_columns() };
            let own = codec.encode(&columns[from..from + row.num_columns()], batch.len())?;
            for pair in 0..batch.len() {
                rows.insert(own.row(pair));
            }
        }
        Ok(Self { codec, rows })
    }

    fn holds(&self, row: &RecordBatch) -> Result<bool> {
        Ok(self.rows.find(self.codec.encode(row.columns(), 1)?.row(0)).is_some())
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

impl Shard {
    fn step(&mut self, changes: [Vec<Keyed>; 2], schema: &SchemaRef, stream_time: i64) -> Result<Changes> {
        let mut out = Vec::new();
        for side in [self.first, 1 - self.first] {
            let other = self.sides[1 - side].reader();
            for changes in &changes[side] {
                probe(changes, &other, side == 0, schema, &mut out)?;
            }
            drop(other);
            for changes in &changes[side] {
                self.keep(side, changes, stream_time)?;
            }
        }
        self.sides.iter().try_for_each(JoinSide::check)?;
        Ok(out)
    }

    /// Adds rows to their side. One whose time is over is let go before the next epoch.
    fn keep(&mut self, side: usize, changes: &Keyed, stream_time: i64) -> Result<()> {
        let Some(expiry) = &mut self.expiry else { return self.sides[side].apply(changes) };
        let expiry = &mut expiry[side];
        let times = expiry.times(changes)?;
        for row in (0..times.len()).filter(|row| times.is_valid(*row)) {
            if expiry.is_late(times.value(row), stream_time) {
                self.late.push((side, changes.batch.rows.slice(row, 1)));
            }
        }
        let ids = self.sides[side].own().add(changes)?;
        expiry.note(&ids, &times);
        Ok(())
    }
}

/// All pairs of a batch with the rows of the other side, in pieces of bounded size.
fn probe(
    changes: &Keyed,
    other: &SideReader<'_>,
    batch_is_left: bool,
    schema: &SchemaRef,
    out: &mut Changes,
) -> Result<()> {
    let batch = &changes.batch;
    let mut pairs = Pairs::default();
    for row in 0..batch.len() {
        other.each(changes.hash(row), changes.key(row), |id, weight| {
            pairs.push(row, batch.weight(row), id, weight);
            if pairs.rows.len() >= OUTPUT_ROWS {
                out.push(std::mem::take(&mut pairs).batch(batch, other, batch_is_left, schema)?);
            }
            Ok(())
        })?;
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
        other: &SideReader<'_>,
        left: bool,
        schema: &SchemaRef,
    ) -> Result<ChangeBatch> {
        let own = take_rows(&batch.rows, &UInt32Array::from(self.rows))?;
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
    Ok(batch_of(schema, columns, rows)?)
}
