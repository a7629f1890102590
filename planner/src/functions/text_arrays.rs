//! PostgreSQL's text of arrays, read: `{a,"b c",NULL}`, `{{1,2},{3,4}}`.
//!
//! Source: PostgreSQL, "Array Input and Output Syntax". Next: `read_texts` puts this in place of casts from
//! texts to lists, which Arrow would make of one element.

use std::sync::Arc;

use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, ListArray, NullBufferBuilder, StringArray, StringBuilder,
};
use datafusion::arrow::buffer::OffsetBuffer;
use datafusion::arrow::compute::{cast, cast_with_options};
use datafusion::arrow::datatypes::{DataType, FieldRef};
use datafusion::common::format::DEFAULT_CAST_OPTIONS;
use datafusion::common::{DataFusionError, Result, ScalarValue};
use datafusion::logical_expr::{Expr, ScalarUDF, Signature, Volatility, lit};

use super::scalar::scalar_function_of;

/// All of them.
pub(super) fn functions() -> Vec<Arc<ScalarUDF>> {
    vec![array_in()]
}

/// A text as a list of that type.
pub(super) fn as_list(expr: Expr, list: &DataType) -> Result<Expr> {
    // The second argument is there for its type.
    Ok(array_in().call(vec![expr, lit(ScalarValue::try_from(list)?)]))
}

fn array_in() -> Arc<ScalarUDF> {
    let result = |types: &[DataType]| match types {
        [_, list @ DataType::List(_)] => Ok(list.clone()),
        _ => Err(DataFusionError::Plan("array_in needs a text and the type of a list".to_owned())),
    };
    scalar_function_of("array_in", Signature::any(2, Volatility::Immutable), result, |args, _| {
        let DataType::List(element) = args[1].data_type() else { return Ok(Arc::clone(&args[1])) };
        let texts = cast(&args[0], &DataType::Utf8)?;
        read_lists(texts.as_string::<i32>(), element)
    })
}

/// Lists out of texts; NULL stays NULL.
///
/// # Errors
/// A text that is no array, and what the cast of an element says.
pub fn read_lists(texts: &StringArray, element: &FieldRef) -> Result<ArrayRef> {
    let mut elements = StringBuilder::new();
    let mut lengths = Vec::with_capacity(texts.len());
    let mut valid = NullBufferBuilder::new(texts.len());
    for text in texts {
        valid.append(text.is_some());
        let Some(text) = text else {
            lengths.push(0);
            continue;
        };
        let read = split(text.trim())
            .ok_or_else(|| DataFusionError::Execution(format!("malformed array literal: \"{text}\"")))?;
        lengths.push(read.len());
        read.into_iter().for_each(|element| elements.append_option(element));
    }
    let elements = elements.finish();
    let elements = match element.data_type() {
        DataType::List(inner) => read_lists(&elements, inner)?,
        data_type => cast_with_options(&elements, data_type, &DEFAULT_CAST_OPTIONS)?,
    };
    let offsets = OffsetBuffer::from_lengths(lengths);
    Ok(Arc::new(ListArray::try_new(Arc::clone(element), offsets, elements, valid.finish())?))
}

/// The elements of an array; None for a text that is none.
fn split(text: &str) -> Option<Vec<Option<String>>> {
    let inner = text.strip_prefix('{')?.strip_suffix('}')?;
    let mut elements = Vec::new();
    let mut rest = inner.trim_start();
    if rest.is_empty() {
        return Some(elements);
    }
    loop {
        let (element, after) = match rest.as_bytes().first()? {
            b'"' => quoted(rest)?,
            b'{' => nested(rest)?,
            _ => bare(rest)?,
        };
        elements.push(element);
        match after.trim_start().strip_prefix(',') {
            Some(more) => rest = more.trim_start(),
            None => return after.trim().is_empty().then_some(elements),
        }
    }
}

type Element<'a> = (Option<String>, &'a str);

fn quoted(text: &str) -> Option<Element<'_>> {
    let mut out = String::new();
    let mut chars = text.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((Some(out), &text[at + 1..])),
            '\\' => out.push(chars.next()?.1),
            c => out.push(c),
        }
    }
    None
}

/// An array in an array, as it is written.
fn nested(text: &str) -> Option<Element<'_>> {
    let (mut depth, mut in_quotes) = (0, false);
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => drop(chars.next()),
            '"' => in_quotes = !in_quotes,
            '{' if !in_quotes => depth += 1,
            '}' if !in_quotes => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            let (inner, after) = text.split_at(at + 1);
            return Some((Some(inner.to_owned()), after));
        }
    }
    None
}

fn bare(text: &str) -> Option<Element<'_>> {
    let end = text.find(',').unwrap_or(text.len());
    let element = text[..end].trim();
    if element.is_empty() || element.contains(['{', '}', '"']) {
        return None;
    }
    let is_null = element.eq_ignore_ascii_case("null");
    Some(((!is_null).then(|| element.replace('\\', "")), &text[end..]))
}

#[cfg(test)]
mod tests {
    use super::super::value_text::write_value;
    use super::*;

    #[test]
    fn arrays_are_read_as_postgres_reads_them() {
        let some = |texts: &[&str]| Some(texts.iter().map(|t| Some((*t).to_owned())).collect::<Vec<_>>());
        assert_eq!(split("{}"), Some(vec![]));
        assert_eq!(split("{a, b}"), some(&["a", "b"]));
        assert_eq!(split(r#"{"a,b","say \"x\"",""}"#), some(&["a,b", "say \"x\"", ""]));
        assert_eq!(split("{1,NULL}"), Some(vec![Some("1".into()), None]));
        assert_eq!(split(r#"{"NULL"}"#), some(&["NULL"]));
        assert_eq!(split(r#"{{1,2}, {"}"}}"#), some(&["{1,2}", r#"{"}"}"#]));
        for wrong in ["a", "{a", "{a,}", "{{a}", "{\"a}", "{a}b", "{a{b}}"] {
            assert_eq!(split(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn arrays_are_written_as_postgres_writes_them() {
        for text in ["{}", "{a,b}", r#"{"a b","",NULL,"null","q\"\\"}"#, "{{a,b},{c,NULL}}"] {
            let nested = text.starts_with("{{");
            let field = |t| Arc::new(datafusion::arrow::datatypes::Field::new("item", t, true));
            let inner = if nested { DataType::List(field(DataType::Utf8)) } else { DataType::Utf8 };
            let lists = read_lists(&StringArray::from(vec![text]), &field(inner));
            let mut written = String::new();
            write_value(&lists.unwrap(), 0, &mut written).unwrap();
            assert_eq!(written, text);
        }
    }
}
