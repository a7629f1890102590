//! CREATE POLICY and its like.

use sqlparser::tokenizer::Token;

use super::StatementParser;
use crate::ast::Statement;
use crate::error::{Error, Result};
use crate::policies::{NewPolicy, PolicyStatement};

/// Policies are about reading.
const FOR_SELECT: &str = "policies are FOR SELECT: what a role writes is granted by relation";

impl StatementParser<'_, '_> {
    /// CREATE POLICY, behind CREATE; None for others.
    pub(super) fn create_policy(&mut self) -> Result<Option<Statement>> {
        if !self.word("POLICY") {
            return Ok(None);
        }
        let name = self.role_name()?;
        self.expect_word("ON")?;
        let relation = self.name()?;
        let restrictive = self.word("AS") && {
            let restrictive = self.word("RESTRICTIVE");
            if !restrictive {
                self.expect_word("PERMISSIVE")?;
            }
            restrictive
        };
        let mut for_select = false;
        if self.word("FOR") {
            for_select = self.word("SELECT");
            for command in ["INSERT", "UPDATE", "DELETE"] {
                if !for_select && self.word(command) {
                    return Err(Error::unsupported(format!("a policy FOR {command}"), FOR_SELECT));
                }
            }
            if !for_select {
                self.expect_word("ALL")?;
            }
        }
        let to = if self.at_word("TO") { self.grantees(false)? } else { vec![None] };
        let using = self.using()?;
        self.without_check()?;
        let Some(using) = using else { return self.unexpected("USING (condition)") };
        let policy = NewPolicy { restrictive, for_select, to, using };
        Ok(Some(Statement::Policy(PolicyStatement::Create { name, relation, policy })))
    }

    /// What comes behind ALTER POLICY.
    pub(super) fn alter_policy(&mut self) -> Result<Statement> {
        let name = self.role_name()?;
        self.expect_word("ON")?;
        let relation = self.name()?;
        let (mut rename, mut to, mut using) = (None, None, None);
        if self.words(&["RENAME", "TO"]) {
            rename = Some(self.role_name()?);
        } else {
            if self.at_word("TO") {
                to = Some(self.grantees(false)?);
            }
            using = self.using()?;
            self.without_check()?;
        }
        if (&rename, &to, &using) == (&None, &None, &None) {
            return self.unexpected("RENAME TO, TO or USING");
        }
        Ok(Statement::Policy(PolicyStatement::Alter { name, relation, rename, to, using }))
    }

    /// DROP POLICY, behind DROP; None for others.
    pub(super) fn drop_policy(&mut self) -> Result<Option<Statement>> {
        if !self.word("POLICY") {
            return Ok(None);
        }
        let if_exists = self.words(&["IF", "EXISTS"]);
        let name = self.role_name()?;
        self.expect_word("ON")?;
        let relation = self.name()?;
        let _ = self.word("CASCADE") || self.word("RESTRICT");
        Ok(Some(Statement::Policy(PolicyStatement::Drop { name, relation, if_exists })))
    }

    /// ENABLE, DISABLE, FORCE and NO FORCE of row security: whether it holds, and whether for the owner too.
    pub(super) fn row_security(&mut self) -> Option<(Option<bool>, Option<bool>)> {
        let all: [(&[&str], _); 4] = [
            (&["ENABLE", "ROW", "LEVEL", "SECURITY"], (Some(true), None)),
            (&["DISABLE", "ROW", "LEVEL", "SECURITY"], (Some(false), None)),
            (&["FORCE", "ROW", "LEVEL", "SECURITY"], (None, Some(true))),
            (&["NO", "FORCE", "ROW", "LEVEL", "SECURITY"], (None, Some(false))),
        ];
        all.into_iter().find(|(words, _)| self.words(words)).map(|(_, change)| change)
    }

    fn using(&mut self) -> Result<Option<String>> {
        if !self.word("USING") {
            return Ok(None);
        }
        self.with(|p| {
            p.expect_token(&Token::LParen)?;
            let condition = p.parse_expr()?;
            p.expect_token(&Token::RParen)?;
            Ok(Some(condition.to_string()))
        })
    }

    fn without_check(&mut self) -> Result<()> {
        match self.words(&["WITH", "CHECK"]) {
            true => Err(Error::unsupported("WITH CHECK of a policy", FOR_SELECT)),
            false => Ok(()),
        }
    }
}
