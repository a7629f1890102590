//! Damage to any file of a stopped server: the next one gives right answers or names what is damaged, and never a
//! wrong answer. `CORRUPTIONS` sets how many faults there are, `SEED` which ones.

#![allow(clippy::unwrap_used, reason = "a test that fails should say where")]

use std::path::{Path, PathBuf};

use harness::{connect, rows, seed, times};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use server::{Config, RunError, Running};
use tokio_postgres::Client;

const SETUP: [&str; 12] = [
    "CREATE STREAM s (id INT, g TEXT) WITH (partitions = 2)",
    "CREATE TABLE t (id INT PRIMARY KEY, v TEXT)",
    "CREATE STREAM j (id INT KEY, v TEXT) WITH (value_format = 'json', kafka_topic = 'j')",
    "CREATE MATERIALIZED VIEW of_s AS SELECT g, count(*) AS n FROM s GROUP BY g",
    "CREATE TABLE of_t WITH (value_format = 'json') AS SELECT v, count(*) AS n FROM t GROUP BY v",
    "CREATE STREAM out WITH (value_format = 'json') AS SELECT id, g FROM s WHERE id % 2 = 0",
    "CREATE MATERIALIZED VIEW both AS SELECT s.g, count(t.v) AS n FROM s JOIN t ON s.id = t.id GROUP BY s.g",
    "INSERT INTO s SELECT i, 'g' || i % 3 FROM generate_series(1, 200) AS x(i)",
    "INSERT INTO t SELECT i, 'v' || i % 5 FROM generate_series(1, 100) AS x(i)",
    "INSERT INTO j SELECT i, 'j' || i FROM generate_series(1, 50) AS x(i)",
    "CREATE VIEW named AS SELECT g FROM of_s",
    "DELETE FROM t WHERE id > 90",
];

const QUESTIONS: [&str; 8] = [
    "SELECT * FROM s",
    "SELECT * FROM t",
    "SELECT * FROM j",
    "SELECT * FROM of_s",
    "SELECT * FROM of_t",
    "SELECT * FROM out",
    "SELECT * FROM both",
    "SELECT * FROM named",
];

async fn start(data: &Path) -> Result<Running, RunError> {
    let arguments = [
        ["--data-dir", data.to_str().unwrap()],
        ["--listen", "127.0.0.1:0"],
        ["--http-listen", "off"],
        ["--segment-bytes", "4096"],
        ["--checkpoint-ms", "20"],
    ];
    let arguments: Vec<String> = arguments.as_flattened().iter().map(|&s| s.into()).collect();
    server::start(&Config::load(&arguments, |_| None).unwrap()).await
}

/// A stopped server's directory with every kind of file, and the answers it gave.
async fn filled(data: &Path) -> Vec<Vec<String>> {
    let running = start(data).await.unwrap();
    let client = connect(&running.url()).await.unwrap();
    for statement in SETUP {
        client.batch_execute(statement).await.unwrap();
    }
    for n in 0..30 {
        let insert = format!("INSERT INTO s VALUES ({n}, 'more'); INSERT INTO t VALUES ({n}, 'more')");
        client.batch_execute(&insert).await.unwrap();
    }
    let answers = answers(&client).await;
    running.stop().await;
    answers.into_iter().map(|answer| answer.unwrap()).collect()
}

/// The rows of each question, or what is said instead.
async fn answers(client: &Client) -> Vec<Result<Vec<String>, String>> {
    let mut all = Vec::new();
    for question in QUESTIONS {
        all.push(match client.simple_query(question).await {
            Ok(_) => Ok(rows(client, question).await),
            Err(error) => Err(error.as_db_error().map_or(error.to_string(), |e| e.message().to_owned())),
        });
    }
    all
}

fn files(directory: &Path, into: &mut Vec<PathBuf>) {
    let mut entries: Vec<PathBuf> =
        std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() { files(&path, into) } else { into.push(path) }
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let there = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &there);
        } else {
            std::fs::copy(&path, &there).unwrap();
        }
    }
}

/// Does something to a file that a disk may do; returns what.
fn damage(path: &Path, random: &mut StdRng) -> String {
    let mut bytes = std::fs::read(path).unwrap();
    if bytes.is_empty() || random.random_ratio(1, 12) {
        std::fs::remove_file(path).unwrap();
        return "removed".into();
    }
    let at = random.random_range(0..bytes.len());
    let run = at..bytes.len().min(at + random.random_range(1..600));
    let what = match random.random_range(0..6) {
        0 | 1 => {
            bytes[at] ^= 1 << random.random_range(0..8);
            "a bit flipped"
        }
        2 => {
            bytes[run].fill(0);
            "bytes zeroed"
        }
        3 => {
            bytes[run].iter_mut().for_each(|byte| *byte = random.random());
            "bytes overwritten"
        }
        4 => {
            bytes.truncate(at);
            "cut"
        }
        _ => {
            let from = random.random_range(0..bytes.len());
            let block = bytes[from..bytes.len().min(from + 512)].to_vec();
            bytes.splice(at..at, block);
            "a block repeated"
        }
    };
    std::fs::write(path, bytes).unwrap();
    format!("{what} at {at}")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_damage_gives_a_wrong_answer() {
    let seed = seed("corruption");
    let mut random = StdRng::seed_from_u64(seed);
    let whole = tempfile::tempdir().unwrap();
    let expected = filled(whole.path()).await;
    let mut all = Vec::new();
    files(whole.path(), &mut all);
    let (mut refused, mut named, mut harmless) = (0, 0, 0);
    for fault in 0..times("CORRUPTIONS", 100) {
        let data = tempfile::tempdir().unwrap();
        copy(whole.path(), data.path());
        let file = all[random.random_range(0..all.len())].strip_prefix(whole.path()).unwrap();
        let what = damage(&data.path().join(file), &mut random);
        let context = format!("SEED={seed} fault {fault}: {} {what}", file.display());
        let running = match start(data.path()).await {
            Ok(running) => running,
            Err(error) => {
                let name = file.file_name().unwrap().to_str().unwrap();
                assert!(error.to_string().contains(name), "{context}: {error}");
                refused += 1;
                continue;
            }
        };
        let client = connect(&running.url()).await.unwrap();
        let mut any = false;
        for (question, (answer, expected)) in
            QUESTIONS.iter().zip(answers(&client).await.iter().zip(&expected))
        {
            match answer {
                Ok(answer) => assert_eq!(answer, expected, "{context}: {question}"),
                Err(said) => {
                    let tells = ["damaged", "has failed", "are gone"].iter().any(|word| said.contains(word));
                    assert!(tells, "{context}: {question}: {said}");
                    any = true;
                }
            }
        }
        (named, harmless) = if any { (named + 1, harmless) } else { (named, harmless + 1) };
        running.stop().await;
    }
    println!("{refused} were refused by name, {named} named what is out of use, {harmless} did no harm");
}

/// A topic whose first segment is gone is not one that has let records go (a fault of seed 4633710205879587649).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_beginning_is_noticed() {
    let data = tempfile::tempdir().unwrap();
    filled(data.path()).await;
    for (topic, question) in [("-out", "SELECT * FROM out"), ("-s", "SELECT * FROM s")] {
        let topics =
            std::fs::read_dir(data.path().join("topics")).unwrap().map(|entry| entry.unwrap().path());
        let of_topic = topics.into_iter().find(|path| path.to_str().unwrap().ends_with(topic)).unwrap();
        let partition = of_topic.join("0");
        let segments = || std::fs::read_dir(&partition).unwrap().map(|entry| entry.unwrap().path());
        assert!(segments().filter(|path| path.extension().is_some_and(|e| e == "seg")).count() > 1);
        std::fs::remove_file(partition.join("00000000000000000000.seg")).unwrap();
        let running = start(data.path()).await.unwrap();
        let client = connect(&running.url()).await.unwrap();
        let error = client.batch_execute(question).await.unwrap_err();
        assert_eq!(error.code().unwrap().code(), "XX001", "{error:?}");
        running.stop().await;
    }
}
