//! The driver itself: one pollable value.

mod change;
mod turns;

use std::collections::{BTreeMap, VecDeque};
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::Sleep;
use ubique_model::{Asn, Family, Prefix};
use ubique_proto::Time;
use ubique_proto::bgp::attributes::NextHop;
use ubique_proto::bgp::speaker::{ConnId, In, Local, MAX_PEERS, Out, PeerId, SessionEvent, Speaker, SpeakerConfig};
use ubique_proto::journal::Recorded;

use super::Tap;
use super::callers::{Call, Caller, Callers, Range, Refusal};
use super::connection::Connection;
use super::interfaces::Interfaces;
use super::listeners::Listeners;
use super::socket::{self, Endpoint, Place};
use crate::clock::{instant, now};
use crate::journal::Journal;
use crate::limits::{self, Throttle};
use turns::Round;

/// Bytes read from a connection at a time: what the core does with so many full of routes takes well below 1 ms, and
/// nothing else happens meanwhile.
const READ_BYTES: usize = 4 << 10;

/// Connections of one neighbour at a time; a collision (RFC 4271 §6.8) needs two, lingering ones some more.
const CONNECTIONS_PER_PEER: usize = 6;

/// Connections of callers from ranges at a time, of all ranges together: those that have not said who they are, and those
/// that are being closed, included. Where fewer files may be open it is half of them.
const CALLERS: usize = 2 * MAX_PEERS;

/// At most one log line about refused connections in this time.
const REFUSED_LOG_EVERY: Duration = Duration::from_secs(10);

/// Configuration of a driver.
pub struct DriverConfig {
    /// The core's.
    pub speaker: SpeakerConfig,
    /// Transport side of each neighbour, in the order of [`SpeakerConfig::peers`].
    pub endpoints: Vec<Endpoint>,
    /// Neighbours known by where they call from only.
    pub ranges: Vec<Range>,
    /// Where sockets are opened; `None`: in the namespace of the process.
    pub place: Option<Place>,
    /// Port to listen on; `None`: only connect.
    pub listen: Option<u16>,
    /// Some neighbour only calls: it is an error when nothing can listen. Otherwise it is tried again.
    pub must_listen: bool,
    /// Where the core's inputs are written down.
    pub journal: Option<Journal>,
    /// Who follows messages and sessions.
    pub tap: Option<Rc<dyn Tap>>,
}

/// Why a driver cannot start.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    /// A listener cannot be opened.
    #[error("cannot listen on TCP port {port} ({family}{})", on(interface.as_deref()))]
    Listen {
        /// Port.
        port: u16,
        /// Family.
        family: Family,
        /// The interface of neighbours that have one.
        interface: Option<String>,
        /// Why.
        #[source]
        source: io::Error,
    },
}

fn on(interface: Option<&str>) -> String {
    interface.map(|name| format!(", interface {name}")).unwrap_or_default()
}

/// What the owner of a driver learns.
#[derive(Clone, Debug, PartialEq)]
pub enum Notice {
    /// A session came up or went down.
    Session {
        /// Which neighbour.
        peer: PeerId,
        /// What happened.
        event: SessionEvent,
    },
    /// The best route of a prefix changed.
    Best {
        /// Destination.
        prefix: Prefix,
        /// Next hop and neighbour; `None`: no route is left.
        next_hop: Option<(NextHop, PeerId)>,
    },
    /// Routes of a neighbour to the prefixes of [`SpeakerConfig::scope`] may have changed.
    Scope {
        /// Which neighbour.
        peer: PeerId,
    },
    /// A neighbour's TCP acknowledged more of what was sent: what is announced may have changed.
    Acknowledged {
        /// Which neighbour.
        peer: PeerId,
    },
    /// Somebody called from a range: a neighbour until [`Notice::Left`].
    Joined {
        /// Its number.
        peer: PeerId,
        /// Its address.
        address: IpAddr,
        /// Its AS.
        asn: Asn,
        /// Index of the range in [`DriverConfig::ranges`].
        range: usize,
    },
    /// Its last connection is gone, and its number is free again.
    Left {
        /// Which.
        peer: PeerId,
    },
}

impl Notice {
    /// The neighbour it is about.
    fn peer(&self) -> Option<PeerId> {
        match self {
            Notice::Session { peer, .. }
            | Notice::Acknowledged { peer }
            | Notice::Joined { peer, .. }
            | Notice::Scope { peer, .. }
            | Notice::Left { peer } => Some(*peer),
            Notice::Best { .. } => None,
        }
    }
}

type Connecting = Pin<Box<dyn Future<Output = io::Result<TcpStream>>>>;

/// A speaker with its sockets.
pub struct Driver {
    speaker: Recorded<Speaker, Journal>,
    tap: Option<Rc<dyn Tap>>,
    callers: Callers,
    /// What addresses of ours are no next hops.
    scope: Vec<Prefix>,
    place: Option<Place>,
    listeners: Listeners,
    interfaces: Interfaces,
    /// Who has not said yet which AS he is in.
    waiting: Vec<Caller>,
    connecting: BTreeMap<PeerId, Connecting>,
    /// Why the last attempt to connect failed; none once a connection stood.
    connect_errors: BTreeMap<PeerId, String>,
    connections: BTreeMap<ConnId, Connection>,
    next_conn: u64,
    round: Round,
    /// The last turn ended because it was long enough, and others have not had theirs yet.
    used_up: bool,
    timer: Pin<Box<Sleep>>,
    armed: Option<Time>,
    notices: VecDeque<Notice>,
    /// Inputs that came up while an output was carried out.
    feedback: VecDeque<In>,
    buffer: Box<[u8]>,
    /// [`CALLERS`], or fewer.
    callers_max: usize,
    refused: u64,
    refused_logged: Option<Time>,
    throttle: Throttle,
}

impl Driver {
    /// Opens the listeners; no session starts before [`In::Start`]. Must be called on a tokio runtime.
    pub fn new(config: DriverConfig) -> Result<Driver, DriverError> {
        let callers = Callers::new(config.endpoints, config.ranges);
        let listeners = match config.listen {
            Some(port) => Listeners::open(now(), config.place.as_ref(), port, &callers, config.must_listen)?,
            None => Listeners::none(),
        };
        Ok(Driver {
            callers,
            scope: config.speaker.scope.clone().unwrap_or_default(),
            speaker: Recorded::new(
                now(),
                SpeakerConfig { tap: config.tap.is_some(), ..config.speaker },
                config.journal,
            ),
            tap: config.tap,
            place: config.place,
            listeners,
            interfaces: Interfaces::default(),
            waiting: Vec::new(),
            connecting: BTreeMap::new(),
            connect_errors: BTreeMap::new(),
            connections: BTreeMap::new(),
            next_conn: 0,
            round: Round::new(now()),
            used_up: false,
            timer: Box::pin(tokio::time::sleep(Duration::ZERO)),
            armed: None,
            notices: VecDeque::new(),
            feedback: VecDeque::new(),
            buffer: vec![0; READ_BYTES].into_boxed_slice(),
            callers_max: CALLERS.min(limits::descriptors() / 2),
            refused: 0,
            refused_logged: None,
            throttle: Throttle::default(),
        })
    }

    /// The core, to be asked about its state.
    pub fn speaker(&self) -> &Speaker {
        &self.speaker
    }

    /// Why a neighbour cannot be connected to, when that is so.
    pub fn connect_error(&self, peer: PeerId) -> Option<&str> {
        self.connect_errors.get(&peer).map(String::as_str)
    }

    /// The transport side of a neighbour.
    pub fn endpoint(&self, peer: PeerId) -> Option<&Endpoint> {
        self.callers.endpoint(peer)
    }

    /// Connections refused because no neighbour has that address, or it has too many already.
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// Feeds the core and carries out its answers: bytes are in the sockets, or queued, on return.
    pub fn handle(&mut self, input: In) {
        let now = now();
        self.speaker.handle_input(now, input);
        self.carry_out(now);
    }

    fn carry_out(&mut self, now: Time) {
        loop {
            while let Some(out) = self.speaker.poll_output() {
                self.execute(now, out);
            }
            match self.feedback.pop_front() {
                Some(input) => self.speaker.handle_input(now, input),
                None => return,
            }
        }
    }

    fn execute(&mut self, now: Time, out: Out) {
        match out {
            Out::Connect { peer } => self.connect(peer),
            Out::CancelConnect { peer } => {
                // Otherwise the neighbour's own call was taken.
                let alone = !self.connections.values().any(|c| c.peer == peer && !c.is_closing());
                if self.connecting.remove(&peer).is_some() && alone {
                    self.cannot_connect(peer, "no answer".to_owned());
                }
            }
            Out::Send { conn, bytes } => {
                let Some(connection) = self.connections.get_mut(&conn) else {
                    return;
                };
                if connection.send(now, &bytes).is_err() {
                    self.lost(conn);
                }
            }
            Out::Close { conn } => {
                if let Some(connection) = self.connections.get_mut(&conn) {
                    connection.close(now);
                    if connection.finish(now) {
                        self.connections.remove(&conn);
                    }
                }
            }
            Out::Session { peer, event } => {
                if let (Some(tap), Some(status)) = (&self.tap, self.speaker.peer(peer)) {
                    let connection = self.connections.values().find(|c| c.peer == peer && !c.is_closing());
                    tap.session(&status, &event, connection.map_or((0, 0), Connection::ports));
                }
                self.notices.push_back(Notice::Session { peer, event });
            }
            Out::Refused { peer, reason } => {
                if let Some(unwritten) = self.throttle.admit(now) {
                    tracing::error!(peer = peer.0, reason, unwritten, "refused");
                }
            }
            Out::Message { peer, sent, bytes, .. } => {
                if let (Some(tap), Some(status)) = (&self.tap, self.speaker.peer(peer)) {
                    tap.message(&status, sent, &bytes);
                }
            }
            Out::Scope { peer } => self.notices.push_back(Notice::Scope { peer }),
            Out::Best { prefix, next_hop } => self.notices.push_back(Notice::Best { prefix, next_hop }),
        }
    }

    fn connect(&mut self, peer: PeerId) {
        let Some(endpoint) = self.callers.endpoint(peer) else {
            return;
        };
        match socket::connector(self.place.as_ref(), endpoint) {
            Ok(socket) => {
                let remote = SocketAddr::new(endpoint.remote, endpoint.port);
                self.connecting.insert(peer, Box::pin(socket.connect(remote)));
            }
            Err(error) => {
                self.feedback.push_back(In::ConnectFailed { peer });
                self.cannot_connect(peer, error.to_string());
            }
        }
    }

    /// Remembers why, and says so once.
    fn cannot_connect(&mut self, peer: PeerId, error: String) {
        if self.connect_errors.get(&peer) != Some(&error) {
            let address = self.callers.endpoint(peer).map(|e| e.remote);
            tracing::info!(address = address.map(tracing::field::display), error, "cannot connect");
            self.connect_errors.insert(peer, error);
        }
    }

    /// The connection broke, or its queue is full.
    fn lost(&mut self, conn: ConnId) {
        if let Some(connection) = self.connections.remove(&conn)
            && !connection.is_closing()
        {
            self.feedback.push_back(In::Closed { conn });
        }
    }

    /// The next thing the owner should know. Cancel-safe: all state is in the driver.
    pub async fn next(&mut self) -> Notice {
        poll_fn(|cx| self.poll(cx)).await
    }

    /// Takes no more calls.
    pub fn stop_listening(&mut self) {
        self.listeners = Listeners::none();
        self.waiting.clear();
    }

    /// Waits until the last bytes of all closed connections are out, and discards what is to be known.
    pub async fn drained(&mut self) {
        poll_fn(|cx| {
            while self.poll(cx).is_ready() {}
            if self.connections.is_empty() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    fn accepted(&mut self, now: Time, stream: TcpStream, from: IpAddr, listener: usize) {
        // Who calls again before he has said who he is has given the first call up; he has one place in the range.
        self.waiting.retain(|c| c.from != from);
        let waiting = |range| self.waiting.iter().filter(|c| c.range == range).count();
        let call = self.callers.call(from, self.listeners.interface(listener), waiting);
        if let Some(cause) = self.crowded(&call, from) {
            return self.refuse(now, from, cause);
        }
        match call {
            Call::Known(peer) => self.take(now, peer, stream, Vec::new()),
            Call::FromRange(range) => match self.callers.range(range).map(|r| r.asns.as_slice()) {
                Some([asn]) => {
                    let asn = *asn;
                    self.join(now, Caller::new(now, stream, from, range), asn);
                }
                _ => self.waiting.push(Caller::new(now, stream, from, range)),
            },
            Call::Refused(cause) => self.refuse(now, from, cause),
        }
    }

    /// Connections that are being closed count as well: whoever does not close his end keeps ours open for a while, and
    /// checks need descriptors, too.
    fn crowded(&self, call: &Call, from: IpAddr) -> Option<Refusal> {
        let called = || self.connections.values().filter_map(|c| c.caller);
        let (held, of_range) = match *call {
            Call::Known(peer) => {
                let his = |c: &&Connection| c.peer == peer || c.caller == Some(from);
                (self.connections.values().filter(his).count(), self.callers.is_dynamic(peer))
            }
            Call::FromRange(_) => (called().filter(|caller| *caller == from).count(), true),
            Call::Refused(_) => return None,
        };
        if held >= CONNECTIONS_PER_PEER {
            return Some("too many connections");
        }
        let full = of_range && called().count() + self.waiting.len() >= self.callers_max;
        full.then_some("there are too many callers")
    }

    fn refuse(&mut self, now: Time, from: IpAddr, cause: Refusal) {
        self.refused += 1;
        if self.refused_logged.is_none_or(|at| now.since(at) >= REFUSED_LOG_EVERY) {
            self.refused_logged = Some(now);
            tracing::warn!(%from, cause, refused = self.refused, "BGP connection refused");
        }
    }

    /// A caller of a range has become a neighbour. One in an AS that the range does not have is one, too: the core tells
    /// him that his AS is wrong.
    fn join(&mut self, now: Time, caller: Caller, asn: Asn) {
        let Caller { stream, from: address, range, said, .. } = caller;
        let allowed = self.callers.range(range).map(|r| &r.asns);
        let asn = match allowed {
            Some(asns) if asns.contains(&asn) => asn,
            Some(asns) => asns.first().copied().unwrap_or(asn),
            None => return,
        };
        let Some((peer, config)) = self.callers.join(range, address, asn) else {
            return;
        };
        self.speaker.handle_input(now, In::AddPeer { peer, config: Box::new(config) });
        self.speaker.handle_input(now, In::StartPeer(peer));
        self.notices.push_back(Notice::Joined { peer, address, asn, range });
        self.take(now, peer, stream, said);
    }

    /// An accepted connection of a neighbour, on which he has `said` something already.
    fn take(&mut self, now: Time, peer: PeerId, stream: TcpStream, said: Vec<u8>) {
        let Some((conn, local)) = self.adopt(peer, stream) else {
            if let Some(from) = self.callers.endpoint(peer).map(|e| e.remote) {
                self.refuse(now, from, "it was gone at once");
            }
            return;
        };
        self.speaker.handle_input(now, In::Accepted { peer, conn, local });
        self.carry_out(now);
        if !said.is_empty() {
            self.speaker.handle_input(now, In::Received { conn, bytes: said });
            self.carry_out(now);
        }
    }

    fn adopt(&mut self, peer: PeerId, stream: TcpStream) -> Option<(ConnId, Local)> {
        let local = stream.local_addr().ok()?;
        let endpoint = self.callers.endpoint(peer)?;
        socket::tune(&stream, endpoint).ok()?;
        // Embedded routers speak one family a session, on links without further addresses.
        let local = match self.place {
            Some(_) => local.ip().into(),
            None => self.interfaces.local(local, endpoint.remote, &self.scope),
        };
        let conn = ConnId(self.next_conn);
        self.next_conn += 1;
        self.connect_errors.remove(&peer);
        let caller = self.callers.is_dynamic(peer).then_some(endpoint.remote);
        self.connections.insert(conn, Connection::new(peer, stream, caller));
        Some((conn, local))
    }

    /// Neighbours of ranges whose last connection is gone.
    fn leave(&mut self) {
        let gone = |peer: &PeerId| !self.connections.values().any(|c| c.peer == *peer && !c.is_closing());
        let told = |peer: &PeerId| self.notices.iter().any(|n| *n == Notice::Left { peer: *peer });
        let left: Vec<PeerId> = self.callers.dynamic().filter(|p| gone(p) && !told(p)).collect();
        self.notices.extend(left.into_iter().map(|peer| Notice::Left { peer }));
    }

    /// The neighbour is forgotten when the owner is told, so that its number means one neighbour to him at any time.
    fn forget(&mut self, now: Time, peer: PeerId) {
        self.callers.leave(peer);
        self.connect_errors.remove(&peer);
        self.speaker.handle_input(now, In::RemovePeer { peer });
        self.carry_out(now);
    }
}

#[cfg(test)]
mod tests;
