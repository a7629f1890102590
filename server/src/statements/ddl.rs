//! CREATE and DROP.

use planner::{Binder, Relation};
use sql::{CreateAs, CreateRelation, Drop};

use super::Outcome;
use crate::pg::WireError;
use crate::session::Session;

/// What a CREATE statement says.
pub(super) enum Definition<'a> {
    Base(&'a CreateRelation),
    As(&'a CreateAs),
}

pub(super) async fn create(
    session: &mut Session,
    definition: Definition<'_>,
    text: &str,
) -> Result<Outcome, WireError> {
    let engine = std::sync::Arc::clone(session.engine());
    let turn = engine.ddl().await;
    let catalog = turn.catalog();
    let (relation, if_not_exists) = match definition {
        Definition::Base(create) => {
            (planner::plan_create(create, turn.next_id(), text)?, create.if_not_exists)
        }
        Definition::As(create) => {
            let binder = Binder::new(&catalog, &session.shared.state);
            (planner::plan_create_as(&binder, create, turn.next_id(), text)?, create.if_not_exists)
        }
    };
    let tag = format!("CREATE {}", relation.kind.sql());
    if !exists(session, &catalog, &relation, if_not_exists)? {
        for growth in relation.dataflow().map(|d| d.growth()).unwrap_or_default() {
            let notice =
                WireError::new("00000", format!("the state of \"{}\" has no bound: {growth}", relation.name));
            session.notices.push(notice.hint("WITH (memory_limit = '…') bounds it by an error."));
        }
        turn.create(relation).await?;
    }
    Ok(Outcome::done(tag))
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
