//! Values as text, as PostgreSQL writes them: for whoever reads an answer, and for `value::text`.
//!
//! Source: PostgreSQL, the output functions of its types. Next: `read_texts` puts [`text_out`] in place of casts to
//! text that Arrow would write in another way; the wire writes answers with [`write_value`].

use std::fmt;
use std::sync::Arc;

use datafusion::arrow::array::types::IntervalMonthDayNano;
use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, IntervalMonthDayNanoArray, StringArray, StructArray, make_array,
};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Field, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type,
    IntervalMonthDayNanoType, IntervalUnit, Time64MicrosecondType, TimeUnit, TimestampMicrosecondType,
    UInt32Type,
};
use datafusion::arrow::json::writer::{EncoderOptions, make_encoder};
use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::common::Result;
use datafusion::logical_expr::{ScalarUDF, Signature, Volatility};

use super::scalar::scalar_function;
use super::text_types::write_uuid;
use super::time::zone_offset;

/// Whether Arrow writes values of a type in another way than PostgreSQL.
pub(super) fn is_written_apart(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::Timestamp(..)
            | DataType::Time32(_)
            | DataType::Time64(_)
            | DataType::Interval(_)
            | DataType::Duration(_)
            | DataType::Float32
            | DataType::Float64
            | DataType::Binary
            | DataType::List(_)
            | DataType::Struct(_)
    )
}

/// A value as text.
pub(super) fn text_out() -> Arc<ScalarUDF> {
    let signature = Signature::any(1, Volatility::Immutable);
    scalar_function("text_out", signature, DataType::Utf8, |args, _| {
        let values = canonical(&args[0])?;
        let text = |row: usize| values.is_valid(row).then(|| value_text(&values, row));
        Ok(Arc::new((0..values.len()).map(text).collect::<StringArray>()))
    })
}

/// Casts a column to the one Arrow type that values of its type are written from.
///
/// # Errors
/// A value that no such type holds.
pub fn canonical(column: &ArrayRef) -> Result<ArrayRef> {
    let target = match column.data_type() {
        DataType::Int8 | DataType::UInt8 => DataType::Int16,
        DataType::UInt16 => DataType::Int32,
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
fn days_and_time(column: &ArrayRef) -> Result<ArrayRef> {
    const DAY: i64 = 86_400_000_000;
    let micros = cast(&cast(column, &DataType::Duration(TimeUnit::Microsecond))?, &DataType::Int64)?;
    let interval = |micros: i64| {
        let days = i32::try_from(micros / DAY).unwrap_or(i32::MAX);
        IntervalMonthDayNano::new(0, days, micros % DAY * 1000)
    };
    let intervals = micros.as_primitive::<Int64Type>().iter().map(|m| m.map(interval));
    Ok(Arc::new(intervals.collect::<IntervalMonthDayNanoArray>()))
}

/// Writes a value that is not null, of a column that is [`canonical`].
///
/// # Errors
/// What `out` says.
pub fn write_value(column: &ArrayRef, row: usize, out: &mut impl fmt::Write) -> fmt::Result {
    match column.data_type() {
        DataType::Boolean => out.write_str(if column.as_boolean().value(row) { "t" } else { "f" }),
        DataType::Int16 => write!(out, "{}", column.as_primitive::<Int16Type>().value(row)),
        DataType::Int32 => write!(out, "{}", column.as_primitive::<Int32Type>().value(row)),
        DataType::Int64 => write!(out, "{}", column.as_primitive::<Int64Type>().value(row)),
        DataType::UInt32 => write!(out, "{}", column.as_primitive::<UInt32Type>().value(row)),
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
            out.write_str("\\x")?;
            column.as_binary::<i32>().value(row).iter().try_for_each(|byte| write!(out, "{byte:02x}"))
        }
        DataType::Date32 => {
            let (date, era) = date_text(i64::from(column.as_primitive::<Date32Type>().value(row)));
            write!(out, "{date}{era}")
        }
        DataType::Time64(_) => {
            out.write_str(&time_text(column.as_primitive::<Time64MicrosecondType>().value(row)))
        }
        DataType::Timestamp(_, zone) => {
            let micros = column.as_primitive::<TimestampMicrosecondType>().value(row);
            let offset = zone.as_deref().map(|zone| offset_seconds(zone, micros));
            let local = micros.saturating_add(offset.unwrap_or(0) * 1_000_000);
            let (day, time) = (local.div_euclid(86_400_000_000), local.rem_euclid(86_400_000_000));
            let offset = offset.map(offset_text).unwrap_or_default();
            let (date, era) = date_text(day);
            write!(out, "{date} {}{offset}{era}", time_text(time))
        }
        DataType::Interval(_) => {
            let v = column.as_primitive::<IntervalMonthDayNanoType>().value(row);
            out.write_str(&interval_text(v.months, v.days, v.nanoseconds / 1000))
        }
        DataType::List(_) => {
            let items = column.as_list::<i32>().value(row);
            list_text(&items, out)
        }
        DataType::Struct(_) => record_text(column.as_struct(), row, out),
        uuid if *uuid == sql::UUID => write_uuid(column.as_fixed_size_binary().value(row), out),
        DataType::Map(..) => map_text(column, row, out),
        _ => out.write_str(&other_text(column, row)),
    }
}

/// A record: its fields in parentheses, NULL as nothing.
fn record_text(record: &StructArray, row: usize, out: &mut impl fmt::Write) -> fmt::Result {
    out.write_char('(')?;
    for (index, field) in record.columns().iter().enumerate() {
        if index > 0 {
            out.write_char(',')?;
        }
        let field = canonical(field).unwrap_or_else(|_| make_array(field.to_data()));
        if field.is_null(row) {
            continue;
        }
        let item = value_text(&field, row);
        let special = |c: char| c.is_ascii_whitespace() || matches!(c, '(' | ')' | ',' | '"' | '\\');
        if !item.is_empty() && !item.contains(special) {
            out.write_str(&item)?;
            continue;
        }
        out.write_char('"')?;
        for c in item.chars() {
            if matches!(c, '"' | '\\') {
                out.write_char(c)?;
            }
            out.write_char(c)?;
        }
        out.write_char('"')?;
    }
    out.write_char(')')
}

/// A value on its own. It is made apart, so that a type in a type has no type of `out` of its own.
pub(super) fn value_text(column: &ArrayRef, row: usize) -> String {
    let mut text = String::new();
    // Writing to memory does not fail.
    let _ = write_value(column, row, &mut text);
    text
}

/// A map as a JSON object: PostgreSQL has no type for it.
fn map_text(column: &ArrayRef, row: usize, out: &mut impl fmt::Write) -> fmt::Result {
    let options = EncoderOptions::default().with_explicit_nulls(true);
    let field = Arc::new(Field::new("map", column.data_type().clone(), true));
    let Ok(mut encoder) = make_encoder(&field, column.as_ref(), &options) else { return Ok(()) };
    let mut json = Vec::new();
    encoder.encode(row, &mut json);
    out.write_str(&String::from_utf8_lossy(&json))
}

/// Whatever PostgreSQL has no type for, as Arrow shows it.
fn other_text(column: &ArrayRef, row: usize) -> String {
    let options = FormatOptions::default().with_null("NULL");
    ArrayFormatter::try_new(column, &options).map(|f| f.value(row).to_string()).unwrap_or_default()
}

fn list_text(items: &ArrayRef, out: &mut impl fmt::Write) -> fmt::Result {
    let items = canonical(items).unwrap_or_else(|_| make_array(items.to_data()));
    let nested = matches!(items.data_type(), DataType::List(_));
    out.write_char('{')?;
    for row in 0..items.len() {
        if row > 0 {
            out.write_char(',')?;
        }
        if items.is_null(row) {
            out.write_str("NULL")?;
            continue;
        }
        let item = value_text(&items, row);
        let special = |c: char| c.is_ascii_whitespace() || matches!(c, '{' | '}' | ',' | '"' | '\\');
        let plain = !item.is_empty() && !item.eq_ignore_ascii_case("null") && !item.contains(special);
        if nested || plain {
            out.write_str(&item)?;
            continue;
        }
        out.write_char('"')?;
        for c in item.chars() {
            if matches!(c, '"' | '\\') {
                out.write_char('\\')?;
            }
            out.write_char(c)?;
        }
        out.write_char('"')?;
    }
    out.write_char('}')
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

/// How far a zone is east of Greenwich at an instant.
fn offset_seconds(zone: &str, micros: i64) -> i64 {
    if zone == "UTC" { 0 } else { zone_offset(zone, micros).unwrap_or(0) }
}

fn offset_text(seconds: i64) -> String {
    let (sign, seconds) = (if seconds < 0 { '-' } else { '+' }, seconds.abs());
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match (minutes, seconds) {
        (0, 0) => format!("{sign}{hours:02}"),
        (_, 0) => format!("{sign}{hours:02}:{minutes:02}"),
        _ => format!("{sign}{hours:02}:{minutes:02}:{seconds:02}"),
    }
}

/// A date, and what stands behind it and its time: the years before the year 1 count down.
fn date_text(days: i64) -> (String, &'static str) {
    let (year, month, day) = civil(days);
    let (year, era) = if year > 0 { (year, "") } else { (1 - year, " BC") };
    (format!("{year:04}-{month:02}-{day:02}"), era)
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
        assert_eq!(date_text(0), ("1970-01-01".into(), ""));
        assert_eq!(date_text(-719_529), ("0002-12-31".into(), " BC"));
        assert_eq!(time_text(3_661_500_000), "01:01:01.5");
        assert_eq!(interval_text(14, -1, 1_000_000), "1 year 2 mons -1 days 00:00:01");
    }
}
