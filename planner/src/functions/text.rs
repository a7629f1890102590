//! PostgreSQL's functions on text and bytes that DataFusion has not.
//!
//! Source: PostgreSQL, "String Functions and Operators", "Binary String Functions and Operators",
//! "Pattern Matching".

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use datafusion::arrow::array::{Array, ArrayRef, AsArray, BinaryArray, Int32Array, Int64Array, StringArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Int64Type};
use datafusion::common::{DataFusionError, Result, exec_err};
use datafusion::logical_expr::{ScalarUDF, Signature, Volatility};

use super::scalar::scalar_function;

fn exact(types: Vec<DataType>) -> Signature {
    Signature::exact(types, Volatility::Immutable)
}

/// Patterns of LIKE in which another character escapes, as those in which the backslash does.
fn like_patterns(args: &[ArrayRef]) -> ArrayRef {
    let (patterns, escapes) = (args[0].as_string::<i32>(), args[1].as_string::<i32>());
    let pairs = patterns.iter().zip(escapes);
    let pattern = |(pattern, escape): (Option<&str>, Option<&str>)| {
        Some(like_pattern(pattern?, escape?.chars().next()))
    };
    Arc::new(pairs.map(pattern).collect::<StringArray>())
}

/// A pattern in which `escape` escapes, or nothing does.
fn like_pattern(pattern: &str, escape: Option<char>) -> String {
    let mut out = String::with_capacity(pattern.len());
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        match c {
            c if Some(c) == escape => {
                out.push('\\');
                out.extend(chars.next());
            }
            '\\' => out.push_str("\\\\"),
            other => out.push(other),
        }
    }
    out
}

/// A pattern of SIMILAR TO as a regular expression over the whole text.
///
/// Source: PostgreSQL, "SIMILAR TO Regular Expressions".
fn similar_pattern(pattern: &str, escape: Option<char>) -> String {
    let mut out = String::from("^(?:");
    let (mut chars, mut in_class) = (pattern.chars(), false);
    while let Some(c) = chars.next() {
        match c {
            c if Some(c) == escape => {
                let escaped: String = chars.next().into_iter().collect();
                out.push_str(&regex::escape(&escaped));
            }
            '[' => {
                in_class = true;
                out.push('[');
            }
            ']' => {
                in_class = false;
                out.push(']');
            }
            c if in_class => out.push(c),
            '%' => out.push_str("(?s:.*)"),
            '_' => out.push_str("(?s:.)"),
            '(' => out.push_str("(?:"),
            ')' | '|' | '*' | '+' | '?' | '{' | '}' => out.push(c),
            other => out.push_str(&regex::escape(&other.to_string())),
        }
    }
    out.push_str(")$");
    out
}

/// All of them.
pub(super) fn functions() -> Vec<Arc<ScalarUDF>> {
    use DataType::{Binary, Int64, Utf8};
    vec![
        bytes_of_text(),
        scalar_function("like_pattern", exact(vec![Utf8; 2]), Utf8, |args, _| Ok(like_patterns(args))),
        scalar_function("similar_pattern", exact(vec![Utf8; 2]), Utf8, |args, _| {
            let pairs = args[0].as_string::<i32>().iter().zip(args[1].as_string::<i32>());
            let pattern = |(pattern, escape): (Option<&str>, Option<&str>)| {
                Some(similar_pattern(pattern?, escape?.chars().next()))
            };
            Ok(Arc::new(pairs.map(pattern).collect::<StringArray>()))
        }),
        // First the one that DataFusion has, and goes with its other names.
        measured("character_length", characters, <[u8]>::len),
        measured("char_length", characters, <[u8]>::len),
        measured("length", characters, <[u8]>::len),
        measured("octet_length", str::len, <[u8]>::len),
        measured("bit_length", |text| text.len() * 8, |bytes| bytes.len() * 8),
        scalar_function("convert_from", Signature::any(2, Volatility::Immutable), Utf8, |args, _| {
            convert_from(&[bytea_in(&args[0])?, cast(&args[1], &Utf8)?])
        }),
        scalar_function("set_byte", exact(vec![Binary, Int64, Int64]), Binary, |args, _| {
            changed_bytes(args, |bytes, at, value| {
                *bytes.get_mut(at)? = u8::try_from(value & 0xff).ok()?;
                Some(())
            })
        }),
        scalar_function("set_bit", exact(vec![Binary, Int64, Int64]), Binary, |args, _| {
            changed_bytes(args, |bytes, at, value| {
                let byte = bytes.get_mut(at / 8)?;
                *byte = if value == 0 { *byte & !(1 << (at % 8)) } else { *byte | 1 << (at % 8) };
                Some(())
            })
        }),
        scalar_function("convert_to", exact(vec![Utf8; 2]), Binary, |args, _| {
            args[1].as_string::<i32>().iter().flatten().try_for_each(utf8_only)?;
            Ok(cast(&args[0], &Binary)?)
        }),
        scalar_function("get_byte", exact(vec![Binary, Int64]), Int64, |args, _| {
            bytes_at(args, |bytes, at| bytes.get(at).map(|b| i64::from(*b)))
        }),
        scalar_function("get_bit", exact(vec![Binary, Int64]), Int64, |args, _| {
            bytes_at(args, |bytes, at| Some(i64::from(bytes.get(at / 8)? >> (at % 8) & 1)))
        }),
        scalar_function("bit_count", exact(vec![Binary]), Int64, |args, _| {
            let count = |bytes: &[u8]| bytes.iter().map(|b| i64::from(b.count_ones())).sum::<i64>();
            Ok(Arc::new(args[0].as_binary::<i32>().iter().map(|b| b.map(count)).collect::<Int64Array>()))
        }),
        scalar_function("encode_escape", exact(vec![Binary]), Utf8, |args, _| {
            let bytes = args[0].as_binary::<i32>().iter();
            Ok(Arc::new(bytes.map(|bytes| bytes.map(encode_escape)).collect::<StringArray>()))
        }),
        scalar_function("encode_base64", Signature::any(1, Volatility::Immutable), Utf8, |args, _| {
            let bytes = cast(&args[0], &Binary)?;
            let bytes = bytes.as_binary::<i32>().iter();
            Ok(Arc::new(bytes.map(|bytes| bytes.map(encode_base64)).collect::<StringArray>()))
        }),
        scalar_function("quote_literal", exact(vec![Utf8]), Utf8, |args, _| {
            Ok(each(&args[0], quote_literal))
        }),
        scalar_function("quote_nullable", exact(vec![Utf8]), Utf8, |args, _| {
            let quoted = |text: Option<&str>| Some(text.map_or_else(|| "NULL".to_owned(), quote_literal));
            Ok(Arc::new(args[0].as_string::<i32>().iter().map(quoted).collect::<StringArray>()))
        }),
    ]
}

fn characters(text: &str) -> usize {
    if text.is_ascii() { text.len() } else { text.chars().count() }
}

/// A function that measures texts and bytes; what is neither is measured as text.
fn measured(name: &'static str, of_text: fn(&str) -> usize, of_bytes: fn(&[u8]) -> usize) -> Arc<ScalarUDF> {
    let length = |n: usize| i32::try_from(n).unwrap_or(i32::MAX);
    scalar_function(name, Signature::any(1, Volatility::Immutable), DataType::Int32, move |args, _| {
        if *args[0].data_type() == DataType::Binary {
            let bytes = args[0].as_binary::<i32>().iter();
            return Ok(Arc::new(bytes.map(|b| b.map(|b| length(of_bytes(b)))).collect::<Int32Array>()));
        }
        let texts = cast(&args[0], &DataType::Utf8)?;
        let texts = texts.as_string::<i32>().iter();
        Ok(Arc::new(texts.map(|t| t.map(|t| length(of_text(t)))).collect::<Int32Array>()))
    })
}

/// Bytes as text: those that are no ASCII by three octal digits.
///
/// Source: esc_encode in encode.c.
fn encode_escape(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for byte in bytes {
        match byte {
            b'\\' => out.push_str("\\\\"),
            0 | 128.. => out.push_str(&format!("\\{byte:03o}")),
            byte => out.push(char::from(*byte)),
        }
    }
    out
}

/// In base64, in lines of 76.
///
/// Source: pg_base64_encode in encode.c.
fn encode_base64(bytes: &[u8]) -> String {
    const LINE: usize = 76;
    let all = STANDARD.encode(bytes);
    let lines: Vec<&str> = all.as_bytes().chunks(LINE).filter_map(|l| std::str::from_utf8(l).ok()).collect();
    lines.join("\n")
}

fn each(texts: &ArrayRef, make: impl Fn(&str) -> String) -> ArrayRef {
    Arc::new(texts.as_string::<i32>().iter().map(|text| text.map(&make)).collect::<StringArray>())
}

/// A text as a literal.
fn quote_literal(text: &str) -> String {
    let doubled = text.replace('\'', "''");
    match doubled.contains('\\') {
        true => format!("E'{}'", doubled.replace('\\', "\\\\")),
        false => format!("'{doubled}'"),
    }
}

/// The function that reads bytes.
pub(super) fn bytes_of_text() -> Arc<ScalarUDF> {
    let signature = Signature::any(1, Volatility::Immutable);
    scalar_function("bytea_in", signature, DataType::Binary, |args, _| bytea_in(&args[0]))
}

/// Bytes from PostgreSQL's two spellings; bytes stay what they are.
fn bytea_in(array: &ArrayRef) -> Result<ArrayRef> {
    if *array.data_type() == DataType::Binary {
        return Ok(Arc::clone(array));
    }
    let array = cast(array, &DataType::Utf8)?;
    let bytes = array.as_string::<i32>().iter().map(|text| text.map(parse_bytes).transpose());
    let bytes = bytes.collect::<Result<Vec<Option<Vec<u8>>>>>()?;
    Ok(Arc::new(bytes.iter().map(Option::as_deref).collect::<BinaryArray>()))
}

fn parse_bytes(text: &str) -> Result<Vec<u8>> {
    let invalid = || DataFusionError::Execution("invalid input syntax for type bytea".to_owned());
    if let Some(hex) = text.strip_prefix("\\x") {
        let digits: Vec<u32> = hex
            .chars()
            .filter(|c| !c.is_ascii_whitespace())
            .map(|c| c.to_digit(16).ok_or_else(invalid))
            .collect::<Result<_>>()?;
        if digits.len() % 2 == 1 {
            return Err(invalid());
        }
        return Ok(digits.chunks(2).map(|pair| u8::try_from(pair[0] << 4 | pair[1]).unwrap_or(0)).collect());
    }
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        match (first, after) {
            (b'\\', [b'\\', after @ ..]) => {
                out.push(b'\\');
                rest = after;
            }
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..]) => {
                out.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                rest = after;
            }
            (b'\\', _) => return Err(invalid()),
            (byte, after) => {
                out.push(*byte);
                rest = after;
            }
        }
    }
    Ok(out)
}

fn utf8_only(encoding: &str) -> Result<()> {
    match encoding.to_ascii_uppercase().replace('-', "").as_str() {
        "UTF8" => Ok(()),
        _ => exec_err!("encoding \"{encoding}\" is not supported; UTF8 is"),
    }
}

fn convert_from(args: &[ArrayRef]) -> Result<ArrayRef> {
    args[1].as_string::<i32>().iter().flatten().try_for_each(utf8_only)?;
    let texts = args[0].as_binary::<i32>().iter().map(|bytes| {
        let text = bytes.map(std::str::from_utf8).transpose();
        text.map_err(|_| DataFusionError::Execution("invalid byte sequence for encoding \"UTF8\"".into()))
    });
    Ok(Arc::new(texts.collect::<Result<StringArray>>()?))
}

/// Bytes with one place of them changed.
fn changed_bytes(
    args: &[ArrayRef],
    change: impl Fn(&mut [u8], usize, i64) -> Option<()>,
) -> Result<ArrayRef> {
    let bytes = args[0].as_binary::<i32>();
    let (indices, values) = (args[1].as_primitive::<Int64Type>(), args[2].as_primitive::<Int64Type>());
    let changed = bytes.iter().zip(indices).zip(values).map(|((bytes, at), value)| {
        let (Some(bytes), Some(at), Some(value)) = (bytes, at, value) else { return Ok(None) };
        let mut bytes = bytes.to_vec();
        match usize::try_from(at).ok().and_then(|at| change(&mut bytes, at, value)) {
            Some(()) => Ok(Some(bytes)),
            None => exec_err!("index {at} out of valid range"),
        }
    });
    let changed = changed.collect::<Result<Vec<Option<Vec<u8>>>>>()?;
    Ok(Arc::new(changed.iter().map(Option::as_deref).collect::<BinaryArray>()))
}

/// What `get` finds at an index of bytes.
fn bytes_at(args: &[ArrayRef], get: impl Fn(&[u8], usize) -> Option<i64>) -> Result<ArrayRef> {
    let (bytes, indices) = (args[0].as_binary::<i32>(), args[1].as_primitive::<Int64Type>());
    let values = bytes.iter().zip(indices).map(|(bytes, at)| {
        let (Some(bytes), Some(at)) = (bytes, at) else { return Ok(None) };
        match usize::try_from(at).ok().and_then(|at| get(bytes, at)) {
            Some(value) => Ok(Some(value)),
            None => exec_err!("index {at} out of valid range, 0..{}", bytes.len().saturating_sub(1)),
        }
    });
    Ok(Arc::new(values.collect::<Result<Int64Array>>()?))
}
