//! `millpond check`: it names what is damaged, whichever file it is in, and says nothing of what is whole.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use harness::{Server, program};

fn check(data: &Path) -> Output {
    Command::new(program()).arg("check").arg(data).output().unwrap()
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn files(directory: &Path, into: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files(&path, into) } else { into.push(path) }
    }
}

/// A stopped server's directory: rows in several segments, a view, checkpoints.
async fn filled(data: &Path) {
    let server = Server::start_with(data, &["--segment-bytes", "4096"]).unwrap();
    let client = server.connect().await;
    client
        .batch_execute(
            "CREATE TABLE t (id INT PRIMARY KEY, v TEXT);
             CREATE MATERIALIZED VIEW m AS SELECT v, count(*) AS n FROM t GROUP BY v",
        )
        .await
        .unwrap();
    for id in 0..20 {
        let statement = format!("INSERT INTO t VALUES ({id}, '{}')", "x".repeat(200));
        client.batch_execute(&statement).await.unwrap();
    }
    let running = check(data);
    assert!(!running.status.success() && said(&running).contains("in use"), "{}", said(&running));
    assert_eq!(server.terminate(), Some(0));
}

#[tokio::test]
async fn every_damaged_file_is_named() {
    let data = tempfile::tempdir().unwrap();
    filled(data.path()).await;
    let whole = check(data.path());
    assert!(whole.status.success() && said(&whole).contains("whole"), "{}", said(&whole));
    let mut all = Vec::new();
    files(data.path(), &mut all);
    let counts = |path: &PathBuf| {
        let name = path.to_string_lossy();
        let derived = name.contains("/sled/") || name.ends_with("LOCK") || name.ends_with(".idx");
        !derived && std::fs::metadata(path).unwrap().len() > 0
    };
    let truths: Vec<PathBuf> = all.into_iter().filter(counts).collect();
    for kind in ["journal", ".seg", ".manifest", ".pages"] {
        assert!(truths.iter().any(|path| path.to_string_lossy().ends_with(kind)), "no {kind} to damage");
    }
    for path in &truths {
        let before = std::fs::read(path).unwrap();
        let mut bytes = before.clone();
        // In the first third: of a log's last file a torn end is nothing to speak of.
        let at = bytes.len() / 3;
        bytes[at] ^= 0x10;
        std::fs::write(path, &bytes).unwrap();
        let damaged = check(data.path());
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        assert!(!damaged.status.success(), "{name}: {}", said(&damaged));
        assert!(said(&damaged).contains(&name), "{name}: {}", said(&damaged));
        std::fs::write(path, &before).unwrap();
    }
    assert!(check(data.path()).status.success());
}

#[test]
fn what_is_no_data_directory_is_refused() {
    let empty = tempfile::tempdir().unwrap();
    let output = check(&empty.path().join("nowhere"));
    assert!(!output.status.success() && said(&output).contains("no data directory"), "{}", said(&output));
    assert!(!empty.path().join("nowhere").exists());
}
