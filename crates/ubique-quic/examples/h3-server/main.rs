//! An HTTP/3 server of a site, for trials with a browser through route changes.
//!
//! `h3-server --listen '[::]:4433' --site 3 --key 000102030405060708090a0b0c0d0e0f --preferred 192.0.2.3`
//!
//! | request | answer |
//! |---|---|
//! | `GET /?names=N&chunks=C&every=MS` | a page that downloads from N names at once, sends and has echoed meanwhile, and says on the console what became of it |
//! | `GET /download?seed=S&chunks=C&every=MS` | C chunks of [`CHUNK`] octets, one each MS; what they are follows from S |
//! | `POST /echo` | the octets that came |
//!
//! Each answer names the site and the connection (`x-connection: 3.17`). Standard output: an object with the address and the hash of the
//! key for Chromium, then one for each connection. Deliberately absent: files, and certificates that anybody trusts.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes};
use clap::Parser;
use h3::server::{RequestResolver, RequestStream};
use http::{Method, Request, Response, StatusCode};
use quinn::{EndpointConfig, Incoming, TokioRuntime};
use tokio::time::{MissedTickBehavior, interval};
use ubique_quic::{Anycast, Config, ConnectionIds, Key, Site};

use crate::common::Result;

#[path = "../common/mod.rs"]
mod common;
mod tls;

/// Octets of a chunk of a download.
const CHUNK: usize = 1000;
/// Most octets that are echoed.
const ECHO_MAX: usize = 1 << 20;

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
    /// Address of the site alone, to which clients are told to move; one of each family.
    #[arg(long, value_name = "ADDR")]
    preferred: Vec<IpAddr>,
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let config = Config::new(0, arguments.key).ok_or("no such rotation")?;
    let mut anycast = Anycast::new(ConnectionIds::new(arguments.site, config));
    for address in arguments.preferred {
        anycast = anycast.prefer((address, arguments.listen.port()).into());
    }
    let names = tls::Names::new()?;
    let key = names.public_key_hash();
    let socket = UdpSocket::bind(arguments.listen)?;
    let endpoint = anycast.endpoint(EndpointConfig::default(), names.config()?, socket, Arc::new(TokioRuntime))?;
    println!(
        "{}",
        serde_json::json!({ "listening": endpoint.local_addr()?, "site": arguments.site.number(), "key": key })
    );
    for number in 1_u64.. {
        let Some(incoming) = endpoint.accept().await else { break };
        let name = format!("{}.{number}", arguments.site.number());
        tokio::spawn(async move {
            if let Err(error) = connection(incoming, name).await {
                eprintln!("{error}");
            }
        });
    }
    Ok(())
}

/// Serves requests for as long as the client has some.
async fn connection(incoming: Incoming, name: String) -> Result<()> {
    let connection = incoming.await?;
    println!("{}", serde_json::json!({ "connection": name, "client": connection.remote_address() }));
    let mut connection = h3::server::builder().build(h3_quinn::Connection::new(connection)).await?;
    // Until the client is gone, however it went.
    while let Ok(Some(request)) = connection.accept().await {
        let name = name.clone();
        tokio::spawn(async move {
            // Whoever asks may stop listening.
            _ = answer(request, &name).await;
        });
    }
    Ok(())
}

async fn answer(request: RequestResolver<h3_quinn::Connection, Bytes>, connection: &str) -> Result<()> {
    let (request, mut stream) = request.resolve_request().await?;
    let head = |status: StatusCode, kind: &str| {
        Response::builder()
            .status(status)
            .header("content-type", kind)
            .header("x-connection", connection)
            .header("access-control-allow-origin", "*")
            .header("access-control-expose-headers", "x-connection")
            .body(())
    };
    match (request.method(), request.uri().path()) {
        (&Method::GET, "/") => {
            stream.send_response(head(StatusCode::OK, "text/html; charset=utf-8")?).await?;
            stream.send_data(Bytes::from_static(include_bytes!("page.html"))).await?;
        }
        (&Method::GET, "/download") => {
            stream.send_response(head(StatusCode::OK, "application/octet-stream")?).await?;
            download(&request, &mut stream).await?;
        }
        (&Method::POST, "/echo") => {
            let mut body = Vec::new();
            while let Some(part) = stream.recv_data().await? {
                body.put(part);
                if body.len() > ECHO_MAX {
                    return Ok(stream.send_response(head(StatusCode::PAYLOAD_TOO_LARGE, "text/plain")?).await?);
                }
            }
            stream.send_response(head(StatusCode::OK, "application/octet-stream")?).await?;
            stream.send_data(Bytes::from(body)).await?;
        }
        _ => stream.send_response(head(StatusCode::NOT_FOUND, "text/plain")?).await?,
    }
    Ok(stream.finish().await?)
}

/// Chunks at their times.
async fn download(request: &Request<()>, stream: &mut RequestStream<h3_quinn::BidiStream<Bytes>, Bytes>) -> Result<()> {
    let [seed, chunks, every_ms] = ["seed", "chunks", "every"].map(|name| number(request, name));
    let mut ticks = interval(Duration::from_millis(every_ms.max(1)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    for chunk in 0..chunks {
        ticks.tick().await;
        let first = chunk * CHUNK as u64;
        let octets: Vec<u8> = (first..first + CHUNK as u64).map(|at| octet(seed, at)).collect();
        stream.send_data(octets.into()).await?;
    }
    Ok(())
}

/// What stands at a place of a download; `page.html` says the same.
fn octet(seed: u64, at: u64) -> u8 {
    (seed.wrapping_mul(7) + at.wrapping_mul(31) + (at >> 8).wrapping_mul(17)) as u8
}

/// A number of the query; 0 where there is none.
fn number(request: &Request<()>, name: &str) -> u64 {
    let query = request.uri().query().unwrap_or_default();
    let value = query.split('&').find_map(|pair| pair.split_once('=').filter(|(key, _)| *key == name));
    value.and_then(|(_, value)| value.parse().ok()).unwrap_or_default()
}
