//! Reading a topic's records back: for SELECT on a stream, for new queries, after a restart.

use std::collections::VecDeque;
use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, Int32Array, Int64Array, RecordBatch, RecordBatchOptions};
use planner::Relation;
use storage::log::{Log, TopicPartition};
use storage::{Epoch, Frame, Offset};

use super::relations::Input;
use crate::error::{Error, Result};
use crate::format::{ARROW_STREAM, decode_batches};
use crate::layout::nullable;

/// Bytes read at a time.
const READ_BYTES: usize = 8 << 20;

/// Reads a stream between fixed bounds, in its full layout.
#[derive(Clone)]
pub(crate) struct StreamReader {
    log: Arc<dyn Log>,
    relation: Arc<Relation>,
    bounds: Vec<(Offset, Offset)>,
}

impl std::fmt::Debug for StreamReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "StreamReader({})", self.relation.name)
    }
}

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
    base: Offset,
) -> Result<RecordBatch> {
    let n = rows.num_rows();
    let mut columns: Vec<ArrayRef> = rows.columns()[..=relation.columns.len()].to_vec();
    let first = i64::try_from(base).unwrap_or(i64::MAX);
    columns.push(Arc::new(Int32Array::from_value(i32::try_from(partition).unwrap_or(i32::MAX), n)));
    columns.push(Arc::new(Int64Array::from_iter_values((first..).take(n))));
    let schema = nullable(&relation.full_schema());
    let options = RecordBatchOptions::new().with_row_count(Some(n));
    Ok(RecordBatch::try_new_with_options(schema, columns, &options)?)
}

impl StreamReader {
    pub(crate) fn new(log: Arc<dyn Log>, relation: Arc<Relation>, bounds: Vec<(Offset, Offset)>) -> Self {
        Self { log, relation, bounds }
    }

    pub(crate) fn partitions(&self) -> usize {
        self.bounds.len()
    }

    pub(crate) fn start(&self, partition: usize) -> Offset {
        self.bounds[partition].0
    }

    fn topic_partition(&self, partition: usize) -> TopicPartition {
        TopicPartition {
            topic: self.relation.topic(),
            partition: u32::try_from(partition).unwrap_or(u32::MAX),
        }
    }

    /// Frames from an offset, in order; None at the end.
    pub(crate) fn frames(&self, partition: usize, from: Offset) -> Result<Option<(Vec<Frame>, Offset)>> {
        let until = self.bounds[partition].1;
        if from >= until {
            return Ok(None);
        }
        let frames = self.log.read(&self.topic_partition(partition), from, until, READ_BYTES)?;
        Ok(frames.last().map(|last| last.header.end_offset()).map(|next| (frames, next)))
    }

    /// Batches from an offset, in the relation's full layout, and where to go on; None at the end.
    pub(crate) fn read(&self, partition: usize, from: Offset) -> Result<Option<(Vec<RecordBatch>, Offset)>> {
        let Some((frames, next)) = self.frames(partition, from)? else { return Ok(None) };
        let number = u32::try_from(partition).unwrap_or(u32::MAX);
        let mut out = Vec::new();
        for frame in &frames {
            let mut base = frame.header.base_offset;
            for batch in decode_frame(frame)? {
                out.push(full_batch(&self.relation, &batch, number, base)?);
                base += batch.num_rows() as u64;
            }
        }
        Ok(Some((out, next)))
    }
}

/// The records of one epoch.
pub(crate) struct EpochInputs {
    pub(crate) epoch: Epoch,
    pub(crate) now_ms: i64,
    pub(crate) inputs: Vec<Input>,
}

/// Merges topics back into the epochs they were written in.
pub(crate) struct EpochMerge {
    cursors: Vec<Cursor>,
}

struct Cursor {
    reader: StreamReader,
    partition: usize,
    next: Offset,
    frames: VecDeque<Frame>,
}

impl EpochMerge {
    pub(crate) fn new(readers: Vec<StreamReader>) -> Self {
        let cursor = |(reader, partition): (StreamReader, usize)| {
            let next = reader.start(partition);
            Cursor { reader, partition, next, frames: VecDeque::new() }
        };
        let parts = readers.into_iter().flat_map(|r| (0..r.partitions()).map(move |p| (r.clone(), p)));
        Self { cursors: parts.map(cursor).collect() }
    }

    /// The next epoch that has records; None at the end.
    pub(crate) fn next_epoch(&mut self) -> Result<Option<EpochInputs>> {
        for cursor in &mut self.cursors {
            cursor.fill()?;
        }
        let Some(epoch) = self.peek() else { return Ok(None) };
        let mut merged = EpochInputs { epoch, now_ms: 0, inputs: Vec::new() };
        for cursor in &mut self.cursors {
            // A result topic may hold several frames of one epoch.
            while let Some(frame) = cursor.frames.pop_front_if(|f| f.header.epoch == epoch) {
                merged.now_ms = frame.header.now_ms;
                merged.inputs.push(Input {
                    relation: Arc::clone(&cursor.reader.relation),
                    partition: u32::try_from(cursor.partition).unwrap_or(u32::MAX),
                    base_offset: frame.header.base_offset,
                    batches: decode_frame(&frame)?,
                });
                cursor.fill()?;
            }
        }
        Ok(Some(merged))
    }

    /// Number of the next epoch, once the cursors are filled.
    fn peek(&self) -> Option<Epoch> {
        self.cursors.iter().filter_map(|c| c.frames.front()).map(|f| f.header.epoch).min()
    }

    /// Number of the next epoch.
    pub(crate) fn peek_epoch(&mut self) -> Result<Option<Epoch>> {
        for cursor in &mut self.cursors {
            cursor.fill()?;
        }
        Ok(self.peek())
    }
}

impl Cursor {
    fn fill(&mut self) -> Result<()> {
        if self.frames.is_empty()
            && let Some((frames, next)) = self.reader.frames(self.partition, self.next)?
        {
            self.frames.extend(frames);
            self.next = next;
        }
        Ok(())
    }
}
