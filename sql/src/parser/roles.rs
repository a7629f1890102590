//! CREATE ROLE, GRANT and their like.

use sqlparser::parser::Parser;
use sqlparser::tokenizer::{Token, TokenWithSpan};

use super::{StatementParser, fold};
use crate::ast::Statement;
use crate::clauses::word_is;
use crate::error::{Error, Result};
use crate::roles::{GrantOn, RoleOptions, RoleStatement, Secret};

/// Options that PostgreSQL has and that mean nothing here, or what is so anyway.
const IGNORED: [&str; 9] = [
    "INHERIT",
    "CREATEDB",
    "NOCREATEDB",
    "NOREPLICATION",
    "NOBYPASSRLS",
    "REPLICATION",
    "BYPASSRLS",
    "CREATEUSER",
    "NOCREATEUSER",
];

/// Whether a statement is CREATE or ALTER of a role or user.
pub(super) fn is_about_roles(tokens: &[TokenWithSpan]) -> bool {
    let mut words = tokens.iter().filter(|t| !matches!(t.token, Token::Whitespace(_)));
    let mut next = |all: [&str; 2]| words.next().is_some_and(|t| all.iter().any(|word| word_is(t, word)));
    next(["CREATE", "ALTER"]) && next(["ROLE", "USER"])
}

impl StatementParser<'_, '_> {
    /// CREATE ROLE or CREATE USER, behind CREATE; None for others.
    pub(super) fn create_role(&mut self) -> Result<Option<Statement>> {
        let login = match () {
            () if self.word("USER") => true,
            () if self.word("ROLE") => false,
            () => return Ok(None),
        };
        let name = self.role_name()?;
        let mut options = self.role_options()?;
        options.login.get_or_insert(login);
        Ok(Some(Statement::Role(RoleStatement::Create { name, options })))
    }

    /// DROP ROLE or DROP USER, behind DROP; None for others.
    pub(super) fn drop_role(&mut self) -> Result<Option<Statement>> {
        if !(self.word("USER") || self.word("ROLE")) {
            return Ok(None);
        }
        let if_exists = self.words(&["IF", "EXISTS"]);
        let names = self.role_names()?;
        Ok(Some(Statement::Role(RoleStatement::Drop { names, if_exists })))
    }

    /// GRANT and REVOKE; None for others.
    pub(super) fn grant(&mut self) -> Result<Option<Statement>> {
        let revoke = match () {
            () if self.word("GRANT") => false,
            () if self.word("REVOKE") => true,
            () => return Ok(None),
        };
        self.without_grant_option(revoke)?;
        let names = self.privileges()?;
        if !self.word("ON") {
            let members = self.grantees(revoke)?.into_iter().collect::<Option<Vec<_>>>();
            let (Some(members), false) = (members, names.is_empty()) else {
                return self.unexpected("the names of roles");
            };
            let roles = names.iter().map(|name| name.to_lowercase()).collect();
            return Ok(Some(Statement::Role(RoleStatement::Member { roles, members, revoke })));
        }
        let on = self.granted_on()?;
        let to = self.grantees(revoke)?;
        Ok(Some(Statement::Role(RoleStatement::Grant { privileges: names, on, to, revoke })))
    }

    /// SET ROLE, behind SET; None for others.
    pub(super) fn set_role(&mut self) -> Result<Option<Statement>> {
        if !(self.word("ROLE") || self.words(&["SESSION", "ROLE"]) || self.words(&["LOCAL", "ROLE"])) {
            return Ok(None);
        }
        if self.word("NONE") || self.word("DEFAULT") {
            return Ok(Some(Statement::Role(RoleStatement::Set(None))));
        }
        Ok(Some(Statement::Role(RoleStatement::Set(Some(self.role_name()?)))))
    }

    pub(super) fn default_privileges(&mut self) -> Result<Statement> {
        let of = match self.words(&["FOR", "ROLE"]) || self.words(&["FOR", "USER"]) {
            true => Some(self.role_name()?),
            false => None,
        };
        if self.words(&["IN", "SCHEMA"]) {
            self.schema()?;
        }
        let revoke = match () {
            () if self.word("GRANT") => false,
            () if self.word("REVOKE") => true,
            () => return self.unexpected("GRANT or REVOKE"),
        };
        self.without_grant_option(revoke)?;
        let privileges = self.privileges()?;
        self.expect_word("ON")?;
        self.expect_word("TABLES")?;
        let to = self.grantees(revoke)?;
        Ok(Statement::Role(RoleStatement::Default { of, privileges, to, revoke }))
    }

    /// Names of privileges, or of roles; none for ALL.
    fn privileges(&mut self) -> Result<Vec<String>> {
        if self.word("ALL") {
            self.word("PRIVILEGES");
            return Ok(Vec::new());
        }
        let names = self.with(|p| p.parse_comma_separated(Parser::parse_identifier))?;
        if self.at(&Token::LParen) {
            return Err(Error::unsupported(
                "a privilege on columns",
                "make a view of these columns and grant that",
            ));
        }
        Ok(names.iter().map(fold).collect())
    }

    fn granted_on(&mut self) -> Result<GrantOn> {
        if self.words(&["ALL", "TABLES", "IN", "SCHEMA"]) {
            self.schema()?;
            return Ok(GrantOn::AllRelations);
        }
        if self.word("SCHEMA") {
            self.schema()?;
            return Ok(GrantOn::Schema);
        }
        if self.word("DATABASE") {
            self.name()?;
            return Ok(GrantOn::Database);
        }
        let words: [&[&str]; 4] = [&["TABLE"], &["STREAM"], &["MATERIALIZED", "VIEW"], &["VIEW"]];
        let _ = words.iter().any(|words| self.words(words));
        self.with(|p| p.parse_comma_separated(|p| p.parse_object_name(false))).map(GrantOn::Relations)
    }

    fn schema(&mut self) -> Result<()> {
        let schema = self.ident()?;
        match fold(&schema).as_str() {
            "public" => Ok(()),
            other => Err(Error::unsupported(
                format!("the schema \"{other}\" in a GRANT"),
                "all relations are in the schema public",
            )),
        }
    }

    pub(super) fn grantees(&mut self, revoke: bool) -> Result<Vec<Option<String>>> {
        self.expect_word(if revoke { "FROM" } else { "TO" })?;
        let mut to = Vec::new();
        loop {
            self.word("GROUP");
            to.push(if self.word("PUBLIC") { None } else { Some(self.role_name()?) });
            if !self.parser.consume_token(&Token::Comma) {
                break;
            }
        }
        if self.words(&["WITH", "GRANT", "OPTION"]) || self.words(&["WITH", "ADMIN", "OPTION"]) {
            return Err(no_grant_option());
        }
        if revoke {
            let _ = self.word("CASCADE") || self.word("RESTRICT");
        }
        Ok(to)
    }

    fn without_grant_option(&mut self, revoke: bool) -> Result<()> {
        let option = self.words(&["GRANT", "OPTION", "FOR"]) || self.words(&["ADMIN", "OPTION", "FOR"]);
        if revoke && option { Err(no_grant_option()) } else { Ok(()) }
    }

    fn role_names(&mut self) -> Result<Vec<String>> {
        let mut names = vec![self.role_name()?];
        while self.parser.consume_token(&Token::Comma) {
            names.push(self.role_name()?);
        }
        Ok(names)
    }

    pub(super) fn role_name(&mut self) -> Result<String> {
        Ok(fold(&self.ident()?))
    }

    pub(super) fn role_options(&mut self) -> Result<RoleOptions> {
        let mut options = RoleOptions::default();
        self.word("WITH");
        while !self.at(&Token::EOF) {
            self.role_option(&mut options)?;
        }
        Ok(options)
    }

    fn role_option(&mut self, options: &mut RoleOptions) -> Result<()> {
        if IGNORED.iter().any(|word| self.word(word)) {
            return Ok(());
        }
        for (yes, no, option) in [
            ("LOGIN", "NOLOGIN", &mut options.login),
            ("SUPERUSER", "NOSUPERUSER", &mut options.superuser),
            ("CREATEROLE", "NOCREATEROLE", &mut options.create_role),
        ] {
            if self.word(yes) {
                *option = Some(true);
                return Ok(());
            }
            if self.word(no) {
                *option = Some(false);
                return Ok(());
            }
        }
        if self.words(&["IN", "ROLE"]) || self.words(&["IN", "GROUP"]) {
            options.in_roles = self.role_names()?;
            return Ok(());
        }
        self.word("ENCRYPTED");
        if self.word("PASSWORD") {
            options.password = Some(self.password()?);
            return Ok(());
        }
        for option in ["NOINHERIT", "VALID", "CONNECTION", "ADMIN", "USER"] {
            if self.word(option) {
                return Err(Error::unsupported(format!("the option {option} of a role"), ""));
            }
        }
        self.unexpected("an option of a role")
    }

    fn password(&mut self) -> Result<Option<Secret>> {
        if self.word("NULL") {
            return Ok(None);
        }
        self.quoted("a password in quotes").map(|password| Some(Secret(password)))
    }
}

fn no_grant_option() -> Error {
    Error::unsupported("GRANT OPTION", "owners and superusers grant")
}
