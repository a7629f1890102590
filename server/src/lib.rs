//! The door: sockets, sessions, statements, system relations, metrics, the `millpond` program.
//!
//! The only crate that knows Postgres, HTTP and SQLSTATE.

mod config;
mod http;
mod pg;
mod run;
mod session;
mod settings;
mod statements;
mod system;
mod tools;

pub use config::{Config, ConfigError, SETTINGS as SERVER_SETTINGS, usage};
pub use run::{RunError, Running, start};
pub use tools::{bench, demo, flights};
