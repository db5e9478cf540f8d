//! A QUIC server of a site, for trials with `quic-client`: each stream gets the site's number, an octet every 20 ms, and its own back.
//!
//! `quic-server --listen '[::]:4433' --site 3 --key 000102030405060708090a0b0c0d0e0f --preferred 192.0.2.3`

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use quinn::{ConnectionError, EndpointConfig, Incoming, RecvStream, SendStream, TokioRuntime};
use tokio::time::{MissedTickBehavior, interval};
use ubique_quic::{Anycast, Config, ConnectionIds, Key, Site};

mod common;

#[derive(Parser)]
struct Arguments {
    /// Address and port; the wildcard address for all of them.
    #[arg(long, value_name = "ADDR:PORT")]
    listen: SocketAddr,
    /// Number of the site.
    #[arg(long, value_parser = |text: &str| text.parse().ok().and_then(Site::new).ok_or("no site has this number"))]
    site: Site,
    /// The key of all sites.
    #[arg(long, value_name = "HEX32", value_parser = |text: &str| ubique_quic::key_from_hex(text).ok_or("not 32 hexadecimal digits"))]
    key: Key,
    /// Where the key stands in the rotation.
    #[arg(long, default_value_t = 0)]
    rotation: u8,
    /// Address of the site alone, to which clients are told to move; one of each family.
    #[arg(long, value_name = "ADDR")]
    preferred: Vec<IpAddr>,
}

#[tokio::main]
async fn main() -> common::Result<()> {
    let arguments = Arguments::parse();
    let config = Config::new(arguments.rotation, arguments.key).ok_or("no such rotation")?;
    let mut anycast = Anycast::new(ConnectionIds::new(arguments.site, config));
    for address in arguments.preferred {
        anycast = anycast.prefer((address, arguments.listen.port()).into());
    }
    let socket = UdpSocket::bind(arguments.listen)?;
    let endpoint = anycast.endpoint(EndpointConfig::default(), common::server()?, socket, Arc::new(TokioRuntime))?;
    println!("{}", serde_json::json!({ "listening": endpoint.local_addr()?, "site": arguments.site.number() }));
    while let Some(incoming) = endpoint.accept().await {
        tokio::spawn(async move {
            match connection(incoming, arguments.site).await {
                Err(ConnectionError::ApplicationClosed(_)) => {}
                Err(error) => eprintln!("{error}"),
                Ok(never) => match never {},
            }
        });
    }
    Ok(())
}

/// Serves streams for as long as the client opens some.
async fn connection(incoming: Incoming, site: Site) -> Result<Infallible, ConnectionError> {
    let connection = incoming.await?;
    loop {
        let (send, receive) = connection.accept_bi().await?;
        tokio::spawn(stream(send, receive, site));
    }
}

/// Ticks and echoes until the client has finished, or is gone.
async fn stream(mut send: SendStream, mut receive: RecvStream, site: Site) -> common::Result<()> {
    let mut ticks = interval(Duration::from_millis(common::TICK_MS));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut buffer = [0; 1024];
    send.write_all(&[site.number()]).await?;
    loop {
        tokio::select! {
            _ = ticks.tick() => send.write_all(&[common::TICK]).await?,
            read = receive.read(&mut buffer) => match read? {
                Some(length) => send.write_all(&buffer[..length]).await?,
                None => break,
            },
        }
    }
    Ok(send.finish()?)
}
