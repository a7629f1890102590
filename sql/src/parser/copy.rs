//! COPY … FROM STDIN and COPY … TO STDOUT, with PostgreSQL's new and old option lists.

use sqlparser::keywords::Keyword;
use sqlparser::tokenizer::Token;

use super::StatementParser;
use crate::ast::{Copy, CopyDirection, CopyFormat, CopyOptions, Query, Statement};
use crate::error::{Error, Result};

/// An option as written: its name and, where it has one, its value.
type Written = (String, Option<String>);

impl StatementParser<'_, '_> {
    pub(super) fn copy(&mut self) -> Result<Statement> {
        self.expect_word("COPY")?;
        let direction = if self.parser.consume_token(&Token::LParen) {
            let query = self.query()?;
            self.with(|p| p.expect_token(&Token::RParen))?;
            self.expect_word("TO")?;
            CopyDirection::Out(query)
        } else {
            let name = self.name()?;
            let columns = if self.at(&Token::LParen) { self.parenthesized_idents()? } else { Vec::new() };
            if self.keyword(Keyword::FROM) {
                CopyDirection::In { name, columns }
            } else {
                self.expect_word("TO")?;
                let list = match columns.as_slice() {
                    [] => "*".to_owned(),
                    some => some.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
                };
                CopyDirection::Out(select_from(&list, &name.to_string())?)
            }
        };
        self.endpoint(&direction)?;
        let written = self.copy_options()?;
        Ok(Statement::Copy(Copy { direction, options: resolve(&written)? }))
    }

    /// Files on the server are out of reach on purpose: a client must not read or write them.
    fn endpoint(&mut self, direction: &CopyDirection) -> Result<()> {
        let expected = if matches!(direction, CopyDirection::In { .. }) { "STDIN" } else { "STDOUT" };
        if self.word(expected) {
            return Ok(());
        }
        if matches!(self.parser.peek_token_ref().token, Token::SingleQuotedString(_)) || self.word("PROGRAM")
        {
            return Err(Error::unsupported(
                "COPY with a file or a program on the server",
                format!("use {expected}; psql's \\copy reads and writes files of the client"),
            ));
        }
        self.unexpected(expected)
    }

    fn copy_options(&mut self) -> Result<Vec<Written>> {
        let mut written = Vec::new();
        let with = self.word("WITH");
        if self.parser.consume_token(&Token::LParen) {
            loop {
                let name = self.ident()?.value.to_ascii_lowercase();
                let value = match self.parser.peek_token_ref().token {
                    Token::Comma | Token::RParen => None,
                    _ => Some(self.copy_value()?),
                };
                written.push((name, value));
                if !self.parser.consume_token(&Token::Comma) {
                    break;
                }
            }
            self.with(|p| p.expect_token(&Token::RParen))?;
            return Ok(written);
        }
        while !self.at(&Token::EOF) {
            let name = self.ident()?.value.to_ascii_lowercase();
            match name.as_str() {
                "csv" | "binary" | "text" => written.push(("format".into(), Some(name))),
                "header" => written.push((name, None)),
                "delimiter" | "null" | "quote" | "escape" => {
                    self.word("AS");
                    let value = self.copy_value()?;
                    written.push((name, Some(value)));
                }
                _ if with || written.is_empty() => return self.unexpected("an option of COPY"),
                _ => return self.unexpected("an option of COPY or end of statement"),
            }
        }
        Ok(written)
    }

    fn copy_value(&mut self) -> Result<String> {
        let token = self.parser.next_token();
        match token.token {
            Token::SingleQuotedString(text) | Token::EscapedStringLiteral(text) => Ok(text),
            Token::Word(word) => Ok(word.value.to_ascii_lowercase()),
            Token::Number(number, _) => Ok(number),
            _ => {
                self.parser.prev_token();
                self.unexpected("a value")
            }
        }
    }
}

fn select_from(list: &str, name: &str) -> Result<Query> {
    super::parse_query(&format!("SELECT {list} FROM {name}"))
}

fn resolve(written: &[Written]) -> Result<CopyOptions> {
    let text = |name: &str| written.iter().find(|(n, _)| n == name).and_then(|(_, v)| v.clone());
    let format = match text("format").as_deref() {
        None | Some("text") => CopyFormat::Text,
        Some("csv") => CopyFormat::Csv,
        Some("binary") => CopyFormat::Binary,
        Some(other) => {
            return Err(invalid(
                "format",
                format!("COPY format \"{other}\" is not one of text, csv, binary"),
            ));
        }
    };
    for (name, _) in written {
        if !matches!(
            name.as_str(),
            "format" | "delimiter" | "null" | "header" | "quote" | "escape" | "encoding"
        ) {
            return Err(invalid(name, "COPY has no such option".into()));
        }
    }
    let csv = format == CopyFormat::Csv;
    let byte = |name: &str, default: u8| match text(name) {
        None => Ok(default),
        Some(value) if value.len() == 1 => Ok(value.as_bytes()[0]),
        Some(_) => Err(invalid(name, "it must be a single one-byte character".into())),
    };
    let quote = byte("quote", b'"')?;
    let header = written
        .iter()
        .find(|(n, _)| n == "header")
        .is_some_and(|(_, v)| !matches!(v.as_deref(), Some("false" | "off" | "0")));
    Ok(CopyOptions {
        format,
        delimiter: byte("delimiter", if csv { b',' } else { b'\t' })?,
        null: text("null").unwrap_or_else(|| if csv { String::new() } else { "\\N".to_owned() }),
        header,
        quote,
        escape: byte("escape", quote)?,
    })
}

fn invalid(option: &str, reason: String) -> Error {
    Error::InvalidOption { option: option.to_owned(), reason }
}
