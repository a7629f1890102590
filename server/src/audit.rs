//! Who came in, and who changed what there is: events of the target `audit`, for `--log warn,audit=info`.
//!
//! Invariant: an event tells no password and no row.

use std::net::IpAddr;

use crate::pg::WireError;
use crate::session::Session;

/// A client came in, or did not.
pub(crate) fn connection(user: &str, peer: Option<IpAddr>, encrypted: bool, refused: Option<&WireError>) {
    let peer = peer.map(|peer| peer.to_string()).unwrap_or_default();
    match refused {
        None => tracing::info!(target: "audit", user, peer, encrypted, "connected"),
        Some(error) => {
            tracing::warn!(target: "audit", user, peer, encrypted, error = %error.message, "refused")
        }
    }
}

/// A statement that changes what there is was run.
pub(crate) fn statement(session: &Session, text: &str, failed: Option<&WireError>) {
    let (user, role, pid) = (session.user(), session.role(), session.pid);
    match failed {
        None => tracing::info!(target: "audit", user, role, pid, statement = text, "done"),
        Some(error) => {
            tracing::info!(target: "audit", user, role, pid, statement = text, error = %error.message, "failed");
        }
    }
}

/// What a session runs was cancelled by whoever has its key.
pub(crate) fn cancel(pid: i32) {
    tracing::info!(target: "audit", pid, "cancel");
}
