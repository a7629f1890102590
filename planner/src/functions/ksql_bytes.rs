//! ksqlDB's functions between bytes, texts and numbers.
//!
//! Source: ksqlDB, "Scalar functions: Strings"; its encodings are hex, utf8, ascii and base64.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use datafusion::arrow::array::builder::{BinaryBuilder, ListBuilder, StringBuilder};
use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, Float64Array, Int32Array, Int64Array, StringArray,
};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::DataType;
use datafusion::common::{Result, exec_datafusion_err, exec_err};
use datafusion::logical_expr::{ScalarUDF, Signature, TypeSignature, Volatility};

use super::scalar::{scalar_function, scalar_function_of};

/// All of them.
pub(super) fn functions() -> Vec<Arc<ScalarUDF>> {
    use DataType::{Binary, Float64, Int32, Int64, Utf8};
    let exact = |types: Vec<DataType>| Signature::exact(types, Volatility::Immutable);
    // With the order of bytes or without.
    let number = || {
        let types = vec![TypeSignature::Exact(vec![Binary]), TypeSignature::Exact(vec![Binary, Utf8])];
        Signature::one_of(types, Volatility::Immutable)
    };
    vec![
        scalar_function("to_bytes", exact(vec![Utf8, Utf8]), Binary, |args, _| {
            let bytes = pairs(args).map(|(text, encoding)| match (text, encoding) {
                (Some(text), Some(encoding)) => decoded(text, encoding).map(Some),
                _ => Ok(None),
            });
            let bytes = bytes.collect::<Result<Vec<_>>>()?;
            Ok(Arc::new(bytes.iter().map(Option::as_deref).collect::<BinaryArray>()))
        }),
        scalar_function("from_bytes", exact(vec![Binary, Utf8]), Utf8, |args, _| {
            let (bytes, encodings) = (args[0].as_binary::<i32>(), args[1].as_string::<i32>());
            let texts = bytes.iter().zip(encodings).map(|both| match both {
                (Some(bytes), Some(encoding)) => encoded(bytes, encoding).map(Some),
                _ => Ok(None),
            });
            Ok(Arc::new(texts.collect::<Result<StringArray>>()?))
        }),
        scalar_function("encode_text", exact(vec![Utf8; 3]), Utf8, |args, _| {
            let outs = args[2].as_string::<i32>();
            let texts = pairs(args).zip(outs).map(|((text, from), to)| match (text, from, to) {
                // What cannot be read is NULL, and hexadecimal digits are small here.
                (Some(text), Some(from), Some(to)) => match decoded(text, from) {
                    Ok(bytes) if to.eq_ignore_ascii_case("hex") => {
                        encoded(&bytes, to).map(|t| Some(t.to_lowercase()))
                    }
                    Ok(bytes) => encoded(&bytes, to).map(Some),
                    Err(_) => Ok(None),
                },
                _ => Ok(None),
            });
            Ok(Arc::new(texts.collect::<Result<StringArray>>()?))
        }),
        scalar_function("int_from_bytes", number(), Int32, |args, _| {
            Ok(Arc::new(numbers(args, i32::from_be_bytes)?.into_iter().collect::<Int32Array>()))
        }),
        scalar_function("bigint_from_bytes", number(), Int64, |args, _| {
            Ok(Arc::new(numbers(args, i64::from_be_bytes)?.into_iter().collect::<Int64Array>()))
        }),
        scalar_function("double_from_bytes", number(), Float64, |args, _| {
            Ok(Arc::new(numbers(args, f64::from_be_bytes)?.into_iter().collect::<Float64Array>()))
        }),
        scalar_function_of(
            "split",
            Signature::any(2, Volatility::Immutable),
            |types| {
                let part = if types[0] == Binary { Binary } else { Utf8 };
                Ok(DataType::new_list(part, true))
            },
            |args, _| split(args),
        ),
    ]
}

fn pairs(args: &[ArrayRef]) -> impl Iterator<Item = (Option<&str>, Option<&str>)> {
    args[0].as_string::<i32>().iter().zip(args[1].as_string::<i32>())
}

/// The bytes that a text stands for.
fn decoded(text: &str, encoding: &str) -> Result<Vec<u8>> {
    match encoding.to_ascii_lowercase().as_str() {
        "utf8" => Ok(text.as_bytes().to_vec()),
        "ascii" => {
            Ok(text.chars().map(|c| u8::try_from(c).ok().filter(u8::is_ascii).unwrap_or(b'?')).collect())
        }
        "base64" => STANDARD.decode(text).map_err(|e| exec_datafusion_err!("invalid base64: {e}")),
        "hex" => hex(text).ok_or_else(|| exec_datafusion_err!("invalid hexadecimal digits: \"{text}\"")),
        _ => exec_err!("the encoding \"{encoding}\" is not supported; hex, utf8, ascii and base64 are"),
    }
}

/// Digits, also as 0x… and X'…'.
fn hex(text: &str) -> Option<Vec<u8>> {
    let digits = match text.strip_prefix("0x") {
        Some(digits) => digits,
        None => match text.strip_prefix(['X', 'x']) {
            Some(quoted) => quoted.strip_prefix('\'')?.strip_suffix('\'')?,
            None => text,
        },
    };
    let digits = digits.chars().map(|c| c.to_digit(16)).collect::<Option<Vec<u32>>>()?;
    let byte = |pair: &[u32]| match pair {
        [high, low] => u8::try_from(high << 4 | low).ok(),
        _ => None,
    };
    digits.chunks(2).map(byte).collect()
}

/// The text that stands for bytes.
fn encoded(bytes: &[u8], encoding: &str) -> Result<String> {
    match encoding.to_ascii_lowercase().as_str() {
        "utf8" => Ok(String::from_utf8_lossy(bytes).into_owned()),
        "ascii" => {
            let character = |b: &u8| if b.is_ascii() { char::from(*b) } else { char::REPLACEMENT_CHARACTER };
            Ok(bytes.iter().map(character).collect())
        }
        "base64" => Ok(STANDARD.encode(bytes)),
        "hex" => Ok(bytes.iter().map(|b| format!("{b:02X}")).collect()),
        _ => exec_err!("the encoding \"{encoding}\" is not supported; hex, utf8, ascii and base64 are"),
    }
}

/// Numbers in bytes, the highest first unless the second argument says LITTLE_ENDIAN.
fn numbers<T, const N: usize>(args: &[ArrayRef], read: fn([u8; N]) -> T) -> Result<Vec<Option<T>>> {
    let bytes = args[0].as_binary::<i32>();
    let orders = args.get(1).map(|orders| orders.as_string::<i32>());
    (0..bytes.len())
        .map(|row| {
            if bytes.is_null(row) || orders.is_some_and(|orders| orders.is_null(row)) {
                return Ok(None);
            }
            let Ok(mut number) = <[u8; N]>::try_from(bytes.value(row)) else {
                return exec_err!("{} bytes are no number of {N} bytes", bytes.value(row).len());
            };
            match orders.map_or("BIG_ENDIAN", |orders| orders.value(row)) {
                "BIG_ENDIAN" => {}
                "LITTLE_ENDIAN" => number.reverse(),
                other => return exec_err!("\"{other}\" is not BIG_ENDIAN or LITTLE_ENDIAN"),
            }
            Ok(Some(read(number)))
        })
        .collect()
}

/// The parts between delimiters; each character or byte where the delimiter is empty.
fn split(args: &[ArrayRef]) -> Result<ArrayRef> {
    if *args[0].data_type() == DataType::Binary {
        return split_bytes(args[0].as_binary(), cast(&args[1], &DataType::Binary)?.as_binary());
    }
    let (texts, delimiters) = (cast(&args[0], &DataType::Utf8)?, cast(&args[1], &DataType::Utf8)?);
    let mut out = ListBuilder::new(StringBuilder::new());
    for (text, delimiter) in texts.as_string::<i32>().iter().zip(delimiters.as_string::<i32>()) {
        match (text, delimiter) {
            (Some(text), Some("")) if !text.is_empty() => {
                out.append_value(text.chars().map(|c| Some(c.to_string())));
            }
            (Some(text), Some("")) => out.append_value([Some(text)]),
            (Some(text), Some(delimiter)) => out.append_value(text.split(delimiter).map(Some)),
            _ => out.append_null(),
        }
    }
    Ok(Arc::new(out.finish()))
}

fn split_bytes(values: &BinaryArray, delimiters: &BinaryArray) -> Result<ArrayRef> {
    let mut out = ListBuilder::new(BinaryBuilder::new());
    for (value, delimiter) in values.iter().zip(delimiters) {
        match (value, delimiter) {
            (Some(value), Some([])) if !value.is_empty() => out.append_value(value.chunks(1).map(Some)),
            (Some(value), Some([])) => out.append_value([Some(value)]),
            (Some(value), Some(delimiter)) => out.append_value(parts(value, delimiter).into_iter().map(Some)),
            _ => out.append_null(),
        }
    }
    Ok(Arc::new(out.finish()))
}

fn parts<'a>(value: &'a [u8], delimiter: &[u8]) -> Vec<&'a [u8]> {
    let mut parts = Vec::new();
    let mut rest = value;
    while let Some(at) = rest.windows(delimiter.len()).position(|window| window == delimiter) {
        parts.push(&rest[..at]);
        rest = &rest[at + delimiter.len()..];
    }
    parts.push(rest);
    parts
}
