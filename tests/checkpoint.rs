//! Checkpoints through the front door: what a start finds when the log no longer has everything, when a
//! checkpoint is damaged, and when all are.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use harness::{Server, rows};

/// Checkpoints one after the other, and segments that are soon full.
const FLAGS: [&str; 4] = ["--checkpoint-ms", "5", "--segment-bytes", "4096"];
/// What a test waits for at most.
const PATIENCE: Duration = Duration::from_secs(30);

fn start(data: &Path) -> Server {
    Server::start_with(data, &FLAGS).unwrap()
}

async fn execute(server: &Server, statement: &str) {
    server.connect().await.batch_execute(statement).await.unwrap_or_else(|e| panic!("{statement}: {e:?}"));
}

async fn query(server: &Server, query: &str) -> Vec<String> {
    rows(&server.connect().await, query).await
}

/// Waits until a checkpoint has everything there is now.
async fn checkpointed(server: &Server) {
    let client = server.connect().await;
    // What another session was told of may not have been stepped yet.
    client.batch_execute("FLUSH").await.unwrap();
    let has_all = "SELECT 1 FROM millpond.checkpoints c JOIN millpond.status s ON c.epoch = s.epoch";
    let since = Instant::now();
    while rows(&client, has_all).await.is_empty() {
        assert!(since.elapsed() < PATIENCE, "no checkpoint came");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn files(data: &Path, extension: &str) -> Vec<PathBuf> {
    let all = std::fs::read_dir(data.join("checkpoints")).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = all.filter(|path| path.extension().is_some_and(|e| e == extension)).collect();
    files.sort();
    files
}

fn damage(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x20;
    std::fs::write(path, bytes).unwrap();
}

/// A stream that lets records go, and views that have counted them.
async fn trimmed(data: &Path) -> Server {
    let server = start(data);
    for statement in [
        "CREATE STREAM s (g TEXT, n INT) WITH (retention_bytes = 8192)",
        "CREATE TABLE t (g TEXT PRIMARY KEY, name TEXT)",
        "CREATE MATERIALIZED VIEW v AS SELECT g, count(*) AS n, min(n) AS least FROM s GROUP BY g",
        "CREATE MATERIALIZED VIEW named AS SELECT t.name, v.n FROM v JOIN t ON v.g = t.g",
        "INSERT INTO t VALUES ('a', 'first'), ('b', 'second')",
    ] {
        execute(&server, statement).await;
    }
    let client = server.connect().await;
    let first = data.join("topics/000001-s/0/00000000000000000000.seg");
    let since = Instant::now();
    let mut written = 0;
    while first.exists() || written < 100 {
        assert!(since.elapsed() < PATIENCE, "the log let nothing go");
        client.batch_execute(&format!("INSERT INTO s VALUES ('a', {written}), ('b', 7)")).await.unwrap();
        written += 1;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(rows(&client, "SELECT * FROM v").await, answer(written));
    checkpointed(&server).await;
    server
}

fn answer(written: usize) -> [String; 2] {
    [format!("a|{written}|0"), format!("b|{written}|7")]
}

/// How many rows of each group the views have seen.
async fn counted(server: &Server) -> usize {
    query(server, "SELECT n FROM v WHERE g = 'b'").await[0].parse().unwrap()
}

#[tokio::test]
async fn records_that_are_in_checkpoints_may_go() {
    let data = tempfile::tempdir().unwrap();
    let mut server = trimmed(data.path()).await;
    for round in 0..3 {
        let before = counted(&server).await;
        server.kill();
        if round == 1 {
            // Whatever the newest has, the one before is whole.
            damage(files(data.path(), "manifest").last().unwrap());
        }
        server = start(data.path());
        let client = server.connect().await;
        assert_eq!(rows(&client, "SELECT * FROM v").await, answer(before), "round {round}");
        let left: usize = rows(&client, "SELECT count(*) FROM s").await[0].parse().unwrap();
        assert!(left < 2 * before, "round {round}: {left} of {} records are there", 2 * before);
        client.batch_execute("INSERT INTO s VALUES ('a', 1), ('b', 8)").await.unwrap();
        assert_eq!(rows(&client, "SELECT * FROM v").await, answer(before + 1), "round {round}");
        let named = [format!("first|{}", before + 1), format!("second|{}", before + 1)];
        assert_eq!(rows(&client, "SELECT * FROM named").await, named, "round {round}");
        checkpointed(&server).await;
        execute(&server, "INSERT INTO s VALUES ('a', 1), ('b', 8)").await;
        checkpointed(&server).await;
    }
}

#[tokio::test]
async fn a_view_that_cannot_be_right_says_so() {
    let data = tempfile::tempdir().unwrap();
    let mut server = trimmed(data.path()).await;
    execute(&server, "CREATE MATERIALIZED VIEW of_t AS SELECT count(*) AS n FROM t").await;
    checkpointed(&server).await;
    server.kill();
    files(data.path(), "manifest").iter().for_each(|manifest| damage(manifest));
    let server = start(data.path());
    let client = server.connect().await;
    let error = client.simple_query("SELECT * FROM v").await.unwrap_err();
    let error = error.as_db_error().unwrap();
    assert!(error.message().contains("records of \"s\""), "{error:?}");
    assert_eq!(rows(&client, "SELECT * FROM of_t").await, ["2"], "others are as they were");
    client.batch_execute("RESUME v; RESUME named").await.unwrap();
    let left = rows(&client, "SELECT g, count(*), min(n) FROM s GROUP BY g").await;
    assert_eq!(rows(&client, "SELECT * FROM v").await, left);
}

/// Any damage is noticed; with the log whole nothing is lost.
#[tokio::test]
async fn damaged_checkpoints_change_nothing() {
    let data = tempfile::tempdir().unwrap();
    let mut server = start(data.path());
    for statement in [
        "CREATE STREAM s (id INT, g TEXT, at TIMESTAMP) WITH (timestamp = 'at')",
        "CREATE TABLE t (id INT PRIMARY KEY, g TEXT)",
        "CREATE TABLE per_minute AS SELECT g, count(*) AS n FROM s \
         WINDOW TUMBLING (SIZE 1 MINUTE, GRACE PERIOD 0 MINUTES) GROUP BY g",
        "CREATE MATERIALIZED VIEW last AS SELECT * FROM s ORDER BY id DESC LIMIT 3",
        "CREATE MATERIALIZED VIEW joined AS SELECT s.id, t.g FROM s LEFT JOIN t ON s.id = t.id",
        "INSERT INTO t SELECT i, 'g' || i FROM generate_series(1, 50) AS g(i)",
        "INSERT INTO s SELECT i, 'g' || i % 3, TIMESTAMP '2024-01-01 00:00:00' + i * INTERVAL '1 minute' \
         FROM generate_series(1, 100) AS g(i)",
        "INSERT INTO s VALUES (101, 'late', '2024-01-01 00:00:30')",
        "DELETE FROM t WHERE id < 10",
    ] {
        execute(&server, statement).await;
    }
    let questions = [
        "SELECT * FROM per_minute",
        "SELECT * FROM last",
        "SELECT * FROM joined",
        "SELECT relation, reason, sqlstate, row FROM millpond.rejects",
        "SELECT * FROM t",
    ];
    let mut expected = Vec::new();
    for question in questions {
        expected.push(query(&server, question).await);
    }
    assert_eq!(expected[3].len(), 1, "{:?}", expected[3]);
    for round in 0..8 {
        checkpointed(&server).await;
        server.kill();
        let (manifests, pages) = (files(data.path(), "manifest"), files(data.path(), "pages"));
        match round {
            0 | 4 => {}
            1 => damage(manifests.last().unwrap()),
            2 => manifests.iter().for_each(|manifest| damage(manifest)),
            3 => pages.iter().for_each(|pages| damage(pages)),
            5 => std::fs::remove_file(pages.last().unwrap()).unwrap(),
            6 => std::fs::write(pages.last().unwrap(), b"short").unwrap(),
            _ => std::fs::remove_dir_all(data.path().join("checkpoints")).unwrap(),
        }
        server = start(data.path());
        for (question, expected) in questions.iter().zip(&expected) {
            assert_eq!(query(&server, question).await, *expected, "round {round}: {question}");
        }
        // Another epoch, so that there is another checkpoint.
        execute(&server, "INSERT INTO t VALUES (50, 'g50')").await;
    }
}
