//! Columns as their values are written out, one at a time.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use datafusion::arrow::array::{
    Array, AsArray, BinaryArray, BooleanArray, Date32Array, Decimal128Array, FixedSizeBinaryArray,
    Float32Array, Float64Array, Int16Array, Int32Array, Int64Array, ListArray, MapArray, StringArray,
    StructArray, Time64MicrosecondArray, TimestampMicrosecondArray,
};
use datafusion::arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type,
    Time64MicrosecondType, TimeUnit, TimestampMicrosecondType,
};

use planner::Column;
use sql::TextType;

use super::json::quoted;
use crate::error::{Error, Result};

/// A column, by its type.
pub(super) enum Cells<'a> {
    Boolean(&'a BooleanArray),
    Int16(&'a Int16Array),
    Int32(&'a Int32Array),
    Int64(&'a Int64Array),
    Float32(&'a Float32Array),
    Float64(&'a Float64Array),
    Decimal(&'a Decimal128Array),
    Text(&'a StringArray),
    Bytes(&'a BinaryArray),
    Date(&'a Date32Array),
    Time(&'a Time64MicrosecondArray),
    Timestamp(&'a TimestampMicrosecondArray),
    Uuid(&'a FixedSizeBinaryArray),
    /// JSON, which stands in JSON as it is.
    Json(&'a StringArray),
    List(&'a ListArray, Box<Cells<'a>>),
    Struct(&'a StructArray, Vec<(Vec<u8>, Cells<'a>)>),
    /// A map's keys and values.
    Map(&'a MapArray, &'a StringArray, Box<Cells<'a>>),
}

impl<'a> Cells<'a> {
    /// The cells of a relation's column.
    ///
    /// # Errors
    /// As [`Cells::new`].
    pub(super) fn of(column: &Column, array: &'a dyn Array) -> Result<Self> {
        match (column.text_type, array.as_string_opt::<i32>()) {
            (Some(TextType::Json | TextType::Jsonb), Some(json)) => Ok(Self::Json(json)),
            _ => Self::new(array),
        }
    }

    /// # Errors
    /// [`Error::Bug`] for a type that no format holds: the planner refuses those.
    fn new(array: &'a dyn Array) -> Result<Self> {
        Ok(match array.data_type() {
            DataType::Boolean => Self::Boolean(array.as_boolean()),
            DataType::Int16 => Self::Int16(array.as_primitive::<Int16Type>()),
            DataType::Int32 => Self::Int32(array.as_primitive::<Int32Type>()),
            DataType::Int64 => Self::Int64(array.as_primitive::<Int64Type>()),
            DataType::Float32 => Self::Float32(array.as_primitive::<Float32Type>()),
            DataType::Float64 => Self::Float64(array.as_primitive::<Float64Type>()),
            DataType::Decimal128(..) => Self::Decimal(array.as_primitive::<Decimal128Type>()),
            DataType::Utf8 => Self::Text(array.as_string()),
            DataType::Binary => Self::Bytes(array.as_binary()),
            DataType::Date32 => Self::Date(array.as_primitive::<Date32Type>()),
            DataType::Time64(TimeUnit::Microsecond) => {
                Self::Time(array.as_primitive::<Time64MicrosecondType>())
            }
            DataType::Timestamp(TimeUnit::Microsecond, _) => {
                Self::Timestamp(array.as_primitive::<TimestampMicrosecondType>())
            }
            DataType::List(_) => {
                let list = array.as_list::<i32>();
                Self::List(list, Box::new(Self::new(list.values().as_ref())?))
            }
            DataType::Struct(fields) => {
                let record = array.as_struct();
                let columns = fields.iter().zip(record.columns());
                let columns = columns.map(|(f, c)| Ok((quoted(f.name()), Self::new(c.as_ref())?)));
                Self::Struct(record, columns.collect::<Result<_>>()?)
            }
            DataType::FixedSizeBinary(16) => Self::Uuid(array.as_fixed_size_binary()),
            DataType::Map(..) => {
                let map = array.as_map();
                let Some(keys) = map.keys().as_string_opt::<i32>() else {
                    return Err(Error::bug("format", "a map whose keys are no texts"));
                };
                Self::Map(map, keys, Box::new(Self::new(map.values().as_ref())?))
            }
            other => return Err(Error::bug("format", format!("no format holds {other}"))),
        })
    }

    pub(super) fn is_null(&self, row: usize) -> bool {
        match self {
            Self::Boolean(a) => a.is_null(row),
            Self::Int16(a) => a.is_null(row),
            Self::Int32(a) => a.is_null(row),
            Self::Int64(a) => a.is_null(row),
            Self::Float32(a) => a.is_null(row),
            Self::Float64(a) => a.is_null(row),
            Self::Decimal(a) => a.is_null(row),
            Self::Text(a) => a.is_null(row),
            Self::Bytes(a) => a.is_null(row),
            Self::Date(a) => a.is_null(row),
            Self::Time(a) => a.is_null(row),
            Self::Timestamp(a) => a.is_null(row),
            Self::Uuid(a) => a.is_null(row),
            Self::Json(a) => a.is_null(row),
            Self::Map(a, ..) => a.is_null(row),
            Self::List(a, _) => a.is_null(row),
            Self::Struct(a, _) => a.is_null(row),
        }
    }

    /// Whether JSON has the value without quotes.
    pub(super) fn is_bare(&self, row: usize) -> bool {
        match self {
            Self::Text(_) | Self::Bytes(_) | Self::Uuid(_) => false,
            Self::Float32(a) => a.value(row).is_finite(),
            Self::Float64(a) => a.value(row).is_finite(),
            _ => true,
        }
    }

    /// Writes a value that is not NULL as its text.
    pub(super) fn write_text(&self, row: usize, out: &mut Vec<u8>) {
        match self {
            Self::Boolean(a) => out.extend_from_slice(if a.value(row) { b"true" } else { b"false" }),
            Self::Int16(a) => plain(out, a.value(row)),
            Self::Int32(a) => plain(out, a.value(row)),
            Self::Int64(a) => plain(out, a.value(row)),
            Self::Float32(a) => float(out, f64::from(a.value(row)), a.value(row)),
            Self::Float64(a) => float(out, a.value(row), a.value(row)),
            Self::Decimal(a) => plain(out, a.value_as_string(row)),
            Self::Text(a) => out.extend_from_slice(a.value(row).as_bytes()),
            Self::Bytes(a) => plain(out, STANDARD.encode(a.value(row))),
            Self::Date(a) => plain(out, a.value(row)),
            Self::Time(a) => milliseconds(out, a.value(row)),
            Self::Timestamp(a) => milliseconds(out, a.value(row)),
            Self::Json(a) => out.extend_from_slice(a.value(row).as_bytes()),
            Self::Uuid(a) => {
                let mut text = String::with_capacity(36);
                // Writing to memory does not fail.
                let _ = planner::write_uuid(a.value(row), &mut text);
                out.extend_from_slice(text.as_bytes());
            }
            // Only JSON holds them, and writes them itself.
            Self::List(..) | Self::Struct(..) | Self::Map(..) => {}
        }
    }
}

fn plain(out: &mut Vec<u8>, value: impl std::fmt::Display) {
    use std::io::Write;
    // Writing to memory does not fail.
    let _ = write!(out, "{value}");
}

/// As Java names what is not finite, else the shortest text that reads back.
fn float(out: &mut Vec<u8>, value: f64, shown: impl serde::Serialize) {
    match value {
        v if v.is_nan() => out.extend_from_slice(b"NaN"),
        v if v == f64::INFINITY => out.extend_from_slice(b"Infinity"),
        v if v == f64::NEG_INFINITY => out.extend_from_slice(b"-Infinity"),
        // Writing to memory does not fail.
        _ => drop(serde_json::to_writer(out, &shown)),
    }
}

/// Microseconds as milliseconds, with a fraction where they have one.
fn milliseconds(out: &mut Vec<u8>, us: i64) {
    if us % 1000 == 0 {
        return plain(out, us / 1000);
    }
    let sign = if us < 0 { "-" } else { "" };
    let us = us.unsigned_abs();
    plain(out, format_args!("{sign}{}.{:03}", us / 1000, us % 1000));
}
