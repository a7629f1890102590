//! Backups of a server that goes on: each is one moment of it, whatever it does meanwhile.

use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use harness::{Server, program, rows};

/// Checkpoints one after the other, and segments that are soon full and soon removed.
const FLAGS: [&str; 4] = ["--checkpoint-ms", "5", "--segment-bytes", "4096"];
/// Backups under load.
const BACKUPS: usize = 8;

fn millpond(arguments: &[&str]) -> Output {
    Command::new(program()).args(arguments).output().unwrap()
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

async fn number(server: &Server, query: &str) -> u64 {
    let answer = rows(&server.connect().await, query).await;
    answer.first().unwrap_or_else(|| panic!("{query}: no row")).parse().unwrap()
}

async fn made(data: &Path) -> Server {
    let server = Server::start_with(data, &FLAGS).unwrap();
    let client = server.connect().await;
    for statement in [
        "CREATE TABLE t (id INT PRIMARY KEY, g TEXT)",
        "CREATE STREAM s (id INT, g TEXT) WITH (retention_bytes = 8192)",
        "CREATE STREAM j (id INT KEY, g TEXT) WITH (value_format = 'json', partitions = 2)",
        "CREATE MATERIALIZED VIEW seen AS SELECT count(*) AS n FROM s",
        "CREATE MATERIALIZED VIEW groups AS SELECT g, count(*) AS n, max(id) AS last FROM t GROUP BY g",
        "CREATE STREAM results AS SELECT id, upper(g) AS g FROM j",
    ] {
        client.batch_execute(statement).await.unwrap_or_else(|e| panic!("{statement}: {e:?}"));
    }
    server
}

/// Writes rows in transactions, and makes and drops a view now and then. Counts what is acknowledged.
async fn write(url: String, written: Arc<AtomicU64>, stop: Arc<AtomicBool>) {
    let client = harness::connect(&url).await.unwrap();
    while !stop.load(Ordering::SeqCst) {
        let id = written.load(Ordering::SeqCst);
        let g = format!("g{}", id % 7);
        let statement = format!(
            "BEGIN; INSERT INTO t VALUES ({id}, '{g}'); INSERT INTO s VALUES ({id}, '{g}');
             INSERT INTO j VALUES ({id}, '{g}'); COMMIT"
        );
        client.batch_execute(&statement).await.unwrap();
        written.fetch_add(1, Ordering::SeqCst);
        if id.is_multiple_of(20) {
            let view = "CREATE MATERIALIZED VIEW passing AS SELECT g, min(id) AS first FROM t GROUP BY g";
            client.batch_execute(view).await.unwrap();
            client.batch_execute("DROP MATERIALIZED VIEW passing").await.unwrap();
        }
    }
}

/// Everything in a restored server is of one moment, and it goes on from there.
async fn is_a_moment(server: &Server, between: (u64, u64)) {
    let rows_in_t = number(server, "SELECT count(*) FROM t").await;
    assert!((between.0..=between.1).contains(&rows_in_t), "{rows_in_t} rows, of {between:?}");
    assert_eq!(number(server, "SELECT n FROM seen").await, rows_in_t, "a transaction in halves");
    assert_eq!(number(server, "SELECT count(*) FROM j").await, rows_in_t, "a transaction in halves");
    assert_eq!(number(server, "SELECT count(*) FROM results").await, rows_in_t, "a result topic");
    let doubled = "SELECT count(*) FROM (SELECT id FROM results GROUP BY id HAVING count(*) > 1) d";
    assert_eq!(number(server, doubled).await, 0, "records of a result that came twice");
    let differs = "SELECT count(*) FROM (SELECT g, count(*) AS n, max(id) AS last FROM t GROUP BY g
                   EXCEPT SELECT * FROM groups) d";
    assert_eq!(number(server, differs).await, 0, "a view");
    let client = server.connect().await;
    client.batch_execute("INSERT INTO t VALUES (-1, 'new'); INSERT INTO j VALUES (-1, 'new')").await.unwrap();
    assert_eq!(rows(&client, "SELECT n FROM groups WHERE g = 'new'").await, ["1"]);
    client.batch_execute("FLUSH").await.unwrap();
    assert_eq!(rows(&client, "SELECT g FROM results WHERE id = -1").await, ["NEW"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_of_a_running_server_is_a_moment_of_it() {
    let data = tempfile::tempdir().unwrap();
    let server = made(data.path()).await;
    let (written, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let writer = tokio::spawn(write(server.url.clone(), Arc::clone(&written), Arc::clone(&stop)));
    let copies = tempfile::tempdir().unwrap();
    for n in 0..BACKUPS {
        tokio::time::sleep(Duration::from_millis(60)).await;
        let (copy, restored) =
            (copies.path().join(format!("copy{n}")), copies.path().join(format!("data{n}")));
        let before = written.load(Ordering::SeqCst);
        let output = millpond(&["backup", &server.url, text(&copy)]);
        // The one whose acknowledgement is on its way counts.
        let after = written.load(Ordering::SeqCst) + 1;
        assert!(output.status.success() && said(&output).contains("epoch"), "{}", said(&output));
        let output = millpond(&["restore", text(&copy), text(&restored)]);
        assert!(output.status.success() && said(&output).contains("whole"), "{}", said(&output));
        let again = Server::start_with(&restored, &FLAGS).unwrap();
        is_a_moment(&again, (before, after)).await;
        assert_eq!(again.terminate(), Some(0));
        // The backup is as it was: nobody opened it, and nothing was put into it.
        assert!(!copy.join("LOCK").exists());
        let output = millpond(&["check", text(&copy)]);
        assert!(output.status.success(), "{}", said(&output));
    }
    stop.store(true, Ordering::SeqCst);
    writer.await.unwrap();
    assert!(written.load(Ordering::SeqCst) > 50, "nothing was written meanwhile");
    assert_eq!(server.terminate(), Some(0));
}

#[tokio::test]
async fn nothing_is_overwritten_and_nothing_damaged_is_restored() {
    let (data, copies) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let server = made(data.path()).await;
    let client = server.connect().await;
    client.batch_execute("INSERT INTO t SELECT n, 'g' FROM generate_series(1, 1000) AS s(n)").await.unwrap();
    let taken = copies.path().join("taken");
    std::fs::create_dir(&taken).unwrap();
    std::fs::write(taken.join("mine"), "mine").unwrap();
    let refused = async |statement: String| {
        let error = client.batch_execute(&statement).await.unwrap_err();
        error.code().unwrap().code().to_owned()
    };
    assert_eq!(refused(format!("BACKUP TO '{}'", text(&taken))).await, "58P02");
    assert_eq!(refused("BACKUP TO 'here'".into()).await, "22023");
    client.batch_execute("CREATE ROLE ann LOGIN; SET ROLE ann").await.unwrap();
    assert_eq!(refused(format!("BACKUP TO '{}'", text(&copies.path().join("hers")))).await, "42501");
    client.batch_execute("RESET ROLE").await.unwrap();

    // An empty directory is as good as none.
    let copy = copies.path().join("copy");
    std::fs::create_dir(&copy).unwrap();
    client.batch_execute(&format!("BACKUP TO '{}'", text(&copy))).await.unwrap();
    assert!(!copies.path().join("copy.partial").exists());
    let output = millpond(&["restore", text(&copy), text(&taken)]);
    assert!(!output.status.success() && said(&output).contains("not empty"), "{}", said(&output));
    assert_eq!(std::fs::read_to_string(taken.join("mine")).unwrap(), "mine");

    let journal = copy.join("meta").join("journal");
    let mut bytes = std::fs::read(&journal).unwrap();
    let middle = bytes.len() / 3;
    bytes[middle] ^= 0x10;
    std::fs::write(&journal, bytes).unwrap();
    let output = millpond(&["restore", text(&copy), text(&copies.path().join("data"))]);
    assert!(!output.status.success() && said(&output).contains("damaged"), "{}", said(&output));
    assert!(!copies.path().join("data").exists());
}
