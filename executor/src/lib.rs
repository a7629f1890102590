//! The motion: dataflows run over the log, tables are kept, questions are answered.
//!
//! Data travels one way: statements → group commit → step → tables and subscribers. Operators are
//! synchronous, deterministic and do no I/O; the engine's threads do it before and after them.
//! Next: `server` puts the Postgres wire in front.

mod build;
mod change;
mod engine;
mod error;
mod expression;
mod format;
mod fragment;
mod held_rows;
mod ingest;
mod keys;
mod layout;
mod opaque;
mod operator;
mod operators;
mod part;
mod pull;
mod push;
mod query;
mod rejects;
mod state;
mod table;
mod window;

pub use change::ChangeBatch;
pub use engine::{
    CheckpointPolicy, CheckpointStatus, Checkpoints, DdlTurn, Engine, EngineConfig, Halt, Progress,
    QueryStatus, Receipt, SPILLED, Snapshot,
};
pub use error::{Class, Error, Lateness, Result};
pub use format::{Undecodable, decode_batches, encode_batches};
pub use ingest::Write;
pub use layout::{nullable, own_bytes};
pub use pull::{Answer, PullContext};
pub use push::{PushItem, Subscription};
pub use query::{OperatorStatus, Query};
pub use rejects::{CodeOf, Reason, Reject, RejectRetention, Rejects};
pub use table::{TableStore, TableVersion};
