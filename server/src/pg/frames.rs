//! Bytes from a socket, cut into messages, with a limit on every one of them.
//!
//! pgwire would take a gigabyte from a stranger and panics on some lengths; here a message is
//! measured before it is decoded, and decoding is fenced.

use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::{Buf, BytesMut};
use pgwire::messages::{DecodeContext, PgWireFrontendMessage, ProtocolVersion};
use tokio::io::{AsyncRead, AsyncReadExt};

use super::WireError;

/// Longest message before a session is open.
const STARTUP_BYTES: usize = 10_000;
/// Longest message of a session.
const MESSAGE_BYTES: usize = 64 << 20;
/// Types a client may send.
const KNOWN: &[u8] = b"QPBDECSHXdcfpF";

/// The connection is no more.
pub(crate) const LOST: &str = "08006";

/// Reads messages from a socket.
pub(crate) struct FrameReader<R> {
    socket: R,
    buffer: BytesMut,
    context: DecodeContext,
}

fn violation(message: impl Into<String>) -> WireError {
    WireError::new("08P01", message).fatal()
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    pub(crate) fn new(socket: R) -> Self {
        let mut context = DecodeContext::new(ProtocolVersion::PROTOCOL3_0);
        context.awaiting_frontend_ssl = false;
        Self { socket, buffer: BytesMut::with_capacity(8 << 10), context }
    }

    /// The first packet: startup, cancel, or a request for encryption (`None`, to be refused).
    pub(crate) async fn startup(&mut self) -> Result<Option<PgWireFrontendMessage>, WireError> {
        loop {
            if self.buffer.len() >= 8 {
                let length = self.buffer[..4].iter().fold(0usize, |n, b| n << 8 | usize::from(*b));
                let code = self.buffer[4..8].iter().fold(0u32, |n, b| n << 8 | u32::from(*b));
                if !(8..=STARTUP_BYTES).contains(&length) {
                    return Err(violation("invalid length of startup packet"));
                }
                // SSLRequest and GSSENCRequest; what follows must wait for the answer.
                if length == 8 && matches!(code, 80_877_103 | 80_877_104) {
                    self.buffer.advance(8);
                    if !self.buffer.is_empty() {
                        return Err(violation("received unencrypted data after a request for encryption"));
                    }
                    return Ok(None);
                }
                if self.buffer.len() >= length {
                    let message = self.decode()?;
                    self.context.awaiting_frontend_startup = false;
                    return Ok(message);
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
                if !(4..=MESSAGE_BYTES).contains(&length) {
                    return Err(violation("invalid message length"));
                }
                if self.buffer.len() > length {
                    if kind == b'F' {
                        self.buffer.advance(length + 1);
                        return Err(WireError::unsupported("a function call by message")
                            .hint("Call the function in a SELECT."));
                    }
                    return self.decode();
                }
                self.buffer.reserve((length + 1).saturating_sub(self.buffer.len()));
            }
            if self.fill().await? == 0 {
                return Ok(None);
            }
        }
    }

    async fn fill(&mut self) -> Result<usize, WireError> {
        self.buffer.reserve(8 << 10);
        self.socket
            .read_buf(&mut self.buffer)
            .await
            .map_err(|e| WireError::new(LOST, format!("could not read from client: {e}")).fatal())
    }

    /// Decodes one message of known length; a panic inside counts as a violation.
    fn decode(&mut self) -> Result<Option<PgWireFrontendMessage>, WireError> {
        let (buffer, context) = (&mut self.buffer, &self.context);
        let decoded = catch_unwind(AssertUnwindSafe(|| PgWireFrontendMessage::decode(buffer, context)));
        match decoded {
            Ok(Ok(Some(message))) => Ok(Some(message)),
            Ok(Ok(None)) | Err(_) => Err(violation("invalid message format")),
            Ok(Err(error)) => Err(violation(error.to_string())),
        }
    }
}
