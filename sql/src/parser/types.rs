//! ksqlDB's nested types: `ARRAY<…>`, `STRUCT<name …, …>`. All other types are sqlparser's.

use sqlparser::ast::{ArrayElemTypeDef, StructBracketKind, StructField};
use sqlparser::tokenizer::Token;

use super::StatementParser;
use crate::error::{Error, Result};
use crate::types::SqlType;

/// Deepest nesting of a type.
const DEEPEST: usize = 32;

impl StatementParser<'_, '_> {
    /// A type.
    pub(super) fn data_type(&mut self) -> Result<SqlType> {
        match self.nested_type(0)? {
            (data_type, 0) => Ok(data_type),
            _ => self.unexpected("the end of a type"),
        }
    }

    /// A type, and how many brackets behind its own are closed already: `>>` is one token.
    fn nested_type(&mut self, depth: usize) -> Result<(SqlType, usize)> {
        if depth > DEEPEST {
            return Err(Error::TooComplex { what: "the nesting of a type", limit: DEEPEST });
        }
        let opens = matches!(self.parser.peek_nth_token_ref(1).token, Token::Lt);
        if opens && self.word("ARRAY") {
            self.with(|p| p.expect_token(&Token::Lt))?;
            let (element, closed) = self.nested_type(depth + 1)?;
            let closed = self.close(closed)?;
            return Ok((SqlType::Array(ArrayElemTypeDef::AngleBracket(Box::new(element))), closed));
        }
        if opens && self.word("STRUCT") {
            self.with(|p| p.expect_token(&Token::Lt))?;
            let mut fields = Vec::new();
            loop {
                let field_name = Some(self.ident()?);
                let (field_type, closed) = self.nested_type(depth + 1)?;
                fields.push(StructField { field_name, field_type, options: None });
                if closed > 0 || !self.parser.consume_token(&Token::Comma) {
                    let closed = self.close(closed)?;
                    return Ok((SqlType::Struct(fields, StructBracketKind::AngleBrackets), closed));
                }
            }
        }
        Ok((self.with(|p| p.parse_data_type())?, 0))
    }

    /// Closes a bracket; `closed` of them have been.
    fn close(&mut self, closed: usize) -> Result<usize> {
        if closed > 0 {
            return Ok(closed - 1);
        }
        if self.parser.consume_token(&Token::ShiftRight) {
            return Ok(1);
        }
        self.with(|p| p.expect_token(&Token::Gt))?;
        Ok(0)
    }
}
