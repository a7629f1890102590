//! The socket: accepts clients, within limits.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};

use super::WireError;
use super::connection::{Registry, handle, refuse};
use super::entry::Door;
use crate::http::ACCEPT_AGAIN;
use crate::session::Shared;

/// A client that answers nothing for this long has gone.
const LOST: Duration = Duration::from_secs(4);

/// A bound socket.
pub struct Listener {
    socket: TcpListener,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Listener {
    /// Binds a socket.
    ///
    /// # Errors
    /// What the system says.
    pub async fn bind(address: SocketAddr) -> std::io::Result<Self> {
        let socket = TcpListener::bind(address).await?;
        let address = socket.local_addr()?;
        Ok(Self { socket, address })
    }
}

/// Serves clients until `stop` says so.
pub async fn serve(
    listener: Listener,
    shared: Arc<Shared>,
    registry: Arc<Registry>,
    door: Arc<Door>,
    most: usize,
    mut stop: watch::Receiver<bool>,
) {
    let slots = Arc::new(Semaphore::new(most));
    loop {
        let accepted = tokio::select! {
            accepted = listener.socket.accept() => accepted,
            _ = stop.wait_for(|stop| *stop) => return,
        };
        match accepted {
            Ok((socket, _)) => accept(socket, &slots, &shared, &registry, &door),
            Err(error) => {
                tracing::warn!(%error, "could not accept a connection");
                tokio::time::sleep(ACCEPT_AGAIN).await;
            }
        }
    }
}

fn accept(
    mut socket: TcpStream,
    slots: &Arc<Semaphore>,
    shared: &Arc<Shared>,
    registry: &Arc<Registry>,
    door: &Arc<Door>,
) {
    if let Err(error) = tune(&socket) {
        tracing::debug!(%error, "could not tune a socket");
    }
    let slot = Arc::clone(slots).try_acquire_owned();
    let peer = socket.peer_addr().ok().map(|address| address.ip());
    let (shared, registry, door) = (Arc::clone(shared), Arc::clone(registry), Arc::clone(door));
    tokio::spawn(async move {
        match slot {
            Ok(slot) => {
                handle(socket, shared, registry, &door, peer).await;
                drop(slot);
            }
            Err(_) => {
                let error = WireError::new("53300", "sorry, too many clients already").fatal();
                refuse(&mut socket, error).await;
            }
        }
    });
}

fn tune(socket: &TcpStream) -> std::io::Result<()> {
    socket.set_nodelay(true)?;
    let socket = SockRef::from(socket);
    let keepalive = TcpKeepalive::new().with_time(LOST / 2).with_interval(LOST / 4).with_retries(2);
    socket.set_tcp_keepalive(&keepalive)?;
    socket.set_tcp_user_timeout(Some(LOST))
}
