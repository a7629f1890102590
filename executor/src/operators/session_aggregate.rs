//! GROUP BY a session over rows that only come: a state for each session, merged when a row closes the
//! gap between two.
//!
//! A row is late when the session it would be in ends before stream time less gap and grace; such
//! sessions are closed and let go. Stream time is that of earlier epochs, as for other windows. With
//! EMIT FINAL a session comes once, when it closes.
//! Invariant: a row's session is decided first, then all states are brought up to date: what is taken
//! back is what was given.
//! Source: ksqlDB, "Time and Windows"; Kafka Streams, KStreamSessionWindowAggregate.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, Int64Array, RecordBatch};
use datafusion::arrow::compute::{cast, max};
use datafusion::arrow::datatypes::{DataType, SchemaRef};
use planner::SessionColumn;

use super::accumulators::Accumulator;
use super::aggregate::differences;
use super::aggregate_call::{AggregateCall, Arguments};
use super::session_index::{SessionIndex, Touched};
use super::shards::{save_shards, shard_of, step_shards};
use super::stream_clock::{StreamClock, now_ms};
use crate::change::ChangeBatch;
use crate::error::{Error, Lateness, Result};
use crate::expression::{Expression, resilient, row_text};
use crate::keys::{EncodedRows, RowCodec, Slot, hash};
use crate::operator::{Changes, Operator};
use crate::rejects::StepRejects;
use crate::state::{Image, StateReader, Stateful};
use crate::window::ticks_per_ms;

/// What the operator is made of.
pub(crate) struct Sessions {
    pub(crate) time: Expression,
    pub(crate) time_type: DataType,
    pub(crate) keys: Vec<Expression>,
    pub(crate) key_types: Vec<DataType>,
    pub(crate) gap_ms: i64,
    pub(crate) grace_ms: Option<i64>,
    pub(crate) end_after_gap: bool,
    pub(crate) columns: Vec<SessionColumn>,
    pub(crate) calls: Vec<AggregateCall>,
    pub(crate) emit_final: bool,
    /// How long nothing may come before stream time goes on by itself, ms.
    pub(crate) idle_ms: Option<i64>,
    pub(crate) schema: SchemaRef,
}

pub(crate) struct SessionAggregate {
    spec: Sessions,
    layout: Layout,
    /// From a session's end to where it closes, in the time's own unit; None: never.
    open_for: Option<i64>,
    /// Units of the time in a millisecond.
    ticks: i64,
    clock: StreamClock,
    shards: Vec<Shard>,
}

/// How sessions become rows.
struct Layout {
    codec: RowCodec,
    columns: Vec<SessionColumn>,
    /// What is added to the last time.
    after_end: i64,
    schema: SchemaRef,
    emit_final: bool,
}

/// A batch with everything evaluated.
struct Evaluated {
    rows: RecordBatch,
    keys: EncodedRows,
    hashes: Vec<u64>,
    times: Int64Array,
    arguments: Arguments,
    of_shard: Vec<Vec<u32>>,
}

struct Shard {
    index: SessionIndex,
    accumulators: Vec<Box<dyn Accumulator>>,
    /// Rows of the epoch that came too late.
    late: StepRejects,
}

impl SessionAggregate {
    pub(crate) fn try_new(spec: Sessions, shards: usize) -> Result<Self> {
        let ticks = ticks_per_ms(&spec.time_type);
        let gap = spec.gap_ms.saturating_mul(ticks);
        let open_for = spec.grace_ms.map(|grace| gap.saturating_add(grace.saturating_mul(ticks)));
        let shard = |_| {
            let accumulators = spec.calls.iter().map(|c| c.accumulator(false)).collect::<Result<Vec<_>>>()?;
            let index = SessionIndex::new(gap, open_for.is_some());
            Ok(Shard { index, accumulators, late: StepRejects::default() })
        };
        let shards = (0..shards.max(1)).map(shard).collect::<Result<Vec<_>>>()?;
        let layout = Layout {
            codec: RowCodec::try_new(spec.key_types.clone())?,
            columns: spec.columns.clone(),
            after_end: if spec.end_after_gap { gap } else { 0 },
            schema: Arc::clone(&spec.schema),
            emit_final: spec.emit_final,
        };
        let clock = StreamClock::new(spec.idle_ms);
        Ok(Self { spec, layout, open_for, ticks, clock, shards })
    }

    /// At a stream time in ms, sessions that end before this are closed.
    fn closed(&self, stream_time: i64) -> i64 {
        self.open_for.map_or(i64::MIN, |open| stream_time.saturating_mul(self.ticks).saturating_sub(open))
    }

    fn evaluate(&self, batch: &ChangeBatch) -> Result<Evaluated> {
        let keys = self.spec.keys.iter().map(|e| e.evaluate(&batch.rows)).collect::<Result<Vec<_>>>()?;
        let keys = self.layout.codec.encode(&keys, batch.len())?;
        let times = cast(&self.spec.time.evaluate(&batch.rows)?, &DataType::Int64)?;
        let hashes: Vec<u64> = (0..batch.len()).map(|row| hash(keys.row(row))).collect();
        let mut of_shard = vec![Vec::new(); self.shards.len()];
        for (row, hash) in (0u32..).zip(&hashes) {
            // A row without a time is in no window.
            if times.is_valid(row as usize) {
                of_shard[shard_of(*hash, self.shards.len())].push(row);
            }
        }
        Ok(Evaluated {
            rows: batch.rows.clone(),
            keys,
            hashes,
            times: Int64Array::from(times.to_data()),
            arguments: Arguments::evaluate(&self.spec.calls, batch)?,
            of_shard,
        })
    }
}

impl Operator for SessionAggregate {
    fn step(&mut self, inputs: Vec<Changes>, rejects: &mut StepRejects) -> Result<Changes> {
        let mut inputs = inputs.into_iter();
        let mut batches = inputs.next().unwrap_or_default();
        batches.retain(|b| !b.is_empty());
        let now = inputs.next().and_then(|c| now_ms(&c));
        let rows: usize = batches.iter().map(ChangeBatch::len).sum();
        if rows == 0 && now.is_none() {
            return Ok(Vec::new());
        }
        let mut evaluated = Vec::with_capacity(batches.len());
        for batch in &batches {
            evaluated.extend(resilient(batch, rejects, &mut |b| self.evaluate(b))?);
        }
        let newest = evaluated.iter().filter_map(|e| max(&e.times)).max().map(|t| t.div_euclid(self.ticks));
        let began = self.clock.begin(now);
        let ended = self.clock.end(newest, now);
        let (before, after) = (self.closed(began), self.closed(ended));
        let layout = &self.layout;
        let step = |shard: &mut Shard, index: usize| shard.step(index, &evaluated, layout, (before, after));
        let indices = (0..self.shards.len()).collect();
        let changes = step_shards(&mut self.shards, indices, rows, step)?;
        self.shards.iter_mut().for_each(|shard| rejects.append(std::mem::take(&mut shard.late)));
        Ok(changes)
    }

    fn due_ms(&self) -> Option<i64> {
        // Only what is given when it closes has to close in time.
        let shards = self.shards.iter().filter(|_| self.layout.emit_final);
        let first = shards.filter_map(|s| s.index.first_end()).min()?;
        let closes = first.saturating_add(self.open_for?).saturating_add(1);
        self.clock.reaches(closes.div_euclid(self.ticks) + 1)
    }

    fn save(&self, image: &mut Image) {
        self.clock.save(image);
        save_shards(&self.shards, image, |shard, image| {
            shard.index.save(image);
            shard.accumulators.iter().for_each(|a| a.save(image));
        });
    }

    fn load(&mut self, state: &mut StateReader<'_>) -> Result<()> {
        self.clock.load(state)?;
        for shard in &mut self.shards {
            shard.index.load(state)?;
            shard.accumulators.iter_mut().try_for_each(|a| a.load(state))?;
        }
        Ok(())
    }

    fn state_bytes(&self) -> usize {
        let accumulators = |s: &Shard| s.accumulators.iter().map(|a| a.bytes()).sum::<usize>();
        self.shards.iter().map(|s| s.index.bytes() + accumulators(s)).sum()
    }
}

impl Shard {
    fn step(
        &mut self,
        shard: usize,
        batches: &[Evaluated],
        layout: &Layout,
        (closed, closed_after): (i64, i64),
    ) -> Result<Changes> {
        self.index.begin();
        let mut placed = Vec::with_capacity(batches.len());
        for batch in batches {
            placed.push(self.place(batch, shard, closed));
        }
        let epoch = self.index.finish();
        self.accumulators.iter_mut().for_each(|a| a.grow(self.index.capacity()));
        let slots: Vec<Slot> = epoch.touched.iter().map(|t| t.slot).collect();
        let old = if layout.emit_final { None } else { Some(self.rows(&epoch.touched, true, layout)?) };
        for (batch, (slots, rows)) in batches.iter().zip(&placed) {
            batch.arguments.update(&mut self.accumulators, slots, rows)?;
        }
        for accumulator in &mut self.accumulators {
            for (into, from) in &epoch.merged {
                accumulator.merge(*into, *from)?;
            }
            accumulator.settle(&slots);
        }
        let mut out = Vec::new();
        if let Some(old) = old {
            let existed: Vec<bool> = epoch.touched.iter().map(|t| t.before.is_some()).collect();
            let exists: Vec<bool> = slots.iter().map(|s| self.index.is_alive(*s)).collect();
            out = differences(&old, &existed, &self.rows(&epoch.touched, false, layout)?, &exists, false)?;
        }
        for (_, from) in epoch.merged {
            self.accumulators.iter_mut().for_each(|a| a.clear(from));
            self.index.release(from);
        }
        out.extend(self.close(closed_after, layout)?);
        Ok(out)
    }

    /// The sessions of a batch's rows, and the rows that have one.
    fn place(&mut self, batch: &Evaluated, shard: usize, closed: i64) -> (Vec<Slot>, Vec<u32>) {
        let all = &batch.of_shard[shard];
        let (mut slots, mut rows) = (Vec::with_capacity(all.len()), Vec::with_capacity(all.len()));
        for row in all {
            let at = *row as usize;
            match self.index.place(batch.hashes[at], batch.keys.row(at), batch.times.value(at), closed) {
                Some(slot) => {
                    slots.push(slot);
                    rows.push(*row);
                }
                None => self.late.push(Error::Late(Lateness::Session), || row_text(&batch.rows, at)),
            }
        }
        (slots, rows)
    }

    /// The rows of sessions as they were before the epoch, or as they are now.
    fn rows(&self, touched: &[Touched], before: bool, layout: &Layout) -> Result<RecordBatch> {
        let now = |t: &Touched| self.index.bounds(t.slot);
        let bounds = touched.iter().map(|t| t.before.filter(|_| before).unwrap_or_else(|| now(t)));
        let slots: Vec<Slot> = touched.iter().map(|t| t.slot).collect();
        self.batch(&slots, &bounds.collect::<Vec<_>>(), layout)
    }

    fn batch(&self, slots: &[Slot], bounds: &[(i64, i64)], layout: &Layout) -> Result<RecordBatch> {
        let keys = layout.codec.decode(slots.iter().map(|s| self.index.key(*s)))?;
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(layout.schema.fields().len());
        for (column, field) in layout.columns.iter().zip(layout.schema.fields()) {
            let times: Int64Array = match column {
                SessionColumn::Key(key) => {
                    let key = keys.get(*key).ok_or_else(|| Error::bug("sessions", "a key is missing"))?;
                    columns.push(Arc::clone(key));
                    continue;
                }
                SessionColumn::Start => bounds.iter().map(|(start, _)| *start).collect(),
                SessionColumn::End => {
                    bounds.iter().map(|(_, end)| end.saturating_add(layout.after_end)).collect()
                }
            };
            columns.push(cast(&times, field.data_type())?);
        }
        for accumulator in &self.accumulators {
            columns.push(accumulator.results(slots)?);
        }
        Ok(RecordBatch::try_new(Arc::clone(&layout.schema), columns)?)
    }

    /// Lets go of the sessions that close; with EMIT FINAL they are given now.
    fn close(&mut self, closed: i64, layout: &Layout) -> Result<Option<ChangeBatch>> {
        let slots = self.index.due(closed);
        let mut given = None;
        if layout.emit_final && !slots.is_empty() {
            let bounds: Vec<(i64, i64)> = slots.iter().map(|s| self.index.bounds(*s)).collect();
            given = Some(ChangeBatch::inserted(self.batch(&slots, &bounds, layout)?));
        }
        for slot in slots {
            self.accumulators.iter_mut().for_each(|a| a.clear(slot));
            self.index.remove(slot);
        }
        Ok(given)
    }
}
