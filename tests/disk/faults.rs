//! Disks that fill up, fail to sync and stall: what is refused is refused whole, and who reads does not wait.

use std::time::Duration;

use harness::ledger::SETUP;
use harness::{connect, rows};
use server::Running;
use tokio_postgres::Client;

use crate::server_on;
use crate::test_disk::TestDisk;

/// Longer than any answer that does not wait for the disk.
const SOON: Duration = Duration::from_secs(5);
/// What new records leave free of the disk, and some room beside it.
const RESERVE: u64 = 20 << 20;
const ROOM: u64 = RESERVE + (1 << 20);
const COPIES: &str =
    "CREATE STREAM copies WITH (kafka_topic = 'copies', value_format = 'json') AS SELECT n, g FROM events";

async fn ready(disk: &TestDisk, data: &std::path::Path) -> (Running, Client) {
    let running = server_on(disk, data, "20").await.unwrap();
    let client = connect(&running.url()).await.unwrap();
    for statement in SETUP.iter().chain([&COPIES]) {
        client.batch_execute(statement).await.unwrap_or_else(|e| panic!("{statement}: {e:?}"));
    }
    (running, client)
}

async fn refused(client: &Client, statement: &str) -> String {
    let error = client.batch_execute(statement).await.expect_err(statement);
    error.code().unwrap_or_else(|| panic!("{statement}: {error:?}")).code().to_owned()
}

/// Inserts rows of about 10 kB until the server refuses; how many it took.
async fn fill(client: &Client) -> (usize, String) {
    for n in 0..10_000 {
        let insert = format!("INSERT INTO events VALUES (-1, {n}, repeat('x', 10000))");
        if let Err(error) = client.batch_execute(&insert).await {
            return (n, error.code().unwrap().code().to_owned());
        }
    }
    panic!("a disk with {ROOM} bytes never fills up");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_full_disk_refuses_rows_answers_readers_and_goes_on_by_itself() {
    let (disk, data) = (TestDisk::default(), tempfile::tempdir().unwrap());
    let (running, client) = ready(&disk, data.path()).await;
    disk.has_room(Some(ROOM));
    let (took, state) = fill(&client).await;
    assert_eq!(state, "53100");
    assert!(took > 10, "{took} rows in a mebibyte");
    // What came of the rows that were taken has room, and everything can be read.
    let count = |relation: &str| format!("SELECT count(*) FROM {relation} WHERE g LIKE 'xx%'");
    for relation in ["events", "copies"] {
        let answer = tokio::time::timeout(SOON, rows(&client, &count(relation))).await.unwrap();
        assert_eq!(answer, [took.to_string()], "{relation}");
    }
    assert_eq!(refused(&client, "INSERT INTO accounts VALUES (1, 1, 'a')").await, "53100");
    // A transaction that is refused is not there by half.
    assert_eq!(
        refused(
            &client,
            "BEGIN; INSERT INTO accounts VALUES (2, 1, 'a'); INSERT INTO events VALUES (2, 1, 'a'); COMMIT"
        )
        .await,
        "53100"
    );
    client.batch_execute("ROLLBACK").await.unwrap();
    disk.has_room(None);
    client.batch_execute("INSERT INTO events VALUES (-1, -1, 'xx')").await.unwrap();
    client.batch_execute("FLUSH").await.unwrap();
    for relation in ["events", "copies"] {
        assert_eq!(rows(&client, &count(relation)).await, [(took + 1).to_string()], "{relation}");
    }
    assert!(rows(&client, "SELECT * FROM accounts").await.is_empty());
    running.stop().await;
}

/// The results have no room either: they wait for it, and nothing of them is lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn results_wait_for_room() {
    let (disk, data) = (TestDisk::default(), tempfile::tempdir().unwrap());
    let (running, client) = ready(&disk, data.path()).await;
    client.batch_execute("INSERT INTO events VALUES (-1, 0, 'xx')").await.unwrap();
    disk.has_room(Some(RESERVE + 100_000));
    let large =
        "INSERT INTO events SELECT -1, n, 'xx' || repeat('y', 90) FROM generate_series(1, 150000) AS s(n)";
    client.batch_execute(large).await.unwrap();
    assert_eq!(refused(&client, "INSERT INTO accounts VALUES (1, 1, 'a')").await, "53100");
    disk.has_room(None);
    client.batch_execute("INSERT INTO accounts VALUES (1, 1, 'a'); FLUSH").await.unwrap();
    for relation in ["events", "copies"] {
        let count = format!("SELECT count(*) FROM {relation} WHERE g LIKE 'xx%'");
        assert_eq!(rows(&client, &count).await, ["150001"], "{relation}");
    }
    // The end does not wait for room, and the next start makes up for what had none.
    disk.has_room(Some(RESERVE + 100_000));
    client.batch_execute(large).await.unwrap();
    running.stop().await;
    disk.has_room(None);
    let running = server_on(&disk, data.path(), "20").await.unwrap();
    let client = connect(&running.url()).await.unwrap();
    client.batch_execute("FLUSH").await.unwrap();
    for relation in ["events", "copies"] {
        let count = format!("SELECT count(*) FROM {relation} WHERE g LIKE 'xx%'");
        assert_eq!(rows(&client, &count).await, ["300001"], "{relation}");
    }
    running.stop().await;
}

/// A sync that failed may have lost what it was to keep: it is not tried again, and the next start knows what there is.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_failed_to_sync_was_never_there() {
    let (disk, data) = (TestDisk::default(), tempfile::tempdir().unwrap());
    let (running, client) = ready(&disk, data.path()).await;
    client.batch_execute("INSERT INTO events VALUES (1, 1, 'a')").await.unwrap();
    disk.fails_to_sync("-events/");
    assert_eq!(refused(&client, "INSERT INTO events VALUES (2, 1, 'a')").await, "58030");
    assert_eq!(refused(&client, "INSERT INTO events VALUES (3, 1, 'a')").await, "58030");
    // Others are as they were.
    client.batch_execute("INSERT INTO accounts VALUES (4, 1, 'a')").await.unwrap();
    assert_eq!(rows(&client, "SELECT statement FROM events").await, ["1"]);
    running.stop().await;
    let running = server_on(&disk, data.path(), "20").await.unwrap();
    let client = connect(&running.url()).await.unwrap();
    client.batch_execute("INSERT INTO events VALUES (5, 1, 'a')").await.unwrap();
    assert_eq!(rows(&client, "SELECT statement FROM events").await, ["1", "5"]);
    assert_eq!(rows(&client, "SELECT statement FROM accounts").await, ["4"]);
    running.stop().await;
}

/// Syncs wait until it is dropped, also when the test fails.
struct Stalled<'a>(&'a TestDisk);

impl<'a> Stalled<'a> {
    fn begin(disk: &'a TestDisk) -> Self {
        disk.stalls(true);
        Self(disk)
    }
}

impl Drop for Stalled<'_> {
    fn drop(&mut self) {
        self.0.stalls(false);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn who_reads_does_not_wait_for_a_disk_that_stalls() {
    let (disk, data) = (TestDisk::default(), tempfile::tempdir().unwrap());
    let (running, client) = ready(&disk, data.path()).await;
    client.batch_execute("INSERT INTO events VALUES (1, 1, 'a')").await.unwrap();
    let stalled = Stalled::begin(&disk);
    let writer = connect(&running.url()).await.unwrap();
    let insert =
        tokio::spawn(async move { writer.batch_execute("INSERT INTO events VALUES (2, 1, 'a')").await });
    for _ in 0..50 {
        for query in ["SELECT statement FROM events", "SELECT total FROM by_group", "SELECT n FROM copies"] {
            let answer = tokio::time::timeout(SOON, rows(&client, query)).await;
            assert_eq!(answer.unwrap(), ["1"], "{query}");
        }
    }
    assert!(!insert.is_finished());
    drop(stalled);
    insert.await.unwrap().unwrap();
    assert_eq!(rows(&client, "SELECT statement FROM events").await, ["1", "2"]);
    running.stop().await;
}
