//! A table from keys to small dense numbers.
//!
//! Invariant: a slot is given to one key at a time, and again only after that was removed.

use std::hint::black_box;

use super::arena::Arena;
use super::cells::Cells;
use super::hash;
use crate::error::Result;
use crate::state::{Image, StateReader, Stateful};

/// Number of a key in its table; given again after the key was removed.
pub(crate) type Slot = u32;

/// Keys whose look-ups are prepared together: enough for memory to answer in parallel, few enough for the
/// nearest cache.
const AHEAD: usize = 64;
/// A table that has no key any more gives its memory back when it had more than these.
const MANY_SLOTS: usize = 1024;

/// Keys and their slots.
#[derive(Debug, Clone, Default)]
pub(crate) struct KeyTable {
    cells: Cells,
    arena: Arena,
    free: Vec<Slot>,
}

impl KeyTable {
    /// One more than the largest slot ever given.
    pub(crate) fn capacity(&self) -> usize {
        self.arena.slots()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.arena.bytes() + self.cells.bytes() + self.free.capacity() * size_of::<Slot>()
    }

    pub(crate) fn key(&self, slot: Slot) -> &[u8] {
        self.arena.key(slot)
    }

    pub(crate) fn find(&self, key: &[u8]) -> Option<Slot> {
        self.find_hashed(hash(key), key)
    }

    pub(crate) fn find_hashed(&self, hash: u64, key: &[u8]) -> Option<Slot> {
        self.cells.find(hash, |slot| self.arena.key(slot) == key)
    }

    /// All slots in use of a table from which no key was removed, oldest first.
    pub(crate) fn slots(&self) -> impl Iterator<Item = Slot> + use<> {
        0..Slot::try_from(self.capacity()).unwrap_or(Slot::MAX)
    }

    /// Prepares the look-ups of the next keys, where it is time to: the memory they need is asked for at
    /// once, and not one after the other. `at` is the number of the look-up, `hash` gives the hash of the
    /// key that any of the `count` is for.
    pub(crate) fn warm(&self, at: usize, count: usize, hash: impl Fn(usize) -> u64 + Copy) {
        if !at.is_multiple_of(AHEAD) || self.cells.are_near() {
            return;
        }
        let hashes = (at..count.min(at + AHEAD)).map(hash);
        let mut seen = 0;
        self.cells.warm(hashes, |slot| seen ^= self.arena.key(slot).first().copied().unwrap_or_default());
        black_box(seen);
    }

    /// The slot of a key, and whether it is new.
    pub(crate) fn insert(&mut self, key: &[u8]) -> (Slot, bool) {
        self.insert_hashed(hash(key), key)
    }

    pub(crate) fn insert_hashed(&mut self, hash: u64, key: &[u8]) -> (Slot, bool) {
        let Self { cells, arena, free } = self;
        match cells.find_or_cell(hash, |slot| arena.key(slot) == key) {
            Ok(slot) => (slot, false),
            Err(cell) => {
                let next = || Slot::try_from(arena.slots()).unwrap_or(Slot::MAX);
                let slot = free.pop().unwrap_or_else(next);
                arena.put(slot, key);
                cells.fill(cell, hash, slot);
                (slot, true)
            }
        }
    }

    /// Gives a slot back.
    pub(crate) fn remove(&mut self, slot: Slot) {
        if !self.cells.remove(hash(self.key(slot)), slot) {
            return;
        }
        self.arena.forget(slot);
        self.free.push(slot);
        if self.cells.used() == 0 && self.capacity() > MANY_SLOTS {
            *self = Self::default();
        }
    }
}

impl Stateful for KeyTable {
    fn save(&self, image: &mut Image) {
        self.arena.save(image);
        image.vector(&self.free);
    }

    fn load(&mut self, state: &mut StateReader<'_>) -> Result<()> {
        self.arena.load(state)?;
        self.free = state.vector()?;
        let mut is_free = vec![false; self.capacity()];
        self.free.iter().for_each(|slot| is_free[*slot as usize] = true);
        self.cells = Cells::with_room(self.capacity() - self.free.len());
        for slot in self.slots().filter(|slot| !is_free[*slot as usize]) {
            self.cells.insert(hash(self.arena.key(slot)), slot);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_keep_their_slots_until_they_are_removed() {
        let mut table = KeyTable::default();
        let key = |n: u32| format!("key {n:06}").into_bytes();
        for n in 0..5000 {
            assert_eq!(table.insert(&key(n)), (n, true));
        }
        assert_eq!(table.insert(b""), (5000, true), "a key may be empty");
        (0..5000).step_by(2).for_each(|n| table.remove(n));
        for n in 0..5000 {
            assert_eq!(table.find(&key(n)), (n % 2 == 1).then_some(n));
        }
        assert_eq!((table.find(b""), table.key(4999)), (Some(5000), key(4999).as_slice()));
        let (slot, new) = table.insert(&key(7777));
        assert!(new && slot < 5000 && slot % 2 == 0, "a slot is given again");
        assert_eq!(table.key(slot), key(7777));
    }

    #[test]
    fn a_table_without_keys_keeps_no_memory() {
        let mut table = KeyTable::default();
        (0..5000_u32).for_each(|n| assert_eq!(table.insert(&n.to_le_bytes()), (n, true)));
        (0..5000).for_each(|n| table.remove(n));
        assert_eq!((table.capacity(), table.bytes()), (0, 0));
        assert_eq!(table.insert(b"of another length"), (0, true));
    }
}
