//! EMIT FINAL: the rows of a window, once, when no more can come to it.
//!
//! A window is closed when its end and its grace lie at or before stream time, the exact complement
//! of what makes a row late. Stream time is that of the epoch: rows of one epoch still count.
//! Invariant: what has been given is never taken back.
//! Source: ksqlDB, "Time and Windows", EMIT FINAL; Kafka Streams, Suppressed.untilWindowCloses.

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::arrow::array::{Array, RecordBatch};
use datafusion::arrow::datatypes::SchemaRef;

use crate::change::ChangeBatch;
use crate::error::{Error, Result};
use crate::expression::{Expression, resilient};
use crate::keys::RowCodec;
use crate::operator::{Changes, Operator};
use crate::rejects::StepRejects;
use crate::window;

/// What a B-tree keeps for each entry beside the row's own bytes.
const ENTRY_BYTES: usize = 48;

pub(crate) struct EmitFinal {
    end: Expression,
    time: Expression,
    grace_ms: i64,
    stream_time: i64,
    codec: RowCodec,
    schema: SchemaRef,
    /// Rows of open windows by the window's end, with their weights.
    open: BTreeMap<(i64, Box<[u8]>), i64>,
    bytes: usize,
}

impl EmitFinal {
    pub(crate) fn try_new(
        end: Expression,
        time: Expression,
        grace_ms: i64,
        schema: SchemaRef,
    ) -> Result<Self> {
        let codec = RowCodec::try_new(schema.fields().iter().map(|f| f.data_type().clone()))?;
        let (open, bytes) = (BTreeMap::new(), 0);
        Ok(Self { end, time, grace_ms, stream_time: i64::MIN, codec, schema, open, bytes })
    }

    fn take(&mut self, batch: &ChangeBatch) -> Result<()> {
        let ends = window::to_ms(&self.end.evaluate(&batch.rows)?)?;
        let rows = self.codec.encode(batch.rows.columns(), batch.len())?;
        let closed = self.stream_time.saturating_sub(self.grace_ms);
        for row in 0..batch.len() {
            // A closed window has been given; what a late deletion does to it is not told.
            if ends.is_null(row) || ends.value(row) <= closed {
                continue;
            }
            let key: (i64, Box<[u8]>) = (ends.value(row), rows.row(row).into());
            let size = key.1.len() + ENTRY_BYTES;
            let weight = self.open.entry(key.clone()).or_insert_with(|| {
                self.bytes += size;
                0
            });
            *weight += batch.weight(row);
            if *weight == 0 {
                self.open.remove(&key);
                self.bytes -= size;
            }
        }
        Ok(())
    }

    fn closed(&mut self) -> Result<Changes> {
        let closed = self.stream_time.saturating_sub(self.grace_ms);
        let mut rows: Vec<Box<[u8]>> = Vec::new();
        while let Some(first) = self.open.first_entry().filter(|e| e.key().0 <= closed) {
            let ((_, row), weight) = first.remove_entry();
            self.bytes -= row.len() + ENTRY_BYTES;
            if weight < 0 {
                return Err(Error::bug("EMIT FINAL", "a row was taken back that was never there"));
            }
            rows.extend((0..weight).map(|_| row.clone()));
        }
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let columns = self.codec.decode(rows.iter().map(AsRef::as_ref))?;
        Ok(vec![ChangeBatch::inserted(RecordBatch::try_new(Arc::clone(&self.schema), columns)?)])
    }
}

impl Operator for EmitFinal {
    fn step(&mut self, inputs: Vec<Changes>, _: &mut StepRejects) -> Result<Changes> {
        let mut inputs = inputs.into_iter();
        for batch in inputs.next().unwrap_or_default() {
            self.take(&batch)?;
        }
        for batch in inputs.next().unwrap_or_default() {
            // A time that cannot be computed is rejected where the row is placed in its window.
            let mut seen = StepRejects::default();
            let times = resilient(&batch, &mut seen, &mut |b| window::to_ms(&self.time.evaluate(&b.rows)?))?;
            for times in times {
                let newest = datafusion::arrow::compute::max(&times).unwrap_or(i64::MIN);
                self.stream_time = self.stream_time.max(newest);
            }
        }
        self.closed()
    }

    fn state_bytes(&self) -> usize {
        self.bytes
    }
}
