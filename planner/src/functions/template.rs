//! PostgreSQL's templates for dates and times: `YYYY-MM-DD HH24:MI:SS`.
//!
//! Source: PostgreSQL, "Data Type Formatting Functions".

use std::fmt::Write;

use chrono::{Datelike, NaiveDate, NaiveDateTime, NaiveTime, Timelike};

/// A piece of a template.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Field(Field),
    Text(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    /// Number of digits.
    Year(usize),
    IsoYear(usize),
    MonthNumber,
    /// Full or three letters, and the case of its pattern.
    Month(bool, Case),
    Weekday(bool, Case),
    DayOfMonth,
    DayOfYear,
    DayOfWeek,
    IsoDayOfWeek,
    WeekOfYear,
    IsoWeek,
    WeekOfMonth,
    Quarter,
    Century,
    Hour24,
    Hour12,
    Minute,
    Second,
    Milliseconds,
    Microseconds,
    SecondsOfDay,
    /// am or pm, with dots or without.
    Meridian {
        upper: bool,
        dots: bool,
    },
    Zone {
        upper: bool,
    },
    ZoneHours,
    ZoneMinutes,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Case {
    Upper,
    Title,
    Lower,
}

/// Patterns, longer ones before their beginnings; matched in any case.
const PATTERNS: [(&str, Field); 38] = {
    use Field::*;
    [
        ("HH24", Hour24),
        ("HH12", Hour12),
        ("HH", Hour12),
        ("MI", Minute),
        ("SSSSS", SecondsOfDay),
        ("SSSS", SecondsOfDay),
        ("SS", Second),
        ("MS", Milliseconds),
        ("US", Microseconds),
        ("A.M.", Meridian { upper: true, dots: true }),
        ("P.M.", Meridian { upper: true, dots: true }),
        ("AM", Meridian { upper: true, dots: false }),
        ("PM", Meridian { upper: true, dots: false }),
        ("YYYY", Year(4)),
        ("YYY", Year(3)),
        ("YY", Year(2)),
        ("Y", Year(1)),
        ("IYYY", IsoYear(4)),
        ("IYY", IsoYear(3)),
        ("IY", IsoYear(2)),
        ("IDDD", DayOfYear),
        ("ID", IsoDayOfWeek),
        ("IW", IsoWeek),
        ("MONTH", Month(true, Case::Upper)),
        ("MON", Month(false, Case::Upper)),
        ("MM", MonthNumber),
        ("DAY", Weekday(true, Case::Upper)),
        ("DDD", DayOfYear),
        ("DD", DayOfMonth),
        ("DY", Weekday(false, Case::Upper)),
        ("D", DayOfWeek),
        ("WW", WeekOfYear),
        ("W", WeekOfMonth),
        ("CC", Century),
        ("Q", Quarter),
        ("TZH", ZoneHours),
        ("TZM", ZoneMinutes),
        ("TZ", Zone { upper: true }),
    ]
};

/// Their English names.
pub(super) const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

/// A template, taken apart. `FM` and `TM` before a pattern leave its padding out.
#[derive(Debug, Clone)]
pub(super) struct Template(Vec<(Piece, bool)>);

impl Template {
    pub(super) fn parse(text: &str) -> Self {
        let mut pieces: Vec<(Piece, bool)> = Vec::new();
        let mut rest = text;
        let mut plain = false;
        while let Some(first) = rest.chars().next() {
            if let Some(quoted) = rest.strip_prefix('"') {
                let end = quoted.find('"').unwrap_or(quoted.len());
                literal(&mut pieces, &quoted[..end]);
                rest = quoted.get(end + 1..).unwrap_or("");
            } else if starts_with(rest, "FM") || starts_with(rest, "TM") {
                plain = true;
                rest = &rest[2..];
            } else if let Some((pattern, field)) = PATTERNS.iter().find(|(p, _)| starts_with(rest, p)) {
                pieces
                    .push((Piece::Field(cased(*field, &rest[..pattern.len()])), std::mem::take(&mut plain)));
                rest = &rest[pattern.len()..];
                for suffix in ["TH", "th"] {
                    rest = rest.strip_prefix(suffix).unwrap_or(rest);
                }
            } else {
                literal(&mut pieces, &rest[..first.len_utf8()]);
                rest = &rest[first.len_utf8()..];
            }
        }
        Self(pieces)
    }

    /// The time as the template says; times with a zone are in UTC.
    pub(super) fn format(&self, time: NaiveDateTime) -> String {
        let mut out = String::new();
        for (piece, plain) in &self.0 {
            match piece {
                Piece::Text(text) => out.push_str(text),
                Piece::Field(field) => format_field(*field, time, *plain, &mut out),
            }
        }
        out
    }

    /// An interval as the template says; None where that asks for what only a date has.
    ///
    /// Source: DCH_to_char in formatting.c, `is_interval`.
    pub(super) fn format_interval(&self, months: i32, days: i32, nanoseconds: i64) -> Option<String> {
        let mut out = String::new();
        for (piece, plain) in &self.0 {
            match piece {
                Piece::Text(text) => out.push_str(text),
                Piece::Field(field) => interval_field(*field, (months, days, nanoseconds), *plain, &mut out)?,
            }
        }
        Some(out)
    }

    /// The time a text says, with what it does not say at its beginning.
    pub(super) fn read(&self, text: &str) -> Option<NaiveDateTime> {
        let mut parts = Parts::default();
        let mut rest = text.trim_start();
        for (i, (piece, _)) in self.0.iter().enumerate() {
            match piece {
                Piece::Text(literal) => {
                    for _ in literal.chars() {
                        let skipped = rest.chars().next().filter(|c| !c.is_ascii_digit());
                        rest = &rest[skipped.map_or(0, char::len_utf8)..];
                    }
                }
                Piece::Field(field) => {
                    rest = rest.trim_start();
                    let next_is_field = matches!(self.0.get(i + 1), Some((Piece::Field(_), _)));
                    rest = parts.read(*field, rest, next_is_field)?;
                }
            }
        }
        parts.time()
    }
}

fn literal(pieces: &mut Vec<(Piece, bool)>, text: &str) {
    match pieces.last_mut() {
        Some((Piece::Text(before), _)) => before.push_str(text),
        _ => pieces.push((Piece::Text(text.to_owned()), false)),
    }
}

fn starts_with(text: &str, pattern: &str) -> bool {
    text.get(..pattern.len()).is_some_and(|start| start.eq_ignore_ascii_case(pattern))
}

/// The field with the case its pattern was written in.
fn cased(field: Field, written: &str) -> Field {
    let mut letters = written.chars();
    let first_upper = letters.next().is_some_and(char::is_uppercase);
    let second_upper = letters.find(|c| c.is_alphabetic()).is_some_and(char::is_uppercase);
    let case = match (first_upper, second_upper) {
        (true, true) => Case::Upper,
        (true, false) => Case::Title,
        _ => Case::Lower,
    };
    match field {
        Field::Month(full, _) => Field::Month(full, case),
        Field::Weekday(full, _) => Field::Weekday(full, case),
        Field::Meridian { dots, .. } => Field::Meridian { upper: first_upper, dots },
        Field::Zone { .. } => Field::Zone { upper: first_upper },
        other => other,
    }
}

fn format_field(field: Field, time: NaiveDateTime, plain: bool, out: &mut String) {
    let year_digits = |year: i32, digits: usize| {
        let shown = if digits < 4 {
            i64::from(year).rem_euclid(10i64.pow(u32::try_from(digits).unwrap_or(4)))
        } else {
            i64::from(year)
        };
        (shown, digits)
    };
    let hour12 = |hour: u32| if hour.is_multiple_of(12) { 12 } else { hour % 12 };
    let (number, width) = match field {
        Field::Year(digits) => year_digits(time.year(), digits),
        Field::IsoYear(digits) => year_digits(time.iso_week().year(), digits),
        Field::MonthNumber => (i64::from(time.month()), 2),
        Field::DayOfMonth => (i64::from(time.day()), 2),
        Field::DayOfYear => (i64::from(time.ordinal()), 3),
        Field::DayOfWeek => (i64::from(time.weekday().number_from_sunday()), 1),
        Field::IsoDayOfWeek => (i64::from(time.weekday().number_from_monday()), 1),
        Field::WeekOfYear => (i64::from((time.ordinal() - 1) / 7 + 1), 2),
        Field::IsoWeek => (i64::from(time.iso_week().week()), 2),
        Field::WeekOfMonth => (i64::from((time.day() - 1) / 7 + 1), 1),
        Field::Quarter => (i64::from((time.month() - 1) / 3 + 1), 1),
        Field::Century => (i64::from((time.year() - 1).div_euclid(100) + 1), 2),
        Field::Hour24 => (i64::from(time.hour()), 2),
        Field::Hour12 => (i64::from(hour12(time.hour())), 2),
        Field::Minute => (i64::from(time.minute()), 2),
        Field::Second => (i64::from(time.second()), 2),
        Field::Milliseconds => (i64::from(time.nanosecond() / 1_000_000 % 1000), 3),
        Field::Microseconds => (i64::from(time.nanosecond() / 1000 % 1_000_000), 6),
        Field::SecondsOfDay => (i64::from(time.num_seconds_from_midnight()), 1),
        Field::Month(full, case) => {
            let name = MONTHS[time.month0() as usize];
            return push_name(if full { name } else { &name[..3] }, full && !plain, case, out);
        }
        Field::Weekday(full, case) => {
            let name = time.format("%A").to_string();
            return push_name(if full { &name } else { &name[..3] }, full && !plain, case, out);
        }
        Field::Meridian { upper, dots } => {
            let text = match (time.hour() < 12, dots) {
                (true, false) => "AM",
                (false, false) => "PM",
                (true, true) => "A.M.",
                (false, true) => "P.M.",
            };
            out.push_str(&if upper { text.to_owned() } else { text.to_lowercase() });
            return;
        }
        Field::Zone { upper } => return out.push_str(if upper { "UTC" } else { "utc" }),
        Field::ZoneHours => return out.push_str("+00"),
        Field::ZoneMinutes => return out.push_str("00"),
    };
    let width = if plain { 1 } else { width };
    // Writing to a string cannot fail.
    let _ = write!(out, "{number:0width$}");
}

fn interval_field(
    field: Field,
    (months, days, nanoseconds): (i32, i32, i64),
    plain: bool,
    out: &mut String,
) -> Option<()> {
    let micros = nanoseconds / 1000;
    let (seconds, hours) = (micros / 1_000_000, micros / 3_600_000_000);
    let years = i64::from(months / 12);
    let (number, width) = match field {
        Field::Year(digits) | Field::IsoYear(digits) if digits < 4 => {
            (years % 10i64.pow(u32::try_from(digits).unwrap_or(4)), digits)
        }
        Field::Year(digits) | Field::IsoYear(digits) => (years, digits),
        Field::MonthNumber => (i64::from(months % 12), 2),
        Field::DayOfMonth => (i64::from(days), 2),
        Field::Hour24 => (hours, 2),
        Field::Hour12 => (if hours % 12 == 0 { 12 } else { hours % 12 }, 2),
        Field::Minute => (seconds / 60 % 60, 2),
        Field::Second => (seconds % 60, 2),
        Field::Milliseconds => (micros / 1000 % 1000, 3),
        Field::Microseconds => (micros % 1_000_000, 6),
        Field::SecondsOfDay => (seconds, 1),
        Field::Meridian { .. } => {
            let hour = if hours % 24 >= 12 { 12 } else { 0 };
            format_field(field, NaiveDate::default().and_hms_opt(hour, 0, 0)?, plain, out);
            return Some(());
        }
        _ => return None,
    };
    // The sign has a place of its own.
    let width = if plain { 1 } else { width + usize::from(number < 0) };
    let _ = write!(out, "{number:0width$}");
    Some(())
}

fn push_name(name: &str, padded: bool, case: Case, out: &mut String) {
    let name = match case {
        Case::Upper => name.to_uppercase(),
        Case::Title => name.to_owned(),
        Case::Lower => name.to_lowercase(),
    };
    // Full names are padded to the longest of them.
    let _ = if padded { write!(out, "{name:<9}") } else { write!(out, "{name}") };
}

/// What a text has said so far.
#[derive(Debug, Default)]
struct Parts {
    year: Option<i32>,
    month: Option<u32>,
    day: Option<u32>,
    day_of_year: Option<u32>,
    hour: u32,
    minute: u32,
    second: u32,
    nanos: u32,
    afternoon: Option<bool>,
}

impl Parts {
    fn read<'a>(&mut self, field: Field, text: &'a str, bounded: bool) -> Option<&'a str> {
        let digits = |most: usize| {
            let most = if bounded { most } else { most.max(9) };
            let length = text.bytes().take(most).take_while(u8::is_ascii_digit).count();
            (length > 0).then(|| text.split_at(length))
        };
        let number = |most: usize| {
            let (digits, rest) = digits(most)?;
            Some((digits.parse::<u32>().ok()?, digits.len(), rest))
        };
        match field {
            Field::Year(width) => {
                let (year, length, rest) = number(width)?;
                let century = if length <= 2 { if year < 70 { 2000 } else { 1900 } } else { 0 };
                self.year = i32::try_from(year + century).ok();
                Some(rest)
            }
            Field::MonthNumber => set(&mut self.month, number(2)?),
            Field::DayOfMonth => set(&mut self.day, number(2)?),
            Field::DayOfYear => set(&mut self.day_of_year, number(3)?),
            Field::Month(..) => {
                let at = MONTHS.iter().position(|m| starts_with(text, &m[..3]))?;
                self.month = u32::try_from(at + 1).ok();
                let full = starts_with(text, MONTHS[at]);
                Some(&text[if full { MONTHS[at].len() } else { 3 }..])
            }
            Field::Weekday(..) => Some(text.trim_start_matches(char::is_alphabetic)),
            Field::Hour24 | Field::Hour12 => {
                let (hour, _, rest) = number(2)?;
                self.hour = hour;
                Some(rest)
            }
            Field::Minute => {
                let (minute, _, rest) = number(2)?;
                self.minute = minute;
                Some(rest)
            }
            Field::Second => {
                let (second, _, rest) = number(2)?;
                self.second = second;
                Some(rest)
            }
            Field::Milliseconds | Field::Microseconds => {
                let width = if field == Field::Milliseconds { 3 } else { 6 };
                let (digits, rest) = digits(width)?;
                let fraction = format!("{digits:0<9}");
                self.nanos = fraction.get(..9)?.parse().ok()?;
                Some(rest)
            }
            Field::Meridian { dots, .. } => {
                let length = if dots { 4 } else { 2 };
                self.afternoon = Some(text.get(..length)?.to_ascii_uppercase().starts_with('P'));
                Some(&text[length..])
            }
            _ => None,
        }
    }

    fn time(&self) -> Option<NaiveDateTime> {
        let year = self.year.unwrap_or(1);
        let date = match self.day_of_year {
            Some(day) => NaiveDate::from_yo_opt(year, day)?,
            None => NaiveDate::from_ymd_opt(year, self.month.unwrap_or(1), self.day.unwrap_or(1))?,
        };
        let hour = match self.afternoon {
            Some(afternoon) => self.hour % 12 + if afternoon { 12 } else { 0 },
            None => self.hour,
        };
        Some(date.and_time(NaiveTime::from_hms_nano_opt(hour, self.minute, self.second, self.nanos)?))
    }
}

fn set<'a>(part: &mut Option<u32>, (value, _, rest): (u32, usize, &'a str)) -> Option<&'a str> {
    *part = Some(value);
    Some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_write_and_read() {
        let time = NaiveDate::from_ymd_opt(2006, 1, 2).unwrap().and_hms_micro_opt(15, 4, 5, 3_200).unwrap();
        for (template, text) in [
            ("YYYY-MM-DD HH24:MI:SS", "2006-01-02 15:04:05"),
            ("yyyy-mm-dd hh24:mi:ss.us", "2006-01-02 15:04:05.003200"),
            ("Mon DD, YYYY HH12:MI am", "Jan 02, 2006 03:04 pm"),
            ("FMMonth FMDD", "January 2"),
            ("\"week\" IW of IYYY, Q", "week 01 of 2006, 1"),
            ("Day|DY|ddd", "Monday   |MON|002"),
        ] {
            assert_eq!(Template::parse(template).format(time), text);
        }
        let read = |template: &str, text: &str| Template::parse(template).read(text).map(|t| t.to_string());
        assert_eq!(read("YYYY-MM-DD HH24:MI:SS", "2024-02-29 23:59:58").unwrap(), "2024-02-29 23:59:58");
        assert_eq!(read("YYYYMMDD", "20240131").unwrap(), "2024-01-31 00:00:00");
        assert_eq!(read("DD Mon YY HH12:MI PM", "05 Mar 99 12:30 AM").unwrap(), "1999-03-05 00:30:00");
        assert_eq!(read("YYYY-MM-DD", "2024-02-30"), None);
    }
}
