//! PostgreSQL's functions on dates and times that DataFusion has not, or has with another meaning.
//!
//! Source: PostgreSQL, "Date/Time Functions and Operators", "Data Type Formatting Functions".

use std::sync::Arc;

use chrono::{
    DateTime, Datelike, Duration, LocalResult, NaiveDate, NaiveDateTime, NaiveTime, Offset, TimeZone,
};
use datafusion::arrow::array::timezone::Tz;
use datafusion::arrow::array::types::{IntervalMonthDayNano, IntervalMonthDayNanoType};
use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, PrimitiveArray, StringArray, TimestampMicrosecondArray,
};
use datafusion::arrow::compute::{cast, cast_with_options};
use datafusion::arrow::datatypes::{
    DataType, Float64Type, Int64Type, IntervalUnit, TimeUnit, TimestampMicrosecondType,
};
use datafusion::common::format::DEFAULT_CAST_OPTIONS;
use datafusion::common::{DataFusionError, Result, exec_err};
use datafusion::logical_expr::{ScalarUDF, Signature, TypeSignature, Volatility};

use super::number_template;
use super::scalar::{scalar_function, scalar_function_of};
use super::template::Template;

const MICROS: DataType = DataType::Timestamp(TimeUnit::Microsecond, None);

fn utc() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

fn one_of(signatures: Vec<Vec<DataType>>) -> Signature {
    Signature::one_of(signatures.into_iter().map(TypeSignature::Exact).collect(), Volatility::Immutable)
}

/// All of them.
pub(super) fn functions() -> Vec<Arc<ScalarUDF>> {
    let text = || DataType::Utf8;
    let ints = |n| vec![DataType::Int64; n];
    vec![
        scalar_function("to_char", Signature::any(2, Volatility::Immutable), DataType::Utf8, |args, _| {
            match args[0].data_type() {
                number if number.is_numeric() => number_template::to_char(&args[0], &args[1]),
                DataType::Timestamp(..) | DataType::Date32 | DataType::Null => to_char(args),
                DataType::Interval(_) => to_char_of_intervals(args),
                other => exec_err!("to_char writes numbers, dates, times and intervals, and no {other}"),
            }
        }),
        scalar_function_of(
            "to_timestamp",
            one_of(vec![vec![text(), text()], vec![DataType::Float64]]),
            |_| Ok(utc()),
            |args, _| to_timestamp(args),
        ),
        scalar_function("to_date", one_of(vec![vec![text(), text()]]), DataType::Date32, |args, _| {
            Ok(cast(&to_timestamp(args)?, &DataType::Date32)?)
        }),
        scalar_function(
            "date",
            one_of(vec![vec![MICROS], vec![utc()], vec![DataType::Date32], vec![text()]]),
            DataType::Date32,
            |args, _| Ok(cast_with_options(&args[0], &DataType::Date32, &DEFAULT_CAST_OPTIONS)?),
        ),
        scalar_function(
            "make_timestamp",
            one_of(vec![[ints(5), vec![DataType::Float64]].concat()]),
            MICROS,
            |args, rows| make_timestamp(args, rows).map(|a| Arc::new(a) as ArrayRef),
        ),
        scalar_function(
            "make_timestamptz",
            one_of(vec![
                [ints(5), vec![DataType::Float64]].concat(),
                [ints(5), vec![DataType::Float64, text()]].concat(),
            ]),
            utc(),
            |args, rows| {
                let local = make_timestamp(args, rows)?;
                let zones = args.get(6).cloned();
                let zones = zones.unwrap_or_else(|| Arc::new(StringArray::from(vec!["UTC"; rows])));
                in_zone(&zones, &(Arc::new(local) as ArrayRef))
            },
        ),
        scalar_function(
            "age",
            one_of(vec![vec![MICROS, MICROS]]),
            DataType::Interval(IntervalUnit::MonthDayNano),
            |args, _| Ok(age(args)),
        ),
        at_time_zone(),
    ]
}

/// AT TIME ZONE, as a function of the zone and the time.
pub(crate) fn at_time_zone() -> Arc<ScalarUDF> {
    scalar_function_of(
        "timezone",
        one_of(vec![vec![DataType::Utf8, MICROS], vec![DataType::Utf8, utc()]]),
        |arguments| Ok(if arguments[1] == MICROS { utc() } else { MICROS }),
        |args, _| in_zone(&args[0], &args[1]),
    )
}

/// How far a zone is east of Greenwich at an instant, in seconds. None for what is no zone.
pub fn zone_offset(zone: &str, micros: i64) -> Option<i64> {
    let zone = parse_zone(zone).ok()?;
    Some(i64::from(zone.offset_from_utc_datetime(&naive(micros).ok()?).fix().local_minus_utc()))
}

/// The instant of a time on the wall in a zone, both in microseconds. None for what is no zone.
pub fn zone_instant(zone: &str, local_micros: i64) -> Option<i64> {
    let zone = parse_zone(zone).ok()?;
    Some(instant(&zone, naive(local_micros).ok()?).and_utc().timestamp_micros())
}

/// The name of a time zone as Arrow knows it: of the IANA database, in any case, or an offset such as `+02:00`. None
/// for what is no zone.
pub fn zone_name(name: &str) -> Option<String> {
    if name.parse::<Tz>().is_ok() {
        return Some(name.to_owned());
    }
    let known = chrono_tz::TZ_VARIANTS.iter().find(|known| known.name().eq_ignore_ascii_case(name));
    known.map(|known| known.name().to_owned())
}

fn to_char(args: &[ArrayRef]) -> Result<ArrayRef> {
    let times = cast(&cast(&args[0], &utc())?, &utc())?;
    let times = times.as_primitive::<TimestampMicrosecondType>();
    let templates = cast(&args[1], &DataType::Utf8)?;
    let templates = templates.as_string::<i32>();
    let mut last: Option<(String, Template)> = None;
    let mut out = Vec::with_capacity(times.len());
    for row in 0..times.len() {
        if times.is_null(row) || templates.is_null(row) {
            out.push(None);
            continue;
        }
        let template = parsed(&mut last, templates.value(row));
        out.push(Some(template.format(naive(times.value(row))?)));
    }
    Ok(Arc::new(StringArray::from(out)))
}

fn to_char_of_intervals(args: &[ArrayRef]) -> Result<ArrayRef> {
    let intervals = cast(&args[0], &DataType::Interval(IntervalUnit::MonthDayNano))?;
    let templates = cast(&args[1], &DataType::Utf8)?;
    let mut last: Option<(String, Template)> = None;
    let intervals = intervals.as_primitive::<IntervalMonthDayNanoType>().iter();
    let pairs = intervals.zip(templates.as_string::<i32>());
    let written = pairs.map(|(interval, text)| {
        let (Some(interval), Some(text)) = (interval, text) else { return Ok(None) };
        let template = parsed(&mut last, text);
        match template.format_interval(interval.months, interval.days, interval.nanoseconds) {
            Some(written) => Ok(Some(written)),
            None => exec_err!("invalid format specification for an interval value: \"{text}\""),
        }
    });
    Ok(Arc::new(written.collect::<Result<StringArray>>()?))
}

/// The template of a text; the same text is taken apart once.
fn parsed<'a>(last: &'a mut Option<(String, Template)>, text: &str) -> &'a Template {
    if last.as_ref().is_none_or(|(t, _)| t != text) {
        *last = None;
    }
    &last.get_or_insert_with(|| (text.to_owned(), Template::parse(text))).1
}

fn to_timestamp(args: &[ArrayRef]) -> Result<ArrayRef> {
    let values = if args.len() == 1 {
        #[allow(clippy::cast_possible_truncation, reason = "out of range saturates, as in PostgreSQL")]
        let micros = |seconds: f64| (seconds * 1e6).round() as i64;
        args[0].as_primitive::<Float64Type>().iter().map(|s| s.map(micros)).collect()
    } else {
        let (texts, templates) = (args[0].as_string::<i32>(), args[1].as_string::<i32>());
        let mut last = None;
        let mut out = Vec::with_capacity(texts.len());
        for (text, template) in texts.iter().zip(templates) {
            let (Some(text), Some(template)) = (text, template) else {
                out.push(None);
                continue;
            };
            match parsed(&mut last, template).read(text) {
                Some(time) => out.push(Some(time.and_utc().timestamp_micros())),
                None => return exec_err!("invalid value \"{text}\" for \"{template}\""),
            }
        }
        out
    };
    Ok(Arc::new(TimestampMicrosecondArray::from(values).with_timezone("UTC")))
}

fn make_timestamp(args: &[ArrayRef], rows: usize) -> Result<TimestampMicrosecondArray> {
    let part = |i: usize| args[i].as_primitive::<Int64Type>();
    let seconds = args[5].as_primitive::<Float64Type>();
    let mut out = Vec::with_capacity(rows);
    for row in 0..rows {
        if args[..6].iter().any(|a| a.is_null(row)) {
            out.push(None);
            continue;
        }
        let unsigned = |i: usize| u32::try_from(part(i).value(row)).unwrap_or(u32::MAX);
        let time = year(part(0).value(row))
            .and_then(|year| NaiveDate::from_ymd_opt(year, unsigned(1), unsigned(2)))
            .and_then(|d| d.and_hms_opt(unsigned(3), unsigned(4), 0));
        let second = seconds.value(row);
        match time {
            Some(time) if (0.0..61.0).contains(&second) => {
                #[allow(clippy::cast_possible_truncation, reason = "less than 61 seconds")]
                let micros = (second * 1e6).round() as i64;
                out.push(Some(time.and_utc().timestamp_micros() + micros));
            }
            _ => return exec_err!("date/time field value out of range"),
        }
    }
    Ok(TimestampMicrosecondArray::from(out))
}

/// A year as it is counted with a year 0: those before Christ have negative numbers, and there is none between.
fn year(number: i64) -> Option<i32> {
    let year = if number < 0 { number.checked_add(1)? } else { number };
    i32::try_from(year).ok().filter(|_| number != 0)
}

/// AT TIME ZONE: a local time becomes an instant, an instant a local time.
fn in_zone(zones: &ArrayRef, times: &ArrayRef) -> Result<ArrayRef> {
    let to_instant = *times.data_type() == MICROS;
    let (zones, times) = (zones.as_string::<i32>(), times.as_primitive::<TimestampMicrosecondType>());
    let mut out = Vec::with_capacity(times.len());
    let mut last: Option<(String, Tz)> = None;
    for (zone, time) in zones.iter().zip(times) {
        let (Some(zone), Some(time)) = (zone, time) else {
            out.push(None);
            continue;
        };
        if last.as_ref().is_none_or(|(name, _)| name != zone) {
            last = Some((zone.to_owned(), parse_zone(zone)?));
        }
        let Some((_, tz)) = &last else { continue };
        let time = naive(time)?;
        let moved = if to_instant { instant(tz, time) } else { tz.from_utc_datetime(&time).naive_local() };
        out.push(Some(moved.and_utc().timestamp_micros()));
    }
    let out = TimestampMicrosecondArray::from(out);
    Ok(Arc::new(if to_instant { out.with_timezone("UTC") } else { out }))
}

fn parse_zone(name: &str) -> Result<Tz> {
    let upper = name.to_ascii_uppercase();
    let zone = if matches!(upper.as_str(), "Z" | "GMT") { "UTC" } else { name };
    let parsed = zone.parse::<Tz>().ok().or_else(|| zone_name(zone)?.parse().ok());
    parsed.ok_or_else(|| DataFusionError::Execution(format!("time zone \"{name}\" not recognized")))
}

/// When a local time is: of two, the one in standard time; in a gap, as if the clock had not been moved.
fn instant(zone: &Tz, local: NaiveDateTime) -> NaiveDateTime {
    match zone.from_local_datetime(&local) {
        LocalResult::Single(time) | LocalResult::Ambiguous(_, time) => time.naive_utc(),
        LocalResult::None => {
            let before = zone.offset_from_utc_datetime(&(local - Duration::hours(24)));
            local - Duration::seconds(i64::from(before.fix().local_minus_utc()))
        }
    }
}

fn naive(micros: i64) -> Result<NaiveDateTime> {
    DateTime::from_timestamp_micros(micros)
        .map(|t| t.naive_utc())
        .ok_or_else(|| DataFusionError::Execution("timestamp out of range".into()))
}

/// The time from the second to the first in whole years, months and days, and the rest.
///
/// Source: PostgreSQL, "Date/Time Functions and Operators", age; timestamp_age in timestamp.c.
fn age(args: &[ArrayRef]) -> ArrayRef {
    let times = |at: usize| args[at].as_primitive::<TimestampMicrosecondType>();
    let ages = times(0).iter().zip(times(1)).map(|(later, earlier)| age_of(later?, earlier?));
    Arc::new(ages.collect::<PrimitiveArray<IntervalMonthDayNanoType>>())
}

fn age_of(later: i64, earlier: i64) -> Option<IntervalMonthDayNano> {
    let sign = if later < earlier { -1 } else { 1 };
    let (first, last) = (naive(later.min(earlier)).ok()?, naive(later.max(earlier)).ok()?);
    let nanos = |t: NaiveDateTime| t.time().signed_duration_since(NaiveTime::MIN).num_nanoseconds();
    let mut rest = nanos(last)? - nanos(first)?;
    let mut days = i64::from(last.day()) - i64::from(first.day());
    let count = |t: NaiveDateTime| i64::from(t.year()) * 12 + i64::from(t.month0());
    let mut months = count(last) - count(first);
    if rest < 0 {
        rest += 86_400_000_000_000;
        days -= 1;
    }
    if days < 0 {
        // Those of the earlier one's month.
        days += i64::from(first.num_days_in_month());
        months -= 1;
    }
    let small = |n: i64| i32::try_from(sign * n).ok();
    Some(IntervalMonthDayNano::new(small(months)?, small(days)?, sign * rest))
}
