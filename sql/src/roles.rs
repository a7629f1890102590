//! Statements about roles and what they may do.
//!
//! Source: PostgreSQL, CREATE ROLE, GRANT, REVOKE, ALTER DEFAULT PRIVILEGES.

use sqlparser::ast::ObjectName;

/// CREATE ROLE and others like it.
#[derive(Debug, Clone, PartialEq)]
pub enum RoleStatement {
    /// CREATE ROLE, CREATE USER.
    Create {
        /// Its name.
        name: String,
        /// What it is.
        options: RoleOptions,
    },
    /// ALTER ROLE, ALTER USER.
    Alter {
        /// Its name.
        name: String,
        /// What is changed.
        options: RoleOptions,
    },
    /// DROP ROLE, DROP USER.
    Drop {
        /// Their names.
        names: Vec<String>,
        /// One that is not there is no error.
        if_exists: bool,
    },
    /// GRANT and REVOKE of privileges.
    Grant {
        /// Which, by name; empty is ALL.
        privileges: Vec<String>,
        /// On what.
        on: GrantOn,
        /// To whom, or from whom; None is PUBLIC.
        to: Vec<Option<String>>,
        /// REVOKE.
        revoke: bool,
    },
    /// GRANT and REVOKE of roles.
    Member {
        /// Which roles.
        roles: Vec<String>,
        /// Who becomes a member of them, or is one no more.
        members: Vec<String>,
        /// REVOKE.
        revoke: bool,
    },
    /// ALTER DEFAULT PRIVILEGES.
    Default {
        /// Whose relations; None is one's own.
        of: Option<String>,
        /// Which privileges, by name; empty is ALL.
        privileges: Vec<String>,
        /// To whom, or from whom; None is PUBLIC.
        to: Vec<Option<String>>,
        /// REVOKE.
        revoke: bool,
    },
    /// ALTER TABLE … OWNER TO.
    Owner {
        /// The relation.
        relation: ObjectName,
        /// Its owner from now on.
        role: String,
    },
    /// SET ROLE; None is NONE, and RESET ROLE.
    Set(Option<String>),
}

/// What privileges are granted on.
#[derive(Debug, Clone, PartialEq)]
pub enum GrantOn {
    /// Relations.
    Relations(Vec<ObjectName>),
    /// ALL TABLES IN SCHEMA public.
    AllRelations,
    /// The schema.
    Schema,
    /// The database: everybody may connect to it.
    Database,
}

/// What a role is; None is as before, or as PostgreSQL has it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RoleOptions {
    /// LOGIN.
    pub login: Option<bool>,
    /// SUPERUSER.
    pub superuser: Option<bool>,
    /// CREATEROLE.
    pub create_role: Option<bool>,
    /// PASSWORD; inside, None is NULL.
    pub password: Option<Option<Secret>>,
    /// IN ROLE.
    pub in_roles: Vec<String>,
}

/// A text that is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}
