//! Reading a topic's records back: for SELECT on a stream, for new queries, after a restart.

use std::collections::VecDeque;
use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, AsArray, Int32Array, Int64Array, RecordBatch};
use datafusion::arrow::compute::{filter_record_batch, not};
use planner::Relation;
use storage::log::{Log, TopicPartition};
use storage::{Epoch, Frame, Kind, Offset};

use super::topics::{Arrival, PartitionEnds, TopicEnds};
use crate::change::ChangeBatch;
use crate::error::{Error, Result};
use crate::format::{ARROW_STREAM, BadRecord, Codec, decode_batches};
use crate::ingest::topic_schema;
use crate::layout::{batch_of, nullable, widened};
use crate::operator::Changes;
use crate::rejects::{Reason, Reject, Rejects};

/// Bytes read at a time by who reads everything.
pub(super) const READ_BYTES: usize = 8 << 20;

/// A frame's batches, as the topic keeps them.
pub(crate) fn decode_frame(frame: &Frame) -> Result<Vec<RecordBatch>> {
    if frame.header.format != ARROW_STREAM {
        return Err(Error::bug("log", format!("unknown format {}", frame.header.format)));
    }
    decode_batches(&frame.body)
}

/// A stream's batch with its pseudo-columns: partition and offset of each record.
pub(crate) fn full_batch(
    relation: &Relation,
    rows: &RecordBatch,
    partition: u32,
    offsets: Int64Array,
) -> Result<RecordBatch> {
    let n = rows.num_rows();
    let mut columns: Vec<ArrayRef> = rows.columns()[..=relation.columns.len()].to_vec();
    columns.push(Arc::new(Int32Array::from_value(i32::try_from(partition).unwrap_or(i32::MAX), n)));
    columns.push(Arc::new(offsets));
    if relation.marks_valueless() {
        columns.push(Arc::clone(rows.column(relation.columns.len() + 1)));
    }
    let schema = nullable(&relation.full_schema());
    Ok(batch_of(&schema, columns, n)?)
}

/// A stream's rows as its topic of columns would have them now: it may have got columns since they were written.
fn as_written_now(relation: &Relation, rows: &RecordBatch) -> Result<RecordBatch> {
    // Behind its own columns is the record time.
    if rows.num_columns() > relation.columns.len() {
        return Ok(rows.clone());
    }
    Ok(widened(rows.clone(), &topic_schema(relation), relation.columns.len())?)
}

/// A stream's rows in full layout without those that have no value.
pub(crate) fn with_values(relation: &Relation, rows: &RecordBatch) -> Result<RecordBatch> {
    let mark = rows.columns().last().filter(|_| relation.marks_valueless());
    match mark.map(|mark| mark.as_boolean()) {
        Some(lacks) if lacks.true_count() > 0 => Ok(filter_record_batch(rows, &not(lacks)?)?),
        _ => Ok(rows.clone()),
    }
}

/// The offsets of `n` records from `base` on.
pub(crate) fn offsets_from(base: Offset, n: usize) -> Int64Array {
    let first = i64::try_from(base).unwrap_or(i64::MAX);
    Int64Array::from_iter_values((first..).take(n))
}

/// Reads a topic up to fixed ends.
#[derive(Clone)]
pub(crate) struct TopicReader {
    log: Arc<dyn Log>,
    ends: Arc<TopicEnds>,
}

impl std::fmt::Debug for TopicReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TopicReader({:?})", self.ends)
    }
}

impl TopicReader {
    pub(crate) fn new(log: Arc<dyn Log>, ends: Arc<TopicEnds>) -> Self {
        Self { log, ends }
    }

    pub(crate) fn partitions(&self) -> usize {
        self.ends.partitions.len()
    }

    /// A cursor at the beginning of a partition.
    pub(crate) fn cursor(&self, partition: usize) -> Cursor {
        self.cursor_with(partition, READ_BYTES)
    }

    fn cursor_with(&self, partition: usize, read_bytes: usize) -> Cursor {
        let number = u32::try_from(partition).unwrap_or(u32::MAX);
        Cursor::new(Arc::clone(&self.log), number, &self.ends.partitions[partition], read_bytes)
    }

    /// Offset of the first record of the first partition.
    pub(crate) fn start(&self) -> Offset {
        self.ends.partitions.first().map_or(0, |p| p.start)
    }

    /// How many records there are.
    pub(crate) fn rows(&self) -> u64 {
        self.ends.partitions.iter().map(|p| p.end - p.start).sum()
    }
}

/// Reads a stream's rows in their full layout.
#[derive(Debug, Clone)]
pub(crate) struct StreamReader {
    pub(crate) relation: Arc<Relation>,
    pub(crate) topic: TopicReader,
    codec: Option<Codec>,
    rejects: Rejects,
}

impl StreamReader {
    pub(crate) fn new(relation: Arc<Relation>, topic: TopicReader, rejects: Rejects) -> Self {
        let codec = Codec::of(&relation);
        Self { relation, topic, codec, rejects }
    }

    /// What an arrival in the topic brings, with the epoch it came in and its clock.
    pub(crate) fn changes(&self, arrival: &Arrival, at: (Epoch, i64)) -> Result<Changes> {
        Ok(self.rows(arrival, at)?.into_iter().map(ChangeBatch::inserted).collect())
    }

    fn rows(&self, arrival: &Arrival, at: (Epoch, i64)) -> Result<Vec<RecordBatch>> {
        let mut unread = Vec::new();
        let rows = rows_of(&self.relation, self.codec.as_ref(), arrival, &mut unread)?;
        reject(&self.rejects, &self.relation, unread, at);
        Ok(rows)
    }

    /// The next rows of a partition that have values; None at the end.
    pub(crate) fn read(&self, cursor: &mut Cursor) -> Result<Option<Vec<RecordBatch>>> {
        let Some(placed) = cursor.next()? else { return Ok(None) };
        let header = placed.frame.header;
        let rows = self.rows(&placed.arrival()?, (header.epoch, header.now_ms))?;
        rows.iter().map(|rows| with_values(&self.relation, rows)).collect::<Result<_>>().map(Some)
    }
}

/// A record that is no row, and where it is.
pub(crate) struct Unread {
    pub(crate) partition: u32,
    pub(crate) offset: Offset,
    pub(crate) bad: BadRecord,
}

impl Unread {
    /// The bad ones of a batch of records that begins at `base`.
    pub(super) fn of(bad: Vec<BadRecord>, partition: u32, base: Offset) -> impl Iterator<Item = Self> {
        bad.into_iter().map(move |bad| Self { partition, offset: base + bad.index as u64, bad })
    }
}

/// Notes records that are no rows.
pub(crate) fn reject(all: &Rejects, relation: &Relation, unread: Vec<Unread>, (epoch, now_ms): (Epoch, i64)) {
    if unread.is_empty() {
        return;
    }
    all.extend_records(unread.into_iter().map(|Unread { partition, offset, bad }| Reject {
        relation: relation.name.clone(),
        place: Some((partition, offset)),
        epoch,
        now_ms,
        reason: Reason::Error(Arc::new(bad.error)),
        row: String::from_utf8_lossy(&bad.raw).into_owned(),
        raw: Some(bad.raw),
    }));
}

/// A stream's rows out of what arrived in its topic, in full layout.
pub(crate) fn rows_of(
    relation: &Relation,
    codec: Option<&Codec>,
    arrival: &Arrival,
    unread: &mut Vec<Unread>,
) -> Result<Vec<RecordBatch>> {
    let mut base = arrival.base;
    let mut out = Vec::with_capacity(arrival.batches.len());
    for batch in &arrival.batches {
        let Some(codec) = codec else {
            let offsets = offsets_from(base, batch.num_rows());
            base += batch.num_rows() as u64;
            let rows = as_written_now(relation, batch)?;
            out.push(full_batch(relation, &rows, arrival.partition, offsets)?);
            continue;
        };
        let decoded = codec.decode(batch)?;
        let offsets = match &decoded.from {
            None => offsets_from(base, batch.num_rows()),
            Some(from) => from.iter().map(|i| i64::try_from(base + *i as u64).unwrap_or(i64::MAX)).collect(),
        };
        out.push(full_batch(relation, &decoded.rows, arrival.partition, offsets)?);
        unread.extend(Unread::of(decoded.bad, arrival.partition, base));
        base += batch.num_rows() as u64;
    }
    Ok(out)
}

/// Goes through a partition: the frames of its parts, epoch by epoch.
pub(crate) struct Cursor {
    log: Arc<dyn Log>,
    partition: u32,
    parts: Vec<PartCursor>,
    /// Offset in the topic of the next record.
    offset: Offset,
    read_bytes: usize,
}

struct PartCursor {
    at: TopicPartition,
    relation: planner::RelationId,
    next: Offset,
    until: Offset,
    frames: VecDeque<Frame>,
}

/// A frame and where it is in its topic.
pub(crate) struct Placed {
    part: planner::RelationId,
    partition: u32,
    base: Offset,
    pub(crate) frame: Frame,
}

impl Placed {
    pub(crate) fn arrival(&self) -> Result<Arrival> {
        let batches = decode_frame(&self.frame)?;
        Ok(Arrival { part: self.part, partition: self.partition, base: self.base, batches })
    }
}

impl Cursor {
    fn new(log: Arc<dyn Log>, partition: u32, ends: &PartitionEnds, read_bytes: usize) -> Self {
        let part = |part: &super::topics::PartEnds| PartCursor {
            at: TopicPartition { topic: part.log_name.to_string(), partition },
            relation: part.relation,
            next: part.start,
            until: part.end,
            frames: VecDeque::new(),
        };
        let parts = ends.parts.iter().map(part).collect();
        Self { log, partition, parts, offset: ends.start, read_bytes }
    }

    /// The epoch of the next frame.
    fn peek(&mut self) -> storage::Result<Option<Epoch>> {
        for part in &mut self.parts {
            part.fill(self.log.as_ref(), self.read_bytes)?;
        }
        Ok(self.parts.iter().filter_map(PartCursor::epoch).min())
    }

    /// The next frame.
    pub(crate) fn next(&mut self) -> Result<Option<Placed>> {
        let Some(epoch) = self.peek()? else { return Ok(None) };
        let alone = self.parts.len() == 1;
        let Some(part) = self.parts.iter_mut().find(|p| p.epoch() == Some(epoch)) else { return Ok(None) };
        let Some(frame) = part.frames.pop_front() else { return Ok(None) };
        // Records may have gone from the beginning meanwhile; only of a topic with one part.
        let base = if alone { frame.header.base_offset } else { self.offset };
        self.offset = base + u64::from(frame.header.count);
        Ok(Some(Placed { part: part.relation, partition: self.partition, base, frame }))
    }
}

impl PartCursor {
    fn fill(&mut self, log: &dyn Log, read_bytes: usize) -> storage::Result<()> {
        if !self.frames.is_empty() || self.next >= self.until {
            return Ok(());
        }
        let frames = log.read(&self.at, self.next, self.until, read_bytes)?;
        self.next = frames.last().map_or(self.until, |last| last.header.end_offset());
        self.frames.extend(frames);
        Ok(())
    }

    fn epoch(&self) -> Option<Epoch> {
        self.frames.front().map(|f| f.header.epoch)
    }
}

/// The records of one epoch, each with the number of the reader it comes from.
pub(crate) struct EpochInputs {
    pub(crate) epoch: Epoch,
    pub(crate) now_ms: i64,
    pub(crate) arrivals: Vec<(usize, Arrival)>,
}

/// The epoch of a cursor's next frame; damage ends it, if that does not end all.
fn peek(
    cursor: &mut Cursor,
    reader: usize,
    damaged: &mut Option<Vec<(usize, storage::Error)>>,
) -> Result<Option<Epoch>> {
    match (cursor.peek(), damaged) {
        (Err(error), Some(damaged)) if error.kind() == Kind::Corrupt => {
            cursor.parts.clear();
            damaged.push((reader, error));
            Ok(None)
        }
        (peeked, _) => Ok(peeked?),
    }
}

/// Merges topics back into the epochs they were written in.
pub(crate) struct EpochMerge {
    cursors: Vec<(usize, Cursor)>,
    /// Readers that met damage and end there, where they do not end the others.
    damaged: Option<Vec<(usize, storage::Error)>>,
}

impl EpochMerge {
    /// `read_bytes` are read at a time of each partition, at least a frame.
    pub(crate) fn new<'a>(readers: impl Iterator<Item = &'a TopicReader>, read_bytes: usize) -> Self {
        let cursors = readers.enumerate().flat_map(|(number, reader)| {
            let cursor = move |partition| (number, reader.cursor_with(partition, read_bytes));
            (0..reader.partitions()).map(cursor)
        });
        Self { cursors: cursors.collect(), damaged: None }
    }

    /// One in which a damaged topic does not keep the others from being read.
    pub(crate) fn isolating<'a>(readers: impl Iterator<Item = &'a TopicReader>, read_bytes: usize) -> Self {
        Self { damaged: Some(Vec::new()), ..Self::new(readers, read_bytes) }
    }

    /// The readers that have met damage since they were last asked for.
    pub(crate) fn take_damaged(&mut self) -> Vec<(usize, storage::Error)> {
        self.damaged.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// The next epoch that has records; None at the end.
    pub(crate) fn next_epoch(&mut self) -> Result<Option<EpochInputs>> {
        let Some(epoch) = self.peek_epoch()? else { return Ok(None) };
        let mut merged = EpochInputs { epoch, now_ms: 0, arrivals: Vec::new() };
        for (reader, cursor) in &mut self.cursors {
            // A result topic may hold several frames of one epoch.
            while peek(cursor, *reader, &mut self.damaged)? == Some(epoch) {
                let Some(placed) = cursor.next()? else { break };
                merged.now_ms = placed.frame.header.now_ms;
                merged.arrivals.push((*reader, placed.arrival()?));
            }
        }
        Ok(Some(merged))
    }

    /// Number of the next epoch.
    pub(crate) fn peek_epoch(&mut self) -> Result<Option<Epoch>> {
        let mut next = None;
        for (reader, cursor) in &mut self.cursors {
            let epoch = peek(cursor, *reader, &mut self.damaged)?;
            next = [next, epoch].into_iter().flatten().min();
        }
        Ok(next)
    }
}
