//! NUMERIC out of text, exactly: as many digits as there are, an exponent or none, rounded to the scale.
//!
//! Invariant: a number that does not fit is none, and none is cut off or wraps. Arrow's parser does both.
//! Source: PostgreSQL, "Arbitrary Precision Numbers": "If the scale of a value to be stored is greater than the
//! declared scale of the column, the system will round"; ties go away from zero.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, Decimal128Builder};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::DataType;
use datafusion::common::{DataFusionError, Result, ScalarValue};
use datafusion::logical_expr::{Expr, ScalarUDF, Signature, Volatility, lit};

use super::scalar::scalar_function_of;

/// Exponents beyond this make every number 0 or too large.
const FARTHEST: i64 = 100_000;
/// Digits of any number that 128 bits hold.
const MOST_DIGITS: i64 = 38;

/// The number that a text is, in units of its last digit; None for what is no number or does not fit.
pub fn parse_numeric(text: &str, precision: u8, scale: i8) -> Option<i128> {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent_of(exponent)?),
        None => (text, 0),
    };
    let (negative, mantissa) = match mantissa.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, mantissa.strip_prefix('+').unwrap_or(mantissa)),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = || whole.bytes().chain(fraction.bytes());
    if digits().next().is_none() || !digits().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let zeros = digits().take_while(|digit| *digit == b'0').count();
    let point = i64::try_from(whole.len()).ok()? - i64::try_from(zeros).ok()? + exponent;
    // The digits that are kept, without zeros before them.
    let kept = point + i64::from(scale);
    let mut significant = digits().skip(zeros).map(|digit| i128::from(digit - b'0')).peekable();
    if significant.peek().is_none() || kept < 0 {
        return Some(0);
    }
    if kept > MOST_DIGITS {
        return None;
    }
    let mut value: i128 = 0;
    for _ in 0..kept {
        value = value.checked_mul(10)?.checked_add(significant.next().unwrap_or(0))?;
    }
    if significant.next().is_some_and(|next| next >= 5) {
        value = value.checked_add(1)?;
    }
    let fits = value < 10i128.checked_pow(u32::from(precision))?;
    fits.then_some(if negative { -value } else { value })
}

fn exponent_of(text: &str) -> Option<i64> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    // More digits than a number of 64 bits has: it is far away all the same.
    let far = digits.parse::<i64>().unwrap_or(FARTHEST).min(FARTHEST);
    Some(if text.starts_with('-') { -far } else { far })
}

/// Whether a text that is no NUMERIC of a type is a number all the same: as a double is one, however large.
pub fn is_number(text: &str) -> bool {
    text.parse::<f64>().is_ok() && text.contains(|c: char| c.is_ascii_digit())
}

/// A text as a NUMERIC of that type.
pub(super) fn as_numeric(text: Expr, data_type: &DataType) -> Result<Expr> {
    // The second argument is there for its type.
    Ok(numeric_in().call(vec![text, lit(ScalarValue::try_from(data_type)?)]))
}

pub(super) fn numeric_in() -> Arc<ScalarUDF> {
    let result = |types: &[DataType]| match types {
        [_, numeric @ DataType::Decimal128(..)] => Ok(numeric.clone()),
        _ => Err(DataFusionError::Plan("numeric_in needs a text and the type of a number".to_owned())),
    };
    scalar_function_of("numeric_in", Signature::any(2, Volatility::Immutable), result, |args, _| {
        let DataType::Decimal128(precision, scale) = *args[1].data_type() else {
            return Ok(Arc::clone(&args[1]));
        };
        let texts = cast(&args[0], &DataType::Utf8)?;
        read(texts.as_string::<i32>().iter(), precision, scale)
    })
}

fn read<'a>(texts: impl Iterator<Item = Option<&'a str>>, precision: u8, scale: i8) -> Result<ArrayRef> {
    let mut out = Decimal128Builder::new().with_precision_and_scale(precision, scale)?;
    for text in texts {
        let Some(text) = text else {
            out.append_null();
            continue;
        };
        let number =
            parse_numeric(text.trim(), precision, scale).ok_or_else(|| no_numeric(text, precision, scale));
        out.append_value(number?);
    }
    Ok(Arc::new(out.finish()))
}

fn no_numeric(text: &str, precision: u8, scale: i8) -> DataFusionError {
    DataFusionError::Execution(match is_number(text.trim()) {
        true => format!("value \"{text}\" is out of range for type numeric({precision},{scale})"),
        false => format!("invalid input syntax for type numeric: \"{text}\""),
    })
}

#[cfg(test)]
mod tests {
    use super::parse_numeric;

    #[test]
    fn texts_are_numbers_exactly_or_not_at_all() {
        let all = [
            ("0", Some(0)),
            ("-0.00", Some(0)),
            ("1.239", Some(124)),
            ("1.005", Some(101)),
            ("-1.005", Some(-101)),
            ("-1.0049999", Some(-100)),
            (".5", Some(50)),
            ("5.", Some(500)),
            ("+007", Some(700)),
            ("1e2", Some(10_000)),
            ("12345e-3", Some(1235)),
            ("12345E-6", Some(1)),
            ("5e-3", Some(1)),
            ("4.9e-3", Some(0)),
            ("9e-99999999999999999999", Some(0)),
            ("0e99999999999999999999", Some(0)),
            ("99999999.99", Some(9_999_999_999)),
            ("99999999.994", Some(9_999_999_999)),
            ("99999999.995", None),
            ("1e8", None),
            ("1e99999999999999999999", None),
            ("", None),
            (".", None),
            ("-", None),
            ("1e", None),
            ("1e+", None),
            ("1.2.3", None),
            ("--1", None),
            ("1_000", None),
            ("NaN", None),
            ("١", None),
        ];
        for (text, expected) in all {
            assert_eq!(parse_numeric(text, 10, 2), expected, "{text}");
        }
        assert_eq!(parse_numeric(&"1".repeat(300), 38, 0), None);
        assert_eq!(parse_numeric(&format!("0.{}", "9".repeat(300)), 10, 2), Some(100));
        assert_eq!(parse_numeric(&"9".repeat(38), 38, 0), Some(10i128.pow(38) - 1));
        assert_eq!(parse_numeric(&format!("{}e-290", "1".repeat(300)), 38, 0), Some(1_111_111_111));
    }
}
