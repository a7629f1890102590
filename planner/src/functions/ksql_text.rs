//! ksqlDB's functions on text: choices, masks, regular expressions, addresses.
//!
//! Source: ksqlDB, "Scalar functions: Strings, Regular Expressions, URLs, Geography".

use std::sync::Arc;

use datafusion::arrow::array::builder::{ListBuilder, StringBuilder};
use datafusion::arrow::array::{Array, ArrayRef, AsArray, Float64Array, Int32Array, StringArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Float64Type, Int64Type};
use datafusion::common::{Result, exec_err};
use datafusion::logical_expr::{ScalarUDF, Signature, TypeSignature, Volatility};

use super::regexp::regex;
use super::scalar::{scalar_function, text_at, text_map_builder};

/// The earth's radius in kilometres and in miles, as ksqlDB rounds them.
const EARTH_KM: f64 = 6371.0;
const EARTH_MILES: f64 = 3959.0;
/// What stands for upper and lower case letters, digits and the rest where nothing else is given.
const MASKS: [char; 4] = ['X', 'x', 'n', '-'];

/// Flags with which a pattern means what it means in Java: a dot is no end of a line.
const AS_JAVA: &str = "p";

/// All of them.
pub(super) fn functions() -> Vec<Arc<ScalarUDF>> {
    [choices(), patterns(), addresses(), masks(), vec![distance()]].concat()
}

fn one_of(types: Vec<Vec<DataType>>) -> Signature {
    Signature::one_of(types.into_iter().map(TypeSignature::Exact).collect(), Volatility::Immutable)
}

fn number_at(array: &ArrayRef, row: usize) -> Option<i64> {
    let numbers = array.as_primitive::<Int64Type>();
    numbers.is_valid(row).then(|| numbers.value(row))
}

fn choices() -> Vec<Arc<ScalarUDF>> {
    use DataType::{Int32, Int64, Utf8};
    let variadic = || Signature::variadic_any(Volatility::Immutable);
    let instr = one_of(vec![vec![Utf8, Utf8, Int64], vec![Utf8, Utf8, Int64, Int64]]);
    vec![
        scalar_function("elt", variadic(), Utf8, |args, rows| {
            let Some((index, texts)) = args.split_first() else { return exec_err!("elt needs a number") };
            let index = cast(index, &Int64)?;
            let texts = texts.iter().map(|t| cast(t, &Utf8)).collect::<std::result::Result<Vec<_>, _>>()?;
            let chosen = (0..rows).map(|row| {
                let at = usize::try_from(number_at(&index, row)?).ok()?.checked_sub(1)?;
                text_at(texts.get(at)?, row)
            });
            Ok(Arc::new(chosen.collect::<StringArray>()))
        }),
        scalar_function("field", variadic(), Int32, |args, rows| {
            let texts = args.iter().map(|t| cast(t, &Utf8)).collect::<std::result::Result<Vec<_>, _>>()?;
            let place = |row: usize| {
                let wanted = text_at(texts.first()?, row)?;
                let at = texts[1..].iter().position(|text| text_at(text, row) == Some(wanted))?;
                i32::try_from(at + 1).ok()
            };
            Ok(Arc::new((0..rows).map(|row| Some(place(row).unwrap_or(0))).collect::<Int32Array>()))
        }),
        scalar_function("instr_from", instr, Int32, |args, rows| {
            let found = (0..rows).map(|row| {
                let (text, part) = (text_at(&args[0], row)?, text_at(&args[1], row)?);
                let occurrence = args.get(3).map_or(Some(1), |n| number_at(n, row))?;
                Some(place_of(text, part, number_at(&args[2], row)?, occurrence).unwrap_or(0))
            });
            Ok(Arc::new(found.collect::<Int32Array>()))
        }),
        scalar_function(
            "split_to_map",
            Signature::exact(vec![Utf8; 3], Volatility::Immutable),
            sql::text_map(Utf8),
            |args, rows| {
                let mut out = text_map_builder();
                for row in 0..rows {
                    let texts = [0, 1, 2].map(|i| text_at(&args[i], row));
                    let [Some(text), Some(entries), Some(pairs)] = texts else {
                        out.append(false)?;
                        continue;
                    };
                    let mut all: Vec<(&str, &str)> = Vec::new();
                    let entries: Vec<&str> =
                        if entries.is_empty() { vec![text] } else { text.split(entries).collect() };
                    for (key, value) in entries.into_iter().filter_map(|entry| entry.split_once(pairs)) {
                        match all.iter_mut().find(|(other, _)| *other == key) {
                            Some(other) => other.1 = value,
                            None => all.push((key, value)),
                        }
                    }
                    for (key, value) in all {
                        out.keys().append_value(key);
                        out.values().append_value(value);
                    }
                    out.append(true)?;
                }
                Ok(Arc::new(out.finish()))
            },
        ),
    ]
}

/// Where a part stands in a text, in characters from 1 on; a position below 0 searches back from the end.
fn place_of(text: &str, part: &str, position: i64, occurrence: i64) -> Option<i32> {
    let text: Vec<char> = text.chars().collect();
    let part: Vec<char> = part.chars().collect();
    let last = text.len().checked_sub(part.len())?;
    let matches = |at: &usize| text[*at..].starts_with(&part);
    let nth = usize::try_from(occurrence).ok()?.checked_sub(1)?;
    let distance = usize::try_from(position.unsigned_abs()).ok()?;
    let at = match position {
        0 => return None,
        1.. => (distance - 1..=last).filter(matches).nth(nth)?,
        _ => (0..=last.min(text.len().checked_sub(distance)?)).rev().filter(matches).nth(nth)?,
    };
    i32::try_from(at + 1).ok()
}

fn patterns() -> Vec<Arc<ScalarUDF>> {
    use DataType::{Int64, Utf8};
    let signature = || one_of(vec![vec![Utf8, Utf8], vec![Utf8, Utf8, Int64]]);
    let group = |args: &[ArrayRef], row| args.get(2).map_or(Some(0), |n| number_at(n, row));
    vec![
        scalar_function("regexp_extract", signature(), Utf8, move |args, rows| {
            let texts = (0..rows).map(|row| {
                let (pattern, text) = (text_at(&args[0], row), text_at(&args[1], row));
                let (Some(pattern), Some(text), Some(group)) = (pattern, text, group(args, row)) else {
                    return Ok(None);
                };
                let found =
                    regex(pattern, AS_JAVA)?.captures(text).and_then(|c| c.get(usize::try_from(group).ok()?));
                Ok(found.map(|m| m.as_str().to_owned()))
            });
            Ok(Arc::new(texts.collect::<Result<StringArray>>()?))
        }),
        scalar_function(
            "regexp_extract_all",
            signature(),
            DataType::new_list(Utf8, true),
            move |args, rows| {
                let mut out = ListBuilder::new(StringBuilder::new());
                for row in 0..rows {
                    let (pattern, text) = (text_at(&args[0], row), text_at(&args[1], row));
                    let (Some(pattern), Some(text), Some(group)) = (pattern, text, group(args, row)) else {
                        out.append_null();
                        continue;
                    };
                    let group = usize::try_from(group).unwrap_or(usize::MAX);
                    for captures in regex(pattern, AS_JAVA)?.captures_iter(text) {
                        out.values().append_option(captures.get(group).map(|m| m.as_str()));
                    }
                    out.append(true);
                }
                Ok(Arc::new(out.finish()))
            },
        ),
    ]
}

/// The parts of an address. Source: RFC 3986, appendix B.
#[derive(Default)]
struct Address<'a> {
    scheme: Option<&'a str>,
    host: Option<&'a str>,
    port: Option<i32>,
    path: &'a str,
    query: Option<&'a str>,
    fragment: Option<&'a str>,
}

impl<'a> Address<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        if text.contains(|c: char| {
            c.is_whitespace() || matches!(c, '<' | '>' | '"' | '{' | '}' | '|' | '\\' | '^')
        }) {
            return None;
        }
        let (rest, fragment) = text.split_once('#').map_or((text, None), |(rest, f)| (rest, Some(f)));
        let (rest, query) = rest.split_once('?').map_or((rest, None), |(rest, q)| (rest, Some(q)));
        let is_scheme = |s: &str| {
            s.starts_with(|c: char| c.is_ascii_alphabetic())
                && s.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'))
        };
        let (scheme, rest) = match rest.split_once(':') {
            Some((scheme, rest)) if is_scheme(scheme) => (Some(scheme), rest),
            _ => (None, rest),
        };
        let mut address = Self { scheme, path: rest, query, fragment, ..Self::default() };
        if let Some(rest) = rest.strip_prefix("//") {
            let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            let authority = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
            let (host, port) = match authority.rsplit_once(':') {
                Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => (host, port.parse().ok()),
                _ => (authority, None),
            };
            address = Self { host: Some(host).filter(|h| !h.is_empty()), port, path, ..address };
        }
        Some(address)
    }

    /// A parameter of the query, decoded; of several the first.
    fn parameter(&self, name: &str) -> Option<String> {
        let pairs = self.query?.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        pairs
            .map(|(key, value)| (decoded(key), value))
            .find(|(key, _)| key == name)
            .map(|(_, value)| decoded(value))
    }
}

/// Form data as it is: a plus is a space, a percent sign a byte.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let digit = |b: u8| char::from(b).to_digit(16).and_then(|d| u8::try_from(d).ok());
        let (byte, left) = match (first, after) {
            (b'+', _) => (b' ', after),
            (b'%', [a, b, left @ ..]) => match (digit(*a), digit(*b)) {
                (Some(a), Some(b)) => (a << 4 | b, left),
                _ => (b'%', after),
            },
            _ => (*first, after),
        };
        bytes.push(byte);
        rest = left;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b' ' => out.push('+'),
            b if b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'*' | b'_') => {
                out.push(char::from(b))
            }
            b => out.push_str(&format!("%{b:02X}")),
        }
    }
    out
}

fn addresses() -> Vec<Arc<ScalarUDF>> {
    use DataType::{Int32, Utf8};
    type Part = fn(&Address<'_>) -> Option<String>;
    let parts: [(&'static str, Part); 5] = [
        ("url_extract_fragment", |a| a.fragment.map(decoded)),
        ("url_extract_host", |a| a.host.map(str::to_owned)),
        ("url_extract_path", |a| Some(decoded(a.path))),
        ("url_extract_protocol", |a| a.scheme.map(str::to_owned)),
        ("url_extract_query", |a| a.query.map(decoded)),
    ];
    let one = || Signature::exact(vec![Utf8], Volatility::Immutable);
    let text = |name, of: Part| {
        scalar_function(name, one(), Utf8, move |args, rows| {
            let part = |row| of(&Address::parse(text_at(&args[0], row)?)?);
            Ok(Arc::new((0..rows).map(part).collect::<StringArray>()))
        })
    };
    let mut functions: Vec<_> = parts.into_iter().map(|(name, of)| text(name, of)).collect();
    type Coding = fn(&str) -> String;
    let coding: [(&'static str, Coding); 2] = [("url_decode_param", decoded), ("url_encode_param", encoded)];
    for (name, code) in coding {
        functions.push(scalar_function(name, one(), Utf8, move |args, rows| {
            Ok(Arc::new((0..rows).map(|row| text_at(&args[0], row).map(code)).collect::<StringArray>()))
        }));
    }
    functions.push(scalar_function("url_extract_port", one(), Int32, |args, rows| {
        let port = |row| Address::parse(text_at(&args[0], row)?)?.port;
        Ok(Arc::new((0..rows).map(port).collect::<Int32Array>()))
    }));
    let two = Signature::exact(vec![Utf8; 2], Volatility::Immutable);
    functions.push(scalar_function("url_extract_parameter", two, Utf8, |args, rows| {
        let parameter = |row| Address::parse(text_at(&args[0], row)?)?.parameter(text_at(&args[1], row)?);
        Ok(Arc::new((0..rows).map(parameter).collect::<StringArray>()))
    }));
    functions
}

/// Which characters of a text are masked: those before or behind a place.
#[derive(Clone, Copy)]
enum Masked {
    All,
    Left,
    Right,
    /// All but so many at that end.
    KeepLeft,
    KeepRight,
}

fn masks() -> Vec<Arc<ScalarUDF>> {
    [
        ("mask", Masked::All),
        ("mask_left", Masked::Left),
        ("mask_right", Masked::Right),
        ("mask_keep_left", Masked::KeepLeft),
        ("mask_keep_right", Masked::KeepRight),
    ]
    .into_iter()
    .map(|(name, masked)| {
        scalar_function(
            name,
            Signature::variadic_any(Volatility::Immutable),
            DataType::Utf8,
            move |args, rows| mask(args, rows, masked),
        )
    })
    .collect()
}

fn mask(args: &[ArrayRef], rows: usize, masked: Masked) -> Result<ArrayRef> {
    let counts = usize::from(!matches!(masked, Masked::All));
    let Some((texts, given)) = args.split_first().filter(|(_, given)| given.len() >= counts) else {
        return exec_err!("a mask needs a text, and a number of characters unless it masks all");
    };
    let texts = cast(texts, &DataType::Utf8)?;
    let count = given.first().filter(|_| counts == 1).map(|n| cast(n, &DataType::Int64)).transpose()?;
    let others = given[counts..]
        .iter()
        .map(|m| cast(m, &DataType::Utf8))
        .collect::<std::result::Result<Vec<_>, _>>()?;
    let masked_text = |row: usize| -> Option<String> {
        let text = text_at(&texts, row)?;
        let length = text.chars().count();
        let count = count.as_ref().map_or(Some(0), |n| usize::try_from(number_at(n, row)?).ok())?;
        let range = match masked {
            Masked::All => 0..length,
            Masked::Left => 0..count.min(length),
            Masked::Right => length.saturating_sub(count)..length,
            Masked::KeepLeft => count.min(length)..length,
            Masked::KeepRight => 0..length.saturating_sub(count),
        };
        // A mask of NULL leaves its characters as they are.
        let mask = |kind: usize, c: char| match others.get(kind) {
            Some(mask) => text_at(mask, row).map_or(Some(c), |mask| mask.chars().next()).unwrap_or(c),
            None => MASKS[kind],
        };
        let one = |(at, c): (usize, char)| match c {
            c if !range.contains(&at) => c,
            c if c.is_uppercase() => mask(0, c),
            c if c.is_lowercase() => mask(1, c),
            c if c.is_numeric() => mask(2, c),
            c => mask(3, c),
        };
        Some(text.chars().enumerate().map(one).collect())
    };
    Ok(Arc::new((0..rows).map(masked_text).collect::<StringArray>()))
}

/// The way between two points on the earth. Source: the haversine formula.
fn distance() -> Arc<ScalarUDF> {
    use DataType::{Float64, Utf8};
    let signature = one_of(vec![vec![Float64; 4], [vec![Float64; 4], vec![Utf8]].concat()]);
    scalar_function("geo_distance", signature, Float64, |args, rows| {
        let degrees = |i: usize, row: usize| {
            let values = args[i].as_primitive::<Float64Type>();
            values.is_valid(row).then(|| values.value(row))
        };
        let way = |row: usize| -> Result<Option<f64>> {
            let [Some(lat1), Some(lon1), Some(lat2), Some(lon2)] = [0, 1, 2, 3].map(|i| degrees(i, row))
            else {
                return Ok(None);
            };
            if [lat1, lat2].iter().any(|d| d.abs() > 90.0) || [lon1, lon2].iter().any(|d| d.abs() > 180.0) {
                return exec_err!("a latitude is between -90 and 90 and a longitude between -180 and 180");
            }
            let unit = args.get(4).and_then(|unit| text_at(unit, row)).unwrap_or("KM").to_ascii_uppercase();
            let radius = match unit.as_str() {
                unit if unit.starts_with('K') => EARTH_KM,
                unit if unit.starts_with('M') => EARTH_MILES,
                _ => return exec_err!("\"{unit}\" is no unit of distance; KM and MILES are"),
            };
            let half = |from: f64, to: f64| ((to - from).to_radians() / 2.0).sin().powi(2);
            let chord =
                half(lat1, lat2) + half(lon1, lon2) * lat1.to_radians().cos() * lat2.to_radians().cos();
            Ok(Some(2.0 * chord.sqrt().atan2((1.0 - chord).sqrt()) * radius))
        };
        Ok(Arc::new((0..rows).map(way).collect::<Result<Float64Array>>()?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_fall_into_parts() {
        let address = Address::parse("http://me@test.com:8080/a%20b?x=1&y=a+b%21#top").unwrap();
        assert_eq!(
            (address.scheme, address.host, address.port),
            (Some("http"), Some("test.com"), Some(8080))
        );
        assert_eq!((decoded(address.path).as_str(), address.fragment), ("/a b", Some("top")));
        assert_eq!(address.parameter("y").as_deref(), Some("a b!"));
        assert_eq!(address.parameter("z"), None);
        assert!(Address::parse("http://a b").is_none());
        assert_eq!(decoded(&encoded("ä b&c")), "ä b&c");
    }

    #[test]
    fn parts_are_found_from_both_ends() {
        assert_eq!(place_of("corporate floor", "or", 1, 2), Some(5));
        assert_eq!(place_of("corporate floor", "or", -4, 1), Some(5));
        assert_eq!(place_of("corporate floor", "or", 3, 1), Some(5));
        assert_eq!(place_of("short", "or", -4, 1), None);
        assert_eq!(place_of("a", "abc", 1, 1), None);
    }
}
