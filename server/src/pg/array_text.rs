//! Arrays that come in binary, as the text that `planner` reads.
//!
//! Source: PostgreSQL, `array_recv`. Next: the column's builder collects such texts.

use bytes::BytesMut;
use datafusion::arrow::datatypes::DataType;

use super::{ColumnBuilder, WireError, write_text};

/// The text of an array that came in binary: dimensions, a flag for NULLs, the element's type, then each
/// element behind its length.
///
/// # Errors
/// 22P03 for bytes that are no such array, 0A000 for several dimensions.
pub(super) fn from_binary(bytes: &[u8], element: &DataType) -> Result<String, WireError> {
    let malformed = || WireError::new("22P03", "incorrect binary data format in an array");
    let mut rest = bytes;
    let mut word = || -> Option<i32> {
        let (head, tail) = rest.split_first_chunk::<4>()?;
        rest = tail;
        Some(i32::from_be_bytes(*head))
    };
    let dimensions = word().ok_or_else(malformed)?;
    let (_nulls, _element) = (word().ok_or_else(malformed)?, word().ok_or_else(malformed)?);
    if dimensions == 0 {
        return Ok("{}".to_owned());
    }
    if dimensions != 1 {
        return Err(WireError::unsupported("an array of several dimensions"));
    }
    let length = word().ok_or_else(malformed)?;
    word().ok_or_else(malformed)?;
    let mut out = String::from("{");
    for n in 0..length {
        if n > 0 {
            out.push(',');
        }
        let (head, tail) = rest.split_first_chunk::<4>().ok_or_else(malformed)?;
        rest = tail;
        let Ok(size) = usize::try_from(i32::from_be_bytes(*head)) else {
            out.push_str("NULL");
            continue;
        };
        let (value, tail) = rest.split_at_checked(size).ok_or_else(malformed)?;
        rest = tail;
        let mut column = ColumnBuilder::of_type(element);
        column.append_binary(value)?;
        let mut text = BytesMut::new();
        write_text(&column.finish()?, 0, &mut text);
        out.push('"');
        for c in String::from_utf8_lossy(&text).chars() {
            if matches!(c, '"' | '\\') {
                out.push('\\');
            }
            out.push(c);
        }
        out.push('"');
    }
    out.push('}');
    Ok(out)
}
