//! `millpond backup [URL] DIR` and `millpond restore BACKUP DIR`.
//!
//! A backup is the running server's work (BACKUP TO); this asks it. A backup is a data directory that no server
//! has opened yet: `restore` verifies it and copies it, so that it stays as it is.

use std::path::Path;
use std::sync::Arc;

use storage::{Disk, Fs};
use tokio_postgres::SimpleQueryMessage;

use super::check;
use super::client::{Result, connect};
use crate::config::LISTEN;

/// Has a running server copy its data directory, and says what is in the copy.
///
/// # Errors
/// What the server says; nobody there.
pub async fn backup(args: &[String]) -> Result<String> {
    let (url, directory) = match args {
        [directory] => (format!("postgres://millpond@{LISTEN}/millpond"), directory),
        [url, directory] => (url.clone(), directory),
        _ => return Err("give a directory: millpond backup [postgres://USER@HOST:PORT/millpond] DIR".into()),
    };
    let target = std::path::absolute(directory)?.display().to_string();
    let statement = format!("BACKUP TO '{}'", target.replace('\'', "''"));
    let said = connect(&url).await?.simple_query(&statement).await;
    let said = said.map_err(|error| match error.as_db_error() {
        Some(db) => db.message().into(),
        None => Box::<dyn std::error::Error>::from(error),
    })?;
    let row = said.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some([0, 1, 2].map(|column| row.get(column).unwrap_or_default())),
        _ => None,
    });
    let [epoch, files, bytes] = row.unwrap_or_default();
    Ok(format!("\"{target}\": epoch {epoch}, {files} files, {bytes} bytes"))
}

/// Makes a data directory of a backup, and reports what is in it.
///
/// # Errors
/// A backup that is damaged, a directory that is not empty.
pub fn restore(args: &[String]) -> Result<String> {
    let [copy, directory] = args else {
        return Err("give two directories: millpond restore BACKUP DIR".into());
    };
    let fs: Arc<dyn Fs> = Arc::new(Disk);
    if fs.list(Path::new(copy))?.is_empty() {
        return Err(format!("\"{copy}\" is no backup").into());
    }
    let (report, _) = storage::backup::restore(&fs, Path::new(copy), Path::new(directory))?;
    Ok(check::text(&report))
}
