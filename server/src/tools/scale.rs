//! `millpond bench scale`: what must not grow. The cost of an event with the number of keys, the cost
//! of a stream with the number of views on it, and the time of an epoch that brings one row.
//!
//! Figures are ratios inside one run: a machine is never twice the same.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, Int64Array, RecordBatch};
use executor::CheckpointPolicy;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::bench::{remove, say};
use super::client::Result;
use super::cpu::{cpu_seconds, peak_mib};
use super::nexmark::{World, batch};

/// Events of an epoch.
const CHUNK: usize = 10_000;
/// Epochs of a measure.
const CHUNKS: usize = 200;
/// Epochs that bring one row.
const SMALL_EPOCHS: i64 = 500;

/// Runs the three measures.
///
/// # Errors
/// Whatever the engine says.
pub(super) async fn scale() -> Result<()> {
    say(&format!("{:<44} {:>14} {:>9} {:>9}", "measure", "ns of cpu/event", "ratio", "MiB"))?;
    keys().await?;
    views().await?;
    small_epochs().await
}

fn rows(random: &mut StdRng, keys: i64) -> Result<RecordBatch> {
    let mut column = |below: i64| -> ArrayRef {
        Arc::new((0..CHUNK).map(|_| random.random_range(0..below)).collect::<Int64Array>())
    };
    batch(vec![("key", column(keys)), ("value", column(1000))])
}

/// A world with one stream of keys and values.
async fn world(name: &str) -> Result<(World, std::path::PathBuf)> {
    let directory = std::env::temp_dir().join(format!("millpond-scale-{}-{name}", std::process::id()));
    remove(&directory);
    let world = World::start(&directory, CheckpointPolicy { every: None, at_stop: false })?;
    world.create("CREATE STREAM event (key BIGINT, value BIGINT)").await?;
    Ok((world, directory))
}

/// Nanoseconds of CPU for each event of the chunks.
async fn cost(world: &World, chunks: &[RecordBatch]) -> Result<f64> {
    world.engine.flush().await?;
    let cpu = cpu_seconds();
    for chunk in chunks {
        world.write(&[("event", chunk.clone())]).await?;
    }
    world.engine.flush().await?;
    #[allow(clippy::cast_precision_loss, reason = "a figure for a person")]
    let events = (chunks.len() * CHUNK) as f64;
    Ok((cpu_seconds() - cpu) * 1e9 / events)
}

fn report(measure: &str, cost: f64, first: f64) -> Result<()> {
    say(&format!("{measure:<44} {cost:>14.0} {:>8.1}x {:>9}", cost / first, peak_mib()))
}

async fn keys() -> Result<()> {
    let mut first = None;
    for keys in [1_000i64, 100_000, 1_000_000, 10_000_000] {
        let (world, directory) = world("keys").await?;
        let query = "SELECT key, count(*) AS n, sum(value) AS total FROM event GROUP BY key";
        world.create(&format!("CREATE MATERIALIZED VIEW live AS {query}")).await?;
        let all: Vec<i64> = (0..keys).collect();
        for part in all.chunks(100_000) {
            let key: ArrayRef = Arc::new(Int64Array::from(part.to_vec()));
            world.write(&[("event", batch(vec![("key", Arc::clone(&key)), ("value", key)])?)]).await?;
        }
        let mut random = StdRng::seed_from_u64(1);
        let chunks = (0..CHUNKS).map(|_| rows(&mut random, keys)).collect::<Result<Vec<_>>>()?;
        let cost = cost(&world, &chunks).await?;
        report(&format!("GROUP BY over {keys} keys"), cost, *first.get_or_insert(cost))?;
        world.engine.stop().await;
        remove(&directory);
    }
    Ok(())
}

async fn views() -> Result<()> {
    let mut first = None;
    for views in [1, 10, 100] {
        let (world, directory) = world("views").await?;
        for n in 0..views {
            let query = format!("SELECT key, value FROM event WHERE value = {n}");
            world.create(&format!("CREATE MATERIALIZED VIEW live{n} AS {query}")).await?;
        }
        let mut random = StdRng::seed_from_u64(1);
        let chunks = (0..CHUNKS).map(|_| rows(&mut random, 1000)).collect::<Result<Vec<_>>>()?;
        let cost = cost(&world, &chunks).await?;
        report(&format!("{views} filters on one stream"), cost, *first.get_or_insert(cost))?;
        world.engine.stop().await;
        remove(&directory);
    }
    Ok(())
}

/// A join, a filter, an aggregate, a condition on groups and the first of them.
async fn small_epochs() -> Result<()> {
    let (world, directory) = world("epochs").await?;
    world.create("CREATE TABLE name (key BIGINT PRIMARY KEY, name BIGINT)").await?;
    let key: ArrayRef = Arc::new((0..1000).collect::<Int64Array>());
    world.write(&[("name", batch(vec![("key", Arc::clone(&key)), ("name", key)])?)]).await?;
    let query = "SELECT n.name, count(*) AS n, sum(e.value) AS total FROM event e JOIN name n ON e.key = n.key \
        WHERE e.value > 10 GROUP BY n.name HAVING count(*) > 1 ORDER BY total DESC, name LIMIT 10";
    world.create(&format!("CREATE MATERIALIZED VIEW live AS {query}")).await?;
    let mut random = StdRng::seed_from_u64(1);
    for _ in 0..CHUNKS {
        world.write(&[("event", rows(&mut random, 1000)?)]).await?;
    }
    world.engine.flush().await?;
    let busy = || -> u64 {
        let snapshot = world.engine.snapshot();
        snapshot.catalog.iter().filter_map(|r| snapshot.query(r.id)).map(|status| status.busy_us).sum()
    };
    let before = busy();
    for n in 0..SMALL_EPOCHS {
        let one = |value: i64| -> ArrayRef { Arc::new(Int64Array::from(vec![value])) };
        world.write(&[("event", batch(vec![("key", one(n)), ("value", one(500))])?)]).await?;
    }
    world.engine.flush().await?;
    let took = (busy() - before) / SMALL_EPOCHS.unsigned_abs();
    say(&format!("{:<44} {took:>11} µs", "an epoch of one row, a view of five operators"))?;
    world.engine.stop().await;
    remove(&directory);
    Ok(())
}
