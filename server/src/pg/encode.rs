//! Arrow values as PostgreSQL writes them, in text and in binary.
//!
//! A `DataRow` is written straight into the connection's buffer, column by column.
//! Source: PostgreSQL, "Frontend/Backend Protocol"; the send functions of its types.

use std::fmt::Write;
use std::sync::Arc;

use bytes::{BufMut, BytesMut};
use datafusion::arrow::array::types::IntervalMonthDayNano;
use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, IntervalMonthDayNanoArray, RecordBatch, StructArray, make_array,
};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Field, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type,
    IntervalMonthDayNanoType, IntervalUnit, SchemaRef, Time64MicrosecondType, TimeUnit,
    TimestampMicrosecondType,
};
use datafusion::arrow::json::writer::{EncoderOptions, make_encoder};
use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};

use super::WireError;
use super::types::{JSONB, POSTGRES_EPOCH_DAYS, POSTGRES_EPOCH_MICROS, column_type, pg_type};

/// In front of each jsonb in binary.
pub(super) const JSONB_VERSION: u8 = 1;

/// How a value is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// As a person reads it.
    Text,
    /// As PostgreSQL sends it in binary.
    Binary,
}

/// Writes rows of one layout.
#[derive(Debug, Clone)]
pub struct RowEncoder {
    /// Of each column its format, and whether it is jsonb.
    columns: Vec<(Format, bool)>,
}

impl RowEncoder {
    /// For rows of a layout, with one format for each column.
    pub fn new(schema: &SchemaRef, formats: &[Format]) -> Self {
        let jsonb = columns(schema).into_iter().map(|pg| pg.oid == JSONB);
        Self { columns: formats.iter().copied().zip(jsonb).collect() }
    }

    /// For rows of a layout that go out in binary.
    pub fn binary(schema: &SchemaRef) -> Self {
        Self::new(schema, &vec![Format::Binary; schema.fields().len()])
    }

    /// The columns of a batch in the types they are written from.
    ///
    /// # Errors
    /// A value that no wire type holds.
    pub fn prepare(batch: &RecordBatch) -> Result<Vec<ArrayRef>, WireError> {
        batch.columns().iter().map(canonical).collect()
    }

    /// Appends one row as a `DataRow` message.
    pub fn data_row(&self, columns: &[ArrayRef], row: usize, out: &mut BytesMut) {
        out.put_u8(b'D');
        let start = out.len();
        out.put_i32(0);
        out.put_i16(i16::try_from(columns.len()).unwrap_or(i16::MAX));
        self.values(columns, row, out);
        let length = i32::try_from(out.len() - start).unwrap_or(i32::MAX);
        out[start..start + 4].copy_from_slice(&length.to_be_bytes());
    }

    /// Appends one row as a tuple of COPY.
    pub fn copy_tuple(&self, columns: &[ArrayRef], row: usize, out: &mut BytesMut) {
        out.put_i16(i16::try_from(columns.len()).unwrap_or(i16::MAX));
        self.values(columns, row, out);
    }

    fn values(&self, columns: &[ArrayRef], row: usize, out: &mut BytesMut) {
        for (column, (format, jsonb)) in columns.iter().zip(&self.columns) {
            if *jsonb && *format == Format::Binary && column.is_valid(row) {
                counted(out, |out| {
                    out.put_u8(JSONB_VERSION);
                    text(column, row, out);
                });
            } else {
                value(column, row, *format, out);
            }
        }
    }
}

/// The wire types of a layout.
pub(crate) fn columns(schema: &SchemaRef) -> Vec<super::PgType> {
    schema.fields().iter().map(|f| column_type(f)).collect()
}

/// Casts a column to the one Arrow type its wire type is written from.
fn canonical(column: &ArrayRef) -> Result<ArrayRef, WireError> {
    let target = match column.data_type() {
        DataType::Int8 | DataType::UInt8 => DataType::Int16,
        DataType::UInt16 => DataType::Int32,
        DataType::UInt32 => DataType::Int64,
        DataType::UInt64 => DataType::Decimal128(20, 0),
        DataType::Float16 => DataType::Float32,
        DataType::LargeUtf8 | DataType::Utf8View => DataType::Utf8,
        DataType::LargeBinary | DataType::BinaryView => DataType::Binary,
        uuid if *uuid == sql::UUID => return Ok(Arc::clone(column)),
        DataType::FixedSizeBinary(_) => DataType::Binary,
        DataType::Date64 => DataType::Date32,
        DataType::Time32(_) | DataType::Time64(TimeUnit::Nanosecond) => {
            DataType::Time64(TimeUnit::Microsecond)
        }
        DataType::Timestamp(unit, zone) if *unit != TimeUnit::Microsecond => {
            DataType::Timestamp(TimeUnit::Microsecond, zone.clone())
        }
        DataType::Interval(unit) if *unit != IntervalUnit::MonthDayNano => {
            DataType::Interval(IntervalUnit::MonthDayNano)
        }
        DataType::Duration(_) => return days_and_time(column),
        DataType::Dictionary(_, values) => values.as_ref().clone(),
        DataType::LargeList(field) | DataType::FixedSizeList(field, _) => DataType::List(Arc::clone(field)),
        DataType::Decimal256(_, scale) => DataType::Decimal128(38, *scale),
        DataType::Null => DataType::Utf8,
        _ => return Ok(Arc::clone(column)),
    };
    Ok(cast(column, &target)?)
}

/// The difference of two times in days and the rest, as PostgreSQL has it.
fn days_and_time(column: &ArrayRef) -> Result<ArrayRef, WireError> {
    const DAY: i64 = 86_400_000_000;
    let micros = cast(&cast(column, &DataType::Duration(TimeUnit::Microsecond))?, &DataType::Int64)?;
    let interval = |micros: i64| {
        let days = i32::try_from(micros / DAY).unwrap_or(i32::MAX);
        IntervalMonthDayNano::new(0, days, micros % DAY * 1000)
    };
    let intervals = micros.as_primitive::<Int64Type>().iter().map(|m| m.map(interval));
    Ok(Arc::new(intervals.collect::<IntervalMonthDayNanoArray>()))
}

fn value(column: &ArrayRef, row: usize, format: Format, out: &mut BytesMut) {
    if column.is_null(row) {
        out.put_i32(-1);
        return;
    }
    counted(out, |out| match format {
        Format::Text => text(column, row, out),
        Format::Binary => binary(column, row, out),
    });
}

/// Appends what `write` appends, behind its length.
fn counted(out: &mut BytesMut, write: impl FnOnce(&mut BytesMut)) {
    let start = out.len();
    out.put_i32(0);
    write(out);
    let length = i32::try_from(out.len() - start - 4).unwrap_or(i32::MAX);
    out[start..start + 4].copy_from_slice(&length.to_be_bytes());
}

/// Appends the text of a value that is not null.
pub(crate) fn text(column: &ArrayRef, row: usize, out: &mut BytesMut) {
    // Writing to a buffer in memory cannot fail.
    let _ = match column.data_type() {
        DataType::Boolean => out.write_str(if column.as_boolean().value(row) { "t" } else { "f" }),
        DataType::Int16 => write!(out, "{}", column.as_primitive::<Int16Type>().value(row)),
        DataType::Int32 => write!(out, "{}", column.as_primitive::<Int32Type>().value(row)),
        DataType::Int64 => write!(out, "{}", column.as_primitive::<Int64Type>().value(row)),
        DataType::Float32 => out.write_str(&float_text(
            f64::from(column.as_primitive::<Float32Type>().value(row)),
            Some(column.as_primitive::<Float32Type>().value(row)),
        )),
        DataType::Float64 => {
            out.write_str(&float_text(column.as_primitive::<Float64Type>().value(row), None))
        }
        DataType::Decimal128(_, scale) => {
            out.write_str(&decimal_text(column.as_primitive::<Decimal128Type>().value(row), *scale))
        }
        DataType::Utf8 => out.write_str(column.as_string::<i32>().value(row)),
        DataType::Binary => {
            let _ = out.write_str("\\x");
            column.as_binary::<i32>().value(row).iter().try_for_each(|byte| write!(out, "{byte:02x}"))
        }
        DataType::Date32 => {
            out.write_str(&date_text(i64::from(column.as_primitive::<Date32Type>().value(row))))
        }
        DataType::Time64(_) => {
            out.write_str(&time_text(column.as_primitive::<Time64MicrosecondType>().value(row)))
        }
        DataType::Timestamp(_, zone) => {
            let micros = column.as_primitive::<TimestampMicrosecondType>().value(row);
            let day = micros.div_euclid(86_400_000_000);
            let zone = if zone.is_some() { "+00" } else { "" };
            write!(out, "{} {}{zone}", date_text(day), time_text(micros.rem_euclid(86_400_000_000)))
        }
        DataType::Interval(_) => {
            let v = column.as_primitive::<IntervalMonthDayNanoType>().value(row);
            out.write_str(&interval_text(v.months, v.days, v.nanoseconds / 1000))
        }
        DataType::List(_) => {
            let items = column.as_list::<i32>().value(row);
            list_text(&items, out);
            Ok(())
        }
        DataType::Struct(_) => {
            record_text(column.as_struct(), row, out);
            Ok(())
        }
        uuid if *uuid == sql::UUID => planner::write_uuid(column.as_fixed_size_binary().value(row), out),
        DataType::Map(..) => {
            map_text(column, row, out);
            Ok(())
        }
        _ => out.write_str(&other_text(column, row)),
    };
}

/// A record: its fields in parentheses, NULL as nothing.
fn record_text(record: &StructArray, row: usize, out: &mut BytesMut) {
    out.put_u8(b'(');
    for (index, field) in record.columns().iter().enumerate() {
        if index > 0 {
            out.put_u8(b',');
        }
        let field = canonical(field).unwrap_or_else(|_| make_array(field.to_data()));
        if field.is_null(row) {
            continue;
        }
        let mut item = BytesMut::new();
        text(&field, row, &mut item);
        let special = |b: &u8| b.is_ascii_whitespace() || matches!(b, b'(' | b')' | b',' | b'"' | b'\\');
        if !item.is_empty() && !item.iter().any(special) {
            out.put_slice(&item);
            continue;
        }
        out.put_u8(b'"');
        for byte in &item {
            if matches!(byte, b'"' | b'\\') {
                out.put_u8(*byte);
            }
            out.put_u8(*byte);
        }
        out.put_u8(b'"');
    }
    out.put_u8(b')');
}

/// A map as a JSON object: PostgreSQL has no type for it.
fn map_text(column: &ArrayRef, row: usize, out: &mut BytesMut) {
    let options = EncoderOptions::default().with_explicit_nulls(true);
    let field = Arc::new(Field::new("map", column.data_type().clone(), true));
    if let Ok(mut encoder) = make_encoder(&field, column.as_ref(), &options) {
        let mut json = Vec::new();
        encoder.encode(row, &mut json);
        out.put_slice(&json);
    }
}

/// Whatever PostgreSQL has no type for, as Arrow shows it.
fn other_text(column: &ArrayRef, row: usize) -> String {
    let options = FormatOptions::default().with_null("NULL");
    ArrayFormatter::try_new(column, &options).map(|f| f.value(row).to_string()).unwrap_or_default()
}

fn list_text(items: &ArrayRef, out: &mut BytesMut) {
    let items = canonical(items).unwrap_or_else(|_| make_array(items.to_data()));
    out.put_u8(b'{');
    for row in 0..items.len() {
        if row > 0 {
            out.put_u8(b',');
        }
        if items.is_null(row) {
            out.put_slice(b"NULL");
            continue;
        }
        let mut item = BytesMut::new();
        text(&items, row, &mut item);
        let plain = !item.is_empty()
            && !item.eq_ignore_ascii_case(b"null")
            && (matches!(items.data_type(), DataType::List(_))
                || item
                    .iter()
                    .all(|b| !b.is_ascii_whitespace() && !matches!(b, b'{' | b'}' | b',' | b'"' | b'\\')));
        if plain {
            out.put_slice(&item);
        } else {
            out.put_u8(b'"');
            for byte in &item {
                if matches!(byte, b'"' | b'\\') {
                    out.put_u8(b'\\');
                }
                out.put_u8(*byte);
            }
            out.put_u8(b'"');
        }
    }
    out.put_u8(b'}');
}

/// The shortest digits that read back as the same number, in PostgreSQL's layout.
fn float_text(value: f64, single: Option<f32>) -> String {
    if value.is_nan() {
        return "NaN".into();
    }
    if value.is_infinite() {
        return if value > 0.0 { "Infinity" } else { "-Infinity" }.into();
    }
    let scientific = single.map_or_else(|| format!("{value:e}"), |s| format!("{s:e}"));
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let digits = if single.is_some() { 6 } else { 15 };
    if (-4..digits).contains(&exponent) {
        return single.map_or_else(|| format!("{value}"), |s| format!("{s}"));
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{mantissa}e{sign}{:02}", exponent.abs())
}

fn decimal_text(value: i128, scale: i8) -> String {
    let Ok(scale) = usize::try_from(scale) else { return value.to_string() };
    if scale == 0 {
        return value.to_string();
    }
    let digits = format!("{:0width$}", value.unsigned_abs(), width = scale + 1);
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    let sign = if value < 0 { "-" } else { "" };
    format!("{sign}{whole}.{fraction}")
}

/// Year, month and day of a day number since 1970.
///
/// Source: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", civil_from_days.
fn civil(days: i64) -> (i64, i64, i64) {
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let day_of_era = z.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

fn date_text(days: i64) -> String {
    let (year, month, day) = civil(days);
    if year > 0 {
        format!("{year:04}-{month:02}-{day:02}")
    } else {
        format!("{:04}-{month:02}-{day:02} BC", 1 - year)
    }
}

fn time_text(micros: i64) -> String {
    let seconds = micros / 1_000_000;
    let text = format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
    match micros % 1_000_000 {
        0 => text,
        fraction => format!("{text}.{fraction:06}").trim_end_matches('0').to_owned(),
    }
}

fn interval_text(months: i32, days: i32, micros: i64) -> String {
    let mut parts = Vec::new();
    let plural = |n: i32, unit: &str| format!("{n} {unit}{}", if n == 1 { "" } else { "s" });
    if months / 12 != 0 {
        parts.push(plural(months / 12, "year"));
    }
    if months % 12 != 0 {
        parts.push(plural(months % 12, "mon"));
    }
    if days != 0 {
        parts.push(plural(days, "day"));
    }
    if micros != 0 || parts.is_empty() {
        let sign = if micros < 0 { "-" } else { "" };
        parts.push(format!("{sign}{}", time_text(micros.abs())));
    }
    parts.join(" ")
}

fn binary(column: &ArrayRef, row: usize, out: &mut BytesMut) {
    match column.data_type() {
        DataType::Boolean => out.put_u8(u8::from(column.as_boolean().value(row))),
        DataType::Int16 => out.put_i16(column.as_primitive::<Int16Type>().value(row)),
        DataType::Int32 => out.put_i32(column.as_primitive::<Int32Type>().value(row)),
        DataType::Int64 => out.put_i64(column.as_primitive::<Int64Type>().value(row)),
        DataType::Float32 => out.put_f32(column.as_primitive::<Float32Type>().value(row)),
        DataType::Float64 => out.put_f64(column.as_primitive::<Float64Type>().value(row)),
        DataType::Decimal128(_, scale) => {
            numeric(column.as_primitive::<Decimal128Type>().value(row), *scale, out)
        }
        DataType::Binary => out.put_slice(column.as_binary::<i32>().value(row)),
        uuid if *uuid == sql::UUID => out.put_slice(column.as_fixed_size_binary().value(row)),
        DataType::Date32 => out.put_i32(column.as_primitive::<Date32Type>().value(row) - POSTGRES_EPOCH_DAYS),
        DataType::Time64(_) => out.put_i64(column.as_primitive::<Time64MicrosecondType>().value(row)),
        DataType::Timestamp(..) => {
            out.put_i64(column.as_primitive::<TimestampMicrosecondType>().value(row) - POSTGRES_EPOCH_MICROS)
        }
        DataType::Interval(_) => {
            let v = column.as_primitive::<IntervalMonthDayNanoType>().value(row);
            out.put_i64(v.nanoseconds / 1000);
            out.put_i32(v.days);
            out.put_i32(v.months);
        }
        DataType::List(field) => {
            let items = column.as_list::<i32>().value(row);
            list_binary(&items, pg_type(field.data_type()).oid, out);
        }
        _ => text(column, row, out),
    }
}

fn list_binary(items: &ArrayRef, element: u32, out: &mut BytesMut) {
    let items = canonical(items).unwrap_or_else(|_| make_array(items.to_data()));
    out.put_i32(i32::from(!items.is_empty()));
    out.put_i32(i32::from(items.null_count() > 0));
    out.put_u32(element);
    if items.is_empty() {
        return;
    }
    out.put_i32(i32::try_from(items.len()).unwrap_or(i32::MAX));
    out.put_i32(1);
    for row in 0..items.len() {
        value(&items, row, Format::Binary, out);
    }
}

/// PostgreSQL's numeric: base-10000 digits, weight of the first, sign, digits after the point.
fn numeric(value: i128, scale: i8, out: &mut BytesMut) {
    let scale = u32::try_from(scale).unwrap_or(0);
    // Pad so that the decimal point falls between two base-10000 digits.
    let pad = (4 - scale % 4) % 4;
    let mut digits = Vec::new();
    let mut carry = u128::from(10u32).pow(pad);
    let (mut high, low) = (value.unsigned_abs() / 10_000, value.unsigned_abs() % 10_000);
    // value × 10^pad, digit by digit, so that 38 digits do not overflow.
    let mut rest = low * carry;
    digits.push(u16::try_from(rest % 10_000).unwrap_or(0));
    carry = rest / 10_000;
    while high > 0 || carry > 0 {
        rest = (high % 10_000) * u128::from(10u32).pow(pad) + carry;
        high /= 10_000;
        digits.push(u16::try_from(rest % 10_000).unwrap_or(0));
        carry = rest / 10_000;
    }
    let fraction = scale.div_ceil(4) as usize;
    let mut weight = i16::try_from(digits.len()).unwrap_or(0) - i16::try_from(fraction).unwrap_or(0) - 1;
    digits.reverse();
    while digits.first() == Some(&0) {
        digits.remove(0);
        weight -= 1;
    }
    while digits.last() == Some(&0) {
        digits.pop();
    }
    if digits.is_empty() {
        weight = 0;
    }
    out.put_i16(i16::try_from(digits.len()).unwrap_or(0));
    out.put_i16(weight);
    out.put_u16(if value < 0 { 0x4000 } else { 0 });
    out.put_i16(i16::try_from(scale).unwrap_or(0));
    for digit in digits {
        out.put_u16(digit);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_postgres_texts() {
        assert_eq!(float_text(1.0, None), "1");
        assert_eq!(float_text(1e15, None), "1e+15");
        assert_eq!(float_text(0.0001, None), "0.0001");
        assert_eq!(float_text(1.5e-7, None), "1.5e-07");
        assert_eq!(decimal_text(-5, 2), "-0.05");
        assert_eq!(date_text(0), "1970-01-01");
        assert_eq!(date_text(-719_529), "0002-12-31 BC");
        assert_eq!(time_text(3_661_500_000), "01:01:01.5");
        assert_eq!(interval_text(14, -1, 1_000_000), "1 year 2 mons -1 days 00:00:01");
    }
}
