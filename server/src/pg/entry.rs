//! The way in: encryption, the startup packet, and who the client is.
//!
//! Invariant: nothing of a client's but its startup packet and its proof is read before it has proved who it is,
//! and nothing longer than a few kilobytes. On this machine a role without a password needs none; from another
//! machine a password and encryption are needed, unless the server was told to be insecure.
//! Source: PostgreSQL, "Start-up", "SSL Session Encryption".

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use pgwire::messages::PgWireFrontendMessage as Frontend;
use pgwire::messages::cancel::CancelRequest;
use planner::{Access, Role};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use super::WireError;
use super::connection::refuse;
use super::frames::{FirstPacket, FrameReader};
use super::scram::authenticate;
use super::tls::Tls;
use crate::audit;
use crate::session::Shared;

/// Time for a client to say who it is.
const PATIENCE: Duration = Duration::from_secs(10);

/// Bytes from a client.
pub(super) type In = Box<dyn AsyncRead + Send + Unpin>;
/// Bytes to a client.
pub(super) type Out = Box<dyn AsyncWrite + Send + Unpin>;

/// Who is let in, and how.
#[derive(Clone, Default)]
pub struct Door {
    /// What encrypts connections.
    pub tls: Option<Tls>,
    /// Other machines need neither encryption nor, without one of the role's, a password.
    pub insecure: bool,
}

/// A client that may come in.
pub(super) struct Guest {
    pub(super) reader: FrameReader<In>,
    pub(super) out: Out,
    pub(super) parameters: BTreeMap<String, String>,
    pub(super) user: String,
}

/// What a client came for.
pub(super) enum Arrival {
    Session(Box<Guest>),
    Cancel(CancelRequest),
}

/// A client before it has said who it is.
struct Stranger {
    reader: FrameReader<In>,
    out: Out,
    encrypted: bool,
}

/// Lets a client in, or tells it why not.
pub(super) async fn enter(
    socket: TcpStream,
    door: &Door,
    shared: &Shared,
    peer: Option<IpAddr>,
) -> Option<Arrival> {
    let deadline = Instant::now() + PATIENCE;
    let (mut stranger, first) = match timeout_at(deadline, open(socket, door)).await {
        Ok(Ok(opened)) => opened,
        // It was told, or is gone.
        Ok(Err(())) | Err(_) => return None,
    };
    let startup = match first {
        Frontend::Startup(startup) => startup,
        Frontend::CancelRequest(cancel) => return Some(Arrival::Cancel(cancel)),
        _ => return None,
    };
    let user = startup.parameters.get("user").cloned().unwrap_or_default();
    let database = startup.parameters.get("database").unwrap_or(&user).clone();
    let catalog = shared.engine.catalog();
    let known = timeout_at(deadline, stranger.prove(door, &user, catalog.access(), peer)).await;
    let known =
        known.unwrap_or_else(|_| Err(WireError::new("08006", "authentication took too long").fatal()));
    let allowed = known.and_then(|()| check(&user, &database, catalog.access().role(&user)));
    audit::connection(&user, peer, stranger.encrypted, allowed.as_ref().err());
    if let Err(error) = allowed {
        refuse(&mut stranger.out, error).await;
        return None;
    }
    let Stranger { mut reader, out, .. } = stranger;
    reader.open_session();
    Some(Arrival::Session(Box::new(Guest { reader, out, parameters: startup.parameters, user })))
}

/// The first packet that asks for something else than encryption, after that if it is asked for and there.
async fn open(socket: TcpStream, door: &Door) -> Result<(Stranger, Frontend), ()> {
    let (read, mut write) = socket.into_split();
    let mut reader = FrameReader::new(read);
    loop {
        match reader.startup().await {
            Ok(FirstPacket::Message(message)) => {
                let stranger = Stranger { reader: reader.boxed(), out: Box::new(write), encrypted: false };
                return Ok((stranger, message));
            }
            Ok(FirstPacket::Tls) if door.tls.is_some() => {
                write.write_all(b"S").await.map_err(|_| ())?;
                let socket = reader.into_socket().reunite(write).map_err(|_| ())?;
                return encrypted(socket, door).await;
            }
            // The client decides whether to go on without.
            Ok(FirstPacket::Tls | FirstPacket::Gss) => write.write_all(b"N").await.map_err(|_| ())?,
            Err(error) => {
                refuse(&mut write, error).await;
                return Err(());
            }
        }
    }
}

async fn encrypted(socket: TcpStream, door: &Door) -> Result<(Stranger, Frontend), ()> {
    let Some(tls) = &door.tls else { return Err(()) };
    let stream = tls.acceptor.accept(socket).await.map_err(|error| {
        tracing::info!(%error, "a client could not be spoken to by TLS");
    })?;
    let (read, mut write) = tokio::io::split(stream);
    let mut reader = FrameReader::new(read);
    match reader.startup().await {
        Ok(FirstPacket::Message(message)) => {
            let stranger = Stranger { reader: reader.boxed(), out: Box::new(write), encrypted: true };
            Ok((stranger, message))
        }
        Ok(_) => {
            refuse(&mut write, WireError::new("08P01", "the connection is encrypted already").fatal()).await;
            Err(())
        }
        Err(error) => {
            refuse(&mut write, error).await;
            Err(())
        }
    }
}

impl Stranger {
    /// Lets a client prove who it is, where it must.
    async fn prove(
        &mut self,
        door: &Door,
        user: &str,
        access: &Access,
        peer: Option<IpAddr>,
    ) -> Result<(), WireError> {
        let here = peer.is_some_and(|peer| peer.to_canonical().is_loopback());
        if !(here || door.insecure || self.encrypted) {
            let message = "connections from other machines must be encrypted";
            return Err(WireError::new("28000", message).hint("Connect with sslmode=require.").fatal());
        }
        let role = access.role(user);
        if (here || door.insecure) && role.is_none_or(|role| role.verifier.is_none()) {
            // Whoever is on this machine may know which roles there are.
            return Ok(());
        }
        let certificate = door.tls.as_ref().filter(|_| self.encrypted).map(|tls| tls.certificate.as_ref());
        authenticate(&mut self.reader, &mut self.out, user, role, certificate).await
    }
}

/// Whether a client that is who it says may have a session.
fn check(user: &str, database: &str, role: Option<&Role>) -> Result<(), WireError> {
    let error = match role {
        None => WireError::new("28000", format!("role \"{user}\" does not exist")),
        Some(role) if !role.login => {
            WireError::new("28000", format!("role \"{user}\" is not permitted to log in"))
        }
        Some(_) if database != "millpond" => {
            WireError::new("3D000", format!("database \"{database}\" does not exist"))
        }
        Some(_) => return Ok(()),
    };
    Err(error.fatal())
}
