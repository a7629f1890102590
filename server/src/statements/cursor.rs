//! Cursors: a query whose rows are taken a few at a time, by FETCH.
//!
//! Invariant: a cursor goes forward, over the rows of the epoch it was declared at; over a push query FETCH
//! gives what comes, as soon as it comes. It ends with its transaction unless WITH HOLD.
//! Source: PostgreSQL, "DECLARE".

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use futures::StreamExt;
use sql::{Declare, Fetch, FetchCount, Statement};
use tokio::sync::Mutex;

use super::{Outcome, Parameters, Rows, query};
use crate::pg::WireError;
use crate::session::Session;

/// Most cursors of a session.
const MAX_CURSORS: usize = 1_000;

/// The cursors of a session.
#[derive(Default)]
pub(crate) struct Cursors {
    open: HashMap<String, Cursor>,
    /// How many have been declared.
    declared: u64,
}

struct Cursor {
    /// Which of the session's it is.
    number: u64,
    names: Vec<String>,
    schema: SchemaRef,
    hold: bool,
    /// The transaction that declared it has come to something.
    committed: bool,
    binary: bool,
    endless: bool,
    /// Shared with the FETCH that is under way.
    rows: Arc<Mutex<Unread>>,
}

/// Rows that have not been fetched.
struct Unread {
    rows: Rows,
    left: Option<RecordBatch>,
}

impl Unread {
    /// The next rows, at most `most`.
    async fn next(&mut self, most: usize) -> Option<Result<RecordBatch, WireError>> {
        let batch = match self.left.take() {
            Some(batch) => batch,
            None => loop {
                match self.rows.batches.next().await? {
                    Ok(batch) if batch.num_rows() == 0 => {}
                    Ok(batch) => break batch,
                    Err(error) => return Some(Err(error)),
                }
            },
        };
        if batch.num_rows() > most {
            self.left = Some(batch.slice(most, batch.num_rows() - most));
            return Some(Ok(batch.slice(0, most)));
        }
        Some(Ok(batch))
    }
}

impl Cursors {
    fn get(&self, name: &str) -> Result<&Cursor, WireError> {
        let missing = || WireError::new("34000", format!("cursor \"{name}\" does not exist"));
        self.open.get(name).ok_or_else(missing)
    }

    /// A transaction has ended: its cursors go, all of them when it came to nothing; those that earlier ones
    /// held stay.
    pub(crate) fn end(&mut self, committed: bool) {
        self.open.retain(|_, cursor| {
            cursor.committed |= committed;
            cursor.hold && cursor.committed
        });
    }

    pub(crate) fn clear(&mut self) {
        self.open.clear();
    }

    /// How many have been declared until now.
    pub(crate) fn declared(&self) -> u64 {
        self.declared
    }

    /// Closes those that were declared after there were so many.
    pub(crate) fn back_to(&mut self, declared: u64) {
        self.open.retain(|_, cursor| cursor.number <= declared);
    }

    /// What FETCH gives.
    pub(crate) fn columns(&self, name: &str) -> Result<(Vec<String>, SchemaRef), WireError> {
        let cursor = self.get(name)?;
        Ok((cursor.names.clone(), Arc::clone(&cursor.schema)))
    }
}

pub(super) async fn declare(
    session: &mut Session,
    declare: &Declare,
    parameters: &Parameters,
) -> Result<Outcome, WireError> {
    let Declare { name, hold, binary, statement } = declare;
    if session.transaction.is_none() && !hold {
        let message = "DECLARE CURSOR can only be used in transaction blocks";
        return Err(WireError::new("25P01", message).hint("BEGIN first, or say WITH HOLD."));
    }
    if session.cursors.open.contains_key(name) {
        return Err(WireError::new("42P03", format!("cursor \"{name}\" already exists")));
    }
    if session.cursors.open.len() >= MAX_CURSORS {
        return Err(WireError::new("54000", format!("a session has at most {MAX_CURSORS} cursors")));
    }
    let rows = match statement.as_ref() {
        Statement::Query(q) if q.emit.is_none() => query::pull(session, q, parameters).await?,
        Statement::Query(q) => query::push(session, q, None).await?,
        Statement::Subscribe(s) => query::push(session, &s.query, Some(s)).await?,
        _ => return Err(WireError::new("42601", "a cursor needs a query")),
    };
    let (names, schema, endless) = (rows.names.clone(), Arc::clone(&rows.schema), rows.endless);
    let rows = Arc::new(Mutex::new(Unread { rows, left: None }));
    let (hold, binary, committed) = (*hold, *binary, session.transaction.is_none());
    session.cursors.declared += 1;
    let number = session.cursors.declared;
    let cursor = Cursor { number, names, schema, hold, committed, binary, endless, rows };
    session.cursors.open.insert(name.clone(), cursor);
    Ok(Outcome::done("DECLARE CURSOR"))
}

pub(super) async fn fetch(session: &Session, fetch: &Fetch) -> Result<Outcome, WireError> {
    let cursor = session.cursors.get(&fetch.name)?;
    let most = match fetch.count {
        FetchCount::Rows(rows) => rows,
        FetchCount::All => usize::MAX,
    };
    let unread = Arc::clone(&cursor.rows);
    if fetch.moves {
        let (mut unread, mut moved) = (unread.lock().await, 0);
        while moved < most
            && let Some(batch) = unread.next(most - moved).await.transpose()?
        {
            moved += batch.num_rows();
        }
        return Ok(Outcome::done(format!("MOVE {moved}")));
    }
    let batches = futures::stream::unfold((unread, most), |(unread, left)| async move {
        if left == 0 {
            return None;
        }
        let batch = unread.lock().await.next(left).await?;
        let left = batch.as_ref().map_or(0, |batch| left - batch.num_rows());
        Some((batch, (unread, left)))
    });
    Ok(Outcome::Rows(Rows {
        names: cursor.names.clone(),
        schema: Arc::clone(&cursor.schema),
        batches: batches.boxed(),
        endless: cursor.endless,
        tag: "FETCH",
        binary: cursor.binary,
    }))
}

pub(super) fn close(session: &mut Session, name: Option<&str>) -> Result<Outcome, WireError> {
    match name {
        None => session.cursors.clear(),
        Some(name) => {
            session.cursors.get(name)?;
            session.cursors.open.remove(name);
        }
    }
    Ok(Outcome::done(if name.is_some() { "CLOSE CURSOR" } else { "CLOSE CURSOR ALL" }))
}
