//! Passwords: SCRAM-SHA-256, and nothing but verifiers on disk.
//!
//! Invariant: whoever cannot prove a password learns nothing but that, not even whether there is such a role.
//! Source: RFC 5802, RFC 7677; PostgreSQL, "SASL Authentication".

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use pgwire::api::auth::sasl::scram::{ScramSecret, ScramServerAuth, gen_salted_password};
use pgwire::api::auth::sasl::{SCRAM_SHA_256_METHOD, SCRAM_SHA_256_PLUS_METHOD};
use pgwire::error::PgWireResult;
use pgwire::messages::startup::{Authentication, PasswordMessageFamily};
use planner::Role;
use tokio::io::{AsyncRead, AsyncWrite};

use super::WireError;
use super::connection::say;
use super::frames::FrameReader;

/// Rounds of hashing that a guess at a password costs.
const ITERATIONS: usize = 15_000;
/// Rounds of a verifier that somebody else made, at least.
const FEWEST_ITERATIONS: usize = 4096;
const SALT_BYTES: usize = 16;
const KEY_BYTES: usize = 32;
const PREFIX: &str = "SCRAM-SHA-256$";
/// A password that is wrong is said to be so after this time.
const PENALTY: Duration = Duration::from_millis(300);

/// What a password is held against later: its verifier, or the text itself if it is one.
///
/// # Errors
/// 22023 for an empty password.
pub(crate) fn password_verifier(password: &str) -> Result<String, WireError> {
    if parse(password).is_some() {
        return Ok(password.to_owned());
    }
    if password.is_empty() {
        return Err(WireError::new("22023", "a password is not empty").hint("PASSWORD NULL takes it away."));
    }
    let salt: [u8; SALT_BYTES] = rand::random();
    let salted = gen_salted_password(password, &salt, ITERATIONS);
    match ScramSecret::verifier_from_salted_password(salt.to_vec(), salted, ITERATIONS) {
        ScramSecret::Verifier { salt, iterations, stored_key, server_key } => {
            let [salt, stored, server] = [salt, stored_key, server_key].map(|bytes| STANDARD.encode(bytes));
            Ok(format!("{PREFIX}{iterations}:{salt}${stored}:{server}"))
        }
        ScramSecret::SaltedPassword { .. } => Err(WireError::new("XX000", "a verifier is a verifier")),
    }
}

/// A verifier as PostgreSQL writes it.
fn parse(text: &str) -> Option<ScramSecret> {
    let (cost, keys) = text.strip_prefix(PREFIX)?.split_once('$')?;
    let (iterations, salt) = cost.split_once(':')?;
    let (stored, server) = keys.split_once(':')?;
    let iterations = iterations.parse().ok().filter(|n| *n >= FEWEST_ITERATIONS)?;
    let key = |text: &str| STANDARD.decode(text).ok().filter(|key| key.len() == KEY_BYTES);
    Some(ScramSecret::Verifier {
        salt: STANDARD.decode(salt).ok()?,
        iterations,
        stored_key: key(stored)?,
        server_key: key(server)?,
    })
}

/// A secret that no password fits.
fn nobody() -> ScramSecret {
    let [salt, stored_key, server_key]: [[u8; KEY_BYTES]; 3] = rand::random();
    let salt = salt[..SALT_BYTES].to_vec();
    ScramSecret::Verifier {
        salt,
        iterations: ITERATIONS,
        stored_key: stored_key.to_vec(),
        server_key: server_key.to_vec(),
    }
}

/// Lets a client prove that it knows a role's password. `certificate` is what the connection is encrypted with,
/// in PEM: the proof can be bound to it.
///
/// # Errors
/// 28P01, and what the wire says.
pub(super) async fn authenticate<R: AsyncRead + Unpin, W: AsyncWrite + Unpin>(
    reader: &mut FrameReader<R>,
    out: &mut W,
    user: &str,
    role: Option<&Role>,
    certificate: Option<&[u8]>,
) -> Result<(), WireError> {
    let secret = role.and_then(|role| parse(role.verifier.as_ref()?)).unwrap_or_else(nobody);
    let proved = exchange(reader, out, secret, certificate).await;
    match proved {
        Ok(last) => say(out, Authentication::SASLFinal(last.into())).await,
        Err(Failed::Wire(error)) => Err(error),
        Err(Failed::Proof) => {
            tokio::time::sleep(PENALTY).await;
            Err(WireError::new("28P01", format!("password authentication failed for user \"{user}\""))
                .fatal())
        }
    }
}

enum Failed {
    /// The password is wrong, or the client takes back what it began with.
    Proof,
    Wire(WireError),
}

impl From<WireError> for Failed {
    fn from(error: WireError) -> Self {
        Self::Wire(error)
    }
}

/// The messages of SCRAM; the last one, that the server knows the password too, is left to be sent.
async fn exchange<R: AsyncRead + Unpin, W: AsyncWrite + Unpin>(
    reader: &mut FrameReader<R>,
    out: &mut W,
    secret: ScramSecret,
    certificate: Option<&[u8]>,
) -> Result<String, Failed> {
    let mut server = ScramServerAuth::new();
    let mut methods = vec![SCRAM_SHA_256_METHOD.to_owned()];
    // A certificate whose signature is of another kind cannot be bound to; the connection is as safe as TLS is.
    if certificate.is_some_and(|pem| server.configure_certificate(pem).is_ok()) {
        methods.insert(0, SCRAM_SHA_256_PLUS_METHOD.to_owned());
    }
    say(out, Authentication::SASL(methods.clone())).await?;
    let first = password_message(reader).await?;
    let first = fenced(|| first.into_sasl_initial_response())?;
    if !methods.contains(&first.auth_method) {
        return Err(violation("the client chose an authentication mechanism that was not offered").into());
    }
    let Some(data) = &first.data else { return Err(violation("an empty SASL response").into()) };
    let (challenge, waiting) = fenced(|| server.on_client_first_message_with_secret(data, secret))?;
    say(out, Authentication::SASLContinue(challenge.into())).await?;
    let last = password_message(reader).await?;
    let last = fenced(|| last.into_sasl_response())?;
    fenced(|| Ok(waiting.on_client_final_message(&last.data)))?.map_err(|_| Failed::Proof)
}

/// What pgwire makes of bytes of a stranger: some lengths it believes, and panics.
fn fenced<T>(read: impl FnOnce() -> PgWireResult<T>) -> Result<T, Failed> {
    match catch_unwind(AssertUnwindSafe(read)) {
        Ok(Ok(read)) => Ok(read),
        Ok(Err(error)) => Err(violation(format!("malformed SCRAM message: {error}")).into()),
        Err(_) => Err(violation("malformed SCRAM message").into()),
    }
}

async fn password_message<R: AsyncRead + Unpin>(
    reader: &mut FrameReader<R>,
) -> Result<PasswordMessageFamily, WireError> {
    match reader.next().await? {
        Some(pgwire::messages::PgWireFrontendMessage::PasswordMessageFamily(message)) => Ok(message),
        Some(_) => Err(violation("expected a SASL response")),
        None => Err(violation("connection closed during authentication")),
    }
}

fn violation(message: impl Into<String>) -> WireError {
    WireError::new("08P01", message).fatal()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verifier_tells_no_password_and_is_taken_as_it_is() {
        let verifier = password_verifier("secret").unwrap();
        assert!(verifier.starts_with("SCRAM-SHA-256$15000:") && !verifier.contains("secret"));
        assert_ne!(verifier, password_verifier("secret").unwrap(), "each has its own salt");
        assert_eq!(verifier, password_verifier(&verifier).unwrap());
        assert!(parse(&verifier.replace("15000", "1")).is_none(), "too few rounds");
        assert!(password_verifier("").is_err());
    }
}
