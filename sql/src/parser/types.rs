//! ksqlDB's nested types: `ARRAY<…>`, `STRUCT<name …, …>`, `MAP<…, …>`. All other types are sqlparser's.

use sqlparser::ast::{ArrayElemTypeDef, StructBracketKind, StructField};
use sqlparser::parser::{Parser, ParserError};
use sqlparser::tokenizer::Token;

use super::StatementParser;
use crate::clauses::word_is;
use crate::error::Result;
use crate::types::SqlType;

/// Deepest nesting of a type.
const DEEPEST: usize = 32;

impl StatementParser<'_, '_> {
    /// A type.
    pub(super) fn data_type(&mut self) -> Result<SqlType> {
        self.with(parse_type)
    }
}

/// Reads a type.
pub(crate) fn parse_type(parser: &mut Parser<'_>) -> std::result::Result<SqlType, ParserError> {
    match nested_type(parser, 0)? {
        (data_type, 0) => Ok(data_type),
        _ => parser.expected_ref("the end of a type", parser.peek_token_ref()),
    }
}

/// A type, and how many brackets behind its own are closed already: `>>` is one token.
fn nested_type(parser: &mut Parser<'_>, depth: usize) -> std::result::Result<(SqlType, usize), ParserError> {
    if depth > DEEPEST {
        return Err(ParserError::RecursionLimitExceeded);
    }
    let word = match parser.peek_nth_token_ref(1).token {
        Token::Lt => ["ARRAY", "STRUCT", "MAP"].into_iter().find(|w| word_is(parser.peek_token_ref(), w)),
        _ => None,
    };
    let Some(word) = word else { return Ok((parser.parse_data_type()?, 0)) };
    parser.next_token();
    parser.next_token();
    let (data_type, closed) = match word {
        "ARRAY" => {
            let (element, closed) = nested_type(parser, depth + 1)?;
            (SqlType::Array(ArrayElemTypeDef::AngleBracket(Box::new(element))), closed)
        }
        "MAP" => {
            let (key, closed) = nested_type(parser, depth + 1)?;
            if closed > 0 {
                return parser.expected_ref("a comma", parser.peek_token_ref());
            }
            parser.expect_token(&Token::Comma)?;
            let (value, closed) = nested_type(parser, depth + 1)?;
            (SqlType::Map(Box::new(key), Box::new(value)), closed)
        }
        _ => fields(parser, depth)?,
    };
    let closed = close(parser, closed)?;
    Ok((data_type, closed))
}

fn fields(parser: &mut Parser<'_>, depth: usize) -> std::result::Result<(SqlType, usize), ParserError> {
    let mut fields = Vec::new();
    loop {
        let field_name = Some(parser.parse_identifier()?);
        let (field_type, closed) = nested_type(parser, depth + 1)?;
        fields.push(StructField { field_name, field_type, options: None });
        if closed > 0 || !parser.consume_token(&Token::Comma) {
            return Ok((SqlType::Struct(fields, StructBracketKind::AngleBrackets), closed));
        }
    }
}

/// Closes a bracket; `closed` of them have been.
fn close(parser: &mut Parser<'_>, closed: usize) -> std::result::Result<usize, ParserError> {
    if closed > 0 {
        return Ok(closed - 1);
    }
    let brackets = match &parser.peek_token_ref().token {
        Token::Gt => 1,
        Token::ShiftRight => 2,
        Token::CustomBinaryOperator(operator) if operator.bytes().all(|b| b == b'>') => operator.len(),
        _ => return parser.expected_ref(">", parser.peek_token_ref()),
    };
    parser.next_token();
    Ok(brackets - 1)
}
