//! CREATE POLICY and its like: another row security of a relation.
//!
//! Invariant: only an owner says who sees which rows, and only by what it may read itself.
//! Source: PostgreSQL, CREATE POLICY, ALTER POLICY, DROP POLICY, ALTER TABLE … ROW LEVEL SECURITY.

use std::collections::BTreeSet;
use std::sync::Arc;

use planner::{
    Access, AccessChange, Catalog, Grantee, Policy, Relation, RelationKind, RowSecurity, check_owner,
};
use sql::PolicyStatement;
use sql::sqlparser::ast::ObjectName;

use super::roles::known;
use crate::pg::WireError;
use crate::session::Session;

/// Numbers of policies begin here.
const FIRST_ID: u32 = 3_000_000_000;

/// Runs a statement; its command tag.
pub(super) async fn run(
    session: &mut Session,
    statement: &PolicyStatement,
) -> Result<&'static str, WireError> {
    let engine = Arc::clone(session.engine());
    let turn = engine.ddl().await;
    let catalog = turn.catalog();
    let access = catalog.access();
    let (name, tag) = match statement {
        PolicyStatement::Create { relation, .. } => (relation, "CREATE POLICY"),
        PolicyStatement::Alter { relation, .. } => (relation, "ALTER POLICY"),
        PolicyStatement::Drop { relation, .. } => (relation, "DROP POLICY"),
        PolicyStatement::Security { relation, .. } => (relation, "ALTER TABLE"),
    };
    let relation = owned(session, &catalog, name)?;
    let mut security = access.row_security(relation.id).cloned().unwrap_or_default();
    match statement {
        PolicyStatement::Create { name, policy, .. } => {
            if security.policies.contains_key(name) {
                return Err(taken(name, &relation));
            }
            let written = relation.is_base() && relation.kind != RelationKind::View;
            if written && !policy.for_select {
                return Err(WireError::unsupported("a policy for more than SELECT on what is written to")
                    .hint("CREATE POLICY … FOR SELECT says who reads which rows; GRANT says who writes."));
            }
            let to = named(access, &policy.to)?;
            check(session, &catalog, &relation, &policy.using)?;
            let id = next_id(access);
            let using = policy.using.clone();
            security.policies.insert(name.clone(), Policy { id, restrictive: policy.restrictive, to, using });
        }
        PolicyStatement::Alter { name, rename, to, using, .. } => {
            let mut policy = security.policies.remove(name).ok_or_else(|| unknown(name, &relation))?;
            if let Some(to) = to {
                policy.to = named(access, to)?;
            }
            if let Some(using) = using {
                check(session, &catalog, &relation, using)?;
                policy.using.clone_from(using);
            }
            let name = rename.as_ref().unwrap_or(name);
            if security.policies.insert(name.clone(), policy).is_some() {
                return Err(taken(name, &relation));
            }
        }
        PolicyStatement::Drop { name, if_exists, .. } => {
            if security.policies.remove(name).is_none() {
                if !if_exists {
                    return Err(unknown(name, &relation));
                }
                let message =
                    format!("policy \"{name}\" for relation \"{}\" does not exist, skipping", relation.name);
                session.notices.push(WireError::new("00000", message));
                return Ok(tag);
            }
        }
        PolicyStatement::Security { enabled, forced, .. } => set(&mut security, *enabled, *forced),
    }
    turn.allow(AccessChange::RowSecurity { relation: relation.id, security }).await?;
    Ok(tag)
}

fn set(security: &mut RowSecurity, enabled: Option<bool>, forced: Option<bool>) {
    security.enabled = enabled.unwrap_or(security.enabled);
    security.forced = forced.unwrap_or(security.forced);
}

fn owned(session: &Session, catalog: &Catalog, name: &ObjectName) -> Result<Arc<Relation>, WireError> {
    let relation = catalog.resolve(name)?;
    check_owner(catalog, session.role(), relation)?;
    Ok(Arc::clone(relation))
}

fn named(access: &Access, to: &[Grantee]) -> Result<BTreeSet<Grantee>, WireError> {
    known(access, to)?;
    Ok(to.iter().cloned().collect())
}

/// The condition means something, with the rights of who says it.
fn check(
    session: &Session,
    catalog: &Catalog,
    relation: &Arc<Relation>,
    using: &str,
) -> Result<(), WireError> {
    Ok(session.binder(catalog).check_condition(relation, using)?)
}

fn next_id(access: &Access) -> u32 {
    access.policies().map(|(_, _, policy)| policy.id + 1).max().unwrap_or(FIRST_ID)
}

fn taken(name: &str, relation: &Relation) -> WireError {
    WireError::new("42710", format!("policy \"{name}\" for table \"{}\" already exists", relation.name))
}

fn unknown(name: &str, relation: &Relation) -> WireError {
    WireError::new("42704", format!("policy \"{name}\" for table \"{}\" does not exist", relation.name))
}
