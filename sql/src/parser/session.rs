//! Statements that leave something in the session: cursors, prepared statements, savepoints, channels.

use sqlparser::tokenizer::Token;

use super::{StatementParser, fold};
use crate::ast::{Declare, Fetch, FetchCount, Parsed, Prepare, Savepoint, Statement};
use crate::error::{Error, Result};
use crate::types::arrow_field;

impl StatementParser<'_, '_> {
    /// One of these, if the next word begins one.
    pub(super) fn session_statement(&mut self) -> Result<Option<Statement>> {
        let statement = if self.word("DECLARE") {
            self.declare()?
        } else if self.word("FETCH") {
            Statement::Fetch(self.fetch(false)?)
        } else if self.word("MOVE") {
            Statement::Fetch(self.fetch(true)?)
        } else if self.word("CLOSE") {
            Statement::Close(self.name_or_all()?)
        } else if self.word("SAVEPOINT") {
            Statement::Savepoint(Savepoint::Set(self.session_name()?))
        } else if self.word("RELEASE") {
            self.word("SAVEPOINT");
            Statement::Savepoint(Savepoint::Release(self.session_name()?))
        } else if self.word("PREPARE") {
            self.prepare()?
        } else if self.word("EXECUTE") {
            let name = self.session_name()?;
            let arguments = if self.at(&Token::LParen) {
                self.with(|p| {
                    p.parse_parenthesized(|p| p.parse_comma_separated(sqlparser::parser::Parser::parse_expr))
                })?
            } else {
                Vec::new()
            };
            Statement::Execute { name, arguments }
        } else if self.word("LISTEN") {
            Statement::Listen(self.session_name()?)
        } else if self.word("UNLISTEN") {
            Statement::Unlisten(if self.symbol(&Token::Mul) { None } else { Some(self.session_name()?) })
        } else if self.word("NOTIFY") {
            let channel = self.session_name()?;
            let payload = if self.symbol(&Token::Comma) {
                self.with(|p| p.parse_literal_string())?
            } else {
                String::new()
            };
            Statement::Notify { channel, payload }
        } else {
            return Ok(None);
        };
        Ok(Some(statement))
    }

    /// What follows ROLLBACK TO.
    pub(super) fn rollback_to(&mut self) -> Result<Statement> {
        self.word("SAVEPOINT");
        Ok(Statement::Savepoint(Savepoint::RollBackTo(self.session_name()?)))
    }

    fn session_name(&mut self) -> Result<String> {
        Ok(fold(&self.ident()?))
    }

    fn name_or_all(&mut self) -> Result<Option<String>> {
        if self.word("ALL") { Ok(None) } else { self.session_name().map(Some) }
    }

    fn symbol(&mut self, token: &Token) -> bool {
        let there = self.at(token);
        if there {
            self.parser.next_token();
        }
        there
    }

    fn declare(&mut self) -> Result<Statement> {
        let name = self.session_name()?;
        let mut binary = false;
        loop {
            if self.words(&["NO", "SCROLL"]) || self.word("INSENSITIVE") || self.word("ASENSITIVE") {
                continue;
            }
            if self.word("BINARY") {
                binary = true;
            } else if self.word("SCROLL") {
                return Err(Error::unsupported("SCROLL CURSOR", "a cursor goes forward: leave SCROLL out"));
            } else {
                break;
            }
        }
        self.expect_word("CURSOR")?;
        let hold = self.words(&["WITH", "HOLD"]);
        if !hold {
            self.words(&["WITHOUT", "HOLD"]);
        }
        self.expect_word("FOR")?;
        let statement = Box::new(self.body()?);
        match *statement {
            Statement::Query(_) | Statement::Subscribe(_) => {
                Ok(Statement::Declare(Declare { name, binary, hold, statement }))
            }
            _ => self.unexpected("a query"),
        }
    }

    fn fetch(&mut self, moves: bool) -> Result<Fetch> {
        let mut count = FetchCount::Rows(1);
        if self.word("NEXT") {
        } else if self.word("ALL") {
            count = FetchCount::All;
        } else if self.word("PRIOR")
            || self.word("BACKWARD")
            || self.word("FIRST")
            || self.word("LAST")
            || self.word("ABSOLUTE")
            || self.word("RELATIVE")
        {
            return Err(Error::unsupported("moving a cursor backward", "a cursor goes forward"));
        } else {
            self.word("FORWARD");
            if self.word("ALL") {
                count = FetchCount::All;
            } else if let Token::Number(..) = self.parser.peek_token_ref().token {
                let rows = self.with(|p| p.parse_literal_uint())?;
                count = FetchCount::Rows(usize::try_from(rows).unwrap_or(usize::MAX));
            }
        }
        if !self.word("FROM") {
            self.word("IN");
        }
        Ok(Fetch { name: self.session_name()?, count, moves })
    }

    fn prepare(&mut self) -> Result<Statement> {
        let name = self.session_name()?;
        let mut types = Vec::new();
        if self.symbol(&Token::LParen) {
            loop {
                types.push(arrow_field("", &self.data_type()?)?);
                if !self.symbol(&Token::Comma) {
                    break;
                }
            }
            if !self.symbol(&Token::RParen) {
                return self.unexpected(")");
            }
        }
        self.expect_word("AS")?;
        let statement = self.body()?;
        match statement {
            Statement::Query(_) | Statement::Insert(_) | Statement::Update(_) | Statement::Delete(_) => {
                let prepared = Box::new(Parsed { statement, text: self.text.to_owned() });
                Ok(Statement::Prepare(Prepare { name, types, prepared }))
            }
            _ => self.unexpected("a query, INSERT, UPDATE or DELETE"),
        }
    }
}
