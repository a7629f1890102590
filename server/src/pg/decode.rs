//! PostgreSQL values, in text and in binary, into Arrow columns: for COPY, INSERT and parameters.

use std::borrow::Cow;
use std::sync::Arc;

use datafusion::arrow::array::builder::{
    BinaryBuilder, BooleanBuilder, Date32Builder, Decimal128Builder, FixedSizeBinaryBuilder, Float32Builder,
    Float64Builder, Int16Builder, Int32Builder, Int64Builder, StringBuilder, Time64MicrosecondBuilder,
    TimestampMicrosecondBuilder,
};
use datafusion::arrow::array::{ArrayRef, RecordBatch, StringArray};
use datafusion::arrow::compute::cast_with_options;
use datafusion::arrow::compute::kernels::cast_utils::{Parser, string_to_datetime};
use datafusion::arrow::datatypes::{DataType, Date32Type, Field, SchemaRef, Time64MicrosecondType, TimeUnit};
use datafusion::common::format::DEFAULT_CAST_OPTIONS;
use sql::TextType;

use super::encode::JSONB_VERSION;
use super::types::{POSTGRES_EPOCH_DAYS, POSTGRES_EPOCH_MICROS, type_name};
use super::{WireError, array_text};

/// A column that grows value by value.
pub enum ColumnBuilder {
    /// boolean
    Bool(BooleanBuilder),
    /// smallint
    Int16(Int16Builder),
    /// integer
    Int32(Int32Builder),
    /// bigint
    Int64(Int64Builder),
    /// real
    Float32(Float32Builder),
    /// double precision
    Float64(Float64Builder),
    /// numeric
    Decimal(Decimal128Builder, u8, i8),
    /// text
    Text(StringBuilder),
    /// json, jsonb, varchar(n)
    TextOf(StringBuilder, TextType),
    /// uuid
    Uuid(FixedSizeBinaryBuilder),
    /// bytea
    Bytes(BinaryBuilder),
    /// date
    Date(Date32Builder),
    /// time
    Time(Time64MicrosecondBuilder),
    /// timestamp, with or without time zone
    Timestamp(TimestampMicrosecondBuilder, Option<Arc<str>>),
    /// Anything else, cast from text at the end.
    Cast(StringBuilder, DataType),
}

impl ColumnBuilder {
    /// A builder of a column's values.
    pub fn new(field: &Field) -> Self {
        match TextType::of(field) {
            None | Some(TextType::Varchar(None)) => Self::of_type(field.data_type()),
            Some(text) => Self::TextOf(StringBuilder::new(), text),
        }
    }

    /// A builder of values of `data_type`.
    pub(super) fn of_type(data_type: &DataType) -> Self {
        match data_type {
            uuid if *uuid == sql::UUID => Self::Uuid(FixedSizeBinaryBuilder::new(16)),
            DataType::Boolean => Self::Bool(BooleanBuilder::new()),
            DataType::Int16 => Self::Int16(Int16Builder::new()),
            DataType::Int32 => Self::Int32(Int32Builder::new()),
            DataType::Int64 => Self::Int64(Int64Builder::new()),
            DataType::Float32 => Self::Float32(Float32Builder::new()),
            DataType::Float64 => Self::Float64(Float64Builder::new()),
            DataType::Decimal128(p, s) => {
                Self::Decimal(Decimal128Builder::new().with_data_type(data_type.clone()), *p, *s)
            }
            DataType::Utf8 => Self::Text(StringBuilder::new()),
            DataType::Binary => Self::Bytes(BinaryBuilder::new()),
            DataType::Date32 => Self::Date(Date32Builder::new()),
            DataType::Time64(TimeUnit::Microsecond) => Self::Time(Time64MicrosecondBuilder::new()),
            DataType::Timestamp(TimeUnit::Microsecond, zone) => Self::Timestamp(
                TimestampMicrosecondBuilder::new().with_data_type(data_type.clone()),
                zone.clone(),
            ),
            other => Self::Cast(StringBuilder::new(), other.clone()),
        }
    }

    /// Appends NULL.
    pub fn append_null(&mut self) {
        match self {
            Self::Bool(b) => b.append_null(),
            Self::Int16(b) => b.append_null(),
            Self::Int32(b) => b.append_null(),
            Self::Int64(b) => b.append_null(),
            Self::Float32(b) => b.append_null(),
            Self::Float64(b) => b.append_null(),
            Self::Decimal(b, ..) => b.append_null(),
            Self::Text(b) | Self::Cast(b, _) | Self::TextOf(b, _) => b.append_null(),
            Self::Uuid(b) => b.append_null(),
            Self::Bytes(b) => b.append_null(),
            Self::Date(b) => b.append_null(),
            Self::Time(b) => b.append_null(),
            Self::Timestamp(b, _) => b.append_null(),
        }
    }

    /// Appends a value in PostgreSQL's text form.
    ///
    /// # Errors
    /// 22P02, 22003 or 22007, naming the value.
    pub fn append_text(&mut self, text: &str) -> Result<(), WireError> {
        let trimmed = text.trim();
        match self {
            Self::Text(b) | Self::Cast(b, _) => b.append_value(text),
            Self::TextOf(b, text_type) => b.append_value(text_of(text, *text_type)?),
            Self::Uuid(b) => {
                let uuid = planner::parse_uuid(trimmed).ok_or_else(|| invalid("uuid", text))?;
                b.append_value(uuid)?;
            }
            Self::Bool(b) => {
                b.append_value(planner::parse_boolean(trimmed).ok_or_else(|| invalid("boolean", text))?)
            }
            Self::Int16(b) => b.append_value(integer(trimmed, "smallint", text)?),
            Self::Int32(b) => b.append_value(integer(trimmed, "integer", text)?),
            Self::Int64(b) => b.append_value(integer(trimmed, "bigint", text)?),
            Self::Float32(b) => b.append_value(trimmed.parse().map_err(|_| invalid("real", text))?),
            Self::Float64(b) => {
                b.append_value(trimmed.parse().map_err(|_| invalid("double precision", text))?)
            }
            Self::Decimal(b, p, s) => {
                let number = planner::parse_numeric(trimmed, *p, *s);
                b.append_value(number.ok_or_else(|| numeric_error(trimmed, text, *p, *s))?);
            }
            Self::Bytes(b) => b.append_value(bytea(text).ok_or_else(|| invalid("bytea", text))?),
            Self::Date(b) => b.append_value(
                // A time or a zone behind the date says nothing of it.
                Date32Type::parse(trimmed.split([' ', 'T']).next().unwrap_or(trimmed))
                    .or_else(|| date_of(trimmed))
                    .ok_or_else(|| datetime("date", text))?,
            ),
            Self::Time(b) => {
                b.append_value(Time64MicrosecondType::parse(trimmed).ok_or_else(|| datetime("time", text))?)
            }
            Self::Timestamp(b, zone) => b.append_value(
                timestamp(trimmed, zone.as_deref()).ok_or_else(|| datetime("timestamp", text))?,
            ),
        }
        Ok(())
    }

    /// Appends a value in PostgreSQL's binary form.
    ///
    /// # Errors
    /// 22P03 for a value of the wrong length.
    pub fn append_binary(&mut self, bytes: &[u8]) -> Result<(), WireError> {
        match self {
            Self::Bool(b) => b.append_value(fixed::<1>(bytes)?[0] != 0),
            Self::Uuid(b) => b.append_value(fixed::<16>(bytes)?)?,
            Self::TextOf(_, text_type) => {
                let bytes = match (text_type, bytes) {
                    (TextType::Jsonb, [JSONB_VERSION, text @ ..]) => text,
                    (TextType::Jsonb, _) => {
                        return Err(WireError::new("22P03", "unsupported jsonb version number"));
                    }
                    _ => bytes,
                };
                return self.append_text(utf8(bytes)?);
            }
            Self::Int16(b) => b.append_value(i16::try_from(int_of(bytes)?).map_err(|_| range("smallint"))?),
            Self::Int32(b) => b.append_value(i32::try_from(int_of(bytes)?).map_err(|_| range("integer"))?),
            Self::Int64(b) => b.append_value(int_of(bytes)?),
            Self::Float32(b) => b.append_value(f32::from_be_bytes(fixed(bytes)?)),
            Self::Float64(b) if bytes.len() == 4 => {
                b.append_value(f64::from(f32::from_be_bytes(fixed(bytes)?)))
            }
            Self::Float64(b) => b.append_value(f64::from_be_bytes(fixed(bytes)?)),
            Self::Decimal(..) => {
                let text = numeric_text(bytes).ok_or_else(incorrect)?;
                return self.append_text(&text);
            }
            // An id is a number of four bytes without a sign.
            Self::Cast(b, DataType::UInt32) => b.append_value((int_of(bytes)? & 0xffff_ffff).to_string()),
            Self::Cast(b, DataType::List(field)) => {
                b.append_value(array_text::from_binary(bytes, field.data_type())?);
            }
            Self::Text(b) | Self::Cast(b, _) => {
                b.append_value(utf8(bytes)?);
            }
            Self::Bytes(b) => b.append_value(bytes),
            Self::Date(b) => {
                b.append_value(i32::from_be_bytes(fixed(bytes)?).saturating_add(POSTGRES_EPOCH_DAYS))
            }
            Self::Time(b) => b.append_value(i64::from_be_bytes(fixed(bytes)?)),
            Self::Timestamp(b, _) => {
                b.append_value(i64::from_be_bytes(fixed(bytes)?).saturating_add(POSTGRES_EPOCH_MICROS))
            }
        }
        Ok(())
    }

    /// The column; the builder begins anew.
    ///
    /// # Errors
    /// A value that does not cast.
    pub fn finish(&mut self) -> Result<ArrayRef, WireError> {
        Ok(match self {
            Self::Bool(b) => Arc::new(b.finish()),
            Self::Int16(b) => Arc::new(b.finish()),
            Self::Int32(b) => Arc::new(b.finish()),
            Self::Int64(b) => Arc::new(b.finish()),
            Self::Float32(b) => Arc::new(b.finish()),
            Self::Float64(b) => Arc::new(b.finish()),
            Self::Decimal(b, ..) => Arc::new(b.finish()),
            Self::Text(b) | Self::TextOf(b, _) => Arc::new(b.finish()),
            Self::Uuid(b) => Arc::new(b.finish()),
            Self::Bytes(b) => Arc::new(b.finish()),
            Self::Date(b) => Arc::new(b.finish()),
            Self::Time(b) => Arc::new(b.finish()),
            Self::Timestamp(b, _) => Arc::new(b.finish()),
            Self::Cast(b, data_type) => {
                let texts: StringArray = b.finish();
                if let DataType::List(field) = data_type {
                    return Ok(planner::read_lists(&texts, field)?);
                }
                let texts = match data_type {
                    DataType::Interval(_) => texts.iter().map(|text| text.map(with_units)).collect(),
                    _ => texts,
                };
                cast_with_options(&texts, data_type, &DEFAULT_CAST_OPTIONS)?
            }
        })
    }
}

/// Rows of one layout that grow value by value.
pub struct RowBuilder {
    schema: SchemaRef,
    columns: Vec<ColumnBuilder>,
    rows: usize,
}

impl RowBuilder {
    /// Rows of `schema`.
    pub fn new(schema: SchemaRef) -> Self {
        let columns = schema.fields().iter().map(|f| ColumnBuilder::new(f)).collect();
        Self { schema, columns, rows: 0 }
    }

    /// The columns, to append one value each.
    pub fn columns(&mut self) -> &mut [ColumnBuilder] {
        &mut self.columns
    }

    /// Says that each column got its value.
    pub fn end_row(&mut self) {
        self.rows += 1;
    }

    /// Rows so far.
    pub fn len(&self) -> usize {
        self.rows
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// The rows; the builder begins anew.
    ///
    /// # Errors
    /// A value that does not cast.
    pub fn finish(&mut self) -> Result<RecordBatch, WireError> {
        self.rows = 0;
        let columns = self.columns.iter_mut().map(ColumnBuilder::finish).collect::<Result<Vec<_>, _>>()?;
        Ok(RecordBatch::try_new(Arc::clone(&self.schema), columns)?)
    }
}

/// A text as a value of its type.
///
/// # Errors
/// 22P02 for what is no JSON, 22001 for more characters than the type has.
fn text_of(text: &str, text_type: TextType) -> Result<Cow<'_, str>, WireError> {
    match text_type {
        TextType::Json | TextType::Jsonb => match planner::json_value(text, text_type) {
            Ok(json) => Ok(Cow::Owned(json)),
            Err(reason) => {
                let mut error = WireError::new("22P02", "invalid input syntax for type json");
                error.detail = Some(reason);
                Err(error)
            }
        },
        TextType::Varchar(Some(most)) => {
            let most = usize::try_from(most).unwrap_or(usize::MAX);
            match text.char_indices().nth(most) {
                None => Ok(Cow::Borrowed(text)),
                // Spaces too many are cut off, as the standard has it.
                Some((end, _)) if text[end..].bytes().all(|b| b == b' ') => Ok(Cow::Borrowed(&text[..end])),
                Some(_) => {
                    let message = format!("value too long for type character varying({most})");
                    Err(WireError::new("22001", message))
                }
            }
        }
        TextType::Varchar(None) => Ok(Cow::Borrowed(text)),
    }
}

fn utf8(bytes: &[u8]) -> Result<&str, WireError> {
    std::str::from_utf8(bytes)
        .map_err(|_| WireError::new("22021", "invalid byte sequence for encoding \"UTF8\""))
}

fn invalid(name: &str, text: &str) -> WireError {
    WireError::new("22P02", format!("invalid input syntax for type {name}: \"{}\"", short(text)))
}

fn datetime(name: &str, text: &str) -> WireError {
    WireError::new("22007", format!("invalid input syntax for type {name}: \"{}\"", short(text)))
}

fn range(name: &str) -> WireError {
    WireError::new("22003", format!("value out of range for type {name}"))
}

fn incorrect() -> WireError {
    WireError::new("22P03", "incorrect binary data format")
}

fn short(text: &str) -> String {
    text.chars().take(100).collect()
}

fn integer<T: std::str::FromStr>(trimmed: &str, name: &str, text: &str) -> Result<T, WireError> {
    trimmed.parse().map_err(|_| {
        let digits = trimmed.trim_start_matches(['-', '+']);
        if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) {
            WireError::new("22003", format!("value \"{}\" is out of range for type {name}", short(text)))
        } else {
            invalid(name, text)
        }
    })
}

fn numeric_error(trimmed: &str, text: &str, precision: u8, scale: i8) -> WireError {
    if planner::is_number(trimmed) {
        let name = type_name(&DataType::Decimal128(precision, scale));
        return WireError::new("22003", format!("value \"{}\" is out of range for type {name}", short(text)));
    }
    invalid("numeric", text)
}

fn bytea(text: &str) -> Option<Vec<u8>> {
    match text.strip_prefix("\\x") {
        Some(hex) => {
            let digit = |b: u8| char::from(b).to_digit(16).and_then(|d| u8::try_from(d).ok());
            let pairs = hex.as_bytes().chunks(2);
            pairs
                .map(|pair| match pair {
                    [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
                    _ => None,
                })
                .collect()
        }
        None => Some(text.as_bytes().to_vec()),
    }
}

/// An interval as Arrow reads it.
fn with_units(text: &str) -> String {
    planner::interval_units(text).unwrap_or_else(|| text.to_owned())
}

/// The microseconds of a time: of an instant, which is in `zone` where the text does not say, or with None of a
/// time on the wall.
fn timestamp(text: &str, zone: Option<&str>) -> Option<i64> {
    let parsed = string_to_datetime(&chrono_utc(), text).ok().or_else(|| {
        // PostgreSQL takes times without seconds.
        let (minutes, zone) = text.split_at_checked("2024-01-01 00:00".len())?;
        string_to_datetime(&chrono_utc(), &format!("{minutes}:00{zone}")).ok()
    })?;
    let micros = parsed.timestamp_micros();
    match zone {
        // An offset in the text is ignored, as PostgreSQL does.
        None => Some(micros + local_offset(text)),
        Some("UTC") => Some(micros),
        Some(_) if names_offset(text) => Some(micros),
        Some(zone) => planner::zone_instant(zone, micros),
    }
}

/// Whether a time says which zone it is in.
fn names_offset(text: &str) -> bool {
    text.ends_with(['Z', 'z']) || text.rfind(['+', '-']).is_some_and(|at| at > 10)
}

fn chrono_utc() -> datafusion::arrow::array::timezone::Tz {
    "+00:00".parse().unwrap_or_else(|_| unreachable!("a fixed offset always parses"))
}

/// The offset written at the end of a timestamp, in microseconds.
fn local_offset(text: &str) -> i64 {
    let Some(at) = text.rfind(['+', '-']).filter(|at| *at > 10) else { return 0 };
    let digits: String = text[at + 1..].chars().filter(char::is_ascii_digit).collect();
    let hours: i64 = digits.get(..2).and_then(|h| h.parse().ok()).unwrap_or(0);
    let minutes: i64 = digits.get(2..4).and_then(|m| m.parse().ok()).unwrap_or(0);
    let micros = (hours * 60 + minutes) * 60_000_000;
    if text[at..].starts_with('-') { -micros } else { micros }
}

fn date_of(text: &str) -> Option<i32> {
    i32::try_from(timestamp(text, None)?.div_euclid(86_400_000_000)).ok()
}

fn fixed<const N: usize>(bytes: &[u8]) -> Result<[u8; N], WireError> {
    bytes.try_into().map_err(|_| incorrect())
}

/// An integer of 2, 4 or 8 bytes: drivers choose by value, not by column.
fn int_of(bytes: &[u8]) -> Result<i64, WireError> {
    match bytes.len() {
        2 => Ok(i64::from(i16::from_be_bytes(fixed(bytes)?))),
        4 => Ok(i64::from(i32::from_be_bytes(fixed(bytes)?))),
        8 => Ok(i64::from_be_bytes(fixed(bytes)?)),
        _ => Err(incorrect()),
    }
}

/// PostgreSQL's binary numeric as text.
fn numeric_text(bytes: &[u8]) -> Option<String> {
    let word = |i: usize| bytes.get(i * 2..i * 2 + 2).and_then(|b| b.try_into().ok()).map(i16::from_be_bytes);
    let (count, weight, sign, scale) = (word(0)?, word(1)?, word(2)?, word(3)?);
    if sign.cast_unsigned() == 0xC000 {
        return Some("NaN".into());
    }
    let digit = |position: i16| -> Option<i16> {
        let index = weight - position;
        if (0..count).contains(&index) { word(4 + usize::try_from(index).ok()?) } else { Some(0) }
    };
    let mut whole = String::new();
    for position in (0..=weight.max(0)).rev() {
        whole.push_str(&format!("{:04}", digit(position)?));
    }
    let mut fraction = String::new();
    for position in 1..=(scale + 3) / 4 {
        fraction.push_str(&format!("{:04}", digit(-position)?));
    }
    fraction.truncate(usize::try_from(scale).ok()?);
    let whole = whole.trim_start_matches('0');
    let minus = if sign == 0x4000 { "-" } else { "" };
    let whole = if whole.is_empty() { "0" } else { whole };
    Some(if fraction.is_empty() { format!("{minus}{whole}") } else { format!("{minus}{whole}.{fraction}") })
}
