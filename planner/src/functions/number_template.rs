//! PostgreSQL's templates for numbers: `FM9,999.00`.
//!
//! Source: PostgreSQL, "Data Type Formatting Functions", template patterns for numeric formatting.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, StringArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Decimal128Type, Float64Type};
use datafusion::common::{Result, exec_err};

/// Digits of a decimal.
const DIGITS: u8 = 38;

/// A piece of a template.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    /// A digit; one that is written although it is a leading zero, or not.
    Digit(bool),
    Point,
    Group,
    Sign(Sign),
    Text(char),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sign {
    /// `S`: plus or minus, in front beside the first digit.
    Either,
    /// `SG`: the same where it stands.
    Fixed,
    /// `MI`: minus or a space.
    Minus,
    /// `PL`: plus or a space.
    Plus,
}

/// A template for numbers.
#[derive(Debug, Default)]
struct NumberTemplate {
    pieces: Vec<Piece>,
    /// FM: no spaces, no zeros at the end.
    short: bool,
    /// PR: a negative number stands in angle brackets.
    brackets: bool,
    /// Digits before and behind the point.
    whole: usize,
    fraction: usize,
}

/// A number as text: its sign, and the digits before and behind the point.
struct Number {
    negative: bool,
    whole: String,
    fraction: String,
}

impl NumberTemplate {
    fn parse(template: &str) -> Result<Self> {
        let mut parsed = Self::default();
        let (mut rest, mut behind_point) = (template, false);
        while let Some(first) = rest.chars().next() {
            let starts =
                |pattern: &str| rest.get(..pattern.len()).is_some_and(|r| r.eq_ignore_ascii_case(pattern));
            if let Some(pattern) = ["EEEE", "RN", "TH", "V"].into_iter().find(|p| starts(p)) {
                return exec_err!("the pattern \"{pattern}\" is not supported in a template for numbers");
            }
            let (piece, length) = match first {
                _ if starts("FM") => {
                    parsed.short = true;
                    (None, 2)
                }
                _ if starts("PR") => {
                    parsed.brackets = true;
                    (None, 2)
                }
                _ if starts("MI") => (Some(Piece::Sign(Sign::Minus)), 2),
                _ if starts("PL") => (Some(Piece::Sign(Sign::Plus)), 2),
                _ if starts("SG") => (Some(Piece::Sign(Sign::Fixed)), 2),
                'S' | 's' => (Some(Piece::Sign(Sign::Either)), 1),
                '9' | '0' => {
                    let count = if behind_point { &mut parsed.fraction } else { &mut parsed.whole };
                    *count += 1;
                    (Some(Piece::Digit(first == '0')), 1)
                }
                '.' | 'D' | 'd' => {
                    if std::mem::replace(&mut behind_point, true) {
                        return exec_err!("multiple decimal points");
                    }
                    (Some(Piece::Point), 1)
                }
                ',' | 'G' | 'g' => (Some(Piece::Group), 1),
                // The locale C has no currency.
                'L' | 'l' => (Some(Piece::Text(' ')), 1),
                '"' => {
                    let text = rest[1..].split('"').next().unwrap_or_default();
                    parsed.pieces.extend(text.chars().map(Piece::Text));
                    (None, (text.len() + 2).min(rest.len()))
                }
                other => (Some(Piece::Text(other)), other.len_utf8()),
            };
            parsed.pieces.extend(piece);
            rest = &rest[length..];
        }
        Ok(parsed)
    }

    fn format(&self, number: &Number) -> String {
        let fits = number.whole.len() <= self.whole;
        let pad = self.whole.saturating_sub(number.whole.len());
        let digits =
            self.pieces.iter().filter_map(|p| if let Piece::Digit(zero) = p { Some(*zero) } else { None });
        let zero = digits.clone().take(self.whole).position(|zero| zero).unwrap_or(self.whole);
        // Zero has a digit, unless it has some behind the point.
        let last = if self.fraction == 0 { self.whole.saturating_sub(1) } else { self.whole };
        let first = if fits { pad.min(zero).min(last) } else { 0 };
        let kept = self.kept_fraction(digits.skip(self.whole), &number.fraction);
        let signs = |p: &Piece| matches!(p, Piece::Sign(sign) if *sign != Sign::Plus);
        let own_sign = self.pieces.iter().any(signs) || self.brackets;
        let (mut out, mut at, mut begun, mut behind) = (String::new(), 0, false, 0);
        let mut pending: Option<char> = None;
        let mut begin = |out: &mut String, pending: &mut Option<char>| {
            if std::mem::replace(&mut begun, true) {
                return;
            }
            let sign = match (number.negative, self.brackets) {
                (true, true) => Some('<'),
                (true, false) if !own_sign => Some('-'),
                _ if own_sign && !self.brackets => None,
                _ => Some(' ').filter(|_| !self.short),
            };
            out.extend(pending.take().into_iter().chain(sign));
        };
        let mut point = false;
        for (place, piece) in self.pieces.iter().enumerate() {
            match piece {
                Piece::Digit(_) if !point => {
                    if at >= first {
                        begin(&mut out, &mut pending);
                        let digit = at.checked_sub(pad).and_then(|at| number.whole.as_bytes().get(at));
                        out.push(if fits { digit.map_or('0', |d| char::from(*d)) } else { '#' });
                    } else if !self.short {
                        out.push(' ');
                    }
                    at += 1;
                }
                Piece::Digit(_) => {
                    if behind < kept {
                        let digit = number.fraction.as_bytes().get(behind);
                        out.push(if fits { digit.map_or('0', |d| char::from(*d)) } else { '#' });
                    }
                    behind += 1;
                }
                Piece::Point => {
                    begin(&mut out, &mut pending);
                    point = true;
                    out.push('.');
                }
                Piece::Group if at > first => out.push(','),
                Piece::Group if !self.short => out.push(' '),
                Piece::Group => {}
                Piece::Sign(sign) => {
                    let written = match (sign, number.negative) {
                        (Sign::Either | Sign::Fixed | Sign::Minus, true) => Some('-'),
                        (Sign::Either | Sign::Fixed | Sign::Plus, false) => Some('+'),
                        _ => Some(' ').filter(|_| !self.short),
                    };
                    // One in front stands beside the first digit.
                    let in_front = self.pieces[..place].iter().all(|p| matches!(p, Piece::Text(_)));
                    match in_front && *sign == Sign::Either {
                        true => pending = written,
                        false => out.extend(written),
                    }
                }
                Piece::Text(text) => out.push(*text),
            }
        }
        if self.brackets {
            out.extend(if number.negative { Some('>') } else { Some(' ').filter(|_| !self.short) });
        }
        out
    }

    /// How many digits behind the point are written: zeros at the end are not, in short form.
    fn kept_fraction(&self, zeros: impl Iterator<Item = bool>, fraction: &str) -> usize {
        if !self.short {
            return self.fraction;
        }
        let wanted = zeros.enumerate().filter(|(_, zero)| *zero).map(|(at, _)| at + 1).last().unwrap_or(0);
        wanted.max(fraction.trim_end_matches('0').len())
    }
}

impl Number {
    /// A number in digits, with a point or without.
    fn of(text: &str) -> Self {
        let (negative, digits) = text.strip_prefix('-').map_or((false, text), |digits| (true, digits));
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let whole = whole.trim_start_matches('0').to_owned();
        let is_zero = whole.is_empty() && fraction.bytes().all(|b| b == b'0');
        Self { negative: negative && !is_zero, whole, fraction: fraction.to_owned() }
    }
}

/// Numbers in the form of templates.
pub(super) fn to_char(numbers: &ArrayRef, templates: &ArrayRef) -> Result<ArrayRef> {
    let templates = cast(templates, &DataType::Utf8)?;
    let templates = templates.as_string::<i32>();
    let mut last: Option<(&str, NumberTemplate)> = None;
    let mut out = Vec::with_capacity(numbers.len());
    for row in 0..numbers.len() {
        if numbers.is_null(row) || templates.is_null(row) {
            out.push(None);
            continue;
        }
        let text = templates.value(row);
        let known = last.take().filter(|(known, _)| *known == text);
        let (_, template) = match known {
            Some(known) => last.insert(known),
            None => last.insert((text, NumberTemplate::parse(text)?)),
        };
        let digits = digits(&numbers.slice(row, 1), template.fraction)?;
        out.push(Some(template.format(&Number::of(&digits))));
    }
    Ok(Arc::new(StringArray::from(out)))
}

/// A number with so many digits behind the point.
fn digits(number: &ArrayRef, fraction: usize) -> Result<String> {
    if number.data_type().is_floating() {
        let double = cast(number, &DataType::Float64)?;
        let double = double.as_primitive::<Float64Type>().value(0);
        return match double.is_finite() {
            true => Ok(format!("{double:.fraction$}")),
            false => exec_err!("cannot write {double} by a template"),
        };
    }
    let scale = i8::try_from(fraction).unwrap_or(i8::MAX).min(30);
    let exact = cast(number, &DataType::Decimal128(DIGITS, scale))?;
    Ok(exact.as_primitive::<Decimal128Type>().value_as_string(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As PostgreSQL 15 answers.
    #[test]
    fn numbers_are_written_as_templates_say() {
        for (number, template, expected) in [
            ("123.456", "999.99", " 123.46"),
            ("-485", "999", "-485"),
            ("-5", "999", "  -5"),
            ("0.5", "9.99", "  .50"),
            ("0.5", "0.99", " 0.50"),
            ("0.5", "FM9.99", ".5"),
            ("0.5", "FM0.00", "0.50"),
            ("5", "FM9.9", "5."),
            ("0", "999", "   0"),
            ("1234", "999", " ###"),
            ("1234567.891", "FM9,999,999.00", "1,234,567.89"),
            ("1234567.891", "9,999,999.00", " 1,234,567.89"),
            ("1234", "9,999,999", "     1,234"),
            ("12", "0000", " 0012"),
            ("485", "S999", "+485"),
            ("-5", "S99", " -5"),
            ("485", "999S", "485+"),
            ("-485", "999MI", "485-"),
            ("485", "999MI", "485 "),
            ("-485", "999PR", "<485>"),
            ("485", "999PR", " 485 "),
            ("485", "PL999", "+ 485"),
            ("-5", "SG99", "- 5"),
            ("12.5", "$99.00", "$ 12.50"),
        ] {
            let template = NumberTemplate::parse(template).unwrap();
            let rounded = match number.split_once('.') {
                Some(_) => format!("{:.*}", template.fraction, number.parse::<f64>().unwrap()),
                None => {
                    format!("{number}.{}", "0".repeat(template.fraction)).trim_end_matches('.').to_owned()
                }
            };
            assert_eq!(template.format(&Number::of(&rounded)), expected, "{number} {template:?}");
        }
    }
}
