//! ALTER of relations, and the way to that of roles.

use sqlparser::tokenizer::Token;

use super::StatementParser;
use crate::ast::{AddColumns, RelationKind, Rename, Statement};
use crate::error::{Error, Result};
use crate::policies::PolicyStatement;
use crate::roles::RoleStatement;

impl StatementParser<'_, '_> {
    /// What comes behind ALTER.
    pub(super) fn alter(&mut self) -> Result<Statement> {
        if self.word("USER") || self.word("ROLE") {
            let name = self.role_name()?;
            let options = self.role_options()?;
            return Ok(Statement::Role(RoleStatement::Alter { name, options }));
        }
        if self.words(&["DEFAULT", "PRIVILEGES"]) {
            return self.default_privileges();
        }
        if self.word("POLICY") {
            return self.alter_policy();
        }
        let Some(kind) = self.relation_kind() else { return Err(Error::unsupported("ALTER", "")) };
        let if_exists = self.words(&["IF", "EXISTS"]);
        let relation = self.name()?;
        if self.words(&["RENAME", "TO"]) {
            let name = self.name()?;
            return Ok(Statement::Rename(Rename { relation, name, if_exists, kind }));
        }
        if self.words(&["OWNER", "TO"]) {
            let role = self.role_name()?;
            return Ok(Statement::Role(RoleStatement::Owner { relation, role }));
        }
        if let Some((enabled, forced)) = self.row_security() {
            return Ok(Statement::Policy(PolicyStatement::Security { relation, enabled, forced }));
        }
        let mut columns = Vec::new();
        while self.word("ADD") {
            self.word("COLUMN");
            let if_not_exists = self.if_not_exists();
            columns.push((self.column(kind)?, if_not_exists));
            if !self.parser.consume_token(&Token::Comma) {
                return Ok(Statement::AddColumns(AddColumns { relation, if_exists, kind, columns }));
            }
        }
        match columns.is_empty() {
            true => {
                let hint = "ADD COLUMN, RENAME TO, OWNER TO and ROW LEVEL SECURITY are";
                Err(Error::unsupported(format!("this ALTER {}", kind.sql()), hint))
            }
            false => self.unexpected("ADD COLUMN"),
        }
    }

    /// The words for a kind of relation, if they come next.
    pub(super) fn relation_kind(&mut self) -> Option<RelationKind> {
        let words: [(&[&str], RelationKind); 4] = [
            (&["TABLE"], RelationKind::Table),
            (&["STREAM"], RelationKind::Stream),
            (&["MATERIALIZED", "VIEW"], RelationKind::MaterializedView),
            (&["VIEW"], RelationKind::View),
        ];
        words.into_iter().find(|(words, _)| self.words(words)).map(|(_, kind)| kind)
    }
}
