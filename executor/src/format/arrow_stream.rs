//! Record batches as the body of a frame: an Arrow IPC stream, schema included.
//!
//! A frame decodes alone, whatever the relation's columns are by then. Checksums are the log's.

use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::arrow::ipc::reader::StreamReader;
use datafusion::arrow::ipc::writer::StreamWriter;

use crate::error::{Error, Result};

/// The format number of such a body in its frame header.
pub(crate) const ARROW_STREAM: u32 = 1;

/// Encodes batches of one layout.
///
/// # Errors
/// If Arrow cannot write a column's type.
pub fn encode_batches(schema: &SchemaRef, batches: &[RecordBatch]) -> Result<Bytes> {
    let size: usize = batches.iter().map(RecordBatch::get_array_memory_size).sum();
    let mut writer = StreamWriter::try_new(Vec::with_capacity(size / 2 + 4096), schema)?;
    for batch in batches {
        writer.write(batch)?;
    }
    writer.finish()?;
    Ok(writer.into_inner()?.into())
}

/// Decodes them again.
///
/// # Errors
/// [`Error::Bug`] when the bytes are no such stream: their checksum was right, so they were written so.
pub fn decode_batches(body: &Bytes) -> Result<Vec<RecordBatch>> {
    let decode = || -> Result<Vec<RecordBatch>> {
        let reader = StreamReader::try_new(Cursor::new(body.as_ref()), None)?;
        Ok(reader.collect::<std::result::Result<Vec<_>, _>>()?)
    };
    // arrow-ipc panics on some malformed schemas.
    catch_unwind(AssertUnwindSafe(decode))
        .unwrap_or_else(|_| Err(Error::bug("format", "a frame does not decode")))
}
