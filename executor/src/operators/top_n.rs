//! The first rows of each partition: ORDER BY … LIMIT, and row_number() <= n.
//!
//! Rows that are equal in the order come in the order of their values, so that the answer does not
//! depend on how the rows came. Where rows only come, those that can never be among the first are
//! forgotten at once: state is then n rows for each partition.

use std::cmp::Ordering;
use std::ops::Range;
use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, Int64Array, UInt64Array};
use datafusion::arrow::compute::SortOptions;
use datafusion::arrow::datatypes::{DataType, SchemaRef};

use super::keyed_rows::{Keyed, KeyedRows, shard_changes};
use super::ordered::{Kept, Ordered};
use super::shards::{save_shards, step_shards};
use crate::change::ChangeBatch;
use crate::error::Result;
use crate::expression::Expression;
use crate::keys::{KeyTable, RowCodec, Slot};
use crate::layout::batch_of;
use crate::operator::{Changes, Operator};
use crate::rejects::StepRejects;
use crate::state::{Image, StateReader, Stateful};

/// What is kept for each row beside its bytes.
const ENTRY_BYTES: usize = 48;

/// What a top-n is made of.
pub(crate) struct TopNSpec {
    pub(crate) partition: Vec<Expression>,
    pub(crate) partition_types: Vec<DataType>,
    pub(crate) order: Vec<(Expression, DataType, SortOptions)>,
    pub(crate) skip: usize,
    pub(crate) fetch: usize,
    pub(crate) numbered: bool,
    /// Rows may be taken back.
    pub(crate) retracting: bool,
    pub(crate) input: SchemaRef,
    pub(crate) schema: SchemaRef,
}

pub(crate) struct TopN {
    spec: Arc<TopNSpec>,
    /// Encodes partitions; holds no rows.
    keyed: KeyedRows,
    shards: Vec<Shard>,
}

struct Shard {
    spec: Arc<TopNSpec>,
    order_codec: RowCodec,
    row_codec: RowCodec,
    keys: KeyTable,
    partitions: Vec<Ordered>,
    bytes: usize,
    /// The bytes of the row at hand, before it is known whether they are kept.
    key: Vec<u8>,
    /// The last step in which each partition changed, and this one.
    touched_in: Vec<u32>,
    step: u32,
}

/// A row of the result and its number.
#[derive(Clone)]
struct Numbered {
    /// Its order, then its own bytes from `row_at` on.
    key: Arc<[u8]>,
    row_at: u32,
    number: u64,
}

impl TopN {
    pub(crate) fn try_new(spec: TopNSpec, shards: usize) -> Result<Self> {
        let spec = Arc::new(spec);
        let keyed =
            KeyedRows::try_new(spec.partition.clone(), spec.partition_types.clone(), &spec.input, true)?;
        let shards = if spec.partition.is_empty() { 1 } else { shards.max(1) };
        let shards = (0..shards).map(|_| Shard::try_new(&spec)).collect::<Result<_>>()?;
        Ok(Self { spec, keyed, shards })
    }
}

impl Operator for TopN {
    fn step(&mut self, inputs: Vec<Changes>, rejects: &mut StepRejects) -> Result<Changes> {
        let rows: usize = inputs.iter().flatten().map(ChangeBatch::len).sum();
        if rows == 0 || self.spec.fetch == 0 {
            return Ok(Vec::new());
        }
        let parts = shard_changes(inputs.into_iter().flatten(), &self.keyed, self.shards.len(), rejects)?;
        step_shards(&mut self.shards, parts, rows, |shard, changes| shard.step(&changes))
    }

    fn save(&self, image: &mut Image) {
        save_shards(&self.shards, image, Shard::save);
    }

    fn load(&mut self, state: &mut StateReader<'_>) -> Result<()> {
        self.shards.iter_mut().try_for_each(|shard| shard.load(state))
    }

    fn state_bytes(&self) -> usize {
        self.shards.iter().map(|s| s.bytes + s.keys.bytes()).sum()
    }
}

impl Shard {
    fn try_new(spec: &Arc<TopNSpec>) -> Result<Self> {
        let order = spec.order.iter().map(|(_, data_type, options)| (data_type.clone(), *options));
        Ok(Self {
            spec: Arc::clone(spec),
            order_codec: RowCodec::ordered(order)?,
            row_codec: RowCodec::try_new(spec.input.fields().iter().map(|f| f.data_type().clone()))?,
            keys: KeyTable::default(),
            partitions: Vec::new(),
            bytes: 0,
            key: Vec::new(),
            touched_in: Vec::new(),
            step: 0,
        })
    }

    fn step(&mut self, changes: &[Keyed]) -> Result<Changes> {
        self.step = self.step.wrapping_add(1);
        let (mut touched, mut before): (Vec<(Slot, Range<usize>)>, Vec<Numbered>) = (Vec::new(), Vec::new());
        for keyed in changes {
            let batch = &keyed.batch;
            let order = self.spec.order.iter().map(|(e, ..)| e.evaluate(&batch.rows));
            let order = self.order_codec.encode(&order.collect::<Result<Vec<_>>>()?, batch.len())?;
            let rows = self.row_codec.encode(batch.rows.columns(), batch.len())?;
            for row in 0..batch.len() {
                self.keys.warm(row, batch.len(), |row| keyed.hash(row));
                let slot = self.partition(keyed.hash(row), keyed.key(row));
                self.key.clear();
                self.key.extend_from_slice(order.row(row));
                self.key.extend_from_slice(rows.row(row));
                if self.can_never_be_first(slot) {
                    continue;
                }
                if std::mem::replace(&mut self.touched_in[slot as usize], self.step) != self.step {
                    let from = before.len();
                    self.first(slot, &mut before);
                    touched.push((slot, from..before.len()));
                }
                self.change(slot, order.row(row).len(), batch.weight(row));
            }
        }
        let mut difference = Difference { numbered: self.spec.numbered, ..Difference::default() };
        let mut now = Vec::new();
        for (slot, range) in touched {
            now.clear();
            self.first(slot, &mut now);
            difference.take(&before[range], &now);
            if self.partitions[slot as usize].len() == 0 {
                self.keys.remove(slot);
            }
        }
        let mut out = Vec::new();
        for (rows, weight) in [(difference.gone, -1), (difference.came, 1)] {
            if !rows.is_empty() {
                out.push(self.batch(&rows, weight)?);
            }
        }
        Ok(out)
    }

    fn partition(&mut self, hash: u64, key: &[u8]) -> Slot {
        let (slot, _) = self.keys.insert_hashed(hash, key);
        if self.partitions.len() <= slot as usize {
            self.partitions.resize(self.keys.capacity(), self.spec.no_rows());
            self.touched_in.resize(self.keys.capacity(), self.step.wrapping_sub(1));
        }
        slot
    }

    /// Whether the row at hand is behind the last of those kept, where rows only come.
    fn can_never_be_first(&self, slot: Slot) -> bool {
        let partition = &self.partitions[slot as usize];
        let full = !self.spec.retracting && self.spec.kept() <= partition.len();
        full && partition.last().is_some_and(|last| self.key.as_slice() > last)
    }

    /// Changes the row at hand, whose order has `row_at` bytes.
    fn change(&mut self, slot: Slot, row_at: usize, weight: i64) {
        let partition = &mut self.partitions[slot as usize];
        let size = self.key.len() + ENTRY_BYTES;
        match partition.change(&self.key, u32::try_from(row_at).unwrap_or(u32::MAX), weight) {
            Kept::More => self.bytes += size,
            Kept::Same => {}
            Kept::Fewer => self.bytes -= size,
            Kept::Another(bytes) => self.bytes = self.bytes + self.key.len() - bytes,
        }
        while !self.spec.retracting && partition.len() > self.spec.kept() {
            self.bytes -= partition.pop_last().map_or(0, |length| length + ENTRY_BYTES);
        }
    }

    /// The rows that are in the result now, with their numbers.
    fn first(&self, slot: Slot, into: &mut Vec<Numbered>) {
        let mut number = 0u64;
        let (skip, end) = (self.spec.skip as u64, self.spec.kept() as u64);
        self.partitions[slot as usize].each(|key, place| {
            for _ in 0..place.weight {
                number += 1;
                if number > end {
                    return false;
                }
                if number > skip {
                    into.push(Numbered { key: Arc::clone(key), row_at: place.row_at, number });
                }
            }
            true
        });
    }

    fn batch(&self, rows: &[Numbered], weight: i64) -> Result<ChangeBatch> {
        let mut columns = self.row_codec.decode(rows.iter().map(|row| &row.key[row.row_at as usize..]))?;
        if self.spec.numbered {
            let numbers: ArrayRef = Arc::new(rows.iter().map(|row| row.number).collect::<UInt64Array>());
            columns.push(numbers);
        }
        let rows_batch = batch_of(&self.spec.schema, columns, rows.len())?;
        Ok(ChangeBatch::weighted(rows_batch, Int64Array::from_value(weight, rows.len())))
    }
}

impl Stateful for Shard {
    fn save(&self, image: &mut Image) {
        self.keys.save(image);
        image.count(self.bytes);
        image.count(self.partitions.len());
        self.partitions.iter().for_each(|partition| partition.save(image));
    }

    fn load(&mut self, state: &mut StateReader<'_>) -> Result<()> {
        self.keys.load(state)?;
        self.bytes = state.count()?;
        let partitions = state.count()?;
        self.touched_in = vec![self.step; partitions];
        self.partitions = vec![self.spec.no_rows(); partitions];
        self.partitions.iter_mut().try_for_each(|partition| partition.load(state))
    }
}

impl TopNSpec {
    /// A partition before its first row.
    fn no_rows(&self) -> Ordered {
        Ordered::new(if self.retracting { usize::MAX } else { self.kept() })
    }

    /// Rows of a partition that matter.
    fn kept(&self) -> usize {
        self.skip.saturating_add(self.fetch)
    }
}

/// What of results went and what came.
#[derive(Default)]
struct Difference {
    /// A row with another number is another row.
    numbered: bool,
    gone: Vec<Numbered>,
    came: Vec<Numbered>,
}

impl Difference {
    /// Takes the results of one partition, both in its order.
    fn take(&mut self, before: &[Numbered], now: &[Numbered]) {
        let (mut before, mut now) = (before.iter().peekable(), now.iter().peekable());
        loop {
            let order = match (before.peek(), now.peek()) {
                (None, None) => return,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(old), Some(new)) if Arc::ptr_eq(&old.key, &new.key) => Ordering::Equal,
                (Some(old), Some(new)) => old.key.cmp(&new.key),
            };
            let old = before.next_if(|_| order != Ordering::Greater);
            let new = now.next_if(|_| order != Ordering::Less);
            if let (Some(old), Some(new)) = (old, new)
                && (!self.numbered || old.number == new.number)
            {
                continue;
            }
            self.gone.extend(old.cloned());
            self.came.extend(new.cloned());
        }
    }
}
