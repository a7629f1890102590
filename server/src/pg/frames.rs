//! Bytes from a socket, cut into messages, with a limit on every one of them.
//!
//! pgwire would take a gigabyte from a stranger and panics on some lengths; here a message is
//! measured before it is decoded, and decoding is fenced.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;

use bytes::{Buf, BytesMut};
use pgwire::messages::{DecodeContext, PgWireFrontendMessage, ProtocolVersion};
use tokio::io::{AsyncRead, AsyncReadExt};

use super::WireError;
use super::entry::In;

/// Longest message before a session is open.
const STARTUP_BYTES: usize = 10_000;
/// Longest message of a session.
const MESSAGE_BYTES: usize = 64 << 20;
const SSL_REQUEST: u32 = 80_877_103;
const GSS_REQUEST: u32 = 80_877_104;
/// Types a client may send.
const KNOWN: &[u8] = b"QPBDECSHXdcfpF";

/// The connection is no more.
pub(crate) const LOST: &str = "08006";

/// Reads messages from a socket.
pub(crate) struct FrameReader<R> {
    socket: R,
    buffer: BytesMut,
    context: DecodeContext,
    /// Longest message.
    limit: usize,
}

/// What a client may begin with.
pub(super) enum FirstPacket {
    /// Startup, or cancel.
    Message(PgWireFrontendMessage),
    /// A request for encryption by TLS, or by GSSAPI: what follows waits for the answer.
    Tls,
    Gss,
}

impl<R: AsyncRead + Send + Unpin + 'static> FrameReader<R> {
    /// A reader that does not say of what.
    pub(super) fn boxed(self) -> FrameReader<In> {
        let Self { socket, buffer, context, limit } = self;
        FrameReader { socket: Box::new(socket), buffer, context, limit }
    }
}

thread_local! {
    /// This thread decodes a message.
    static DECODING: Cell<bool> = const { Cell::new(false) };
}

/// Panics of the decoder are not written down: they are a client's fault, who would cost the server a backtrace
/// for a few bytes, and all others the time that one takes.
fn decode_quietly() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let others = take_hook();
        set_hook(Box::new(move |panic| {
            if !DECODING.get() {
                others(panic);
            }
        }));
    });
}

fn violation(message: impl Into<String>) -> WireError {
    WireError::new("08P01", message).fatal()
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    pub(crate) fn new(socket: R) -> Self {
        decode_quietly();
        let mut context = DecodeContext::new(ProtocolVersion::PROTOCOL3_0);
        context.awaiting_frontend_ssl = false;
        Self { socket, buffer: BytesMut::new(), context, limit: STARTUP_BYTES }
    }

    /// The socket, of which nothing has been read that was not asked for.
    pub(super) fn into_socket(self) -> R {
        self.socket
    }

    /// The client has proved who it is: its messages may be long.
    pub(super) fn open_session(&mut self) {
        self.limit = MESSAGE_BYTES;
    }

    /// The first packet.
    pub(super) async fn startup(&mut self) -> Result<FirstPacket, WireError> {
        loop {
            if self.buffer.len() >= 8 {
                let length = self.buffer[..4].iter().fold(0usize, |n, b| n << 8 | usize::from(*b));
                let code = self.buffer[4..8].iter().fold(0u32, |n, b| n << 8 | u32::from(*b));
                if !(8..=STARTUP_BYTES).contains(&length) {
                    return Err(violation("invalid length of startup packet"));
                }
                if length == 8 && matches!(code, SSL_REQUEST | GSS_REQUEST) {
                    self.buffer.advance(8);
                    if !self.buffer.is_empty() {
                        return Err(violation("received unencrypted data after a request for encryption"));
                    }
                    return Ok(if code == SSL_REQUEST { FirstPacket::Tls } else { FirstPacket::Gss });
                }
                if self.buffer.len() >= length {
                    let message = self.decode()?;
                    self.context.awaiting_frontend_startup = false;
                    return Ok(FirstPacket::Message(message));
                }
            }
            if self.fill().await? == 0 {
                return Err(violation("connection closed during startup"));
            }
        }
    }

    /// The next message; None at the end of the connection. After an error that is not fatal there may be more.
    pub(crate) async fn next(&mut self) -> Result<Option<PgWireFrontendMessage>, WireError> {
        loop {
            if self.buffer.len() >= 5 {
                let kind = self.buffer[0];
                let length = self.buffer[1..5].iter().fold(0usize, |n, b| n << 8 | usize::from(*b));
                if !KNOWN.contains(&kind) {
                    return Err(violation(format!("invalid frontend message type {kind}")));
                }
                if !(4..=self.limit).contains(&length) {
                    return Err(violation("invalid message length"));
                }
                if self.buffer.len() > length {
                    if kind == b'F' {
                        self.buffer.advance(length + 1);
                        return Err(WireError::unsupported("a function call by message")
                            .hint("Call the function in a SELECT."));
                    }
                    return self.decode().map(Some);
                }
                self.buffer.reserve((length + 1).saturating_sub(self.buffer.len()));
            }
            if self.fill().await? == 0 {
                return Ok(None);
            }
        }
    }

    async fn fill(&mut self) -> Result<usize, WireError> {
        self.buffer.reserve(if self.limit == MESSAGE_BYTES { 8 << 10 } else { 512 });
        self.socket
            .read_buf(&mut self.buffer)
            .await
            .map_err(|e| WireError::new(LOST, format!("could not read from client: {e}")).fatal())
    }

    /// Decodes one message of known length; a panic inside counts as a violation.
    fn decode(&mut self) -> Result<PgWireFrontendMessage, WireError> {
        let (buffer, context) = (&mut self.buffer, &self.context);
        DECODING.set(true);
        let decoded = catch_unwind(AssertUnwindSafe(|| PgWireFrontendMessage::decode(buffer, context)));
        DECODING.set(false);
        match decoded {
            Ok(Ok(Some(message))) => Ok(message),
            Ok(Ok(None)) | Err(_) => Err(violation("invalid message format")),
            Ok(Err(error)) => Err(violation(error.to_string())),
        }
    }
}
