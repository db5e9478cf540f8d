//! Certificates and keys of the HTTPS API: read when a client calls and a file has changed.

use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio_rustls::TlsAcceptor;
use ubique_model::service::ApiSettings;

/// Why TLS cannot be offered. Nothing of a key is ever in it.
#[derive(Debug, thiserror::Error)]
enum KeysError {
    #[error("{what} {path} cannot be read: {source}")]
    File { what: &'static str, path: String, source: pem::Error },
    #[error("{what} {path} holds no certificate")]
    Empty { what: &'static str, path: String },
    #[error("client-ca {path} holds a certificate that cannot be an authority: {source}")]
    Authority { path: String, source: rustls::Error },
    #[error("client-ca cannot be used: {0}")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
    #[error("certificate and key-file cannot be used together: {0}")]
    Pair(#[from] rustls::Error),
}

/// When the three files were last written.
type Stamps = [Option<SystemTime>; 3];

/// What clients are met with.
pub(super) struct Keys {
    settings: ApiSettings,
    /// The files this was made from; `None`: nothing has been tried yet.
    stamps: Option<Stamps>,
    acceptor: Option<TlsAcceptor>,
}

impl Keys {
    pub(super) fn new(settings: ApiSettings) -> Keys {
        Keys { settings, stamps: None, acceptor: None }
    }

    /// With the certificates of now. New ones that cannot be used leave the old ones in use.
    pub(super) fn acceptor(&mut self) -> Option<TlsAcceptor> {
        let stamps = self.look();
        if self.stamps != Some(stamps) {
            self.stamps = Some(stamps);
            match config(&self.settings) {
                Ok(config) => self.acceptor = Some(TlsAcceptor::from(Arc::new(config))),
                Err(error) if self.acceptor.is_some() => {
                    tracing::error!(%error, "HTTPS API: the changed certificates cannot be used, the ones before stay");
                }
                Err(error) => tracing::error!(%error, "HTTPS API: nobody can be answered"),
            }
        }
        self.acceptor.clone()
    }

    fn look(&self) -> Stamps {
        let ApiSettings { certificate, key_file, client_ca, .. } = &self.settings;
        [certificate, key_file, client_ca].map(|path| std::fs::metadata(path).and_then(|m| m.modified()).ok())
    }
}

fn config(settings: &ApiSettings) -> Result<ServerConfig, KeysError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    for authority in certificates("client-ca", &settings.client_ca)? {
        roots.add(authority).map_err(|source| KeysError::Authority { path: shown(&settings.client_ca), source })?;
    }
    let verifier: Arc<dyn ClientCertVerifier> =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build()?;
    let key = PrivateKeyDer::from_pem_file(&settings.key_file).map_err(|source| KeysError::File {
        what: "key-file",
        path: shown(&settings.key_file),
        source,
    })?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(certificates("certificate", &settings.certificate)?, key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

fn certificates(what: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, KeysError> {
    let failed = |source| KeysError::File { what, path: shown(path), source };
    let read = CertificateDer::pem_file_iter(path).map_err(failed)?;
    let certificates = read.collect::<Result<Vec<_>, _>>().map_err(failed)?;
    if certificates.is_empty() {
        return Err(KeysError::Empty { what, path: shown(path) });
    }
    Ok(certificates)
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}
