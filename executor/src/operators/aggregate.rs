//! GROUP BY, kept up to date: for each group that an epoch touches, the old row goes and the new
//! one comes, if they differ.
//!
//! State is cut into shards by the hash of the group; a large epoch steps them in parallel.
//! Invariant: a group is there exactly while rows with positive total weight are in it; without
//! GROUP BY there is always one row.

use datafusion::arrow::array::{Array, ArrayRef, BooleanArray, Int64Array, RecordBatch};
use datafusion::arrow::compute::kernels::cmp::not_distinct;
use datafusion::arrow::compute::{and, filter_record_batch, not};
use datafusion::arrow::datatypes::SchemaRef;

use super::accumulators::Accumulator;
use super::aggregate_call::{AggregateCall, Arguments};
use super::shards::{save_shards, shard_of, step_shards};
use crate::change::ChangeBatch;
use crate::error::{Error, Result};
use crate::expression::{Expression, resilient};
use crate::keys::{EncodedRows, KeyTable, RowCodec, Slot, hash};
use crate::layout::batch_of;
use crate::operator::{Changes, Operator};
use crate::rejects::StepRejects;
use crate::state::{Image, StateReader, Stateful};

pub(crate) struct Aggregate {
    group: Vec<Expression>,
    calls: Vec<AggregateCall>,
    codec: RowCodec,
    schema: SchemaRef,
    shards: Vec<Shard>,
    started: bool,
}

/// A batch with everything evaluated.
struct Evaluated {
    keys: EncodedRows,
    hashes: Vec<u64>,
    arguments: Arguments,
    /// Rows of each shard.
    rows: Vec<Vec<u32>>,
}

struct Shard {
    keys: KeyTable,
    /// Total weight of each group.
    weights: Vec<i64>,
    accumulators: Vec<Box<dyn Accumulator>>,
    /// For each slot the step that touched it last.
    touched_in: Vec<u32>,
    step: u32,
    /// Groups that an epoch touched without changing their row are told too, with weight 0.
    tells: bool,
}

impl Aggregate {
    pub(crate) fn try_new(
        group: Vec<Expression>,
        calls: Vec<AggregateCall>,
        schema: SchemaRef,
        retracting: bool,
        shards: usize,
    ) -> Result<Self> {
        let codec =
            RowCodec::try_new(schema.fields().iter().take(group.len()).map(|f| f.data_type().clone()))?;
        let shards = if group.is_empty() { 1 } else { shards.max(1) };
        let shards = (0..shards).map(|_| Shard::try_new(&calls, retracting)).collect::<Result<Vec<_>>>()?;
        Ok(Self { group, calls, codec, schema, shards, started: false })
    }

    fn evaluate(&self, batch: &ChangeBatch) -> Result<Evaluated> {
        let columns = self.group.iter().map(|e| e.evaluate(&batch.rows)).collect::<Result<Vec<_>>>()?;
        let keys = self.codec.encode(&columns, batch.len())?;
        let mut rows = vec![Vec::new(); self.shards.len()];
        let mut hashes = Vec::with_capacity(batch.len());
        for row in 0..batch.len() {
            let hash = hash(keys.row(row));
            hashes.push(hash);
            rows[shard_of(hash, self.shards.len())].push(u32::try_from(row).unwrap_or(u32::MAX));
        }
        Ok(Evaluated { keys, hashes, arguments: Arguments::evaluate(&self.calls, batch)?, rows })
    }
}

impl Operator for Aggregate {
    fn step(&mut self, inputs: Vec<Changes>, rejects: &mut StepRejects) -> Result<Changes> {
        let batches: Changes = inputs.into_iter().flatten().filter(|b| !b.is_empty()).collect();
        let always = self.group.is_empty();
        let first = always && !std::mem::replace(&mut self.started, true);
        if batches.is_empty() && !first {
            return Ok(Vec::new());
        }
        let rows: usize = batches.iter().map(ChangeBatch::len).sum();
        let mut evaluated = Vec::with_capacity(batches.len());
        for batch in &batches {
            evaluated.extend(resilient(batch, rejects, &mut |b| self.evaluate(b))?);
        }
        let (codec, schema) = (&self.codec, &self.schema);
        let run =
            |shard: &mut Shard, index: usize| shard.step(index, &evaluated, codec, schema, always, first);
        let indices = (0..self.shards.len()).collect();
        step_shards(&mut self.shards, indices, rows, run)
    }

    fn tell_touched(&mut self) {
        self.shards.iter_mut().for_each(|shard| shard.tells = true);
    }

    fn save(&self, image: &mut Image) {
        image.flag(self.started);
        save_shards(&self.shards, image, Shard::save);
    }

    fn load(&mut self, state: &mut StateReader<'_>) -> Result<()> {
        self.started = state.flag()?;
        self.shards.iter_mut().try_for_each(|shard| shard.load(state))
    }

    fn state_bytes(&self) -> usize {
        self.shards.iter().map(Shard::bytes).sum()
    }
}

impl Shard {
    fn try_new(calls: &[AggregateCall], retracting: bool) -> Result<Self> {
        let accumulators = calls.iter().map(|c| c.accumulator(retracting)).collect::<Result<Vec<_>>>()?;
        Ok(Self {
            keys: KeyTable::default(),
            weights: Vec::new(),
            accumulators,
            touched_in: Vec::new(),
            step: 0,
            tells: false,
        })
    }

    fn bytes(&self) -> usize {
        self.keys.bytes()
            + self.weights.capacity() * 12
            + self.accumulators.iter().map(|a| a.bytes()).sum::<usize>()
    }

    fn step(
        &mut self,
        index: usize,
        batches: &[Evaluated],
        codec: &RowCodec,
        schema: &SchemaRef,
        always: bool,
        first: bool,
    ) -> Result<Changes> {
        self.step = self.step.wrapping_add(1);
        let mut touched: Vec<Slot> = Vec::new();
        if first {
            self.touch_key(hash(&[]), &[], &mut touched);
        }
        let mut slots = Vec::with_capacity(batches.len());
        for batch in batches {
            let rows = &batch.rows[index];
            let of_row = |(at, row): (usize, &u32)| {
                self.keys.warm(at, rows.len(), |at| batch.hashes[rows[at] as usize]);
                let row = *row as usize;
                self.touch_key(batch.hashes[row], batch.keys.row(row), &mut touched)
            };
            slots.push(rows.iter().enumerate().map(of_row).collect::<Vec<_>>());
        }
        if touched.is_empty() {
            return Ok(Vec::new());
        }
        self.grow();
        let existed: Vec<bool> =
            touched.iter().map(|s| self.weights[*s as usize] > 0 || (always && !first)).collect();
        let old = self.rows(&touched, codec, schema)?;
        for (batch, slots) in batches.iter().zip(&slots) {
            self.update(index, batch, slots)?;
        }
        self.accumulators.iter_mut().for_each(|a| a.settle(&touched));
        if self.touched_are_negative(&touched) {
            return Err(Error::bug("aggregate", "a row was taken back that was never there"));
        }
        let new = self.rows(&touched, codec, schema)?;
        let exists: Vec<bool> = touched.iter().map(|s| self.weights[*s as usize] > 0 || always).collect();
        let changes = differences(&old, &existed, &new, &exists, self.tells)?;
        for (slot, exists) in touched.iter().zip(&exists) {
            if !exists {
                self.remove(*slot);
            }
        }
        Ok(changes)
    }

    fn touch_key(&mut self, hash: u64, key: &[u8], touched: &mut Vec<Slot>) -> Slot {
        let (slot, _) = self.keys.insert_hashed(hash, key);
        if self.touched_in.len() <= slot as usize {
            self.touched_in.resize(self.keys.capacity(), 0);
        }
        let mark = &mut self.touched_in[slot as usize];
        if *mark != self.step {
            *mark = self.step;
            touched.push(slot);
        }
        slot
    }

    fn grow(&mut self) {
        let slots = self.keys.capacity();
        self.weights.resize(slots.max(self.weights.len()), 0);
        for accumulator in &mut self.accumulators {
            accumulator.grow(slots);
        }
    }

    fn update(&mut self, index: usize, batch: &Evaluated, slots: &[Slot]) -> Result<()> {
        let rows = &batch.rows[index];
        for (slot, row) in slots.iter().zip(rows) {
            self.weights[*slot as usize] += batch.arguments.weight(*row);
        }
        batch.arguments.update(&mut self.accumulators, slots, rows)
    }

    fn touched_are_negative(&self, touched: &[Slot]) -> bool {
        touched.iter().any(|s| self.weights[*s as usize] < 0)
    }

    /// The result rows of groups.
    fn rows(&self, slots: &[Slot], codec: &RowCodec, schema: &SchemaRef) -> Result<RecordBatch> {
        let mut columns = codec.decode(slots.iter().map(|s| self.keys.key(*s)))?;
        for accumulator in &self.accumulators {
            columns.push(accumulator.results(slots)?);
        }
        Ok(batch_of(schema, columns, slots.len())?)
    }

    fn remove(&mut self, slot: Slot) {
        self.keys.remove(slot);
        self.weights[slot as usize] = 0;
        for accumulator in &mut self.accumulators {
            accumulator.clear(slot);
        }
    }
}

impl Stateful for Shard {
    fn save(&self, image: &mut Image) {
        self.keys.save(image);
        image.vector(&self.weights);
        self.accumulators.iter().for_each(|a| a.save(image));
    }

    fn load(&mut self, state: &mut StateReader<'_>) -> Result<()> {
        self.keys.load(state)?;
        self.weights = state.vector()?;
        self.touched_in = vec![self.step; self.keys.capacity()];
        self.accumulators.iter_mut().try_for_each(|a| a.load(state))
    }
}

/// -old and +new for groups whose row changed; with `tells`, the rows of the others with weight 0.
pub(super) fn differences(
    old: &RecordBatch,
    existed: &[bool],
    new: &RecordBatch,
    exists: &[bool],
    tells: bool,
) -> Result<Changes> {
    let mut same: BooleanArray = existed.iter().zip(exists).map(|(a, b)| Some(*a && *b)).collect();
    for (before, after) in old.columns().iter().zip(new.columns()) {
        same = and(&same, &equal(before, after)?)?;
    }
    let changed = not(&same)?;
    let gone = and(&changed, &BooleanArray::from(existed.to_vec()))?;
    let came = and(&changed, &BooleanArray::from(exists.to_vec()))?;
    let mut out = Vec::new();
    let mut add = |rows: &RecordBatch, wanted: &BooleanArray, weight: i64| -> Result<()> {
        if wanted.true_count() > 0 {
            let rows = filter_record_batch(rows, wanted)?;
            let weights = Int64Array::from_value(weight, rows.num_rows());
            out.push(ChangeBatch::weighted(rows, weights));
        }
        Ok(())
    };
    add(old, &gone, -1)?;
    add(new, &came, 1)?;
    if tells {
        add(new, &same, 0)?;
    }
    Ok(out)
}

/// Whether values are equal, NULL being equal to NULL.
fn equal(before: &ArrayRef, after: &ArrayRef) -> Result<BooleanArray> {
    if before.data_type().is_nested() {
        let same = (0..before.len()).map(|row| Some(before.slice(row, 1) == after.slice(row, 1)));
        return Ok(same.collect());
    }
    Ok(not_distinct(before, after)?)
}
