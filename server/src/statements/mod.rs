//! Statements: each becomes an outcome the wire can send.

mod backup;
mod conflict;
mod copy;
mod cursor;
mod ddl;
mod dml;
mod explain;
mod held;
mod insert;
mod lookup;
mod notify;
mod policies;
mod prepare;
mod query;
mod returning;
mod roles;
mod show;

use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use futures::stream::BoxStream;
use sql::sqlparser::ast::SetExpr;
use sql::{CopyOptions, Insert, Parsed, Statement};

pub(crate) use copy::CopyIn;
pub(crate) use cursor::Cursors;
use ddl::Definition;
pub(crate) use lookup::find;
pub(crate) use prepare::{Parameters, Prepared, check_new_statement, prepare};

use crate::audit;
use crate::pg::WireError;
use crate::session::Session;

/// Rows on their way to a client.
pub(crate) struct Rows {
    /// Names of the columns.
    pub(crate) names: Vec<String>,
    /// Their types.
    pub(crate) schema: SchemaRef,
    /// The rows; for a push query they never end.
    pub(crate) batches: BoxStream<'static, Result<RecordBatch, WireError>>,
    /// A push query: rows go out as they come, and no time limit holds.
    pub(crate) endless: bool,
    /// The statement, as its completion is told; how many rows there were is told of SELECT and FETCH.
    pub(crate) tag: &'static str,
    /// Rows go out in binary although the client did not ask for it.
    pub(crate) binary: bool,
}

/// What a statement gives.
pub(crate) enum Outcome {
    /// A command tag.
    Done(String),
    /// Rows.
    Rows(Rows),
    /// Data is to come from the client.
    CopyIn(Box<CopyIn>),
    /// Data goes to the client.
    CopyOut(Rows, CopyOptions),
}

impl Outcome {
    pub(crate) fn done(tag: impl Into<String>) -> Self {
        Self::Done(tag.into())
    }

    /// The same rows, as another statement's.
    fn tagged(mut self, tag: &'static str) -> Self {
        if let Self::Rows(rows) = &mut self {
            rows.tag = tag;
        }
        self
    }
}

/// Runs a statement.
pub(crate) async fn execute(
    session: &mut Session,
    parsed: &Parsed,
    parameters: &Parameters,
) -> Result<Outcome, WireError> {
    let defines = defines(session, &parsed.statement);
    let outcome = run(session, &parsed.statement, &parsed.text, parameters).await;
    if defines {
        audit::statement(session, &parsed.text, outcome.as_ref().err());
    }
    outcome
}

/// Whether a statement changes what there is, or who may do what with it, or takes all of it away.
fn defines(session: &Session, statement: &Statement) -> bool {
    match statement {
        Statement::CreateRelation(_)
        | Statement::CreateAs(_)
        | Statement::Drop(_)
        | Statement::Rename(_)
        | Statement::AddColumns(_)
        | Statement::Comment(_)
        | Statement::Lifecycle { .. }
        | Statement::Role(_)
        | Statement::Policy(_)
        | Statement::Backup(_) => true,
        Statement::Insert(insert) => makes_query(session, insert),
        _ => false,
    }
}

/// Whether INSERT makes a query that writes from now on: where it says so, and where a query keeps the stream, into
/// which nothing is written once.
///
/// Source: ksqlDB, INSERT INTO.
fn makes_query(session: &Session, insert: &Insert) -> bool {
    let Some(query) = &insert.source else { return false };
    let written_out = matches!(query.ast.body.as_ref(), SetExpr::Values(_));
    let catalog = || session.engine().catalog();
    let kept = || catalog().resolve(&insert.name).is_ok_and(|r| r.is_stream() && !r.is_base());
    query.emit.is_some() || (!written_out && kept())
}

async fn run(
    session: &mut Session,
    statement: &Statement,
    text: &str,
    parameters: &Parameters,
) -> Result<Outcome, WireError> {
    session.check_not_failed(statement)?;
    match statement {
        Statement::CreateRelation(create) => ddl::create(session, Definition::Base(create), text).await,
        Statement::CreateAs(create) => ddl::create(session, Definition::As(create), text).await,
        Statement::Lifecycle { action, name } => ddl::lifecycle(session, *action, name.as_ref()).await,
        Statement::Drop(drop) => ddl::drop(session, drop).await,
        Statement::Rename(rename) => ddl::rename(session, rename).await,
        Statement::AddColumns(add) => ddl::add_columns(session, add, text).await,
        Statement::Comment(comment) => ddl::comment(session, comment).await,
        Statement::Refresh(name) => ddl::refresh(session, name).await,
        Statement::Insert(insert) if makes_query(session, insert) => ddl::insert(session, insert, text).await,
        Statement::Insert(insert) => insert::insert(session, insert, parameters).await,
        Statement::Update(update) => dml::update(session, update, parameters).await,
        Statement::Delete(delete) => dml::delete(session, delete, parameters).await,
        Statement::Truncate(names) => dml::truncate(session, names).await,
        Statement::Copy(copy) => copy::copy(session, copy).await,
        Statement::Query(query) if query.emit.is_some() => {
            query::push(session, query, None).await.map(Outcome::Rows)
        }
        Statement::Query(query) => query::pull(session, query, parameters).await.map(Outcome::Rows),
        Statement::Subscribe(subscribe) => {
            query::push(session, &subscribe.query, Some(subscribe)).await.map(Outcome::Rows)
        }
        Statement::Explain(explain) => explain::explain(session, explain).await.map(|o| o.tagged("EXPLAIN")),
        Statement::Flush => {
            let epoch = session.engine().flush().await?;
            session.saw(epoch);
            Ok(Outcome::done("FLUSH"))
        }
        Statement::Backup(target) => backup::backup(session, target).await,
        Statement::ShowObjects(objects) => show::objects(session, *objects).await,
        Statement::ShowSetting(name) => show::setting(session, name.as_deref()).map(|o| o.tagged("SHOW")),
        Statement::Describe(name) => show::describe(session, name).await,
        Statement::Set { name, value } => {
            if !session.settings.set(name, value.clone())? {
                let notice = format!("\"{name}\" has no meaning here and is ignored");
                session.notices.push(WireError::new("00000", notice));
            }
            Ok(Outcome::done("SET"))
        }
        Statement::Reset(name) => {
            match name {
                Some(name) => {
                    session.settings.set(name, None)?;
                }
                None => session.settings.reset(),
            }
            Ok(Outcome::done("RESET"))
        }
        Statement::Begin(isolation) => {
            session.begin(isolation.clone())?;
            Ok(Outcome::done("BEGIN"))
        }
        Statement::Commit => Ok(Outcome::done(if session.commit().await? { "COMMIT" } else { "ROLLBACK" })),
        Statement::Rollback => {
            session.rollback()?;
            Ok(Outcome::done("ROLLBACK"))
        }
        Statement::Savepoint(savepoint) => Ok(Outcome::done(session.savepoint(savepoint)?)),
        Statement::Declare(declare) => cursor::declare(session, declare, parameters).await,
        Statement::Fetch(fetch) => cursor::fetch(session, fetch).await,
        Statement::Close(name) => cursor::close(session, name.as_deref()),
        Statement::Prepare(prepare) => prepare::prepare_named(session, prepare).await,
        Statement::Execute { name, arguments } => prepare::execute_named(session, name, arguments).await,
        Statement::Listen(channel) => {
            session.shared.channels.listen(session.pid, channel);
            Ok(Outcome::done("LISTEN"))
        }
        Statement::Unlisten(channel) => {
            session.shared.channels.unlisten(session.pid, channel.as_deref());
            Ok(Outcome::done("UNLISTEN"))
        }
        Statement::Notify { channel, payload } => {
            session.notify(channel, payload)?;
            Ok(Outcome::done("NOTIFY"))
        }
        Statement::Discard => {
            session.settings.reset();
            session.set_role(None)?;
            session.cursors.clear();
            session.statements.clear();
            session.shared.channels.unlisten(session.pid, None);
            Ok(Outcome::done("DISCARD ALL"))
        }
        Statement::Role(statement) => roles::run(session, statement).await.map(Outcome::done),
        Statement::Policy(statement) => policies::run(session, statement).await.map(Outcome::done),
        Statement::Tuning(tag) => {
            let notice =
                format!("{tag} is accepted and has no effect: primary keys are indexed, and no others");
            session.notices.push(WireError::new("00000", notice));
            Ok(Outcome::done(*tag))
        }
        Statement::Deallocate(name) => {
            match name {
                None => session.statements.clear(),
                Some(name) => drop(session.statements.remove(name).ok_or_else(|| no_statement(name))?),
            }
            Ok(Outcome::done(if name.is_some() { "DEALLOCATE" } else { "DEALLOCATE ALL" }))
        }
    }
}

/// No prepared statement has that name.
pub(crate) fn no_statement(name: &str) -> WireError {
    WireError::new("26000", format!("prepared statement \"{name}\" does not exist"))
}

/// Rows that are there already.
pub(crate) fn ready(names: Vec<String>, batch: RecordBatch) -> Rows {
    let schema = batch.schema();
    let batches = futures::stream::iter([Ok(batch)]);
    Rows { names, schema, batches: Box::pin(batches), endless: false, tag: "SELECT", binary: false }
}

/// Rows of text columns.
pub(crate) fn text_rows(names: &[&str], rows: Vec<Vec<Option<String>>>) -> Result<Rows, WireError> {
    use datafusion::arrow::array::{ArrayRef, StringArray};
    use datafusion::arrow::datatypes::{DataType, Field, Schema};
    let fields: Vec<Field> = names.iter().map(|n| Field::new(*n, DataType::Utf8, true)).collect();
    let columns = (0..names.len())
        .map(|i| -> ArrayRef {
            Arc::new(rows.iter().map(|r| r.get(i).cloned().flatten()).collect::<StringArray>())
        })
        .collect();
    let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?;
    Ok(ready(names.iter().map(|n| (*n).to_owned()).collect(), batch))
}
