//! TLS 1.3 at both ends, with raw public keys (RFC 7250): each site makes one, and clients take any from whoever has the private one. What a
//! rehearsal asks is whether sessions live, not who the service is.

use std::io;
use std::sync::Arc;

use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring as provider, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::AlwaysResolvesServerRawPublicKeys;
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;
use rustls::{ClientConfig, DigitallySignedStruct, ServerConfig, SignatureScheme};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::TrafficError;

/// The name that clients ask for, and the protocol inside.
pub const NAME: &str = "ubique-rehearsal";

fn failed(error: impl std::fmt::Display) -> TrafficError {
    TrafficError::Tls(error.to_string())
}

/// TLS of a site.
pub fn server_config() -> Result<ServerConfig, TrafficError> {
    let own = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &SystemRandom::new()).map_err(failed)?;
    let key = PrivatePkcs8KeyDer::from(own.as_ref().to_vec());
    let key = provider::sign::any_supported_type(&key.into()).map_err(failed)?;
    let public = key.public_key().ok_or_else(|| failed("the key has no public one"))?.to_vec();
    let own = Arc::new(CertifiedKey::new(vec![CertificateDer::from(public)], key));
    let builder = ServerConfig::builder_with_provider(Arc::new(provider::default_provider()));
    let builder = builder.with_protocol_versions(&[&TLS13]).map_err(failed)?.with_no_client_auth();
    let mut config = builder.with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(own)));
    config.alpn_protocols = vec![NAME.into()];
    Ok(config)
}

/// TLS of a client.
pub fn client_config() -> Result<ClientConfig, TrafficError> {
    let provider = Arc::new(provider::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone());
    let builder = builder.with_protocol_versions(&[&TLS13]).map_err(failed)?;
    let mut config =
        builder.dangerous().with_custom_certificate_verifier(Arc::new(Anybody(provider))).with_no_client_auth();
    config.alpn_protocols = vec![NAME.into()];
    // Each session stands for a client of its own.
    config.resumption = rustls::client::Resumption::disabled();
    Ok(config)
}

/// The site's side.
pub fn acceptor() -> Result<TlsAcceptor, TrafficError> {
    Ok(TlsAcceptor::from(Arc::new(server_config()?)))
}

/// The clients' side.
#[derive(Clone)]
pub struct Client(TlsConnector);

impl Client {
    pub fn new() -> Result<Client, TrafficError> {
        Ok(Client(TlsConnector::from(Arc::new(client_config()?))))
    }

    /// Shakes hands.
    pub async fn connect(&self, stream: TcpStream) -> io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
        let name = ServerName::try_from(NAME).map_err(io::Error::other)?;
        self.0.connect(name, stream).await
    }
}

/// Takes any public key, if whoever shows it has the private one.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("only TLS 1.3 is spoken".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let (key, algorithms) =
            (SubjectPublicKeyInfoDer::from(key.as_ref()), &self.0.signature_verification_algorithms);
        verify_tls13_signature_with_raw_key(message, &key, signed, algorithms)
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    /// Over loopback, since TLS and the first octet it is known by want real sockets.
    #[tokio::test]
    async fn raw_public_keys_are_shown_and_taken() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let to = listener.local_addr().unwrap();
        let serve = async {
            let (stream, _) = listener.accept().await.unwrap();
            let stream = acceptor().unwrap().accept(stream).await.unwrap();
            stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec)
        };
        let ask = async {
            let stream = TcpStream::connect(to).await.unwrap();
            let stream = Client::new().unwrap().connect(stream).await.unwrap();
            stream.get_ref().1.protocol_version()
        };
        let (protocol, version) = tokio::join!(serve, ask);
        assert_eq!(protocol.as_deref(), Some(NAME.as_bytes()));
        assert_eq!(version, Some(rustls::ProtocolVersion::TLSv1_3));
    }
}
