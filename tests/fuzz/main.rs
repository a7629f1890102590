//! Good input with something wrong in it, through every door that takes bytes from strangers: statements, messages
//! of the wire, COPY in its formats, records in theirs. Each gets an answer or an error that has a name; the server
//! never ends, panics, or stops answering.
//!
//! `FUZZ_RUNS` sets how many inputs each door gets, `SEED` which ones.

#![allow(clippy::unwrap_used, reason = "a test that fails should say where")]

mod corpus;
mod mutation;

use std::time::Duration;

use bytes::Bytes;
use futures::SinkExt;
use harness::{Server, rows, seed, times};
use mutation::{WORDS, mutated};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_postgres::Client;

/// Inputs of one door.
const RUNS: usize = 1_200;
/// Longer than any input may take: a statement is stopped after a second.
const PATIENCE: Duration = Duration::from_secs(20);
/// As long as what has no end is watched.
const BRIEF: Duration = Duration::from_millis(500);

fn start(data: &tempfile::TempDir) -> Server {
    Server::start_with(data.path(), &["--memory-limit", "512MB"]).unwrap()
}

async fn answers(server: &Server, context: &str) {
    let asked = tokio::time::timeout(PATIENCE, async { rows(&server.connect().await, "SELECT 1").await });
    assert_eq!(asked.await.unwrap_or_else(|_| panic!("{context}: no answer")), ["1"], "{context}");
}

/// What a statement must not end with.
fn is_fault(error: &tokio_postgres::Error) -> bool {
    error.as_db_error().is_some_and(|error| error.code().code() == "XX000")
}

/// How many of the inputs meant something.
#[derive(Default)]
struct Said {
    answered: usize,
    refused: usize,
    faults: Vec<String>,
}

impl Said {
    /// Takes a statement's answer; false where the client is of no use any more.
    async fn take(&mut self, client: &Client, text: &str) -> bool {
        let patience = if corpus::may_go_on(text) { BRIEF } else { PATIENCE };
        match tokio::time::timeout(patience, client.simple_query(text)).await {
            Ok(Ok(_)) => self.answered += 1,
            Ok(Err(error)) if is_fault(&error) => self.faults.push(format!("{text}\n  {error:?}")),
            Ok(Err(_)) => self.refused += 1,
            // A live result has no end.
            Err(_) if corpus::may_go_on(text) => return false,
            Err(_) => self.faults.push(format!("{text}\n  no answer")),
        }
        // Some statements end their own connection.
        !client.is_closed()
    }
}

/// Each file of `slt/` in its order, its statements as they are and then with something wrong in them.
#[tokio::test]
async fn statements() {
    let random = &mut StdRng::seed_from_u64(seed("statements"));
    let files = corpus::statements();
    let edges = WORDS.map(str::to_owned);
    let (mut said, mut runs) = (Said::default(), times("FUZZ_RUNS", RUNS));
    while runs > 0 {
        let file = &files[random.random_range(0..files.len())];
        let data = tempfile::tempdir().unwrap();
        let server = start(&data);
        let mut client = server.connect().await;
        for statement in file {
            let wrong = mutated(random, std::slice::from_ref(statement), &edges).concat();
            for text in [statement.concat(), wrong].into_iter().filter(|text| !corpus::is_left_out(text)) {
                // The session may have it set otherwise.
                let _ = client.batch_execute("SET statement_timeout = 1000").await;
                if !said.take(&client, &text).await {
                    client = server.connect().await;
                }
            }
            runs = runs.saturating_sub(1);
        }
        answers(&server, "after a file").await;
    }
    let Said { answered, refused, faults } = said;
    println!("{answered} statements answered, {refused} refused");
    assert!(answered * 2 > refused, "too few mean anything: {answered}, not {refused}");
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

async fn setup(client: &Client) {
    for statement in corpus::SETUP {
        // It may be there.
        let _ = client.batch_execute(statement).await;
    }
}

#[tokio::test]
async fn messages() {
    let data = tempfile::tempdir().unwrap();
    let server = start(&data);
    setup(&server.connect().await).await;
    let address = server.url.split('@').nth(1).unwrap().split('/').next().unwrap().to_owned();
    let random = &mut StdRng::seed_from_u64(seed("messages"));
    let corpus = corpus::sessions();
    for run in 0..times("FUZZ_RUNS", RUNS) {
        let session = mutated(random, &corpus, &[0, 1, 4, 0x7f, 0x80, 0xff]);
        let mut socket = TcpStream::connect(&address).await.unwrap();
        // It may close before it has read everything.
        let _ = socket.write_all(&session).await;
        let _ = socket.shutdown().await;
        let mut said = Vec::new();
        let read = tokio::time::timeout(PATIENCE, socket.read_to_end(&mut said)).await;
        assert!(read.is_ok(), "run {run}: the session goes on: {session:?}");
        assert!(!said.windows(5).any(|code| code == b"XX000"), "run {run}: {session:?}");
    }
    answers(&server, "after all messages").await;
}

#[tokio::test]
async fn copied_rows() {
    let data = tempfile::tempdir().unwrap();
    let server = start(&data);
    let client = server.connect().await;
    setup(&client).await;
    let random = &mut StdRng::seed_from_u64(seed("copied rows"));
    for format in ["text", "csv", "binary"] {
        let good = corpus::copied(&client, format).await;
        let edges = *b"\0\n\\,\"\xff\x80\t";
        for run in 0..times("FUZZ_RUNS", RUNS) / 3 {
            let bytes = mutated(random, std::slice::from_ref(&good), &edges);
            let copy = async {
                let into = format!("COPY typed FROM STDIN (FORMAT {format})");
                let mut sink = Box::pin(client.copy_in::<_, Bytes>(&into).await?);
                sink.send(Bytes::from(bytes.clone())).await?;
                sink.as_mut().finish().await
            };
            let copied = tokio::time::timeout(PATIENCE, copy).await;
            let copied = copied.unwrap_or_else(|_| panic!("{format}, run {run}: no answer to {bytes:?}"));
            if let Err(error) = copied {
                let ends = is_fault(&error) || client.is_closed();
                assert!(!ends, "{format}, run {run}: {error:?}: {bytes:?}");
            }
        }
    }
    answers(&server, "after all rows").await;
}

#[tokio::test]
async fn records() {
    let data = tempfile::tempdir().unwrap();
    let server = start(&data);
    let client = server.connect().await;
    let random = &mut StdRng::seed_from_u64(seed("records"));
    let runs = times("FUZZ_RUNS", RUNS) / corpus::RECORDS.len();
    for (format, good) in corpus::RECORDS {
        for statement in corpus::record_streams(format) {
            client.batch_execute(&statement).await.unwrap();
        }
        let insert = client.prepare(&format!("INSERT INTO raw_{format} VALUES ($1)")).await.unwrap();
        let good: Vec<Vec<u8>> = good.iter().map(|text| Vec::from(text.as_bytes())).collect();
        let edges = *b"\0{}[]\",:-\xff\x80";
        for _ in 0..runs {
            let bytes = mutated(random, &good, &edges);
            client.execute(&insert, &[&bytes]).await.unwrap();
        }
        // Each record is a row, or is set aside with its reason; a view over them goes on.
        let [read, rejected] = [
            format!("SELECT count(*) FROM read_{format}"),
            format!("SELECT count(*) FROM millpond.rejects WHERE relation = 'read_{format}'"),
        ];
        let number = |rows: Vec<String>| rows[0].parse::<usize>().unwrap();
        let (read, rejected) = (number(rows(&client, &read).await), number(rows(&client, &rejected).await));
        assert_eq!(read + rejected, runs, "{format}: {rejected} rejected");
        assert!(rejected > 0, "{format}");
        assert_eq!(rows(&client, &format!("SELECT n FROM counted_{format}")).await, [read.to_string()]);
    }
    answers(&server, "after all records").await;
}
