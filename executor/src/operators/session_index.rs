//! The sessions of each key, by time, and what an epoch does to them.
//!
//! Invariant: sessions of one key lie more than a gap apart, in the order of their times; both bounds
//! are times of rows, so a row at most a gap away from one belongs to it.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::error::Result;
use crate::keys::{KeyTable, Slot};
use crate::state::{Image, StateReader, Stateful};

/// A session: its slot in the state of aggregates is its place.
#[derive(Debug, Clone, Copy)]
struct Session {
    key: Slot,
    start: i64,
    end: i64,
    /// The epoch that touched it last.
    touched_in: u32,
    alive: bool,
}

/// A session that an epoch touched, and what it was before, if it was.
#[derive(Debug, Clone, Copy)]
pub(super) struct Touched {
    pub(super) slot: Slot,
    pub(super) before: Option<(i64, i64)>,
}

/// Sessions by key.
pub(super) struct SessionIndex {
    gap: i64,
    keys: KeyTable,
    of_key: Vec<Vec<Slot>>,
    sessions: Vec<Session>,
    free: Vec<Slot>,
    epoch: u32,
    touched: Vec<Touched>,
    /// Sessions that became part of others this epoch: into which, and which.
    merged: Vec<(Slot, Slot)>,
    /// Where sessions close: by the end they had when they were looked at last.
    closing: Option<BinaryHeap<Reverse<(i64, Slot)>>>,
    lists_bytes: usize,
}

/// What an epoch did.
pub(super) struct EpochSessions {
    /// Each once, in the order in which they were touched.
    pub(super) touched: Vec<Touched>,
    /// In order: the second became part of the first.
    pub(super) merged: Vec<(Slot, Slot)>,
}

impl SessionIndex {
    /// `closes`: sessions are to be closed one day.
    pub(super) fn new(gap: i64, closes: bool) -> Self {
        Self {
            gap,
            keys: KeyTable::default(),
            of_key: Vec::new(),
            sessions: Vec::new(),
            free: Vec::new(),
            epoch: 0,
            touched: Vec::new(),
            merged: Vec::new(),
            closing: closes.then(BinaryHeap::new),
            lists_bytes: 0,
        }
    }

    /// One more than the largest slot ever given.
    pub(super) fn capacity(&self) -> usize {
        self.sessions.len()
    }

    /// Begins an epoch.
    pub(super) fn begin(&mut self) {
        self.epoch = self.epoch.wrapping_add(1);
    }

    /// The session of a row, which it may begin, lengthen, or make of several. None when the row is
    /// late: its session would end before `closed`.
    pub(super) fn place(&mut self, hash: u64, key: &[u8], time: i64, closed: i64) -> Option<Slot> {
        let (low, high) = (time.saturating_sub(self.gap), time.saturating_add(self.gap));
        let Some(key_slot) = self.keys.find_hashed(hash, key) else {
            if time < closed {
                return None;
            }
            let (key_slot, _) = self.keys.insert_hashed(hash, key);
            if self.of_key.len() <= key_slot as usize {
                self.of_key.resize(key_slot as usize + 1, Vec::new());
            }
            return Some(self.start(key_slot, 0, time));
        };
        let list = &self.of_key[key_slot as usize];
        let sessions = &self.sessions;
        let first = list.partition_point(|s| sessions[*s as usize].end < low);
        let met = list[first..].iter().take_while(|s| sessions[**s as usize].start <= high).count();
        let end = list[first..first + met].last().map_or(time, |s| sessions[*s as usize].end.max(time));
        if end < closed {
            return None;
        }
        match met {
            0 => Some(self.start(key_slot, first, time)),
            1 => {
                let slot = list[first];
                let session = &self.sessions[slot as usize];
                let bounds = (session.start.min(time), end);
                self.touch(slot);
                self.set(slot, bounds);
                Some(slot)
            }
            _ => Some(self.merge(key_slot, first, met, time, end)),
        }
    }

    /// A new session at place `at` of its key's list.
    fn start(&mut self, key: Slot, at: usize, time: i64) -> Slot {
        let session = Session { key, start: time, end: time, touched_in: self.epoch, alive: true };
        let slot = match self.free.pop() {
            Some(slot) => {
                self.sessions[slot as usize] = session;
                slot
            }
            None => {
                self.sessions.push(session);
                Slot::try_from(self.sessions.len() - 1).unwrap_or(Slot::MAX)
            }
        };
        let list = &mut self.of_key[key as usize];
        self.lists_bytes -= list.capacity() * size_of::<Slot>();
        list.insert(at, slot);
        self.lists_bytes += list.capacity() * size_of::<Slot>();
        self.touched.push(Touched { slot, before: None });
        if let Some(closing) = &mut self.closing {
            closing.push(Reverse((time, slot)));
        }
        slot
    }

    /// Makes one session of `met` ones of a key's list, from place `first` on.
    fn merge(&mut self, key: Slot, first: usize, met: usize, time: i64, end: i64) -> Slot {
        let parts: Vec<Slot> = self.of_key[key as usize].drain(first + 1..first + met).collect();
        let into = self.of_key[key as usize][first];
        let start = self.sessions[into as usize].start.min(time);
        self.touch(into);
        for part in parts {
            self.touch(part);
            self.sessions[part as usize].alive = false;
            self.merged.push((into, part));
        }
        self.set(into, (start, end));
        into
    }

    fn touch(&mut self, slot: Slot) {
        let session = &mut self.sessions[slot as usize];
        if session.touched_in != self.epoch {
            session.touched_in = self.epoch;
            self.touched.push(Touched { slot, before: Some((session.start, session.end)) });
        }
    }

    fn set(&mut self, slot: Slot, (start, end): (i64, i64)) {
        let session = &mut self.sessions[slot as usize];
        (session.start, session.end) = (start, end);
    }

    /// What the epoch has done. Slots of merged sessions stay theirs until [`Self::release`].
    pub(super) fn finish(&mut self) -> EpochSessions {
        EpochSessions { touched: std::mem::take(&mut self.touched), merged: std::mem::take(&mut self.merged) }
    }

    /// Gives the slot of a merged session back.
    pub(super) fn release(&mut self, slot: Slot) {
        self.free.push(slot);
    }

    /// The sessions that end before `closed`, by their ends; each is given once, to be removed.
    pub(super) fn due(&mut self, closed: i64) -> Vec<Slot> {
        let Some(closing) = &mut self.closing else { return Vec::new() };
        let mut out = Vec::new();
        while let Some(Reverse((end, slot))) =
            closing.peek().copied().filter(|Reverse((end, _))| *end < closed)
        {
            closing.pop();
            let session = &mut self.sessions[slot as usize];
            if session.alive && session.end > end {
                closing.push(Reverse((session.end, slot)));
            } else if std::mem::replace(&mut session.alive, false) {
                out.push(slot);
            }
        }
        out
    }

    /// No session ends before this.
    pub(super) fn first_end(&self) -> Option<i64> {
        self.closing.as_ref()?.peek().map(|Reverse((end, _))| *end)
    }

    /// Lets a session go that is due.
    pub(super) fn remove(&mut self, slot: Slot) {
        let key = self.sessions[slot as usize].key;
        let list = &mut self.of_key[key as usize];
        list.retain(|s| *s != slot);
        if list.is_empty() {
            self.lists_bytes -= list.capacity() * size_of::<Slot>();
            *list = Vec::new();
            self.keys.remove(key);
        }
        self.free.push(slot);
    }

    /// Whether the session has not become part of another, and is not closed.
    pub(super) fn is_alive(&self, slot: Slot) -> bool {
        self.sessions[slot as usize].alive
    }

    /// First and last time of a session.
    pub(super) fn bounds(&self, slot: Slot) -> (i64, i64) {
        let session = &self.sessions[slot as usize];
        (session.start, session.end)
    }

    /// The key of a session.
    pub(super) fn key(&self, slot: Slot) -> &[u8] {
        self.keys.key(self.sessions[slot as usize].key)
    }

    pub(super) fn bytes(&self) -> usize {
        self.keys.bytes()
            + self.sessions.capacity() * size_of::<Session>()
            + self.of_key.capacity() * size_of::<Vec<Slot>>()
            + self.lists_bytes
            + self.closing.as_ref().map_or(0, |c| c.capacity() * size_of::<(i64, Slot)>())
    }
}

impl Stateful for SessionIndex {
    fn save(&self, image: &mut Image) {
        self.keys.save(image);
        let sessions: Vec<(Slot, (i64, i64))> =
            self.sessions.iter().map(|s| (s.key, (s.start, s.end))).collect();
        image.vector(&sessions);
        image.vector(&self.sessions.iter().map(|s| u8::from(s.alive)).collect::<Vec<_>>());
        image.vector(&self.free);
        image.count(self.of_key.len());
        self.of_key.iter().for_each(|list| image.vector(list));
        let closing = self.closing.as_ref().map(|c| c.iter().map(|Reverse(due)| *due).collect::<Vec<_>>());
        image.vector(&closing.unwrap_or_default());
    }

    fn load(&mut self, state: &mut StateReader<'_>) -> Result<()> {
        self.keys.load(state)?;
        let sessions: Vec<(Slot, (i64, i64))> = state.vector()?;
        let alive: Vec<u8> = state.vector()?;
        let session = |((key, (start, end)), alive): ((Slot, (i64, i64)), u8)| Session {
            key,
            start,
            end,
            touched_in: self.epoch,
            alive: alive != 0,
        };
        self.sessions = sessions.into_iter().zip(alive).map(session).collect();
        self.free = state.vector()?;
        for _ in 0..state.count()? {
            let list: Vec<Slot> = state.vector()?;
            self.lists_bytes += list.capacity() * size_of::<Slot>();
            self.of_key.push(list);
        }
        let closing: Vec<(i64, Slot)> = state.vector()?;
        if let Some(all) = &mut self.closing {
            all.extend(closing.into_iter().map(Reverse));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index() -> SessionIndex {
        SessionIndex::new(10, true)
    }

    #[test]
    fn a_row_between_two_sessions_makes_them_one() {
        let mut index = index();
        index.begin();
        let early = index.place(1, b"k", 0, i64::MIN);
        let late = index.place(1, b"k", 20, i64::MIN);
        assert_ne!(early, late);
        index.finish();
        index.begin();
        assert_eq!(index.place(1, b"k", 10, i64::MIN), early);
        let epoch = index.finish();
        assert_eq!(epoch.merged, [(0, 1)]);
        assert_eq!(index.bounds(0), (0, 20));
        let before: Vec<_> = epoch.touched.iter().map(|t| (t.slot, t.before)).collect();
        assert_eq!(before, [(0, Some((0, 0))), (1, Some((20, 20)))]);
        assert!(index.is_alive(0) && !index.is_alive(1));
    }

    #[test]
    fn a_row_later_than_grace_joins_only_what_is_open() {
        let mut index = index();
        index.begin();
        assert_eq!(index.place(1, b"k", 100, i64::MIN), Some(0));
        assert_eq!(index.place(1, b"k", 80, 90), None, "its session would have ended before");
        assert_eq!(index.place(1, b"k", 95, 98), Some(0), "the session it joins is open");
        assert_eq!(index.place(2, b"l", 90, 90), Some(1), "a bound is not before itself");
        assert_eq!(index.due(91), [1]);
        assert_eq!(index.due(100), [] as [Slot; 0]);
        assert_eq!(index.due(101), [0]);
        assert_eq!((index.bounds(0), index.key(0)), ((95, 100), b"k".as_slice()));
    }
}
