//! Tools of the program beside the server: the demo and the benchmark.

mod bench;
mod client;
mod cpu;
mod demo;
pub mod flights;

pub use bench::bench;
pub use demo::demo;
