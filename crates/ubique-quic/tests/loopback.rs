//! A server of quinn and clients of quinn, over loopback, with a relay between them.

#![allow(clippy::unwrap_used)] // helpers of tests are not recognised as tests

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use quinn::{Connection, ConnectionId, Endpoint, EndpointConfig, MtuDiscoveryConfig, TokioRuntime, TransportConfig};
use quinn_proto::{crypto, transport_parameters::TransportParameters};
use relay::Relay;
use tokio::time::{sleep, timeout};
use ubique_quic::{Anycast, Config, ConnectionIds, EndpointError, Key, Site, UDP_PAYLOAD_MAX};

#[allow(missing_docs)]
#[path = "../examples/common/mod.rs"]
mod common;
mod relay;

const KEY: Key = Key([3, 4]);
const PATIENCE: Duration = Duration::from_secs(10);

fn site() -> Site {
    Site::new(5).unwrap()
}

fn config() -> Config {
    Config::new(2, KEY).unwrap()
}

fn anycast() -> Anycast {
    Anycast::new(ConnectionIds::new(site(), config()))
}

/// A port that is free at a wildcard address, and a socket there.
fn socket(wildcard: &str) -> (UdpSocket, u16) {
    let socket = UdpSocket::bind((wildcard, 0)).unwrap();
    let port = socket.local_addr().unwrap().port();
    (socket, port)
}

/// Sends back what comes on streams, for as long as there is an endpoint.
fn serve(endpoint: &Endpoint) {
    let endpoint = endpoint.clone();
    tokio::spawn(async move {
        while let Some(incoming) = endpoint.accept().await {
            tokio::spawn(async move {
                let connection = incoming.await.unwrap();
                while let Ok((mut send, mut receive)) = connection.accept_bi().await {
                    let asked = receive.read_to_end(1 << 20).await.unwrap();
                    send.write_all(&asked).await.unwrap();
                    send.finish().unwrap();
                }
            });
        }
    });
}

async fn server(wildcard: &str) -> (Endpoint, u16) {
    let (socket, port) = socket(wildcard);
    let server = common::server().unwrap();
    let endpoint = anycast().endpoint(EndpointConfig::default(), server, socket, Arc::new(TokioRuntime)).unwrap();
    serve(&endpoint);
    (endpoint, port)
}

fn client() -> Endpoint {
    Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap()
}

async fn connect(client: &Endpoint, to: SocketAddr) -> Connection {
    let connecting = client.connect_with(common::client().unwrap(), to, common::NAME).unwrap();
    timeout(PATIENCE, connecting).await.unwrap().unwrap()
}

/// Whether what is sent comes back.
async fn echo(connection: &Connection, octets: usize) {
    let sent = vec![7; octets];
    let exchange = async {
        let (mut send, mut receive) = connection.open_bi().await.unwrap();
        send.write_all(&sent).await.unwrap();
        send.finish().unwrap();
        receive.read_to_end(1 << 20).await.unwrap()
    };
    assert!(timeout(PATIENCE, exchange).await.unwrap() == sent);
}

fn local(address: &str, port: u16) -> SocketAddr {
    (address.parse::<IpAddr>().unwrap(), port).into()
}

#[tokio::test]
async fn identifiers_on_the_wire_tell_the_site() {
    const CLIENTS: usize = 16;
    let (_server, port) = server("127.0.0.1").await;
    let mut ids = HashSet::new();
    for _ in 0..CLIENTS {
        let relay = Relay::new(local("127.0.0.1", port)).await;
        let client = client();
        let connection = connect(&client, relay.address).await;
        echo(&connection, 1000).await;
        // From another port, with another identifier (RFC 9000 §9.5).
        client.rebind(UdpSocket::bind("127.0.0.1:0").unwrap()).unwrap();
        echo(&connection, 1000).await;
        let seen = relay.seen.lock().unwrap();
        // Of long headers, those behind the first flight, for which quinn's client chose 20 octets.
        let answers: Vec<&Vec<u8>> = seen.long.iter().filter(|id| id.len() != 20).collect();
        assert!(answers.iter().all(|id| id.len() == 10 && config().decode(id) == Some(site())), "{answers:02x?}");
        assert!(!answers.is_empty());
        let before = ids.len();
        for id in &seen.short {
            assert_eq!(config().decode(id), Some(site()), "{id:02x?}");
            ids.insert(*id);
        }
        assert!(ids.len() >= before + 2, "one before, one after the client moved");
    }
    let another = Config::new(2, Key([3, 5])).unwrap();
    let foreign = ids.iter().filter(|id| another.decode(&id[..]).is_some()).count();
    assert!(foreign < ids.len() / 4, "{foreign} of {} by another key", ids.len());
}

#[tokio::test]
async fn a_client_sends_no_more_than_can_be_forwarded() {
    let (_server, port) = server("127.0.0.1").await;
    let relay = Relay::new(local("127.0.0.1", port)).await;
    let mut large = MtuDiscoveryConfig::default();
    large.upper_bound(9000);
    let mut transport = TransportConfig::default();
    transport.mtu_discovery_config(Some(large));
    let mut config = common::client().unwrap();
    config.transport_config(Arc::new(transport));
    let client = client();
    let connecting = client.connect_with(config, relay.address, common::NAME).unwrap();
    let connection = timeout(PATIENCE, connecting).await.unwrap().unwrap();
    // Until the client has found out how large packets may be.
    for _ in 0..100 {
        echo(&connection, 100_000).await;
        if connection.stats().path.current_mtu == UDP_PAYLOAD_MAX {
            break;
        }
        sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(connection.stats().path.current_mtu, UDP_PAYLOAD_MAX);
    assert_eq!(relay.seen.lock().unwrap().longest, usize::from(UDP_PAYLOAD_MAX));
    assert_eq!(UDP_PAYLOAD_MAX, 1380);
}

/// Sees what a server tells about itself (RFC 9000 §18).
struct Told {
    by: Arc<dyn crypto::ServerConfig>,
    parameters: Arc<Mutex<String>>,
}

impl crypto::ServerConfig for Told {
    fn initial_keys(&self, version: u32, id: &ConnectionId) -> Result<crypto::Keys, crypto::UnsupportedVersion> {
        self.by.initial_keys(version, id)
    }

    fn retry_tag(&self, version: u32, original: &ConnectionId, packet: &[u8]) -> [u8; 16] {
        self.by.retry_tag(version, original, packet)
    }

    fn start_session(self: Arc<Self>, version: u32, parameters: &TransportParameters) -> Box<dyn crypto::Session> {
        *self.parameters.lock().unwrap() = format!("{parameters:?}");
        self.by.clone().start_session(version, parameters)
    }
}

#[tokio::test]
async fn clients_are_told_preferred_addresses_and_the_largest_payload() {
    let (socket, port) = socket("::");
    let mut server = common::server().unwrap();
    let parameters = Arc::<Mutex<String>>::default();
    server.crypto = Arc::new(Told { by: server.crypto, parameters: parameters.clone() });
    let anycast = anycast().prefer(local("127.0.0.2", port)).prefer(local("2001:db8::2", port));
    let endpoint = anycast.endpoint(EndpointConfig::default(), server, socket, Arc::new(TokioRuntime)).unwrap();
    serve(&endpoint);
    connect(&client(), local("127.0.0.1", port)).await;
    let parameters = parameters.lock().unwrap();
    for told in [
        format!("address_v4: Some(127.0.0.2:{port})"),
        format!("address_v6: Some([2001:db8::2]:{port})"),
        "max_udp_payload_size: 1380".to_owned(),
    ] {
        assert!(parameters.contains(&told), "{told} of {parameters}");
    }
}

/// Packets of one connection go to the first address, to the second, and back: where do answers come from?
async fn moves(endpoint: Endpoint, addresses: [SocketAddr; 2]) -> Vec<IpAddr> {
    serve(&endpoint);
    let relay = Relay::new(addresses[0]).await;
    let client = client();
    let connection = connect(&client, relay.address).await;
    let mut sources = Vec::new();
    for to in [addresses[0], addresses[1], addresses[0]] {
        relay.route(to);
        // What was on its way.
        echo(&connection, 1000).await;
        sleep(Duration::from_millis(50)).await;
        relay.sources();
        for _ in 0..5 {
            echo(&connection, 50_000).await;
        }
        let answered = relay.sources();
        assert_eq!(answered.len(), 1, "{answered:?}");
        sources.extend(answered);
    }
    sources
}

/// With the socket of ours, and without.
async fn both(wildcard: &str, [first, second]: [&str; 2]) {
    let [a, b]: [IpAddr; 2] = [first, second].map(|address| address.parse().unwrap());
    let runtime = || Arc::new(TokioRuntime);

    let (bound, port) = socket(wildcard);
    let anycast = |port| anycast().prefer(local(second, port));
    let endpoint =
        anycast(port).endpoint(EndpointConfig::default(), common::server().unwrap(), bound, runtime()).unwrap();
    let addresses = [local(first, port), local(second, port)];
    assert_eq!(moves(endpoint, addresses).await, [a, b, a], "where the peer was heard");

    let (bound, port) = socket(wildcard);
    let (mut config, mut server) = (EndpointConfig::default(), common::server().unwrap());
    anycast(port).configure(&mut config, &mut server).unwrap();
    let endpoint = Endpoint::new(config, Some(server), bound, runtime()).unwrap();
    let addresses = [local(first, port), local(second, port)];
    assert_eq!(moves(endpoint, addresses).await, [a, a, a], "quinn alone answers from where the first packet came");
}

#[tokio::test]
async fn answers_come_from_where_the_peer_was_heard() {
    both("0.0.0.0", ["127.0.0.1", "127.0.0.2"]).await;
}

/// IPv4 at a socket for both families, where addresses are of two shapes.
#[tokio::test]
async fn answers_come_from_where_the_peer_was_heard_at_a_socket_of_both_families() {
    if !ipv6() {
        return;
    }
    both("::", ["127.0.0.1", "127.0.0.2"]).await;
}

/// In a network namespace of its own, where loopback has a second address.
#[tokio::test]
async fn answers_come_from_where_the_peer_was_heard_over_ipv6() {
    const INSIDE: &str = "UBIQUE_QUIC_TEST_INSIDE";
    if std::env::var_os(INSIDE).is_some() {
        return both("::", ["::1", "2001:db8::2"]).await;
    }
    let prepare = "ip link set lo up && ip address add 2001:db8::2/128 dev lo nodad";
    let sandboxed = |script: &str| {
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--net", "sh", "-c", script]);
        command
    };
    if !sandboxed(prepare).output().is_ok_and(|output| output.status.success()) {
        return eprintln!("skipped: no network namespace with IPv6 here (unshare, ip)");
    }
    let mut test = sandboxed(&format!("{prepare} && exec \"$0\" \"$@\""));
    test.arg(std::env::current_exe().unwrap()).args(["--exact", "--nocapture"]);
    test.arg("answers_come_from_where_the_peer_was_heard_over_ipv6").env(INSIDE, "1");
    let output = test.output().unwrap();
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"), "{output:?}");
}

fn ipv6() -> bool {
    let there = UdpSocket::bind("[::1]:0").is_ok();
    if !there {
        eprintln!("skipped: no IPv6 here");
    }
    there
}

#[tokio::test]
async fn a_reset_answers_only_what_this_site_has_forgotten() {
    let (_server, port) = server("127.0.0.1").await;
    let peer = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    peer.connect(local("127.0.0.1", port)).await.unwrap();
    let mut random = [0xaa; 10];
    random[0] = config().encode(site(), [9; 7])[0];
    let ids = [random, config().encode(Site::new(6).unwrap(), [9; 7]), config().encode(site(), [9; 7])];
    let mut answers = [0; 3];
    for (id, answers) in ids.iter().zip(&mut answers) {
        let mut packet = [0x41; 100];
        packet[1..11].copy_from_slice(id);
        peer.send(&packet).await.unwrap();
        while timeout(Duration::from_millis(200), peer.recv(&mut [0; 1500])).await.is_ok() {
            *answers += 1;
        }
    }
    assert_eq!(answers, [0, 0, 1], "random, of another site, of this site");
}

#[tokio::test]
async fn a_preferred_address_elsewhere_is_refused() {
    let (bound, port) = socket("127.0.0.1");
    let anycast = anycast().prefer(local("127.0.0.2", port));
    let refused = anycast.endpoint(EndpointConfig::default(), common::server().unwrap(), bound, Arc::new(TokioRuntime));
    assert!(matches!(refused, Err(EndpointError::Unreachable { .. })));
}
