//! A workload over streams, tables, views and result topics, and a ledger of what was acknowledged of it.
//!
//! Whatever ends the server: no acknowledged statement is missing, none is there twice, none by half, and every
//! view equals the same question asked of the base relations.

#![allow(clippy::unwrap_used, reason = "a test that fails should say where")]

use std::collections::HashMap;
use std::pin::pin;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::SinkExt;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio_postgres::Client;

use crate::{connect, rows};

/// Streams, tables, views and result topics, some of which queries write together.
pub const SETUP: [&str; 11] = [
    "CREATE STREAM events (statement BIGINT, n INT, g TEXT)",
    "CREATE TABLE accounts (statement BIGINT, n INT, g TEXT, PRIMARY KEY (statement, n))",
    "CREATE MATERIALIZED VIEW by_group AS SELECT g, count(*) AS rows, sum(n) AS total FROM events GROUP BY g",
    "CREATE MATERIALIZED VIEW by_statement AS SELECT statement, count(*) AS rows FROM accounts GROUP BY statement",
    "CREATE MATERIALIZED VIEW both AS SELECT e.g, count(*) AS rows FROM events e JOIN accounts a \
     ON e.statement = a.statement AND e.n = a.n GROUP BY e.g",
    // Streams that queries write, in a format and as columns; two queries that write to one.
    "CREATE STREAM large WITH (value_format = 'json', partitions = 2) AS SELECT statement, n FROM events WHERE n > 20",
    "CREATE STREAM all_of_them (statement BIGINT, n INT)",
    "INSERT INTO all_of_them SELECT statement, n FROM large EMIT CHANGES",
    "INSERT INTO all_of_them SELECT statement, n FROM events WHERE n <= 20 EMIT CHANGES",
    "CREATE STREAM large_raw (v TEXT) WITH (kafka_topic = 'large', value_format = 'kafka')",
    "CREATE MATERIALIZED VIEW counted AS SELECT count(*) AS rows, sum(n) AS total FROM all_of_them",
];

/// Each view with the same question asked of the base relations.
const SAME: [(&str, &str); 6] = [
    ("SELECT * FROM by_group", "SELECT g, count(*), sum(n) FROM events GROUP BY g"),
    ("SELECT * FROM by_statement", "SELECT statement, count(*) FROM accounts GROUP BY statement"),
    (
        "SELECT * FROM both",
        "SELECT e.g, count(*) FROM events e JOIN accounts a ON e.statement = a.statement AND e.n = a.n GROUP BY e.g",
    ),
    ("SELECT * FROM counted", "SELECT count(*), sum(n) FROM events"),
    // Offsets of a topic that two queries write to are as many as its rows.
    (
        "SELECT count(*), count(DISTINCT rowoffset), coalesce(max(rowoffset), -1) + 1 FROM all_of_them",
        "SELECT count(*), count(*), count(*) FROM events",
    ),
    ("SELECT count(*) FROM large_raw", "SELECT count(*) FROM events WHERE n > 20"),
];

/// What a driver knows of each statement, by number: its rows, and whether it was acknowledged.
#[derive(Clone, Default)]
pub struct Ledger {
    next: Arc<AtomicI64>,
    statements: Arc<Mutex<HashMap<i64, Statement>>>,
}

#[derive(Clone, Copy)]
struct Statement {
    rows: usize,
    acknowledged: bool,
}

impl Ledger {
    /// Writes until the server dies. Transactions write to both relations, and views come and go.
    pub async fn write(self, url: String, seed: u64) {
        let mut random = StdRng::seed_from_u64(seed);
        let Ok(client) = connect(&url).await else { return };
        loop {
            let statement = self.next.fetch_add(1, Ordering::SeqCst);
            let n = random.random_range(1..60);
            self.note(statement, n, false);
            let line = |i: usize| (statement, i, ["a", "b", "c"][i % 3]);
            let values: Vec<String> =
                (0..n).map(line).map(|(s, i, g)| format!("({s}, {i}, '{g}')")).collect();
            let values = values.join(",");
            let insert = format!("INSERT INTO events VALUES {values}");
            let done = match random.random_range(0..20) {
                0..6 => client.batch_execute(&insert).await.is_ok(),
                6..12 => {
                    let both = format!("BEGIN; {insert}; INSERT INTO accounts VALUES {values}; COMMIT");
                    client.batch_execute(&both).await.is_ok()
                }
                12..18 => copy(&client, (0..n).map(line)).await,
                _ => {
                    let view = format!(
                        "CREATE MATERIALIZED VIEW passing_{statement} AS SELECT max(n) AS most FROM accounts;
                         DROP MATERIALIZED VIEW passing_{statement}; {insert}"
                    );
                    client.batch_execute(&view).await.is_ok()
                }
            };
            if !done {
                return;
            }
            self.note(statement, n, true);
        }
    }

    fn note(&self, statement: i64, rows: usize, acknowledged: bool) {
        self.statements.lock().unwrap().insert(statement, Statement { rows, acknowledged });
    }

    /// How many statements were acknowledged.
    pub fn acknowledged(&self) -> usize {
        self.statements.lock().unwrap().values().filter(|statement| statement.acknowledged).count()
    }

    /// Compares a server with what was acknowledged.
    ///
    /// # Panics
    /// When something is missing, or there twice or by half, or a view is not what the base relations say.
    pub async fn verify(&self, client: &Client, context: &str) {
        let found = found(client).await;
        {
            let statements = self.statements.lock().unwrap();
            for (number, statement) in statements.iter() {
                match found.get(number) {
                    Some(count) => assert_eq!(
                        *count, statement.rows,
                        "{context}: statement {number} is there by half or twice"
                    ),
                    None => assert!(
                        !statement.acknowledged,
                        "{context}: statement {number} was acknowledged and is gone"
                    ),
                }
            }
            assert!(found.keys().all(|s| statements.contains_key(s)), "{context}: rows that nobody wrote");
        }
        let doubled = "SELECT statement, n FROM events GROUP BY statement, n HAVING count(*) > 1";
        assert!(rows(client, doubled).await.is_empty(), "{context}: doubled rows");
        let torn = "SELECT a.statement FROM (SELECT statement, count(*) c FROM accounts GROUP BY statement) a \
                    JOIN (SELECT statement, count(*) c FROM events GROUP BY statement) e ON a.statement = e.statement \
                    WHERE a.c <> e.c";
        assert!(rows(client, torn).await.is_empty(), "{context}: a transaction is there by half");
        for (view, query) in SAME {
            assert_eq!(rows(client, view).await, rows(client, query).await, "{context}: {view}");
        }
    }

    /// Takes what a server has for what was acknowledged: from here on all of it must stay.
    pub async fn settle(&self, client: &Client) {
        let found = found(client).await;
        let mut statements = self.statements.lock().unwrap();
        statements.retain(|number, _| found.contains_key(number));
        statements.values_mut().for_each(|statement| statement.acknowledged = true);
    }
}

/// The statements that are there, with their rows.
async fn found(client: &Client) -> HashMap<i64, usize> {
    let number = |text: &str| text.parse::<i64>().unwrap();
    rows(client, "SELECT statement, count(*) FROM events GROUP BY statement")
        .await
        .iter()
        .map(|line| line.split_once('|').unwrap())
        .map(|(statement, count)| (number(statement), number(count) as usize))
        .collect()
}

async fn copy(client: &Client, lines: impl Iterator<Item = (i64, usize, &'static str)>) -> bool {
    let Ok(sink) = client.copy_in::<_, Bytes>("COPY events FROM STDIN").await else { return false };
    let mut sink = pin!(sink);
    for (statement, i, g) in lines {
        if sink.feed(Bytes::from(format!("{statement}\t{i}\t{g}\n"))).await.is_err() {
            return false;
        }
    }
    sink.as_mut().finish().await.is_ok()
}
