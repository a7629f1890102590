//! Batches of a topic's partition as the frame that the log keeps of them.

use datafusion::arrow::array::{AsArray, RecordBatch};
use datafusion::arrow::compute::{max, min};
use datafusion::arrow::datatypes::{DataType, Int64Type};
use storage::log::{Append, TopicPartition};

use crate::error::{Error, Result};
use crate::format::{ARROW_STREAM, encode_batches};
use crate::ingest::ROW_TIME;

/// The frame of batches of one layout. Rows without a time of their own have `now_ms`.
pub(super) fn append(to: TopicPartition, batches: &[RecordBatch], now_ms: i64) -> Result<Append> {
    let Some(schema) = batches.first().map(RecordBatch::schema) else {
        return Err(Error::bug("log", "a frame of nothing"));
    };
    let time = schema.index_of(ROW_TIME).ok().filter(|at| *schema.field(*at).data_type() == DataType::Int64);
    let mut times: Option<(i64, i64)> = None;
    for batch in batches {
        let Some(column) = time.map(|at| batch.column(at).as_primitive::<Int64Type>()) else { continue };
        if let (Some(first), Some(last)) = (min(column), max(column)) {
            times = Some(times.map_or((first, last), |t| (t.0.min(first), t.1.max(last))));
        }
    }
    let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
    Ok(Append {
        to,
        count: u32::try_from(rows).unwrap_or(u32::MAX),
        format: ARROW_STREAM,
        times_ms: times.unwrap_or((now_ms, now_ms)),
        body: encode_batches(&schema, batches)?,
    })
}
