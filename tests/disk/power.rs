//! Power is lost at a random change to the disk, and what was not synced is there or not, in any part and order.
//!
//! After it: nothing that was acknowledged is missing, nothing is there twice or by half, views equal the batch
//! answer, result topics have no gap. `POWER_IMAGES` sets how many disks are looked at, `SEED` which ones.

use std::path::Path;
use std::time::Duration;

use harness::ledger::{Ledger, SETUP};
use harness::{connect, rows, seed, times};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use server::{RunError, Running};

use crate::server_on;
use crate::test_disk::TestDisk;

/// Disks that one loss of power may leave.
const IMAGES: usize = 10;
/// A loss comes within so many changes, and a third of them while the server still starts.
const CHANGES: u64 = 600;
const STARTING: u64 = 30;

async fn start(data: &Path, disk: &TestDisk, random: &mut StdRng) -> Result<Running, RunError> {
    server_on(disk, data, ["0", "1", "20"].choose(random).unwrap()).await
}

/// Writes until the disk is gone.
async fn work(running: Running, ledger: &Ledger, disk: &TestDisk, random: &mut StdRng) {
    let writers: Vec<_> =
        (0..3).map(|_| tokio::spawn(ledger.clone().write(running.url(), random.random()))).collect();
    for writer in writers {
        tokio::time::timeout(Duration::from_secs(60), writer).await.expect("an answer").unwrap();
    }
    assert!(disk.is_dead(), "writers gave up on a disk that works");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_acknowledged_is_lost_with_the_power() {
    let seed = seed("power");
    let mut random = StdRng::seed_from_u64(seed);
    let data = tempfile::tempdir().unwrap();
    let ledger = Ledger::default();
    let mut disk = TestDisk::default();
    let running = start(data.path(), &disk, &mut random).await.unwrap();
    for statement in SETUP {
        connect(&running.url()).await.unwrap().batch_execute(statement).await.unwrap();
    }
    running.stop().await;
    for round in 0..times("POWER_IMAGES", 300) / IMAGES {
        let most = if random.random_ratio(1, 3) { STARTING } else { CHANGES };
        disk.dies_after(random.random_range(0..most));
        match start(data.path(), &disk, &mut random).await {
            Ok(running) => work(running, &ledger, &disk, &mut random).await,
            Err(error) => assert!(disk.is_dead(), "{error}"),
        }
        let lost = disk.snapshot();
        for image in 0..IMAGES {
            let context = format!("SEED={seed} round {round} image {image}");
            disk = lost.image(&mut random);
            let running = start(data.path(), &disk, &mut random).await;
            let running = running.unwrap_or_else(|error| panic!("{context}: {error}"));
            let client = connect(&running.url()).await.unwrap();
            ledger.verify(&client, &context).await;
            if image + 1 == IMAGES {
                ledger.settle(&client).await;
            }
            running.stop().await;
        }
    }
    println!("{} statements are all there once", ledger.acknowledged());
}

/// Statements that make and remove, write and fill segments.
fn script() -> Vec<String> {
    let insert = |n: usize| {
        format!("INSERT INTO events SELECT {n}, i, 'g' || (i % 3) FROM generate_series(1, 40) AS s(i)")
    };
    let both = |n: usize| format!("BEGIN; {}; INSERT INTO accounts VALUES ({n}, 1, 'a'); COMMIT", insert(n));
    let mut all: Vec<String> = SETUP.iter().map(ToString::to_string).collect();
    all.extend([insert(1), both(2), insert(3)]);
    all.push("CREATE MATERIALIZED VIEW passing AS SELECT max(n) AS most FROM events".into());
    all.extend([both(4), "DROP MATERIALIZED VIEW passing".into(), insert(5), both(6)]);
    all
}

/// What there is after the first statements: whether the view is there, rows of the stream and of the table.
fn after(script: &[String]) -> (bool, usize, usize) {
    let count = |part: &str| script.iter().filter(|statement| statement.contains(part)).count();
    (
        count("VIEW passing") == 1,
        40 * count("INSERT INTO events SELECT"),
        count("INSERT INTO accounts VALUES"),
    )
}

async fn found(client: &tokio_postgres::Client) -> (bool, usize, usize) {
    let views = rows(client, "SELECT name FROM millpond.relations WHERE name = 'passing'").await;
    let count =
        async |relation: &str| match client.query_one(&format!("SELECT count(*) FROM {relation}"), &[]).await
        {
            Ok(row) => row.get::<_, i64>(0) as usize,
            Err(_) => 0,
        };
    (!views.is_empty(), count("events").await, count("accounts").await)
}

/// Power is lost before each change to the disk that a script makes: what was acknowledged is there, and of the
/// statement that was not all or nothing. `POWER_STRIDE` says how many changes lie between two losses.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn at_every_change_of_a_script() {
    let mut random = StdRng::seed_from_u64(seed("power at every change"));
    let script = script();
    let stride = times("POWER_STRIDE", 6) as u64;
    let mut changes = random.random_range(0..stride);
    loop {
        let data = tempfile::tempdir().unwrap();
        let disk = TestDisk::default();
        disk.dies_after(changes);
        let mut done = 0;
        if let Ok(running) = start(data.path(), &disk, &mut random).await {
            let client = connect(&running.url()).await.unwrap();
            while done < script.len() && client.batch_execute(&script[done]).await.is_ok() {
                done += 1;
            }
            running.stop().await;
        }
        if !disk.is_dead() {
            assert_eq!(done, script.len());
            break;
        }
        let lost = disk.snapshot();
        for _ in 0..2 {
            let running = start(data.path(), &lost.image(&mut random), &mut random).await.unwrap();
            let found = found(&connect(&running.url()).await.unwrap()).await;
            let next = script.len().min(done + 1);
            assert!(
                found == after(&script[..done]) || found == after(&script[..next]),
                "after {changes} changes and {done} statements: {found:?}"
            );
            running.stop().await;
        }
        changes += stride;
    }
    println!("lost power at every {stride}th of {changes} changes");
}

/// A directory that the server made is there when its first statement is acknowledged.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_new_directory_survives() {
    let mut random = StdRng::seed_from_u64(seed("power of a new directory"));
    let data = tempfile::tempdir().unwrap();
    let disk = TestDisk::default();
    let running = start(data.path(), &disk, &mut random).await.unwrap();
    let client = connect(&running.url()).await.unwrap();
    client.batch_execute("CREATE TABLE t (id INT PRIMARY KEY); INSERT INTO t VALUES (1)").await.unwrap();
    let lost = disk.snapshot();
    running.stop().await;
    for _ in 0..IMAGES {
        let running = start(data.path(), &lost.image(&mut random), &mut random).await.unwrap();
        assert_eq!(rows(&connect(&running.url()).await.unwrap(), "SELECT * FROM t").await, ["1"]);
        running.stop().await;
    }
}
