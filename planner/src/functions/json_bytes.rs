//! Bytes in JSON, for which it has no type: as PostgreSQL writes them in its own, in base64 where ksqlDB writes.

use std::io::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use datafusion::arrow::array::{Array, AsArray, BinaryArray};
use datafusion::arrow::datatypes::FieldRef;
use datafusion::arrow::error::ArrowError;
use datafusion::arrow::json::writer::{Encoder, EncoderFactory, EncoderOptions, NullableEncoder};

/// Which of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum JsonBytes {
    /// `"\\x00ff"`.
    Hex,
    /// `"AP8="`.
    Base64,
}

struct Bytes<'a>(JsonBytes, &'a BinaryArray);

impl EncoderFactory for JsonBytes {
    fn make_default_encoder<'a>(
        &self,
        _: &'a FieldRef,
        array: &'a dyn Array,
        _: &'a EncoderOptions,
    ) -> Result<Option<NullableEncoder<'a>>, ArrowError> {
        let bytes = array.as_binary_opt::<i32>();
        Ok(bytes.map(|bytes| NullableEncoder::new(Box::new(Bytes(*self, bytes)), bytes.nulls().cloned())))
    }
}

impl Encoder for Bytes<'_> {
    fn encode(&mut self, row: usize, out: &mut Vec<u8>) {
        let bytes = self.1.value(row);
        out.push(b'"');
        match self.0 {
            JsonBytes::Base64 => out.extend_from_slice(STANDARD.encode(bytes).as_bytes()),
            JsonBytes::Hex => {
                out.extend_from_slice(br"\\x");
                // Writing to memory does not fail.
                let _ = bytes.iter().try_for_each(|byte| write!(out, "{byte:02x}"));
            }
        }
        out.push(b'"');
    }
}
