//! PostgreSQL's functions of regular expressions, over Rust's: without look-around and back references, which
//! are refused.
//!
//! Invariant: a pattern that stays the same from row to row is compiled once.
//! Source: PostgreSQL, "POSIX Regular Expressions", "String Functions and Operators".

use std::sync::Arc;

use datafusion::arrow::array::builder::{ListBuilder, StringBuilder};
use datafusion::arrow::array::{Array, ArrayRef, AsArray, StringArray};
use datafusion::arrow::datatypes::{DataType, Field, Int64Type};
use datafusion::common::{DataFusionError, Result, exec_err};
use datafusion::logical_expr::{ScalarUDF, Signature, TypeSignature, Volatility};
use regex::{Captures, Regex, RegexBuilder};

use super::scalar::scalar_function;

/// Most memory of a compiled regular expression.
const REGEX_BYTES: usize = 1 << 20;

/// All of them.
pub(super) fn functions() -> Vec<Arc<ScalarUDF>> {
    use DataType::{Int64, Utf8};
    let forms = |forms: Vec<Vec<DataType>>| {
        let forms = forms.into_iter().map(TypeSignature::Exact).collect();
        Signature::one_of(forms, Volatility::Immutable)
    };
    let two = || forms(vec![vec![Utf8; 2]]);
    let two_or_three = || forms(vec![vec![Utf8; 2], vec![Utf8; 3]]);
    let lists = DataType::List(Arc::new(Field::new_list_field(texts(), true)));
    let from = vec![Utf8, Utf8, Utf8, Int64];
    let nth = [from.as_slice(), &[Int64]].concat();
    let replacing = vec![vec![Utf8; 3], vec![Utf8; 4], from, nth.clone(), [nth, vec![Utf8]].concat()];
    vec![
        scalar_function("regexp_match", two_or_three(), texts(), |args, _| first_match(args)),
        scalar_function("regexp_match_list", forms(vec![vec![Utf8; 3]]), lists, |args, _| matches(args)),
        scalar_function("regexp_split_to_array", two_or_three(), texts(), |args, _| split(args)),
        scalar_function("regexp_replace", forms(replacing), Utf8, |args, _| replace(args)),
        scalar_function("regexp_substr", two(), Utf8, |args, _| part(args, 0)),
        // What is in the parentheses, if there are any.
        scalar_function("substring_pattern", two(), Utf8, |args, _| part(args, 1)),
    ]
}

fn texts() -> DataType {
    DataType::List(Arc::new(Field::new_list_field(DataType::Utf8, true)))
}

/// Patterns as they are compiled: the last one again, while it stays the same.
#[derive(Default)]
struct Patterns {
    last: Option<(String, String, Regex)>,
}

impl Patterns {
    fn get(&mut self, pattern: &str, flags: &str) -> Result<&Regex> {
        if self.last.as_ref().is_none_or(|(p, f, _)| p != pattern || f != flags) {
            self.last = None;
        }
        let compiled = match self.last.take() {
            Some(last) => last,
            None => (pattern.to_owned(), flags.to_owned(), regex(pattern, flags)?),
        };
        Ok(&self.last.insert(compiled).2)
    }
}

/// A compiled pattern; of flags that contradict each other the last one counts.
///
/// Source: PostgreSQL, "Regular Expression Metasyntax", ARE Embedded-Option Letters.
pub(super) fn regex(pattern: &str, flags: &str) -> Result<Regex> {
    let mut builder = RegexBuilder::new(pattern);
    builder.size_limit(REGEX_BYTES).dot_matches_new_line(true);
    for flag in flags.chars() {
        match flag {
            // All matches: for those who ask.
            'g' => &mut builder,
            'i' => builder.case_insensitive(true),
            'c' => builder.case_insensitive(false),
            'n' | 'm' => builder.multi_line(true).dot_matches_new_line(false),
            'p' => builder.multi_line(false).dot_matches_new_line(false),
            'w' => builder.multi_line(true).dot_matches_new_line(true),
            's' => builder.multi_line(false).dot_matches_new_line(true),
            'x' => builder.ignore_whitespace(true),
            't' => builder.ignore_whitespace(false),
            other => return exec_err!("invalid regular expression option: \"{other}\""),
        };
    }
    let invalid = |e| DataFusionError::Execution(format!("invalid regular expression: {e}"));
    builder.build().map_err(invalid)
}

/// A column of texts, value by value.
fn text(column: &ArrayRef, row: usize) -> Option<&str> {
    let column = column.as_string::<i32>();
    column.is_valid(row).then(|| column.value(row))
}

/// Text, pattern and flags of a row; None where one of them is NULL.
fn texts_of(args: &[ArrayRef], row: usize) -> Option<(&str, &str, &str)> {
    let flags = args.get(2).map_or(Some(""), |flags| text(flags, row));
    Some((text(&args[0], row)?, text(&args[1], row)?, flags?))
}

/// What the parentheses hold, or the whole match where there are none.
fn captured(captures: &Captures<'_>, into: &mut StringBuilder) {
    let skipped = usize::from(captures.len() > 1);
    for group in captures.iter().skip(skipped) {
        into.append_option(group.map(|g| g.as_str()));
    }
}

fn first_match(args: &[ArrayRef]) -> Result<ArrayRef> {
    let (mut patterns, mut out) = (Patterns::default(), ListBuilder::new(StringBuilder::new()));
    for row in 0..args[0].len() {
        let found = match texts_of(args, row) {
            Some((text, pattern, flags)) => patterns.get(pattern, flags)?.captures(text),
            None => None,
        };
        if let Some(captures) = &found {
            captured(captures, out.values());
        }
        out.append(found.is_some());
    }
    Ok(Arc::new(out.finish()))
}

/// The captures of each match, of the first only without the flag g.
fn matches(args: &[ArrayRef]) -> Result<ArrayRef> {
    let mut patterns = Patterns::default();
    let mut out = ListBuilder::new(ListBuilder::new(StringBuilder::new()));
    for row in 0..args[0].len() {
        let Some((text, pattern, flags)) = texts_of(args, row) else {
            out.append_null();
            continue;
        };
        let limit = if flags.contains('g') { usize::MAX } else { 1 };
        for captures in patterns.get(pattern, flags)?.captures_iter(text).take(limit) {
            captured(&captures, out.values().values());
            out.values().append(true);
        }
        out.append(true);
    }
    Ok(Arc::new(out.finish()))
}

/// What is between matches. An empty match at the beginning, at the end or right behind another one is none.
fn split(args: &[ArrayRef]) -> Result<ArrayRef> {
    let (mut patterns, mut out) = (Patterns::default(), ListBuilder::new(StringBuilder::new()));
    for row in 0..args[0].len() {
        let Some((text, pattern, flags)) = texts_of(args, row) else {
            out.append_null();
            continue;
        };
        let mut end = 0;
        for found in patterns.get(pattern, flags)?.find_iter(text) {
            if found.is_empty() && (found.start() == end || found.start() == text.len()) {
                continue;
            }
            out.values().append_value(&text[end..found.start()]);
            end = found.end();
        }
        out.values().append_value(&text[end..]);
        out.append(true);
    }
    Ok(Arc::new(out.finish()))
}

/// The part of a text that a pattern matches: a group of it, or all of it where there is no such group.
fn part(args: &[ArrayRef], group: usize) -> Result<ArrayRef> {
    let mut patterns = Patterns::default();
    let parts = (0..args[0].len()).map(|row| {
        let Some((text, pattern, _)) = texts_of(&args[..2], row) else { return Ok(None) };
        let captures = patterns.get(pattern, "")?.captures(text);
        let part = captures.and_then(|c| if c.len() > group { c.get(group) } else { c.get(0) });
        Ok(part.map(|part| part.as_str().to_owned()))
    });
    Ok(Arc::new(parts.collect::<Result<StringArray>>()?))
}

/// regexp_replace(text, pattern, replacement [, flags]) and (…, start [, which [, flags]]): the first match, all with
/// the flag g, or the one that is said, of which 0 is all.
fn replace(args: &[ArrayRef]) -> Result<ArrayRef> {
    let mut patterns = Patterns::default();
    let numbers: Vec<_> = args.iter().filter_map(|a| a.as_primitive_opt::<Int64Type>()).collect();
    let flags = args.iter().skip(3).find(|a| *a.data_type() == DataType::Utf8);
    let replaced = (0..args[0].len()).map(|row| {
        let flags = flags.map_or(Some(""), |flags| text(flags, row));
        let known = numbers.iter().all(|numbers| numbers.is_valid(row));
        let (Some((whole, pattern, replacement)), Some(flags), true) = (texts_of(args, row), flags, known)
        else {
            return Ok(None);
        };
        let number = |at: usize| numbers.get(at).map(|numbers| numbers.value(row));
        let start = match number(0).unwrap_or(1) {
            start @ 1.. => whole.char_indices().nth(usize::try_from(start).unwrap_or(usize::MAX) - 1),
            start => return exec_err!("invalid value for parameter \"start\": {start}"),
        };
        let Some(start) = start.map(|(at, _)| at) else { return Ok(Some(whole.to_owned())) };
        let which = match number(1) {
            None => i64::from(!flags.contains('g')),
            Some(which @ 0..) => which,
            Some(which) => return exec_err!("invalid value for parameter \"n\": {which}"),
        };
        let regex = patterns.get(pattern, flags)?;
        Ok(Some(with_replaced(whole, regex, replacement, start, which)))
    });
    Ok(Arc::new(replaced.collect::<Result<StringArray>>()?))
}

fn with_replaced(text: &str, regex: &Regex, replacement: &str, start: usize, which: i64) -> String {
    let (mut out, mut end) = (String::with_capacity(text.len()), 0);
    let mut at = start;
    for number in 1i64.. {
        let Some(captures) = (at <= text.len()).then(|| regex.captures_at(text, at)).flatten() else { break };
        let Some(found) = captures.get(0) else { break };
        if which == 0 || number == which {
            out.push_str(&text[end..found.start()]);
            put_replacement(&captures, replacement, &mut out);
            end = found.end();
            if which > 0 {
                break;
            }
        }
        // Behind an empty match the next one begins a character later.
        let step =
            if found.is_empty() { text[found.end()..].chars().next().map_or(1, char::len_utf8) } else { 0 };
        at = found.end() + step;
    }
    out.push_str(&text[end..]);
    out
}

/// `\1` to `\9` stand for what the parentheses hold, `\&` for the whole match, `\\` for a backslash.
fn put_replacement(captures: &Captures<'_>, replacement: &str, out: &mut String) {
    let mut chars = replacement.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('&') => out.push_str(&captures[0]),
            Some(digit @ '1'..='9') => {
                let group = captures.get(digit as usize - '0' as usize);
                out.push_str(group.map_or("", |group| group.as_str()));
            }
            Some('\\') | None => out.push('\\'),
            Some(other) => out.extend(['\\', other]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_are_replaced_as_postgres_does() {
        let replaced = |text, pattern, replacement, start, which| {
            with_replaced(text, &regex(pattern, "i").unwrap(), replacement, start, which)
        };
        assert_eq!(replaced("foobarbaz", "b(..)", r"X\1Y", 0, 0), "fooXarYXazY");
        assert_eq!(replaced("A PostgreSQL function", "a|e|i|o|u", "X", 0, 3), "A PostgrXSQL function");
        assert_eq!(replaced("abc123", "abc", r"pre\&post\\", 0, 1), r"preabcpost\123");
        assert_eq!(replaced("äb", "x*", "-", 0, 0), "-ä-b-");
    }

    #[test]
    fn of_two_flags_the_last_one_counts() {
        assert!(!regex("B", "ic").unwrap().is_match("b"));
        assert!(regex("B", "ici").unwrap().is_match("b"));
        assert!(regex("B", "z").is_err());
    }
}
