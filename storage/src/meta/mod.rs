//! The truth about everything that is not a record, and its projection.
//!
//! [`Journal`] is the truth: a small synced file of decisions. [`MetaStore`] is a projection for
//! look-ups that may be deleted at any time. Invariant: nobody waits for the projection before an
//! acknowledgement, and losing it costs only start-up time.

mod journal;
mod memory;
mod sled_store;

use bytes::Bytes;

pub(crate) use journal::JournalCheck;
pub use journal::{Entry, Journal};
pub use memory::MemoryStore;
pub use sled_store::open_projection;

/// A change to the projection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MetaOp {
    /// Sets a key.
    Put(Vec<u8>, Bytes),
    /// Removes a key.
    Delete(Vec<u8>),
}

/// Keys and values that the journal decides.
pub trait MetaStore: Send + Sync {
    /// Number of journal entries applied; None when the store cannot say.
    fn revision(&self) -> Option<u64>;
    /// Applies the changes of journal entry `revision`, all or none. False when it could not: the
    /// store is then to be rebuilt at the next start.
    fn apply(&self, revision: u64, ops: &[MetaOp]) -> bool;
    /// The value of a key.
    fn get(&self, key: &[u8]) -> Option<Bytes>;
    /// Removes everything.
    fn clear(&self) -> bool;
}
