//! Tools of the program beside the server: the demo and the benchmark.

mod backup;
mod bench;
mod check;
mod client;
mod cpu;
mod demo;
pub mod flights;
mod nexmark;
mod scale;

pub use backup::{backup, restore};
pub use bench::bench;
pub use check::check;
pub use demo::demo;
