//! From the hash of a key to its slot: open addressing with linear probing.
//!
//! A cell holds a slot and half of its key's hash, so that neither a false match nor growth looks at
//! keys, and a look-up reads one line of memory in most cases.
//! Invariant: between a cell and the one its hash points at, no cell is empty.
//! Source: Knuth, "The Art of Computer Programming", volume 3, 6.4, algorithms L and R.

use std::hint::black_box;

use super::Slot;

/// No slot.
const EMPTY: u64 = 0;
const FEWEST_CELLS: usize = 16;
/// Cells that caches hold anyway.
const SMALL_CELLS: usize = 1 << 14;

/// The half of a hash that a cell holds.
#[allow(clippy::cast_possible_truncation, reason = "half of it is meant")]
fn tag_of(hash: u64) -> u32 {
    hash as u32
}

/// Of slots and hashes.
#[derive(Debug, Clone, Default)]
pub(super) struct Cells {
    /// A power of two of them, at most two thirds in use: the tag in the upper half, one more than the
    /// slot in the lower.
    cells: Vec<u64>,
    used: usize,
}

impl Cells {
    /// With room for that many slots.
    pub(super) fn with_room(slots: usize) -> Self {
        Self { cells: vec![EMPTY; Self::enough(slots)], used: 0 }
    }

    fn enough(slots: usize) -> usize {
        (slots * 2).next_power_of_two().max(FEWEST_CELLS)
    }

    pub(super) fn used(&self) -> usize {
        self.used
    }

    pub(super) fn bytes(&self) -> usize {
        self.cells.capacity() * size_of::<u64>()
    }

    /// The slot with that hash for which `same` holds.
    pub(super) fn find(&self, hash: u64, same: impl Fn(Slot) -> bool) -> Option<Slot> {
        if self.cells.is_empty() { None } else { self.look(hash, same).ok() }
    }

    /// The slot with that hash for which `same` holds, or the cell where it belongs.
    pub(super) fn find_or_cell(&mut self, hash: u64, same: impl Fn(Slot) -> bool) -> Result<Slot, usize> {
        if (self.used + 1) * 3 > self.cells.len() * 2 {
            self.rebuild(Self::enough(self.used + 1));
        }
        self.look(hash, same)
    }

    fn look(&self, hash: u64, same: impl Fn(Slot) -> bool) -> Result<Slot, usize> {
        let (tag, mask) = (tag_of(hash), self.cells.len() - 1);
        let mut at = tag as usize & mask;
        loop {
            match self.cells[at] {
                EMPTY => return Err(at),
                cell if tag_in(cell) == tag && same(slot_in(cell)) => return Ok(slot_in(cell)),
                _ => at = (at + 1) & mask,
            }
        }
    }

    /// Puts a slot into the cell that [`Self::find_or_cell`] has just given for this hash.
    pub(super) fn fill(&mut self, at: usize, hash: u64, slot: Slot) {
        self.cells[at] = cell(tag_of(hash), slot);
        self.used += 1;
    }

    /// Puts in a slot that is not there.
    pub(super) fn insert(&mut self, hash: u64, slot: Slot) {
        if let Err(at) = self.find_or_cell(hash, |_| false) {
            self.fill(at, hash, slot);
        }
    }

    /// Takes a slot out; says whether it was there.
    pub(super) fn remove(&mut self, hash: u64, slot: Slot) -> bool {
        let Some(mask) = self.cells.len().checked_sub(1) else { return false };
        let wanted = cell(tag_of(hash), slot);
        let mut hole = tag_of(hash) as usize & mask;
        while self.cells[hole] != wanted {
            if self.cells[hole] == EMPTY {
                return false;
            }
            hole = (hole + 1) & mask;
        }
        self.close(hole, mask);
        self.used -= 1;
        if self.used * 16 < self.cells.len() && self.cells.len() > SMALL_CELLS {
            self.rebuild(Self::enough(self.used));
        }
        true
    }

    /// Moves cells up so that none is behind an empty one that it should be before.
    fn close(&mut self, mut hole: usize, mask: usize) {
        let mut at = (hole + 1) & mask;
        while self.cells[at] != EMPTY {
            let home = tag_in(self.cells[at]) as usize & mask;
            if at.wrapping_sub(home) & mask >= at.wrapping_sub(hole) & mask {
                self.cells[hole] = self.cells[at];
                hole = at;
            }
            at = (at + 1) & mask;
        }
        self.cells[hole] = EMPTY;
    }

    fn rebuild(&mut self, count: usize) {
        let mask = count - 1;
        let old = std::mem::replace(&mut self.cells, vec![EMPTY; count]);
        for cell in old.into_iter().filter(|cell| *cell != EMPTY) {
            let mut at = tag_in(cell) as usize & mask;
            while self.cells[at] != EMPTY {
                at = (at + 1) & mask;
            }
            self.cells[at] = cell;
        }
    }

    /// Whether caches have them anyway.
    pub(super) fn are_near(&self) -> bool {
        self.cells.len() < SMALL_CELLS
    }

    /// Reads what look-ups of these hashes will read, all at once. Calls `next` with the slots that they are
    /// likely to find.
    pub(super) fn warm(&self, hashes: impl Iterator<Item = u64> + Clone, mut next: impl FnMut(Slot)) {
        let Some(mask) = self.cells.len().checked_sub(1) else { return };
        let home = |hash| self.cells[tag_of(hash) as usize & mask];
        black_box(hashes.clone().fold(0, |all, hash| all ^ home(hash)));
        for hash in hashes {
            let cell = home(hash);
            if cell != EMPTY && tag_in(cell) == tag_of(hash) {
                next(slot_in(cell));
            }
        }
    }
}

fn cell(tag: u32, slot: Slot) -> u64 {
    u64::from(tag) << 32 | (u64::from(slot) + 1)
}

fn tag_in(cell: u64) -> u32 {
    tag_of(cell >> 32)
}

fn slot_in(cell: u64) -> Slot {
    tag_of(cell) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Hashes that crowd into few homes, around the end of the table too.
    fn hash(slot: Slot) -> u64 {
        u64::from(slot % 7).wrapping_sub(3) & 0xffff_ffff
    }

    #[test]
    fn what_is_put_in_is_found_until_it_is_taken_out() {
        let mut cells = Cells::default();
        assert_eq!((cells.find(1, |_| true), cells.remove(1, 1)), (None, false));
        (0..200).for_each(|slot| cells.insert(hash(slot), slot));
        for gone in (0..200).step_by(3) {
            assert!(cells.remove(hash(gone), gone));
            assert!(!cells.remove(hash(gone), gone), "it is there once");
            for slot in 0..200 {
                let there = slot > gone || slot % 3 != 0;
                assert_eq!(cells.find(hash(slot), |s| s == slot), there.then_some(slot), "after {gone}");
            }
        }
        assert_eq!(cells.used(), 133);
    }

    #[test]
    fn room_is_given_back() {
        let mut cells = Cells::default();
        let spread = |slot: Slot| u64::from(slot).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 16;
        (0..100_000).for_each(|slot| cells.insert(spread(slot), slot));
        let most = cells.bytes();
        (0..99_000).for_each(|slot| assert!(cells.remove(spread(slot), slot)));
        assert!(cells.bytes() * 4 < most);
        assert!((99_000..100_000).all(|slot| cells.find(spread(slot), |s| s == slot) == Some(slot)));
    }
}
