//! Power is lost at a random change to the disk, and what was not synced is there or not, in any part and order.
//!
//! After it: nothing that was acknowledged is missing, nothing is there twice or by half, views equal the batch
//! answer, result topics have no gap. `POWER_IMAGES` sets how many disks are looked at, `SEED` which ones.

#![allow(clippy::unwrap_used, reason = "a test that fails should say where")]

mod disk;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use disk::PowerDisk;
use harness::ledger::{Ledger, SETUP};
use harness::{connect, rows, seed, times};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use server::{Config, RunError, Running, start_on};
use storage::Fs;

/// Disks that one loss of power may leave.
const IMAGES: usize = 10;
/// A loss comes within so many changes, and a third of them while the server still starts.
const CHANGES: u64 = 600;
const STARTING: u64 = 30;

async fn start(data: &Path, disk: &PowerDisk, random: &mut StdRng) -> Result<Running, RunError> {
    // It may be deleted at any time, and is not on this disk.
    let _ = std::fs::remove_dir_all(data.join("meta"));
    let checkpoints = *["0", "1", "20"].choose(random).unwrap();
    let arguments = [
        ["--data-dir", data.to_str().unwrap()],
        ["--listen", "127.0.0.1:0"],
        ["--http-listen", "off"],
        ["--segment-bytes", "8192"],
        ["--checkpoint-ms", checkpoints],
    ];
    let config =
        Config::load(&arguments.as_flattened().iter().map(|&s| s.into()).collect::<Vec<_>>(), |_| None);
    start_on(&config.unwrap(), Arc::new(disk.clone()) as Arc<dyn Fs>).await
}

/// Writes until the disk is gone.
async fn work(running: Running, ledger: &Ledger, disk: &PowerDisk, random: &mut StdRng) {
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
    let mut disk = PowerDisk::default();
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

/// A directory that the server made is there when its first statement is acknowledged.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_new_directory_survives() {
    let mut random = StdRng::seed_from_u64(seed("power of a new directory"));
    let data = tempfile::tempdir().unwrap();
    let disk = PowerDisk::default();
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
