//! From a tokenizer's (line, column) to the character position PostgreSQL reports.

use sqlparser::parser::ParserError;
use sqlparser::tokenizer::Location;

use crate::error::Error;

/// 1-based character position of `location` in `text`; 0 where it has none.
pub(crate) fn of(text: &str, location: Location) -> usize {
    if location.line == 0 {
        return 0;
    }
    let (mut line, mut column) = (1u64, 1u64);
    for (index, ch) in text.chars().enumerate() {
        if line == location.line && column == location.column {
            return index + 1;
        }
        if ch == '\n' {
            line += 1;
            column = 1;
        } else {
            column += 1;
        }
    }
    text.chars().count() + 1
}

/// Turns sqlparser's message, which ends in «at Line: l, Column: c», into an error with a position.
pub(crate) fn from_parser(text: &str, error: ParserError) -> Error {
    let message = match error {
        ParserError::TokenizerError(message) | ParserError::ParserError(message) => message,
        ParserError::RecursionLimitExceeded => {
            return Error::TooComplex { what: "nesting of expressions", limit: crate::limits::MAX_NESTING };
        }
    };
    let (message, location) = split_location(&message);
    let position = location.map_or(0, |location| of(text, location));
    Error::Syntax { message: postgres_style(message), position, hint: None }
}

fn split_location(message: &str) -> (&str, Option<Location>) {
    let Some((head, tail)) = message.rsplit_once(" at Line: ") else { return (message, None) };
    let Some((line, column)) = tail.split_once(", Column: ") else { return (message, None) };
    match (line.trim().parse(), column.trim().parse()) {
        (Ok(line), Ok(column)) => (head, Some(Location::new(line, column))),
        _ => (message, None),
    }
}

/// «Expected: x, found: y» becomes «syntax error at or near "y": expected x».
fn postgres_style(message: &str) -> String {
    let message = message.strip_prefix("sql parser error: ").unwrap_or(message);
    let Some(rest) = message.strip_prefix("Expected: ") else {
        return format!("syntax error: {message}");
    };
    match rest.rsplit_once(", found: ") {
        Some((expected, "EOF")) => format!("syntax error at end of input: expected {expected}"),
        Some((expected, found)) => format!("syntax error at or near \"{found}\": expected {expected}"),
        None => format!("syntax error: expected {rest}"),
    }
}
