//! Sessions over QUIC: a connection and a stream each, with identifiers that say the site where the service has `[sessions]`.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{
    ClientConfig, Connection, ConnectionError, Endpoint, EndpointConfig, IdleTimeout, ServerConfig, TokioRuntime,
    TransportConfig,
};
use tokio::time::timeout;
use ubique_model::scenario::{Exchange, SessionKind};
use ubique_model::traffic::PATIENCE;
use ubique_quic::{Anycast, Config, ConnectionIds, Site, key_from_hex};

use crate::client::{Watch, within};
use crate::{TrafficError, exchange, tls};

/// How long a client that is done waits for the other end to hear of it.
const FAREWELL: Duration = Duration::from_millis(500);
/// The only rotation of keys there is.
const ROTATION: u8 = 0;

fn failed(error: impl std::fmt::Display) -> TrafficError {
    TrafficError::Quic(error.to_string())
}

/// The clients' side.
#[derive(Clone)]
pub struct Client(ClientConfig);

impl Client {
    pub fn new() -> Result<Client, TrafficError> {
        let crypto = QuicClientConfig::try_from(tls::client_config()?).map_err(failed)?;
        let mut config = ClientConfig::new(Arc::new(crypto));
        let mut transport = TransportConfig::default();
        transport.max_idle_timeout(Some(IdleTimeout::try_from(PATIENCE).map_err(failed)?));
        config.transport_config(Arc::new(transport));
        Ok(Client(config))
    }

    /// A session over this socket, which is its own.
    ///
    /// # Errors
    /// As [`exchange::client`].
    pub async fn session(
        &self,
        socket: UdpSocket,
        to: SocketAddr,
        what: (SessionKind, Exchange),
        watch: &mut Watch,
    ) -> io::Result<()> {
        let endpoint = Endpoint::new(EndpointConfig::default(), None, socket, Arc::new(TokioRuntime))?;
        let connecting = endpoint.connect_with(self.0.clone(), to, tls::NAME).map_err(io::Error::other)?;
        let connection = within(watch, async { connecting.await.map_err(|error| words(&error)) }).await?;
        let (send, receive) = within(watch, async { connection.open_bi().await.map_err(|e| words(&e)) }).await?;
        let ended = exchange::client(tokio::io::join(receive, send), what, watch).await;
        let ended = ended.map_err(|error| reason(&connection, error));
        connection.close(0_u32.into(), b"");
        let _ = timeout(FAREWELL, endpoint.wait_idle()).await;
        ended
    }
}

/// What the connection ended with, where that is why its stream did.
fn reason(connection: &Connection, error: io::Error) -> io::Error {
    connection.close_reason().map_or(error, |closed| words(&closed))
}

fn words(error: &ConnectionError) -> io::Error {
    let kind = match error {
        ConnectionError::Reset => io::ErrorKind::ConnectionReset,
        ConnectionError::TimedOut => io::ErrorKind::TimedOut,
        ConnectionError::ConnectionClosed(_) | ConnectionError::ApplicationClosed(_) => io::ErrorKind::UnexpectedEof,
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, error.to_string())
}

/// The site's side: takes connections until the process ends.
///
/// # Errors
/// [`TrafficError::Quic`]: a key that is none, or what the socket refuses.
pub fn listen(address: SocketAddr, site: Arc<str>, identifiers: Option<(u8, &str)>) -> Result<(), TrafficError> {
    let socket = UdpSocket::bind(address).map_err(|source| TrafficError::Listen { address, source })?;
    let crypto = QuicServerConfig::try_from(tls::server_config()?).map_err(failed)?;
    let server = ServerConfig::with_crypto(Arc::new(crypto));
    let runtime = Arc::new(TokioRuntime);
    let endpoint = match identifiers {
        None => Endpoint::new(EndpointConfig::default(), Some(server), socket, runtime)?,
        Some((number, key)) => {
            let number = Site::new(number).ok_or_else(|| failed("no such number of a site"))?;
            let key = key_from_hex(key).ok_or_else(|| failed("no key of connection identifiers"))?;
            let config = Config::new(ROTATION, key).ok_or_else(|| failed("no such rotation"))?;
            let anycast = Anycast::new(ConnectionIds::new(number, config));
            anycast.endpoint(EndpointConfig::default(), server, socket, runtime).map_err(failed)?
        }
    };
    tokio::spawn(async move {
        while let Some(incoming) = endpoint.accept().await {
            let site = site.clone();
            tokio::spawn(async move {
                // Whatever ends it is for its client to tell.
                let Ok(connection) = incoming.await else { return };
                let Ok((send, receive)) = connection.accept_bi().await else { return };
                let _ = exchange::server(tokio::io::join(receive, send), &site).await;
            });
        }
    });
    Ok(())
}
