//! CREATE and DROP.

use planner::{Binder, Relation, RelationKind};
use sql::{CreateAs, CreateRelation, Drop};

use super::Outcome;
use crate::pg::WireError;
use crate::session::Session;

fn tag(kind: RelationKind) -> String {
    format!("CREATE {}", kind.sql())
}

pub(super) async fn create(
    session: &mut Session,
    create: &CreateRelation,
    text: &str,
) -> Result<Outcome, WireError> {
    let engine = std::sync::Arc::clone(session.engine());
    let turn = engine.ddl().await;
    let relation = planner::plan_create(create, turn.next_id(), text)?;
    if exists(session, &turn.catalog(), &relation, create.if_not_exists)? {
        return Ok(Outcome::done(tag(create.kind)));
    }
    turn.create(relation).await?;
    Ok(Outcome::done(tag(create.kind)))
}

pub(super) async fn create_as(
    session: &mut Session,
    create: &CreateAs,
    text: &str,
) -> Result<Outcome, WireError> {
    let engine = std::sync::Arc::clone(session.engine());
    let turn = engine.ddl().await;
    let catalog = turn.catalog();
    let binder = Binder { catalog: &catalog, state: &session.shared.state, fallback: None, target: None };
    let relation = planner::plan_create_as(&binder, create, turn.next_id(), text)?;
    if exists(session, &catalog, &relation, create.if_not_exists)? {
        return Ok(Outcome::done(tag(create.kind)));
    }
    turn.create(relation).await?;
    Ok(Outcome::done(tag(create.kind)))
}

/// Whether the name is taken and that is all right.
fn exists(
    session: &mut Session,
    catalog: &planner::Catalog,
    relation: &Relation,
    if_not_exists: bool,
) -> Result<bool, WireError> {
    if catalog.get(&relation.name).is_none() {
        return Ok(false);
    }
    let name = relation.name.clone();
    if !if_not_exists {
        return Err(planner::Error::DuplicateRelation { name }.into());
    }
    session.notices.push(WireError::new("42P07", format!("relation \"{name}\" already exists, skipping")));
    Ok(true)
}

pub(super) async fn drop(session: &mut Session, drop: &Drop) -> Result<Outcome, WireError> {
    let engine = std::sync::Arc::clone(session.engine());
    let turn = engine.ddl().await;
    let relations = planner::plan_drop(&turn.catalog(), drop)?;
    if relations.is_empty() {
        session.notices.push(WireError::new("00000", "there is nothing to drop, skipping"));
    } else {
        let ids: Vec<_> = relations.iter().map(|r| r.id).collect();
        turn.drop(relations).await?;
        ids.into_iter().for_each(|id| session.shared.locks.forget(id));
    }
    Ok(Outcome::done(format!("DROP {}", drop.kind.sql())))
}
