//! The memory of all rows and state that are kept, against one limit.
//!
//! Each epoch says what the relations that it touched have now. Invariant: after an epoch all of them together
//! have no more than the limit, or no query is left whose end would free anything; tables then take no rows
//! any more. Whoever has grown most since there was last plenty is ended; the others go on.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use planner::RelationId;

use super::budget::Budget;
use crate::error::{Error, Result};

/// Up to this part of the limit there is plenty.
const PLENTY: (u64, u64) = (7, 8);

/// All push queries together, among relations.
pub(super) const PUSH_QUERIES: RelationId = RelationId::MAX;

/// What is kept, and how much may be.
#[derive(Default)]
pub(crate) struct Memory {
    kept: HashMap<RelationId, u64>,
    /// What each had when there was last plenty.
    in_plenty: HashMap<RelationId, u64>,
    all: MemoryLimit,
}

/// The limit and what is kept in all, for everybody.
#[derive(Debug, Clone, Default)]
pub(crate) struct MemoryLimit {
    limit: Option<u64>,
    total: Arc<AtomicU64>,
    /// What queries have that are on their way to their first result.
    building: Arc<AtomicU64>,
}

impl MemoryLimit {
    pub(crate) fn new(limit: Option<u64>) -> Self {
        Self { limit, total: Arc::default(), building: Arc::default() }
    }

    /// The limit, when there is no room for so many bytes more.
    pub(crate) fn reached_with(&self, bytes: u64) -> Option<u64> {
        self.limit.filter(|limit| self.total.load(Ordering::Relaxed).saturating_add(bytes) > *limit)
    }
}

/// What a query may have until its first result is there.
pub(super) struct Allowance {
    pub(super) relation: String,
    /// The query's own limit.
    pub(super) own: Budget,
    all: MemoryLimit,
    /// What it has.
    held: AtomicU64,
}

impl Allowance {
    pub(super) fn new(relation: String, own: Budget, all: MemoryLimit) -> Self {
        Self { relation, own, all, held: AtomicU64::new(0) }
    }

    /// Notes what the query has.
    ///
    /// # Errors
    /// [`Error::MemoryLimit`] when it is too much, beside all that is kept or on its way.
    pub(super) fn check(&mut self, bytes: usize) -> Result<()> {
        let bytes = bytes as u64;
        self.own.check(&self.relation, bytes)?;
        let building = self.hold(self.own.in_memory(bytes));
        match self.all.reached_with(building) {
            Some(limit) => Err(Error::MemoryLimit { relation: self.relation.clone(), limit }),
            None => Ok(()),
        }
    }

    /// Returns what all that are on their way have.
    fn hold(&self, bytes: u64) -> u64 {
        let before = self.held.swap(bytes, Ordering::Relaxed);
        self.all.building.fetch_add(bytes, Ordering::Relaxed);
        self.all.building.fetch_sub(before, Ordering::Relaxed) - before
    }
}

impl Drop for Allowance {
    fn drop(&mut self) {
        self.hold(0);
    }
}

impl Memory {
    pub(crate) fn new(all: MemoryLimit) -> Self {
        Self { all, ..Self::default() }
    }

    pub(crate) fn limit(&self) -> &MemoryLimit {
        &self.all
    }

    /// What a relation has now.
    pub(crate) fn note(&mut self, id: RelationId, bytes: u64) {
        let before = self.kept.insert(id, bytes).unwrap_or_default();
        let total = self.all.total.load(Ordering::Relaxed) - before + bytes;
        self.all.total.store(total, Ordering::Relaxed);
        let plenty = |limit: u64| total / PLENTY.0 <= limit / PLENTY.1;
        if self.all.limit.is_none_or(plenty) {
            self.in_plenty.insert(id, bytes);
        }
    }

    /// A relation is gone.
    pub(crate) fn forget(&mut self, id: RelationId) {
        self.note(id, 0);
        self.kept.remove(&id);
        self.in_plenty.remove(&id);
    }

    /// While there is too much: the limit, and of those who `may_end` and have anything the one that has grown
    /// most.
    pub(crate) fn too_much(&self, may_end: impl Fn(RelationId) -> bool) -> Option<(RelationId, u64)> {
        let limit = self.all.reached_with(0)?;
        let grown = |(id, bytes): (&RelationId, &u64)| {
            bytes.saturating_sub(self.in_plenty.get(id).copied().unwrap_or_default())
        };
        let those = self.kept.iter().filter(|(id, bytes)| **bytes > 0 && may_end(**id));
        those.max_by_key(|entry| (grown(*entry), *entry.1)).map(|(id, _)| (*id, limit))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_grown_most_is_ended() {
        let mut memory = Memory::new(MemoryLimit::new(Some(1000)));
        memory.note(1, 600);
        memory.note(2, 100);
        assert_eq!(memory.too_much(|_| true), None);
        memory.note(3, 150);
        memory.note(2, 350);
        memory.note(3, 180);
        assert_eq!(memory.too_much(|_| true), Some((2, 1000)), "not the largest, which was there");
        assert_eq!(memory.too_much(|id| id != 2), Some((3, 1000)));
        assert_eq!(memory.too_much(|_| false), None);
        assert_eq!(memory.limit().reached_with(0), Some(1000));
        memory.forget(2);
        assert_eq!(memory.too_much(|_| true), None);
        assert_eq!(memory.limit().reached_with(300), Some(1000));
        assert_eq!(memory.limit().reached_with(220), None);
    }
}
