//! kill -9 at random moments during INSERT and COPY with three views.
//!
//! After every restart: no acknowledged statement is missing, none is there twice, none by half,
//! and the views equal the batch answer. `KILL_CYCLES` sets how often.

use std::time::Duration;

use harness::ledger::{Ledger, SETUP};
use harness::{Server, rows, seed, times};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_acknowledged_is_lost() {
    let seed = seed("kill");
    let mut random = StdRng::seed_from_u64(seed);
    let data = tempfile::tempdir().unwrap();
    let ledger = Ledger::default();
    let mut server = Server::start(data.path());
    for statement in SETUP {
        server.connect().await.batch_execute(statement).await.unwrap();
    }
    for cycle in 0..times("KILL_CYCLES", 50) {
        let writers: Vec<_> =
            (0..3).map(|_| tokio::spawn(ledger.clone().write(server.url.clone(), random.random()))).collect();
        tokio::time::sleep(Duration::from_millis(random.random_range(1..120))).await;
        server.kill();
        for writer in writers {
            writer.await.unwrap();
        }
        // None, one in a while, and one after the other.
        let checkpoints = ["0", "50", "1"][random.random_range(0..3)];
        if random.random_bool(0.3) {
            // A crash while recovering must change nothing.
            if let Ok(mut recovering) = Server::start_with(data.path(), &["--checkpoint-ms", checkpoints]) {
                recovering.kill();
            }
        }
        server = Server::start_with(data.path(), &["--checkpoint-ms", checkpoints]).unwrap();
        ledger.verify(&server.connect().await, &format!("SEED={seed} cycle {cycle}")).await;
    }
    let acknowledged = ledger.acknowledged();
    println!("{acknowledged} acknowledged statements, all there once");
    assert!(acknowledged > 0);
}

/// The projection is only a projection: without it the server is the same.
#[tokio::test]
async fn sled_may_be_deleted() {
    let data = tempfile::tempdir().unwrap();
    let mut server = Server::start(data.path());
    server.connect().await.batch_execute("CREATE TABLE t (id INT PRIMARY KEY)").await.unwrap();
    server.connect().await.batch_execute("INSERT INTO t VALUES (1)").await.unwrap();
    server.kill();
    std::fs::remove_dir_all(data.path().join("meta").join("sled")).unwrap();
    let mut server = Server::start(data.path());
    assert_eq!(rows(&server.connect().await, "SELECT * FROM t").await, ["1"]);
    server.kill();
    // An unfinished snapshot makes sled itself refuse to open.
    std::fs::write(data.path().join("meta/sled/snap.FFFFFFFFFFFFFFFF.generating"), b"half").unwrap();
    let server = Server::start(data.path());
    assert_eq!(rows(&server.connect().await, "SELECT * FROM t").await, ["1"]);
}

/// A topic that was named outlives its relations, with what queries wrote to it, through a restart.
#[tokio::test]
async fn a_named_topic_outlives_its_relations() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path());
    let client = server.connect().await;
    for statement in [
        "CREATE STREAM s (id INT KEY, v TEXT) WITH (kafka_topic = 'events', value_format = 'json')",
        "CREATE STREAM upper WITH (kafka_topic = 'upper') AS SELECT id, upper(v) AS v FROM s",
        "INSERT INTO s VALUES (1, 'a'), (2, 'b')",
        "FLUSH",
        "DROP STREAM upper",
        "DROP STREAM s",
        "CREATE STREAM t (v TEXT) WITH (kafka_topic = 'gone', value_format = 'json')",
        "INSERT INTO t VALUES ('x')",
        "DROP STREAM t DELETE TOPIC",
    ] {
        client.batch_execute(statement).await.unwrap_or_else(|e| panic!("{statement}: {e:?}"));
    }
    let mut server = server;
    for round in 0..2 {
        server.kill();
        server = Server::start(data.path());
        let client = server.connect().await;
        assert_eq!(rows(&client, "SELECT name FROM millpond.topics").await, ["events", "upper"]);
        let create = |name: &str, topic: &str| {
            let columns = "(id INT KEY, v TEXT)";
            format!("CREATE STREAM {name} {columns} WITH (kafka_topic = '{topic}', value_format = 'json')")
        };
        client.batch_execute(&create("again", "events")).await.unwrap();
        client.batch_execute(&create("upper_again", "upper")).await.unwrap();
        let insert = format!("INSERT INTO upper_again VALUES ({round}, 'new')");
        client.batch_execute(&insert).await.unwrap();
        assert_eq!(rows(&client, "SELECT rowoffset, id, v FROM again").await, ["0|1|a", "1|2|b"]);
        let upper = rows(&client, "SELECT rowoffset, id, v FROM upper_again").await;
        let expected = ["0|1|A", "1|2|B", "2|0|new", "3|1|new"];
        assert_eq!(upper, expected[..3 + round]);
        client.batch_execute("DROP STREAM again; DROP STREAM upper_again").await.unwrap();
    }
}

/// The end came when one of a result's two partitions was written: the other follows, and nothing is there twice.
#[tokio::test]
async fn half_of_a_result_is_completed() {
    let data = tempfile::tempdir().unwrap();
    let mut server = Server::start(data.path());
    let client = server.connect().await;
    for statement in [
        "CREATE STREAM s (id INT KEY, v TEXT) WITH (value_format = 'json')",
        "CREATE STREAM upper WITH (kafka_topic = 'upper', partitions = 2) AS SELECT id, upper(v) AS v FROM s",
        "CREATE STREAM raw (v TEXT) WITH (kafka_topic = 'upper', value_format = 'kafka')",
    ] {
        client.batch_execute(statement).await.unwrap_or_else(|e| panic!("{statement}: {e:?}"));
    }
    let mut written = 0;
    let mut insert = || {
        written += 50;
        format!(
            "INSERT INTO s SELECT n, 'v' || n FROM generate_series({}, {written}) AS g(n); FLUSH",
            written - 49
        )
    };
    for (partition, all) in [(0, 150), (1, 300)] {
        let client = server.connect().await;
        client.batch_execute(&insert()).await.unwrap();
        let segment = data.path().join(format!("topics/000002-upper/{partition}/00000000000000000000.seg"));
        let file = std::fs::File::options().write(true).open(&segment).unwrap();
        let whole = file.metadata().unwrap().len();
        client.batch_execute(&insert()).await.unwrap();
        server.kill();
        // Of the last frame only some bytes are there.
        file.set_len(whole + 100).unwrap();
        server = Server::start_with(data.path(), &["--checkpoint-ms", "0"]).unwrap();
        let client = server.connect().await;
        client.batch_execute(&insert()).await.unwrap();
        let counts = "SELECT count(*), count(DISTINCT v), count(DISTINCT (rowpartition, rowoffset)) FROM raw";
        assert_eq!(rows(&client, counts).await, [format!("{all}|{all}|{all}")], "partition {partition}");
    }
}

/// A segment damaged in the middle is named, not passed over; only what reads it is out of use.
#[tokio::test]
async fn a_damaged_segment_is_named_and_takes_no_other_with_it() {
    let data = tempfile::tempdir().unwrap();
    let mut server = Server::start(data.path());
    let client = server.connect().await;
    let setup = "CREATE STREAM s (v INT); CREATE TABLE t (v INT PRIMARY KEY); \
                 CREATE MATERIALIZED VIEW of_s AS SELECT count(*) FROM s; \
                 CREATE MATERIALIZED VIEW of_t AS SELECT count(*) FROM t";
    client.batch_execute(setup).await.unwrap();
    for n in 0..20 {
        let both = format!("BEGIN; INSERT INTO s VALUES ({n}); INSERT INTO t VALUES ({n}); COMMIT");
        client.batch_execute(&both).await.unwrap();
    }
    server.kill();
    let segment = data.path().join("topics/000001-s/0/00000000000000000000.seg");
    let mut bytes = std::fs::read(&segment).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0xff;
    std::fs::write(&segment, &bytes).unwrap();
    let server = Server::start(data.path());
    let client = server.connect().await;
    for statement in ["SELECT * FROM s", "INSERT INTO s VALUES (20)", "SELECT * FROM of_s"] {
        let error = client.batch_execute(statement).await.unwrap_err();
        let error = error.as_db_error().unwrap();
        let named = error.message().contains("00000000000000000000.seg\" is damaged at byte");
        assert!(named || error.message().contains("\"s\""), "{statement}: {error:?}");
    }
    client.batch_execute("INSERT INTO t VALUES (20)").await.unwrap();
    assert_eq!(rows(&client, "SELECT * FROM of_t").await, ["21"]);
    // Without it the directory is as good as new.
    client
        .batch_execute("DROP STREAM s CASCADE; CREATE STREAM s (v INT); INSERT INTO s VALUES (1)")
        .await
        .unwrap();
    assert_eq!(rows(&client, "SELECT * FROM s").await, ["1"]);
    drop(server);
}

/// A torn end was never acknowledged whole.
#[tokio::test]
async fn a_torn_end_is_cut() {
    let data = tempfile::tempdir().unwrap();
    let mut server = Server::start(data.path());
    let client = server.connect().await;
    client.batch_execute("CREATE STREAM s (v INT)").await.unwrap();
    for n in 0..20 {
        client.batch_execute(&format!("INSERT INTO s VALUES ({n})")).await.unwrap();
    }
    server.kill();
    let segment = data.path().join("topics/000001-s/0/00000000000000000000.seg");
    let mut bytes = std::fs::read(&segment).unwrap();
    bytes.extend_from_slice(b"MPF1 half a frame");
    std::fs::write(&segment, &bytes).unwrap();
    let server = Server::start(data.path());
    assert_eq!(rows(&server.connect().await, "SELECT count(*) FROM s").await, ["20"]);
}

/// Two servers on one directory: the second refuses.
#[tokio::test]
async fn one_server_for_each_directory() {
    let data = tempfile::tempdir().unwrap();
    let _first = Server::start(data.path());
    let error = Server::start_with(data.path(), &[]).err().expect("the second refuses");
    assert!(error.contains("is in use by another server"), "{error}");
}
