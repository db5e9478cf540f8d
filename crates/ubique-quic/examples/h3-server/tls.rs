//! Certificates for whatever name a client asks for, all with one key.
//!
//! A certificate has one name only: a browser does not use a connection for names that the certificate does not have, and so makes one for each.

use std::net::IpAddr;
use std::sync::Arc;

use data_encoding::BASE64;
use quinn::crypto::rustls::QuicServerConfig;
use rcgen::{CertificateParams, KeyPair, PublicKeyData};
use ring::digest::{SHA256, digest};
use rustls::crypto::ring::{default_provider, sign::any_ecdsa_type};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::{CertifiedKey, SigningKey};
use rustls::version::TLS13;

use crate::common::Result;

/// HTTP/3 (RFC 9114 §3.1).
const ALPN: &[u8] = b"h3";

/// The key, and how it signs handshakes.
#[derive(Debug)]
pub struct Names {
    key: KeyPair,
    signing: Arc<dyn SigningKey>,
}

impl Names {
    pub fn new() -> Result<Names> {
        let key = KeyPair::generate()?;
        let der = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        Ok(Names { signing: any_ecdsa_type(&der)?, key })
    }

    /// What `--ignore-certificate-errors-spki-list` of Chromium wants: SHA-256 of the public key, in base64.
    pub fn public_key_hash(&self) -> String {
        BASE64.encode(digest(&SHA256, &self.key.subject_public_key_info()).as_ref())
    }

    pub fn config(self) -> Result<quinn::ServerConfig> {
        let mut tls = rustls::ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(&[&TLS13])?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(self));
        tls.alpn_protocols = vec![ALPN.to_vec()];
        Ok(quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls)?)))
    }
}

impl ResolvesServerCert for Names {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        // Those who connect to an address send no name.
        let name = hello.server_name().map_or_else(|| IpAddr::from([127, 0, 0, 1]).to_string(), str::to_owned);
        let certificate = CertificateParams::new([name]).ok()?.self_signed(&self.key).ok()?;
        Some(Arc::new(CertifiedKey::new(vec![certificate.der().clone()], Arc::clone(&self.signing))))
    }
}
