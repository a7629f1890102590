//! Statements about which rows of a relation a role may read.
//!
//! Source: PostgreSQL, CREATE POLICY, ALTER POLICY, DROP POLICY, ALTER TABLE … ROW LEVEL SECURITY.

use sqlparser::ast::ObjectName;

/// CREATE POLICY and others like it.
#[derive(Debug, Clone, PartialEq)]
pub enum PolicyStatement {
    /// CREATE POLICY.
    Create {
        /// Its name.
        name: String,
        /// Whose rows.
        relation: ObjectName,
        /// What it says.
        policy: NewPolicy,
    },
    /// ALTER POLICY; what is None stays.
    Alter {
        /// Its name.
        name: String,
        /// Whose rows.
        relation: ObjectName,
        /// RENAME TO.
        rename: Option<String>,
        /// TO; inside, None is PUBLIC.
        to: Option<Vec<Option<String>>>,
        /// USING.
        using: Option<String>,
    },
    /// DROP POLICY.
    Drop {
        /// Its name.
        name: String,
        /// Whose rows.
        relation: ObjectName,
        /// One that is not there is no error.
        if_exists: bool,
    },
    /// ALTER TABLE … ENABLE, DISABLE, FORCE or NO FORCE ROW LEVEL SECURITY.
    Security {
        /// Whose rows.
        relation: ObjectName,
        /// Policies hold, or do not.
        enabled: Option<bool>,
        /// They hold for the owner too, or do not.
        forced: Option<bool>,
    },
}

/// What a policy says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewPolicy {
    /// AS RESTRICTIVE.
    pub restrictive: bool,
    /// FOR SELECT, and not for what writes too.
    pub for_select: bool,
    /// TO; None is PUBLIC.
    pub to: Vec<Option<String>>,
    /// USING, as SQL.
    pub using: String,
}
