//! Materialised rows: kept by key, readable at any published epoch, whatever is written meanwhile.
//!
//! Rows lie in immutable chunks; a row that goes is marked in the chunk's mask, a new one joins a
//! new chunk, and chunks merge as they grow. A reader holds the chunks of its epoch. One index,
//! behind a lock, finds rows by key for the writer and for readers of the newest epoch; a bag's is made
//! when there is time (docs/decisions/0017-index-of-a-bag.md).

mod chunk;
mod provider;
mod row_keys;
mod store;
mod version;

pub(crate) use provider::{StreamProvider, TableProviderAt};
pub(crate) use store::TableReader;
pub use store::TableStore;
pub use version::TableVersion;
