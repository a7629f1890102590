//! The README's walk: every statement in it works as printed.

use harness::Server;
use tokio_postgres::SimpleQueryMessage;

#[tokio::test]
async fn every_statement_works() {
    let readme = include_str!("../README.md");
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path());
    let client = server.connect().await;
    let (mut statements, mut rows) = (0, 0);
    for block in readme.split("```sql\n").skip(1).filter_map(|rest| rest.split("```").next()) {
        // psql's own commands are psql's; a push query has no end.
        let sql: String = block.lines().filter(|l| !l.starts_with('\\')).map(|l| format!("{l}\n")).collect();
        if sql.contains("EMIT CHANGES) TO STDOUT") {
            continue;
        }
        for message in client.simple_query(&sql).await.unwrap_or_else(|e| panic!("{e:?} in:\n{sql}")) {
            match message {
                SimpleQueryMessage::CommandComplete(_) => statements += 1,
                SimpleQueryMessage::Row(_) => rows += 1,
                _ => {}
            }
        }
    }
    assert!(statements >= 24 && rows > 25, "{statements} statements gave {rows} rows");
}
