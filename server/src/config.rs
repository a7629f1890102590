//! The server's settings, each documented once: a flag, an environment variable, a key of the file.
//!
//! A flag wins over the environment, the environment over the file, the file over the default.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::memory::MemoryLimits;
use crate::pg::TlsFiles;

/// Where it listens, and where its tools look for it.
pub(crate) const LISTEN: &str = "127.0.0.1:5454";

/// A setting of the server.
pub struct ServerSetting {
    /// Its key; the flag is `--KEY`, the variable `MILLPOND_KEY`, with `_` for `-`.
    pub key: &'static str,
    /// What is used when it is not given.
    pub default: &'static str,
    /// What it does.
    pub doc: &'static str,
}

/// All settings of `millpond serve`.
pub const SETTINGS: &[ServerSetting] = &[
    ServerSetting { key: "data-dir", default: "./millpond-data", doc: "Directory that holds everything." },
    ServerSetting {
        key: "listen",
        default: LISTEN,
        doc: "Address and port for Postgres clients; port 0 is any free one.",
    },
    ServerSetting {
        key: "http-listen",
        default: "127.0.0.1:0",
        doc: "Address and port for /healthz, /readyz and /metrics; \"off\" for none.",
    },
    ServerSetting { key: "max-connections", default: "1000", doc: "Clients at a time." },
    ServerSetting {
        key: "shards",
        default: "0",
        doc: "Parts of a query's state stepped in parallel; 0 is one for each core.",
    },
    ServerSetting { key: "segment-bytes", default: "268435456", doc: "Length of a log segment." },
    ServerSetting {
        key: "memory-limit",
        default: "75%",
        doc: "Most memory of tables, views and questions together: a size, a part of the machine's, or none.",
    },
    ServerSetting {
        key: "query-memory-limit",
        default: "none",
        doc: "Most memory of a view's state and rows, such as 2GB, where its WITH (memory_limit) says nothing.",
    },
    ServerSetting {
        key: "rejects-kept",
        default: "10000",
        doc: "Rejected rows that millpond.rejects holds.",
    },
    ServerSetting { key: "rejects-hours", default: "168", doc: "For how long it holds them." },
    ServerSetting {
        key: "checkpoint-ms",
        default: "10000",
        doc: "Time between checkpoints: a start steps again what came after the last one; 0 for none.",
    },
    ServerSetting {
        key: "log",
        default: "warn",
        doc: "What goes to stderr, as a tracing filter such as info or executor=debug.",
    },
    ServerSetting { key: "tls-cert", default: "", doc: "File of the certificate for TLS, PEM." },
    ServerSetting { key: "tls-key", default: "", doc: "File of its key, PEM." },
    ServerSetting {
        key: "tls-client-ca",
        default: "",
        doc: "File of those who sign certificates of clients, PEM: a client must have one then.",
    },
    ServerSetting {
        key: "insecure",
        default: "false",
        doc: "Let other machines in without encryption, and without a password where a role has none.",
    },
];

/// What the server runs with.
#[derive(Debug, Clone)]
pub struct Config {
    /// Directory that holds everything.
    pub data_dir: PathBuf,
    /// Where Postgres clients connect.
    pub listen: SocketAddr,
    /// Where HTTP is served.
    pub http_listen: Option<SocketAddr>,
    /// Clients at a time.
    pub max_connections: usize,
    /// Parts of a query's state.
    pub shards: usize,
    /// Length of a log segment.
    pub segment_bytes: u64,
    /// Most bytes of everything.
    pub memory: MemoryLimits,
    /// Most bytes of a view's state and rows.
    pub query_memory_limit: Option<u64>,
    /// How long rejected rows are kept.
    pub rejects: executor::RejectRetention,
    /// When checkpoints are made.
    pub checkpoints: executor::CheckpointPolicy,
    /// The certificate for TLS.
    pub tls: Option<TlsFiles>,
    /// Other machines need neither encryption nor a password.
    pub insecure: bool,
    /// Filter of the log.
    pub log: String,
}

/// A setting that cannot be.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// No such setting.
    #[error("there is no setting \"{0}\"")]
    Unknown(String),
    /// A flag without its value.
    #[error("--{0} needs a value")]
    Missing(String),
    /// A value that cannot be.
    #[error("invalid value \"{value}\" for {key}: {reason}")]
    Invalid {
        /// The setting.
        key: String,
        /// Its value.
        value: String,
        /// Why not.
        reason: String,
    },
    /// The file cannot be read.
    #[error("could not read the configuration file \"{path}\": {reason}")]
    File {
        /// The file.
        path: String,
        /// Why not.
        reason: String,
    },
    /// Listening beyond this machine without protection.
    #[error(
        "refusing to listen on {0} without encryption; give --tls-cert and --tls-key, use a loopback address, or --insecure"
    )]
    Insecure(SocketAddr),
}

type Values = BTreeMap<String, String>;

impl Config {
    /// Reads flags, then environment, then file.
    ///
    /// # Errors
    /// The first setting that is wrong.
    pub fn load(args: &[String], env: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let mut flags = parse_flags(args)?;
        let file = match flags.remove("config").or_else(|| env("MILLPOND_CONFIG")) {
            Some(path) => read_file(&path)?,
            None => Values::new(),
        };
        let get = |key: &str| -> String {
            let variable = format!("MILLPOND_{}", key.replace('-', "_").to_uppercase());
            let default = || SETTINGS.iter().find(|s| s.key == key).map_or("", |s| s.default).to_owned();
            flags
                .get(key)
                .cloned()
                .or_else(|| env(&variable))
                .or_else(|| file.get(key).cloned())
                .unwrap_or_else(default)
        };
        let listen: SocketAddr = parsed("listen", &get("listen"))?;
        let insecure = parsed("insecure", &get("insecure"))?;
        let tls = tls_files(&get("tls-cert"), &get("tls-key"), &get("tls-client-ca"))?;
        if !(listen.ip().is_loopback() || insecure || tls.is_some()) {
            return Err(ConfigError::Insecure(listen));
        }
        let http = get("http-listen");
        let http_listen = if http == "off" { None } else { Some(parsed("http-listen", &http)?) };
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let shards: usize = parsed("shards", &get("shards"))?;
        Ok(Self {
            data_dir: get("data-dir").into(),
            listen,
            http_listen,
            max_connections: parsed("max-connections", &get("max-connections"))?,
            shards: if shards == 0 { cores } else { shards },
            segment_bytes: parsed("segment-bytes", &get("segment-bytes"))?,
            memory: memory_limits(&get("memory-limit"))?,
            query_memory_limit: memory_limit(&get("query-memory-limit"))?,
            rejects: executor::RejectRetention {
                rows: parsed("rejects-kept", &get("rejects-kept"))?,
                age_ms: parsed::<i64>("rejects-hours", &get("rejects-hours"))?.saturating_mul(3_600_000),
            },
            checkpoints: checkpoints(parsed("checkpoint-ms", &get("checkpoint-ms"))?),
            tls,
            insecure,
            log: get("log"),
        })
    }
}

fn tls_files(cert: &str, key: &str, client_ca: &str) -> Result<Option<TlsFiles>, ConfigError> {
    match (cert, key, client_ca) {
        ("", "", "") => Ok(None),
        ("", _, _) => Err(ConfigError::Missing("tls-cert".into())),
        (_, "", _) => Err(ConfigError::Missing("tls-key".into())),
        _ => Ok(Some(TlsFiles {
            certificate: cert.into(),
            key: key.into(),
            client_ca: (!client_ca.is_empty()).then(|| client_ca.into()),
        })),
    }
}

fn checkpoints(ms: u64) -> executor::CheckpointPolicy {
    let every = (ms > 0).then(|| std::time::Duration::from_millis(ms));
    executor::CheckpointPolicy { every, at_stop: true }
}

fn memory_limits(value: &str) -> Result<MemoryLimits, ConfigError> {
    MemoryLimits::parse(value).ok_or_else(|| ConfigError::Invalid {
        key: "memory-limit".into(),
        value: value.into(),
        reason: "expected \"none\", bytes, a size such as 8GB, or a part of the machine's memory such as 75%"
            .into(),
    })
}

fn memory_limit(value: &str) -> Result<Option<u64>, ConfigError> {
    if value == "none" {
        return Ok(None);
    }
    planner::parse_bytes(value).map(Some).ok_or_else(|| ConfigError::Invalid {
        key: "query-memory-limit".into(),
        value: value.into(),
        reason: "expected \"none\", bytes, or a size such as 64MB".into(),
    })
}

fn parse_flags(args: &[String]) -> Result<Values, ConfigError> {
    let mut values = Values::new();
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let Some(name) = arg.strip_prefix("--") else { return Err(ConfigError::Unknown(arg.clone())) };
        let (key, value) = match name.split_once('=') {
            Some((key, value)) => (key, Some(value.to_owned())),
            None => (name, None),
        };
        if key != "config" && !SETTINGS.iter().any(|s| s.key == key) {
            return Err(ConfigError::Unknown(key.to_owned()));
        }
        let value = match value {
            Some(value) => value,
            None if key == "insecure" => "true".to_owned(),
            None => args.next().cloned().ok_or_else(|| ConfigError::Missing(key.to_owned()))?,
        };
        values.insert(key.to_owned(), value);
    }
    Ok(values)
}

fn read_file(path: &str) -> Result<Values, ConfigError> {
    let failed = |reason: String| ConfigError::File { path: path.to_owned(), reason };
    #[allow(clippy::disallowed_methods, reason = "read once, before there is a server")]
    let text = std::fs::read_to_string(path).map_err(|e| failed(e.to_string()))?;
    let table: toml::Table = text.parse().map_err(|e: toml::de::Error| failed(e.to_string()))?;
    let mut values = Values::new();
    for (key, value) in table {
        let key = key.replace('_', "-");
        if !SETTINGS.iter().any(|s| s.key == key) {
            return Err(ConfigError::Unknown(key));
        }
        values.insert(key, plain(&value));
    }
    Ok(values)
}

/// A value as it would be written on the command line.
fn plain(value: &toml::Value) -> String {
    match value {
        toml::Value::String(text) => text.clone(),
        toml::Value::Integer(number) => number.to_string(),
        toml::Value::Boolean(flag) => flag.to_string(),
        other => format!("{other:?}"),
    }
}

fn parsed<T: std::str::FromStr<Err: std::fmt::Display>>(key: &str, value: &str) -> Result<T, ConfigError> {
    value.parse().map_err(|e: T::Err| ConfigError::Invalid {
        key: key.into(),
        value: value.into(),
        reason: e.to_string(),
    })
}

/// The text of `millpond help`.
pub fn usage() -> String {
    let mut text = String::from(
        "millpond serve [--KEY VALUE …]   run the server\n\
         millpond check DIR   read everything in the data directory of a stopped server, and say what is damaged\n\
         millpond backup [URL] DIR   copy the data directory of a running server, on its machine\n\
         millpond restore BACKUP DIR   make a data directory of a backup in which nothing is damaged\n\
         millpond demo [--once] [--speed N] [--data DIR]   replay a month of flights\n\
         millpond bench   measure this machine\n\n\
         settings of serve: flag, MILLPOND_KEY in the environment, or key in the TOML file --config names\n",
    );
    for setting in SETTINGS {
        text.push_str(&format!("  --{:<16} {} [{}]\n", setting.key, setting.doc, setting.default));
    }
    text
}
