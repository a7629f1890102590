//! The wire: live rows, cancel, prepared statements, COPY in every format, hostile bytes.

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::{SinkExt, StreamExt, TryStreamExt};
use harness::{Server, rows};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_postgres::error::SqlState;

async fn server() -> (tempfile::TempDir, Server) {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path());
    (data, server)
}

#[tokio::test]
async fn push_query_shows_rows_as_they_come() {
    let (_data, server) = server().await;
    let writer = server.connect().await;
    writer
        .batch_execute("CREATE STREAM s (v INT); CREATE MATERIALIZED VIEW m AS SELECT count(*) AS n FROM s")
        .await
        .unwrap();
    writer.batch_execute("INSERT INTO s VALUES (1)").await.unwrap();
    let reader = server.connect().await;
    let pushed = reader.query_raw("SELECT v FROM s EMIT CHANGES", Vec::<i32>::new()).await.unwrap();
    let mut pushed = std::pin::pin!(pushed);
    let first: i32 = pushed.next().await.unwrap().unwrap().get(0);
    assert_eq!(first, 1);
    for n in 2..5 {
        writer.batch_execute(&format!("INSERT INTO s VALUES ({n})")).await.unwrap();
        let row =
            tokio::time::timeout(Duration::from_secs(5), pushed.next()).await.unwrap().unwrap().unwrap();
        assert_eq!(row.get::<_, i32>(0), n);
    }
    let watcher = server.connect().await;
    let counts = watcher.query_raw("SUBSCRIBE TO (SELECT n FROM m)", Vec::<i32>::new()).await.unwrap();
    let mut counts = std::pin::pin!(counts);
    let row = counts.next().await.unwrap().unwrap();
    assert_eq!((row.get::<_, String>(1), row.get::<_, i64>(2)), ("+".into(), 4));
    writer.batch_execute("INSERT INTO s VALUES (9)").await.unwrap();
    let mut changes = Vec::new();
    for _ in 0..2 {
        let row = counts.next().await.unwrap().unwrap();
        changes.push((row.get::<_, String>(1), row.get::<_, i64>(2)));
    }
    changes.sort();
    assert_eq!(changes, [("+".to_owned(), 5), ("-".to_owned(), 4)]);
    let limited = server.connect().await;
    assert_eq!(limited.query("SELECT v FROM s EMIT CHANGES LIMIT 2", &[]).await.unwrap().len(), 2);
}

#[tokio::test]
async fn cancel_ends_a_statement_and_nothing_else() {
    let (_data, server) = server().await;
    let client = server.connect().await;
    client.batch_execute("CREATE STREAM s (v INT)").await.unwrap();
    let token = client.cancel_token();
    let canceller = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(200)).await;
        token.cancel_query(tokio_postgres::NoTls).await.unwrap();
    });
    let started = Instant::now();
    let error = client.batch_execute("SELECT * FROM s EMIT CHANGES").await.unwrap_err();
    assert_eq!(error.code(), Some(&SqlState::QUERY_CANCELED));
    assert!(started.elapsed() < Duration::from_secs(5));
    canceller.await.unwrap();
    assert_eq!(rows(&client, "SELECT 1").await, ["1"]);
    client.batch_execute("SET statement_timeout = '100ms'").await.unwrap();
    let endless = "SELECT count(*) FROM generate_series(1, 100000000) a, generate_series(1, 1000) b";
    assert_eq!(client.batch_execute(endless).await.unwrap_err().code(), Some(&SqlState::QUERY_CANCELED));
    assert_eq!(rows(&client, "SELECT 2").await, ["2"]);
    // A statement that waits is no different.
    let started = Instant::now();
    assert_eq!(
        client.batch_execute("SELECT pg_sleep(60)").await.unwrap_err().code(),
        Some(&SqlState::QUERY_CANCELED)
    );
    assert!(started.elapsed() < Duration::from_secs(5));
    client.batch_execute("RESET statement_timeout").await.unwrap();
    let started = Instant::now();
    let waits = "SELECT pg_sleep(0.05), pg_sleep_for('50 milliseconds'), pg_sleep_until(now() - INTERVAL '1 hour'), pg_sleep(NULL) IS NULL";
    assert_eq!(rows(&client, waits).await, ["|||t"]);
    let each = "SELECT count(*) FROM generate_series(1, 3) x(i) WHERE pg_sleep(i * 0.01) IS NOT NULL";
    assert_eq!(rows(&client, each).await, ["3"]);
    assert!(started.elapsed() >= Duration::from_millis(160));
}

#[tokio::test]
async fn prepared_statements_have_types() {
    let (_data, server) = server().await;
    let client = server.connect().await;
    client
        .batch_execute(
            "CREATE TABLE t (id BIGINT PRIMARY KEY, name TEXT, f DOUBLE PRECISION, ok BOOLEAN, n INT)",
        )
        .await
        .unwrap();
    let insert = client.prepare("INSERT INTO t VALUES ($1, $2, $3, $4, $5)").await.unwrap();
    assert_eq!(
        insert.params().iter().map(|t| t.name()).collect::<Vec<_>>(),
        ["int8", "text", "float8", "bool", "int4"]
    );
    for id in 0..10i64 {
        let name = format!("name {id}");
        assert_eq!(client.execute(&insert, &[&id, &name, &0.5f64, &true, &None::<i32>]).await.unwrap(), 1);
    }
    let select = client.prepare("SELECT name, f, ok, n FROM t WHERE id = $1").await.unwrap();
    let row = client.query_one(&select, &[&7i64]).await.unwrap();
    assert_eq!(row.get::<_, String>(0), "name 7");
    assert_eq!(row.get::<_, f64>(1), 0.5);
    assert!(row.get::<_, bool>(2));
    assert_eq!(row.get::<_, Option<i32>>(3), None);
    let update = client.prepare("UPDATE t SET n = $1 WHERE id < $2").await.unwrap();
    assert_eq!(client.execute(&update, &[&5i32, &3i64]).await.unwrap(), 3);
    assert_eq!(rows(&client, "SELECT count(*) FROM t WHERE n = 5").await, ["3"]);
    let error = client.prepare("SELECT nothing FROM t").await.unwrap_err();
    assert_eq!(error.code(), Some(&SqlState::UNDEFINED_COLUMN));
}

#[tokio::test]
async fn copy_in_and_out_in_every_format() {
    let (_data, server) = server().await;
    let client = server.connect().await;
    client
        .batch_execute("CREATE TABLE t (id BIGINT PRIMARY KEY, name TEXT, f DOUBLE PRECISION, at TIMESTAMP, d DATE, p NUMERIC(10,2), b BYTEA)")
        .await
        .unwrap();
    client
        .batch_execute(
            "INSERT INTO t VALUES (1, 'plain', 1.5, '2024-02-29 12:34:56.789', '2024-02-29', -12.30, '\\x00ff'), \
             (2, 'quote \" comma , tab\tline\nend\\', NULL, NULL, NULL, NULL, NULL), (3, '', -0.25, '1999-12-31', '1970-01-01', 0.07, '\\x')",
        )
        .await
        .unwrap();
    let all = "SELECT * FROM t";
    let before = rows(&client, all).await;
    for format in ["text", "csv", "binary"] {
        let out = client.copy_out(&format!("COPY t TO STDOUT WITH (FORMAT {format})")).await.unwrap();
        let data: Vec<Bytes> = out.try_collect().await.unwrap();
        client.batch_execute("DELETE FROM t").await.unwrap();
        let sink =
            client.copy_in::<_, Bytes>(&format!("COPY t FROM STDIN WITH (FORMAT {format})")).await.unwrap();
        let mut sink = std::pin::pin!(sink);
        // Pieces of any size.
        for piece in data.concat().chunks(7) {
            sink.send(Bytes::copy_from_slice(piece)).await.unwrap();
        }
        assert_eq!(sink.as_mut().finish().await.unwrap(), 3, "{format}");
        assert_eq!(rows(&client, all).await, before, "{format}");
    }
    let sink = client.copy_in::<_, Bytes>("COPY t (id, name) FROM STDIN").await.unwrap();
    let mut sink = std::pin::pin!(sink);
    sink.send(Bytes::from("10\tten\nbad\televen\n")).await.unwrap();
    let error = sink.as_mut().finish().await.unwrap_err();
    assert_eq!(error.code(), Some(&SqlState::INVALID_TEXT_REPRESENTATION));
    assert!(error.as_db_error().unwrap().detail().unwrap().contains("line 2"));
    assert_eq!(rows(&client, all).await, before, "a COPY that fails leaves nothing");
}

#[tokio::test]
async fn hostile_statements_are_errors() {
    let (_data, server) = server().await;
    let client = server.connect().await;
    let deep = format!("SELECT {}1{}", "(".repeat(100_000), ")".repeat(100_000));
    let flat = format!("SELECT 1{}", " + 1".repeat(20_000));
    let ors = format!("SELECT true{}", " OR true".repeat(20_000));
    let unions = format!("SELECT 1{}", " UNION ALL SELECT 1".repeat(5_000));
    let updates = format!("UPDATE {}", "(".repeat(50_000));
    let long = format!("SELECT '{}'", "x".repeat(20 << 20));
    let codes = ["54001", "42601", "54000"];
    for text in [&deep, &flat, &ors, &unions, &updates, &long] {
        let error = client.batch_execute(text).await.unwrap_err();
        let code = error.code().map(|c| c.code().to_owned()).unwrap_or_default();
        assert!(codes.contains(&code.as_str()), "{}…: {code} {error}", &text[..20]);
        assert_eq!(rows(&client, "SELECT 1").await, ["1"]);
    }
    // As much as the limits allow is planned, not crashed on.
    let allowed = format!("SELECT 1{}", " + 1".repeat(400));
    assert_eq!(rows(&client, &allowed).await, ["401"]);
    let nested = format!("SELECT {}1{}", "(".repeat(60), ")".repeat(60));
    assert_eq!(rows(&client, &nested).await, ["1"]);
}

fn startup() -> Vec<u8> {
    let body = b"\0\x03\0\0user\0millpond\0database\0millpond\0\0";
    let mut packet = u32::try_from(body.len() + 4).unwrap().to_be_bytes().to_vec();
    packet.extend_from_slice(body);
    packet
}

/// Sends bytes and reads until the server closes or has nothing to say.
async fn answer(address: &str, bytes: &[u8]) -> Vec<u8> {
    let mut socket = TcpStream::connect(address).await.unwrap();
    socket.write_all(bytes).await.unwrap();
    let mut out = Vec::new();
    while let Ok(Ok(n)) = tokio::time::timeout(Duration::from_millis(300), socket.read_buf(&mut out)).await {
        if n == 0 {
            break;
        }
    }
    out
}

/// Connections of [`hostile_frames_are_refused`] at a time.
const FRAMES_AT_ONCE: usize = 50;

#[tokio::test]
async fn hostile_frames_are_refused() {
    let (_data, server) = server().await;
    let address = server.url.split('@').nth(1).unwrap().split('/').next().unwrap().to_owned();
    let mut with_session: Vec<Vec<u8>> = vec![
        b"Q\0\0\0\x01".to_vec(),
        b"Q\x3f\xff\xff\xff".to_vec(),
        b"Z\0\0\0\x04".to_vec(),
        b"B\0\0\0\x08\0\0\xff\xff".to_vec(),
        b"d\0\0\0\x00".to_vec(),
        b"\0\0\0\0\0\0\0\0\0".to_vec(),
    ];
    for kind in b"QPBDECSHXdcfp" {
        for length in [0u32, 1, 3, 4, 5, 6, 8, 9, 16, 0x00ff_ffff, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff] {
            for filler in [0, 0xff] {
                let mut frame = vec![*kind];
                frame.extend_from_slice(&length.to_be_bytes());
                frame.extend_from_slice(&[filler; 16]);
                with_session.push(frame);
            }
        }
    }
    let sent = with_session.iter().map(|frame| {
        let bytes = [startup(), frame.clone()].concat();
        let address = address.clone();
        async move { answer(&address, &bytes).await }
    });
    let answers = futures::stream::iter(sent).buffer_unordered(FRAMES_AT_ONCE).count().await;
    assert!(answers > 300, "{answers}");
    let before_session: [&[u8]; 5] = [
        b"\x3f\xff\xff\xff\0\x03\0\0",
        b"\0\0\0\x01",
        b"GET / HTTP/1.1\r\n\r\n",
        // Bytes behind a request for encryption must never be taken for a session's.
        b"\0\0\0\x08\x04\xd2\x16\x2f\0\0\0\x09",
        b"\0\0\0\x10\x04\xd2\x16\x2e\0\0\0\x01\0\0\0\x01",
    ];
    for bytes in before_session {
        let said = answer(&address, bytes).await;
        assert!(!said.windows(5).any(|w| w == b"Z\0\0\0\x05"), "no session for {bytes:?}");
    }
    assert_eq!(rows(&server.connect().await, "SELECT 1").await, ["1"]);
}

#[tokio::test]
async fn strangers_are_turned_away() {
    let (_data, server) = server().await;
    let other = server.url.replace("millpond@", "somebody@");
    let error = harness::connect(&other).await.err().expect("no such role");
    assert_eq!(error.code(), Some(&SqlState::INVALID_AUTHORIZATION_SPECIFICATION));
    let other = format!("{}x", server.url);
    let error = harness::connect(&other).await.err().expect("no such database");
    assert_eq!(error.code(), Some(&SqlState::INVALID_CATALOG_NAME));
    let data = tempfile::tempdir().unwrap();
    let error = Server::start_with(data.path(), &["--listen", "0.0.0.0:0"]).err().expect("refuses");
    assert!(error.contains("refusing to listen"), "{error}");
}

#[tokio::test]
async fn sigterm_drains() {
    let (data, server) = server().await;
    let client = server.connect().await;
    client.batch_execute("CREATE STREAM s (v INT)").await.unwrap();
    let reader = server.connect().await;
    let endless = tokio::spawn(async move { reader.batch_execute("SELECT * FROM s EMIT CHANGES").await });
    for n in 0..50 {
        client.batch_execute(&format!("INSERT INTO s VALUES ({n})")).await.unwrap();
    }
    let started = Instant::now();
    assert_eq!(server.terminate(), Some(0));
    assert!(started.elapsed() < Duration::from_secs(10));
    assert_eq!(endless.await.unwrap().unwrap_err().code(), Some(&SqlState::ADMIN_SHUTDOWN));
    let again = Server::start(data.path());
    assert_eq!(rows(&again.connect().await, "SELECT count(*) FROM s").await, ["50"]);
}

/// A disk without space: the statement fails with its own code, nothing is lost, reads go on.
#[tokio::test]
async fn a_full_disk_refuses_writes_and_keeps_the_rest() {
    let data = tempfile::tempdir().unwrap();
    let mount = |args: &[&str]| {
        std::process::Command::new("mount").args(args).arg(data.path()).status().is_ok_and(|s| s.success())
    };
    if !mount(&["-t", "tmpfs", "-o", "size=8m", "tmpfs"]) {
        println!("no leave to mount: the same is tested with a simulated disk in storage");
        return;
    }
    let server = Server::start(data.path());
    let client = server.connect().await;
    client.batch_execute("CREATE STREAM s (v TEXT)").await.unwrap();
    let big = "x".repeat(200_000);
    let mut written = 0;
    let error = loop {
        match client.batch_execute(&format!("INSERT INTO s VALUES ('{big}')")).await {
            Ok(()) => written += 1,
            Err(error) => break error,
        }
        assert!(written < 100);
    };
    assert_eq!(error.code(), Some(&SqlState::DISK_FULL));
    assert_eq!(rows(&client, "SELECT count(*) FROM s").await, [written.to_string()]);
    drop(server);
    let again = Server::start(data.path());
    assert_eq!(rows(&again.connect().await, "SELECT count(*) FROM s").await, [written.to_string()]);
    drop(again);
    let _ = std::process::Command::new("umount").arg(data.path()).status();
}

#[tokio::test]
async fn what_one_session_was_promised_another_reads() {
    let (_data, server) = server().await;
    let writer = server.connect().await;
    let reader = server.connect().await;
    // A view that takes its time, so that what is written is long acknowledged before it is shown.
    writer
        .batch_execute(
            "CREATE TABLE t (id INT PRIMARY KEY, v INT);
             CREATE MATERIALIZED VIEW slow AS
               SELECT a.id, count(*) AS n FROM t a JOIN t b ON a.v <= b.v JOIN t c ON b.v <= c.v GROUP BY a.id",
        )
        .await
        .unwrap();
    for n in 1..=100 {
        writer.batch_execute(&format!("INSERT INTO t VALUES ({n}, {})", n % 7)).await.unwrap();
        let rows: i64 = reader.query_one("SELECT count(*) FROM t", &[]).await.unwrap().get(0);
        assert_eq!(rows, n, "a read after the acknowledgement");
    }
}

#[tokio::test]
async fn a_new_view_reads_history_beside_the_others() {
    let (_data, server) = server().await;
    let builder = server.connect().await;
    let writer = server.connect().await;
    builder
        .batch_execute(
            "CREATE STREAM s (v BIGINT);
             INSERT INTO s SELECT value FROM generate_series(1, 1000000) AS value",
        )
        .await
        .unwrap();
    let create = builder.batch_execute(
        "CREATE MATERIALIZED VIEW m AS SELECT v % 100000 AS k, count(*) AS n, count(DISTINCT v) AS d
         FROM s GROUP BY v % 100000",
    );
    let mut create = std::pin::pin!(create);
    let (mut written, mut seen_building) = (0, false);
    loop {
        tokio::select! {
            made = &mut create => {
                made.unwrap();
                break;
            }
            () = async {
                writer.batch_execute("INSERT INTO s VALUES (7)").await.unwrap();
                let state = "SELECT rows_total FROM millpond.queries WHERE state = 'backfilling'";
                for row in writer.query(state, &[]).await.unwrap() {
                    assert!(row.get::<_, i64>(0) >= 1_000_000);
                    seen_building = true;
                }
            } => written += 1,
        }
    }
    assert!(seen_building && written > 3, "others went on: {written} writes, building seen: {seen_building}");
    writer.batch_execute("INSERT INTO s VALUES (7); FLUSH").await.unwrap();
    let live = builder.query_one("SELECT sum(n), sum(d) FROM m", &[]).await.unwrap();
    let batch = builder.query_one("SELECT count(*), count(DISTINCT v) FROM s", &[]).await.unwrap();
    assert_eq!(live.get::<_, i64>(0), batch.get::<_, i64>(0));
    assert_eq!(live.get::<_, i64>(1), batch.get::<_, i64>(1));
}

/// A prepared query for one key goes the direct way, and answers what the long way would.
#[tokio::test]
async fn prepared_look_ups_say_what_is_there() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path());
    let client = server.connect().await;
    client
        .batch_execute(
            "CREATE TABLE t (a BIGINT, b TEXT, v TEXT, PRIMARY KEY (b, a));
             CREATE MATERIALIZED VIEW n AS SELECT b, count(*) AS rows FROM t GROUP BY b;
             INSERT INTO t VALUES (1, 'x', 'one'), (2, 'x', 'two'), (1, 'y', NULL)",
        )
        .await
        .unwrap();
    let row = client.prepare("SELECT v, q.a AS key, b FROM t AS q WHERE $1 = b AND q.a = $2").await.unwrap();
    let count = client.prepare("SELECT rows FROM n WHERE b = $1").await.unwrap();
    let found = |b: &'static str, a: i64| {
        let (client, row) = (&client, &row);
        async move {
            let rows = client.query(row, &[&b, &a]).await.unwrap();
            rows.iter().map(|r| (r.get::<_, Option<String>>(0), r.get::<_, i64>(1))).collect::<Vec<_>>()
        }
    };
    assert_eq!(found("x", 2).await, [(Some("two".into()), 2)]);
    assert_eq!(found("y", 1).await, [(None, 1)]);
    assert_eq!(found("z", 1).await, []);
    let nothing = client.query(&row, &[&None::<String>, &1i64]).await.unwrap();
    assert!(nothing.is_empty(), "NULL equals nothing");
    for change in 0..200i64 {
        let text = format!("v{change}");
        client.execute("INSERT INTO t VALUES (2, 'x', $1)", &[&text]).await.unwrap();
        assert_eq!(found("x", 2).await, [(Some(text), 2)], "a session sees its own writes");
        client.execute("INSERT INTO t VALUES ($1, 'z', 'new')", &[&change]).await.unwrap();
        let rows: i64 = client.query_one(&count, &[&"z"]).await.unwrap().get(0);
        assert_eq!(rows, change + 1, "views too");
    }
    client.batch_execute("DELETE FROM t WHERE b = 'x' AND a = 2").await.unwrap();
    assert_eq!(found("x", 2).await, []);
    // In a transaction all statements read one epoch, and its own writes are not there yet.
    client.batch_execute("BEGIN").await.unwrap();
    assert_eq!(found("x", 1).await, [(Some("one".into()), 1)]);
    client.batch_execute("ROLLBACK; DROP TABLE t CASCADE").await.unwrap();
    let gone = client.query(&row, &[&"x", &1i64]).await.unwrap_err();
    assert_eq!(gone.code(), Some(&tokio_postgres::error::SqlState::UNDEFINED_TABLE));
    client.batch_execute("CREATE TABLE t (b TEXT, a BIGINT PRIMARY KEY, v TEXT)").await.unwrap();
    client.batch_execute("INSERT INTO t VALUES ('x', 1, 'other')").await.unwrap();
    assert_eq!(found("x", 1).await, [(Some("other".into()), 1)], "another table of that name");
}

/// NOTIFY, and pg_notify() for values that are computed; a transaction tells when it commits, or never.
#[tokio::test]
async fn who_listens_is_told() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path());
    let (listener, mut connection) =
        tokio_postgres::connect(&server.url, tokio_postgres::NoTls).await.unwrap();
    let (to, mut told) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Some(Ok(message)) = std::future::poll_fn(|context| connection.poll_message(context)).await {
            if let tokio_postgres::AsyncMessage::Notification(n) = message {
                let _ = to.send(format!("{}: {}", n.channel(), n.payload()));
            }
        }
    });
    listener.batch_execute("LISTEN orders").await.unwrap();
    let client = server.connect().await;
    client.batch_execute("NOTIFY orders, 'first'; NOTIFY others, 'nobody hears'").await.unwrap();
    client.execute("SELECT pg_notify($1, $2)", &[&"orders", &"second"]).await.unwrap();
    let many = "SELECT pg_notify('orders', 'row ' || i) FROM generate_series(1, 2) AS s(i)";
    client.batch_execute(&format!("BEGIN; {many}; ROLLBACK; BEGIN; {many}; COMMIT")).await.unwrap();
    let error = client.batch_execute("SELECT pg_notify('', 'x')").await.unwrap_err();
    assert_eq!(error.code().unwrap().code(), "22023");
    let mut heard = Vec::new();
    while heard.len() < 4 {
        let next = tokio::time::timeout(std::time::Duration::from_secs(10), told.recv()).await;
        heard.push(next.expect("it is told").unwrap());
    }
    assert_eq!(heard, ["orders: first", "orders: second", "orders: row 1", "orders: row 2"]);
    assert!(told.try_recv().is_err(), "what was rolled back was told");
}
