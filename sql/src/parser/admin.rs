//! Everything that is neither a query nor a change of data: transactions, settings, SHOW, EXPLAIN.

use sqlparser::ast::ObjectName;
use sqlparser::tokenizer::Token;

use super::StatementParser;
use crate::ast::{Comment, Explain, LifecycleAction, Query, ShowObjects, Statement, Subscribe};
use crate::error::{Error, Result};
use crate::roles::RoleStatement;
use crate::settings::normalize_setting;

impl StatementParser<'_, '_> {
    pub(super) fn admin(&mut self) -> Result<Statement> {
        if let Some(statement) = self.transaction() {
            return statement;
        }
        if let Some(statement) = self.session_statement()? {
            return Ok(statement);
        }
        if let Some(grant) = self.grant()? {
            return Ok(grant);
        }
        if self.word("ALTER") {
            return self.alter();
        }
        if self.word("FLUSH") {
            return Ok(Statement::Flush);
        }
        if self.words(&["BACKUP", "TO"]) {
            return self.quoted("a directory in quotes").map(Statement::Backup);
        }
        if self.word("EXPLAIN") {
            return self.explain();
        }
        for (word, action) in [
            ("PAUSE", LifecycleAction::Pause),
            ("RESUME", LifecycleAction::Resume),
            ("TERMINATE", LifecycleAction::Terminate),
        ] {
            if self.word(word) {
                let name = if self.word("ALL") { None } else { Some(self.name()?) };
                return Ok(Statement::Lifecycle { action, name });
            }
        }
        if self.word("SHOW") || self.word("LIST") {
            return self.show();
        }
        if self.word("DESCRIBE") || self.word("DESC") {
            self.word("EXTENDED");
            let name = self.name()?;
            self.word("EXTENDED");
            return Ok(Statement::Describe(name));
        }
        if self.word("SET") {
            return self.set();
        }
        if self.word("RESET") || self.word("UNSET") {
            return if self.word("ALL") {
                Ok(Statement::Reset(None))
            } else if self.word("ROLE") {
                Ok(Statement::Role(RoleStatement::Set(None)))
            } else {
                Ok(Statement::Reset(Some(self.setting()?)))
            };
        }
        if self.words(&["REFRESH", "MATERIALIZED", "VIEW"]) {
            self.word("CONCURRENTLY");
            let name = self.name()?;
            let _ = self.words(&["WITH", "DATA"]);
            return Ok(Statement::Refresh(name));
        }
        if self.word("SUBSCRIBE") {
            return self.subscribe();
        }
        if self.word("DISCARD") {
            self.parser.next_token();
            return Ok(Statement::Discard);
        }
        if self.word("DEALLOCATE") {
            self.word("PREPARE");
            return if self.word("ALL") {
                Ok(Statement::Deallocate(None))
            } else {
                Ok(Statement::Deallocate(Some(super::fold(&self.ident()?))))
            };
        }
        for word in ["VACUUM", "ANALYZE"] {
            if self.word(word) {
                return Ok(self.tuning(word));
            }
        }
        self.unknown()
    }

    /// A statement whose details have no meaning here.
    pub(super) fn tuning(&mut self, tag: &'static str) -> Statement {
        while !self.at(&Token::EOF) {
            self.parser.next_token();
        }
        Statement::Tuning(tag)
    }

    pub(super) fn comment(&mut self) -> Result<Statement> {
        self.word("COMMENT");
        self.expect_word("ON")?;
        let mut column = None;
        let relation = if self.word("COLUMN") {
            let mut parts = self.name()?.0;
            column = parts.pop().and_then(|part| part.as_ident().cloned());
            if parts.is_empty() {
                return self.unexpected("the name of a relation and of its column");
            }
            ObjectName(parts)
        } else {
            if self.relation_kind().is_none() {
                return Err(Error::unsupported("COMMENT ON other than relations and their columns", ""));
            }
            self.name()?
        };
        self.expect_word("IS")?;
        let text = if self.word("NULL") { None } else { Some(self.quoted("a text in quotes, or NULL")?) };
        Ok(Statement::Comment(Comment { relation, column, text }))
    }

    fn unknown(&mut self) -> Result<Statement> {
        let known = ["MERGE", "LOCK", "CALL", "DO", "PRINT", "DEFINE", "UNDEFINE", "CHECKPOINT"];
        for word in known {
            if self.word(word) {
                return Err(Error::unsupported(word, ""));
            }
        }
        self.unexpected("a statement")
    }

    fn transaction(&mut self) -> Option<Result<Statement>> {
        let statement = if self.word("BEGIN") || self.words(&["START", "TRANSACTION"]) {
            return Some(Ok(Statement::Begin(self.transaction_modes())));
        } else if self.word("COMMIT") || self.word("END") {
            Statement::Commit
        } else if self.word("ROLLBACK") || self.word("ABORT") {
            if self.word("TO") {
                return Some(self.rollback_to());
            }
            Statement::Rollback
        } else {
            return None;
        };
        // WORK, TRANSACTION, AND NO CHAIN.
        while !self.at(&Token::EOF) {
            self.parser.next_token();
        }
        Some(Ok(statement))
    }

    /// The isolation level among the modes of a transaction. The others say nothing: every transaction reads
    /// one epoch and writes as a whole.
    fn transaction_modes(&mut self) -> Option<String> {
        const LEVELS: [&[&str]; 4] =
            [&["SERIALIZABLE"], &["REPEATABLE", "READ"], &["READ", "COMMITTED"], &["READ", "UNCOMMITTED"]];
        let mut level = None;
        while !self.at(&Token::EOF) {
            if self.words(&["ISOLATION", "LEVEL"]) {
                level = LEVELS.iter().find(|words| self.words(words)).map(|w| w.join(" ").to_lowercase());
            } else {
                self.parser.next_token();
            }
        }
        level
    }

    fn explain(&mut self) -> Result<Statement> {
        let mut analyze = self.word("ANALYZE");
        self.word("VERBOSE");
        if self.at(&Token::LParen) && !self.parenthesized_query() {
            let options = self.options()?;
            analyze |=
                options.get("analyze").is_some_and(|v| !matches!(v.text().as_str(), "false" | "off" | "0"));
        }
        let statements = [
            "SELECT",
            "WITH",
            "VALUES",
            "TABLE",
            "CREATE",
            "INSERT",
            "UPDATE",
            "DELETE",
            "DROP",
            "COPY",
            "SUBSCRIBE",
        ];
        let first = self.parser.peek_token();
        let is_statement = first.token == Token::LParen
            || statements.iter().any(|word| crate::clauses::word_is(&first, word));
        // The name of a view explains the query that keeps it.
        let statement = if is_statement { self.body()? } else { Statement::Describe(self.name()?) };
        Ok(Statement::Explain(Explain { analyze, statement: Box::new(statement) }))
    }

    fn parenthesized_query(&self) -> bool {
        ["SELECT", "WITH", "VALUES"]
            .iter()
            .any(|word| crate::clauses::word_is(self.parser.peek_nth_token_ref(1), word))
    }

    fn show(&mut self) -> Result<Statement> {
        let objects = [
            ("STREAMS", ShowObjects::Streams),
            ("TABLES", ShowObjects::Tables),
            ("VIEWS", ShowObjects::Views),
            ("QUERIES", ShowObjects::Queries),
            ("TOPICS", ShowObjects::Topics),
            ("FUNCTIONS", ShowObjects::Functions),
        ];
        for (word, objects) in objects {
            if self.word(word) {
                self.word("EXTENDED");
                return Ok(Statement::ShowObjects(objects));
            }
        }
        if self.words(&["MATERIALIZED", "VIEWS"]) {
            return Ok(Statement::ShowObjects(ShowObjects::Views));
        }
        if self.word("ALL") || self.word("PROPERTIES") {
            return Ok(Statement::ShowSetting(None));
        }
        if self.words(&["TRANSACTION", "ISOLATION", "LEVEL"]) {
            return Ok(Statement::ShowSetting(Some("transaction_isolation".into())));
        }
        if self.words(&["TIME", "ZONE"]) {
            return Ok(Statement::ShowSetting(Some("timezone".into())));
        }
        Ok(Statement::ShowSetting(Some(self.setting()?)))
    }

    fn set(&mut self) -> Result<Statement> {
        if let Some(role) = self.set_role()? {
            return Ok(role);
        }
        if !self.word("SESSION") {
            self.word("LOCAL");
        }
        for (word, name) in
            [("CHARACTERISTICS", "default_transaction_isolation"), ("TRANSACTION", "transaction_isolation")]
        {
            if self.word(word) {
                return Ok(Statement::Set { name: name.into(), value: self.transaction_modes() });
            }
        }
        let name = if self.words(&["TIME", "ZONE"]) {
            "timezone".to_owned()
        } else if self.word("NAMES") {
            "client_encoding".to_owned()
        } else {
            let name = self.setting()?;
            if !self.parser.consume_token(&Token::Eq) {
                self.expect_word("TO")?;
            }
            name
        };
        let value = self.set_value()?;
        Ok(Statement::Set { name, value })
    }

    fn set_value(&mut self) -> Result<Option<String>> {
        if self.word("DEFAULT") {
            return Ok(None);
        }
        let mut parts = Vec::new();
        loop {
            let minus = self.parser.consume_token(&Token::Minus);
            let token = self.parser.next_token();
            let text = match token.token {
                Token::SingleQuotedString(text) | Token::EscapedStringLiteral(text) => text,
                Token::Word(word) => word.value,
                Token::Number(number, _) => number,
                _ => {
                    self.parser.prev_token();
                    return self.unexpected("a value");
                }
            };
            parts.push(if minus { format!("-{text}") } else { text });
            if !self.parser.consume_token(&Token::Comma) {
                return Ok(Some(parts.join(", ")));
            }
        }
    }

    /// A setting's name: `statement_timeout`, `millpond.x`, or ksqlDB's quoted `'ksql.x'`.
    fn setting(&mut self) -> Result<String> {
        if let Token::SingleQuotedString(name) = &self.parser.peek_token_ref().token {
            let name = normalize_setting(name);
            self.parser.next_token();
            return Ok(name);
        }
        let name = self.name()?;
        Ok(normalize_setting(&name.to_string().replace('"', "")))
    }

    fn subscribe(&mut self) -> Result<Statement> {
        self.word("TO");
        let query = if self.parser.consume_token(&Token::LParen) {
            let query = self.query()?;
            self.with(|p| p.expect_token(&Token::RParen))?;
            query
        } else {
            let name = self.name()?;
            let Query { ast, emit } = super::parse_query(&format!("SELECT * FROM {name}"))?;
            Query { ast, emit }
        };
        let options = if self.word("WITH") { self.options()? } else { crate::Options::default() };
        for (name, _) in options.iter() {
            match name {
                "snapshot" | "progress" => {}
                "since" => {
                    return Err(Error::unsupported("SUBSCRIBE … WITH (since)", "subscribe with a snapshot"));
                }
                _ => {
                    return Err(Error::InvalidOption {
                        option: name.to_owned(),
                        reason: "SUBSCRIBE knows snapshot and progress".into(),
                    });
                }
            }
        }
        let flag = |name: &str, default: bool| {
            options.get(name).map_or(default, |v| !matches!(v.text().as_str(), "false" | "off" | "0"))
        };
        let (snapshot, progress) = (flag("snapshot", true), flag("progress", false));
        Ok(Statement::Subscribe(Subscribe { query, snapshot, progress }))
    }
}
