//! The door: sockets, sessions, statements, system relations, metrics, the `millpond` program.
//!
//! The only crate that knows Postgres, HTTP and SQLSTATE.

mod audit;
mod channels;
mod config;
mod http;
mod memory;
mod pg;
mod question_pool;
mod run;
mod session;
mod settings;
mod statements;
mod system;
mod tools;

/// A future with its code in this crate: one that is not boxed is compiled again in every program that
/// awaits it, with all of DataFusion's generics.
pub type Compiled<'a, T> = std::pin::Pin<Box<dyn Future<Output = T> + 'a>>;

pub use config::{Config, ConfigError, SETTINGS as SERVER_SETTINGS, usage};
pub use run::{RunError, Running, start, start_on};
pub use tools::{backup, bench, check, demo, flights, restore};
