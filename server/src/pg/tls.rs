//! Encryption of the wire: a certificate and its key, and perhaps who must sign a client's.
//!
//! Invariant: files that are missing or wrong are an error at the start, never a connection in the clear.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

/// Files of the server's certificate.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// The certificate and those that sign it, PEM.
    pub certificate: PathBuf,
    /// Its key, PEM.
    pub key: PathBuf,
    /// Those that sign certificates of clients, PEM: clients must have one then.
    pub client_ca: Option<PathBuf>,
}

/// What encrypts connections.
#[derive(Clone)]
pub struct Tls {
    pub(super) acceptor: TlsAcceptor,
    /// The certificate, PEM.
    pub(super) certificate: Arc<[u8]>,
}

/// Why there is no encryption.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be used.
    #[error("could not use \"{path}\": {reason}")]
    File {
        /// The file.
        path: String,
        /// Why not.
        reason: String,
    },
    /// Certificate and key do not fit.
    #[error("the TLS certificate and its key cannot be used: {0}")]
    Config(String),
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn load(files: &TlsFiles) -> Result<Self, TlsError> {
        let certificate = read(&files.certificate)?;
        let chain = certificates(&files.certificate, &certificate)?;
        let key = PrivateKeyDer::from_pem_slice(&read(&files.key)?).map_err(|e| unusable(&files.key, e))?;
        let config = |e: &dyn std::fmt::Display| TlsError::Config(e.to_string());
        let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|e| config(&e))?;
        let builder = match &files.client_ca {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let mut roots = RootCertStore::empty();
                for certificate in certificates(path, &read(path)?)? {
                    roots.add(certificate).map_err(|e| unusable(path, e))?;
                }
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                builder.with_client_cert_verifier(verifier.build().map_err(|e| unusable(path, e))?)
            }
        };
        let server = builder.with_single_cert(chain, key).map_err(|e| config(&e))?;
        Ok(Self { acceptor: TlsAcceptor::from(Arc::new(server)), certificate: certificate.into() })
    }
}

#[allow(clippy::disallowed_methods, reason = "read once, before there is a server")]
fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|e| unusable(path, e))
}

fn certificates(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let all = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
    let all = all.map_err(|e| unusable(path, e))?;
    if all.is_empty() { Err(unusable(path, "there is no certificate in it")) } else { Ok(all) }
}

fn unusable(path: &Path, reason: impl std::fmt::Display) -> TlsError {
    TlsError::File { path: path.display().to_string(), reason: reason.to_string() }
}
