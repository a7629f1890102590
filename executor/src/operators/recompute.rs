//! Any operation that works on whole partitions, kept up to date by doing it again for the
//! partitions that change: their rows and their results are kept, a fragment of a batch plan runs
//! over the rows, and the difference to the results before is what changed.
//!
//! Invariant: the results kept are the fragment's over the rows kept, whatever order it breaks ties
//! in: what is taken back is what was given.

use datafusion::arrow::array::{Int64Array, RecordBatch};
use datafusion::arrow::datatypes::SchemaRef;

use super::keyed_rows::{Keyed, KeyedRows, RowId, shard_changes};
use super::shards::{save_shards, step_shards};
use crate::change::{ChangeBatch, consolidate};
use crate::error::Result;
use crate::fragment::Fragment;
use crate::keys::KeyTable;
use crate::layout::batch_of;
use crate::operator::{Changes, Operator};
use crate::rejects::StepRejects;
use crate::state::{Image, StateReader, Stateful};

pub(crate) struct Recompute {
    shards: Vec<Shard>,
    started: bool,
}

/// What a shard is made of: the rows' layout and key, the results' layout and key, the fragment.
pub(crate) struct Shard {
    pub(crate) rows: KeyedRows,
    pub(crate) results: KeyedRows,
    pub(crate) fragment: Fragment,
    pub(crate) schema: SchemaRef,
    /// There is one partition, and it is there without rows.
    pub(crate) whole: bool,
    /// Results that an epoch touched and left as they are come too, with weight 0.
    pub(crate) tells: bool,
}

impl Recompute {
    pub(crate) fn new(shards: Vec<Shard>) -> Self {
        Self { shards, started: false }
    }
}

impl Operator for Recompute {
    fn step(&mut self, inputs: Vec<Changes>, rejects: &mut StepRejects) -> Result<Changes> {
        let whole = self.shards.iter().any(|s| s.whole);
        let first = !std::mem::replace(&mut self.started, true) && whole;
        let rows: usize = inputs.iter().flatten().map(ChangeBatch::len).sum();
        if rows == 0 && !first {
            return Ok(Vec::new());
        }
        let (side, shards) = (&self.shards[0].rows, self.shards.len());
        let parts = shard_changes(inputs.into_iter().flatten(), side, shards, rejects)?;
        step_shards(&mut self.shards, parts, rows, |shard, changes| shard.step(&changes, first))
    }

    fn tell_touched(&mut self) {
        self.shards.iter_mut().for_each(|shard| shard.tells = true);
    }

    fn save(&self, image: &mut Image) {
        image.flag(self.started);
        save_shards(&self.shards, image, |shard, image| {
            shard.rows.save(image);
            shard.results.save(image);
        });
    }

    fn load(&mut self, state: &mut StateReader<'_>) -> Result<()> {
        self.started = state.flag()?;
        for shard in &mut self.shards {
            shard.rows.load(state)?;
            shard.results.load(state)?;
        }
        Ok(())
    }

    fn state_bytes(&self) -> usize {
        self.shards.iter().map(|s| s.rows.bytes() + s.results.bytes()).sum()
    }
}

impl Shard {
    fn step(&mut self, changes: &[Keyed], first: bool) -> Result<Changes> {
        let mut touched = KeyTable::default();
        if first {
            touched.insert(&[]);
        }
        for batch in changes {
            (0..batch.batch.len()).for_each(|row| {
                touched.insert_hashed(batch.hash(row), batch.key(row));
            });
            self.rows.apply(batch)?;
        }
        self.rows.check()?;
        let (mut now, mut before): (Vec<RowId>, Vec<RowId>) = (Vec::new(), Vec::new());
        for slot in touched.slots() {
            self.rows.expand(touched.key(slot), &mut now);
            self.results.expand(touched.key(slot), &mut before);
        }
        let mut difference = Vec::new();
        if !before.is_empty() {
            let rows = batch(&self.schema, &self.results, &before)?;
            let weights = Int64Array::from_value(-1, before.len());
            difference.push(ChangeBatch::weighted(rows, weights));
        }
        if !now.is_empty() || self.whole {
            let rows = batch(self.fragment.input(), &self.rows, &now)?;
            let results = self.fragment.run(rows, &self.schema)?;
            difference.extend(results.into_iter().filter(|b| b.num_rows() > 0).map(ChangeBatch::inserted));
        }
        let mut difference = consolidate(&self.schema, difference)?;
        let mut changed = KeyTable::default();
        for change in &difference {
            let keyed = self.results.keyed(change)?;
            if self.tells {
                (0..change.len()).for_each(|row| {
                    changed.insert_hashed(keyed.hash(row), keyed.key(row));
                });
            }
            self.results.apply(&keyed)?;
        }
        if self.tells {
            difference.extend(self.unchanged(&touched, &changed)?);
        }
        Ok(difference)
    }

    /// The results of partitions that were touched and have not changed.
    fn unchanged(&self, touched: &KeyTable, changed: &KeyTable) -> Result<Option<ChangeBatch>> {
        let mut same: Vec<RowId> = Vec::new();
        for slot in touched.slots().filter(|slot| changed.find(touched.key(*slot)).is_none()) {
            self.results.expand(touched.key(slot), &mut same);
        }
        if same.is_empty() {
            return Ok(None);
        }
        let rows = batch(&self.schema, &self.results, &same)?;
        Ok(Some(ChangeBatch::weighted(rows, Int64Array::from_value(0, same.len()))))
    }
}

fn batch(schema: &SchemaRef, rows: &KeyedRows, ids: &[RowId]) -> Result<RecordBatch> {
    Ok(batch_of(schema, rows.columns(ids)?, ids.len())?)
}
