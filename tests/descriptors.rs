//! A log of any length takes one descriptor a partition: it may grow for years under any limit of open files.

use std::fs::{read_dir, read_to_string};

use harness::{Server, rows};

/// A segment is full after one row.
const FLAGS: [&str; 2] = ["--segment-bytes", "512"];
const SEGMENTS: usize = 300;
/// Sockets, the runtime's and those of a read in progress may come and go.
const PASSING: usize = 16;

fn open_files(server: &Server) -> usize {
    read_dir(format!("/proc/{}/fd", server.pid())).unwrap().count()
}

fn segments(data: &std::path::Path) -> usize {
    let files = |path| read_dir(path).unwrap().map(|entry| entry.unwrap().path());
    let partitions = files(data.join("topics")).flat_map(files).flat_map(files);
    partitions.filter(|path| path.extension().is_some_and(|extension| extension == "seg")).count()
}

#[tokio::test]
async fn a_long_log_takes_no_more_descriptors_than_a_short_one() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start_with(data.path(), &FLAGS).unwrap();
    let client = server.connect().await;
    client.batch_execute("CREATE STREAM s (id INT, filler TEXT)").await.unwrap();
    let before = open_files(&server);
    for id in 0..SEGMENTS {
        let insert = format!("INSERT INTO s VALUES ({id}, repeat('x', 1000))");
        client.batch_execute(&insert).await.unwrap();
    }
    assert!(segments(data.path()) >= SEGMENTS);
    let all = [format!("{SEGMENTS}|{}", SEGMENTS * (SEGMENTS - 1) / 2)];
    assert_eq!(rows(&client, "SELECT count(*), sum(id) FROM s").await, all);
    let after = open_files(&server);
    assert!(after < before + PASSING, "{before} open files, {after} after {SEGMENTS} segments");
    assert_eq!(server.terminate(), Some(0));

    let server = Server::start_with(data.path(), &FLAGS).unwrap();
    let client = server.connect().await;
    assert_eq!(rows(&client, "SELECT count(*), sum(id) FROM s").await, all);
    let again = open_files(&server);
    assert!(again < before + PASSING, "{before} open files, {again} after a start over {SEGMENTS} segments");
}

#[tokio::test]
async fn the_server_opens_as_many_files_as_the_system_allows() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path());
    let limits = read_to_string(format!("/proc/{}/limits", server.pid())).unwrap();
    let open = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let [soft, hard, ..] = open.split_whitespace().skip(3).collect::<Vec<_>>()[..] else { panic!("{open}") };
    assert_eq!(soft, hard);
}
