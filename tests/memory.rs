//! The memory limit of the server: who grows past it is ended, and nobody else; questions go to disk. Readers who
//! take nothing cost little.

use futures::StreamExt;
use harness::{Server, rows};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

fn start(data: &std::path::Path, limit: &str) -> Server {
    Server::start_with(data, &["--memory-limit", limit]).unwrap()
}

async fn code(client: &tokio_postgres::Client, statement: &str) -> String {
    let error = client.batch_execute(statement).await.expect_err(statement);
    error.code().unwrap_or_else(|| panic!("{statement}: {error}")).code().to_owned()
}

/// Rows with keys from `from` on.
fn some(relation: &str, from: usize, count: usize) -> String {
    let to = from + count - 1;
    format!(
        "INSERT INTO {relation} SELECT n, 'value number ' || n FROM generate_series({from}, {to}) AS s(n)"
    )
}

#[tokio::test]
async fn the_query_that_grows_is_ended_and_no_other() {
    let data = tempfile::tempdir().unwrap();
    let server = start(data.path(), "64MB");
    let client = server.connect().await;
    for statement in [
        "CREATE STREAM s (id INT, v TEXT)",
        "CREATE TABLE t (id INT PRIMARY KEY, v TEXT)",
        "CREATE MATERIALIZED VIEW total AS SELECT count(*) AS n FROM s",
        "CREATE MATERIALIZED VIEW tenths AS SELECT id % 10 AS d, max(v) AS v FROM s GROUP BY 1",
        "CREATE MATERIALIZED VIEW large AS SELECT id, max(v) AS v FROM s GROUP BY id",
    ] {
        client.batch_execute(statement).await.unwrap_or_else(|e| panic!("{statement}: {e:?}"));
    }
    let mut written = 0;
    let ended = "SELECT relation FROM millpond.queries WHERE state = 'error'";
    while rows(&client, ended).await.is_empty() {
        assert!(written < 3_000_000, "nothing was ended");
        client.batch_execute(&some("s", written, 100_000)).await.unwrap();
        written += 100_000;
        client.batch_execute("FLUSH").await.unwrap();
    }
    assert_eq!(rows(&client, ended).await, ["large"]);
    assert!(written > 100_000, "it was ended too soon");
    assert_eq!(code(&client, "SELECT count(*) FROM large").await, "53200");
    assert_eq!(rows(&client, "SELECT n FROM total").await, [written.to_string()]);
    assert_eq!(rows(&client, "SELECT count(*) FROM tenths").await, ["10"]);
    client.batch_execute(&some("s", written, 10)).await.unwrap();
    assert_eq!(rows(&client, "SELECT n FROM total").await, [(written + 10).to_string()]);
    // One that is made over the same rows ends while it is made.
    let again = "CREATE MATERIALIZED VIEW again AS SELECT id, max(v) AS v FROM s GROUP BY id";
    assert_eq!(code(&client, again).await, "53200");
    assert_eq!(rows(&client, "SELECT n FROM total").await, [(written + 10).to_string()]);
}

#[tokio::test]
async fn a_table_does_not_grow_past_it_and_shrinks_again() {
    let data = tempfile::tempdir().unwrap();
    let server = start(data.path(), "64MB");
    let client = server.connect().await;
    client
        .batch_execute("CREATE TABLE t (id INT PRIMARY KEY, v TEXT); CREATE STREAM s (id INT, v TEXT)")
        .await
        .unwrap();
    let mut written = 0;
    let refused = loop {
        assert!(written < 3_000_000, "it takes everything");
        match client.batch_execute(&some("t", written, 100_000)).await {
            Ok(()) => written += 100_000,
            Err(error) => break error,
        }
        client.batch_execute("FLUSH").await.unwrap();
    };
    assert_eq!(refused.code().unwrap().code(), "53200");
    assert_eq!(rows(&client, "SELECT count(*) FROM t").await, [written.to_string()]);
    // What does not grow goes on.
    client.batch_execute("INSERT INTO s VALUES (1, 'a')").await.unwrap();
    client.batch_execute("DELETE FROM t WHERE id % 4 > 0").await.unwrap();
    client.batch_execute("FLUSH").await.unwrap();
    client.batch_execute("INSERT INTO t VALUES (-1, 'new')").await.unwrap();
    assert_eq!(rows(&client, "SELECT count(*) FROM t").await, [(written / 4 + 1).to_string()]);
}

#[tokio::test]
async fn questions_go_to_disk_or_fail_alone() {
    let data = tempfile::tempdir().unwrap();
    let server = start(data.path(), "256MB");
    let client = server.connect().await;
    let sorted = "SELECT count(*), sum(CASE WHEN v < last THEN 1 ELSE 0 END)
                  FROM (SELECT v, lag(v) OVER (ORDER BY v) AS last
                        FROM (SELECT md5(n::text) || md5((n + 1)::text) AS v
                              FROM generate_series(1, 2000000) AS s(n)) x) y";
    // 64 MB are not enough for it in memory.
    assert_eq!(rows(&client, sorted).await, ["2000000|0"]);
    let joined = "SELECT count(*) FROM
                  (SELECT md5(n::text) AS v FROM generate_series(1, 3000000) AS s(n)) a
                  JOIN (SELECT md5(n::text) AS v FROM generate_series(1, 3000000) AS s(n)) b USING (v)";
    assert_eq!(code(&client, joined).await, "53200");
    assert_eq!(rows(&client, "SELECT 1 + 1").await, ["2"]);
    let left = std::fs::read_dir(data.path().join("spilled")).map_or(0, Iterator::count);
    assert!(left <= 1, "{left} directories are left");
}

/// Rows without end, held by a statement until it writes them, by a window until it has seen them all.
#[tokio::test]
async fn what_has_no_end_ends_alone() {
    let data = tempfile::tempdir().unwrap();
    let server = start(data.path(), "256MB");
    let client = server.connect().await;
    let setup = "CREATE TABLE t (id BIGINT PRIMARY KEY, v TEXT); INSERT INTO t VALUES (-1, 'a')";
    client.batch_execute(setup).await.unwrap();
    for statement in [
        "INSERT INTO t SELECT i, 'row' FROM generate_series(1, 1000000000000) x(i)",
        "INSERT INTO t SELECT i, 'row' FROM generate_series(1, 1000000000000) x(i) ON CONFLICT (id) DO NOTHING",
        "SELECT sum(i) OVER () FROM generate_series(1, 1000000000000) x(i) LIMIT 1",
    ] {
        assert_eq!(code(&client, statement).await, "53200", "{statement}");
        assert_eq!(rows(&client, "SELECT * FROM t").await, ["-1|a"]);
    }
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak_kb: usize = peak.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(peak_kb < 768 << 10, "{peak_kb} KB at most for a limit of 256 MB");
}

#[tokio::test]
async fn a_push_query_that_grows_is_ended() {
    let data = tempfile::tempdir().unwrap();
    let server = start(data.path(), "64MB");
    let client = server.connect().await;
    let made =
        "CREATE STREAM s (id INT, v TEXT); CREATE MATERIALIZED VIEW total AS SELECT count(*) AS n FROM s";
    client.batch_execute(made).await.unwrap();
    let reader = server.connect().await;
    let push = "COPY (SELECT id, max(v) AS v FROM s GROUP BY id EMIT CHANGES) TO STDOUT";
    let changes = reader.copy_out(push).await.unwrap();
    let ended = tokio::spawn(async move {
        let mut changes = std::pin::pin!(changes);
        loop {
            match changes.next().await {
                Some(Ok(_)) => {}
                Some(Err(error)) => return error.code().map(|code| code.code().to_owned()),
                None => return None,
            }
        }
    });
    let mut written = 0;
    while !ended.is_finished() {
        assert!(written < 3_000_000, "it was not ended");
        client.batch_execute(&some("s", written, 100_000)).await.unwrap();
        written += 100_000;
        client.batch_execute("FLUSH").await.unwrap();
    }
    assert_eq!(ended.await.unwrap().as_deref(), Some("53200"));
    assert_eq!(rows(&client, "SELECT n FROM total").await, [written.to_string()]);
}

/// A push query that nobody reads the answer of.
async fn stalled(server: &Server, query: &str) -> TcpStream {
    let address = server.url.rsplit_once('@').unwrap().1.split('/').next().unwrap();
    let mut socket = TcpStream::connect(address).await.unwrap();
    let mut startup = 196_608i32.to_be_bytes().to_vec();
    startup.extend(b"user\0millpond\0\0");
    let mut message = (startup.len() as i32 + 4).to_be_bytes().to_vec();
    message.extend(startup);
    message.push(b'Q');
    message.extend((query.len() as i32 + 5).to_be_bytes());
    message.extend(query.as_bytes());
    message.push(0);
    socket.write_all(&message).await.unwrap();
    socket
}

fn resident_mib(server: &Server) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() / 1024
}

/// What a stream held before is read as the reader takes it.
#[tokio::test]
async fn readers_who_take_nothing_cost_little() {
    const READERS: usize = 200;
    const ROWS: usize = 1_000_000;
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path());
    let client = server.connect().await;
    client.batch_execute("CREATE STREAM s (id INT, v TEXT)").await.unwrap();
    for from in (0..ROWS).step_by(10_000) {
        client.batch_execute(&some("s", from, 10_000)).await.unwrap();
    }
    let before = resident_mib(&server);
    let mut readers = Vec::new();
    for _ in 0..READERS {
        readers.push(stalled(&server, "SELECT * FROM s WHERE id >= 0 EMIT CHANGES").await);
    }
    let active =
        "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%id >= 0 EMIT%' AND state = 'active'";
    while rows(&client, active).await != [(READERS + 1).to_string()] {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    // All that comes meanwhile is shared.
    client.batch_execute(&some("s", ROWS, 100_000)).await.unwrap();
    client.batch_execute("FLUSH").await.unwrap();
    let grown = resident_mib(&server).saturating_sub(before);
    assert!(grown < 400, "{grown} MiB for {READERS} readers");
    // Who reads gets everything in its order.
    let copied = async |query: String| {
        let text = client.copy_out(&format!("COPY ({query}) TO STDOUT")).await.unwrap();
        text.map(|chunk| chunk.unwrap().to_vec()).collect::<Vec<_>>().await.concat()
    };
    let pushed = copied(format!("SELECT id FROM s EMIT CHANGES LIMIT {}", ROWS + 100_000)).await;
    let asked = copied("SELECT id FROM s ORDER BY rowoffset".to_owned()).await;
    assert!(pushed == asked, "records are missing or in another order");
}

/// Memory is used again, however many come and go at once.
#[tokio::test]
async fn clients_that_have_gone_leave_nothing() {
    const CLIENTS: usize = 400;
    let data = tempfile::tempdir().unwrap();
    let server = Server::start_with(data.path(), &["--max-connections", "1000"]).unwrap();
    let watch = server.connect().await;
    let come_and_go = async || {
        let mut clients = Vec::new();
        for _ in 0..CLIENTS {
            let client = server.connect().await;
            client.batch_execute("SELECT 1").await.unwrap();
            clients.push(client);
        }
        drop(clients);
        while rows(&watch, "SELECT count(*) FROM pg_stat_activity").await != ["1"] {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    come_and_go().await;
    come_and_go().await;
    let before = resident_mib(&server);
    for _ in 0..6 {
        come_and_go().await;
    }
    // What is free goes back a while after.
    for waits in 0.. {
        let grown = resident_mib(&server).saturating_sub(before);
        if grown < 20 {
            break;
        }
        assert!(waits < 300, "{grown} MiB for {} clients that have gone", 6 * CLIENTS);
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
}
