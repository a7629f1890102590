//! The bytes of keys, by slot.
//!
//! Keys of one length lie at their slots; where lengths differ, an entry for each slot says where. The
//! first key of another length turns the one into the other.

use super::Slot;
use crate::error::Result;
use crate::state::{Image, Plain, StateReader, Stateful};

/// Keys begin at multiples of this: an entry then names any place in 32 GiB.
const UNIT: usize = 8;
/// Bytes of keys that are gone before it is worth to move the others.
const SOME_BYTES: usize = 4096;

#[derive(Debug, Clone, Default)]
pub(super) struct Arena {
    bytes: Vec<u8>,
    places: Places,
}

/// Where keys lie.
#[derive(Debug, Clone)]
enum Places {
    /// One after the other, all of them this long.
    Even { length: usize, slots: usize },
    /// Where entries say.
    Uneven(Entries),
}

#[derive(Debug, Clone, Default)]
struct Entries {
    of_slots: Vec<Entry>,
    /// Units in use. Past the last one the addition fails, and with it the query.
    units: u32,
    /// Bytes of keys that are gone.
    garbage: usize,
}

/// Where a key lies.
#[derive(Debug, Clone, Copy)]
struct Entry {
    unit: u32,
    length: u32,
}

impl Default for Places {
    fn default() -> Self {
        Self::Even { length: 0, slots: 0 }
    }
}

impl Arena {
    /// One more than the largest slot.
    pub(super) fn slots(&self) -> usize {
        match &self.places {
            Places::Even { slots, .. } => *slots,
            Places::Uneven(entries) => entries.of_slots.len(),
        }
    }

    pub(super) fn bytes(&self) -> usize {
        let entries = match &self.places {
            Places::Even { .. } => 0,
            Places::Uneven(entries) => entries.of_slots.capacity() * size_of::<Entry>(),
        };
        self.bytes.capacity() + entries
    }

    pub(super) fn key(&self, slot: Slot) -> &[u8] {
        let (start, length) = match &self.places {
            Places::Even { length, .. } => (slot as usize * room(*length), *length),
            Places::Uneven(entries) => {
                let entry = entries.of_slots[slot as usize];
                (entry.unit as usize * UNIT, entry.length as usize)
            }
        };
        &self.bytes[start..start + length]
    }

    /// Puts a key at a slot that has none, or at the next one.
    pub(super) fn put(&mut self, slot: Slot, key: &[u8]) {
        match &mut self.places {
            Places::Even { length, slots } if *slots == 0 || *length == key.len() => {
                (*length, *slots) = (key.len(), (*slots).max(slot as usize + 1));
                let start = slot as usize * room(key.len());
                self.bytes.resize(*slots * room(key.len()), 0);
                self.bytes[start..start + key.len()].copy_from_slice(key);
            }
            Places::Even { .. } => {
                self.make_uneven();
                self.put(slot, key);
            }
            Places::Uneven(entries) => {
                let entry = append(&mut self.bytes, &mut entries.units, key);
                match entries.of_slots.get_mut(slot as usize) {
                    Some(own) => *own = entry,
                    None => entries.of_slots.push(entry),
                }
            }
        }
    }

    fn make_uneven(&mut self) {
        let Places::Even { length, slots } = self.places else { return };
        let units = u32::try_from(room(length) / UNIT).unwrap_or(u32::MAX);
        let entry =
            |slot: u32| Entry { unit: slot * units, length: u32::try_from(length).unwrap_or(u32::MAX) };
        let of_slots: Vec<Entry> = (0..).take(slots).map(entry).collect();
        let units = u32::try_from(self.bytes.len() / UNIT).unwrap_or(u32::MAX);
        self.places = Places::Uneven(Entries { of_slots, units, garbage: 0 });
    }

    /// The key of a slot is gone.
    pub(super) fn forget(&mut self, slot: Slot) {
        let Places::Uneven(entries) = &mut self.places else { return };
        let entry = &mut entries.of_slots[slot as usize];
        entries.garbage += room(entry.length as usize);
        entry.length = 0;
        if entries.garbage >= SOME_BYTES && entries.garbage * 2 >= self.bytes.len() {
            self.compact();
        }
    }

    /// Moves the keys together.
    fn compact(&mut self) {
        let Places::Uneven(entries) = &mut self.places else { return };
        let mut bytes = Vec::with_capacity(self.bytes.len() - entries.garbage);
        let mut units = 0;
        for entry in &mut entries.of_slots {
            let start = entry.unit as usize * UNIT;
            *entry = append(&mut bytes, &mut units, &self.bytes[start..start + entry.length as usize]);
        }
        (self.bytes, entries.units, entries.garbage) = (bytes, units, 0);
    }
}

/// Bytes a key takes.
fn room(length: usize) -> usize {
    length.next_multiple_of(UNIT)
}

/// Puts a key behind the others.
fn append(bytes: &mut Vec<u8>, units: &mut u32, key: &[u8]) -> Entry {
    let entry = Entry { unit: *units, length: u32::try_from(key.len()).unwrap_or(u32::MAX) };
    *units += u32::try_from(key.len().div_ceil(UNIT)).unwrap_or(u32::MAX);
    bytes.extend_from_slice(key);
    bytes.resize(bytes.len().next_multiple_of(UNIT), 0);
    entry
}

impl Plain for Entry {
    const BYTES: usize = 8;

    fn put(self, out: &mut Vec<u8>) {
        (self.unit, self.length).put(out);
    }

    fn get(bytes: &[u8]) -> Self {
        let (unit, length) = Plain::get(bytes);
        Self { unit, length }
    }
}

impl Stateful for Arena {
    fn save(&self, image: &mut Image) {
        image.vector(&self.bytes);
        image.flag(matches!(self.places, Places::Even { .. }));
        match &self.places {
            Places::Even { length, slots } => {
                image.count(*length);
                image.count(*slots);
            }
            Places::Uneven(entries) => {
                image.vector(&entries.of_slots);
                image.value(entries.units);
                image.count(entries.garbage);
            }
        }
    }

    fn load(&mut self, state: &mut StateReader<'_>) -> Result<()> {
        self.bytes = state.vector()?;
        self.places = if state.flag()? {
            Places::Even { length: state.count()?, slots: state.count()? }
        } else {
            let of_slots = state.vector()?;
            Places::Uneven(Entries { of_slots, units: state.value()?, garbage: state.count()? })
        };
        Ok(())
    }
}
