//! Directories that earlier versions have left: each is opened, answers as it did, and goes on.
//!
//! `tests/golden/NAME/data` is a backup, `answers.slt` what it answered. A version that changes a format or a state adds
//! one: `GOLDEN=NAME cargo test --release --workspace --test golden -- --ignored` makes it from `make.slt`, a checkpoint,
//! and `later.slt`. None is ever made again.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use harness::slt::run_file;
use harness::{Server, program, rows};
use tokio_postgres::{Client, SimpleQueryMessage};

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden")
}

fn restored(backup: &Path, data: &Path) {
    let output = Command::new(program()).arg("restore").arg(backup).arg(data).output().unwrap();
    assert!(output.status.success(), "{}: {}", backup.display(), String::from_utf8_lossy(&output.stderr));
}

#[tokio::test]
async fn every_directory_answers_as_it_did() {
    let entries = std::fs::read_dir(golden()).unwrap().map(|entry| entry.unwrap().path());
    let all: Vec<PathBuf> = entries.filter(|path| path.is_dir()).collect();
    assert!(!all.is_empty());
    for directory in all {
        let data = tempfile::tempdir().unwrap();
        restored(&directory.join("data"), data.path());
        let server = Server::start(data.path());
        run_file(&server.url, &directory.join("answers.slt")).await.unwrap_or_else(|e| panic!("{e}"));
        let client = server.connect().await;
        let counted = "SELECT n FROM made_late";
        let before: u64 = rows(&client, counted).await.concat().parse().unwrap();
        client.batch_execute("INSERT INTO sales VALUES (100, 9, 1, '2026-02-01 00:00:00')").await.unwrap();
        assert_eq!(rows(&client, counted).await, [(before + 1).to_string()]);
        assert_eq!(rows(&client, "SELECT n FROM per_item WHERE item = 9").await, ["1"]);
        assert_eq!(server.terminate(), Some(0));
        let again = Server::start(data.path());
        assert_eq!(rows(&again.connect().await, counted).await, [(before + 1).to_string()]);
    }
}

/// What the server says to each query, as a file that says it.
async fn answers(client: &Client, queries: &str) -> String {
    let mut out = String::new();
    for query in queries.lines().filter(|line| !line.is_empty()) {
        let mut width = 0;
        let mut text = String::new();
        for message in client.simple_query(query).await.unwrap_or_else(|e| panic!("{query}: {e:?}")) {
            if let SimpleQueryMessage::Row(row) = message {
                width = row.len();
                let cell = |i| match row.get(i) {
                    None => "NULL",
                    Some("") => "(empty)",
                    Some(text) => text,
                };
                writeln!(text, "{}", (0..row.len()).map(cell).collect::<Vec<_>>().join(" ")).unwrap();
            }
        }
        writeln!(out, "query {}\n{query}\n----\n{text}", "T".repeat(width)).unwrap();
    }
    out
}

#[tokio::test]
#[ignore = "makes a directory that stays"]
async fn make() {
    let name = std::env::var("GOLDEN").expect("GOLDEN is the name of the directory to make");
    let to = golden().join(name);
    assert!(!to.exists(), "{} is there and stays as it is", to.display());
    let data = tempfile::tempdir().unwrap();
    // No checkpoint but the one that is asked for by a stop.
    let flags = ["--checkpoint-ms", "3600000", "--memory-limit", "none"];
    let server = Server::start_with(data.path(), &flags).unwrap();
    run_file(&server.url, &golden().join("make.slt")).await.unwrap();
    assert_eq!(server.terminate(), Some(0));
    let server = Server::start_with(data.path(), &flags).unwrap();
    run_file(&server.url, &golden().join("later.slt")).await.unwrap();
    let client = server.connect().await;
    let queries = std::fs::read_to_string(golden().join("queries.sql")).unwrap();
    let said = answers(&client, &queries).await;
    std::fs::create_dir_all(&to).unwrap();
    client.batch_execute(&format!("BACKUP TO '{}'", to.join("data").display())).await.unwrap();
    std::fs::write(to.join("answers.slt"), said).unwrap();
}
