//! CREATE and DROP of streams, tables and views.

use sqlparser::ast::{Expr, Ident, UnaryOperator, Value};
use sqlparser::tokenizer::Token;

use super::{StatementParser, fold, word_is};
use crate::ast::{Column, CreateAs, CreateRelation, Drop, Headers, RelationKind, Statement};
use crate::collation::check_collation;
use crate::error::{Error, Result};
use crate::options::{OptionValue, Options};

impl StatementParser<'_, '_> {
    pub(super) fn create(&mut self) -> Result<Statement> {
        self.expect_word("CREATE")?;
        let or_replace = self.words(&["OR", "REPLACE"]);
        if self.word("INDEX") {
            return Ok(self.tuning("CREATE INDEX"));
        }
        if !or_replace && let Some(role) = self.create_role()? {
            return Ok(role);
        }
        if !or_replace && let Some(policy) = self.create_policy()? {
            return Ok(policy);
        }
        let read_only = self.word("SOURCE");
        let kind = self.created_kind()?;
        if read_only && !matches!(kind, RelationKind::Stream | RelationKind::Table) {
            return self.unexpected("STREAM or TABLE");
        }
        if read_only && or_replace {
            return Err(Error::unsupported("CREATE OR REPLACE SOURCE", "DROP it and CREATE SOURCE again"));
        }
        let if_not_exists = self.if_not_exists();
        let name = self.name()?;
        let mut columns = Vec::new();
        let mut names = Vec::new();
        let mut primary_key = Vec::new();
        if self.at(&Token::LParen) {
            match kind {
                RelationKind::Stream | RelationKind::Table => {
                    (columns, primary_key) = self.column_list(kind)?;
                }
                _ => names = self.parenthesized_idents()?,
            }
        }
        let with = self.word("WITH");
        let options = if with { self.options()? } else { Options::default() };
        if self.word("AS") {
            if read_only {
                return self.unexpected("a list of columns: what a query makes is read-only as it is");
            }
            if !columns.is_empty() {
                return Err(Error::unsupported(
                    "a list of columns with AS",
                    "name the columns in the SELECT list",
                ));
            }
            let query = self.query()?;
            // PostgreSQL's WITH DATA is what always happens.
            self.words(&["WITH", "DATA"]);
            return Ok(Statement::CreateAs(CreateAs {
                kind,
                name,
                if_not_exists,
                or_replace,
                columns: names,
                options,
                query,
            }));
        }
        // With options alone it is ksqlDB's statement that takes the columns from elsewhere: the planner says
        // what it thinks of that.
        let is_relation = matches!(kind, RelationKind::Stream | RelationKind::Table);
        if columns.is_empty() && !(with && is_relation) || !names.is_empty() {
            return self.unexpected(if names.is_empty() {
                "a list of columns, or AS and a query"
            } else {
                "AS and a query"
            });
        }
        Ok(Statement::CreateRelation(CreateRelation {
            kind,
            name,
            if_not_exists,
            or_replace,
            read_only,
            columns,
            primary_key,
            options,
        }))
    }

    fn created_kind(&mut self) -> Result<RelationKind> {
        if self.words(&["MATERIALIZED", "VIEW"]) {
            return Ok(RelationKind::MaterializedView);
        }
        for (word, kind) in
            [("STREAM", RelationKind::Stream), ("TABLE", RelationKind::Table), ("VIEW", RelationKind::View)]
        {
            if self.word(word) {
                return Ok(kind);
            }
        }
        for word in [
            "TEMPORARY",
            "TEMP",
            "UNLOGGED",
            "INDEX",
            "SCHEMA",
            "DATABASE",
            "USER",
            "ROLE",
            "TYPE",
            "FUNCTION",
            "SEQUENCE",
            "CONNECTOR",
            "SINK",
            "EXTENSION",
            "TRIGGER",
            "UNIQUE",
            "EXTERNAL",
        ] {
            if self.word(word) {
                return Err(Error::unsupported(
                    format!("CREATE {word}"),
                    "CREATE STREAM, TABLE, VIEW and MATERIALIZED VIEW are",
                ));
            }
        }
        self.unexpected("STREAM, TABLE, VIEW or MATERIALIZED VIEW")
    }

    fn column_list(&mut self, kind: RelationKind) -> Result<(Vec<Column>, Vec<Ident>)> {
        self.with(|p| p.expect_token(&Token::LParen))?;
        let (mut columns, mut primary_key) = (Vec::new(), Vec::new());
        loop {
            if self.word("CONSTRAINT") {
                self.ident()?;
            }
            if self.primary_key(kind)? {
                primary_key = self.parenthesized_idents()?;
            } else {
                for word in ["UNIQUE", "FOREIGN", "CHECK", "EXCLUDE"] {
                    if self.word(word) {
                        return Err(Error::unsupported(
                            format!("the constraint {word}"),
                            "PRIMARY KEY and NOT NULL are",
                        ));
                    }
                }
                columns.push(self.column(kind)?);
            }
            // A comma before the end is forgiven.
            if !self.parser.consume_token(&Token::Comma) || self.at(&Token::RParen) {
                break;
            }
        }
        self.with(|p| p.expect_token(&Token::RParen))?;
        Ok((columns, primary_key))
    }

    /// Takes PRIMARY KEY, which a stream cannot promise.
    fn primary_key(&mut self, kind: RelationKind) -> Result<bool> {
        if kind == RelationKind::Stream && word_is(self.parser.peek_token_ref(), "PRIMARY") {
            return self.unexpected("KEY: a stream keeps all rows, whatever the key of their records");
        }
        Ok(self.words(&["PRIMARY", "KEY"]))
    }

    pub(super) fn column(&mut self, kind: RelationKind) -> Result<Column> {
        let name = self.ident()?;
        let data_type = self.data_type()?;
        let mut column =
            Column { name, data_type, key: false, not_null: false, default: None, headers: None };
        loop {
            if self.primary_key(kind)? || self.word("KEY") {
                column.key = true;
            } else if self.words(&["NOT", "NULL"]) {
                column.not_null = true;
            } else if self.word("DEFAULT") {
                column.default = Some(self.with(|p| p.parse_expr())?);
            } else if self.word("HEADERS") {
                column.headers = Some(Headers::All);
            } else if self.word("HEADER") {
                column.headers = Some(Headers::Of(self.header_key()?));
            } else if self.word("COLLATE") {
                check_collation(&self.with(|p| p.parse_object_name(false))?)?;
            } else if !self.word("NULL") {
                return Ok(column);
            }
        }
    }

    /// `('key')`.
    fn header_key(&mut self) -> Result<String> {
        if !self.parser.consume_token(&Token::LParen) {
            return self.unexpected("the key of a header in parentheses");
        }
        let key = self.quoted("the key of a header in quotes")?;
        if !self.parser.consume_token(&Token::RParen) {
            return self.unexpected(")");
        }
        Ok(key)
    }

    /// `(name = literal, …)`.
    pub(super) fn options(&mut self) -> Result<Options> {
        let pairs = self.with(|p| {
            p.parse_parenthesized(|p| {
                p.parse_comma_separated(|p| {
                    let name = p.parse_identifier()?;
                    if !p.consume_token(&Token::Eq)
                        && matches!(p.peek_token_ref().token, Token::Comma | Token::RParen)
                    {
                        return Ok((name, None));
                    }
                    Ok((name, Some(p.parse_expr()?)))
                })
            })
        })?;
        pairs
            .into_iter()
            .map(|(name, value)| {
                let value =
                    value.as_ref().map_or(Ok(OptionValue::Bool(true)), |v| option_value(&name.value, v))?;
                Ok((name.value, value))
            })
            .collect::<Result<Vec<_>>>()
            .map(Options::new)
    }

    pub(super) fn drop_relation(&mut self) -> Result<Statement> {
        self.expect_word("DROP")?;
        if self.word("INDEX") {
            return Ok(self.tuning("DROP INDEX"));
        }
        if let Some(role) = self.drop_role()? {
            return Ok(role);
        }
        if let Some(policy) = self.drop_policy()? {
            return Ok(policy);
        }
        let kind = self.created_kind()?;
        let if_exists = self.words(&["IF", "EXISTS"]);
        let names = self.with(|p| p.parse_comma_separated(|p| p.parse_object_name(false)))?;
        let delete_topic = self.words(&["DELETE", "TOPIC"]);
        let cascade = self.word("CASCADE");
        if !cascade {
            self.word("RESTRICT");
        }
        Ok(Statement::Drop(Drop { kind, if_exists, names, delete_topic, cascade }))
    }
}

fn option_value(name: &str, expr: &Expr) -> Result<OptionValue> {
    let invalid =
        || Error::InvalidOption { option: name.to_ascii_lowercase(), reason: "expected a literal".into() };
    Ok(match expr {
        Expr::Value(value) => match &value.value {
            Value::SingleQuotedString(text) | Value::DoubleQuotedString(text) => {
                OptionValue::Text(text.clone())
            }
            Value::Number(number, _) => OptionValue::Number(number.clone()),
            Value::Boolean(value) => OptionValue::Bool(*value),
            _ => return Err(invalid()),
        },
        Expr::UnaryOp { op: UnaryOperator::Minus, expr } => match option_value(name, expr)? {
            OptionValue::Number(number) => OptionValue::Number(format!("-{number}")),
            _ => return Err(invalid()),
        },
        Expr::Identifier(ident) => OptionValue::Text(fold(ident)),
        Expr::Interval(_) => OptionValue::Text(expr.to_string()),
        _ => return Err(invalid()),
    })
}
