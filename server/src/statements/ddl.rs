//! CREATE and DROP.

use std::sync::Arc;

use executor::{DdlTurn, Halt, QueryStatus};
use planner::{AccessChange, Catalog, Privilege, Relation, RelationId, Securable};
use sql::sqlparser::ast::ObjectName;
use sql::{AddColumns, Comment, CreateAs, CreateRelation, Drop, Insert, LifecycleAction, Rename};

use super::Outcome;
use super::insert::relation_for;
use crate::pg::WireError;
use crate::session::Session;

/// What a CREATE statement says.
#[derive(Clone, Copy)]
pub(super) enum Definition<'a> {
    Base(&'a CreateRelation),
    As(&'a CreateAs),
}

pub(super) async fn create(
    session: &mut Session,
    definition: Definition<'_>,
    text: &str,
) -> Result<Outcome, WireError> {
    let engine = Arc::clone(session.engine());
    let turn = engine.ddl().await;
    let catalog = turn.catalog();
    let (name, or_replace, if_not_exists, kind) = match definition {
        Definition::Base(c) => (&c.name, c.or_replace, c.if_not_exists, c.kind),
        Definition::As(c) => (&c.name, c.or_replace, c.if_not_exists, c.kind),
    };
    let there = catalog.resolve(name).ok().cloned();
    if let Some(there) = there.as_ref().filter(|_| !or_replace) {
        exists(session, there, if_not_exists)?;
        return Ok(Outcome::done(format!("CREATE {}", kind.sql())));
    }
    let replaced = there;
    may_create(session, &catalog, replaced.as_deref())?;
    let id = replaced.as_ref().map_or_else(|| turn.next_id(), |old| old.id);
    let relation = match definition {
        Definition::Base(create) => planner::plan_create(&catalog, create, id, text)?,
        Definition::As(create) => {
            let binder = session.binder(&catalog);
            planner::plan_create_as(&binder, create, id, text)?
        }
    };
    refuse_topic_of_others(session, &catalog, &relation)?;
    if let Some(old) = replaced {
        replace(session, &turn, &old, relation).await?;
    } else {
        note_growth(session, &relation);
        let id = relation.id;
        make(session, &turn, relation).await?;
        if let Err(error) = session.engine().snapshot().table(id) {
            // Its first result failed: nobody has seen it, so it never was.
            let made = turn.catalog().by_id(id).cloned();
            turn.drop(made.into_iter().collect(), false).await?;
            return Err(error.into());
        }
    }
    Ok(Outcome::done(format!("CREATE {}", kind.sql())))
}

/// INSERT INTO … SELECT … EMIT CHANGES: the query that writes to a stream from now on.
pub(super) async fn insert(session: &mut Session, insert: &Insert, text: &str) -> Result<Outcome, WireError> {
    let engine = Arc::clone(session.engine());
    let turn = engine.ddl().await;
    let catalog = turn.catalog();
    let binder = session.binder(&catalog);
    let relation = planner::plan_insert(&binder, insert, turn.next_id(), text)?;
    relation_for(session, &insert.name, &[Privilege::Insert])?;
    note_growth(session, &relation);
    let notice = format!("query \"{}\" writes to \"{}\" from now on", relation.name, insert.name);
    make(session, &turn, relation).await?;
    session.notices.push(WireError::new("00000", notice).hint("DROP STREAM of that name ends it."));
    see_all(session).await?;
    Ok(Outcome::done("INSERT 0 0".to_owned()))
}

/// Makes a relation, which is the session's role's from then on.
async fn make(session: &Session, turn: &DdlTurn<'_>, relation: Relation) -> Result<(), WireError> {
    let owner = AccessChange::Owner { relation: relation.id, role: session.role().to_owned(), new: true };
    turn.create(relation).await?;
    Ok(turn.allow(owner).await?)
}

/// Relations are made by those who may make them, and replaced by their owners.
fn may_create(session: &Session, catalog: &Catalog, replaced: Option<&Relation>) -> Result<(), WireError> {
    match replaced {
        Some(old) => Ok(planner::check_owner(catalog, session.role(), old)?),
        None if catalog.access().may(session.role(), Privilege::Create, Securable::Schema) => Ok(()),
        None => Err(planner::Error::Denied { what: "schema", name: "public".into() }.into()),
    }
}

/// Whoever is on a topic reads all of it and writes to it: that is for those who own what is there.
fn refuse_topic_of_others(
    session: &Session,
    catalog: &Catalog,
    relation: &Relation,
) -> Result<(), WireError> {
    let there = catalog.topic(&relation.topic.name).filter(|_| relation.has_topic());
    for part in there.into_iter().flat_map(|topic| &topic.parts) {
        let owns = match catalog.by_id(part.relation) {
            Some(other) => catalog.access().owns(session.role(), other.id),
            // It was left behind.
            None => catalog.access().is_superuser(session.role()),
        };
        if !owns {
            return Err(planner::Error::Denied { what: "topic", name: relation.topic.name.clone() }.into());
        }
    }
    Ok(())
}

/// Names what may grow for ever.
fn note_growth(session: &mut Session, relation: &Relation) {
    for growth in relation.dataflow().map(|d| d.growth()).unwrap_or_default() {
        let notice =
            WireError::new("00000", format!("the state of \"{}\" has no bound: {growth}", relation.name));
        session.notices.push(notice.hint("WITH (memory_limit = '…') bounds it by an error."));
    }
}

/// CREATE OR REPLACE of what is there.
async fn replace(
    session: &mut Session,
    turn: &DdlTurn<'_>,
    old: &Relation,
    new: Relation,
) -> Result<(), WireError> {
    planner::check_replace(&turn.catalog(), old, &new)?;
    if new.is_base() {
        let notice = format!("the rows of \"{}\" stay", new.name);
        session.notices.push(WireError::new("00000", notice));
    }
    let id = new.id;
    turn.replace(Arc::new(new)).await?;
    went_on(session, id).await
}

/// ALTER … ADD COLUMN.
pub(super) async fn add_columns(
    session: &mut Session,
    add: &AddColumns,
    text: &str,
) -> Result<Outcome, WireError> {
    let engine = Arc::clone(session.engine());
    let turn = engine.ddl().await;
    let catalog = turn.catalog();
    let mut statements = text.to_owned();
    if let Ok(relation) = catalog.resolve(&add.relation) {
        planner::check_owner(&catalog, session.role(), relation)?;
        statements = format!("{};\n{text}", relation.text);
    }
    match planner::plan_add_columns(&catalog, add, &statements)? {
        Some(altered) => {
            turn.replace(Arc::new(altered)).await?;
            see_all(session).await?;
        }
        None => {
            let notice = format!("\"{}\" does not exist or has the columns, skipping", add.relation);
            session.notices.push(WireError::new("00000", notice));
        }
    }
    Ok(Outcome::done(format!("ALTER {}", add.kind.sql())))
}

/// A query goes on; or it has failed again in its first epoch, which is then its error.
async fn went_on(session: &mut Session, id: RelationId) -> Result<(), WireError> {
    see_all(session).await?;
    session.snapshot().await?.table(id)?;
    Ok(())
}

/// What has been done is seen by the session's next statement.
async fn see_all(session: &mut Session) -> Result<(), WireError> {
    let epoch = session.engine().flush().await?;
    session.saw(epoch);
    Ok(())
}

/// PAUSE, RESUME and TERMINATE.
pub(super) async fn lifecycle(
    session: &mut Session,
    action: LifecycleAction,
    name: Option<&ObjectName>,
) -> Result<Outcome, WireError> {
    let engine = Arc::clone(session.engine());
    let turn = engine.ddl().await;
    let catalog = turn.catalog();
    let queries: Vec<Arc<Relation>> = match name {
        Some(name) => vec![Arc::clone(catalog.resolve(name)?)],
        None => {
            let own = |r: &&Arc<Relation>| catalog.access().owns(session.role(), r.id);
            catalog.iter().filter(|r| r.dataflow().is_some()).filter(own).cloned().collect()
        }
    };
    for relation in &queries {
        planner::check_owner(&catalog, session.role(), relation)?;
    }
    if let Some(other) = queries.iter().find(|r| r.dataflow().is_none()) {
        return Err(WireError::new("42809", format!("\"{}\" is not kept by a query", other.name)));
    }
    match action {
        LifecycleAction::Pause => halt(&turn, queries, Halt::Paused).await?,
        LifecycleAction::Terminate => halt(&turn, queries, Halt::Terminated).await?,
        LifecycleAction::Resume => resume(session, &turn, queries).await?,
    }
    see_all(session).await?;
    let tag = match action {
        LifecycleAction::Pause => "PAUSE",
        LifecycleAction::Resume => "RESUME",
        LifecycleAction::Terminate => "TERMINATE",
    };
    Ok(Outcome::done(tag))
}

async fn halt(turn: &DdlTurn<'_>, queries: Vec<Arc<Relation>>, halt: Halt) -> Result<(), WireError> {
    for relation in queries {
        turn.halt(relation, halt).await?;
    }
    Ok(())
}

/// Lets queries go on that stand still or have failed, and those that failed because they read one.
async fn resume(
    session: &mut Session,
    turn: &DdlTurn<'_>,
    queries: Vec<Arc<Relation>>,
) -> Result<(), WireError> {
    let (catalog, snapshot) = (turn.catalog(), session.engine().snapshot());
    let is = |r: &Arc<Relation>, stands: fn(&QueryStatus) -> bool| snapshot.query(r.id).is_some_and(stands);
    let readers: Vec<Arc<Relation>> = queries.iter().flat_map(|r| catalog.readers(r.id)).collect();
    let mut left: Vec<Arc<Relation>> =
        queries.into_iter().filter(|r| is(r, |s| s.error.is_some() || s.halt.is_some())).collect();
    for reader in readers.into_iter().filter(|r| is(r, |s| s.error.is_some())) {
        if !left.iter().any(|r| r.id == reader.id) {
            left.push(reader);
        }
    }
    if left.is_empty() {
        session.notices.push(WireError::new("00000", "nothing stands still, there is nothing to resume"));
    }
    // Those that are read first: their readers are computed from what they are then.
    while !left.is_empty() {
        let reads_another = |r: &Arc<Relation>| left.iter().any(|other| r.sources().contains(&other.id));
        let next = left.iter().position(|r| !reads_another(r)).unwrap_or(0);
        let relation = left.remove(next);
        turn.resume(Arc::clone(&relation)).await?;
        went_on(session, relation.id).await?;
    }
    Ok(())
}

/// The name is taken, which is all right or not.
fn exists(session: &mut Session, there: &Relation, if_not_exists: bool) -> Result<(), WireError> {
    let name = there.name.clone();
    if !if_not_exists {
        return Err(planner::Error::DuplicateRelation { name }.into());
    }
    session.notices.push(WireError::new("42P07", format!("relation \"{name}\" already exists, skipping")));
    Ok(())
}

/// ALTER … RENAME TO.
pub(super) async fn rename(session: &mut Session, rename: &Rename) -> Result<Outcome, WireError> {
    let engine = Arc::clone(session.engine());
    let turn = engine.ddl().await;
    let catalog = turn.catalog();
    match planner::plan_rename(&catalog, rename)? {
        Some((relation, name)) => {
            planner::check_owner(&catalog, session.role(), &relation)?;
            turn.rename(relation.id, name).await?;
        }
        None => {
            let notice = format!("relation \"{}\" does not exist, skipping", rename.relation);
            session.notices.push(WireError::new("00000", notice));
        }
    }
    Ok(Outcome::done(format!("ALTER {}", rename.kind.sql())))
}

/// REFRESH MATERIALIZED VIEW: it is up to date by itself, with all that was written before the session's next
/// statement.
pub(super) async fn refresh(session: &mut Session, name: &ObjectName) -> Result<Outcome, WireError> {
    let catalog = session.engine().catalog();
    let relation = catalog.resolve(name)?;
    planner::check_owner(&catalog, session.role(), relation)?;
    if relation.dataflow().is_none() {
        return Err(WireError::new("42809", format!("\"{}\" is not kept by a query", relation.name)));
    }
    see_all(session).await?;
    Ok(Outcome::done("REFRESH MATERIALIZED VIEW"))
}

/// COMMENT ON.
pub(super) async fn comment(session: &mut Session, comment: &Comment) -> Result<Outcome, WireError> {
    let engine = Arc::clone(session.engine());
    let turn = engine.ddl().await;
    let catalog = turn.catalog();
    planner::check_owner(&catalog, session.role(), catalog.resolve(&comment.relation)?)?;
    turn.comment(planner::plan_comment(&catalog, comment)?).await?;
    Ok(Outcome::done("COMMENT"))
}

pub(super) async fn drop(session: &mut Session, drop: &Drop) -> Result<Outcome, WireError> {
    let engine = Arc::clone(session.engine());
    let turn = engine.ddl().await;
    let catalog = turn.catalog();
    for relation in drop.names.iter().filter_map(|name| catalog.resolve(name).ok()) {
        planner::check_owner(&catalog, session.role(), relation)?;
    }
    let relations = planner::plan_drop(&catalog, drop)?;
    for relation in &relations {
        planner::check_owner(&catalog, session.role(), relation)?;
    }
    if relations.is_empty() {
        session.notices.push(WireError::new("00000", "there is nothing to drop, skipping"));
    } else {
        let ids: Vec<_> = relations.iter().map(|r| r.id).collect();
        turn.drop(relations, drop.delete_topic).await?;
        ids.into_iter().for_each(|id| session.shared.locks.forget(id));
    }
    Ok(Outcome::done(format!("DROP {}", drop.kind.sql())))
}
