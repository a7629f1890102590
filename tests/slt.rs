//! Every `.slt` file under `slt/`, over the real wire, each against a server of its own.

use std::path::{Path, PathBuf};

use harness::Server;
use harness::slt::run_file;

fn files(directory: &Path, out: &mut Vec<PathBuf>) {
    let mut entries: Vec<_> =
        std::fs::read_dir(directory).expect("slt/ is there").map(|e| e.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            files(&path, out);
        } else if path.extension().is_some_and(|e| e == "slt") {
            out.push(path);
        }
    }
}

#[test]
fn every_file() {
    let mut all = Vec::new();
    files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("slt"), &mut all);
    assert!(!all.is_empty());
    let mut failures = Vec::new();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    for path in all {
        let data = tempfile::tempdir().unwrap();
        let server = Server::start(data.path());
        if let Err(error) = runtime.block_on(run_file(&server.url, &path)) {
            failures.push(error);
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
