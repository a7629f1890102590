//! PostgreSQL's text of arrays, read: `{a,"b c",NULL}`, one dimension.
//!
//! Source: PostgreSQL, "Array Input and Output Syntax".

use std::sync::Arc;

use bytes::BytesMut;
use datafusion::arrow::array::{Array, ArrayRef, ListArray, NullBufferBuilder, StringArray, StringBuilder};
use datafusion::arrow::buffer::OffsetBuffer;
use datafusion::arrow::compute::{CastOptions, cast_with_options};
use datafusion::arrow::datatypes::{DataType, FieldRef};

use super::{ColumnBuilder, WireError, write_text};

/// Lists out of texts; NULL stays NULL.
///
/// # Errors
/// 22P02 for a text that is no array, and what an element's cast says.
pub(super) fn lists(texts: &StringArray, field: &FieldRef) -> Result<ArrayRef, WireError> {
    let mut elements = StringBuilder::new();
    let mut lengths = Vec::with_capacity(texts.len());
    let mut valid = NullBufferBuilder::new(texts.len());
    for text in texts {
        valid.append(text.is_some());
        let Some(text) = text else {
            lengths.push(0);
            continue;
        };
        let malformed = || WireError::new("22P02", format!("malformed array literal: \"{text}\""));
        let read = split(text.trim()).ok_or_else(malformed)?;
        lengths.push(read.len());
        read.into_iter().for_each(|element| elements.append_option(element));
    }
    let options = CastOptions { safe: false, ..CastOptions::default() };
    let elements = cast_with_options(&elements.finish(), field.data_type(), &options)?;
    let offsets = OffsetBuffer::from_lengths(lengths);
    Ok(Arc::new(ListArray::try_new(Arc::clone(field), offsets, elements, valid.finish())?))
}

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

/// The elements of an array; None for a text that is none.
fn split(text: &str) -> Option<Vec<Option<String>>> {
    let inner = text.strip_prefix('{')?.strip_suffix('}')?;
    let mut elements = Vec::new();
    let mut rest = inner.trim_start();
    if rest.is_empty() {
        return Some(elements);
    }
    loop {
        let (element, after) = if rest.starts_with('"') { quoted(rest)? } else { bare(rest)? };
        elements.push(element);
        match after.trim_start().strip_prefix(',') {
            Some(more) => rest = more.trim_start(),
            None => return after.trim().is_empty().then_some(elements),
        }
    }
}

type Element<'a> = (Option<String>, &'a str);

fn quoted(text: &str) -> Option<Element<'_>> {
    let mut out = String::new();
    let mut chars = text.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((Some(out), &text[at + 1..])),
            '\\' => out.push(chars.next()?.1),
            c => out.push(c),
        }
    }
    None
}

fn bare(text: &str) -> Option<Element<'_>> {
    let end = text.find(',').unwrap_or(text.len());
    let element = text[..end].trim();
    if element.is_empty() || element.contains(['{', '}', '"']) {
        return None;
    }
    let is_null = element.eq_ignore_ascii_case("null");
    Some(((!is_null).then(|| element.replace('\\', "")), &text[end..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_are_read_as_postgres_reads_them() {
        let some = |texts: &[&str]| Some(texts.iter().map(|t| Some((*t).to_owned())).collect::<Vec<_>>());
        assert_eq!(split("{}"), Some(vec![]));
        assert_eq!(split("{a, b}"), some(&["a", "b"]));
        assert_eq!(split(r#"{"a,b","say \"x\"",""}"#), some(&["a,b", "say \"x\"", ""]));
        assert_eq!(split("{1,NULL}"), Some(vec![Some("1".into()), None]));
        assert_eq!(split(r#"{"NULL"}"#), some(&["NULL"]));
        for wrong in ["a", "{a", "{a,}", "{{a}}", "{\"a}", "{a}b"] {
            assert_eq!(split(wrong), None, "{wrong}");
        }
    }
}
