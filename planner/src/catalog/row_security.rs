//! Which rows of a relation a role may read: row security and its policies.
//!
//! Invariant: where row security is on, a role sees no row that no policy shows it. Superusers see all rows, and so
//! do owners, unless it is forced. Whom it holds for writes nothing: policies are about reading.
//! Source: PostgreSQL, "Row Security Policies", CREATE POLICY.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::RelationId;
use super::access::{Access, Grantee};

/// What roles may see of a relation's rows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowSecurity {
    /// ENABLE ROW LEVEL SECURITY.
    pub enabled: bool,
    /// FORCE ROW LEVEL SECURITY: it holds for the owner too.
    pub forced: bool,
    /// Policies by name.
    pub policies: BTreeMap<String, Policy>,
}

/// Rows that roles may see.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// Its number, which no other policy has at the same time.
    pub id: u32,
    /// AS RESTRICTIVE: rows must fulfil it beside what shows them.
    pub restrictive: bool,
    /// Whom it holds for; None is PUBLIC.
    pub to: BTreeSet<Grantee>,
    /// USING: the condition of the rows, as SQL.
    pub using: String,
}

impl Access {
    /// The row security of a relation, where any was ever asked for.
    pub fn row_security(&self, relation: RelationId) -> Option<&RowSecurity> {
        self.row_security.get(&relation)
    }

    /// All policies, with their relations and names.
    pub fn policies(&self) -> impl Iterator<Item = (RelationId, &str, &Policy)> {
        self.row_security.iter().flat_map(|(id, security)| {
            security.policies.iter().map(move |(name, policy)| (*id, name.as_str(), policy))
        })
    }

    /// Whether a role sees all rows of a relation that it may read.
    pub fn sees_all(&self, role: &str, relation: RelationId) -> bool {
        self.held_for(role, relation).is_none()
    }

    /// The condition, as SQL, of the rows of a relation that a role sees; None where it sees all.
    pub fn row_condition(&self, role: &str, relation: RelationId) -> Option<String> {
        let security = self.held_for(role, relation)?;
        let roles = self.acts_as(role);
        let holds = |policy: &&Policy| {
            policy.to.iter().any(|to| to.as_ref().is_none_or(|to| roles.contains(to.as_str())))
        };
        let (restrictive, permissive): (Vec<&Policy>, Vec<&Policy>) =
            security.policies.values().filter(holds).partition(|policy| policy.restrictive);
        let usings = |policies: &[&Policy]| {
            policies.iter().map(|policy| format!("({})", policy.using)).collect::<Vec<_>>()
        };
        if permissive.is_empty() {
            return Some("false".to_owned());
        }
        let shown = format!("({})", usings(&permissive).join(" OR "));
        Some([vec![shown], usings(&restrictive)].concat().join(" AND "))
    }

    fn held_for(&self, role: &str, relation: RelationId) -> Option<&RowSecurity> {
        let security = self.row_security(relation).filter(|security| security.enabled)?;
        let passes = self.is_superuser(role) || (!security.forced && self.owns(role, relation));
        (!passes).then_some(security)
    }
}

#[cfg(test)]
mod tests {
    use super::super::access::{AccessChange, Role};
    use super::*;

    fn policy(to: &[Option<&str>], using: &str, restrictive: bool) -> Policy {
        let to = to.iter().map(|to| to.map(str::to_owned)).collect();
        Policy { id: 1, restrictive, to, using: using.to_owned() }
    }

    fn access(security: RowSecurity) -> Access {
        let role = |name: &str, of: &[&str]| {
            let member_of = of.iter().map(|name| (*name).to_owned()).collect();
            AccessChange::Role(Role { name: name.into(), member_of, ..Role::default() })
        };
        Access::default()
            .with(&role("staff", &[]))
            .with(&role("ann", &["staff"]))
            .with(&role("bob", &[]))
            .with(&AccessChange::Owner { relation: 7, role: "bob".into(), new: true })
            .with(&AccessChange::RowSecurity { relation: 7, security })
    }

    #[test]
    fn a_role_sees_what_a_policy_shows_it() {
        let mut security = RowSecurity { enabled: true, ..RowSecurity::default() };
        let none = access(security.clone());
        assert_eq!(none.row_condition("ann", 7).as_deref(), Some("false"));
        assert!(none.sees_all("bob", 7) && none.sees_all("millpond", 7) && none.sees_all("ann", 8));
        security.policies.insert("a".into(), policy(&[Some("staff")], "x > 1", false));
        security.policies.insert("b".into(), policy(&[None], "y OR z", false));
        security.policies.insert("c".into(), policy(&[None], "w", true));
        let some = access(security.clone());
        assert_eq!(some.row_condition("ann", 7).as_deref(), Some("((x > 1) OR (y OR z)) AND (w)"));
        assert_eq!(some.row_condition("eve", 7).as_deref(), Some("((y OR z)) AND (w)"));
        security.forced = true;
        let forced = access(security.clone());
        assert_eq!(forced.row_condition("bob", 7).as_deref(), Some("((y OR z)) AND (w)"));
        assert!(forced.sees_all("millpond", 7));
        security.enabled = false;
        assert!(access(security).sees_all("ann", 7));
    }
}
