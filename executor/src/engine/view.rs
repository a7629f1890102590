//! A view as the step thread runs it: its query, its rows, its result topic.
//!
//! Invariant: what it keeps after an epoch is its query's result at that epoch; what goes wrong sets
//! it aside with its reason, and nothing else.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, UInt32Array,
};
use datafusion::arrow::datatypes::{DataType, Field, Int64Type, Schema};
use planner::Relation;
use storage::log::{Log, Sync, TopicPartition};
use storage::{Epoch, Kind};

use super::budget::Budget;
use super::frames;
use super::meta::Halt;
use super::shared_plans::SharedOperators;
use super::snapshot::QueryStatus;
use super::step::LatestTimes;
use crate::change::{ChangeBatch, consolidate};
use crate::error::{Error, Result};
use crate::format::{Codec, split};
use crate::ingest::topic_schema;
use crate::keys::{KeyTable, RowCodec};
use crate::layout::{nullable, own_bytes, take_rows, widened};
use crate::operator::Changes;
use crate::query::{EpochChanges, OperatorStatus, Query};
use crate::rejects::{Reason, Reject, Rejects, StepRejects};
use crate::table::TableStore;

/// Name of the weight in a result topic's rows.
const WEIGHT: &str = "\u{1}weight";

/// A relation that a query keeps.
pub(crate) struct View {
    pub(crate) relation: Arc<Relation>,
    pub(crate) query: Query,
    /// The operators that work for it and are not its own.
    pub(super) shared: Vec<SharedOperators>,
    /// Bytes of its own operators' state.
    pub(super) own_bytes: usize,
    /// Its rows, unless they only come and are in its topic.
    pub(crate) store: Option<TableStore>,
    pub(crate) status: QueryStatus,
    /// What its state and rows may have.
    pub(super) budget: Budget,
    /// The last epoch whose changes are in each partition of its topic: a crash may come between two.
    pub(crate) topic_epochs: Vec<Epoch>,
    /// How its rows are records, if they are.
    pub(super) codec: Option<Codec>,
    /// It goes on with the next epoch: what its rows have to change by first.
    pub(crate) rejoins: Option<Changes>,
    /// The last epoch that its result has, once it stands still.
    pub(crate) halted_at: Epoch,
}

/// What an epoch brings of a view.
pub(super) struct Output {
    /// Changes of a table. A stream's rows are in its topic.
    pub(super) changes: Option<Changes>,
    /// What it has written to its topic, by partition.
    pub(super) written: Written,
}

/// Batches for partitions of a topic.
pub(super) type Written = Vec<(u32, Vec<RecordBatch>)>;

impl View {
    /// A view whose query has brought nothing yet. `memory_limit` counts where the relation has none.
    pub(super) fn try_new(
        relation: &Arc<Relation>,
        query: Query,
        topic_epochs: Vec<Epoch>,
        memory_limit: Option<u64>,
    ) -> Result<Self> {
        let codec = Codec::of(relation);
        let mut query = query;
        // Readers of records see every update of a table, as ksqlDB writes it.
        if codec.is_some() && !relation.is_stream() {
            query.tell_touched();
        }
        let schema = nullable(&relation.full_schema());
        let grows = query.dataflow().append_only && relation.key.is_empty();
        let store = match relation.is_stream() {
            true => None,
            false if grows => Some(TableStore::append_only(schema)?),
            false => Some(TableStore::try_new(schema, &relation.key)?),
        };
        Ok(Self {
            relation: Arc::clone(relation),
            query,
            shared: Vec::new(),
            own_bytes: 0,
            store,
            status: QueryStatus::default(),
            budget: Budget::new(relation.memory_limit.or(memory_limit)),
            topic_epochs,
            codec,
            rejoins: None,
            halted_at: 0,
        })
    }

    pub(super) fn is_touched(&self, changes: &EpochChanges, now_ms: i64) -> bool {
        let runs = self.status.error.is_none() && self.status.halt.is_none();
        self.rejoins.is_some() || (runs && self.query.is_touched(changes, now_ms))
    }

    /// Whether it could go on if it were told to.
    pub(super) fn stands(&self) -> bool {
        self.rejoins.is_none() && (self.status.error.is_some() || self.status.halt.is_some())
    }

    /// Stops after an epoch. Its rows stay; its state is made again when it goes on.
    pub(super) fn halt(&mut self, halt: Halt, epoch: Epoch) {
        if self.status.error.is_none() && self.status.halt.is_none() {
            self.halted_at = epoch;
        }
        self.status.halt = Some(halt);
        self.rejoins = None;
        self.release();
    }

    /// Lets its state go: it is made again when the view goes on.
    pub(super) fn release(&mut self) {
        self.query.release();
        self.shared.clear();
        self.budget.release();
        self.status.spills = false;
        (self.status.state_bytes, self.own_bytes) = (0, 0);
    }

    /// One epoch; None when the query failed and was set aside.
    pub(super) fn step(
        &mut self,
        epoch: Epoch,
        now_ms: i64,
        changes: &EpochChanges,
        latest: &LatestTimes,
        log: &Arc<dyn Log>,
        all_rejects: &Rejects,
    ) -> Option<Output> {
        let started = Instant::now();
        let mut rejects = StepRejects::default();
        let spills = self.budget.spills();
        let work = || -> Result<Output> {
            let result = self.query.step(changes, now_ms, &mut rejects)?;
            let kept = match self.rejoins.take() {
                Some(first) => self.rejoin(first, result, now_ms)?,
                None => self.keep(result, now_ms)?,
            };
            self.measure();
            self.check_memory()?;
            let touched = self.query.take_touched().into_iter();
            let touched = touched.map(|b| self.full_layout(b, now_ms)).collect::<Result<Changes>>()?;
            let latest_ms = self.latest_ms(latest).unwrap_or(now_ms);
            let written = match touched.is_empty() {
                true => self.written(&kept, latest_ms)?,
                false => self.written(&[kept.clone(), touched].concat(), latest_ms)?,
            };
            self.write_topic(epoch, now_ms, &written, log)?;
            Ok(Output { changes: (!self.relation.is_stream()).then_some(kept), written })
        };
        let kept = catch_unwind(AssertUnwindSafe(|| spill::within(spills, work)))
            .unwrap_or_else(|_| Err(Error::bug("a view", "its table could not be kept")));
        self.note(all_rejects, rejects, epoch, now_ms);
        let sources = self.query.sources();
        let rows_in =
            sources.iter().filter_map(|s| changes.get(s)).flat_map(|c| c.iter()).map(|b| b.len() as u64);
        self.status.rows_in += rows_in.sum::<u64>();
        self.status.busy_us += u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
        match kept {
            Ok(output) => Some(output),
            Err(error) => {
                self.halted_at = epoch.saturating_sub(1);
                self.fail(&error);
                None
            }
        }
    }

    /// The first epoch after it stood still: `first` is what it missed, a stream's rows, or the
    /// difference between a table's rows and what they should have been.
    fn rejoin(&mut self, first: Changes, result: Changes, now_ms: i64) -> Result<Changes> {
        (self.status.error, self.status.over_limit, self.status.halt) = (None, None, None);
        let Some(store) = self.store.clone() else {
            return self.keep([first, result].concat(), now_ms);
        };
        store.apply(&first)?;
        let rest = self.laid_out(result, now_ms)?;
        store.apply(&rest)?;
        let all = consolidate(&nullable(&self.relation.full_schema()), [first, rest].concat())?;
        self.status.rows_out += all.iter().map(|b| b.len() as u64).sum::<u64>();
        Ok(all)
    }

    /// What a table's rows have to change by to be `result`.
    pub(super) fn difference(&self, result: Changes, now_ms: i64) -> Result<Changes> {
        let Some(store) = &self.store else { return Ok(result) };
        let has_times = has_times(store, &result);
        let (mut all, width) = match has_times {
            true => (self.laid_out(result, now_ms)?, store.width()),
            false => (result, self.relation.columns.len()),
        };
        let columns: Vec<usize> = (0..width).collect();
        for rows in store.version().batches()? {
            let weights = Int64Array::from_value(-1, rows.num_rows());
            all.push(ChangeBatch::weighted(rows.project(&columns)?, weights));
        }
        match has_times {
            true => consolidate(&nullable(&self.relation.full_schema()), all),
            false => self.stamped(store, all, now_ms),
        }
    }

    /// Takes note of how its operators do.
    pub(super) fn measure(&mut self) {
        let operators = Arc::make_mut(&mut self.status.operators);
        self.query.report(operators);
        let bytes = |operators: &[OperatorStatus]| operators.iter().map(|o| o.state_bytes).sum();
        self.own_bytes = bytes(operators);
        for (node, _, status) in self.shared.iter().flat_map(|operators| &operators.nodes) {
            if let Some(operator) = operators.get_mut(*node) {
                *operator = *status;
            }
        }
        self.status.state_bytes = bytes(operators);
    }

    /// Why a view stops whose source has stopped.
    pub(super) fn reads_failed(source: &str) -> String {
        format!("it reads \"{source}\", whose query has failed")
    }

    pub(super) fn fail(&mut self, error: &Error) {
        tracing::error!(relation = %self.relation.name, %error, "query failed and is set aside");
        self.status.error = Some(error.to_string());
        if let Error::MemoryLimit { limit, .. } = error {
            self.status.over_limit = Some(*limit);
        }
        self.release();
        if let Some(store) = &mut self.store {
            store.clear();
        }
    }

    /// Refuses to go on with more state and rows than the view may have.
    pub(super) fn check_memory(&mut self) -> Result<()> {
        self.check_memory_with(0)
    }

    /// Makes ready for changes of many rows.
    pub(super) fn expect(&mut self, changes: &Changes) -> Result<()> {
        self.measure();
        self.check_memory_with(changes.iter().map(|batch| own_bytes(&batch.rows)).sum())
    }

    fn check_memory_with(&mut self, bytes: usize) -> Result<()> {
        // To sum up the rows is work for each chunk.
        if self.budget.limit().is_none() {
            return Ok(());
        }
        let rows = self.store.as_ref().map_or(0, TableStore::bytes);
        let checked = self.budget.check(&self.relation.name, (self.status.state_bytes + rows + bytes) as u64);
        self.status.spills = self.budget.spills();
        checked
    }

    pub(super) fn note(&mut self, all: &Rejects, step: StepRejects, epoch: Epoch, now_ms: i64) {
        if step.count == 0 {
            return;
        }
        self.status.rejected += step.count;
        let relation = &self.relation.name;
        let kept = step.kept.into_iter().map(|(error, row)| Reject {
            relation: relation.clone(),
            place: None,
            epoch,
            now_ms,
            reason: Reason::Error(error),
            row,
            raw: None,
        });
        all.extend(kept.collect(), step.count);
    }

    /// The latest time of what it read in an epoch.
    pub(super) fn latest_ms(&self, latest: &LatestTimes) -> Option<i64> {
        self.query.sources().iter().filter_map(|source| latest.get(source)).max().copied()
    }

    /// Changes as its topic holds them. A key that is gone went at `latest_ms`, the latest time of what came
    /// in the epoch.
    pub(super) fn written(&self, changes: &Changes, latest_ms: i64) -> Result<Written> {
        if !self.relation.has_topic() || changes.is_empty() {
            return Ok(Vec::new());
        }
        let stream = self.relation.is_stream();
        let Some(codec) = &self.codec else {
            let batches = changes.iter().map(|b| if stream { Ok(b.rows.clone()) } else { weighted_rows(b) });
            return Ok(vec![(0, batches.collect::<Result<_>>()?)]);
        };
        let mut written = std::collections::BTreeMap::<u32, Vec<RecordBatch>>::new();
        let batches = match stream {
            true => changes.iter().map(|b| b.rows.clone()).collect(),
            false => vec![last_of_each_key(&self.relation, changes, latest_ms)?],
        };
        for batch in batches.iter().filter(|b| b.num_rows() > 0) {
            for (partition, records) in split(codec.encode(batch)?, self.relation.partitions)? {
                written.entry(partition).or_default().push(records);
            }
        }
        Ok(written.into_iter().collect())
    }

    /// Its topic has everything up to an epoch.
    pub(super) fn has_written(&mut self, epoch: Epoch) {
        self.topic_epochs.resize(self.relation.partitions as usize, 0);
        self.topic_epochs.iter_mut().for_each(|last| *last = epoch.max(*last));
    }

    /// Writes to the result topic, unless it holds this epoch already: after a restart the same epochs
    /// are stepped again.
    pub(super) fn write_topic(
        &mut self,
        epoch: Epoch,
        now_ms: i64,
        written: &Written,
        log: &Arc<dyn Log>,
    ) -> Result<()> {
        let last = |partition: u32| self.topic_epochs.get(partition as usize).copied().unwrap_or(0);
        let missing: Vec<_> = written.iter().filter(|(partition, _)| epoch > last(*partition)).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let to = |partition: u32| TopicPartition { topic: self.relation.log_name(), partition };
        let appends =
            missing.iter().map(|(partition, batches)| frames::append(to(*partition), batches, now_ms));
        let appends = appends.collect::<Result<Vec<_>>>()?;
        loop {
            match log.commit(epoch, now_ms, &appends, Sync::Derived) {
                Ok(_) => break,
                // Nothing new is accepted while the disk is full; what was accepted goes on when it has room.
                Err(error) if error.kind() == Kind::DiskFull => {
                    tracing::warn!(relation = %self.relation.name, %error, "waits for room on the disk");
                    if !log.wait_for_room() {
                        // The end: the next start steps the epoch again, as no checkpoint fits a log without it.
                        return Ok(());
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
        self.has_written(epoch);
        Ok(())
    }

    /// Brings changes of the query's result to where readers find them: a table's to its rows. Returns
    /// a table's in its layout, a stream's as a topic of columns has them.
    pub(crate) fn keep(&mut self, changes: Changes, now_ms: i64) -> Result<Changes> {
        let kept = self.laid_out(changes, now_ms)?;
        self.status.rows_out += kept.iter().map(|batch| batch.len() as u64).sum::<u64>();
        if let Some(store) = &self.store {
            store.apply(&kept)?;
        }
        Ok(kept)
    }

    /// What the query brings, in the relation's layout.
    fn laid_out(&self, changes: Changes, now_ms: i64) -> Result<Changes> {
        match &self.store {
            Some(store) if !has_times(store, &changes) => self.stamped(store, changes, now_ms),
            _ => changes.into_iter().map(|batch| self.full_layout(batch, now_ms)).collect(),
        }
    }

    /// A table's changes with times that the query does not know: rows come now, and go with the time that they
    /// came at.
    fn stamped(&self, store: &TableStore, changes: Changes, now_ms: i64) -> Result<Changes> {
        let schema = nullable(&self.relation.full_schema());
        let width = self.relation.columns.len();
        let own = Arc::new(schema.project(&(0..width).collect::<Vec<_>>())?);
        let stamp = |batch: ChangeBatch| -> Result<ChangeBatch> {
            let goes: UInt32Array =
                (0u32..).take(batch.len()).filter(|row| batch.weight(*row as usize) < 0).collect();
            let came_at = store.column_of(&take_rows(&batch.rows, &goes)?, width)?;
            let mut times = vec![now_ms; batch.len()];
            for (row, time) in goes.values().iter().zip(came_at.as_primitive::<Int64Type>()) {
                times[*row as usize] = time.unwrap_or(now_ms);
            }
            let mut columns = batch.rows.columns().to_vec();
            columns.push(Arc::new(Int64Array::from(times)));
            Ok(batch.with_rows(RecordBatch::try_new(Arc::clone(&schema), columns)?))
        };
        consolidate(&own, changes)?.into_iter().map(stamp).collect()
    }

    /// A result batch in the relation's layout: own columns and, where rows have one, the time.
    fn full_layout(&self, batch: ChangeBatch, now_ms: i64) -> Result<ChangeBatch> {
        let width = self.relation.columns.len();
        let time = |batch: &ChangeBatch| -> ArrayRef {
            match batch.rows.columns().get(width) {
                Some(carried) => Arc::clone(carried),
                None => Arc::new(Int64Array::from_value(now_ms, batch.len())),
            }
        };
        if !self.relation.is_stream() {
            let schema = nullable(&self.relation.full_schema());
            let mut columns = batch.rows.columns()[..width].to_vec();
            if schema.fields().len() > width {
                columns.push(time(&batch));
            }
            return Ok(batch.with_rows(RecordBatch::try_new(schema, columns)?));
        }
        // A record stands for one row.
        let batch = if batch.weights.is_some() { batch.repeated()? } else { batch };
        let mut columns = batch.rows.columns()[..width].to_vec();
        columns.push(time(&batch));
        if self.relation.marks_valueless() {
            columns.push(match batch.rows.columns().get(width + 1) {
                Some(mark) => Arc::clone(mark),
                None => Arc::new(BooleanArray::from(vec![false; batch.len()])),
            });
        }
        Ok(ChangeBatch::inserted(RecordBatch::try_new(topic_schema(&self.relation), columns)?))
    }
}

/// Whether a result has all that its table keeps: the time of each row too, where rows have one.
fn has_times(store: &TableStore, result: &Changes) -> bool {
    let width = store.width();
    result.iter().all(|batch| batch.rows.num_columns() >= width)
}

/// Changes out of what a table's topic of columns keeps.
pub(super) fn topic_changes(relation: &Relation, batches: Vec<RecordBatch>) -> Result<Changes> {
    let schema = nullable(&relation.full_schema());
    let change = |batch: RecordBatch| {
        let (weights, columns) =
            batch.columns().split_last().ok_or_else(|| Error::bug("topic", "a row without a weight"))?;
        let rows = batch.project(&(0..columns.len()).collect::<Vec<_>>())?;
        let rows = widened(rows, &schema, relation.columns.len())?;
        let rows = RecordBatch::try_new(Arc::clone(&schema), rows.columns().to_vec())?;
        Ok(ChangeBatch::weighted(rows, Int64Array::from(weights.to_data())))
    };
    batches.into_iter().map(change).collect()
}

/// A table's changes as its topic of columns keeps them: rows with their weights.
fn weighted_rows(batch: &ChangeBatch) -> Result<RecordBatch> {
    let mut fields: Vec<Field> = batch.rows.schema().fields().iter().map(|f| f.as_ref().clone()).collect();
    fields.push(Field::new(WEIGHT, DataType::Int64, false));
    let mut columns = batch.rows.columns().to_vec();
    columns.push(Arc::new(batch.weights.clone().unwrap_or_else(|| Int64Array::from_value(1, batch.len()))));
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
}

/// A table's changes as its topic of records keeps them: for each key its row, or that it is gone. A row with
/// weight 0 was touched and is as it was.
fn last_of_each_key(relation: &Relation, changes: &Changes, latest_ms: i64) -> Result<RecordBatch> {
    let all = ChangeBatch::concat(&nullable(&relation.full_schema()), changes)?;
    let key: Vec<ArrayRef> = relation.record_key.iter().map(|k| Arc::clone(all.rows.column(*k))).collect();
    let codec = RowCodec::try_new(key.iter().map(|k| k.data_type().clone()))?;
    let encoded = codec.encode(&key, all.len())?;
    let mut slots = KeyTable::default();
    let (mut rows, mut gone): (Vec<u32>, Vec<bool>) = (Vec::new(), Vec::new());
    for row in 0..all.len() {
        let number = u32::try_from(row).unwrap_or(u32::MAX);
        let (slot, new) = slots.insert(encoded.row(row));
        let came = all.weight(row) >= 0;
        if new {
            rows.push(number);
            gone.push(!came);
        } else if came {
            (rows[slot as usize], gone[slot as usize]) = (number, false);
        }
    }
    // A session that grows is another key each time: what it was goes first, at the time that it had.
    let session = relation.record_format().and_then(|format| format.window).filter(|w| w.size_ms.is_none());
    if let Some(window) = session {
        let starts = all.rows.column(window.bounds[0]).as_primitive::<Int64Type>();
        let mut order: Vec<usize> = (0..rows.len()).collect();
        order.sort_by_key(|at| if gone[*at] { (false, starts.value(rows[*at] as usize)) } else { (true, 0) });
        (rows, gone) = order.into_iter().map(|at| (rows[at], gone[at])).unzip();
    }
    let mut columns = take_rows(&all.rows, &UInt32Array::from(rows))?.columns().to_vec();
    let times = match columns.get(relation.columns.len()) {
        Some(times) => {
            let times = times.as_primitive::<Int64Type>().iter().zip(&gone);
            let latest_ms = Some(latest_ms).filter(|_| session.is_none());
            let went = |(time, gone): (Option<i64>, &bool)| if *gone { time.max(latest_ms) } else { time };
            times.map(went).collect()
        }
        None => Int64Array::from_value(latest_ms, gone.len()),
    };
    columns.truncate(relation.columns.len());
    columns.push(Arc::new(times));
    columns.push(Arc::new(BooleanArray::from(gone)));
    Ok(RecordBatch::try_new(topic_schema(relation), columns)?)
}
