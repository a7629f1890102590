//! What one query may have in memory, and on disk beyond that.
//!
//! Invariant: a query whose state and rows come near its limit allocates in the spill file from then on
//! (`storage/spill/`), so that what is in memory stays within the limit; one that has too much for that, or for
//! the disk, ends with [`Error::MemoryLimit`]. Results are the same wherever state lies.

use spill::Room;

use crate::error::{Error, Result};

/// Where in the data directory lies what does not fit in memory.
pub const SPILLED: &str = "spilled";
/// A smaller limit is a guard against what grows unnoticed: what one step touches would not fit.
const SMALLEST_SPILLING: u64 = 64 << 20;
/// How many times its limit a query may have, most of it on disk.
const ON_DISK: u64 = 16;

/// The budget of one query.
#[derive(Debug)]
pub(crate) struct Budget {
    limit: Option<u64>,
    /// Once it has come near its limit.
    room: Option<Room>,
}

impl Budget {
    /// `limit`: most bytes in memory; None: as many as the server has.
    pub(crate) fn new(limit: Option<u64>) -> Self {
        Self { limit, room: None }
    }

    pub(crate) fn limit(&self) -> Option<u64> {
        self.limit
    }

    /// Makes ready for so many bytes of the query of `relation`.
    pub(crate) fn prepare(&mut self, relation: &str, bytes: u64) {
        let Some(limit) = self.limit else { return };
        if self.room.is_none() && limit >= SMALLEST_SPILLING && bytes > limit / 2 {
            self.room = Room::open(limit / 2);
            if self.room.is_some() {
                tracing::info!(relation, bytes, limit, "state goes to disk from now on");
            }
        }
    }

    /// Takes note that the query of `relation` has so many bytes.
    ///
    /// # Errors
    /// [`Error::MemoryLimit`] when that is more than it may have.
    pub(crate) fn check(&mut self, relation: &str, bytes: u64) -> Result<()> {
        let Some(limit) = self.limit else { return Ok(()) };
        self.prepare(relation, bytes);
        let most = match &self.room {
            Some(room) if !room.is_full() => limit.saturating_mul(ON_DISK),
            _ => limit,
        };
        if bytes > most {
            return Err(Error::MemoryLimit { relation: relation.to_owned(), limit });
        }
        Ok(())
    }

    /// How many of its bytes are in memory at most.
    pub(crate) fn in_memory(&self, bytes: u64) -> u64 {
        match (&self.room, self.limit) {
            (Some(_), Some(limit)) => bytes.min(limit),
            _ => bytes,
        }
    }

    /// Whether what the query allocates goes to disk: [`spill::within`] has it so.
    pub(crate) fn spills(&self) -> bool {
        self.room.is_some()
    }

    /// Its state is gone.
    pub(crate) fn release(&mut self) {
        self.room = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_file_the_limit_is_the_end() {
        let mut budget = Budget::new(Some(SMALLEST_SPILLING));
        assert!(budget.check("v", SMALLEST_SPILLING).is_ok());
        assert!(!budget.spills(), "this program's allocator knows no file");
        assert!(budget.check("v", SMALLEST_SPILLING + 1).is_err());
        assert!(Budget::new(None).check("v", u64::MAX).is_ok());
    }
}
