//! What one connection has: settings, a transaction, the newest epoch it has seen.
//!
//! Invariant: a session's reads never go back, and see what it was told is written.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use datafusion::execution::session_state::SessionState;
use executor::{Engine, Snapshot, Write};
use parking_lot::Mutex;
use planner::{Binder, Catalog, RelationId};
use sql::{Savepoint, Statement};
use tokio::sync::{OwnedRwLockWriteGuard, RwLock};

use crate::channels::{self, Channels, Notification};
use crate::pg::WireError;
use crate::settings::{ROW_SECURITY, Settings, TRANSACTION_ISOLATION};
use crate::statements::{Cursors, Prepared};
use crate::system::Who;

/// Memory that rows of one COPY or transaction may take before they are written.
pub(crate) const PENDING_BYTES: usize = 1 << 30;
/// Most marks of one transaction.
const MAX_SAVEPOINTS: usize = 10_000;
/// How long a write waits for another that changes the same table.
const LOCK_WAIT: Duration = Duration::from_secs(10);

/// What all sessions share.
pub struct Shared {
    /// The engine.
    pub engine: Arc<Engine>,
    /// Functions and options to plan with.
    pub state: datafusion::execution::session_state::SessionState,
    /// Who may write to a table.
    pub locks: TableLocks,
    /// Who is there.
    pub sessions: Sessions,
    /// Who listens to what.
    pub channels: Channels,
}

/// What others see of a session.
#[derive(Debug, Clone, Default)]
pub struct SessionInfo {
    pub(crate) pid: i32,
    pub(crate) user: String,
    pub(crate) application: String,
    pub(crate) address: Option<String>,
    pub(crate) began_ms: i64,
    pub(crate) busy: bool,
    /// Its last statement, and when that came.
    pub(crate) query: String,
    pub(crate) query_ms: Option<i64>,
}

/// Longest text of a statement that others see, bytes.
const SHOWN_BYTES: usize = 1024;

/// The sessions there are.
#[derive(Default)]
pub struct Sessions(Mutex<BTreeMap<i32, SessionInfo>>);

impl Sessions {
    pub(crate) fn add(&self, info: SessionInfo) {
        self.0.lock().insert(info.pid, info);
    }

    pub(crate) fn remove(&self, pid: i32) {
        self.0.lock().remove(&pid);
    }

    /// By process number.
    pub(crate) fn list(&self) -> Vec<SessionInfo> {
        self.0.lock().values().cloned().collect()
    }

    fn change(&self, pid: i32, change: impl FnOnce(&mut SessionInfo)) {
        if let Some(info) = self.0.lock().get_mut(&pid) {
            change(info);
        }
    }
}

/// One lock for each table: shared by INSERT, exclusive for UPDATE and DELETE, which read before
/// they write.
#[derive(Default)]
pub struct TableLocks(Mutex<HashMap<RelationId, Arc<RwLock<()>>>>);

impl TableLocks {
    pub(crate) fn of(&self, id: RelationId) -> Arc<RwLock<()>> {
        Arc::clone(self.0.lock().entry(id).or_default())
    }

    pub(crate) fn forget(&self, id: RelationId) {
        self.0.lock().remove(&id);
    }
}

/// A transaction: what it will write, and the epoch it reads.
pub(crate) struct Transaction {
    /// now() in all its statements, ms since 1970.
    began_ms: i64,
    pub(crate) writes: Vec<Write>,
    pub(crate) snapshot: Option<Arc<Snapshot>>,
    pub(crate) locks: HashMap<RelationId, OwnedRwLockWriteGuard<()>>,
    pub(crate) failed: bool,
    /// Marks, each with how many writes and cursors came before it.
    savepoints: Vec<(String, usize, u64)>,
    /// What listeners are told when it is committed.
    notifications: Vec<Notification>,
}

/// One connection's state.
pub(crate) struct Session {
    pub(crate) shared: Arc<Shared>,
    pub(crate) settings: Settings,
    pub(crate) transaction: Option<Transaction>,
    pub(crate) notices: Vec<WireError>,
    /// Its process number.
    pub(crate) pid: i32,
    pub(crate) cursors: Cursors,
    /// Prepared statements, by PREPARE or by the protocol.
    pub(crate) statements: HashMap<String, Arc<Prepared>>,
    seen_epoch: u64,
    /// Who has connected.
    user: String,
    /// Whose privileges count, by SET ROLE.
    role: Option<String>,
}

impl Session {
    pub(crate) fn new(shared: Arc<Shared>, settings: Settings, pid: i32, user: &str) -> Self {
        Self {
            shared,
            settings,
            user: user.to_owned(),
            role: None,
            transaction: None,
            notices: Vec::new(),
            pid,
            cursors: Cursors::default(),
            statements: HashMap::new(),
            seen_epoch: 0,
        }
    }

    /// Who has connected.
    pub(crate) fn user(&self) -> &str {
        &self.user
    }

    /// Whose privileges count.
    pub(crate) fn role(&self) -> &str {
        self.role.as_deref().unwrap_or(&self.user)
    }

    /// Acts as another role that the user is a member of; None is the user again.
    ///
    /// # Errors
    /// A role that is not there, or that the user is no member of.
    pub(crate) fn set_role(&mut self, role: Option<&str>) -> Result<(), WireError> {
        if let Some(role) = role {
            let catalog = self.engine().catalog();
            if catalog.access().role(role).is_none() {
                return Err(WireError::new("22023", format!("role \"{role}\" does not exist")));
            }
            if !catalog.access().is_member(&self.user, role) {
                let message = format!("permission denied to set role \"{role}\"");
                return Err(WireError::new("42501", message));
            }
        }
        self.role = role.map(str::to_owned);
        Ok(())
    }

    /// What it tells of itself.
    pub(crate) fn who(&self) -> Who<'_> {
        Who { settings: &self.settings, pid: self.pid, user: &self.user, role: self.role() }
    }

    /// A binder that refuses what the role may not read.
    pub(crate) fn binder<'a>(&'a self, catalog: &'a Catalog) -> Binder<'a> {
        let all_or_none = self.settings.get(ROW_SECURITY).is_ok_and(|value| value == "off");
        Binder::new(catalog, &self.shared.state).as_role(self.role()).all_rows_or_none(all_or_none)
    }

    /// A binder of what is asked once, in the session's time zone. What goes on for ever is in UTC.
    pub(crate) fn question_binder<'a>(&'a self, catalog: &'a Catalog) -> Binder<'a> {
        self.binder(catalog).in_zone(self.settings.time_zone())
    }

    /// Lets others see what runs.
    pub(crate) fn begins(&self, query: &str) {
        let (now_ms, end) = (self.engine().now_ms(), query.floor_char_boundary(SHOWN_BYTES));
        let application = self.settings.get("application_name").unwrap_or_default();
        self.shared.sessions.change(self.pid, |info| {
            (info.busy, info.application) = (true, application);
            (info.query, info.query_ms) = (query[..end].to_owned(), Some(now_ms));
        });
    }

    /// Nothing runs any more.
    pub(crate) fn rests(&self) {
        self.shared.sessions.change(self.pid, |info| info.busy = false);
    }

    pub(crate) fn engine(&self) -> &Arc<Engine> {
        &self.shared.engine
    }

    /// Functions and options for a batch query, with now() as PostgreSQL has it: when the transaction
    /// began.
    pub(crate) fn state(&self) -> SessionState {
        let now_ms = self.transaction.as_ref().map_or_else(|| self.engine().now_ms(), |t| t.began_ms);
        planner::state_at(&self.shared.state, now_ms, self.settings.time_zone())
    }

    /// Everything at one epoch, no older than anything this session has seen or written.
    pub(crate) async fn snapshot(&mut self) -> Result<Arc<Snapshot>, WireError> {
        if let Some(snapshot) = self.transaction.as_ref().and_then(|t| t.snapshot.clone()) {
            return Ok(snapshot);
        }
        if self.transaction.is_some() {
            // All its statements read this epoch: what it reads is not known yet.
            self.saw(self.engine().acknowledged());
        }
        let limit = self.settings.milliseconds("read_timeout").unwrap_or(Duration::from_secs(60));
        let snapshot = self.engine().snapshot_at(self.seen_epoch, limit).await?;
        self.seen_epoch = self.seen_epoch.max(snapshot.epoch);
        if let Some(transaction) = &mut self.transaction {
            transaction.snapshot = Some(Arc::clone(&snapshot));
        }
        Ok(snapshot)
    }

    /// Remembers an epoch that the session has been told about.
    pub(crate) fn saw(&mut self, epoch: u64) {
        self.seen_epoch = self.seen_epoch.max(epoch);
    }

    /// Writes rows: now, or with the transaction.
    pub(crate) async fn write(&mut self, writes: Vec<Write>) -> Result<(), WireError> {
        if let Some(transaction) = &mut self.transaction {
            let bytes: usize = transaction.writes.iter().chain(&writes).map(Write::bytes).sum();
            if bytes > PENDING_BYTES {
                return Err(too_large("a transaction"));
            }
            transaction.writes.extend(writes);
            return Ok(());
        }
        let mut held = Vec::new();
        for id in tables(&writes) {
            held.push(self.lock_shared(id).await?);
        }
        let receipt = self.engine().append(writes).await?;
        drop(held);
        self.saw(receipt.epoch);
        Ok(())
    }

    async fn lock_shared(&self, id: RelationId) -> Result<tokio::sync::OwnedRwLockReadGuard<()>, WireError> {
        tokio::time::timeout(LOCK_WAIT, self.shared.locks.of(id).read_owned())
            .await
            .map_err(|_| lock_timeout())
    }

    /// Keeps others from changing a table, to the end of the statement or transaction. The caller
    /// sees everything written before.
    pub(crate) async fn lock(
        &mut self,
        id: RelationId,
    ) -> Result<Option<OwnedRwLockWriteGuard<()>>, WireError> {
        if self.transaction.as_ref().is_some_and(|t| t.locks.contains_key(&id)) {
            return Ok(None);
        }
        let lock = self.shared.locks.of(id);
        let guard = tokio::time::timeout(LOCK_WAIT, lock.write_owned()).await.map_err(|_| lock_timeout())?;
        let epoch = self.engine().flush().await?;
        self.saw(epoch);
        match &mut self.transaction {
            Some(transaction) => {
                // What was read before the lock may have changed since.
                transaction.snapshot = None;
                transaction.locks.insert(id, guard);
                Ok(None)
            }
            None => Ok(Some(guard)),
        }
    }

    /// Begins a transaction. Every level of isolation is kept: it reads one epoch and writes as a whole.
    pub(crate) fn begin(&mut self, isolation: Option<String>) -> Result<(), WireError> {
        if self.transaction.is_some() {
            self.notices.push(WireError::new("25001", "there is already a transaction in progress"));
        } else {
            self.transaction = Some(Transaction {
                began_ms: self.engine().now_ms(),
                writes: Vec::new(),
                snapshot: None,
                locks: HashMap::new(),
                failed: false,
                savepoints: Vec::new(),
                notifications: Vec::new(),
            });
            self.settings.set(TRANSACTION_ISOLATION, isolation)?;
        }
        Ok(())
    }

    /// Ends the transaction; its writes become one atom. True when it was committed.
    pub(crate) async fn commit(&mut self) -> Result<bool, WireError> {
        let Some(transaction) = self.transaction.take() else {
            self.notices.push(WireError::new("25P01", "there is no transaction in progress"));
            return Ok(true);
        };
        self.cursors.end(!transaction.failed);
        self.settings.set(TRANSACTION_ISOLATION, None)?;
        if transaction.failed {
            return Ok(false);
        }
        if !transaction.writes.is_empty() {
            let mut held = Vec::new();
            for id in tables(&transaction.writes) {
                if !transaction.locks.contains_key(&id) {
                    held.push(self.lock_shared(id).await?);
                }
            }
            let receipt = self.engine().append(transaction.writes).await?;
            self.saw(receipt.epoch);
        }
        transaction.notifications.iter().for_each(|n| self.shared.channels.tell(n));
        Ok(true)
    }

    pub(crate) fn rollback(&mut self) -> Result<(), WireError> {
        self.cursors.end(false);
        self.settings.set(TRANSACTION_ISOLATION, None)?;
        if self.transaction.take().is_none() {
            self.notices.push(WireError::new("25P01", "there is no transaction in progress"));
        }
        Ok(())
    }

    /// An error inside a transaction: nothing but its end is possible now.
    pub(crate) fn fail_transaction(&mut self) {
        if let Some(transaction) = &mut self.transaction {
            transaction.failed = true;
            // What came before a savepoint can come back.
            if transaction.savepoints.is_empty() {
                transaction.writes.clear();
                transaction.locks.clear();
            }
        }
    }

    /// Refuses whatever does not end a transaction that has failed.
    pub(crate) fn check_not_failed(&self, statement: &Statement) -> Result<(), WireError> {
        let ends = matches!(
            statement,
            Statement::Commit | Statement::Rollback | Statement::Savepoint(Savepoint::RollBackTo(_))
        );
        if self.transaction.as_ref().is_some_and(|t| t.failed) && !ends {
            let message = "current transaction is aborted, commands ignored until end of transaction block";
            return Err(WireError::new("25P02", message));
        }
        Ok(())
    }

    /// Sets a mark in the transaction, goes back to one, or forgets it.
    pub(crate) fn savepoint(&mut self, savepoint: &Savepoint) -> Result<&'static str, WireError> {
        let tag = match savepoint {
            Savepoint::Set(_) => "SAVEPOINT",
            Savepoint::Release(_) => "RELEASE",
            Savepoint::RollBackTo(_) => "ROLLBACK",
        };
        let Some(transaction) = &mut self.transaction else {
            let what = if tag == "RELEASE" { "RELEASE SAVEPOINT" } else { tag };
            let message = format!("{what} can only be used in transaction blocks");
            return Err(WireError::new("25P01", message));
        };
        let (Savepoint::Release(name) | Savepoint::RollBackTo(name)) = savepoint else {
            if let Savepoint::Set(name) = savepoint {
                if transaction.savepoints.len() >= MAX_SAVEPOINTS {
                    let message = format!("a transaction has at most {MAX_SAVEPOINTS} savepoints");
                    return Err(WireError::new("54000", message));
                }
                let mark = (name.clone(), transaction.writes.len(), self.cursors.declared());
                transaction.savepoints.push(mark);
            }
            return Ok(tag);
        };
        let at = transaction.savepoints.iter().rposition(|(n, ..)| n == name);
        let Some(at) = at else {
            return Err(WireError::new("3B001", format!("savepoint \"{name}\" does not exist")));
        };
        if tag == "RELEASE" {
            transaction.savepoints.truncate(at);
        } else {
            let (_, writes, cursors) = transaction.savepoints[at];
            transaction.writes.truncate(writes);
            self.cursors.back_to(cursors);
            transaction.savepoints.truncate(at + 1);
            transaction.failed = false;
        }
        Ok(tag)
    }

    /// Tells listeners, now or with the transaction.
    pub(crate) fn notify(&mut self, channel: &str, payload: &str) -> Result<(), WireError> {
        let notification =
            Notification { pid: self.pid, channel: channel.to_owned(), payload: payload.to_owned() };
        match &mut self.transaction {
            None => self.shared.channels.tell(&notification),
            Some(t) if t.notifications.len() >= channels::WAITING => {
                return Err(WireError::new("54000", "a transaction has too many notifications"));
            }
            Some(transaction) => transaction.notifications.push(notification),
        }
        Ok(())
    }

    /// Relations the transaction has written to.
    pub(crate) fn written(&self) -> Vec<RelationId> {
        self.transaction
            .as_ref()
            .map(|t| t.writes.iter().map(Write::relation_id).collect())
            .unwrap_or_default()
    }
}

/// The tables among the targets, in one order for everyone.
fn tables(writes: &[Write]) -> Vec<RelationId> {
    let mut ids: Vec<RelationId> = writes.iter().filter(|w| !w.is_stream()).map(Write::relation_id).collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}

fn lock_timeout() -> WireError {
    WireError::new("55P03", "could not obtain lock on a table in time")
        .hint("Another transaction is changing it; try again.")
}

pub(crate) fn too_large(what: &str) -> WireError {
    WireError::new("54000", format!("{what} holds more than {PENDING_BYTES} bytes of rows"))
        .hint("Write in smaller pieces.")
}
