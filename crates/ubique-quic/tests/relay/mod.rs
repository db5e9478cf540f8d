//! Between a client and a server: sees all packets, and decides to which address of the server they go.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};

use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

/// What was seen.
#[derive(Default)]
pub struct Seen {
    /// Identifiers in short headers of the client.
    pub short: Vec<[u8; 10]>,
    /// Identifiers in its long headers.
    pub long: Vec<Vec<u8>>,
    /// Longest packet from the client, octets.
    pub longest: usize,
    /// Where the server's packets came from.
    pub sources: Vec<IpAddr>,
}

/// One for each client.
pub struct Relay {
    /// Where the client is to send.
    pub address: SocketAddr,
    pub seen: Arc<Mutex<Seen>>,
    to: Arc<Mutex<SocketAddr>>,
    task: JoinHandle<()>,
}

impl Relay {
    pub async fn new(to: SocketAddr) -> Relay {
        let loopback = |family: &SocketAddr| if family.is_ipv4() { "127.0.0.1:0" } else { "[::1]:0" };
        let front = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let back = UdpSocket::bind(loopback(&to)).await.unwrap();
        let address = front.local_addr().unwrap();
        let (seen, to) = (Arc::<Mutex<Seen>>::default(), Arc::new(Mutex::new(to)));
        let task = tokio::spawn(relay(front, back, seen.clone(), to.clone()));
        Relay { address, seen, to, task }
    }

    /// From now on the client's packets go there.
    pub fn route(&self, to: SocketAddr) {
        *self.to.lock().unwrap() = to;
    }

    /// Where the server's packets came from since the last time.
    pub fn sources(&self) -> Vec<IpAddr> {
        let mut sources = std::mem::take(&mut self.seen.lock().unwrap().sources);
        sources.sort();
        sources.dedup();
        sources
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn relay(front: UdpSocket, back: UdpSocket, seen: Arc<Mutex<Seen>>, to: Arc<Mutex<SocketAddr>>) {
    let mut client = None;
    let (mut asked, mut answered) = ([0; 65_536], [0; 65_536]);
    loop {
        tokio::select! {
            Ok((length, from)) = front.recv_from(&mut asked) => {
                client = Some(from);
                seen.lock().unwrap().packet(&asked[..length]);
                let to = *to.lock().unwrap();
                back.send_to(&asked[..length], to).await.unwrap();
            }
            Ok((length, from)) = back.recv_from(&mut answered) => {
                seen.lock().unwrap().sources.push(from.ip());
                front.send_to(&answered[..length], client.unwrap()).await.unwrap();
            }
        }
    }
}

impl Seen {
    /// The destination identifier, by RFC 8999 §5.
    fn packet(&mut self, packet: &[u8]) {
        self.longest = self.longest.max(packet.len());
        if packet[0] & 0x80 == 0 {
            self.short.push(packet[1..11].try_into().unwrap());
        } else {
            self.long.push(packet[6..6 + usize::from(packet[5])].to_vec());
        }
    }
}
