//! Files of SQL and answers, run over the real wire.

use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use sqllogictest::{AsyncDB, DBOutput, DefaultColumnType, Runner};
use tokio_postgres::{Client, SimpleQueryMessage};

use super::connect;

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

/// Runs a file against the server at `url`; what did not go as it says.
pub async fn run_file(url: &str, path: &Path) -> Result<(), String> {
    let mut runner = Runner::new(|| async { Ok(Wire(connect(url).await.map_err(Failure)?)) });
    runner.run_file_async(path).await.map_err(|error| error.display(false).to_string())
}
