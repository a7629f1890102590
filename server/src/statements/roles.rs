//! CREATE ROLE, GRANT and their like: one change of the catalog's access after the other.
//!
//! Invariant: nobody can give what is not theirs: superusers make superusers, owners grant, and roles are changed
//! by those who may make them, or, for a password, by themselves.
//! Source: PostgreSQL, "Database Roles", GRANT.

use std::collections::BTreeSet;

use executor::DdlTurn;
use planner::{Access, AccessChange, FIRST_ROLE, Grantee, Privilege, Role, Securable, check_owner};
use sql::{GrantOn, RoleOptions, RoleStatement};

use crate::pg::{WireError, password_verifier};
use crate::session::Session;

/// Longest name of a role, bytes.
const NAME_BYTES: usize = 63;

/// Privileges of PostgreSQL for what is not here, or what everybody may.
const WITHOUT_MEANING: [&str; 5] = ["usage", "truncate", "references", "trigger", "maintain"];

/// Runs a statement; its command tag.
pub(super) async fn run(session: &mut Session, statement: &RoleStatement) -> Result<&'static str, WireError> {
    if let RoleStatement::Set(role) = statement {
        session.set_role(role.as_deref())?;
        return Ok("SET");
    }
    let engine = std::sync::Arc::clone(session.engine());
    let turn = engine.ddl().await;
    let catalog = turn.catalog();
    let access = catalog.access();
    match statement {
        RoleStatement::Create { name, options } => create(session, &turn, access, name, options).await?,
        RoleStatement::Alter { name, options } => alter(session, &turn, access, name, options).await?,
        RoleStatement::Drop { names, if_exists } => drop(session, &turn, access, names, *if_exists).await?,
        RoleStatement::Grant { privileges, on, to, revoke } => {
            grant(session, &turn, privileges, on, to, *revoke).await?;
        }
        RoleStatement::Member { roles, members, revoke } => {
            member(session, &turn, access, roles, members, *revoke).await?;
        }
        RoleStatement::Default { of, privileges, to, revoke } => {
            let owner = of.clone().unwrap_or_else(|| session.role().to_owned());
            known(access, [Some(owner.clone())].iter().chain(to))?;
            if !access.is_member(session.role(), &owner) {
                return Err(denied("change default privileges"));
            }
            let privileges = named(privileges, &Privilege::OF_RELATIONS)?;
            for to in to.iter().cloned() {
                let (owner, privileges) = (owner.clone(), privileges.clone());
                turn.allow(AccessChange::Default { owner, to, privileges, revoke: *revoke }).await?;
            }
        }
        RoleStatement::Owner { relation, role } => {
            let relation = catalog.resolve(relation)?;
            known(access, &[Some(role.clone())])?;
            check_owner(&catalog, session.role(), relation)?;
            if !access.is_member(session.role(), role) {
                return Err(denied(&format!("give it to role \"{role}\", of which you are no member")));
            }
            turn.allow(AccessChange::Owner { relation: relation.id, role: role.clone(), new: false }).await?;
        }
        RoleStatement::Set(_) => {}
    }
    Ok(tag(statement))
}

fn tag(statement: &RoleStatement) -> &'static str {
    match statement {
        RoleStatement::Create { .. } => "CREATE ROLE",
        RoleStatement::Alter { .. } => "ALTER ROLE",
        RoleStatement::Drop { .. } => "DROP ROLE",
        RoleStatement::Grant { revoke: false, .. } => "GRANT",
        RoleStatement::Grant { .. } => "REVOKE",
        RoleStatement::Member { revoke: false, .. } => "GRANT ROLE",
        RoleStatement::Member { .. } => "REVOKE ROLE",
        RoleStatement::Default { .. } => "ALTER DEFAULT PRIVILEGES",
        RoleStatement::Owner { .. } => "ALTER TABLE",
        RoleStatement::Set(_) => "SET",
    }
}

async fn create(
    session: &Session,
    turn: &DdlTurn<'_>,
    access: &Access,
    name: &str,
    options: &RoleOptions,
) -> Result<(), WireError> {
    manages_roles(session, access, "create role")?;
    if access.role(name).is_some() {
        return Err(WireError::new("42710", format!("role \"{name}\" already exists")));
    }
    if matches!(name, "public" | "none") || name.starts_with("pg_") {
        return Err(WireError::new("42939", format!("role name \"{name}\" is reserved")));
    }
    if name.is_empty() || name.len() > NAME_BYTES {
        return Err(WireError::new("42622", format!("the name of a role has 1 to {NAME_BYTES} bytes")));
    }
    let mut role = Role { name: name.to_owned(), id: access.next_role_id(), ..Role::default() };
    change(session, access, &mut role, options)?;
    for group in &options.in_roles {
        may_give(session, access, group)?;
        role.member_of.insert(group.clone());
    }
    Ok(turn.allow(AccessChange::Role(role)).await?)
}

async fn alter(
    session: &Session,
    turn: &DdlTurn<'_>,
    access: &Access,
    name: &str,
    options: &RoleOptions,
) -> Result<(), WireError> {
    // CURRENT_USER is a name too.
    let name =
        if matches!(name, "current_user" | "current_role" | "session_user") { session.user() } else { name };
    let mut role = access.role(name).cloned().ok_or_else(|| unknown(name))?;
    let only_password = RoleOptions { password: options.password.clone(), ..RoleOptions::default() };
    if name != session.user() || *options != only_password {
        manages_roles(session, access, "alter role")?;
    }
    if role.superuser && !access.is_superuser(session.role()) {
        return Err(denied("alter a superuser"));
    }
    if !options.in_roles.is_empty() {
        return Err(WireError::unsupported("IN ROLE in ALTER ROLE").hint("GRANT role TO role is."));
    }
    change(session, access, &mut role, options)?;
    if name == FIRST_ROLE && !(role.superuser && role.login) {
        return Err(WireError::new(
            "42939",
            format!("role \"{FIRST_ROLE}\" stays a superuser that can log in"),
        ));
    }
    Ok(turn.allow(AccessChange::Role(role)).await?)
}

/// Takes over what options say.
fn change(
    session: &Session,
    access: &Access,
    role: &mut Role,
    options: &RoleOptions,
) -> Result<(), WireError> {
    if options.superuser.is_some_and(|superuser| superuser != role.superuser) {
        if !access.is_superuser(session.role()) {
            return Err(denied("make or unmake superusers"));
        }
        role.superuser = options.superuser == Some(true);
    }
    role.login = options.login.unwrap_or(role.login);
    role.create_role = options.create_role.unwrap_or(role.create_role);
    if let Some(password) = &options.password {
        role.verifier = password.as_ref().map(|password| password_verifier(&password.0)).transpose()?;
    }
    Ok(())
}

async fn drop(
    session: &Session,
    turn: &DdlTurn<'_>,
    access: &Access,
    names: &[String],
    if_exists: bool,
) -> Result<(), WireError> {
    manages_roles(session, access, "drop role")?;
    let catalog = turn.catalog();
    for name in names {
        let Some(role) = access.role(name) else {
            if if_exists {
                continue;
            }
            return Err(unknown(name));
        };
        if name == FIRST_ROLE || name == session.user() || name == session.role() {
            return Err(WireError::new("55006", format!("role \"{name}\" cannot be dropped: it is in use")));
        }
        if role.superuser && !access.is_superuser(session.role()) {
            return Err(denied("drop a superuser"));
        }
        let shown = access.policies().find(|(_, _, policy)| policy.to.contains(&Some(name.clone())));
        if let Some((relation, policy, _)) = shown {
            let relation = catalog.by_id(relation).map_or("", |relation| relation.name.as_str());
            return Err(needed(name, format!("target of policy {policy} on table {relation}")));
        }
        let owned = access.owned_by(name).find_map(|id| catalog.by_id(id));
        if let Some(relation) = owned {
            return Err(needed(name, format!("owner of {} {}", relation.kind.noun(), relation.name))
                .hint("ALTER TABLE … OWNER TO gives them to another role."));
        }
    }
    for name in names.iter().filter(|name| access.role(name).is_some()) {
        turn.allow(AccessChange::DropRole(name.clone())).await?;
    }
    Ok(())
}

async fn grant(
    session: &mut Session,
    turn: &DdlTurn<'_>,
    privileges: &[String],
    on: &GrantOn,
    to: &[Grantee],
    revoke: bool,
) -> Result<(), WireError> {
    let catalog = turn.catalog();
    known(catalog.access(), to)?;
    let mut objects = Vec::new();
    let possible: &[Privilege] = match on {
        GrantOn::Relations(names) => {
            for name in names {
                let relation = catalog.resolve(name)?;
                check_owner(&catalog, session.role(), relation)?;
                objects.push(Securable::Relation(relation.id));
            }
            &Privilege::OF_RELATIONS
        }
        GrantOn::AllRelations => {
            let own = catalog.visible().filter(|r| catalog.access().owns(session.role(), r.id));
            objects.extend(own.map(|r| Securable::Relation(r.id)));
            &Privilege::OF_RELATIONS
        }
        GrantOn::Schema => {
            if !catalog.access().is_superuser(session.role()) {
                return Err(WireError::new("42501", "must be owner of schema public"));
            }
            objects.push(Securable::Schema);
            &[Privilege::Create]
        }
        GrantOn::Database => {
            let notice = "every role that can log in may connect to the database: nothing is changed";
            session.notices.push(WireError::new("00000", notice));
            &[]
        }
    };
    if objects.is_empty() {
        return Ok(());
    }
    let privileges = named(privileges, possible)?;
    for on in objects {
        for to in to.iter().cloned() {
            turn.allow(AccessChange::Grant { on, to, privileges: privileges.clone(), revoke }).await?;
        }
    }
    Ok(())
}

async fn member(
    session: &Session,
    turn: &DdlTurn<'_>,
    access: &Access,
    roles: &[String],
    members: &[String],
    revoke: bool,
) -> Result<(), WireError> {
    for name in members {
        let mut member = access.role(name).cloned().ok_or_else(|| unknown(name))?;
        for role in roles {
            may_give(session, access, role)?;
            if revoke {
                member.member_of.remove(role);
                continue;
            }
            if role == name || access.role(role).is_some_and(|r| !r.superuser) && access.is_member(role, name)
            {
                let message = format!("role \"{name}\" is a member of role \"{role}\"");
                return Err(WireError::new("0LP01", message));
            }
            member.member_of.insert(role.clone());
        }
        turn.allow(AccessChange::Role(member)).await?;
    }
    Ok(())
}

/// Whether a session may make others members of a role.
fn may_give(session: &Session, access: &Access, role: &str) -> Result<(), WireError> {
    let superuser = access.role(role).ok_or_else(|| unknown(role))?.superuser;
    if superuser && !access.is_superuser(session.role()) {
        return Err(denied("grant a superuser's role"));
    }
    manages_roles(session, access, "grant role")
}

fn manages_roles(session: &Session, access: &Access, what: &str) -> Result<(), WireError> {
    let may = access.role(session.role()).is_some_and(|role| role.superuser || role.create_role);
    if may { Ok(()) } else { Err(denied(what)) }
}

/// Privileges by name; none is all that are possible. What has no meaning here is as if it were not there.
fn named(names: &[String], possible: &[Privilege]) -> Result<BTreeSet<Privilege>, WireError> {
    if names.is_empty() {
        return Ok(possible.iter().copied().collect());
    }
    let mut privileges = BTreeSet::new();
    for name in names {
        if let Some(privilege) = Privilege::of_name(name).filter(|p| possible.contains(p)) {
            privileges.insert(privilege);
        } else if !WITHOUT_MEANING.iter().any(|other| other.eq_ignore_ascii_case(name)) {
            return Err(WireError::new(
                "0LP01",
                format!("invalid privilege type {} here", name.to_uppercase()),
            ));
        }
    }
    Ok(privileges)
}

pub(super) fn known<'a>(
    access: &Access,
    roles: impl IntoIterator<Item = &'a Grantee>,
) -> Result<(), WireError> {
    match roles.into_iter().flatten().find(|role| access.role(role).is_none()) {
        Some(role) => Err(unknown(role)),
        None => Ok(()),
    }
}

fn needed(role: &str, by: String) -> WireError {
    let message = format!("role \"{role}\" cannot be dropped because some objects depend on it");
    WireError::new("2BP01", message).detail(by)
}

fn unknown(role: &str) -> WireError {
    WireError::new("42704", format!("role \"{role}\" does not exist"))
}

pub(super) fn denied(what: &str) -> WireError {
    WireError::new("42501", format!("permission denied to {what}"))
}
