//! One statement after the other: tokens, limits, clauses, then the parser of its first word.

mod admin;
mod alter;
mod copy;
mod create;
mod dml;
mod policies;
mod roles;
mod session;
mod types;

pub(crate) use types::parse_type;

use sqlparser::ast::{Expr, Ident, ObjectName};
use sqlparser::keywords::Keyword;
use sqlparser::parser::{Parser, ParserError};
use sqlparser::tokenizer::{Token, TokenWithSpan, Tokenizer};

use crate::ast::{Parsed, Query, Statement};
use crate::clauses::{self, word_is};
use crate::dialect::MillpondDialect;
use crate::error::{Error, Result};
use crate::{limits, position};

/// Recursion that sqlparser may use; `limits` keeps deeper texts away from it.
const RECURSION: usize = 150;

/// Parses a text of any number of statements, separated by semicolons.
///
/// # Errors
/// The first statement that is wrong, with its position in `text`.
pub fn parse(text: &str) -> Result<Vec<Parsed>> {
    if text.len() > limits::MAX_STATEMENT_BYTES {
        return Err(Error::TooComplex {
            what: "length of a statement in bytes",
            limit: limits::MAX_STATEMENT_BYTES,
        });
    }
    let tokens = tokenize(text)?;
    let mut statements = Vec::new();
    for tokens in tokens.split(|t| t.token == Token::SemiColon) {
        let solid = |t: &&TokenWithSpan| !matches!(t.token, Token::Whitespace(_));
        let (Some(first), Some(last)) = (tokens.iter().find(solid), tokens.iter().rfind(solid)) else {
            continue;
        };
        let source = match tokens.iter().find(|t| solid(t) && word_is(t, "PASSWORD")) {
            // What others see of a statement does not tell a password.
            Some(password) if roles::is_about_roles(tokens) => slice(text, first, password) + " …",
            _ => slice(text, first, last),
        };
        let tokens: Vec<_> = tokens.iter().filter(solid).cloned().collect();
        limits::check(&tokens)?;
        let tokens = clauses::mark(text, tokens)?;
        let dialect = MillpondDialect;
        let mut parser =
            Parser::new(&dialect).with_recursion_limit(RECURSION).with_tokens_with_locations(tokens);
        let statement = StatementParser { text, parser: &mut parser }.statement()?;
        statements.push(Parsed { statement, text: source });
    }
    Ok(statements)
}

/// Parses a text that is one query and nothing else.
///
/// # Errors
/// As [`parse`].
pub fn parse_query(text: &str) -> Result<Query> {
    match parse(text)?.pop().map(|p| p.statement) {
        Some(Statement::Query(query)) => Ok(query),
        _ => Err(Error::Syntax { message: "syntax error: expected a query".into(), position: 0, hint: None }),
    }
}

/// Parses an expression that the language makes itself.
pub(crate) fn parse_expression(text: &str) -> std::result::Result<Expr, ParserError> {
    Parser::new(&MillpondDialect).try_with_sql(text)?.parse_expr()
}

/// Parses a condition that the planner makes itself.
///
/// # Errors
/// [`Error::Syntax`].
pub fn parse_condition(text: &str) -> Result<Expr> {
    parse_expression(text).map_err(|error| position::from_parser(text, error))
}

/// Parses expressions separated by commas, as a select list has them.
///
/// # Errors
/// As [`parse`].
pub fn parse_expressions(text: &str) -> Result<Vec<Expr>> {
    let parser = Parser::new(&MillpondDialect).with_recursion_limit(RECURSION).try_with_sql(text);
    let parsed = parser.and_then(|mut parser| parser.parse_comma_separated(Parser::parse_expr));
    parsed.map_err(|error| position::from_parser(text, error))
}

/// An identifier's name: folded to lower case unless quoted.
pub fn fold(ident: &Ident) -> String {
    if ident.quote_style.is_some() { ident.value.clone() } else { ident.value.to_lowercase() }
}

fn tokenize(text: &str) -> Result<Vec<TokenWithSpan>> {
    let tokens = Tokenizer::new(&MillpondDialect, text).tokenize_with_location();
    let tokens = tokens.map_err(|error| Error::Syntax {
        message: format!("syntax error: {}", error.message),
        position: position::of(text, error.location),
        hint: None,
    })?;
    Ok(tokens.into_iter().flat_map(all_fields).collect())
}

/// `->*` is an arrow and the name `*`: all fields of a struct.
fn all_fields(token: TokenWithSpan) -> Vec<TokenWithSpan> {
    let TokenWithSpan { token, span } = token;
    match token {
        Token::CustomBinaryOperator(operator) if operator == "->*" => {
            let name = Token::make_word("*", Some('"'));
            [Token::Arrow, name].map(|token| TokenWithSpan { token, span }).into()
        }
        token => vec![TokenWithSpan { token, span }],
    }
}

fn slice(text: &str, first: &TokenWithSpan, last: &TokenWithSpan) -> String {
    let start = position::of(text, first.span.start).saturating_sub(1);
    let end = position::of(text, last.span.end).saturating_sub(1);
    text.chars().skip(start).take(end.saturating_sub(start)).collect()
}

/// Parses the statement that a parser's tokens hold.
struct StatementParser<'a, 'b> {
    text: &'a str,
    parser: &'a mut Parser<'b>,
}

impl StatementParser<'_, '_> {
    fn statement(&mut self) -> Result<Statement> {
        let statement = self.body()?;
        self.end()?;
        Ok(statement)
    }

    fn body(&mut self) -> Result<Statement> {
        let first = self.parser.peek_token();
        let Token::Word(word) = &first.token else {
            return if first.token == Token::LParen {
                self.query_statement()
            } else {
                self.unexpected("a statement")
            };
        };
        match word.value.to_ascii_uppercase().as_str() {
            "SELECT" | "WITH" | "VALUES" | "TABLE" => self.query_statement(),
            "CREATE" => self.create(),
            "DROP" => self.drop_relation(),
            "INSERT" => self.insert(),
            "UPDATE" => self.update(),
            "DELETE" => self.delete(),
            "TRUNCATE" => self.truncate(),
            "COMMENT" => self.comment(),
            "COPY" => self.copy(),
            _ => self.admin(),
        }
    }

    fn query_statement(&mut self) -> Result<Statement> {
        self.query().map(Statement::Query)
    }

    fn query(&mut self) -> Result<Query> {
        let mut ast = self.with(|p| p.parse_query())?;
        let emit = clauses::take_emit(&mut ast.body);
        Ok(Query { ast, emit })
    }

    /// Runs one of sqlparser's parsers, with errors that carry a position.
    fn with<T>(
        &mut self,
        f: impl FnOnce(&mut Parser<'_>) -> std::result::Result<T, ParserError>,
    ) -> Result<T> {
        f(self.parser).map_err(|error| position::from_parser(self.text, error))
    }

    fn name(&mut self) -> Result<ObjectName> {
        self.with(|p| p.parse_object_name(false))
    }

    fn ident(&mut self) -> Result<Ident> {
        self.with(|p| p.parse_identifier())
    }

    /// Takes the word, whether sqlparser knows it as a keyword or not.
    fn word(&mut self, word: &str) -> bool {
        if word_is(self.parser.peek_token_ref(), word) {
            self.parser.next_token();
            return true;
        }
        false
    }

    fn words(&mut self, words: &[&str]) -> bool {
        let all = words.iter().enumerate().all(|(n, word)| word_is(self.parser.peek_nth_token_ref(n), word));
        if all {
            for _ in words {
                self.parser.next_token();
            }
        }
        all
    }

    fn at_word(&self, word: &str) -> bool {
        word_is(self.parser.peek_token_ref(), word)
    }

    fn expect_word(&mut self, word: &str) -> Result<()> {
        if self.word(word) { Ok(()) } else { self.unexpected(word) }
    }

    /// A text in single quotes; `what` it is.
    fn quoted(&mut self, what: &str) -> Result<String> {
        match self.parser.peek_token().token {
            Token::SingleQuotedString(text) => {
                self.parser.next_token();
                Ok(text)
            }
            _ => self.unexpected(what),
        }
    }

    fn if_not_exists(&mut self) -> bool {
        self.words(&["IF", "NOT", "EXISTS"])
    }

    fn parenthesized_idents(&mut self) -> Result<Vec<Ident>> {
        self.with(|p| p.parse_parenthesized(|p| p.parse_comma_separated(Parser::parse_identifier)))
    }

    fn unexpected<T>(&self, expected: &str) -> Result<T> {
        let found = self.parser.peek_token();
        let message = match &found.token {
            Token::EOF => format!("syntax error at end of input: expected {expected}"),
            token => format!("syntax error at or near \"{token}\": expected {expected}"),
        };
        let position = match found.token {
            Token::EOF => self.text.chars().count() + 1,
            _ => position::of(self.text, found.span.start),
        };
        Err(Error::Syntax { message, position, hint: None })
    }

    fn end(&self) -> Result<()> {
        match self.parser.peek_token_ref().token {
            Token::EOF => Ok(()),
            _ => self.unexpected("end of statement"),
        }
    }

    fn at(&self, token: &Token) -> bool {
        self.parser.peek_token_ref().token == *token
    }

    fn keyword(&mut self, keyword: Keyword) -> bool {
        self.parser.parse_keyword(keyword)
    }
}
