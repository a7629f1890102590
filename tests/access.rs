//! Who may come in, and what they may do: every role, every statement, every kind of relation.
//!
//! `tls/` holds certificates that were made for this test and protect nothing.

use std::path::PathBuf;
use std::sync::Arc;

use futures::TryStreamExt;
use harness::{Server, connect, rows};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Config, NoTls};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

fn port(server: &Server) -> u16 {
    server.url.rsplit(':').next().unwrap().split('/').next().unwrap().parse().unwrap()
}

fn config(server: &Server, user: &str, password: Option<&str>) -> Config {
    let mut config = Config::new();
    config.host("127.0.0.1").port(port(server)).user(user).dbname("millpond");
    if let Some(password) = password {
        config.password(password);
    }
    config
}

async fn log_in(
    server: &Server,
    user: &str,
    password: Option<&str>,
) -> Result<Client, tokio_postgres::Error> {
    let (client, connection) = config(server, user, password).connect(NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

async fn run(client: &Client, statements: &[&str]) {
    for statement in statements {
        client.batch_execute(statement).await.unwrap_or_else(|e| panic!("{statement}: {e:?}"));
    }
}

fn code(error: &tokio_postgres::Error) -> &str {
    error.code().map_or("", SqlState::code)
}

/// What a statement needs of a relation, in the letters of an access control list; `o` is its owner, `C` the right
/// to make relations.
type Needs = &'static str;

/// Statements about a relation `{}`. None of them changes anything for longer than it runs, whoever may run it.
const STATEMENTS: [(Needs, &str); 16] = [
    ("r", "SELECT * FROM {}"),
    ("r", "SELECT count(*) FROM (SELECT 1 AS one) x LEFT JOIN {} ON true"),
    ("r", "SELECT EXISTS (SELECT * FROM {})"),
    ("r", "EXPLAIN SELECT v FROM {}"),
    ("r", "SELECT v FROM {} EMIT CHANGES LIMIT 1"),
    ("r", "DECLARE c CURSOR WITH HOLD FOR SELECT v FROM {}"),
    ("r", "COPY (SELECT v FROM {}) TO STDOUT"),
    ("r", "EXPLAIN CREATE MATERIALIZED VIEW x AS SELECT v FROM {}"),
    ("rC", "CREATE MATERIALIZED VIEW made AS SELECT v FROM {}; DROP MATERIALIZED VIEW made"),
    ("a", "INSERT INTO {} SELECT * FROM (VALUES (9, 'x')) AS n(id, v) WHERE id < 0"),
    ("rw", "UPDATE {} SET v = 'x' WHERE id < 0"),
    ("rd", "DELETE FROM {} WHERE id < 0"),
    ("ra", "INSERT INTO {} SELECT * FROM {} WHERE id < 0"),
    ("o", "DROP {kind} {}"),
    ("o", "GRANT SELECT ON {} TO ann"),
    ("o", "ALTER TABLE {} OWNER TO ann"),
];

/// Relations of ann's: one that is read, one that rows are written to, one of each kind.
const RELATIONS: [(&str, &str, &str); 4] = [
    ("TABLE", "t", "CREATE TABLE t (id INT PRIMARY KEY, v TEXT)"),
    ("STREAM", "s", "CREATE STREAM s (id INT, v TEXT)"),
    ("MATERIALIZED VIEW", "m", "CREATE MATERIALIZED VIEW m AS SELECT id, v FROM t"),
    ("VIEW", "w", "CREATE VIEW w AS SELECT id, v FROM s"),
];

/// Roles and what they may do with each relation.
const ROLES: [(&str, &str); 9] = [
    ("millpond", "rawdoC"),
    ("ann", "rawdoC"),
    ("reader", "r"),
    ("member", "r"),
    ("writer", "a"),
    ("changer", "rw"),
    ("cleaner", "rd"),
    ("maker", "rC"),
    ("stranger", ""),
];

const GRANTS: [&str; 19] = [
    "CREATE USER ann",
    "CREATE ROLE readers",
    "CREATE USER reader",
    "CREATE USER member IN ROLE readers",
    "CREATE USER writer",
    "CREATE USER changer",
    "CREATE USER cleaner",
    "CREATE USER maker",
    "CREATE USER stranger",
    "GRANT CREATE ON SCHEMA public TO ann, maker",
    "SET ROLE ann",
    "{}",
    "INSERT INTO t VALUES (1, 'a'); INSERT INTO s VALUES (1, 'a')",
    "GRANT SELECT ON t, s, m, w TO reader, readers, maker",
    "GRANT INSERT ON t, s, m, w TO writer",
    "GRANT SELECT, UPDATE ON t, s, m, w TO changer",
    "GRANT ALL ON t, s, m, w TO cleaner",
    "REVOKE INSERT, UPDATE ON t, s, m, w FROM cleaner",
    "RESET ROLE",
];

/// Runs a statement; the SQLSTATE that it was refused with.
async fn refusal(client: &Client, statement: &str) -> Option<String> {
    let result = if statement.starts_with("COPY") {
        match client.copy_out(statement).await {
            Ok(data) => data.try_collect::<Vec<_>>().await.map(|_| ()),
            Err(error) => Err(error),
        }
    } else {
        client.batch_execute(statement).await
    };
    result.err().map(|error| code(&error).to_owned())
}

#[tokio::test]
async fn everybody_may_do_what_was_granted_and_nothing_else() {
    let data = tempfile::tempdir().unwrap();
    let mut server = Server::start(data.path());
    let admin = server.connect().await;
    for statement in GRANTS {
        match statement {
            "{}" => run(&admin, &RELATIONS.map(|(_, _, create)| create)).await,
            statement => run(&admin, &[statement]).await,
        }
    }
    // What everything depends on is not dropped by those who may.
    run(&admin, &["CREATE VIEW held AS SELECT t.v FROM t, s, m, w"]).await;
    let mut cells = 0;
    // The same after a start: what may be done is on disk.
    for _ in 0..2 {
        for (role, may) in ROLES {
            let client = log_in(&server, role, None).await.unwrap();
            for (kind, name, _) in RELATIONS {
                for (needs, statement) in STATEMENTS {
                    let statement = statement.replace("{kind}", kind).replace("{}", name);
                    let allowed = needs.chars().all(|need| may.contains(need));
                    let code = refusal(&client, &statement).await;
                    match code.as_deref() {
                        Some("42501") => assert!(!allowed, "{role}: {statement}: is denied"),
                        // It means nothing for this kind of relation, whoever says it.
                        Some("42809") => {}
                        code => assert!(allowed, "{role}: {statement}: {code:?}"),
                    }
                    let _ = client.batch_execute("CLOSE ALL").await;
                    cells += 1;
                }
            }
        }
        server.kill();
        server = Server::start(data.path());
    }
    assert!(cells >= 2 * 300, "{cells}");
    println!("{cells} cells, no leak");
}

/// Ways to a relation's rows, each of which shows `v`.
const WAYS: [&str; 9] = [
    "SELECT v FROM {}",
    "TABLE {}",
    "SELECT x.v FROM (SELECT * FROM {}) x",
    "WITH x AS (SELECT * FROM {}) SELECT v FROM x",
    "SELECT max(v) FROM {} GROUP BY v",
    "SELECT (SELECT v FROM {} y WHERE y.id = x.id) FROM {} x",
    "SELECT v FROM {} WHERE id = 2",
    "SELECT {} FROM {}",
    "EXPLAIN SELECT v FROM {}",
];

/// Whatever a role asks, and however, it is shown no row that its policies do not show it.
#[tokio::test]
async fn no_way_leads_around_a_policy() {
    let data = tempfile::tempdir().unwrap();
    let mut server = Server::start(data.path());
    let admin = server.connect().await;
    run(&admin, &["CREATE USER ann"]).await;
    for (_, name, create) in RELATIONS {
        run(&admin, &[create]).await;
        let policy = format!("CREATE POLICY p ON {name} FOR SELECT USING (id = 1)");
        let grant = format!("GRANT ALL ON {name} TO ann");
        run(&admin, &[&policy, &grant, &format!("ALTER TABLE {name} ENABLE ROW LEVEL SECURITY")]).await;
    }
    for name in ["t", "s"] {
        run(&admin, &[&format!("INSERT INTO {name} VALUES (1, 'shown'), (2, 'hidden')")]).await;
    }
    for _ in 0..2 {
        let client = log_in(&server, "ann", None).await.unwrap();
        for (_, name, _) in RELATIONS {
            for way in WAYS {
                let said = rows(&client, &way.replace("{}", name)).await.join(" ");
                assert!(!said.contains("hidden"), "{way} of {name}: {said}");
                let shows = !way.contains("id = 2") && !way.starts_with("EXPLAIN");
                assert_eq!(said.contains("shown"), shows, "{way} of {name}: {said}");
            }
            for copy in ["COPY {} TO STDOUT", "COPY (SELECT v FROM {}) TO STDOUT"] {
                let data = client.copy_out(&copy.replace("{}", name)).await.unwrap();
                let data = data.try_collect::<Vec<_>>().await.unwrap().concat();
                assert_eq!(String::from_utf8_lossy(&data).matches("shown").count(), 1, "{copy} of {name}");
                assert!(!String::from_utf8_lossy(&data).contains("hidden"), "{copy} of {name}");
            }
            let pushed = format!("SELECT v FROM {name} EMIT CHANGES LIMIT 1");
            assert_eq!(rows(&client, &pushed).await, ["shown"]);
            let look_up = client.prepare(&format!("SELECT v FROM {name} WHERE id = $1")).await.unwrap();
            assert_eq!(client.query(&look_up, &[&1]).await.unwrap().len(), 1);
            assert!(client.query(&look_up, &[&2]).await.unwrap().is_empty());
            let writes = [
                format!("INSERT INTO {name} VALUES (3, 'x')"),
                format!("DELETE FROM {name}"),
                format!("UPDATE {name} SET v = 'x' RETURNING v"),
                format!("CREATE MATERIALIZED VIEW x AS SELECT v FROM {name}"),
                format!("CREATE VIEW x AS SELECT v FROM {name}"),
                format!("CREATE POLICY q ON {name} FOR SELECT USING (true)"),
                format!("ALTER TABLE {name} DISABLE ROW LEVEL SECURITY"),
                format!("DROP POLICY p ON {name}"),
            ];
            for write in writes {
                let code = refusal(&client, &write).await;
                assert!(matches!(code.as_deref(), Some("42501" | "42809")), "{write}: {code:?}");
            }
        }
        server.kill();
        server = Server::start(data.path());
    }
}

#[tokio::test]
async fn roles_are_kept_by_those_who_may() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path());
    let admin = server.connect().await;
    run(
        &admin,
        &[
            "CREATE ROLE team",
            "CREATE USER ann IN ROLE team",
            "CREATE USER boss CREATEROLE",
            "GRANT CREATE ON SCHEMA public TO team",
            "ALTER DEFAULT PRIVILEGES FOR ROLE ann GRANT SELECT ON TABLES TO PUBLIC",
            "CREATE TABLE secret (id INT PRIMARY KEY)",
            "CREATE STREAM topics (v TEXT) WITH (kafka_topic = 'payments', value_format = 'kafka')",
        ],
    )
    .await;
    let ann = log_in(&server, "ann", None).await.unwrap();
    run(&ann, &["CREATE TABLE mine (id INT PRIMARY KEY)", "INSERT INTO mine VALUES (1)"]).await;
    let refused: [(&Client, &str, &str); 9] = [
        (&ann, "CREATE USER eve", "42501"),
        (&ann, "ALTER USER ann SUPERUSER", "42501"),
        (&ann, "DROP USER boss", "42501"),
        (&ann, "GRANT SELECT ON secret TO ann", "42501"),
        (&ann, "SET ROLE millpond", "42501"),
        (&ann, "SELECT pg_terminate_backend(1)", "42501"),
        // A topic is all the relations on it.
        (&ann, "CREATE STREAM raw (v TEXT) WITH (kafka_topic = 'payments', value_format = 'kafka')", "42501"),
        (&admin, "DROP ROLE ann", "2BP01"),
        (&admin, "GRANT SELECT ON mine TO nobody", "42704"),
    ];
    for (client, statement, expected) in refused {
        let error = client.batch_execute(statement).await.expect_err(statement);
        assert_eq!(code(&error), expected, "{statement}: {error:?}");
    }
    let boss = log_in(&server, "boss", None).await.unwrap();
    run(&boss, &["CREATE USER eve", "DROP USER eve"]).await;
    for statement in
        ["CREATE USER eve SUPERUSER", "ALTER USER millpond PASSWORD 'x'", "GRANT millpond TO boss"]
    {
        assert_eq!(code(&boss.batch_execute(statement).await.expect_err(statement)), "42501", "{statement}");
    }
    assert_eq!(rows(&boss, "SELECT * FROM mine").await, ["1"], "by default everybody reads what ann makes");
    let who = "SELECT current_user, session_user, has_table_privilege('secret', 'SELECT'), \
               has_table_privilege('mine', 'INSERT'), pg_get_userbyid(relowner) FROM pg_class WHERE relname = 'mine'";
    assert_eq!(rows(&ann, who).await, ["ann|ann|f|t|ann"]);
    run(&ann, &["SET ROLE team"]).await;
    assert_eq!(rows(&ann, "SELECT current_user, session_user").await, ["team|ann"]);
    let denied = refusal(&ann, "INSERT INTO mine VALUES (2)").await;
    assert_eq!(denied.as_deref(), Some("42501"), "the team owns nothing");
    run(&ann, &["RESET ROLE", "INSERT INTO mine VALUES (2)"]).await;
    run(&admin, &["ALTER TABLE mine OWNER TO millpond", "REVOKE team FROM ann", "DROP ROLE ann"]).await;
    assert_eq!(code(&log_in(&server, "ann", None).await.err().unwrap()), "28000");
    assert_eq!(
        rows(&admin, "SELECT rolname, rolsuper, rolcanlogin FROM pg_roles").await,
        ["boss|f|t", "millpond|t|t", "team|f|f"]
    );
}

/// Every file below a directory.
fn files(directory: &std::path::Path, all: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files(&path, all) } else { all.push(path) }
    }
}

#[tokio::test]
async fn a_password_is_proved_and_never_told() {
    let data = tempfile::tempdir().unwrap();
    let mut server = Server::start_with(data.path(), &["--log", "debug"]).unwrap();
    let admin = server.connect().await;
    run(&admin, &["CREATE USER ann PASSWORD 'open sesame'", "CREATE ROLE team PASSWORD 'open sesame'"]).await;
    let shown = "SELECT query FROM pg_stat_activity UNION ALL SELECT rolpassword FROM pg_authid";
    let shown = rows(&admin, shown).await.join(" ");
    assert!(!shown.contains("sesame") && !shown.contains("SCRAM"), "{shown}");
    for _ in 0..2 {
        assert!(log_in(&server, "ann", Some("open sesame")).await.is_ok());
        let wrong = log_in(&server, "ann", Some("close sesame")).await.err().unwrap();
        assert_eq!(code(&wrong), "28P01", "{wrong:?}");
        assert!(log_in(&server, "ann", None).await.is_err());
        assert_eq!(code(&log_in(&server, "team", Some("open sesame")).await.err().unwrap()), "28000");
        server.kill();
        server = Server::start(data.path());
    }
    // Whoever has one changes it; whoever keeps it elsewhere brings its verifier.
    let ann = log_in(&server, "ann", Some("open sesame")).await.unwrap();
    run(&ann, &["ALTER USER ann PASSWORD 'another'"]).await;
    assert!(log_in(&server, "ann", Some("open sesame")).await.is_err());
    assert!(log_in(&server, "ann", Some("another")).await.is_ok());
    let mut all = Vec::new();
    files(data.path(), &mut all);
    for file in all {
        let bytes = std::fs::read(&file).unwrap();
        let told =
            [&b"sesame"[..], b"another"].iter().any(|word| bytes.windows(word.len()).any(|w| w == *word));
        assert!(!told, "{} tells a password", file.display());
    }
}

/// What an unknown peer says where its proof is expected is answered by an error, and the end.
#[tokio::test]
async fn nothing_is_done_before_the_proof() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path());
    let admin = server.connect().await;
    run(&admin, &["CREATE USER ann PASSWORD 'secret'", "CREATE STREAM s (v INT)"]).await;
    let query = [&b"Q\0\0\0\x1dINSERT INTO s VALUES (1)\0"[..]].concat();
    let large = [&b"p\x40\0\0\0"[..], &[0; 64]].concat();
    let parse = b"P\0\0\0\x10\0SELECT 1\0\0\0".to_vec();
    let garbage = b"p\0\0\0\x0cSCRAM-SH".to_vec();
    let other_method = b"p\0\0\0\x14PLAIN\0\0\0\0\x06abcdef".to_vec();
    for message in [query, large, parse, garbage, other_method] {
        let mut socket = TcpStream::connect(("127.0.0.1", port(&server))).await.unwrap();
        let body = b"\0\x03\0\0user\0ann\0database\0millpond\0\0";
        let length = u32::try_from(body.len() + 4).unwrap().to_be_bytes();
        socket.write_all(&[&length[..], body].concat()).await.unwrap();
        let mut first = [0; 9];
        socket.read_exact(&mut first).await.unwrap();
        assert_eq!((first[0], &first[5..]), (b'R', &10u32.to_be_bytes()[..]), "SASL is asked for");
        socket.write_all(&message).await.unwrap();
        let mut rest = Vec::new();
        // It may be reset, as not all was read.
        let _ = socket.read_to_end(&mut rest).await;
        let rest = String::from_utf8_lossy(&rest).into_owned();
        assert!(rest.contains("08P01") || rest.contains("28P01"), "{rest:?}");
    }
    assert_eq!(rows(&admin, "SELECT count(*) FROM s").await, ["0"]);
}

fn file(name: &str) -> String {
    format!("{}/tls/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// A client over TLS, with a certificate of its own or without.
async fn over_tls(
    server: &Server,
    user: &str,
    password: Option<&str>,
    certificate: bool,
) -> Result<Client, String> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(file("ca.pem")).unwrap()).unwrap();
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let builder = builder.with_root_certificates(roots);
    let tls = match certificate {
        false => builder.with_no_client_auth(),
        true => {
            let chain = vec![CertificateDer::from_pem_file(file("client.pem")).unwrap()];
            let key = PrivateKeyDer::from_pem_file(file("client.key")).unwrap();
            builder.with_client_auth_cert(chain, key).unwrap()
        }
    };
    let mut socket = TcpStream::connect(("127.0.0.1", port(server))).await.map_err(|e| e.to_string())?;
    socket.write_all(&[0, 0, 0, 8, 4, 210, 22, 47]).await.unwrap();
    assert_eq!(socket.read_u8().await.unwrap(), b'S');
    let name = ServerName::try_from("localhost").unwrap();
    let stream = TlsConnector::from(Arc::new(tls)).connect(name, socket).await.map_err(|e| e.to_string())?;
    let connected = config(server, user, password).connect_raw(stream, NoTls).await;
    let (client, connection) = connected.map_err(|e| format!("{} {e:?}", code(&e)))?;
    tokio::spawn(connection);
    Ok(client)
}

#[tokio::test]
async fn connections_are_encrypted() {
    let data = tempfile::tempdir().unwrap();
    let (cert, key, ca) = (file("server.pem"), file("server.key"), file("ca.pem"));
    let tls = ["--tls-cert", &cert, "--tls-key", &key];
    let mut server = Server::start_with(data.path(), &tls).unwrap();
    run(&server.connect().await, &["CREATE USER ann PASSWORD 'secret'", "CREATE STREAM s (v INT)"]).await;
    let ann = over_tls(&server, "ann", Some("secret"), false).await.unwrap();
    assert_eq!(rows(&ann, "SELECT current_user").await, ["ann"]);
    let error = over_tls(&server, "ann", Some("wrong"), false).await.err().unwrap();
    assert!(error.starts_with("28P01"), "{error}");
    server.kill();
    // With a list of those who sign clients' certificates a client needs one.
    let both = [&tls[..], &["--tls-client-ca", &ca]].concat();
    let server = Server::start_with(data.path(), &both).unwrap();
    let ann = over_tls(&server, "ann", Some("secret"), true).await.unwrap();
    assert_eq!(rows(&ann, "SELECT 1").await, ["1"]);
    assert!(over_tls(&server, "ann", Some("secret"), false).await.is_err());
}

#[tokio::test]
async fn other_machines_are_let_in_by_password_and_encrypted_only() {
    let data = tempfile::tempdir().unwrap();
    let everywhere = ["--listen", "0.0.0.0:0"];
    let refused = Server::start_with(data.path(), &everywhere).err().expect("it refuses");
    assert!(refused.contains("without encryption"), "{refused}");
    let (cert, key) = (file("server.pem"), file("server.key"));
    let tls = ["--tls-cert", &cert, "--tls-key", &key];
    let open = [&everywhere[..], &tls].concat();
    let refused = Server::start_with(data.path(), &open).err().expect("it refuses");
    assert!(refused.contains("no role has a password"), "{refused}");
    let refused = Server::start_with(data.path(), &["--tls-cert", &cert, "--tls-key", &cert]).err();
    assert!(refused.is_some_and(|e| e.contains("could not use")), "a key that is none");
    let mut server = Server::start(data.path());
    run(&server.connect().await, &["ALTER ROLE millpond PASSWORD 'secret'"]).await;
    server.kill();
    let server = Server::start_with(data.path(), &open).unwrap();
    assert!(connect(&server.url.replace("0.0.0.0", "127.0.0.1")).await.is_err(), "a password is set");
    assert!(over_tls(&server, "millpond", Some("secret"), false).await.is_ok());
    assert!(log_in(&server, "millpond", Some("secret")).await.is_ok(), "from here it need not be encrypted");
}
