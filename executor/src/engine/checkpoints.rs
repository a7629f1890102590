//! How checkpoints went, for whoever asks.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use storage::Epoch;
use storage::checkpoint::Written;

/// So many are remembered.
const REMEMBERED: usize = 100;

/// A checkpoint that was made.
#[derive(Debug, Clone, Copy)]
pub struct CheckpointStatus {
    /// The epoch whose state it is.
    pub epoch: Epoch,
    /// What it has and what of it is new.
    pub written: Written,
    /// How long the epochs waited for it.
    pub pause: Duration,
    /// How long it took to write, beside them.
    pub took: Duration,
    /// Bytes that were held twice meanwhile.
    pub copied: usize,
}

/// The last checkpoints of a server since its start.
#[derive(Debug, Clone, Default)]
pub struct Checkpoints(Arc<Mutex<VecDeque<CheckpointStatus>>>);

impl Checkpoints {
    pub(crate) fn push(&self, status: CheckpointStatus) {
        let mut all = self.0.lock();
        all.push_back(status);
        if all.len() > REMEMBERED {
            all.pop_front();
        }
    }

    /// Oldest first.
    pub fn list(&self) -> Vec<CheckpointStatus> {
        self.0.lock().iter().copied().collect()
    }
}
