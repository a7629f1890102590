//! A client of our own server, over the wire, for the demo and the benchmark.

use tokio_postgres::{Client, NoTls};

pub(super) type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Connects; the connection runs in a task of its own.
pub(super) async fn connect(url: &str) -> Result<Client> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a client's connection ended");
        }
    });
    Ok(client)
}
