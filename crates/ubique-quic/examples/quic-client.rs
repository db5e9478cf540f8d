//! Many connections to a `quic-server`, each from a port of its own, and what became of them, as JSON.
//!
//! `quic-client --connect 192.0.2.53:4433 --connections 100 --seconds 10`

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use clap::Parser;
use quinn::{ClientConfig, Endpoint, RecvStream, SendStream};
use serde::Serialize;
use tokio::time::{MissedTickBehavior, interval, timeout, timeout_at};

mod common;

/// How long either direction may be silent at the end; longer, and the connection counts as lost.
const SILENT_MAX: Duration = Duration::from_secs(1);
/// How long a handshake may take.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);

#[derive(Parser)]
struct Arguments {
    /// The server.
    #[arg(long, value_name = "ADDR:PORT")]
    connect: SocketAddr,
    /// Connections, all opened at once.
    #[arg(long, default_value_t = 1)]
    connections: usize,
    /// How long they are kept.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Address to send from.
    #[arg(long, value_name = "ADDR")]
    bind: Option<IpAddr>,
}

/// All connections.
#[derive(Default, Serialize)]
struct Report {
    connections: usize,
    /// Whose stream told its site.
    opened: usize,
    /// Of those, closed early, or silent at the end.
    lost: usize,
    /// Longest silence of any: of what the server sends by itself, or of what it sends back.
    longest_stall_ms: f64,
    /// Longest silence of what the server sends by itself.
    longest_tick_stall_ms: f64,
    octets: u64,
    /// Connections of each site.
    sites: BTreeMap<u8, usize>,
    errors: BTreeMap<String, usize>,
}

/// One connection.
#[derive(Default)]
struct Outcome {
    site: Option<u8>,
    /// Longest silence of ticks, and of echoes.
    stalls: [Duration; 2],
    octets: u64,
    error: Option<String>,
}

#[tokio::main]
async fn main() -> common::Result<()> {
    let arguments = Arguments::parse();
    let wildcard = match arguments.connect {
        SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let from = SocketAddr::new(arguments.bind.unwrap_or(wildcard), 0);
    let end = Instant::now() + Duration::from_secs(arguments.seconds);
    let config = common::client()?;
    let tasks: Vec<_> = (0..arguments.connections)
        .map(|_| tokio::spawn(connection(config.clone(), from, arguments.connect, end)))
        .collect();
    let mut report = Report { connections: arguments.connections, ..Report::default() };
    for task in tasks {
        report.add(task.await?);
    }
    println!("{}", serde_json::to_string(&report)?);
    Ok(())
}

impl Report {
    fn add(&mut self, outcome: Outcome) {
        if let Some(site) = outcome.site {
            self.opened += 1;
            self.lost += usize::from(outcome.error.is_some());
            *self.sites.entry(site).or_default() += 1;
        }
        if let Some(error) = outcome.error {
            *self.errors.entry(error).or_default() += 1;
        }
        let [ticks, echoes] = outcome.stalls.map(|stall| (stall.as_secs_f64() * 10_000.0).round() / 10.0);
        self.longest_tick_stall_ms = self.longest_tick_stall_ms.max(ticks);
        self.longest_stall_ms = self.longest_stall_ms.max(ticks).max(echoes);
        self.octets += outcome.octets;
    }
}

async fn connection(config: ClientConfig, from: SocketAddr, to: SocketAddr, end: Instant) -> Outcome {
    let mut outcome = Outcome::default();
    if let Err(error) = talk(config, from, to, end, &mut outcome).await {
        outcome.error = Some(error.to_string());
    }
    outcome
}

async fn talk(
    config: ClientConfig,
    from: SocketAddr,
    to: SocketAddr,
    end: Instant,
    outcome: &mut Outcome,
) -> common::Result<()> {
    let endpoint = Endpoint::client(from)?;
    let connecting = endpoint.connect_with(config, to, common::NAME)?;
    let connection = timeout(HANDSHAKE_MAX, connecting).await.map_err(|_| "no handshake")??;
    let (mut send, mut receive) = connection.open_bi().await?;
    let result = listen(&mut send, &mut receive, end, outcome).await;
    connection.close(0_u32.into(), b"");
    // So that the server learns of it.
    _ = timeout(SILENT_MAX, endpoint.wait_idle()).await;
    result
}

/// Sends and listens until the end.
async fn listen(
    send: &mut SendStream,
    receive: &mut RecvStream,
    end: Instant,
    outcome: &mut Outcome,
) -> common::Result<()> {
    let mut ticks = interval(Duration::from_millis(common::TICK_MS));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut buffer = [0; 1024];
    let mut heard = [Instant::now(); 2];
    while Instant::now() < end {
        let length = tokio::select! {
            _ = ticks.tick() => {
                // A window that is full for long is a stall, which is seen by listening.
                _ = timeout(Duration::from_millis(common::TICK_MS), send.write_all(&[common::ECHO])).await;
                0
            }
            read = timeout_at(end.into(), receive.read(&mut buffer)) => match read {
                Ok(read) => read?.ok_or("the server has finished")?,
                Err(_) => 0,
            },
        };
        for octet in &buffer[..length] {
            outcome.octets += 1;
            let which = match *octet {
                common::TICK if outcome.site.is_some() => 0,
                common::ECHO if outcome.site.is_some() => 1,
                site => {
                    outcome.site = Some(site);
                    heard = [Instant::now(); 2];
                    continue;
                }
            };
            outcome.stalls[which] = outcome.stalls[which].max(heard[which].elapsed());
            heard[which] = Instant::now();
        }
    }
    for (stall, heard) in outcome.stalls.iter_mut().zip(heard) {
        *stall = heard.elapsed().max(*stall);
    }
    if heard.iter().any(|heard| heard.elapsed() > SILENT_MAX) { Err("silent at the end".into()) } else { Ok(()) }
}
