//! Columns that grow by one value at a time, each read out of a text.
//!
//! Invariant: every append adds exactly one entry, also one that fails (it adds NULL), so that the
//! columns of a record always have the same length and a bad record can be filtered out afterwards.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use datafusion::arrow::array::{
    ArrayBuilder, ArrayRef, BinaryBuilder, BooleanBuilder, Date32Builder, Decimal128Builder,
    FixedSizeBinaryBuilder, Float32Builder, Float64Builder, Int16Builder, Int32Builder, Int64Builder,
    ListArray, MapArray, NullBufferBuilder, StringBuilder, StructArray, Time64MicrosecondBuilder,
    TimestampMicrosecondBuilder,
};
use datafusion::arrow::buffer::OffsetBuffer;
use datafusion::arrow::compute::kernels::cast_utils::{Parser, string_to_datetime};
use datafusion::arrow::datatypes::{DataType, Date32Type, FieldRef, Fields, Time64MicrosecondType, TimeUnit};

use planner::{Column, parse_numeric};
use sql::TextType;

use super::plain_type::plain_type;
use crate::error::{Error, Result};

/// Why a text is no value of a type.
pub(super) type Reason = String;

/// A column in the making.
pub(super) enum Builder {
    Boolean(BooleanBuilder),
    Int16(Int16Builder),
    Int32(Int32Builder),
    Int64(Int64Builder),
    Float32(Float32Builder),
    Float64(Float64Builder),
    Decimal(Decimal128Builder, u8, i8),
    Text(StringBuilder),
    Bytes(BinaryBuilder),
    Date(Date32Builder),
    Time(Time64MicrosecondBuilder),
    Timestamp(TimestampMicrosecondBuilder),
    Uuid(FixedSizeBinaryBuilder),
    /// JSON as it stands, or in jsonb's one form.
    Json(StringBuilder, TextType),
    List(ListBuilder),
    Struct(StructBuilder),
    Map(MapBuilder),
}

/// A column of lists.
pub(super) struct ListBuilder {
    field: FieldRef,
    offsets: Vec<i32>,
    valid: NullBufferBuilder,
    pub(super) items: Box<Builder>,
}

/// A column of records.
pub(super) struct StructBuilder {
    pub(super) fields: Fields,
    pub(super) columns: Vec<Builder>,
    valid: NullBufferBuilder,
}

/// A column of maps from texts.
pub(super) struct MapBuilder {
    entries: FieldRef,
    offsets: Vec<i32>,
    valid: NullBufferBuilder,
    pub(super) keys: StringBuilder,
    pub(super) values: Box<Builder>,
}

impl MapBuilder {
    /// Ends a map: its entries are those appended to `keys` and `values` since the last one.
    pub(super) fn end(&mut self, valid: bool) {
        self.offsets.push(i32::try_from(self.keys.len()).unwrap_or(i32::MAX));
        self.valid.append(valid);
    }
}

impl ListBuilder {
    /// Ends a list: its elements are those appended to `items` since the last one.
    pub(super) fn end(&mut self, items: usize, valid: bool) {
        let last = self.offsets.last().copied().unwrap_or(0);
        self.offsets.push(last + i32::try_from(items).unwrap_or(0));
        self.valid.append(valid);
    }
}

impl StructBuilder {
    /// Ends a record: each field has been appended.
    pub(super) fn end(&mut self, valid: bool) {
        self.valid.append(valid);
    }
}

impl Builder {
    /// The builder of a relation's column.
    ///
    /// # Errors
    /// As [`Builder::new`].
    pub(super) fn of(column: &Column, rows: usize) -> Result<Self> {
        match column.text_type {
            Some(json @ (TextType::Json | TextType::Jsonb)) => {
                Ok(Self::Json(StringBuilder::with_capacity(rows, rows * 64), json))
            }
            _ => Self::new(&plain_type(&column.data_type), rows),
        }
    }

    /// A column of a type.
    ///
    /// # Errors
    /// [`Error::Bug`] for a type that no format holds: the planner refuses those.
    fn new(data_type: &DataType, rows: usize) -> Result<Self> {
        Ok(match data_type {
            DataType::Boolean => Self::Boolean(BooleanBuilder::with_capacity(rows)),
            DataType::Int16 => Self::Int16(Int16Builder::with_capacity(rows)),
            DataType::Int32 => Self::Int32(Int32Builder::with_capacity(rows)),
            DataType::Int64 => Self::Int64(Int64Builder::with_capacity(rows)),
            DataType::Float32 => Self::Float32(Float32Builder::with_capacity(rows)),
            DataType::Float64 => Self::Float64(Float64Builder::with_capacity(rows)),
            DataType::Decimal128(precision, scale) => Self::Decimal(
                Decimal128Builder::with_capacity(rows).with_data_type(data_type.clone()),
                *precision,
                *scale,
            ),
            DataType::Utf8 => Self::Text(StringBuilder::with_capacity(rows, rows * 16)),
            DataType::Binary => Self::Bytes(BinaryBuilder::with_capacity(rows, rows * 16)),
            DataType::Date32 => Self::Date(Date32Builder::with_capacity(rows)),
            DataType::Time64(TimeUnit::Microsecond) => {
                Self::Time(Time64MicrosecondBuilder::with_capacity(rows))
            }
            DataType::Timestamp(TimeUnit::Microsecond, _) => Self::Timestamp(
                TimestampMicrosecondBuilder::with_capacity(rows).with_data_type(data_type.clone()),
            ),
            DataType::List(field) => Self::List(ListBuilder {
                field: Arc::clone(field),
                offsets: vec![0],
                valid: NullBufferBuilder::new(rows),
                items: Box::new(Self::new(field.data_type(), rows)?),
            }),
            DataType::Struct(fields) => Self::Struct(StructBuilder {
                fields: fields.clone(),
                columns: fields.iter().map(|f| Self::new(f.data_type(), rows)).collect::<Result<_>>()?,
                valid: NullBufferBuilder::new(rows),
            }),
            DataType::FixedSizeBinary(16) => Self::Uuid(FixedSizeBinaryBuilder::with_capacity(rows, 16)),
            DataType::Map(entries, _) => {
                let DataType::Struct(fields) = entries.data_type() else {
                    return Err(Error::bug("format", "a map without entries"));
                };
                let value = fields.last().map(|f| f.data_type()).unwrap_or(&DataType::Null);
                Self::Map(MapBuilder {
                    entries: Arc::clone(entries),
                    offsets: vec![0],
                    valid: NullBufferBuilder::new(rows),
                    keys: StringBuilder::new(),
                    values: Box::new(Self::new(value, rows)?),
                })
            }
            other => return Err(Error::bug("format", format!("no format holds {other}"))),
        })
    }

    pub(super) fn append_null(&mut self) {
        match self {
            Self::Boolean(b) => b.append_null(),
            Self::Int16(b) => b.append_null(),
            Self::Int32(b) => b.append_null(),
            Self::Int64(b) => b.append_null(),
            Self::Float32(b) => b.append_null(),
            Self::Float64(b) => b.append_null(),
            Self::Decimal(b, ..) => b.append_null(),
            Self::Text(b) => b.append_null(),
            Self::Bytes(b) => b.append_null(),
            Self::Date(b) => b.append_null(),
            Self::Time(b) => b.append_null(),
            Self::Timestamp(b) => b.append_null(),
            Self::Uuid(b) => b.append_null(),
            Self::Json(b, _) => b.append_null(),
            Self::Map(b) => b.end(false),
            Self::List(b) => b.end(0, false),
            Self::Struct(b) => {
                b.columns.iter_mut().for_each(Self::append_null);
                b.end(false);
            }
        }
    }

    /// Appends what a text says. Numbers of dates are days, of times and timestamps milliseconds, as
    /// ksqlDB has them; both may be written out as well.
    pub(super) fn append_text(&mut self, text: &str) -> std::result::Result<(), Reason> {
        macro_rules! parsed {
            ($builder:expr, $value:expr, $what:literal) => {{
                let value = $value;
                $builder.append_option(value);
                value.map(|_| ()).ok_or_else(|| unreadable(text, $what))
            }};
        }
        match self {
            Self::Boolean(b) => {
                let value = match text {
                    "true" => Some(true),
                    "false" => Some(false),
                    _ => None,
                };
                parsed!(b, value, "true or false")
            }
            Self::Int16(b) => parsed!(b, integer(text).and_then(|v| i16::try_from(v).ok()), "a smallint"),
            Self::Int32(b) => parsed!(b, integer(text).and_then(|v| i32::try_from(v).ok()), "an integer"),
            Self::Int64(b) => parsed!(b, integer(text), "a bigint"),
            Self::Float32(b) => parsed!(b, text.parse::<f32>().ok(), "a real"),
            Self::Float64(b) => parsed!(b, text.parse::<f64>().ok(), "a double"),
            Self::Decimal(b, precision, scale) => {
                parsed!(b, decimal(text, *precision, *scale), "that decimal")
            }
            Self::Text(b) => {
                b.append_value(text);
                Ok(())
            }
            Self::Bytes(b) => match STANDARD.decode(text) {
                Ok(bytes) => {
                    b.append_value(bytes);
                    Ok(())
                }
                Err(_) => {
                    b.append_null();
                    Err(unreadable(text, "base64"))
                }
            },
            Self::Date(b) => parsed!(b, date(text), "a date"),
            Self::Time(b) => parsed!(b, time(text), "a time"),
            Self::Timestamp(b) => parsed!(b, timestamp(text), "a timestamp"),
            Self::Uuid(b) => match planner::parse_uuid(text) {
                Some(uuid) => b.append_value(uuid).map_err(|error| error.to_string()),
                None => {
                    b.append_null();
                    Err(unreadable(text, "a uuid"))
                }
            },
            Self::Json(b, json) => match planner::json_value(text, *json) {
                Ok(json) => {
                    b.append_value(json);
                    Ok(())
                }
                Err(_) => {
                    b.append_null();
                    Err(unreadable(text, "JSON"))
                }
            },
            Self::List(_) | Self::Struct(_) | Self::Map(_) => {
                self.append_null();
                Err(unreadable(text, "a list, map or struct"))
            }
        }
    }

    /// The column.
    pub(super) fn finish(self) -> Result<ArrayRef> {
        Ok(match self {
            Self::Boolean(mut b) => Arc::new(b.finish()),
            Self::Int16(mut b) => Arc::new(b.finish()),
            Self::Int32(mut b) => Arc::new(b.finish()),
            Self::Int64(mut b) => Arc::new(b.finish()),
            Self::Float32(mut b) => Arc::new(b.finish()),
            Self::Float64(mut b) => Arc::new(b.finish()),
            Self::Decimal(mut b, ..) => Arc::new(b.finish()),
            Self::Text(mut b) => Arc::new(b.finish()),
            Self::Bytes(mut b) => Arc::new(b.finish()),
            Self::Date(mut b) => Arc::new(b.finish()),
            Self::Time(mut b) => Arc::new(b.finish()),
            Self::Timestamp(mut b) => Arc::new(b.finish()),
            Self::Uuid(mut b) => Arc::new(b.finish()),
            Self::Json(mut b, _) => Arc::new(b.finish()),
            Self::Map(mut b) => {
                let DataType::Struct(fields) = b.entries.data_type() else {
                    return Err(Error::bug("format", "a map without entries"));
                };
                let columns: Vec<ArrayRef> = vec![Arc::new(b.keys.finish()), b.values.finish()?];
                let entries = StructArray::try_new(fields.clone(), columns, None)?;
                let offsets = OffsetBuffer::new(b.offsets.into());
                Arc::new(MapArray::try_new(b.entries, offsets, entries, b.valid.finish(), false)?)
            }
            Self::List(mut b) => {
                let offsets = OffsetBuffer::new(b.offsets.into());
                Arc::new(ListArray::try_new(b.field, offsets, b.items.finish()?, b.valid.finish())?)
            }
            Self::Struct(mut b) => {
                let columns = b.columns.into_iter().map(Self::finish).collect::<Result<Vec<_>>>()?;
                let length = b.valid.len();
                Arc::new(StructArray::try_new_with_length(b.fields, columns, b.valid.finish(), length)?)
            }
        })
    }
}

/// Most of a bad text that an error shows.
const SHOWN: usize = 60;

pub(super) fn unreadable(text: &str, what: &str) -> Reason {
    let shown: String = text.chars().take(SHOWN).collect();
    let more = if shown.len() < text.len() { "…" } else { "" };
    format!("{shown}{more} is not {what}")
}

/// A whole number; a fraction is cut off, as Java does.
fn integer(text: &str) -> Option<i64> {
    if let Ok(value) = text.parse::<i64>() {
        return Some(value);
    }
    let value = text.parse::<f64>().ok()?.trunc();
    // Above this a double no longer says which integer is meant.
    (value.abs() <= 9_007_199_254_740_992.0).then_some(value as i64)
}

fn decimal(text: &str, precision: u8, scale: i8) -> Option<i128> {
    let digits = text.split(['e', 'E']).next()?;
    let fraction = digits.split_once('.').map_or("", |(_, fraction)| fraction.trim_end_matches('0'));
    let has_exponent = digits.len() < text.len();
    if !has_exponent && fraction.len() > usize::from(scale.unsigned_abs()) {
        return None;
    }
    parse_numeric(text, precision, scale)
}

fn date(text: &str) -> Option<i32> {
    text.parse::<i32>().ok().or_else(|| Date32Type::parse(text))
}

fn time(text: &str) -> Option<i64> {
    const DAY_US: i64 = 86_400_000_000;
    let us = micros(text).or_else(|| Time64MicrosecondType::parse(text))?;
    (0..DAY_US).contains(&us).then_some(us)
}

fn timestamp(text: &str) -> Option<i64> {
    micros(text).or_else(|| string_to_datetime(&chrono::Utc, text).ok().map(|t| t.timestamp_micros()))
}

/// A number of milliseconds, with or without a fraction, in microseconds.
fn micros(text: &str) -> Option<i64> {
    if let Ok(ms) = text.parse::<i64>() {
        return ms.checked_mul(1000);
    }
    let us = parse_numeric(text, 38, 3)?;
    i64::try_from(us).ok()
}
