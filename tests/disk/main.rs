//! The server on a disk that fills up, fails, stalls and loses power.

#![allow(clippy::unwrap_used, reason = "a test that fails should say where")]

mod faults;
mod power;
mod test_disk;

use std::path::Path;
use std::sync::Arc;

use server::{Config, RunError, Running, start_on};
use storage::Fs;
use test_disk::TestDisk;

/// Starts a server on a disk; `data` is the directory on the real one for what need not be on it.
async fn server_on(disk: &TestDisk, data: &Path, checkpoint_ms: &str) -> Result<Running, RunError> {
    // The projection may be deleted at any time, and what it says is of another disk.
    let _ = std::fs::remove_dir_all(data.join("meta"));
    let arguments = [
        ["--data-dir", data.to_str().unwrap()],
        ["--listen", "127.0.0.1:0"],
        ["--http-listen", "off"],
        ["--segment-bytes", "8192"],
        ["--checkpoint-ms", checkpoint_ms],
    ];
    let arguments: Vec<String> = arguments.as_flattened().iter().map(|&s| s.into()).collect();
    let config = Config::load(&arguments, |_| None).unwrap();
    start_on(&config, Arc::new(disk.clone()) as Arc<dyn Fs>).await
}
