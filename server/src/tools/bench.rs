//! `millpond bench`: ingest, latency and look-ups over the wire, beside DataFusion's batch figures.
//!
//! Client and server share the process and the machine's cores, so a figure is what both together
//! reach. Every piece of work is real: rows are synced before they are acknowledged.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use datafusion::arrow::csv::ReaderBuilder;
use datafusion::arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use datafusion::common::TableReference;
use datafusion::datasource::{MemTable, provider_as_source};
use datafusion::logical_expr::TableSource;
use datafusion::physical_plan::collect;
use futures::{SinkExt, StreamExt};
use planner::{Binder, Catalog, Fallback};
use tokio_postgres::Client;

use super::client::{Result, connect};
use super::cpu::{cpu_seconds, peak_mib};
use super::flights::{FLIGHTS, FLIGHTS_STREAM};
use crate::Compiled;
use crate::config::Config;
use crate::run::{Running, start};

/// Copies of the month that one ingest run writes.
const MONTHS: usize = 20;
/// Clients that write at the same time.
const WRITERS: usize = 2;
const VIEWS: [&str; 3] = [
    "CREATE MATERIALIZED VIEW v1 AS SELECT origin, window_start, count(*), avg(dep_delay) \
     FROM TUMBLE(flights, time_hour, INTERVAL '1 hour') GROUP BY origin, window_start, window_end",
    "CREATE MATERIALIZED VIEW v2 AS SELECT carrier, window_start, sum(distance), max(arr_delay) \
     FROM TUMBLE(flights, time_hour, INTERVAL '1 day') GROUP BY carrier, window_start, window_end",
    "CREATE MATERIALIZED VIEW v3 AS SELECT dest, window_start, count(*), min(dep_delay) \
     FROM HOP(flights, time_hour, INTERVAL '6 hours', INTERVAL '1 day') GROUP BY dest, window_start, window_end",
];

/// Runs all measures, or those named.
///
/// # Errors
/// Whatever the server says.
pub fn bench(args: &[String]) -> Compiled<'_, Result<()>> {
    Box::pin(measure(args))
}

async fn measure(args: &[String]) -> Result<()> {
    if let Some((first, rest)) = args.split_first()
        && first == "nexmark"
    {
        return super::nexmark::nexmark(rest).await;
    }
    if args.first().is_some_and(|first| first == "scale") {
        return super::scale::scale().await;
    }
    let wanted = |name: &str| args.is_empty() || args.iter().any(|a| a == name);
    let text = FLIGHTS.text()?;
    let (header, body) = text.split_once('\n').unwrap_or((&text, ""));
    let rows = body.lines().count();
    say(&format!("{:<44} {:>12} {:>9} {:>9}", "measure", "rows/s", "cpu s", "MiB"))?;
    if wanted("batch") {
        batch(&text, rows).await?;
    }
    if wanted("copy") {
        ingest("COPY, typed stream, 19 columns", header, body, rows, &[]).await?;
    }
    if wanted("views") {
        ingest("COPY with three windowed aggregates live", header, body, rows, &VIEWS).await?;
    }
    if wanted("insert") {
        inserts().await?;
    }
    if wanted("latency") {
        latency().await?;
    }
    if wanted("lookup") {
        lookups().await?;
    }
    Ok(())
}

pub(super) fn say(text: &str) -> Result<()> {
    use std::io::Write;
    let mut out = std::io::stdout();
    writeln!(out, "{text}")?;
    Ok(out.flush()?)
}

#[allow(clippy::cast_precision_loss, reason = "figures for a person")]
fn report(name: &str, rows: usize, took: Duration, cpu: f64) -> Result<()> {
    say(&format!("{name:<44} {:>12.0} {cpu:>9.2} {:>9}", rows as f64 / took.as_secs_f64(), peak_mib()))
}

struct Scratch {
    server: Running,
    directory: std::path::PathBuf,
}

impl Scratch {
    async fn new(name: &str) -> Result<Self> {
        let directory = std::env::temp_dir().join(format!("millpond-bench-{}-{name}", std::process::id()));
        remove(&directory);
        let path = directory.display().to_string();
        let args =
            ["--data-dir", &path, "--listen", "127.0.0.1:0", "--http-listen", "off"].map(str::to_owned);
        let server = start(&Config::load(&args, |_| None)?).await?;
        Ok(Self { server, directory })
    }

    async fn end(self) {
        self.server.stop().await;
        remove(&self.directory);
    }
}

#[allow(clippy::disallowed_methods, reason = "the benchmark's own directory")]
pub(super) fn remove(directory: &Path) {
    // It may not be there.
    let _ = std::fs::remove_dir_all(directory);
}

/// The same aggregates by DataFusion over rows in memory, and its CSV reader over the same bytes.
async fn batch(text: &str, rows: usize) -> Result<()> {
    let schema = flights_schema();
    let (started, cpu) = (Instant::now(), cpu_seconds());
    let read = || {
        ReaderBuilder::new(Arc::clone(&schema))
            .with_header(true)
            .with_null_regex(na()?)
            .build(text.as_bytes())
    };
    let batches = read()?.collect::<std::result::Result<Vec<_>, _>>()?;
    report("DataFusion: read the CSV", rows, started.elapsed(), cpu_seconds() - cpu)?;
    let all: Vec<_> = (0..MONTHS).flat_map(|_| batches.clone()).collect();
    let flights = Flights(provider_as_source(Arc::new(MemTable::try_new(schema, vec![all])?)));
    let (catalog, state) = (Catalog::default(), planner::session_state(1));
    let binder = Binder::new(&catalog, &state).with_fallback(&flights);
    let (started, cpu) = (Instant::now(), cpu_seconds());
    for query in [
        "SELECT origin, date_bin(INTERVAL '1 hour', time_hour), count(*), avg(dep_delay) FROM flights GROUP BY 1, 2",
        "SELECT carrier, date_bin(INTERVAL '1 day', time_hour), sum(distance), max(arr_delay) FROM flights GROUP BY 1, 2",
        "SELECT dest, date_bin(INTERVAL '6 hours', time_hour), count(*), min(dep_delay) FROM flights GROUP BY 1, 2",
    ] {
        let plan = state.create_physical_plan(&binder.batch(&sql::parse_query(query)?)?.plan).await?;
        collect(plan, state.task_ctx()).await?;
    }
    report(
        "DataFusion: three windowed aggregates, batch",
        rows * MONTHS,
        started.elapsed(),
        cpu_seconds() - cpu,
    )
}

/// The one relation of the batch measure.
struct Flights(Arc<dyn TableSource>);

impl Fallback for Flights {
    fn source(&self, name: &TableReference) -> Option<Arc<dyn TableSource>> {
        (name.table() == "flights").then(|| Arc::clone(&self.0))
    }
}

fn na() -> std::result::Result<regex::Regex, datafusion::arrow::error::ArrowError> {
    regex::Regex::new("^NA$").map_err(|e| datafusion::arrow::error::ArrowError::ParseError(e.to_string()))
}

/// The layout of the flights file.
fn flights_schema() -> Arc<Schema> {
    let floats = ["dep_delay", "arr_delay", "air_time", "distance"];
    let texts = ["carrier", "tailnum", "origin", "dest"];
    let names = "year month day dep_time sched_dep_time dep_delay arr_time sched_arr_time arr_delay carrier flight tailnum \
                 origin dest air_time distance hour minute time_hour";
    let field = |name: &str| {
        let data_type = match name {
            "time_hour" => DataType::Timestamp(TimeUnit::Microsecond, None),
            _ if floats.contains(&name) => DataType::Float64,
            _ if texts.contains(&name) => DataType::Utf8,
            _ => DataType::Int32,
        };
        Field::new(name, data_type, true)
    };
    Arc::new(Schema::new(names.split_whitespace().map(field).collect::<Vec<_>>()))
}

async fn copy_month(client: &Client, data: &Bytes) -> Result<()> {
    let sink =
        client.copy_in::<_, Bytes>("COPY flights FROM STDIN WITH (FORMAT csv, HEADER, NULL 'NA')").await?;
    let mut sink = std::pin::pin!(sink);
    for start in (0..data.len()).step_by(64 << 10) {
        sink.feed(data.slice(start..data.len().min(start + (64 << 10)))).await?;
    }
    sink.as_mut().finish().await?;
    Ok(())
}

/// Each client writes whole months, one COPY after the other.
async fn ingest(name: &str, header: &str, body: &str, rows: usize, views: &[&str]) -> Result<()> {
    let scratch = Scratch::new("ingest").await?;
    let url = scratch.server.url();
    let client = connect(&url).await?;
    client.batch_execute(FLIGHTS_STREAM).await?;
    for view in views {
        client.batch_execute(view).await?;
    }
    let data = Bytes::from(format!("{header}\n{body}"));
    let (started, cpu) = (Instant::now(), cpu_seconds());
    let writers = (0..WRITERS).map(|_| {
        let (url, data) = (url.clone(), data.clone());
        async move {
            let client = connect(&url).await?;
            for _ in 0..MONTHS / WRITERS {
                copy_month(&client, &data).await?;
            }
            Result::Ok(())
        }
    });
    futures::future::try_join_all(writers).await?;
    // The figure holds what the views need too.
    client.batch_execute("FLUSH").await?;
    report(name, rows * MONTHS, started.elapsed(), cpu_seconds() - cpu)?;
    let count: i64 = client.query_one("SELECT count(*) FROM flights", &[]).await?.get(0);
    if usize::try_from(count)? != rows * MONTHS {
        return Err(format!("{count} rows arrived, {} were sent", rows * MONTHS).into());
    }
    drop(client);
    scratch.end().await;
    Ok(())
}

/// Statements of one row, prepared, from several clients.
async fn inserts() -> Result<()> {
    const CLIENTS: usize = 16;
    const EACH: usize = 500;
    let scratch = Scratch::new("insert").await?;
    let url = scratch.server.url();
    connect(&url).await?.batch_execute("CREATE STREAM s (id BIGINT, v DOUBLE PRECISION, t TEXT)").await?;
    let (started, cpu) = (Instant::now(), cpu_seconds());
    let clients = (0..CLIENTS).map(|_| {
        let url = url.clone();
        async move {
            let client = connect(&url).await?;
            let insert = client.prepare("INSERT INTO s VALUES ($1, $2, $3)").await?;
            for n in 0..EACH {
                client.execute(&insert, &[&i64::try_from(n)?, &1.5f64, &"text"]).await?;
            }
            Result::Ok(())
        }
    });
    futures::future::try_join_all(clients).await?;
    report("INSERT, one row each, 16 clients", CLIENTS * EACH, started.elapsed(), cpu_seconds() - cpu)?;
    scratch.end().await;
    Ok(())
}

/// From the moment a row is sent to the moment a push query shows it.
async fn latency() -> Result<()> {
    const CLIENTS: usize = 8;
    const PER_SECOND: usize = 1000;
    const SECONDS: usize = 5;
    let scratch = Scratch::new("latency").await?;
    let url = scratch.server.url();
    connect(&url).await?.batch_execute("CREATE STREAM s (id BIGINT, sent BIGINT)").await?;
    let origin = Instant::now();
    let total = PER_SECOND * SECONDS;
    let reader = connect(&url).await?;
    let pushed = reader.query_raw("SELECT sent FROM s EMIT CHANGES", Vec::<i32>::new()).await?;
    let cpu = cpu_seconds();
    let reading = tokio::spawn(async move {
        let mut pushed = std::pin::pin!(pushed);
        let mut taken = Vec::with_capacity(total);
        while taken.len() < total {
            let Some(Ok(row)) = pushed.next().await else { break };
            let sent: i64 = row.get(0);
            taken.push(i64::try_from(origin.elapsed().as_micros()).unwrap_or(i64::MAX) - sent);
        }
        taken
    });
    let writers = (0..CLIENTS).map(|n| {
        let url = url.clone();
        async move {
            let client = connect(&url).await?;
            let insert = client.prepare("INSERT INTO s VALUES ($1, $2)").await?;
            let mut ticks =
                tokio::time::interval(Duration::from_secs(1) / u32::try_from(PER_SECOND / CLIENTS)?);
            ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Burst);
            for _ in 0..total / CLIENTS {
                ticks.tick().await;
                let sent = i64::try_from(origin.elapsed().as_micros())?;
                client.execute(&insert, &[&i64::try_from(n)?, &sent]).await?;
            }
            Result::Ok(())
        }
    });
    futures::future::try_join_all(writers).await?;
    let mut taken = reading.await?;
    taken.sort_unstable();
    #[allow(clippy::cast_precision_loss, reason = "figures for a person")]
    let at = |share: usize| {
        taken
            .get((taken.len() * share / 1000).min(taken.len().saturating_sub(1)))
            .map_or(0.0, |us| *us as f64 / 1000.0)
    };
    say(&format!(
        "{:<44} p50 {:.2} ms, p99 {:.2} ms, p99.9 {:.2} ms, {:.2} cpu s, {} rows",
        "INSERT to push row, 1000/s, 8 clients",
        at(500),
        at(990),
        at(999),
        cpu_seconds() - cpu,
        taken.len()
    ))?;
    scratch.end().await;
    Ok(())
}

/// Prepared look-ups by primary key.
async fn lookups() -> Result<()> {
    const ROWS: i64 = 100_000;
    const CLIENTS: i64 = 8;
    const EACH: i64 = 1000;
    let scratch = Scratch::new("lookup").await?;
    let url = scratch.server.url();
    let client = connect(&url).await?;
    client.batch_execute("CREATE TABLE t (id BIGINT PRIMARY KEY, v BIGINT)").await?;
    client
        .batch_execute(&format!(
            "INSERT INTO t SELECT value, value * 2 FROM generate_series(1, {ROWS}) AS value"
        ))
        .await?;
    client.batch_execute("FLUSH").await?;
    let (started, cpu) = (Instant::now(), cpu_seconds());
    let clients = (0..CLIENTS).map(|n| {
        let url = url.clone();
        async move {
            let client = connect(&url).await?;
            let select = client.prepare("SELECT v FROM t WHERE id = $1").await?;
            for i in 0..EACH {
                let id = 1 + (i * 7919 + n * 104_729) % ROWS;
                let found: i64 = client.query_one(&select, &[&id]).await?.get(0);
                if found != id * 2 {
                    return Err(format!("key {id} gave {found}").into());
                }
            }
            Result::Ok(())
        }
    });
    futures::future::try_join_all(clients).await?;
    report(
        "look-up by primary key, prepared, 8 clients",
        usize::try_from(CLIENTS * EACH)?,
        started.elapsed(),
        cpu_seconds() - cpu,
    )?;
    scratch.end().await;
    Ok(())
}
