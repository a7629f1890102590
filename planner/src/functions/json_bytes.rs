//! Bytes in JSON, for which it has no type: as PostgreSQL writes them in its own, in base64 where ksqlDB writes. Beside
//! PostgreSQL's bytes, times and intervals are PostgreSQL's too.
//!
//! Source: datum_to_json in PostgreSQL's json.c.

use std::io::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use datafusion::arrow::array::{Array, ArrayRef, AsArray, BinaryArray, make_array};
use datafusion::arrow::datatypes::{DataType, FieldRef};
use datafusion::arrow::error::ArrowError;
use datafusion::arrow::json::writer::{Encoder, EncoderFactory, EncoderOptions, NullableEncoder};

use super::value_text::{canonical, value_text};

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
        let is_written = matches!(array.data_type(), DataType::Timestamp(..) | DataType::Interval(_));
        if *self == Self::Hex && is_written {
            let values = canonical(&make_array(array.to_data()))?;
            let nulls = values.nulls().cloned();
            return Ok(Some(NullableEncoder::new(Box::new(Written(values)), nulls)));
        }
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

/// Times and intervals, [`canonical`].
struct Written(ArrayRef);

impl Encoder for Written {
    fn encode(&mut self, row: usize, out: &mut Vec<u8>) {
        let mut text = value_text(&self.0, row);
        if matches!(self.0.data_type(), DataType::Timestamp(..)) {
            text = text.replacen(' ', "T", 1);
            // An offset has minutes in ISO 8601.
            if text.rfind(['+', '-']).is_some_and(|sign| text.len() - sign == 3) {
                text.push_str(":00");
            }
        }
        out.push(b'"');
        out.extend_from_slice(text.as_bytes());
        out.push(b'"');
    }
}
