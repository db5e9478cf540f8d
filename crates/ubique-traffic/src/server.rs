//! The stand-in service of a site: one process, one thread, a task for each session.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use ubique_model::traffic::ServerSpec;

use crate::protocol::TLS_HANDSHAKE;
use crate::{TrafficError, exchange, quic, tls};

/// Most connections over TCP at once; further ones are closed.
const MAX_CONNECTIONS: usize = 20_000;
/// Connections that wait to be taken: what clients open in one go.
const BACKLOG: u32 = 4096;

/// Serves until the process ends. `key`: that of connection identifiers, in hexadecimal digits, where the specification has some.
///
/// # Errors
/// [`TrafficError`]: it cannot listen.
pub fn serve(spec: &ServerSpec, key: Option<&str>) -> Result<(), TrafficError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let site: Arc<str> = spec.site.as_str().into();
        let acceptor = tls::acceptor()?;
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        for &address in &spec.tcp {
            let listener = listener(address).map_err(|source| TrafficError::Listen { address, source })?;
            tokio::spawn(accept(listener, site.clone(), acceptor.clone(), places.clone()));
        }
        for &address in &spec.quic {
            let identifiers = spec.identifiers.as_ref().map(|(number, _)| *number).zip(key);
            quic::listen(address, site.clone(), identifiers)?;
        }
        fs::write(&spec.ready, "")?;
        std::future::pending().await
    })
}

fn listener(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // Its predecessor may have been killed with connections open.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

async fn accept(listener: TcpListener, site: Arc<str>, acceptor: TlsAcceptor, places: Arc<Semaphore>) {
    loop {
        // A connection that was gone before it was taken is no reason to end; out of descriptors, others end and make room.
        let Ok((stream, _)) = listener.accept().await else {
            tokio::task::yield_now().await;
            continue;
        };
        let Ok(place) = places.clone().try_acquire_owned() else { continue };
        let (site, acceptor) = (site.clone(), acceptor.clone());
        tokio::spawn(async move {
            // Whatever ends it is for its client to tell.
            let _ = session(stream, &site, &acceptor).await;
            drop(place);
        });
    }
}

async fn session(stream: TcpStream, site: &str, acceptor: &TlsAcceptor) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut first = [0];
    stream.peek(&mut first).await?;
    match first[0] {
        TLS_HANDSHAKE => exchange::server(acceptor.accept(stream).await?, site).await,
        _ => exchange::server(stream, site).await,
    }
}
