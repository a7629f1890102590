//! What the last segments tell after a crash, and what must be cut.
//!
//! An epoch is written to every partition it touches before any of them counts, and epoch e+1
//! begins after e is on disk everywhere. So only the last epoch can be incomplete, and it was never
//! acknowledged. Invariant: anything else that is missing is damage; it takes the topic that it is in out of use
//! and no other.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::Epoch;
use crate::frame::FrameHeader;

/// What opening a log found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Recovered {
    /// The last epoch that is complete.
    pub last_epoch: Epoch,
    /// The epoch that was cut because it was not.
    pub cut_epoch: Option<Epoch>,
    /// Files whose torn end was cut, with the length that is left.
    pub torn: Vec<(PathBuf, u64)>,
}

/// Collects the epochs of all last segments, and of the last frame before one that is empty.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    epochs: BTreeMap<Epoch, (u32, u32)>,
    torn: Vec<(PathBuf, u64)>,
    /// Partitions of which it is not known what they held.
    unknown: u32,
}

/// What follows from what was seen.
#[derive(Debug)]
pub(crate) struct Decision {
    pub(crate) recovered: Recovered,
    /// Torn ends are those of acknowledged epochs: damage.
    pub(crate) torn_is_damage: bool,
}

impl Seen {
    pub(crate) fn frame(&mut self, header: &FrameHeader) {
        if header.parts == 0 {
            return;
        }
        self.epochs.entry(header.epoch).or_insert((0, header.parts)).0 += 1;
        // Only the newest epochs decide; older ones may have frames in sealed segments.
        while self.epochs.len() > 64 {
            self.epochs.pop_first();
        }
    }

    pub(crate) fn torn(&mut self, path: &Path, len: u64) {
        self.torn.push((path.to_owned(), len));
    }

    /// The frames of so many partitions are not all known.
    pub(crate) fn cannot_tell(&mut self, partitions: u32) {
        self.unknown += partitions;
    }

    /// Decides what to cut. `newest` is the last epoch found anywhere; every epoch up to `acknowledged` was whole.
    pub(crate) fn decide(self, acknowledged: Epoch, newest: Epoch) -> Decision {
        let last = self.epochs.last_key_value();
        let last = last.filter(|(_, (found, parts))| found + self.unknown < *parts).map(|(epoch, _)| *epoch);
        let cut_epoch = last.filter(|epoch| *epoch > acknowledged);
        // Epochs are numbered without gaps and the one before an incomplete one was whole.
        let whole = last.map_or(newest, |epoch| epoch - 1);
        let torn_is_damage = whole < acknowledged && !self.torn.is_empty();
        let last_epoch = cut_epoch.map_or(newest, |epoch| epoch - 1);
        Decision { recovered: Recovered { last_epoch, cut_epoch, torn: self.torn }, torn_is_damage }
    }
}
