//! The projection on disk: the only file that says `sled`.
//!
//! sled 0.34 is beta by its own word: an unfinished snapshot makes it refuse to open, and a failed
//! sync is only logged. So it never holds the only copy of anything; opening is fenced, and whatever
//! goes wrong ends in a new, empty projection (docs/decisions/0003-sled.md).

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use bytes::Bytes;

use super::{MemoryStore, MetaOp, MetaStore};
use crate::fs::Fs;

/// The key of the number of applied journal entries; no other key is empty of letters.
const REVISION: &[u8] = b"\0revision";
/// sled's default cache is 1 GiB.
const CACHE_BYTES: u64 = 16 << 20;
/// Longer than any sound start takes.
const OPEN_LIMIT: Duration = Duration::from_secs(10);
/// Larger values would become files that sled does not sync; they stay in the journal.
const MAX_VALUE_BYTES: usize = 4 << 10;

struct SledStore(sled::Db);

/// Opens the projection under `directory`, setting aside one that will not open. Falls back to
/// memory when the disk refuses altogether.
pub fn open_projection(fs: &dyn Fs, directory: &Path) -> Arc<dyn MetaStore> {
    remove_unfinished_snapshots(fs, directory);
    if let Some(db) = open_fenced(directory.to_owned()) {
        return Arc::new(SledStore(db));
    }
    let aside = directory.with_extension("quarantine");
    tracing::warn!(directory = %directory.display(), "metadata projection did not open, rebuilding it");
    let moved = fs.remove(&aside).and_then(|()| fs.rename(directory, &aside));
    if moved.is_ok()
        && let Some(db) = open_fenced(directory.to_owned())
    {
        return Arc::new(SledStore(db));
    }
    Arc::new(MemoryStore::default())
}

/// sled takes a half-written `snap.*.generating` for a snapshot and refuses to open for ever.
/// A file that was not renamed was never published, so it may go.
fn remove_unfinished_snapshots(fs: &dyn Fs, directory: &Path) {
    for path in fs.list(directory).unwrap_or_default() {
        if path.extension().is_some_and(|e| e == "generating") && fs.remove(&path).is_err() {
            tracing::warn!(path = %path.display(), "could not remove an unfinished snapshot");
        }
    }
}

/// Opens on a thread of its own, so that neither a panic nor a hang reaches the server.
fn open_fenced(directory: PathBuf) -> Option<sled::Db> {
    let (done, opened) = mpsc::sync_channel(1);
    let worker = thread::Builder::new().name("sled-open".into()).spawn(move || {
        let open = || {
            sled::Config::new()
                .path(directory)
                .cache_capacity(CACHE_BYTES)
                .mode(sled::Mode::LowSpace)
                .flush_every_ms(Some(500))
                .open()
        };
        let db = catch_unwind(AssertUnwindSafe(open)).ok().and_then(Result::ok);
        // The receiver may have given up.
        let _ = done.send(db);
    });
    worker.ok()?;
    opened.recv_timeout(OPEN_LIMIT).ok().flatten()
}

/// Runs one operation; a panic inside sled counts as a failure.
fn fenced<T>(f: impl FnOnce() -> sled::Result<T>) -> Option<T> {
    match catch_unwind(AssertUnwindSafe(f)) {
        Ok(Ok(value)) => Some(value),
        Ok(Err(error)) => {
            tracing::warn!(%error, "metadata projection failed");
            None
        }
        Err(_) => {
            tracing::warn!("metadata projection panicked");
            None
        }
    }
}

impl MetaStore for SledStore {
    fn revision(&self) -> Option<u64> {
        match fenced(|| self.0.get(REVISION))? {
            None => Some(0),
            Some(value) => value.as_ref().try_into().ok().map(u64::from_be_bytes),
        }
    }

    fn apply(&self, revision: u64, ops: &[MetaOp]) -> bool {
        let mut batch = sled::Batch::default();
        for op in ops {
            match op {
                MetaOp::Put(key, value) if value.len() <= MAX_VALUE_BYTES => {
                    batch.insert(key.clone(), value.as_ref())
                }
                MetaOp::Put(key, _) | MetaOp::Delete(key) => batch.remove(key.clone()),
            }
        }
        batch.insert(REVISION, &revision.to_be_bytes());
        fenced(|| self.0.apply_batch(batch)).is_some()
    }

    fn get(&self, key: &[u8]) -> Option<Bytes> {
        fenced(|| self.0.get(key)).flatten().map(|value| Bytes::copy_from_slice(&value))
    }

    fn clear(&self) -> bool {
        fenced(|| self.0.clear()).is_some()
    }
}
