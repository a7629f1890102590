//! Checkpoints: named sections of opaque bytes, complete at one epoch.
//!
//! A section is a sequence of pages. Pages are immutable and named by what is in them, so a checkpoint
//! writes only those that the ones before it do not have; a manifest says which pages its sections are.
//!
//! ```text
//!  checkpoints/00000000000000000042.manifest   one frame: epoch, sections, places of their pages
//!  checkpoints/0000000007.pages                pages, one after the other
//! ```
//! Invariant: a manifest is there, under its name, only when it and every page it names are on disk. The
//! newest two are kept; a page file goes when neither names a page in it.

mod manifest;
mod pages;
mod store;

pub use manifest::Manifest;
pub use pages::PAGE_BYTES;
pub(crate) use store::newest_files;
pub use store::{CheckpointStore, CheckpointWriter, Written};
