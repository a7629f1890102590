//! /healthz, /readyz and /metrics: three GETs, nothing else.

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use executor::Engine;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::pg::Registry;

/// Longest request.
const REQUEST_BYTES: usize = 8 << 10;
const LIMIT: Duration = Duration::from_secs(5);
/// Without descriptors there are no clients: time for others to close some.
pub(crate) const ACCEPT_AGAIN: Duration = Duration::from_millis(50);

pub(crate) async fn serve(
    socket: TcpListener,
    engine: Arc<Engine>,
    registry: Arc<Registry>,
    mut stop: watch::Receiver<bool>,
) {
    loop {
        let accepted = tokio::select! {
            accepted = socket.accept() => accepted,
            _ = stop.wait_for(|stop| *stop) => return,
        };
        let Ok((client, _)) = accepted else {
            tokio::time::sleep(ACCEPT_AGAIN).await;
            continue;
        };
        let (engine, registry) = (Arc::clone(&engine), Arc::clone(&registry));
        tokio::spawn(async move {
            // A client that is slow or gone costs only itself.
            let _ = tokio::time::timeout(LIMIT, answer(client, &engine, &registry)).await;
        });
    }
}

async fn answer(mut client: TcpStream, engine: &Engine, registry: &Registry) -> std::io::Result<()> {
    let mut request = Vec::new();
    while !request.windows(4).any(|w| w == b"\r\n\r\n") {
        if request.len() > REQUEST_BYTES || client.read_buf(&mut request).await? == 0 {
            break;
        }
    }
    let line = String::from_utf8_lossy(&request);
    let path = line.split_whitespace().nth(1).unwrap_or("/");
    let (status, body) = match path {
        "/healthz" | "/readyz" => ("200 OK", "ok\n".to_owned()),
        "/metrics" => ("200 OK", metrics(engine, registry)),
        _ => ("404 Not Found", "there are /healthz, /readyz and /metrics\n".to_owned()),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: text/plain; version=0.0.4\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    client.write_all(head.as_bytes()).await?;
    client.write_all(body.as_bytes()).await
}

/// Prometheus' text format.
fn metrics(engine: &Engine, registry: &Registry) -> String {
    let snapshot = engine.snapshot();
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = writeln!(out, "# TYPE millpond_epoch counter\nmillpond_epoch {}", snapshot.epoch);
    let _ = writeln!(out, "# TYPE millpond_sessions gauge\nmillpond_sessions {}", registry.len());
    let _ = writeln!(
        out,
        "# TYPE millpond_rejected_rows counter\nmillpond_rejected_rows {}",
        engine.rejects().count()
    );
    let mut queries: Vec<_> =
        snapshot.catalog.iter().filter_map(|r| Some((r, snapshot.query(r.id)?))).collect();
    queries.sort_by_key(|(r, _)| r.id);
    for (name, kind) in [
        ("rows_in", "counter"),
        ("rows_out", "counter"),
        ("busy_us", "counter"),
        ("state_bytes", "gauge"),
        ("failed", "gauge"),
    ] {
        if queries.is_empty() {
            break;
        }
        let _ = writeln!(out, "# TYPE millpond_query_{name} {kind}");
        for (relation, status) in &queries {
            let value = match name {
                "rows_in" => status.rows_in,
                "rows_out" => status.rows_out,
                "busy_us" => status.busy_us,
                "state_bytes" => status.state_bytes as u64,
                _ => u64::from(status.error.is_some()),
            };
            let _ = writeln!(
                out,
                "millpond_query_{name}{{relation=\"{}\"}} {value}",
                relation.name.replace(['"', '\\', '\n'], "_")
            );
        }
    }
    out
}
