//! Java's patterns for dates and times, as ksqlDB's functions take them: `yyyy-MM-dd'T'HH:mm:ss.SSSX`.
//!
//! Source: Java, `DateTimeFormatter`, "Patterns for Formatting and Parsing". What a text does not say is that
//! of 1970-01-01T00:00, as ksqlDB has it.

use std::fmt::Write;

use chrono::{
    DateTime, Datelike, FixedOffset, NaiveDate, NaiveDateTime, NaiveTime, Offset, TimeZone, Timelike,
};
use chrono_tz::{OffsetName, Tz};

use super::template::MONTHS;

/// A pattern, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pattern(Vec<Piece>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    /// A letter, and how often it stands.
    Field(char, usize),
    Optional(Vec<Piece>),
}

/// A time and the zone it is told in.
pub(super) struct Moment {
    pub(super) local: NaiveDateTime,
    pub(super) zone: Tz,
}

/// What a text said.
#[derive(Debug, Clone, Copy, Default)]
struct Said {
    year: Option<i32>,
    month: Option<u32>,
    day: Option<u32>,
    day_of_year: Option<u32>,
    hour: Option<u32>,
    /// Of twelve, with the half of the day.
    half_hour: Option<u32>,
    afternoon: Option<bool>,
    minute: Option<u32>,
    second: Option<u32>,
    nanos: Option<u32>,
    zone: Option<Zone>,
}

#[derive(Debug, Clone, Copy)]
enum Zone {
    Offset(FixedOffset),
    Named(Tz),
}

const WEEKDAYS: [&str; 7] = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];
/// Abbreviations that mean one zone to Java.
const ABBREVIATIONS: [(&str, Tz); 10] = [
    ("PST", Tz::America__Los_Angeles),
    ("PDT", Tz::America__Los_Angeles),
    ("MST", Tz::America__Denver),
    ("MDT", Tz::America__Denver),
    ("CST", Tz::America__Chicago),
    ("CDT", Tz::America__Chicago),
    ("EST", Tz::America__New_York),
    ("EDT", Tz::America__New_York),
    ("CET", Tz::Europe__Paris),
    ("BST", Tz::Europe__London),
];

impl Pattern {
    /// # Errors
    /// What is wrong with the pattern.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut chars = text.chars().peekable();
        let pieces = pieces(&mut chars, false)?;
        Ok(Self(pieces))
    }

    /// The text of a moment.
    pub(super) fn format(&self, moment: &Moment) -> String {
        let mut out = String::new();
        write_pieces(&self.0, moment, &mut out);
        out
    }

    /// The moment that a text says in UTC, where the text names no zone told in `zone`.
    pub(super) fn read(&self, text: &str, zone: Tz) -> Option<NaiveDateTime> {
        let mut said = Said::default();
        let rest = read_pieces(&self.0, text, &mut said)?;
        if !rest.is_empty() {
            return None;
        }
        let local = said.local()?;
        Some(match said.zone.unwrap_or(Zone::Named(zone)) {
            Zone::Offset(offset) => offset.from_local_datetime(&local).earliest()?.naive_utc(),
            Zone::Named(zone) => in_utc(local, zone)?,
        })
    }
}

/// A local time of a zone, in UTC. One that the clocks jump over is told by the offset before.
pub(super) fn in_utc(local: NaiveDateTime, zone: Tz) -> Option<NaiveDateTime> {
    if let Some(time) = zone.from_local_datetime(&local).earliest() {
        return Some(time.naive_utc());
    }
    let before = zone.from_local_datetime(&(local - chrono::Duration::hours(3))).earliest()?;
    Some(local - chrono::Duration::seconds(i64::from(before.offset().fix().local_minus_utc())))
}

/// A time in UTC, as a zone tells it.
pub(super) fn told_in(utc: NaiveDateTime, zone: Tz) -> Moment {
    Moment { local: zone.from_utc_datetime(&utc).naive_local(), zone }
}

/// A zone by its name or its offset.
pub(super) fn zone(name: &str) -> Option<Tz> {
    match name {
        "Z" => Some(Tz::UTC),
        _ => name.parse().ok(),
    }
}

fn pieces(chars: &mut std::iter::Peekable<std::str::Chars<'_>>, inner: bool) -> Result<Vec<Piece>, String> {
    let mut pieces = Vec::new();
    while let Some(c) = chars.next() {
        match c {
            '\'' => pieces.push(Piece::Text(quoted(chars)?)),
            '[' => pieces.push(Piece::Optional(pieces_inside(chars, inner)?)),
            ']' if inner => return Ok(pieces),
            c if c.is_ascii_alphabetic() => {
                let mut count = 1;
                while chars.next_if_eq(&c).is_some() {
                    count += 1;
                }
                if !"yuMLdDEaHhKkmsSnQzVXxZOG".contains(c) {
                    return Err(format!("unknown pattern letter: {c}"));
                }
                pieces.push(Piece::Field(c, count));
            }
            c => pieces.push(Piece::Text(c.to_string())),
        }
    }
    if inner { Err("an optional section without its end".into()) } else { Ok(pieces) }
}

fn pieces_inside(
    chars: &mut std::iter::Peekable<std::str::Chars<'_>>,
    inner: bool,
) -> Result<Vec<Piece>, String> {
    if inner {
        return Err("an optional section in another one".into());
    }
    pieces(chars, true)
}

/// What stands between quotes; two of them are one.
fn quoted(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Result<String, String> {
    let mut text = String::new();
    while let Some(c) = chars.next() {
        match c {
            '\'' if chars.next_if_eq(&'\'').is_some() => text.push('\''),
            '\'' => return Ok(if text.is_empty() { "'".to_owned() } else { text }),
            c => text.push(c),
        }
    }
    Err("a quote without its end".into())
}

fn write_pieces(pieces: &[Piece], moment: &Moment, out: &mut String) {
    for piece in pieces {
        match piece {
            Piece::Text(text) => out.push_str(text),
            Piece::Field(letter, count) => write_field(*letter, *count, moment, out),
            Piece::Optional(inner) => write_pieces(inner, moment, out),
        }
    }
}

fn write_field(letter: char, count: usize, moment: &Moment, out: &mut String) {
    let local = &moment.local;
    // Writing to memory does not fail.
    let mut number = |value: i64| {
        let _ = write!(out, "{value:0count$}");
    };
    match letter {
        'y' | 'u' if count == 2 => number(i64::from(local.year().rem_euclid(100))),
        'y' | 'u' => number(i64::from(local.year())),
        'M' | 'L' if count < 3 => number(i64::from(local.month())),
        'd' => number(i64::from(local.day())),
        'D' => number(i64::from(local.ordinal())),
        'H' => number(i64::from(local.hour())),
        'k' => number(i64::from(if local.hour() == 0 { 24 } else { local.hour() })),
        'h' => number(i64::from(local.hour12().1)),
        'K' => number(i64::from(local.hour() % 12)),
        'm' => number(i64::from(local.minute())),
        's' => number(i64::from(local.second())),
        'n' => number(i64::from(local.nanosecond())),
        'Q' => number(i64::from(local.month0() / 3 + 1)),
        'S' => out.push_str(&format!("{:09}", local.nanosecond())[..count.min(9)]),
        'M' | 'L' => out.push_str(named(&MONTHS, local.month0(), count)),
        'E' => out.push_str(named(&WEEKDAYS, local.weekday().num_days_from_monday(), count)),
        'a' => out.push_str(if local.hour() < 12 { "AM" } else { "PM" }),
        'G' => out.push_str(if local.year() > 0 { "AD" } else { "BC" }),
        _ => write_zone(letter, count, moment, out),
    }
}

fn named(names: &[&'static str], index: u32, count: usize) -> &'static str {
    let name = names.get(index as usize).copied().unwrap_or_default();
    if count > 3 { name } else { name.get(..3).unwrap_or(name) }
}

fn write_zone(letter: char, count: usize, moment: &Moment, out: &mut String) {
    let Some(time) = moment.zone.from_local_datetime(&moment.local).earliest() else { return };
    let offset = time.offset().fix().local_minus_utc();
    match letter {
        'V' => out.push_str(moment.zone.name()),
        'z' => out.push_str(time.offset().abbreviation().unwrap_or(moment.zone.name())),
        'X' if offset == 0 => out.push('Z'),
        'O' if offset == 0 => out.push_str("GMT"),
        _ => {
            let sign = if offset < 0 { '-' } else { '+' };
            let (hours, minutes) = (offset.abs() / 3600, offset.abs() / 60 % 60);
            let _ = match (letter, count) {
                ('X' | 'x', 1) if minutes == 0 => write!(out, "{sign}{hours:02}"),
                ('X' | 'x', 3) => write!(out, "{sign}{hours:02}:{minutes:02}"),
                ('O', _) if minutes == 0 => write!(out, "GMT{sign}{hours}"),
                ('O', _) => write!(out, "GMT{sign}{hours}:{minutes:02}"),
                _ => write!(out, "{sign}{hours:02}{minutes:02}"),
            };
        }
    }
}

fn read_pieces<'a>(pieces: &[Piece], text: &'a str, said: &mut Said) -> Option<&'a str> {
    let mut rest = text;
    for (index, piece) in pieces.iter().enumerate() {
        rest = match piece {
            Piece::Text(text) => rest.strip_prefix(text.as_str())?,
            Piece::Field(letter, count) => {
                let adjacent =
                    matches!(pieces.get(index + 1), Some(Piece::Field(next, _)) if is_number(*next));
                read_field(*letter, *count, adjacent, rest, said)?
            }
            Piece::Optional(inner) => {
                let mut also = *said;
                match read_pieces(inner, rest, &mut also) {
                    Some(after) => {
                        *said = also;
                        after
                    }
                    None => rest,
                }
            }
        };
    }
    Some(rest)
}

fn is_number(letter: char) -> bool {
    "yuMdDHhKkmsSn".contains(letter)
}

fn read_field<'a>(
    letter: char,
    count: usize,
    adjacent: bool,
    text: &'a str,
    said: &mut Said,
) -> Option<&'a str> {
    match letter {
        'M' | 'L' if count >= 3 => {
            let (index, rest) = name_at(&MONTHS, text, count)?;
            said.month = Some(index + 1);
            return Some(rest);
        }
        'E' => return Some(name_at(&WEEKDAYS, text, count)?.1),
        'a' => {
            let half = text.get(..2)?;
            said.afternoon = match half.to_ascii_uppercase().as_str() {
                "AM" => Some(false),
                "PM" => Some(true),
                _ => return None,
            };
            return text.get(2..);
        }
        'z' | 'V' | 'X' | 'x' | 'Z' | 'O' => {
            let (zone, rest) = read_zone(text)?;
            said.zone = Some(zone);
            return Some(rest);
        }
        'G' => return text.strip_prefix("AD"),
        _ => {}
    }
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let wanted = match (letter, count) {
        ('S', n) | (_, n @ 2) => n,
        ('y' | 'u', n @ 3..) if adjacent => n,
        ('y' | 'u', n @ 3..) => digits.max(n),
        (_, 1) => digits.clamp(1, 9),
        (_, n) => n,
    };
    if digits < wanted {
        return None;
    }
    let (number, rest) = text.split_at(wanted);
    let value: u32 = number.parse().ok()?;
    match letter {
        'y' | 'u' if count == 2 => said.year = Some(2000 + i32::try_from(value).ok()?),
        'y' | 'u' => said.year = Some(i32::try_from(value).ok()?),
        'M' | 'L' => said.month = Some(value),
        'd' => said.day = Some(value),
        'D' => said.day_of_year = Some(value),
        'H' => said.hour = Some(value),
        'k' => said.hour = Some(value % 24),
        'h' => said.half_hour = Some(value % 12),
        'K' => said.half_hour = Some(value),
        'm' => said.minute = Some(value),
        's' => said.second = Some(value),
        'S' => said.nanos = format!("{number:0<9}").get(..9)?.parse().ok(),
        'n' => said.nanos = Some(value),
        _ => return None,
    }
    Some(rest)
}

fn name_at<'a>(names: &[&'static str], text: &'a str, count: usize) -> Option<(u32, &'a str)> {
    (0u32..).zip(names).find_map(|(index, _)| {
        let name = named(names, index, count);
        let head = text.get(..name.len())?;
        head.eq_ignore_ascii_case(name).then(|| (index, &text[name.len()..]))
    })
}

fn read_zone(text: &str) -> Option<(Zone, &str)> {
    if let Some(rest) = text.strip_prefix(['Z', 'z']) {
        return Some((Zone::Named(Tz::UTC), rest));
    }
    if text.starts_with(['+', '-']) {
        let end = text[1..].find(|c: char| !c.is_ascii_digit() && c != ':').map_or(text.len(), |at| at + 1);
        let digits: String = text[1..end].chars().filter(char::is_ascii_digit).collect();
        let hours: i32 = digits.get(..2)?.parse().ok()?;
        let minutes: i32 = digits.get(2..4).map_or(Some(0), |m| m.parse().ok())?;
        let seconds = (hours * 60 + minutes) * 60;
        let offset = FixedOffset::east_opt(if text.starts_with('-') { -seconds } else { seconds })?;
        return Some((Zone::Offset(offset), &text[end..]));
    }
    let end =
        text.find(|c: char| !c.is_ascii_alphanumeric() && !matches!(c, '/' | '_')).unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    let zone = ABBREVIATIONS.iter().find(|(short, _)| *short == name).map(|(_, zone)| *zone);
    Some((Zone::Named(zone.or_else(|| self::zone(name))?), rest))
}

impl Said {
    fn local(&self) -> Option<NaiveDateTime> {
        let year = self.year.unwrap_or(1970);
        let date = match self.day_of_year {
            Some(day) => NaiveDate::from_yo_opt(year, day)?,
            None => NaiveDate::from_ymd_opt(year, self.month.unwrap_or(1), self.day.unwrap_or(1))?,
        };
        let half = |hour| hour + if self.afternoon == Some(true) { 12 } else { 0 };
        let hour = self.hour.or(self.half_hour.map(half)).unwrap_or(0);
        let (minute, second) = (self.minute.unwrap_or(0), self.second.unwrap_or(0));
        let time = NaiveTime::from_hms_nano_opt(hour, minute, second, self.nanos.unwrap_or(0))?;
        Some(date.and_time(time))
    }
}

/// Microseconds since 1970 as a time.
pub(super) fn from_micros(micros: i64) -> Option<NaiveDateTime> {
    DateTime::from_timestamp_micros(micros).map(|time| time.naive_utc())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_and_moments_go_both_ways() {
        let time =
            NaiveDate::from_ymd_opt(2018, 5, 11).and_then(|d| d.and_hms_milli_opt(16, 58, 33, 45)).unwrap();
        for (pattern, text) in [
            ("yyyy-MM-dd'T'HH:mm:ss.SSSX", "2018-05-11T16:58:33.045Z"),
            ("yyyyMMddHHmmssSSS", "20180511165833045"),
            ("EEE, d MMM yyyy hh:mm:ss.SSS a", "Fri, 11 May 2018 04:58:33.045 PM"),
            ("yyyy-MM-dd HH:mm:ss.SSS zzz", "2018-05-11 16:58:33.045 UTC"),
            ("yyyy-MM-dd HH:mm:ss[.SSS]['o''clock']", "2018-05-11 16:58:33.045o'clock"),
        ] {
            let read = Pattern::parse(pattern).unwrap();
            assert_eq!(read.format(&told_in(time, Tz::UTC)), text, "{pattern}");
            assert_eq!(read.read(text, Tz::UTC), Some(time), "{pattern}");
        }
    }

    #[test]
    fn zones_shift() {
        let pattern = Pattern::parse("yyyy-MM-dd HH:mm zzz").unwrap();
        let noon = NaiveDate::from_ymd_opt(2018, 5, 11).and_then(|d| d.and_hms_opt(12, 0, 0)).unwrap();
        assert_eq!(pattern.format(&told_in(noon, Tz::America__Los_Angeles)), "2018-05-11 05:00 PDT");
        assert_eq!(pattern.read("2018-05-11 05:00 PST", Tz::UTC), Some(noon));
        let offset = Pattern::parse("yyyy-MM-dd HH:mmX").unwrap();
        assert_eq!(offset.read("2018-05-11 14:00+02", Tz::UTC), Some(noon));
        assert_eq!(offset.read("2018-13-11 14:00+02", Tz::UTC), None);
        assert!(Pattern::parse("yyyy 'open").is_err() && Pattern::parse("yyyy J").is_err());
    }
}
