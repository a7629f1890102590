//! Operators' state as bytes, for checkpoints: written in the step thread as copies, encoded beside it, read
//! at a start.
//!
//! Invariant: what is loaded behaves as what was saved, to the byte of what it gives later: slots, lists and
//! orders are kept as they were, not made again.

mod image;
mod plain;
mod reader;

pub(crate) use image::{Image, Stateful};
pub(crate) use plain::Plain;
pub(crate) use reader::StateReader;

/// The layout of all that is saved. Another one is not read: what it holds is computed again.
pub(crate) const LAYOUT: u32 = 2;
