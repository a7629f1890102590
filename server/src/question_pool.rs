//! The memory that questions share.
//!
//! Operators that can put their rows on disk share three quarters of what is free fairly; the last quarter is for those
//! that cannot, and of that a part for those that need little, such as the merge of what was sorted, which begins when
//! the sorts have taken all they could. Invariant: together they have no more than there is, but for what DataFusion
//! grows without asking.
//! Source: DataFusion's `FairSpillPool`, which keeps nothing back.

use std::fmt;

use datafusion::common::{DataFusionError, Result};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryLimit, MemoryPool, MemoryReservation};
use parking_lot::Mutex;

/// The part of what is free that operators which can spill may have.
const FOR_SPILLABLE: (usize, usize) = (3, 4);

/// What takes more than this part of the pool leaves a part of it to those that take less.
const LARGE: usize = 32;
const KEPT_BACK: usize = 16;

/// A pool of so many bytes.
#[derive(Debug)]
pub(crate) struct QuestionPool {
    bytes: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    /// Operators that can spill.
    spillers: usize,
    spillable: usize,
    unspillable: usize,
}

impl QuestionPool {
    pub(crate) fn new(bytes: usize) -> Self {
        Self { bytes, taken: Mutex::default() }
    }
}

impl Taken {
    fn of(&mut self, reservation: &MemoryReservation) -> &mut usize {
        if reservation.consumer().can_spill() { &mut self.spillable } else { &mut self.unspillable }
    }
}

impl MemoryPool for QuestionPool {
    fn name(&self) -> &'static str {
        "questions"
    }

    fn register(&self, consumer: &MemoryConsumer) {
        if consumer.can_spill() {
            self.taken.lock().spillers += 1;
        }
    }

    fn unregister(&self, consumer: &MemoryConsumer) {
        if consumer.can_spill() {
            let mut taken = self.taken.lock();
            taken.spillers = taken.spillers.saturating_sub(1);
        }
    }

    fn grow(&self, reservation: &MemoryReservation, additional: usize) {
        *self.taken.lock().of(reservation) += additional;
    }

    fn shrink(&self, reservation: &MemoryReservation, shrink: usize) {
        let mut taken = self.taken.lock();
        let taken = taken.of(reservation);
        *taken = taken.saturating_sub(shrink);
    }

    fn try_grow(&self, reservation: &MemoryReservation, additional: usize) -> Result<()> {
        let mut taken = self.taken.lock();
        let free = self.bytes.saturating_sub(taken.unspillable);
        let (wanted, available) = if reservation.consumer().can_spill() {
            let shared = free / FOR_SPILLABLE.1 * FOR_SPILLABLE.0;
            (reservation.size() + additional, shared / taken.spillers.max(1))
        } else {
            let large = reservation.size() + additional > self.bytes / LARGE;
            let kept_back = if large { self.bytes / KEPT_BACK } else { 0 };
            (additional, free.saturating_sub(taken.spillable).saturating_sub(kept_back))
        };
        if wanted > available {
            let name = reservation.consumer().name();
            return Err(DataFusionError::ResourcesExhausted(format!(
                "{name} needed {wanted} bytes, and could have {available} of the {} that questions have",
                self.bytes
            )));
        }
        *taken.of(reservation) += additional;
        Ok(())
    }

    fn reserved(&self) -> usize {
        let taken = self.taken.lock();
        taken.spillable + taken.unspillable
    }

    fn memory_limit(&self) -> MemoryLimit {
        MemoryLimit::Finite(self.bytes)
    }
}

impl fmt::Display for QuestionPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({} bytes)", self.name(), self.bytes)
    }
}
