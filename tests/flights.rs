//! The month of flights: live views equal what DataFusion computes in batch over the same files,
//! in the order of arrival and with rows that come late.

use std::sync::Arc;

use bytes::Bytes;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::datasource::MemTable;
use datafusion::prelude::SessionContext;
use futures::SinkExt;
use harness::{Server, rows, seed};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use server::flights::{COPY_OPTIONS, FLIGHTS, RELATIONS, TABLES, VIEWS};
use tokio_postgres::Client;

async fn copy(client: &Client, relation: &str, text: String) {
    let sink =
        client.copy_in::<_, Bytes>(&format!("COPY {relation} FROM STDIN {COPY_OPTIONS}")).await.unwrap();
    let mut sink = std::pin::pin!(sink);
    sink.send(Bytes::from(text)).await.unwrap();
    sink.as_mut().finish().await.unwrap();
}

/// The batch form of each view, written for DataFusion alone.
const BATCH: [(&str, &str); 5] = [
    (
        "SELECT airline, flights, round(mean_delay * 1000) / 1000, worst FROM airline_delays",
        "SELECT a.name, count(*), round(avg(f.arr_delay) * 1000) / 1000, max(f.arr_delay) \
         FROM flights f JOIN airlines a ON f.carrier = a.carrier GROUP BY a.name",
    ),
    (
        "SELECT origin, windowstart, windowend, flights, delay, earliest, latest FROM departures",
        "SELECT origin, t - t % 3600000, t - t % 3600000 + 3600000, count(*), sum(dep_delay), min(dep_delay), max(dep_delay) \
         FROM (SELECT *, to_unixtime(CAST(time_hour AS TIMESTAMP)) * 1000 AS t FROM flights) GROUP BY origin, t - t % 3600000",
    ),
    (
        "SELECT origin, CAST(to_unixtime(window_start) AS BIGINT), flights FROM rush",
        "SELECT origin, w, count(*) FROM (SELECT origin, to_unixtime(CAST(time_hour AS TIMESTAMP)) - h.value * 3600 AS w \
         FROM flights CROSS JOIN generate_series(0, 2) AS h) GROUP BY origin, w",
    ),
    (
        "SELECT carrier, flight, origin, destination, distance FROM long_haul",
        "SELECT f.carrier, f.flight, f.origin, p.name, f.distance FROM flights f JOIN airports p ON f.dest = p.faa WHERE f.distance > 2500",
    ),
    (
        "SELECT origin, flights, latest FROM airport_totals",
        "SELECT origin, count(*), max(dep_delay) FROM flights GROUP BY origin",
    ),
];

fn table(text: &str) -> MemTable {
    use datafusion::arrow::csv::ReaderBuilder;
    use datafusion::arrow::csv::reader::Format;
    let na = regex("^NA$");
    let format = Format::default().with_header(true).with_null_regex(na.clone());
    let (schema, _) = format.infer_schema(text.as_bytes(), None).unwrap();
    let schema = Arc::new(schema);
    let reader = ReaderBuilder::new(Arc::clone(&schema))
        .with_header(true)
        .with_null_regex(na)
        .build(text.as_bytes())
        .unwrap();
    let batches: Vec<RecordBatch> = reader.collect::<Result<_, _>>().unwrap();
    MemTable::try_new(schema, vec![batches]).unwrap()
}

fn regex(text: &str) -> regex::Regex {
    regex::Regex::new(text).unwrap()
}

async fn batch(context: &SessionContext, query: &str) -> Vec<String> {
    let options = FormatOptions::default().with_null("NULL");
    let mut out = Vec::new();
    for batch in context.sql(query).await.unwrap().collect().await.unwrap() {
        let columns: Vec<_> =
            batch.columns().iter().map(|c| ArrayFormatter::try_new(c, &options).unwrap()).collect();
        for row in 0..batch.num_rows() {
            out.push(columns.iter().map(|c| number(&c.value(row).to_string())).collect::<Vec<_>>().join("|"));
        }
    }
    out.sort();
    out
}

/// One spelling for equal numbers: `5` and `5.0`.
fn number(text: &str) -> String {
    match text.parse::<f64>() {
        Ok(value) => format!("{value}"),
        Err(_) => text.to_owned(),
    }
}

fn normal(rows: Vec<String>) -> Vec<String> {
    let mut rows: Vec<String> =
        rows.iter().map(|r| r.split('|').map(number).collect::<Vec<_>>().join("|")).collect();
    rows.sort();
    rows
}

/// Runs the month through a server in pieces and compares every view.
async fn compare(lines: &[&str], header: &str, pieces: usize) {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path());
    let client = server.connect().await;
    for statement in RELATIONS {
        client.batch_execute(statement).await.unwrap();
    }
    for file in &TABLES {
        copy(&client, file.relation, file.text().unwrap()).await;
    }
    for view in &VIEWS {
        client.batch_execute(view.create).await.unwrap();
    }
    for piece in lines.chunks(lines.len().div_ceil(pieces)) {
        copy(&client, "flights", format!("{header}\n{}\n", piece.join("\n"))).await;
    }
    let context = SessionContext::new();
    for file in TABLES.iter().chain([&FLIGHTS]) {
        context.register_table(file.relation, Arc::new(table(&file.text().unwrap()))).unwrap();
    }
    for (live, query) in BATCH {
        let (live_rows, batch_rows) = (normal(rows(&client, live).await), batch(&context, query).await);
        assert!(!batch_rows.is_empty(), "{query}");
        assert_eq!(live_rows.len(), batch_rows.len(), "{live}");
        for (a, b) in live_rows.iter().zip(&batch_rows) {
            assert_eq!(a, b, "{live}");
        }
    }
    assert_eq!(rows(&client, "SELECT count(*) FROM millpond.rejects").await, ["0"]);
}

#[tokio::test]
async fn in_order_of_arrival() {
    let text = FLIGHTS.text().unwrap();
    let (header, body) = text.split_once('\n').unwrap();
    let lines: Vec<&str> = body.lines().collect();
    assert_eq!(lines.len(), 27_004);
    compare(&lines, header, 40).await;
}

#[tokio::test]
async fn with_late_rows() {
    let text = FLIGHTS.text().unwrap();
    let (header, body) = text.split_once('\n').unwrap();
    let mut lines: Vec<&str> = body.lines().collect();
    let mut random = StdRng::seed_from_u64(seed("with_late_rows"));
    // Rows move by up to half a day: within the grace of two days.
    let mut start = 0;
    while start < lines.len() {
        let end = (start + random.random_range(100..400)).min(lines.len());
        lines[start..end].shuffle(&mut random);
        start = end;
    }
    compare(&lines, header, 25).await;
}

/// A run of the demo itself, as a user has it.
#[test]
fn demo_once_ends_well() {
    let output = std::process::Command::new(harness::program()).args(["demo", "--once"]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    for expected in ["ExpressJet Airlines Inc.  4171", "EWR     9893", "psql postgres://millpond@"] {
        assert!(text.contains(expected), "{expected} is not in:\n{text}");
    }
}
