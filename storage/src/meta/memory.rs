//! A projection that lives as long as the process: for tests, and when sled will not open.

use std::collections::HashMap;

use bytes::Bytes;
use parking_lot::Mutex;

use super::{MetaOp, MetaStore};

/// Keys and values in memory.
#[derive(Debug, Default)]
pub struct MemoryStore(Mutex<(u64, HashMap<Vec<u8>, Bytes>)>);

impl MetaStore for MemoryStore {
    fn revision(&self) -> Option<u64> {
        Some(self.0.lock().0)
    }

    fn apply(&self, revision: u64, ops: &[MetaOp]) -> bool {
        let mut inner = self.0.lock();
        for op in ops {
            match op {
                MetaOp::Put(key, value) => inner.1.insert(key.clone(), value.clone()),
                MetaOp::Delete(key) => inner.1.remove(key),
            };
        }
        inner.0 = revision;
        true
    }

    fn get(&self, key: &[u8]) -> Option<Bytes> {
        self.0.lock().1.get(key).cloned()
    }

    fn clear(&self) -> bool {
        *self.0.lock() = Default::default();
        true
    }
}
