//! `millpond bench nexmark`: auctions and bids through each query of the benchmark, kept up to date
//! while they arrive, every answer checked, beside the batch answer over the same log.
//!
//! Events are made before the clock runs and go into the log as columns, so that a figure is the
//! log's and the view's work alone. With `json` they are records of JSON, made before the clock runs too,
//! and the figure holds their decoding. Events per CPU-second count all threads of the process.
//! Source: Tucker et al., "NEXMark" (2008); github.com/nexmark/nexmark for the further queries.

use std::collections::hash_map::DefaultHasher;
use std::hash::Hasher;
use std::sync::Arc;
use std::time::Duration;

use datafusion::arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use datafusion::arrow::datatypes::{Field, Schema};
use datafusion::arrow::row::{RowConverter, SortField};
use executor::{CheckpointPolicy, Engine, EngineConfig, PullContext, RejectRetention, Write};
use futures::TryStreamExt;
use planner::Binder;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use sql::Statement;
use storage::{Disk, SystemClock};

use super::bench::{remove, say};
use super::client::Result;
use super::cpu::{cpu_seconds, peak_mib};

const QUERIES: &str = include_str!("nexmark.sql");
/// The streams.
const STREAMS: [&str; 3] = [
    "CREATE STREAM person (id BIGINT, name TEXT, email TEXT, city TEXT, state TEXT, date_time TIMESTAMP)",
    "CREATE STREAM auction (id BIGINT, item_name TEXT, initial_bid BIGINT, reserve BIGINT, date_time TIMESTAMP, \
     expires TIMESTAMP, seller BIGINT, category BIGINT)",
    "CREATE STREAM bid (auction BIGINT, bidder BIGINT, price BIGINT, channel TEXT, url TEXT, date_time TIMESTAMP)",
];
const SIDE: &str = "CREATE TABLE side (key BIGINT PRIMARY KEY, value TEXT)";
/// With this the streams are on topics of JSON.
const JSON: &str = " WITH (value_format = 'json')";
/// Events of an epoch.
const CHUNK: i64 = 50 * 200;
/// Time between checkpoints, where `checkpoints` is asked for.
const OFTEN: std::time::Duration = std::time::Duration::from_secs(1);
/// Of fifty events one is a person and three are auctions.
const CYCLE: i64 = 50;
/// Events a second of their own time.
const RATE: i64 = 10_000;

/// Runs the queries; arguments are their names and the number of events.
///
/// # Errors
/// An answer that is not the batch answer, and whatever the engine says.
pub(super) async fn nexmark(args: &[String]) -> Result<()> {
    let events = args.iter().find_map(|a| a.parse::<i64>().ok()).unwrap_or(1_000_000);
    let chunks: Vec<Chunk> =
        (0..events).step_by(usize::try_from(CHUNK)?).map(|first| chunk(first, events)).collect();
    say(&format!(
        "{events} events\n{:<6} {:>14} {:>14} {:>10} {:>9} {:>9}",
        "query", "events/cpu s", "rows", "batch", "cpu s", "MiB"
    ))?;
    let format = if args.iter().any(|a| a == "json") { JSON } else { "" };
    let often = args.iter().any(|a| a == "checkpoints");
    let every = Some(if often { OFTEN } else { CheckpointPolicy::default().every.unwrap_or_default() });
    let how = (format, CheckpointPolicy { every, at_stop: false });
    run("log", None, &chunks, events, how).await?;
    let named = |a: &String| a.parse::<i64>().is_err() && a != "json" && a != "checkpoints";
    for (name, query) in queries() {
        if !args.iter().any(named) || args.contains(&name) {
            run(&name, Some(&query), &chunks, events, how).await?;
        }
    }
    Ok(())
}

/// Name and text of each query.
fn queries() -> Vec<(String, String)> {
    let mut out: Vec<(String, String)> = Vec::new();
    for line in QUERIES.lines() {
        match line.strip_prefix("-- ").and_then(|l| l.split_once(':')) {
            Some((name, _)) => out.push((name.to_owned(), String::new())),
            None => {
                if let Some((_, text)) = out.last_mut() {
                    text.push_str(line);
                    text.push('\n');
                }
            }
        }
    }
    out
}

/// The events of an epoch, by relation.
struct Chunk(Vec<(&'static str, RecordBatch)>);

async fn run(
    name: &str,
    query: Option<&str>,
    chunks: &[Chunk],
    events: i64,
    (format, checkpoints): (&str, CheckpointPolicy),
) -> Result<()> {
    let directory = std::env::temp_dir().join(format!("millpond-nexmark-{}-{name}", std::process::id()));
    remove(&directory);
    let world = World::start(&directory, checkpoints)?;
    world.create(SIDE).await?;
    for stream in STREAMS {
        world.create(&format!("{stream}{format}")).await?;
    }
    world.write(&[("side", side()?)]).await?;
    if let Some(query) = query {
        world.create(&format!("CREATE MATERIALIZED VIEW live AS {query}")).await?;
    }
    let writes = chunks.iter().map(|chunk| world.writes(&chunk.0)).collect::<Result<Vec<_>>>()?;
    let cpu = cpu_seconds();
    for writes in writes {
        world.engine.append(writes).await?;
    }
    let epoch = world.engine.flush().await?;
    let took = cpu_seconds() - cpu;
    #[allow(clippy::cast_precision_loss, reason = "a figure for a person")]
    let rate = events as f64 / took.max(0.01);
    match query {
        None => say(&format!("{name:<6} {rate:>14.0} {:>14} {:>10} {took:>9.2} {:>9}", "", "", peak_mib()))?,
        Some(query) => {
            let live = world.answer("SELECT * FROM live", epoch).await?;
            let cpu = cpu_seconds();
            let batch = world.answer(query, epoch).await?;
            let ratio = took / (cpu_seconds() - cpu).max(0.01);
            if live != batch {
                return Err(
                    format!("{name}: {} rows live, {} in batch, or others", live.rows, batch.rows).into()
                );
            }
            say(&format!(
                "{name:<6} {rate:>14.0} {:>14} {ratio:>9.1}x {took:>9.2} {:>9}",
                live.rows,
                peak_mib()
            ))?;
        }
    }
    world.engine.stop().await;
    remove(&directory);
    Ok(())
}

/// An engine and what plans for it.
pub(super) struct World {
    pub(super) engine: Engine,
    state: datafusion::execution::session_state::SessionState,
}

/// A bag of rows: how many, and the sum of their hashes.
#[derive(PartialEq, Eq)]
struct Bag {
    rows: usize,
    hash: u64,
}

impl World {
    pub(super) fn start(directory: &std::path::Path, checkpoints: CheckpointPolicy) -> Result<Self> {
        let shards = std::thread::available_parallelism().map_or(1, usize::from);
        let engine = Engine::start(&EngineConfig {
            data_dir: directory.to_owned(),
            fs: Arc::new(Disk),
            clock: Arc::new(SystemClock),
            shards,
            segment_bytes: 256 << 20,
            memory_limit: None,
            kept_limit: None,
            rejects: RejectRetention::default(),
            checkpoints,
            code_of: None,
        })?;
        Ok(Self { engine, state: planner::session_state(1) })
    }

    pub(super) async fn create(&self, text: &str) -> Result<()> {
        let turn = self.engine.ddl().await;
        let catalog = turn.catalog();
        let statement = sql::parse(text)?.pop().map(|p| p.statement);
        let relation = match statement {
            Some(Statement::CreateRelation(create)) => {
                planner::plan_create(&catalog, &create, turn.next_id(), text)?
            }
            Some(Statement::CreateAs(create)) => {
                planner::plan_create_as(&Binder::new(&catalog, &self.state), &create, turn.next_id(), text)?
            }
            _ => return Err("not a definition".into()),
        };
        Ok(turn.create(relation).await?)
    }

    pub(super) async fn write(&self, parts: &[(&str, RecordBatch)]) -> Result<()> {
        self.engine.append(self.writes(parts)?).await?;
        Ok(())
    }

    fn writes(&self, parts: &[(&str, RecordBatch)]) -> Result<Vec<Write>> {
        let catalog = self.engine.catalog();
        let write = |(name, rows): &(&str, RecordBatch)| {
            Ok(Write::insert(catalog.find(name)?, rows, None, self.engine.now_ms())?)
        };
        parts.iter().map(write).collect()
    }

    async fn answer(&self, query: &str, epoch: u64) -> Result<Bag> {
        let snapshot = self.engine.snapshot_at(epoch, Duration::from_secs(60)).await?;
        let bound = Binder::new(&snapshot.catalog, &self.state).batch(&sql::parse_query(query)?)?;
        let context = PullContext { snapshot: Arc::clone(&snapshot), state: self.state.clone() };
        let mut rows = context.answer(bound.plan).await?.rows;
        let mut bag = Bag { rows: 0, hash: 0 };
        while let Some(batch) = rows.try_next().await? {
            bag.add(&batch)?;
        }
        Ok(bag)
    }
}

impl Bag {
    fn add(&mut self, batch: &RecordBatch) -> Result<()> {
        let fields = batch.schema().fields().iter().map(|f| SortField::new(f.data_type().clone())).collect();
        let rows = RowConverter::new(fields)?.convert_columns(batch.columns())?;
        for row in &rows {
            let mut hasher = DefaultHasher::new();
            hasher.write(row.data());
            self.hash = self.hash.wrapping_add(hasher.finish());
        }
        self.rows += batch.num_rows();
        Ok(())
    }
}

pub(super) fn batch(columns: Vec<(&str, ArrayRef)>) -> Result<RecordBatch> {
    let fields: Vec<Field> =
        columns.iter().map(|(n, c)| Field::new(*n, c.data_type().clone(), true)).collect();
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns.into_iter().map(|(_, c)| c).collect())?)
}

fn side() -> Result<RecordBatch> {
    let values: StringArray = (0..1000).map(|k| Some(format!("value {k}"))).collect();
    batch(vec![("key", Arc::new((0..1000).collect::<Int64Array>())), ("value", Arc::new(values))])
}

fn time(event: i64) -> i64 {
    1_704_067_200_000_000 + event * 1_000_000 / RATE
}

/// Events `first..` of one epoch; the same seed for the same place.
fn chunk(first: i64, end: i64) -> Chunk {
    let mut random = StdRng::seed_from_u64(first.unsigned_abs());
    let last = (first + CHUNK).min(end);
    let kinds = |wanted: fn(i64) -> bool| (first..last).filter(move |n| wanted(n % CYCLE));
    let persons: Vec<i64> = kinds(|n| n == 0).collect();
    let auctions: Vec<i64> = kinds(|n| (1..4).contains(&n)).collect();
    let bids: Vec<i64> = kinds(|n| n >= 4).collect();
    let parts = [
        ("person", person(&persons, &mut random)),
        ("auction", auction(&auctions, &mut random)),
        ("bid", bid(&bids, &mut random)),
    ];
    Chunk(parts.into_iter().filter_map(|(name, rows)| Some((name, rows.ok()?))).collect())
}

fn times(events: &[i64], after_ms: impl FnMut(&i64) -> i64) -> ArrayRef {
    let mut after_ms = after_ms;
    Arc::new(
        events.iter().map(|n| Some(time(*n) + after_ms(n) * 1000)).collect::<TimestampMicrosecondArray>(),
    )
}

fn choose<'a>(random: &mut StdRng, from: &[&'a str]) -> &'a str {
    from[random.random_range(0..from.len())]
}

fn person(events: &[i64], random: &mut StdRng) -> Result<RecordBatch> {
    let names = ["Ann", "Bob", "Cleo", "Dan", "Eve", "Finn"];
    let states = ["AZ", "CA", "ID", "OR", "WA", "WY"];
    let texts = |from: &[&str], random: &mut StdRng| -> ArrayRef {
        Arc::new(events.iter().map(|_| Some(choose(random, from))).collect::<StringArray>())
    };
    batch(vec![
        ("id", Arc::new(events.iter().map(|n| n / CYCLE).collect::<Int64Array>())),
        ("name", texts(&names, random)),
        ("email", texts(&["a@example.org", "b@example.org"], random)),
        ("city", texts(&["Phoenix", "Boise", "Portland", "Seattle"], random)),
        ("state", texts(&states, random)),
        ("date_time", times(events, |_| 0)),
    ])
}

/// Number of the auction that an event opens, or of the last one before it.
fn auction_number(event: i64) -> i64 {
    event / CYCLE * 3 + (event % CYCLE - 1).clamp(0, 2)
}

fn auction(events: &[i64], random: &mut StdRng) -> Result<RecordBatch> {
    let mut numbers = |low: i64, high: i64| -> ArrayRef {
        Arc::new(events.iter().map(|_| random.random_range(low..high)).collect::<Int64Array>())
    };
    let (initial, reserve, category) = (numbers(1, 1000), numbers(1000, 10_000), numbers(10, 15));
    let sellers = events.iter().map(|n| random.random_range(0..=n / CYCLE)).collect::<Int64Array>();
    let items = events.iter().map(|n| Some(format!("item {}", auction_number(*n)))).collect::<StringArray>();
    batch(vec![
        ("id", Arc::new(events.iter().map(|n| auction_number(*n)).collect::<Int64Array>())),
        ("item_name", Arc::new(items)),
        ("initial_bid", initial),
        ("reserve", reserve),
        ("date_time", times(events, |_| 0)),
        ("expires", times(events, |_| random.random_range(1_000..20_000))),
        ("seller", Arc::new(sellers)),
        ("category", category),
    ])
}

fn bid(events: &[i64], random: &mut StdRng) -> Result<RecordBatch> {
    let mut auctions = Vec::with_capacity(events.len());
    let mut bidders = Vec::with_capacity(events.len());
    let (mut channels, mut urls) = (Vec::new(), Vec::new());
    for n in events {
        // Half of the bids are for the auctions opened last.
        let newest = auction_number(*n);
        let reach = if random.random_bool(0.5) { 10 } else { 1000 };
        auctions.push(random.random_range((newest - reach).max(0)..=newest));
        bidders.push(random.random_range((n / CYCLE - 1000).max(0)..=n / CYCLE));
        let channel = choose(random, &["Google", "Facebook", "Baidu", "Apple"]);
        channels.push(if random.random_bool(0.5) {
            channel.to_owned()
        } else {
            format!("channel-{}", n % 1000)
        });
        let id = if random.random_bool(0.5) { format!("?channel_id={}", n % 1000) } else { String::new() };
        urls.push(format!("https://auctions.example.org/{}/{}/item.html{id}", n % 7, n % 97));
    }
    let prices = events.iter().map(|_| 10i64.pow(random.random_range(2..8)) + random.random_range(0..1000));
    batch(vec![
        ("auction", Arc::new(Int64Array::from(auctions))),
        ("bidder", Arc::new(Int64Array::from(bidders))),
        ("price", Arc::new(prices.collect::<Int64Array>())),
        ("channel", Arc::new(channels.into_iter().map(Some).collect::<StringArray>())),
        ("url", Arc::new(urls.into_iter().map(Some).collect::<StringArray>())),
        ("date_time", times(events, |_| 0)),
    ])
}
