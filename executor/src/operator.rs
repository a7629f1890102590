//! What an operator is: a synchronous function from the changes of one epoch to changes.
//!
//! Invariant: no clock, no randomness, no I/O; the same changes in the same order give the same
//! changes out, byte for byte.

use crate::change::ChangeBatch;
use crate::error::Result;
use crate::rejects::StepRejects;
use crate::state::{Image, StateReader};
use crate::table::TableStore;

/// The changes one input brings in one epoch.
pub(crate) type Changes = Vec<ChangeBatch>;

/// One operator of a running query.
pub(crate) trait Operator: Send {
    /// Takes the changes of each input and returns its own.
    fn step(&mut self, inputs: Vec<Changes>, rejects: &mut StepRejects) -> Result<Changes>;

    /// A table that has the rows of one of its inputs, and their changes before they come: it need not
    /// keep them. `columns` are those of the table that the input has.
    fn share(&mut self, _table: &TableStore, _columns: Vec<usize>) {}

    /// From now on, rows that its inputs touch and leave as they are come too, with weight 0: no change, but
    /// something to write where every update is written.
    fn tell_touched(&mut self) {}

    /// When it has something to say without a change of its inputs, ms since 1970.
    fn due_ms(&self) -> Option<i64> {
        None
    }

    /// Copies its state, for a checkpoint.
    fn save(&self, _image: &mut Image) {}

    /// Takes the state back that an operator of the same node saved, into one that is new.
    fn load(&mut self, _state: &mut StateReader<'_>) -> Result<()> {
        Ok(())
    }

    /// Bytes of state.
    fn state_bytes(&self) -> usize {
        0
    }
}
