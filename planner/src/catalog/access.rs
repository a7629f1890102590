//! Who may do what: roles, what is granted to them, and who owns a relation.
//!
//! Invariant: what is not granted is refused. A superuser may do everything, an owner everything with what it
//! owns, a role also what the roles may that it is a member of, and everybody what is granted to PUBLIC.
//! Source: PostgreSQL, "Database Roles" and "Privileges".

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::RelationId;
use super::row_security::RowSecurity;

/// The role there is from the beginning: a superuser, and the owner of what nobody else owns.
pub const FIRST_ROLE: &str = "millpond";

/// Its number: PostgreSQL's first role has it too.
const FIRST_ID: u32 = 10;
/// Numbers of roles that are made begin here, as PostgreSQL's do.
const MADE_FROM: u32 = 16_384;

/// What can be granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Privilege {
    /// Read a relation.
    Select,
    /// Add rows to it.
    Insert,
    /// Change them.
    Update,
    /// Remove them.
    Delete,
    /// Make relations in the schema.
    Create,
}

impl Privilege {
    /// All that can be granted for a relation.
    pub const OF_RELATIONS: [Self; 4] = [Self::Select, Self::Insert, Self::Update, Self::Delete];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Select => "SELECT",
            Self::Insert => "INSERT",
            Self::Update => "UPDATE",
            Self::Delete => "DELETE",
            Self::Create => "CREATE",
        }
    }

    /// Its letter in an access control list of PostgreSQL.
    pub fn letter(self) -> char {
        match self {
            Self::Select => 'r',
            Self::Insert => 'a',
            Self::Update => 'w',
            Self::Delete => 'd',
            Self::Create => 'C',
        }
    }

    /// The privilege of that name, in any case.
    pub fn of_name(name: &str) -> Option<Self> {
        let all = Self::OF_RELATIONS.into_iter().chain([Self::Create]);
        all.into_iter().find(|privilege| privilege.name().eq_ignore_ascii_case(name))
    }
}

/// A role.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Role {
    /// Its name.
    pub name: String,
    /// Its number, which no other role has at the same time.
    pub id: u32,
    /// It may do everything.
    pub superuser: bool,
    /// It may connect.
    pub login: bool,
    /// It may make roles that are no superusers, and change and drop them.
    pub create_role: bool,
    /// What its password is held against: a SCRAM-SHA-256 verifier as PostgreSQL writes it.
    pub verifier: Option<String>,
    /// The roles whose privileges it has too.
    #[serde(default)]
    pub member_of: BTreeSet<String>,
}

/// Who gets a privilege; None is PUBLIC.
pub type Grantee = Option<String>;

/// On what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Securable {
    /// A relation.
    Relation(RelationId),
    /// The schema of all relations.
    Schema,
}

/// One change of what roles there are and what they may.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AccessChange {
    /// A role is made, or is another one from now on.
    Role(Role),
    /// A role goes, with all that was granted to it.
    DropRole(String),
    /// Privileges are granted, or taken back.
    Grant {
        /// On what.
        on: Securable,
        /// To whom.
        to: Grantee,
        /// Which.
        privileges: BTreeSet<Privilege>,
        /// They are taken back.
        revoke: bool,
    },
    /// Privileges on what a role makes from now on are granted, or are no more.
    Default {
        /// Who makes it.
        owner: String,
        /// To whom.
        to: Grantee,
        /// Which.
        privileges: BTreeSet<Privilege>,
        /// They are not granted any more.
        revoke: bool,
    },
    /// A relation has another owner. With what the owner grants by default.
    Owner {
        /// The relation.
        relation: RelationId,
        /// Its owner.
        role: String,
        /// It is new: what its owner grants by default is granted.
        new: bool,
    },
    /// Other rows of a relation are seen from now on.
    RowSecurity {
        /// The relation.
        relation: RelationId,
        /// Who sees which.
        security: RowSecurity,
    },
}

/// Roles and what they may do.
#[derive(Debug, Clone)]
pub struct Access {
    roles: BTreeMap<String, Role>,
    grants: BTreeMap<(Securable, Grantee), BTreeSet<Privilege>>,
    defaults: BTreeMap<(String, Grantee), BTreeSet<Privilege>>,
    owners: BTreeMap<RelationId, String>,
    pub(super) row_security: BTreeMap<RelationId, RowSecurity>,
}

impl Default for Access {
    fn default() -> Self {
        let first = Role {
            name: FIRST_ROLE.to_owned(),
            id: FIRST_ID,
            superuser: true,
            login: true,
            create_role: true,
            ..Role::default()
        };
        let roles = BTreeMap::from([(first.name.clone(), first)]);
        Self {
            roles,
            grants: BTreeMap::new(),
            defaults: BTreeMap::new(),
            owners: BTreeMap::new(),
            row_security: BTreeMap::new(),
        }
    }
}

impl Access {
    /// With a change more.
    #[must_use]
    pub fn with(&self, change: &AccessChange) -> Self {
        let mut next = self.clone();
        match change {
            AccessChange::Role(role) => {
                next.roles.insert(role.name.clone(), role.clone());
            }
            AccessChange::DropRole(name) => next.drop_role(name),
            AccessChange::Grant { on, to, privileges, revoke } => {
                apply(&mut next.grants, (*on, to.clone()), privileges, *revoke);
            }
            AccessChange::Default { owner, to, privileges, revoke } => {
                apply(&mut next.defaults, (owner.clone(), to.clone()), privileges, *revoke);
            }
            AccessChange::Owner { relation, role, new } => next.own(*relation, role, *new),
            AccessChange::RowSecurity { relation, security } => {
                next.row_security.insert(*relation, security.clone());
            }
        }
        next
    }

    /// Without relations that are gone.
    #[must_use]
    pub(super) fn without(&self, ids: &[RelationId]) -> Self {
        let mut next = self.clone();
        next.owners.retain(|id, _| !ids.contains(id));
        next.row_security.retain(|id, _| !ids.contains(id));
        next.grants.retain(|(on, _), _| !matches!(on, Securable::Relation(id) if ids.contains(id)));
        next
    }

    fn drop_role(&mut self, name: &str) {
        self.roles.remove(name);
        for role in self.roles.values_mut() {
            role.member_of.remove(name);
        }
        self.grants.retain(|(_, to), _| to.as_deref() != Some(name));
        self.defaults.retain(|(owner, to), _| owner != name && to.as_deref() != Some(name));
    }

    fn own(&mut self, relation: RelationId, role: &str, new: bool) {
        self.owners.insert(relation, role.to_owned());
        if !new {
            return;
        }
        let granted = self.defaults.iter().filter(|((owner, _), _)| owner == role);
        let granted: Vec<_> = granted.map(|((_, to), privileges)| (to.clone(), privileges.clone())).collect();
        for (to, privileges) in granted {
            apply(&mut self.grants, (Securable::Relation(relation), to), &privileges, false);
        }
    }

    /// The role of that name.
    pub fn role(&self, name: &str) -> Option<&Role> {
        self.roles.get(name)
    }

    /// The role of that number.
    pub fn role_by_id(&self, id: i64) -> Option<&Role> {
        self.roles.values().find(|role| i64::from(role.id) == id)
    }

    /// A number that no role has.
    pub fn next_role_id(&self) -> u32 {
        self.roles.values().map(|role| role.id + 1).max().unwrap_or_default().max(MADE_FROM)
    }

    /// The number of a relation's owner.
    pub fn owner_id(&self, relation: RelationId) -> u32 {
        self.role(self.owner(relation)).map_or(FIRST_ID, |role| role.id)
    }

    /// All roles, by name.
    pub fn roles(&self) -> impl Iterator<Item = &Role> {
        self.roles.values()
    }

    /// Who owns a relation.
    pub fn owner(&self, relation: RelationId) -> &str {
        self.owners.get(&relation).map_or(FIRST_ROLE, String::as_str)
    }

    /// The relations that a role owns.
    pub fn owned_by<'a>(&'a self, role: &'a str) -> impl Iterator<Item = RelationId> + 'a {
        self.owners.iter().filter(move |(_, owner)| *owner == role).map(|(id, _)| *id)
    }

    /// What is granted on something, to whom.
    pub fn granted(&self, on: Securable) -> impl Iterator<Item = (&Grantee, &BTreeSet<Privilege>)> {
        self.grants.iter().filter(move |((what, _), _)| *what == on).map(|((_, to), p)| (to, p))
    }

    /// Whether a role is a superuser.
    pub fn is_superuser(&self, role: &str) -> bool {
        self.roles.get(role).is_some_and(|role| role.superuser)
    }

    /// Whether a role is another one, or a member of it, directly or through others.
    pub fn is_member(&self, role: &str, of: &str) -> bool {
        self.is_superuser(role) || self.acts_as(role).contains(of)
    }

    /// The roles whose privileges a role has: its own, and those of the roles that it is a member of.
    pub(super) fn acts_as<'a>(&'a self, role: &'a str) -> BTreeSet<&'a str> {
        let mut all = BTreeSet::from([role]);
        let mut next = vec![role];
        while let Some(name) = next.pop() {
            let member_of = self.roles.get(name).into_iter().flat_map(|role| &role.member_of);
            next.extend(member_of.map(String::as_str).filter(|name| all.insert(name)));
        }
        all
    }

    /// Whether a role may do as it likes with a relation.
    pub fn owns(&self, role: &str, relation: RelationId) -> bool {
        self.is_member(role, self.owner(relation))
    }

    /// Whether a role has a privilege.
    pub fn may(&self, role: &str, privilege: Privilege, on: Securable) -> bool {
        if self.is_superuser(role) {
            return true;
        }
        let roles = self.acts_as(role);
        let owns = matches!(on, Securable::Relation(id) if roles.contains(self.owner(id)));
        owns || self.granted(on).any(|(to, privileges)| {
            privileges.contains(&privilege) && to.as_ref().is_none_or(|to| roles.contains(to.as_str()))
        })
    }
}

fn apply<K: Ord>(
    grants: &mut BTreeMap<K, BTreeSet<Privilege>>,
    key: K,
    privileges: &BTreeSet<Privilege>,
    revoke: bool,
) {
    let granted = grants.entry(key).or_default();
    if revoke {
        granted.retain(|privilege| !privileges.contains(privilege));
    } else {
        granted.extend(privileges);
    }
    grants.retain(|_, granted| !granted.is_empty());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn role(name: &str, member_of: &[&str]) -> AccessChange {
        let member_of = member_of.iter().map(|name| (*name).to_owned()).collect();
        AccessChange::Role(Role { name: name.into(), member_of, ..Role::default() })
    }

    fn grant(to: Option<&str>, on: Securable, revoke: bool) -> AccessChange {
        let privileges = BTreeSet::from([Privilege::Select]);
        AccessChange::Grant { on, to: to.map(str::to_owned), privileges, revoke }
    }

    #[test]
    fn what_is_granted_may_be_done_and_nothing_else() {
        let table = Securable::Relation(7);
        let access = Access::default()
            .with(&role("readers", &[]))
            .with(&role("ann", &["readers"]))
            .with(&role("bob", &[]))
            .with(&grant(Some("readers"), table, false));
        assert!(access.may(FIRST_ROLE, Privilege::Delete, table));
        assert!(access.may("ann", Privilege::Select, table), "through a role that she is a member of");
        assert!(!access.may("ann", Privilege::Insert, table));
        assert!(!access.may("bob", Privilege::Select, table));
        assert!(!access.may("nobody", Privilege::Select, table));
        let public = access.with(&grant(None, table, false));
        assert!(public.may("bob", Privilege::Select, table));
        let taken = public.with(&grant(None, table, true)).with(&AccessChange::DropRole("readers".into()));
        assert!(!taken.may("bob", Privilege::Select, table));
        assert!(!taken.may("ann", Privilege::Select, table));
    }

    #[test]
    fn an_owner_may_do_everything_and_grants_by_default() {
        let default = AccessChange::Default {
            owner: "ann".into(),
            to: Some("bob".into()),
            privileges: BTreeSet::from([Privilege::Select]),
            revoke: false,
        };
        let owner = AccessChange::Owner { relation: 3, role: "ann".into(), new: true };
        let access =
            Access::default().with(&role("ann", &[])).with(&role("bob", &[])).with(&default).with(&owner);
        let table = Securable::Relation(3);
        assert!(access.owns("ann", 3) && access.may("ann", Privilege::Delete, table));
        assert!(access.may("bob", Privilege::Select, table) && !access.owns("bob", 3));
        let dropped = access.without(&[3]);
        assert_eq!(dropped.owner(3), FIRST_ROLE);
        assert!(!dropped.may("bob", Privilege::Select, table));
    }
}
