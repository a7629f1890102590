//! ksqlDB's functions on dates and times.
//!
//! Source: ksqlDB, "Scalar functions: Date and time".

use std::sync::Arc;

use chrono::{Datelike, Duration, Months, NaiveDate, NaiveDateTime};
use chrono_tz::Tz;
use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, Date32Array, Int32Array, Int64Array, StringArray, Time64MicrosecondArray,
    TimestampMicrosecondArray,
};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{
    DataType, Date32Type, Int32Type, Int64Type, Time64MicrosecondType, TimeUnit, TimestampMicrosecondType,
};
use datafusion::common::{DataFusionError, Result, exec_err};
use datafusion::logical_expr::{ScalarUDF, Signature, TypeSignature, Volatility};

use super::java_pattern::{Pattern, from_micros, in_utc, told_in, zone};
use super::scalar::{scalar_function, text_at};

const MICROS: DataType = DataType::Timestamp(TimeUnit::Microsecond, None);
const TIME: DataType = DataType::Time64(TimeUnit::Microsecond);
const DAY_MICROS: i64 = 86_400_000_000;

fn with_pattern(value: &DataType) -> Signature {
    Signature::exact(vec![value.clone(), DataType::Utf8], Volatility::Immutable)
}

/// With a zone or without.
fn with_zone(value: &DataType) -> Signature {
    let text = DataType::Utf8;
    let types = [vec![value.clone(), text.clone()], vec![value.clone(), text.clone(), text]];
    Signature::one_of(types.into_iter().map(TypeSignature::Exact).collect(), Volatility::Immutable)
}

fn unit_of(value: &DataType) -> Signature {
    Signature::exact(vec![DataType::Utf8, DataType::Int64, value.clone()], Volatility::Immutable)
}

/// All of them.
pub(super) fn functions() -> Vec<Arc<ScalarUDF>> {
    [formatting(), parsing(), shifting(), numbers()].concat()
}

fn formatting() -> Vec<Arc<ScalarUDF>> {
    use DataType::{Date32, Int32, Int64, Utf8};
    vec![
        scalar_function("format_date", with_pattern(&Date32), Utf8, |args, _| {
            let days = args[0].as_primitive::<Date32Type>();
            formatted(args, |row| at(days, row).and_then(midnight))
        }),
        scalar_function("datetostring", with_pattern(&Int32), Utf8, |args, _| {
            let days = args[0].as_primitive::<Int32Type>();
            formatted(args, |row| at(days, row).and_then(midnight))
        }),
        scalar_function("format_time", with_pattern(&TIME), Utf8, |args, _| {
            let times = args[0].as_primitive::<Time64MicrosecondType>();
            formatted(args, |row| at(times, row).and_then(from_micros))
        }),
        scalar_function("format_timestamp", with_zone(&MICROS), Utf8, |args, _| {
            let times = args[0].as_primitive::<TimestampMicrosecondType>();
            formatted(args, |row| at(times, row).and_then(from_micros))
        }),
        scalar_function("timestamptostring", with_zone(&Int64), Utf8, |args, _| {
            let times = args[0].as_primitive::<Int64Type>();
            formatted(args, |row| at(times, row)?.checked_mul(1000).and_then(from_micros))
        }),
    ]
}

fn parsing() -> Vec<Arc<ScalarUDF>> {
    use DataType::{Date32, Int32, Int64, Utf8};
    vec![
        scalar_function("parse_date", with_pattern(&Utf8), Date32, |args, _| {
            Ok(Arc::new(parsed(args)?.into_iter().map(|time| time.and_then(day)).collect::<Date32Array>()))
        }),
        scalar_function("stringtodate", with_pattern(&Utf8), Int32, |args, _| {
            Ok(Arc::new(parsed(args)?.into_iter().map(|time| time.and_then(day)).collect::<Int32Array>()))
        }),
        scalar_function("parse_time", with_pattern(&Utf8), TIME, |args, _| {
            let of_day = |time: NaiveDateTime| time.and_utc().timestamp_micros().rem_euclid(DAY_MICROS);
            let times = parsed(args)?.into_iter().map(|time| time.map(of_day));
            Ok(Arc::new(times.collect::<Time64MicrosecondArray>()))
        }),
        scalar_function("parse_timestamp", with_zone(&Utf8), MICROS, |args, _| {
            let times = parsed(args)?.into_iter().map(|time| Some(time?.and_utc().timestamp_micros()));
            Ok(Arc::new(times.collect::<TimestampMicrosecondArray>()))
        }),
        scalar_function("stringtotimestamp", with_zone(&Utf8), Int64, |args, _| {
            let times = parsed(args)?.into_iter().map(|time| Some(time?.and_utc().timestamp_millis()));
            Ok(Arc::new(times.collect::<Int64Array>()))
        }),
    ]
}

fn shifting() -> Vec<Arc<ScalarUDF>> {
    let mut functions = Vec::new();
    for (date, time, timestamp, sign) in
        [("dateadd", "timeadd", "timestampadd", 1), ("datesub", "timesub", "timestampsub", -1)]
    {
        functions.push(scalar_function(
            date,
            unit_of(&DataType::Date32),
            DataType::Date32,
            move |args, _| {
                let days = args[2].as_primitive::<Date32Type>();
                let shifted = shifted(args, sign, |row| at(days, row).and_then(midnight))?;
                Ok(Arc::new(shifted.into_iter().map(|time| time.and_then(day)).collect::<Date32Array>()))
            },
        ));
        functions.push(scalar_function(time, unit_of(&TIME), TIME, move |args, _| {
            let times = args[2].as_primitive::<Time64MicrosecondType>();
            let shifted = shifted(args, sign, |row| at(times, row).and_then(from_micros))?;
            let of_day = |time: NaiveDateTime| time.and_utc().timestamp_micros().rem_euclid(DAY_MICROS);
            Ok(Arc::new(shifted.into_iter().map(|t| t.map(of_day)).collect::<Time64MicrosecondArray>()))
        }));
        functions.push(scalar_function(timestamp, unit_of(&MICROS), MICROS, move |args, _| {
            let times = args[2].as_primitive::<TimestampMicrosecondType>();
            let shifted = shifted(args, sign, |row| at(times, row).and_then(from_micros))?;
            let micros = shifted.into_iter().map(|time| Some(time?.and_utc().timestamp_micros()));
            Ok(Arc::new(micros.collect::<TimestampMicrosecondArray>()))
        }));
    }
    let zones = Signature::exact(vec![MICROS, DataType::Utf8, DataType::Utf8], Volatility::Immutable);
    functions.push(scalar_function("convert_tz", zones, MICROS, |args, _| converted(args)));
    functions
}

/// Dates and times as numbers, and back.
fn numbers() -> Vec<Arc<ScalarUDF>> {
    use DataType::{Date32, Int32, Int64};
    let exact = |value: DataType| Signature::exact(vec![value], Volatility::Immutable);
    vec![
        scalar_function("unix_date", exact(Date32), Int32, |args, _| Ok(cast(&args[0], &Int32)?)),
        scalar_function("from_days", exact(Int32), Date32, |args, _| Ok(cast(&args[0], &Date32)?)),
        scalar_function("unix_timestamp", exact(MICROS), Int64, |args, _| {
            let millis = cast(&args[0], &DataType::Timestamp(TimeUnit::Millisecond, None))?;
            Ok(cast(&millis, &Int64)?)
        }),
    ]
}

fn at<T: datafusion::arrow::datatypes::ArrowPrimitiveType>(
    values: &datafusion::arrow::array::PrimitiveArray<T>,
    row: usize,
) -> Option<T::Native> {
    values.is_valid(row).then(|| values.value(row))
}

fn midnight(days: i32) -> Option<NaiveDateTime> {
    from_micros(i64::from(days).checked_mul(DAY_MICROS)?)
}

fn day(time: NaiveDateTime) -> Option<i32> {
    i32::try_from(time.and_utc().timestamp_micros().div_euclid(DAY_MICROS)).ok()
}

/// The pattern of a row, read once while it stays the same.
struct Patterns<'a> {
    texts: &'a ArrayRef,
    last: Option<(&'a str, Pattern)>,
}

impl<'a> Patterns<'a> {
    fn at(&mut self, row: usize) -> Result<Option<&Pattern>> {
        let Some(wanted) = text_at(self.texts, row) else { return Ok(None) };
        if self.last.as_ref().is_none_or(|(last, _)| *last != wanted) {
            let pattern = Pattern::parse(wanted).map_err(|reason| {
                DataFusionError::Execution(format!("invalid date and time pattern \"{wanted}\": {reason}"))
            })?;
            self.last = Some((wanted, pattern));
        }
        Ok(self.last.as_ref().map(|(_, pattern)| pattern))
    }
}

/// The zone of the third argument; UTC without one, None where it is NULL.
fn zone_at(args: &[ArrayRef], row: usize) -> Result<Option<Tz>> {
    match args.get(2) {
        None => Ok(Some(Tz::UTC)),
        Some(names) => text_at(names, row).map(known_zone).transpose(),
    }
}

fn known_zone(name: &str) -> Result<Tz> {
    zone(name).ok_or_else(|| DataFusionError::Execution(format!("time zone \"{name}\" is not recognized")))
}

fn formatted(args: &[ArrayRef], time: impl Fn(usize) -> Option<NaiveDateTime>) -> Result<ArrayRef> {
    let mut patterns = Patterns { texts: &args[1], last: None };
    let texts = (0..args[0].len()).map(|row| {
        let (Some(pattern), Some(zone), Some(time)) = (patterns.at(row)?, zone_at(args, row)?, time(row))
        else {
            return Ok(None);
        };
        Ok(Some(pattern.format(&told_in(time, zone))))
    });
    Ok(Arc::new(texts.collect::<Result<StringArray>>()?))
}

fn parsed(args: &[ArrayRef]) -> Result<Vec<Option<NaiveDateTime>>> {
    let mut patterns = Patterns { texts: &args[1], last: None };
    (0..args[0].len())
        .map(|row| {
            let text = text_at(&args[0], row);
            let (Some(pattern), Some(zone), Some(text)) = (patterns.at(row)?, zone_at(args, row)?, text)
            else {
                return Ok(None);
            };
            match pattern.read(text, zone) {
                Some(time) => Ok(Some(time)),
                None => exec_err!("\"{text}\" does not fit the date and time pattern"),
            }
        })
        .collect()
}

/// A pattern of Java's that reads record times.
#[derive(Debug, Clone)]
pub struct TimePattern(Pattern);

impl TimePattern {
    /// # Errors
    /// What is wrong with the pattern.
    pub fn parse(pattern: &str) -> std::result::Result<Self, String> {
        Pattern::parse(pattern).map(Self)
    }

    /// The time that a text says, in ms since 1970; None for one that does not fit.
    pub fn read_ms(&self, text: &str) -> Option<i64> {
        self.0.read(text, Tz::UTC).map(|time| time.and_utc().timestamp_millis())
    }
}

fn shifted(
    args: &[ArrayRef],
    sign: i64,
    time: impl Fn(usize) -> Option<NaiveDateTime>,
) -> Result<Vec<Option<NaiveDateTime>>> {
    let counts = args[1].as_primitive::<Int64Type>();
    (0..counts.len())
        .map(|row| {
            let (Some(unit), Some(count), Some(time)) = (text_at(&args[0], row), at(counts, row), time(row))
            else {
                return Ok(None);
            };
            let shifted = count.checked_mul(sign).and_then(|count| later(time, unit, count));
            shifted.map(Some).ok_or_else(|| DataFusionError::Execution("timestamp out of range".into()))
        })
        .collect()
}

/// Units that ksqlDB shifts by, in microseconds; 0 for those that count months.
pub(crate) const UNITS: [(&str, i64); 9] = [
    ("YEARS", 0),
    ("MONTHS", 0),
    ("WEEKS", 7 * DAY_MICROS),
    ("DAYS", DAY_MICROS),
    ("HOURS", 3_600_000_000),
    ("MINUTES", 60_000_000),
    ("SECONDS", 1_000_000),
    ("MILLISECONDS", 1_000),
    ("MICROSECONDS", 1),
];

fn later(time: NaiveDateTime, unit: &str, count: i64) -> Option<NaiveDateTime> {
    let (unit, micros) = UNITS.iter().find(|(name, _)| *name == unit)?;
    if *micros > 0 {
        return time.checked_add_signed(Duration::microseconds(count.checked_mul(*micros)?));
    }
    let months = count.checked_mul(if *unit == "YEARS" { 12 } else { 1 })?;
    let distance = Months::new(u32::try_from(months.unsigned_abs()).ok()?);
    let shifted: Option<NaiveDate> = match months < 0 {
        true => time.date().checked_sub_months(distance),
        false => time.date().checked_add_months(distance),
    };
    shifted.filter(|date| date.year().abs() < 200_000).map(|date| date.and_time(time.time()))
}

/// A time told in one zone, as another tells it.
fn converted(args: &[ArrayRef]) -> Result<ArrayRef> {
    let times = args[0].as_primitive::<TimestampMicrosecondType>();
    let converted = (0..times.len()).map(|row| {
        let (Some(time), Some(from), Some(to)) =
            (at(times, row), text_at(&args[1], row), text_at(&args[2], row))
        else {
            return Ok(None);
        };
        let (from, to) = (known_zone(from)?, known_zone(to)?);
        let utc = from_micros(time).and_then(|local| in_utc(local, from));
        Ok(utc.map(|utc| told_in(utc, to).local.and_utc().timestamp_micros()))
    });
    Ok(Arc::new(converted.collect::<Result<TimestampMicrosecondArray>>()?))
}
