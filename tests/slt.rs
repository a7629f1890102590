//! Every `.slt` file under `slt/`, over the real wire, each against a server of its own.

use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use harness::{Server, connect};
use sqllogictest::{AsyncDB, DBOutput, DefaultColumnType, Runner};
use tokio_postgres::{Client, SimpleQueryMessage};

struct Wire(Client);

#[derive(Debug)]
struct Failure(tokio_postgres::Error);

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0.as_db_error() {
            Some(error) => write!(f, "({}) {}", error.code().code(), error.message()),
            None => write!(f, "{}", self.0),
        }
    }
}

impl std::error::Error for Failure {}

#[async_trait]
impl AsyncDB for Wire {
    type Error = Failure;
    type ColumnType = DefaultColumnType;

    async fn run(&mut self, sql: &str) -> Result<DBOutput<DefaultColumnType>, Failure> {
        let mut rows = Vec::new();
        let (mut width, mut count) = (0, 0);
        for message in self.0.simple_query(sql).await.map_err(Failure)? {
            match message {
                SimpleQueryMessage::RowDescription(columns) => width = columns.len(),
                SimpleQueryMessage::Row(row) => rows.push(
                    (0..row.len())
                        .map(|i| match row.get(i) {
                            None => "NULL".to_owned(),
                            Some("") => "(empty)".to_owned(),
                            Some(text) => text.to_owned(),
                        })
                        .collect(),
                ),
                SimpleQueryMessage::CommandComplete(n) => count = n,
                _ => {}
            }
        }
        Ok(if width > 0 {
            DBOutput::Rows { types: vec![DefaultColumnType::Any; width], rows }
        } else {
            DBOutput::StatementComplete(count)
        })
    }

    async fn shutdown(&mut self) {}

    fn engine_name(&self) -> &str {
        "millpond"
    }

    async fn sleep(duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}

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
        let url = server.url.clone();
        let result = runtime.block_on(async {
            let mut runner = Runner::new(|| async { Ok(Wire(connect(&url).await.map_err(Failure)?)) });
            runner.run_file_async(&path).await
        });
        if let Err(error) = result {
            failures.push(format!("{}", error.display(false)));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
