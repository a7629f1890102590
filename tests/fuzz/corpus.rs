//! Good input: the statements of `slt/`, sessions of messages, rows as COPY writes them, records.

use std::path::Path;

use futures::TryStreamExt;
use tokio_postgres::Client;

/// Relations that statements can name.
pub const SETUP: [&str; 8] = [
    "SET statement_timeout = 1000",
    "CREATE TABLE typed (id INT PRIMARY KEY, b BOOLEAN, s SMALLINT, l BIGINT, r REAL, d DOUBLE PRECISION, \
     n NUMERIC(10,2), t TEXT, v VARCHAR(5), y BYTEA, day DATE, o TIME, ts TIMESTAMP, tz TIMESTAMPTZ, i INTERVAL, \
     j JSONB, u UUID, a INT[], ta TEXT[])",
    "INSERT INTO typed VALUES (1, true, 2, 3, 1.5, 2.5, 10.25, 'a,b', 'five', '\\x00ff', '2024-02-29', '12:30:00', \
     '2024-02-29 12:30:00.5', '2024-02-29 12:30:00+02', '1 month 2 days', '{\"k\": [1]}', \
     'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '{1,NULL,3}', '{\"x y\",NULL}')",
    "INSERT INTO typed (id) VALUES (2)",
    "CREATE TABLE t (id INT PRIMARY KEY, g TEXT, v INT)",
    "CREATE STREAM s (id INT, g TEXT, v INT)",
    "CREATE MATERIALIZED VIEW m AS SELECT g, count(*) AS n, sum(v) AS v FROM s GROUP BY g",
    "INSERT INTO s VALUES (1, 'a', 1), (2, 'b', NULL), (3, NULL, 3)",
];

/// Formats of records, with good ones.
pub const RECORDS: [(&str, &[&str]); 2] = [
    (
        "json",
        &[
            r#"{"id": 1, "name": "one", "price": 10.25, "at": "2024-02-29T12:30:00", "tags": ["a", null], "place": {"zip": 7}}"#,
            r#"{"id": -9223372036854775808, "name": "\u00e9\ud83d\ude00", "price": "0.01", "at": 1700000000000, "tags": [], "more": {"x": [1]}}"#,
            r#"{"id": 123e-2, "price": 99999999999999999999999999999999999999999999, "at": "not a time", "tags": "none"}"#,
            r#"{"ID": null, "Name": "\"", "tags": null, "place": null}"#,
        ],
    ),
    ("delimited", &["1,one,10.25,2024-02-29T12:30:00", "-5,\"a \"\"b\"\", c\",0.01,1700000000000", ",,,"]),
];

/// Streams over one topic: of bytes, of rows in a format; and a view over the rows.
pub fn record_streams(format: &str) -> [String; 3] {
    let nested = if format == "json" { ", tags TEXT[], place STRUCT<zip INT>" } else { "" };
    [
        format!(
            "CREATE STREAM raw_{format} (v BYTES) WITH (kafka_topic = '{format}', value_format = 'kafka')"
        ),
        format!(
            "CREATE STREAM read_{format} (id BIGINT, name TEXT, price NUMERIC(10,2), at TIMESTAMP{nested}) \
             WITH (kafka_topic = '{format}', value_format = '{format}')"
        ),
        format!("CREATE MATERIALIZED VIEW counted_{format} AS SELECT count(*) AS n FROM read_{format}"),
    ]
}

/// The statements and queries of each `.slt` file, in words with the space behind them.
pub fn statements() -> Vec<Vec<Vec<String>>> {
    let mut out = Vec::new();
    collect(&Path::new(env!("CARGO_MANIFEST_DIR")).join("slt"), &mut out);
    out
}

fn collect(directory: &Path, out: &mut Vec<Vec<Vec<String>>>) {
    let mut paths: Vec<_> = std::fs::read_dir(directory).unwrap().map(|e| e.unwrap().path()).collect();
    paths.sort();
    for path in paths {
        if path.is_dir() {
            collect(&path, out);
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let statement = |part: &str| {
            let statement = part.split_once('\n').map_or("", |(_, statement)| statement);
            words(statement.split("\n----").next().unwrap_or_default())
        };
        // Comments may stand before.
        let lines =
            |part: &str| part.lines().skip_while(|line| line.starts_with('#')).collect::<Vec<_>>().join("\n");
        let parts = text.split("\n\n").map(lines);
        let parts = parts.filter(|part| part.starts_with("statement") || part.starts_with("query"));
        out.push(parts.map(|part| statement(&part)).collect());
    }
}

/// A statement cut before each word and mark; what is cut is the same text again.
fn words(statement: &str) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    let mut last = ' ';
    for c in statement.chars() {
        let goes_on = c.is_alphanumeric() == last.is_alphanumeric() && c.is_alphanumeric();
        match out.last_mut() {
            Some(word) if goes_on || c.is_whitespace() => word.push(c),
            _ => out.push(c.to_string()),
        }
        last = c;
    }
    out
}

/// Statements that reach outside of the server, end it, or lock the test out.
pub fn is_left_out(statement: &str) -> bool {
    let text = statement.to_lowercase();
    ["backup", "role", "user", "alter system"].iter().any(|word| text.contains(word))
}

/// Statements that may have no end, or none in time.
pub fn may_go_on(statement: &str) -> bool {
    let text = statement.to_lowercase();
    ["emit", "subscribe", "copy", "statement_timeout"].iter().any(|word| text.contains(word))
}

/// A table's rows as COPY writes them.
pub async fn copied(client: &Client, format: &str) -> Vec<u8> {
    let rows = client.copy_out(&format!("COPY typed TO STDOUT (FORMAT {format})")).await.unwrap();
    let parts: Vec<bytes::Bytes> = rows.try_collect().await.unwrap();
    parts.concat()
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![kind];
    out.extend_from_slice(&u32::try_from(body.len() + 4).unwrap().to_be_bytes());
    out.extend_from_slice(body);
    out
}

/// Sessions: start-up, and then each way to ask.
pub fn sessions() -> Vec<Vec<u8>> {
    let body = b"\0\x03\0\0user\0millpond\0database\0millpond\0\0";
    let mut startup = u32::try_from(body.len() + 4).unwrap().to_be_bytes().to_vec();
    startup.extend_from_slice(body);
    let end = message(b'X', b"");
    let sync = message(b'S', b"");
    let asked: [Vec<u8>; 5] = [
        [message(b'Q', b"SELECT id, t FROM typed; SELECT 1\0"), message(b'Q', b"SELECT oops\0")].concat(),
        [
            message(b'P', b"a\0SELECT id, g FROM t WHERE id = $1 AND g = $2\0\0\x02\0\0\0\x17\0\0\0\x19"),
            message(b'D', b"Sa\0"),
            message(b'B', b"p\0a\0\0\x02\0\x01\0\0\0\x02\0\0\0\x04\0\0\0\x01\0\0\0\x01a\0\x01\0\x01"),
            message(b'D', b"Pp\0"),
            message(b'E', b"p\0\0\0\0\x01"),
            message(b'C', b"Pp\0"),
            message(b'C', b"Sa\0"),
            message(b'H', b""),
            sync.clone(),
        ]
        .concat(),
        [
            message(
                b'P',
                b"\0INSERT INTO t VALUES ($1, $2, $3) ON CONFLICT (id) DO UPDATE SET v = excluded.v\0\0\0",
            ),
            message(b'B', b"\0\0\0\0\0\x03\0\0\0\x019\0\0\0\x01g\xff\xff\xff\xff\0\0"),
            message(b'E', b"\0\0\0\0\0"),
            sync.clone(),
        ]
        .concat(),
        [
            message(b'Q', b"COPY t FROM STDIN (FORMAT csv)\0"),
            message(b'd', b"7,seven,7\n8,eight,8\n"),
            message(b'c', b""),
            message(b'Q', b"COPY t TO STDOUT (FORMAT binary)\0"),
            message(b'Q', b"COPY t FROM STDIN\0"),
            message(b'f', b"no\0"),
        ]
        .concat(),
        [
            message(b'Q', b"BEGIN\0"),
            message(b'Q', b"DECLARE c CURSOR FOR SELECT * FROM typed\0"),
            message(b'Q', b"FETCH 1 FROM c\0"),
            message(b'P', b"\0SELECT $1::int[], $2::numeric, $3::timestamptz, $4::bytea\0\0\0"),
            message(
                b'B',
                b"\0\0\0\0\0\x04\0\0\0\x05{1,2}\0\0\0\x031.5\0\0\0\x0a2024-02-29\0\0\0\x04\\x00\0\x01\0\x01",
            ),
            message(b'E', b"\0\0\0\0\0"),
            sync,
            message(b'Q', b"COMMIT\0"),
        ]
        .concat(),
    ];
    asked.into_iter().map(|asked| [startup.clone(), asked, end.clone()].concat()).collect()
}
