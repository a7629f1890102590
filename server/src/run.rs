//! Starting and stopping the server.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use executor::{Engine, EngineConfig};
use planner::FIRST_ROLE;
use storage::{Disk, Fs, SystemClock};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::Compiled;
use crate::channels::Channels;
use crate::config::Config;
use crate::http;
use crate::pg::{Door, Listener, Registry, Tls, TlsError, serve};
use crate::session::{Sessions, Shared, TableLocks};

/// Time for clients to hear that the server stops.
const FAREWELL: Duration = Duration::from_millis(500);

/// Why a server did not start.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The engine did not.
    #[error("could not open \"{path}\": {source}")]
    Engine {
        /// The data directory.
        path: String,
        /// Why not.
        source: executor::Error,
    },
    /// There is no encryption.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Other machines are to be let in, and nobody has a password.
    #[error(
        "refusing to listen on {0}: no role has a password; listen on a loopback address and set one: ALTER ROLE {FIRST_ROLE} PASSWORD '…'"
    )]
    NoPassword(SocketAddr),
    /// An address is not free.
    #[error("could not listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
}

/// A running server.
pub struct Running {
    /// Where Postgres clients connect.
    pub address: SocketAddr,
    /// Where HTTP is served.
    pub http_address: Option<SocketAddr>,
    engine: Arc<Engine>,
    registry: Arc<Registry>,
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
}

/// Recovers and starts to serve.
///
/// # Errors
/// [`RunError`].
pub fn start(config: &Config) -> Compiled<'_, Result<Running, RunError>> {
    start_on(config, Arc::new(Disk))
}

/// As [`start`], on a disk that a test has made. The lock, the projection and what questions spill stay on the
/// real one: nothing is lost with them.
///
/// # Errors
/// [`RunError`].
pub fn start_on(config: &Config, fs: Arc<dyn Fs>) -> Compiled<'_, Result<Running, RunError>> {
    Box::pin(open(config, fs))
}

async fn open(config: &Config, fs: Arc<dyn Fs>) -> Result<Running, RunError> {
    let tls = config.tls.as_ref().map(Tls::load).transpose()?;
    let engine_config = EngineConfig {
        data_dir: config.data_dir.clone(),
        fs,
        clock: Arc::new(SystemClock),
        shards: config.shards,
        segment_bytes: config.segment_bytes,
        memory_limit: config.query_memory_limit,
        kept_limit: config.memory.kept,
        rejects: config.rejects,
        checkpoints: config.checkpoints,
        code_of: Some(crate::pg::reject_code),
    };
    let started = tokio::task::spawn_blocking(move || Engine::start(&engine_config)).await;
    let failed = |source| RunError::Engine { path: config.data_dir.display().to_string(), source };
    let engine = started.map_err(|_| failed(executor::Error::ShuttingDown))?.map_err(failed)?;
    let engine = Arc::new(engine);
    let cell = crate::system::EngineCell::default();
    // It is empty until here.
    let _ = cell.set(Arc::clone(&engine));
    let registry = Arc::new(Registry::default());
    let runtime = config.memory.runtime(&Disk, &config.data_dir).map_err(|error| failed(error.into()))?;
    let state = crate::system::session_state((config.shards, runtime), &cell, &registry);
    let shared = Arc::new(Shared {
        engine: Arc::clone(&engine),
        state,
        locks: TableLocks::default(),
        sessions: Sessions::default(),
        channels: Channels::default(),
    });
    let catalog = engine.catalog();
    let can_log_in = |role: &planner::Role| role.login && role.verifier.is_some();
    if !(config.listen.ip().is_loopback() || config.insecure || catalog.access().roles().any(can_log_in)) {
        return Err(RunError::NoPassword(config.listen));
    }
    let door = Arc::new(Door { tls, insecure: config.insecure });
    let (stop, stopped) = watch::channel(false);
    let listen = |address| move |source| RunError::Listen { address, source };
    let listener = Listener::bind(config.listen).await.map_err(listen(config.listen))?;
    let address = listener.address;
    let mut tasks = Vec::new();
    let mut http_address = None;
    if let Some(at) = config.http_listen {
        let socket = tokio::net::TcpListener::bind(at).await.map_err(listen(at))?;
        http_address = socket.local_addr().ok();
        tasks.push(tokio::spawn(http::serve(
            socket,
            Arc::clone(&engine),
            Arc::clone(&registry),
            stopped.clone(),
        )));
    }
    tasks.push(tokio::spawn(serve(
        listener,
        shared,
        Arc::clone(&registry),
        door,
        config.max_connections,
        stopped,
    )));
    Ok(Running { address, http_address, engine, registry, stop, tasks })
}

impl Running {
    /// The URL for clients.
    pub fn url(&self) -> String {
        format!("postgres://millpond@{}/millpond", self.address)
    }

    /// Takes no more clients, tells those there are, finishes what was accepted.
    pub fn stop(self) -> Compiled<'static, ()> {
        Box::pin(self.farewell())
    }

    async fn farewell(self) {
        self.stop.send_replace(true);
        self.registry.shut_down();
        let deadline = tokio::time::Instant::now() + FAREWELL;
        while !self.registry.is_empty() && tokio::time::Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        for task in self.tasks {
            task.abort();
        }
        self.engine.stop().await;
    }
}
