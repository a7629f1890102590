//! One connection: messages in, one statement at a time, rows out as they come.
//!
//! A task of its own reads the socket, so that a client that goes away or pipelines is noticed
//! while a statement runs; between it and the statement lies a bounded queue. Whatever runs also
//! listens for a cancel, the end of the client and the end of the server.
//! Source: PostgreSQL, "Message Flow".

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use bytes::{BufMut, BytesMut};
use datafusion::arrow::array::RecordBatch;
use futures::{FutureExt, StreamExt};
use parking_lot::Mutex;
use pgwire::messages::copy::{CopyData, CopyDone, CopyInResponse, CopyOutResponse};
use pgwire::messages::data::{FieldDescription, NoData, ParameterDescription, RowDescription};
use pgwire::messages::extendedquery::{
    Bind, BindComplete, Close, CloseComplete, Describe, Execute, Parse, ParseComplete, PortalSuspended,
};
use pgwire::messages::response::{
    CommandComplete, EmptyQueryResponse, ErrorResponse, NoticeResponse, NotificationResponse, ReadyForQuery,
    TransactionStatus,
};
use pgwire::messages::startup::{Authentication, BackendKeyData, ParameterStatus, SecretKey};
use pgwire::messages::{PgWireBackendMessage as Backend, PgWireFrontendMessage as Frontend};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};

use super::encode::{Format, RowEncoder, columns, text};
use super::entry::{Arrival, Door, Guest, enter};
use super::frames::LOST;
use super::origin::origin;
use super::{WireError, types};
use crate::audit;
use crate::channels::{self, Notification};
use crate::session::{Session, SessionInfo, Shared};
use crate::settings::{Settings, display_name};
use crate::statements::{
    CopyIn, Outcome, Parameters, Prepared, Rows, check_new_statement, execute, find, no_statement, prepare,
};

/// Bytes to a client that are sent together.
const FLUSH_BYTES: usize = 32 << 10;
/// Messages of a client that may wait while a statement runs.
const QUEUE: usize = 64;

/// Who can be cancelled: process number and key of every session.
#[derive(Default)]
pub struct Registry {
    next: AtomicI32,
    sessions: Mutex<HashMap<i32, (i32, watch::Sender<Interrupt>)>>,
}

/// Why a statement must stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Interrupt {
    None,
    Cancel,
    Gone,
    Shutdown,
}

impl Registry {
    fn register(&self, interrupt: watch::Sender<Interrupt>) -> (i32, i32) {
        let pid = self.next.fetch_add(1, Ordering::SeqCst) + 1;
        let key = rand::random();
        self.sessions.lock().insert(pid, (key, interrupt));
        (pid, key)
    }

    fn cancel(&self, pid: i32, key: &SecretKey) {
        let SecretKey::I32(key) = key else { return };
        if let Some((expected, interrupt)) = self.sessions.lock().get(&pid)
            && expected == key
        {
            audit::cancel(pid);
            interrupt.send_if_modified(|state| {
                let idle = *state == Interrupt::None;
                if idle {
                    *state = Interrupt::Cancel;
                }
                idle
            });
        }
    }

    /// Stops what a session runs, or ends it. False when there is no such session.
    pub(crate) fn signal(&self, pid: i32, ends: bool) -> bool {
        let sessions = self.sessions.lock();
        let Some((_, interrupt)) = sessions.get(&pid) else { return false };
        let wanted = if ends { Interrupt::Shutdown } else { Interrupt::Cancel };
        interrupt.send_if_modified(|state| {
            let goes = *state == Interrupt::None || ends;
            if goes {
                *state = wanted;
            }
            goes
        });
        true
    }

    fn remove(&self, pid: i32) {
        self.sessions.lock().remove(&pid);
    }

    /// Number of open sessions.
    pub fn len(&self) -> usize {
        self.sessions.lock().len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Tells every session that the server stops.
    pub fn shut_down(&self) {
        for (_, interrupt) in self.sessions.lock().values() {
            interrupt.send_replace(Interrupt::Shutdown);
        }
    }
}

/// A bound statement, perhaps half read.
struct Portal {
    prepared: Arc<Prepared>,
    parameters: Parameters,
    formats: Vec<Format>,
    running: Option<Running>,
}

/// What a description says: names and types of the result, and how it goes out.
type Described = (Option<(Vec<String>, datafusion::arrow::datatypes::SchemaRef)>, Vec<Format>);

/// Rows of a portal between two Execute messages.
struct Running {
    rows: Rows,
    batch: Option<(RecordBatch, usize)>,
    sent: usize,
}

struct Connection<W> {
    out: W,
    buffer: BytesMut,
    messages: mpsc::Receiver<Result<Frontend, WireError>>,
    interrupt: watch::Receiver<Interrupt>,
    interrupter: watch::Sender<Interrupt>,
    session: Session,
    notifications: mpsc::Receiver<Notification>,
    portals: HashMap<String, Portal>,
    /// After an error in the extended protocol everything up to Sync is passed over.
    skipping: bool,
}

/// Serves one client to its end.
pub(super) async fn handle(
    socket: TcpStream,
    shared: Arc<Shared>,
    registry: Arc<Registry>,
    door: &Door,
    peer: Option<IpAddr>,
) {
    let Guest { mut reader, out, parameters, user } = match enter(socket, door, &shared, peer).await {
        Some(Arrival::Session(guest)) => *guest,
        Some(Arrival::Cancel(request)) => return registry.cancel(request.pid, &request.secret_key),
        None => return,
    };
    let mut settings = Settings::default();
    settings.belong_to(&user, shared.engine.catalog().access().is_superuser(&user));
    for (name, value) in &parameters {
        // What a client sends at start and we do not know is no reason to refuse it.
        if name == "options" {
            for (name, value) in startup_options(value) {
                let _ = settings.set(&name, Some(value));
            }
        } else if !matches!(name.as_str(), "user" | "database" | "replication") {
            let _ = settings.set(&name.to_lowercase(), Some(value.clone()));
        }
    }
    let (interrupter, interrupt) = watch::channel(Interrupt::None);
    let (sender, messages) = mpsc::channel(QUEUE);
    let (pid, key) = registry.register(interrupter.clone());
    let gone = interrupter.clone();
    let reading = tokio::spawn(async move {
        loop {
            match reader.next().await {
                Ok(Some(message)) => {
                    if sender.send(Ok(message)).await.is_err() {
                        return;
                    }
                }
                Ok(None) => break,
                Err(error) => {
                    let (ends, lost) = (error.fatal, error.code == LOST);
                    // The receiver may be gone first.
                    let told = sender.send(Err(error)).await.is_ok();
                    if lost {
                        break;
                    }
                    // A client that is still there gets to know what is wrong.
                    if ends || !told {
                        return;
                    }
                }
            }
        }
        gone.send_replace(Interrupt::Gone);
    });
    let info = SessionInfo {
        pid,
        user: user.clone(),
        application: settings.get("application_name").unwrap_or_default(),
        address: peer.map(|peer| peer.to_canonical().to_string()),
        began_ms: shared.engine.now_ms(),
        ..SessionInfo::default()
    };
    shared.sessions.add(info);
    let (teller, notifications) = mpsc::channel(channels::WAITING);
    shared.channels.add(pid, teller);
    let sessions = Arc::clone(&shared);
    let session = Session::new(shared, settings, pid, &user);
    let mut connection = Connection {
        out,
        buffer: BytesMut::with_capacity(FLUSH_BYTES * 2),
        messages,
        interrupt,
        interrupter,
        session,
        notifications,
        portals: HashMap::new(),
        skipping: false,
    };
    if let Err(error) = connection.run(pid, key).await {
        tracing::debug!(pid, error = %error.message, "connection ended");
    }
    reading.abort();
    registry.remove(pid);
    sessions.sessions.remove(pid);
    sessions.channels.remove(pid);
}

/// Settings in the options of a client: `-c name=value`, `--name=value`.
fn startup_options(options: &str) -> Vec<(String, String)> {
    let mut words = options.split_whitespace();
    let mut found = Vec::new();
    while let Some(word) = words.next() {
        let setting =
            match word.strip_prefix("--").or_else(|| word.strip_prefix("-c").filter(|s| !s.is_empty())) {
                Some(setting) => Some(setting),
                None if word == "-c" => words.next(),
                None => None,
            };
        if let Some((name, value)) = setting.and_then(|s| s.split_once('=')) {
            found.push((name.replace('-', "_").to_lowercase(), value.to_owned()));
        }
    }
    found
}

pub(super) async fn refuse<W: AsyncWrite + Unpin>(out: &mut W, error: WireError) {
    let mut buffer = BytesMut::new();
    put(&mut buffer, Backend::ErrorResponse(ErrorResponse::new(fields(&error, "FATAL"))));
    // The client is about to lose the connection anyway.
    let _ = out.write_all(&buffer).await;
}

/// Sends a message of authentication.
pub(super) async fn say<W: AsyncWrite + Unpin>(
    out: &mut W,
    message: Authentication,
) -> Result<(), WireError> {
    let mut buffer = BytesMut::new();
    put(&mut buffer, Backend::Authentication(message));
    let sent = out.write_all(&buffer).await;
    sent.map_err(|e| WireError::new(LOST, format!("could not write to client: {e}")).fatal())
}

fn put(buffer: &mut BytesMut, message: Backend) {
    if let Err(error) = message.encode(buffer) {
        tracing::error!(%error, "could not encode a message");
    }
}

fn fields(error: &WireError, severity: &str) -> Vec<(u8, String)> {
    let mut fields = vec![
        (b'S', severity.to_owned()),
        (b'V', severity.to_owned()),
        (b'C', error.code.to_owned()),
        (b'M', error.message.clone()),
    ];
    let optional = [
        (b'D', error.detail.clone()),
        (b'H', error.hint.clone()),
        (b'P', error.position.map(|p| p.to_string())),
    ];
    fields.extend(optional.into_iter().filter_map(|(code, value)| Some((code, value?))));
    fields
}

impl<W: AsyncWrite + Unpin> Connection<W> {
    async fn run(&mut self, pid: i32, key: i32) -> Result<(), WireError> {
        self.put(Backend::Authentication(Authentication::Ok));
        let reported: Vec<(String, String)> = self
            .session
            .settings
            .all()
            .filter(|(s, _)| s.reported)
            .map(|(s, value)| (display_name(s.name).to_owned(), value))
            .collect();
        self.session.settings.take_reports();
        for (name, value) in reported {
            self.put(Backend::ParameterStatus(ParameterStatus::new(name, value)));
        }
        self.put(Backend::BackendKeyData(BackendKeyData::new(pid, SecretKey::I32(key))));
        self.ready().await?;
        let mut interrupt = self.interrupt.clone();
        loop {
            let listens = self.session.transaction.is_none();
            let message = tokio::select! {
                message = self.messages.recv() => message,
                Some(notification) = self.notifications.recv(), if listens => {
                    self.put_notification(notification);
                    self.flush().await?;
                    continue;
                }
                () = shutdown(&mut interrupt) => {
                    let error = WireError::shutting_down();
                    self.put_error(&error);
                    self.flush().await?;
                    return Err(error);
                }
            };
            match message {
                None | Some(Ok(Frontend::Terminate(_))) => return Ok(()),
                Some(Err(error)) => {
                    self.fail(&error).await?;
                    self.ready().await?;
                }
                Some(Ok(message)) => self.guarded_message(message).await?,
            }
        }
    }

    /// A panic outside of a statement ends the connection, and says so.
    async fn guarded_message(&mut self, message: Frontend) -> Result<(), WireError> {
        if let Ok(done) = std::panic::AssertUnwindSafe(self.message(message)).catch_unwind().await {
            return done;
        }
        tracing::error!("a message panicked");
        self.fail(&WireError::new("XX000", "internal error: the connection ends").fatal()).await
    }

    fn put(&mut self, message: Backend) {
        put(&mut self.buffer, message);
    }

    fn put_error(&mut self, error: &WireError) {
        let severity = if error.fatal { "FATAL" } else { "ERROR" };
        self.put(Backend::ErrorResponse(ErrorResponse::new(fields(error, severity))));
    }

    fn put_notices(&mut self) {
        for notice in std::mem::take(&mut self.session.notices) {
            let severity = if notice.code.starts_with("25") { "WARNING" } else { "NOTICE" };
            self.put(Backend::NoticeResponse(NoticeResponse::new(fields(&notice, severity))));
        }
    }

    /// Sends what is buffered; a client that does not read holds up only itself, and not for ever:
    /// a cancel or its end is noticed meanwhile.
    async fn flush(&mut self) -> Result<(), WireError> {
        let lost = |e: std::io::Error| WireError::new("08006", format!("connection lost: {e}")).fatal();
        let mut interrupt = self.interrupt.clone();
        let written = tokio::select! {
            written = self.out.write_all(&self.buffer) => written,
            () = gone(&mut interrupt) => return Err(WireError::new("08006", "the client has gone").fatal()),
        };
        written.map_err(lost)?;
        self.buffer.clear();
        self.out.flush().await.map_err(lost)
    }

    fn put_notification(&mut self, Notification { pid, channel, payload }: Notification) {
        self.put(Backend::NotificationResponse(NotificationResponse::new(pid, channel, payload)));
    }

    async fn ready(&mut self) -> Result<(), WireError> {
        if self.session.transaction.is_none() {
            while let Ok(notification) = self.notifications.try_recv() {
                self.put_notification(notification);
            }
        }
        self.session.rests();
        let status = match &self.session.transaction {
            None => TransactionStatus::Idle,
            Some(t) if t.failed => TransactionStatus::Error,
            Some(_) => TransactionStatus::Transaction,
        };
        self.put(Backend::ReadyForQuery(ReadyForQuery::new(status)));
        self.flush().await
    }

    async fn message(&mut self, message: Frontend) -> Result<(), WireError> {
        // A cancel that came between two statements was for the one before.
        self.interrupter.send_if_modified(|state| {
            let stale = *state == Interrupt::Cancel;
            if stale {
                *state = Interrupt::None;
            }
            stale
        });
        let result = match message {
            Frontend::Query(query) => return self.simple(&query.query).await,
            Frontend::Sync(_) => {
                self.skipping = false;
                if self.session.transaction.is_none() {
                    self.portals.clear();
                }
                return self.ready().await;
            }
            Frontend::Flush(_) => return self.flush().await,
            Frontend::CopyData(_) | Frontend::CopyDone(_) | Frontend::CopyFail(_) => return Ok(()),
            _ if self.skipping => return Ok(()),
            Frontend::Parse(parse) => self.parse(parse).await,
            Frontend::Bind(bind) => self.bind(bind),
            Frontend::Describe(describe) => self.describe(&describe),
            Frontend::Execute(execute) => self.execute(&execute).await,
            Frontend::Close(close) => self.close(&close),
            _ => Err(WireError::new("08P01", "unexpected message").fatal()),
        };
        match result {
            Ok(()) => Ok(()),
            Err(error) => {
                self.fail(&error).await?;
                self.skipping = true;
                Ok(())
            }
        }
    }

    /// Reports an error; a fatal one ends the connection.
    async fn fail(&mut self, error: &WireError) -> Result<(), WireError> {
        self.session.fail_transaction();
        self.put_notices();
        self.put_error(error);
        if error.fatal {
            self.flush().await?;
            return Err(error.clone());
        }
        Ok(())
    }

    async fn simple(&mut self, query: &str) -> Result<(), WireError> {
        self.session.begins(query);
        match sql::parse(query) {
            Err(error) => self.fail(&error.into()).await?,
            Ok(statements) if statements.is_empty() => {
                self.put(Backend::EmptyQueryResponse(EmptyQueryResponse::new()))
            }
            Ok(statements) => {
                for parsed in &statements {
                    let outcome = self.interruptible(parsed).await;
                    let sent = match outcome {
                        Ok(outcome) => self.send(outcome).await,
                        Err(error) => Err(error),
                    };
                    if let Err(error) = sent {
                        self.fail(&error.placed(query)).await?;
                        break;
                    }
                }
            }
        }
        self.ready().await
    }

    async fn interruptible(&mut self, parsed: &sql::Parsed) -> Result<Outcome, WireError> {
        let limit = self.session.settings.milliseconds("statement_timeout");
        let mut interrupt = self.interrupt.clone();
        let parameters = Parameters::default();
        let run = guarded(execute(&mut self.session, parsed, &parameters));
        race(run, &mut interrupt, limit).await
    }

    async fn send(&mut self, outcome: Outcome) -> Result<(), WireError> {
        self.put_notices();
        match outcome {
            Outcome::Done(tag) => {
                self.put_status_changes();
                self.complete(&tag);
            }
            Outcome::Rows(rows) => {
                let format = if rows.binary { Format::Binary } else { Format::Text };
                let (formats, tag) = (vec![format; rows.schema.fields().len()], rows.tag);
                self.put_row_description(&rows.names, &rows.schema, &formats);
                let mut running = Running { rows, batch: None, sent: 0 };
                self.send_rows(&mut running, &formats, 0).await?;
                self.complete(&completion(tag, running.sent));
            }
            Outcome::CopyIn(copy) => {
                let count = self.copy_in(*copy).await?;
                self.complete(&format!("COPY {count}"));
            }
            Outcome::CopyOut(rows, options) => {
                let count = self.copy_out(rows, &options).await?;
                self.complete(&format!("COPY {count}"));
            }
        }
        Ok(())
    }

    fn complete(&mut self, tag: &str) {
        self.put(Backend::CommandComplete(CommandComplete::new(tag.to_owned())));
    }

    /// Tells the client of settings it keeps a copy of.
    fn put_status_changes(&mut self) {
        for (name, value) in self.session.settings.take_reports() {
            self.put(Backend::ParameterStatus(ParameterStatus::new(name.into(), value)));
        }
    }

    fn put_row_description(
        &mut self,
        names: &[String],
        schema: &datafusion::arrow::datatypes::SchemaRef,
        formats: &[Format],
    ) {
        let fields = names
            .iter()
            .zip(schema.fields().iter().map(|field| origin(field)).zip(columns(schema)))
            .zip(formats)
            .map(|((name, ((relation, column), pg)), format)| {
                FieldDescription::new(
                    name.clone(),
                    relation,
                    column,
                    pg.oid,
                    pg.size,
                    pg.modifier,
                    i16::from(*format == Format::Binary),
                )
            })
            .collect();
        self.put(Backend::RowDescription(RowDescription::new(fields)));
    }

    /// Sends rows until there are no more or `most` (0: all) are sent. True when there may be more.
    async fn send_rows(
        &mut self,
        running: &mut Running,
        formats: &[Format],
        most: usize,
    ) -> Result<bool, WireError> {
        let encoder = RowEncoder::new(&running.rows.schema, formats);
        let mut left = if most == 0 { usize::MAX } else { most };
        let limit =
            if running.rows.endless { None } else { self.session.settings.milliseconds("statement_timeout") };
        let deadline = limit.map(|l| tokio::time::Instant::now() + l);
        loop {
            if let Some((batch, at)) = running.batch.take() {
                let prepared = RowEncoder::prepare(&batch)?;
                let end = batch.num_rows().min(at.saturating_add(left));
                for row in at..end {
                    encoder.data_row(&prepared, row, &mut self.buffer);
                    if self.buffer.len() >= FLUSH_BYTES {
                        self.check_interrupt()?;
                        self.flush().await?;
                    }
                }
                running.sent += end - at;
                left -= end - at;
                if end < batch.num_rows() {
                    running.batch = Some((batch, end));
                    return Ok(true);
                }
                if left == 0 {
                    return Ok(true);
                }
            }
            match self.next_batch(&mut running.rows, deadline).await? {
                None => return Ok(false),
                Some(batch) => running.batch = Some((batch, 0)),
            }
        }
    }

    fn check_interrupt(&self) -> Result<(), WireError> {
        interrupted(*self.interrupt.borrow()).map_or(Ok(()), Err)
    }

    /// The next batch; what is buffered goes out before waiting.
    async fn next_batch(
        &mut self,
        rows: &mut Rows,
        deadline: Option<tokio::time::Instant>,
    ) -> Result<Option<RecordBatch>, WireError> {
        let next = guarded_next(rows);
        tokio::pin!(next);
        if let Some(ready) = next.as_mut().now_or_never() {
            self.check_interrupt()?;
            return ready;
        }
        if !self.buffer.is_empty() {
            self.flush().await?;
        }
        let limit = deadline.map(|d| d.saturating_duration_since(tokio::time::Instant::now()));
        race(next, &mut self.interrupt.clone(), limit).await
    }

    async fn copy_in(&mut self, mut copy: CopyIn) -> Result<usize, WireError> {
        let format = i8::from(copy.binary);
        let width = i16::try_from(copy.width).unwrap_or(i16::MAX);
        self.put(Backend::CopyInResponse(CopyInResponse::new(
            format,
            width,
            vec![i16::from(format); copy.width],
        )));
        self.flush().await?;
        let mut failed: Option<WireError> = None;
        loop {
            let mut interrupt = self.interrupt.clone();
            let message = tokio::select! {
                message = self.messages.recv() => message,
                error = interruption(&mut interrupt) => return Err(error),
            };
            match message {
                Some(Ok(Frontend::CopyData(data))) => {
                    if failed.is_none() {
                        failed = guarded(async { copy.push(&self.session, &data.data) }).await.err();
                    }
                }
                Some(Ok(Frontend::CopyDone(_))) => {
                    return match failed {
                        Some(error) => Err(error),
                        None => guarded(copy.finish(&mut self.session)).await,
                    };
                }
                Some(Ok(Frontend::CopyFail(fail))) => {
                    return Err(WireError::new("57014", format!("COPY from stdin failed: {}", fail.message)));
                }
                Some(Ok(Frontend::Flush(_) | Frontend::Sync(_))) => {}
                Some(Ok(_)) => return Err(WireError::new("08P01", "unexpected message during COPY").fatal()),
                Some(Err(error)) => return Err(error),
                None => return Err(WireError::new("08006", "the client has gone during COPY").fatal()),
            }
        }
    }

    async fn copy_out(&mut self, mut rows: Rows, options: &sql::CopyOptions) -> Result<usize, WireError> {
        let binary = options.format == sql::CopyFormat::Binary;
        let width = rows.schema.fields().len();
        let format = i8::from(binary);
        let count = i16::try_from(width).unwrap_or(i16::MAX);
        self.put(Backend::CopyOutResponse(CopyOutResponse::new(
            format,
            count,
            vec![i16::from(format); width],
        )));
        let mut line = BytesMut::new();
        if binary {
            // It goes out with the first row, as clients expect.
            line.put_slice(b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0");
        } else if options.header {
            line.put_slice(rows.names.join(&char::from(options.delimiter).to_string()).as_bytes());
            line.put_u8(b'\n');
            self.put(Backend::CopyData(CopyData::new(line.split().freeze())));
        }
        let encoder = RowEncoder::binary(&rows.schema);
        let mut sent = 0;
        while let Some(batch) = self.next_batch(&mut rows, None).await? {
            let prepared = RowEncoder::prepare(&batch)?;
            for row in 0..batch.num_rows() {
                if binary {
                    encoder.copy_tuple(&prepared, row, &mut line);
                } else {
                    copy_line(&prepared, row, options, &mut line);
                }
                self.put(Backend::CopyData(CopyData::new(line.split().freeze())));
                if self.buffer.len() >= FLUSH_BYTES {
                    self.check_interrupt()?;
                    self.flush().await?;
                }
            }
            sent += batch.num_rows();
        }
        if binary {
            line.put_i16(-1);
            self.put(Backend::CopyData(CopyData::new(line.split().freeze())));
        }
        self.put(Backend::CopyDone(CopyDone::new()));
        Ok(sent)
    }

    async fn parse(&mut self, parse: Parse) -> Result<(), WireError> {
        let name = parse.name.unwrap_or_default();
        check_new_statement(&self.session, &name)?;
        let mut statements = sql::parse(&parse.query)?;
        if let Some(parsed) = statements.first() {
            self.session.check_not_failed(&parsed.statement)?;
        }
        if statements.len() > 1 {
            return Err(WireError::new("42601", "cannot insert multiple commands into a prepared statement"));
        }
        let parsed = statements.pop();
        let declared: Vec<_> = parse.type_oids.iter().map(|oid| types::parameter(*oid)).collect();
        let mut interrupt = self.interrupt.clone();
        let run = guarded(prepare(&mut self.session, parsed, &declared));
        let prepared = race(run, &mut interrupt, None).await.map_err(|e| e.placed(&parse.query))?;
        self.session.statements.insert(name, Arc::new(prepared));
        self.put(Backend::ParseComplete(ParseComplete::new()));
        Ok(())
    }

    fn statement(&self, name: &str) -> Result<Arc<Prepared>, WireError> {
        self.session.statements.get(name).cloned().ok_or_else(|| no_statement(name))
    }

    fn bind(&mut self, bind: Bind) -> Result<(), WireError> {
        let prepared = self.statement(bind.statement_name.as_deref().unwrap_or_default())?;
        let parameter_formats = formats(&bind.parameter_format_codes)?;
        let parameters = Parameters::decode(&prepared.parameters, &bind.parameters, &parameter_formats)?;
        let width = prepared.result.as_ref().map_or(0, |(names, _)| names.len());
        let given = formats(&bind.result_column_format_codes)?;
        let formats = match given.as_slice() {
            [] => vec![Format::Text; width],
            [all] => vec![*all; width],
            each if each.len() == width => each.to_vec(),
            each => {
                let message =
                    format!("bind message has {} result formats but query has {width} columns", each.len());
                return Err(WireError::new("08P01", message));
            }
        };
        let name = bind.portal_name.unwrap_or_default();
        if !name.is_empty() && self.portals.contains_key(&name) {
            return Err(WireError::new("42P03", format!("portal \"{name}\" already exists")));
        }
        self.portals.insert(name, Portal { prepared, parameters, formats, running: None });
        self.put(Backend::BindComplete(BindComplete::new()));
        Ok(())
    }

    fn describe(&mut self, describe: &Describe) -> Result<(), WireError> {
        let name = describe.name.as_deref().unwrap_or_default();
        let (result, formats) = if describe.target_type == b'S' {
            let prepared = self.statement(name)?;
            let oids = prepared.parameters.iter().map(|field| types::column_type(field).oid).collect();
            self.put(Backend::ParameterDescription(ParameterDescription::new(oids)));
            let width = prepared.result.as_ref().map_or(0, |(names, _)| names.len());
            (prepared.result.clone(), vec![Format::Text; width])
        } else {
            match self.portals.get(name) {
                Some(portal) => (portal.prepared.result.clone(), portal.formats.clone()),
                None => self.describe_cursor(name)?,
            }
        };
        match result {
            Some((names, schema)) => self.put_row_description(&names, &schema, &formats),
            None => self.put(Backend::NoData(NoData::new())),
        }
        Ok(())
    }

    /// A cursor is a portal, whoever made it.
    fn describe_cursor(&self, name: &str) -> Result<Described, WireError> {
        let (names, schema) = self.session.cursors.columns(name).map_err(|_| no_portal(name))?;
        let formats = vec![Format::Text; names.len()];
        Ok((Some((names, schema)), formats))
    }

    async fn execute(&mut self, message: &Execute) -> Result<(), WireError> {
        let name = message.name.clone().unwrap_or_default();
        let mut portal = self.portals.remove(&name).ok_or_else(|| no_portal(&name))?;
        let prepared = Arc::clone(&portal.prepared);
        let Some(parsed) = &prepared.parsed else {
            self.put(Backend::EmptyQueryResponse(EmptyQueryResponse::new()));
            self.portals.insert(name, portal);
            return Ok(());
        };
        let most = usize::try_from(message.max_rows).unwrap_or(0);
        self.session.begins(&parsed.text);
        if portal.running.is_none() {
            let limit = self.session.settings.milliseconds("statement_timeout");
            let mut interrupt = self.interrupt.clone();
            let run = guarded(run_prepared(&mut self.session, &prepared, parsed, &portal.parameters));
            let outcome = race(run, &mut interrupt, limit).await?;
            match outcome {
                Outcome::Rows(rows) => portal.running = Some(Running { rows, batch: None, sent: 0 }),
                other => {
                    self.send(other).await?;
                    self.portals.insert(name, portal);
                    return Ok(());
                }
            }
        }
        self.put_notices();
        if let Some(running) = &mut portal.running {
            let before = running.sent;
            let more = self.send_rows(running, &portal.formats, most).await?;
            if more {
                self.put(Backend::PortalSuspended(PortalSuspended::new()));
            } else {
                let (sent, tag) = (running.sent - before, running.rows.tag);
                self.complete(&completion(tag, sent));
            }
        }
        self.portals.insert(name, portal);
        Ok(())
    }

    fn close(&mut self, close: &Close) -> Result<(), WireError> {
        let name = close.name.as_deref().unwrap_or_default();
        if close.target_type == b'S' {
            self.session.statements.remove(name);
        } else {
            self.portals.remove(name);
        }
        self.put(Backend::CloseComplete(CloseComplete::new()));
        Ok(())
    }
}

/// Runs a prepared statement: the direct way where there is one.
async fn run_prepared(
    session: &mut Session,
    prepared: &Prepared,
    parsed: &sql::Parsed,
    parameters: &Parameters,
) -> Result<Outcome, WireError> {
    // The direct way gives rows as they are kept: in UTC.
    if session.settings.time_zone().is_none()
        && let (Some(lookup), Some(result)) = (&prepared.lookup, &prepared.result)
    {
        session.check_not_failed(&parsed.statement)?;
        if let Some(rows) = find(session, lookup, result, parameters).await? {
            return Ok(Outcome::Rows(rows));
        }
    }
    execute(session, parsed, parameters).await
}

/// The tag of a statement that gave rows.
fn completion(tag: &str, rows: usize) -> String {
    match tag {
        "SELECT" | "FETCH" | "UPDATE" | "DELETE" => format!("{tag} {rows}"),
        "INSERT" => format!("INSERT 0 {rows}"),
        _ => tag.to_owned(),
    }
}

fn no_portal(name: &str) -> WireError {
    WireError::new("34000", format!("portal \"{name}\" does not exist"))
}

fn formats(codes: &[i16]) -> Result<Vec<Format>, WireError> {
    codes
        .iter()
        .map(|code| match code {
            0 => Ok(Format::Text),
            1 => Ok(Format::Binary),
            other => Err(WireError::new("22023", format!("unsupported format code: {other}"))),
        })
        .collect()
}

fn interrupted(state: Interrupt) -> Option<WireError> {
    match state {
        Interrupt::None => None,
        Interrupt::Cancel => Some(WireError::cancelled()),
        Interrupt::Gone => Some(WireError::new("08006", "the client has gone").fatal()),
        Interrupt::Shutdown => Some(WireError::shutting_down()),
    }
}

async fn interruption(interrupt: &mut watch::Receiver<Interrupt>) -> WireError {
    match interrupt.wait_for(|state| *state != Interrupt::None).await {
        Ok(state) => interrupted(*state).unwrap_or_else(WireError::cancelled),
        Err(_) => WireError::shutting_down(),
    }
}

async fn shutdown(interrupt: &mut watch::Receiver<Interrupt>) {
    if interrupt.wait_for(|state| *state == Interrupt::Shutdown).await.is_err() {
        std::future::pending::<()>().await;
    }
}

async fn gone(interrupt: &mut watch::Receiver<Interrupt>) {
    if interrupt.wait_for(|state| *state == Interrupt::Gone).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Runs until done, interrupted or out of time.
async fn race<T>(
    run: impl Future<Output = Result<T, WireError>>,
    interrupt: &mut watch::Receiver<Interrupt>,
    limit: Option<Duration>,
) -> Result<T, WireError> {
    let timeout = async {
        match limit {
            Some(limit) => tokio::time::sleep(limit).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        biased;
        result = run => result,
        error = interruption(interrupt) => Err(error),
        () = timeout => Err(WireError::new("57014", "canceling statement due to statement timeout")),
    }
}

/// A panic in a statement becomes its error; the server goes on.
async fn guarded<T>(run: impl Future<Output = Result<T, WireError>>) -> Result<T, WireError> {
    std::panic::AssertUnwindSafe(run).catch_unwind().await.unwrap_or_else(|_| {
        tracing::error!("a statement panicked");
        Err(WireError::new("XX000", "internal error: the statement could not be run"))
    })
}

async fn guarded_next(rows: &mut Rows) -> Result<Option<RecordBatch>, WireError> {
    guarded(async { rows.batches.next().await.transpose() }).await
}

/// A row as a line of COPY text or CSV.
fn copy_line(
    columns: &[datafusion::arrow::array::ArrayRef],
    row: usize,
    options: &sql::CopyOptions,
    out: &mut BytesMut,
) {
    let mut value = BytesMut::new();
    for (index, column) in columns.iter().enumerate() {
        if index > 0 {
            out.put_u8(options.delimiter);
        }
        if column.is_null(row) {
            out.put_slice(options.null.as_bytes());
            continue;
        }
        value.clear();
        text(column, row, &mut value);
        if options.format == sql::CopyFormat::Csv {
            csv_value(&value, options, out)
        } else {
            text_value(&value, options, out)
        }
    }
    out.put_u8(b'\n');
}

fn csv_value(value: &[u8], options: &sql::CopyOptions, out: &mut BytesMut) {
    let special = |b: &u8| *b == options.delimiter || *b == options.quote || matches!(b, b'\n' | b'\r');
    if !value.iter().any(special) && value != options.null.as_bytes() {
        out.put_slice(value);
        return;
    }
    out.put_u8(options.quote);
    for byte in value {
        if *byte == options.quote || *byte == options.escape {
            out.put_u8(options.escape);
        }
        out.put_u8(*byte);
    }
    out.put_u8(options.quote);
}

fn text_value(value: &[u8], options: &sql::CopyOptions, out: &mut BytesMut) {
    for byte in value {
        match byte {
            b'\n' => out.put_slice(b"\\n"),
            b'\r' => out.put_slice(b"\\r"),
            b'\t' => out.put_slice(b"\\t"),
            b'\\' => out.put_slice(b"\\\\"),
            b if *b == options.delimiter => {
                out.put_u8(b'\\');
                out.put_u8(*b);
            }
            b => out.put_u8(*b),
        }
    }
}
