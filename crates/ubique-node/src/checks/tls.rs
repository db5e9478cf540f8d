//! TLS as a client, for checks: whom to believe, and what the certificate says.
//!
//! The `tls` check is a handshake with a certificate that is valid for so many days more. Sessions are never resumed:
//! a resumed one shows no certificate. Of a certificate that is not verified (`insecure`), only the handshake's own
//! signature is checked, so that the server holds the key of what it shows.
//! RFC 8446; the library is rustls with ring, the smallest of its providers.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use ubique_model::check::{Roots, Trust};

use super::{Failure, certificate, quote, words};
use crate::clock::unix_time;

/// Certificates of authorities taken from a file; the store of a system has about 150.
const AUTHORITIES: usize = 4096;

/// A client that knows whom to believe.
pub(super) struct Tls {
    connector: TlsConnector,
    name: ServerName<'static>,
}

impl Tls {
    /// `name`: what the certificate must name unless `trust` says otherwise. `alpn`: protocols, best first.
    pub(super) fn new(trust: &Trust, name: &str, alpn: &[&str]) -> Result<Tls, String> {
        let name = trust.server_name.as_deref().unwrap_or(name);
        let name = name.strip_suffix('.').unwrap_or(name).to_owned();
        let name = ServerName::try_from(name.clone()).map_err(|e| format!("{name:?} is not a server name: {e}"))?;
        let provider = Arc::new(ring::default_provider());
        let verifier: Arc<dyn ServerCertVerifier> = match &trust.roots {
            Roots::Insecure => Arc::new(Anybody(provider.clone())),
            roots => {
                let roots = authorities(roots)?;
                let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider.clone()).build();
                verifier.map_err(|e| format!("the authorities cannot be used: {e}"))?
            }
        };
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| e.to_string())?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth();
        config.resumption = Resumption::disabled();
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        Ok(Tls { connector: TlsConnector::from(Arc::new(config)), name })
    }

    pub(super) async fn connect(&self, target: SocketAddr) -> Result<TlsStream<TcpStream>, String> {
        let stream = TcpStream::connect(target).await.map_err(|e| words(&e))?;
        let handshake = self.connector.connect(self.name.clone(), stream).await;
        handshake.map_err(|e| format!("TLS: {}", quote(words(&e).as_bytes())))
    }

    /// Whether both sides agreed on this protocol (ALPN, RFC 7301).
    pub(super) fn agreed_on(stream: &TlsStream<TcpStream>, protocol: &str) -> bool {
        stream.get_ref().1.alpn_protocol() == Some(protocol.as_bytes())
    }

    /// A handshake with a certificate that is valid for so many days more.
    pub(super) async fn poll(&self, target: SocketAddr, days_left: u32) -> Result<(), Failure> {
        let stream = self.connect(target).await?;
        let (_, session) = stream.get_ref();
        let Some(certificate) = session.peer_certificates().and_then(|all| all.first()) else {
            return Err(Failure::of_answer("TLS: the server shows no certificate".to_owned()));
        };
        if days_left == 0 {
            return Ok(());
        }
        let end = certificate::not_after(certificate)
            .ok_or_else(|| Failure::of_answer("TLS: the certificate's date cannot be read".to_owned()))?;
        let left = (end - unix_time()).div_euclid(certificate::DAY_S);
        if left >= i64::from(days_left) {
            return Ok(());
        }
        let words = format!("the certificate expires in {left} days, at least {days_left} expected");
        Err(Failure::of_answer(words))
    }
}

fn authorities(roots: &Roots) -> Result<Arc<RootCertStore>, String> {
    // Read once: some hundred kilobytes, the same for every check.
    static SYSTEM: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    let Roots::File(path) = roots else {
        let store = SYSTEM.get_or_init(|| {
            let mut store = RootCertStore::empty();
            store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            Arc::new(store)
        });
        if store.is_empty() {
            return Err("this machine has no store of authorities: install ca-certificates, or set ca-file".to_owned());
        }
        return Ok(store.clone());
    };
    let bad = |what: &dyn std::fmt::Display| format!("ca-file {}: {what}", path.display());
    let mut store = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(|e| bad(&e))?.take(AUTHORITIES) {
        store.add(certificate.map_err(|e| bad(&e))?).map_err(|e| bad(&e))?;
    }
    if store.is_empty() {
        return Err(bad(&"no certificate in it"));
    }
    Ok(Arc::new(store))
}

/// Believes any certificate whose key the server holds.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
