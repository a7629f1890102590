//! The thread that keeps the file out of memory.
//!
//! It looks at how much of files the process has in memory, and lets the region go piece by piece, one after the
//! other round and round, while that is more than the rooms allow. What is used comes back at once, mostly out of the
//! system's cache. Invariant: it runs while there are rooms, and nobody waits for it.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{Builder, Thread, park, park_timeout};
use std::time::Duration;

use crate::region;

/// How often it looks.
const EVERY: Duration = Duration::from_millis(20);
/// What it lets go at a time.
const PIECE_BYTES: usize = 32 << 20;

/// What all rooms together may have in memory.
static ALLOWED: AtomicU64 = AtomicU64::new(0);
static THREAD: OnceLock<Option<Thread>> = OnceLock::new();

/// A room is there, with so many bytes in memory.
pub(crate) fn allow(bytes: u64) {
    ALLOWED.fetch_add(bytes, Ordering::Relaxed);
    let thread = THREAD.get_or_init(|| {
        let spawned = Builder::new().name("spill".into()).spawn(keep);
        if let Err(error) = &spawned {
            tracing::error!(%error, "nobody keeps spilled state out of memory");
        }
        spawned.ok().map(|handle| handle.thread().clone())
    });
    if let Some(thread) = thread {
        thread.unpark();
    }
}

/// It is gone.
pub(crate) fn disallow(bytes: u64) {
    ALLOWED.fetch_sub(bytes, Ordering::Relaxed);
}

/// Goes on as long as the process.
fn keep() {
    // The program itself, and other files that are mapped.
    let mut others = file_bytes();
    let mut hand = 0;
    loop {
        let allowed = ALLOWED.load(Ordering::Relaxed);
        let is_too_much = |others: u64, part: u64| file_bytes().saturating_sub(others) > allowed / 8 * part;
        if is_too_much(others, 8) {
            let reserved = region::reserved();
            let mut left = reserved;
            while left > 0 && is_too_much(others, 6) {
                let bytes = PIECE_BYTES.min(left);
                hand = if hand < reserved { hand } else { 0 };
                region::let_go(hand, bytes);
                hand += bytes;
                left -= bytes;
            }
            if left == 0 {
                others = file_bytes();
            }
        }
        if allowed == 0 { park() } else { park_timeout(EVERY) }
    }
}

/// Bytes of files that the process has in memory; 0 where the system does not tell.
#[allow(clippy::disallowed_methods, reason = "reads /proc, not data")]
fn file_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kib = status.lines().find_map(|line| line.strip_prefix("RssFile:")?.trim().strip_suffix(" kB"));
    kib.and_then(|kib| kib.trim().parse::<u64>().ok()).unwrap_or_default() * 1024
}
