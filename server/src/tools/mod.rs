//! Tools of the program beside the server: the demo and the benchmark.

mod bench;
mod client;
mod cpu;
mod demo;
pub mod flights;
mod nexmark;
mod scale;

pub use bench::bench;
pub use demo::demo;
