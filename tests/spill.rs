//! State larger than memory: a view far past its memory limit goes on with its state in a file, is right at every
//! look, stays within its limit, and comes back after a crash.

use harness::{Server, rows, times};

/// Bytes that the process has in memory, MiB.
fn resident_mib(server: &Server) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

const VIEW: &str = "CREATE MATERIALIZED VIEW large WITH (memory_limit = '64MB') AS
                    SELECT k, count(*) AS n, sum(v) AS total, min(v) AS least FROM s GROUP BY k";
const BATCH: &str = "SELECT k, count(*) AS n, sum(v) AS total, min(v) AS least FROM s GROUP BY k";

/// The view is what its query says now.
async fn assert_right(client: &tokio_postgres::Client, keys: usize) {
    let same = format!("SELECT count(*) FROM large l JOIN ({BATCH}) b USING (k, n, total, least)");
    assert_eq!(rows(client, &same).await, [keys.to_string()]);
    assert_eq!(rows(client, "SELECT count(*) FROM large").await, [keys.to_string()]);
}

/// Rows of the stream: every key once, and others again.
async fn write(client: &tokio_postgres::Client, from: usize, keys: usize) {
    for at in (from..from + keys).step_by(100_000) {
        let insert = format!(
            "INSERT INTO s SELECT (n * 7919) % 4000037, n FROM generate_series({at}, {}) AS s(n)",
            at + 99_999
        );
        client.batch_execute(&insert).await.unwrap();
        client.batch_execute("FLUSH").await.unwrap();
    }
}

#[tokio::test]
async fn a_view_past_its_limit_goes_on_from_disk() {
    const KEYS: usize = 2_000_000;
    let keys = times("SPILL_KEYS", KEYS).min(4_000_000);
    let data = tempfile::tempdir().unwrap();
    let mut server = Server::start(data.path());
    let client = server.connect().await;
    client.batch_execute("CREATE STREAM s (k BIGINT, v BIGINT)").await.unwrap();
    client.batch_execute(VIEW).await.unwrap();
    write(&client, 0, keys / 2).await;
    let spills = "SELECT spills, state_bytes / 1000000 FROM millpond.queries WHERE relation = 'large'";
    let shown = rows(&client, spills).await;
    assert!(shown[0].starts_with("t|"), "it does not spill: {shown:?}");
    let half = resident_mib(&server);
    write(&client, keys / 2, keys / 2).await;
    // Keys that went to disk long ago.
    write(&client, 0, 100_000).await;
    let grown = resident_mib(&server).saturating_sub(half);
    println!(
        "{half} MiB with half of the keys, {grown} MiB more with all: {:?}",
        rows(&client, spills).await
    );
    assert!(grown < 64, "{grown} MiB more in memory");
    assert_right(&client, keys).await;

    // A look-up finds what is on disk.
    let one = rows(&client, "SELECT n, total, least FROM large WHERE k = 7919").await;
    assert_eq!(one, ["2|2|1"]);

    // A crash, and all comes back: out of a checkpoint, or out of the log.
    server.kill();
    let server = Server::start(data.path());
    let client = server.connect().await;
    assert_right(&client, keys).await;
    assert!(rows(&client, spills).await[0].starts_with("t|"), "it does not spill any more");
    write(&client, 0, 100_000).await;
    assert_right(&client, keys).await;

    // Another one is computed beside it, on disk as well.
    client.batch_execute(&VIEW.replace("large", "again")).await.unwrap();
    let same = "SELECT count(*) FROM large JOIN again USING (k, n, total, least)";
    assert_eq!(rows(&client, same).await, [keys.to_string()]);
    client.batch_execute("DROP MATERIALIZED VIEW large; DROP MATERIALIZED VIEW again").await.unwrap();
    client.batch_execute("INSERT INTO s VALUES (1, 1)").await.unwrap();
}

/// Rows that change and go, joined: what is on disk is found, changed and taken away.
#[tokio::test]
async fn joins_on_disk_follow_updates_and_deletions() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path());
    let client = server.connect().await;
    let make = "CREATE TABLE a (id INT PRIMARY KEY, g INT, v TEXT);
                CREATE TABLE b (g INT PRIMARY KEY, name TEXT);
                INSERT INTO b SELECT n, 'group ' || n FROM generate_series(0, 999) AS s(n)";
    client.batch_execute(make).await.unwrap();
    let query = "SELECT a.id, a.v || ' of ' || b.name AS text, max(a.v) OVER (PARTITION BY a.g) AS most
                 FROM a JOIN b ON a.g = b.g";
    let view = format!("CREATE MATERIALIZED VIEW j WITH (memory_limit = '64MB') AS {query}");
    client.batch_execute(&view).await.unwrap();
    for from in (0..300_000).step_by(50_000) {
        let insert = format!(
            "INSERT INTO a SELECT n, n % 1000, 'a value that takes some room, number ' || n
             FROM generate_series({from}, {}) AS s(n)",
            from + 49_999
        );
        client.batch_execute(&insert).await.unwrap();
    }
    client.batch_execute("FLUSH").await.unwrap();
    let spills = "SELECT spills FROM millpond.queries WHERE relation = 'j'";
    assert_eq!(rows(&client, spills).await, ["t"]);
    let wrong = format!(
        "SELECT count(*) FROM ({query}) q FULL JOIN j USING (id, text, most) WHERE q.id IS NULL OR j.id IS NULL"
    );
    for change in [
        "SELECT 1",
        "UPDATE a SET v = 'changed ' || id WHERE id % 3 = 0",
        "DELETE FROM a WHERE id % 7 = 0",
        "UPDATE b SET name = 'another ' || g WHERE g % 2 = 0",
        "DELETE FROM b WHERE g < 100",
        "INSERT INTO a SELECT n, n % 1000, 'again ' || n FROM generate_series(0, 20000, 7) AS s(n)",
    ] {
        client.batch_execute(change).await.unwrap();
        let counts = format!("SELECT (SELECT count(*) FROM j) - (SELECT count(*) FROM ({query}) q)");
        assert_eq!(rows(&client, &counts).await, ["0"], "{change}");
        assert_eq!(rows(&client, &wrong).await, ["0"], "{change}");
    }
}
