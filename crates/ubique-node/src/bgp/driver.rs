//! The driver itself: one pollable value.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::time::Sleep;
use ubique_model::{Family, Prefix};
use ubique_proto::Time;
use ubique_proto::bgp::attributes::NextHop;
use ubique_proto::bgp::speaker::{ConnId, In, Out, PeerId, SessionEvent, Speaker, SpeakerConfig};
use ubique_proto::journal::Recorded;

use super::Tap;
use super::connection::{Connection, Read};
use super::socket::{self, Endpoint, Place};
use crate::clock::{instant, now};
use crate::journal::Journal;

/// Bytes read from a connection at a time.
const READ_BYTES: usize = 16 << 10;

/// Reads from one connection before the others get their turn.
const READS_IN_A_ROW: usize = 4;

/// Rounds over all connections before the owner gets its turn: an upstream that sends a full table must not keep checks,
/// requests and collectors waiting.
const ROUNDS_IN_A_ROW: usize = 2;

/// Connections of one neighbour at a time; a collision (RFC 4271 §6.8) needs two, lingering ones some more.
const CONNECTIONS_PER_PEER: usize = 6;

/// At most one log line about refused connections in this time.
const REFUSED_LOG_EVERY: Duration = Duration::from_secs(10);

/// Configuration of a driver.
pub struct DriverConfig {
    /// The core's.
    pub speaker: SpeakerConfig,
    /// Transport side of each neighbour, in the order of [`SpeakerConfig::peers`].
    pub endpoints: Vec<Endpoint>,
    /// Where sockets are opened; `None`: in the namespace of the process.
    pub place: Option<Place>,
    /// Port to listen on; `None`: only connect.
    pub listen: Option<u16>,
    /// Where the core's inputs are written down.
    pub journal: Option<Journal>,
    /// Who follows messages and sessions.
    pub tap: Option<Rc<dyn Tap>>,
}

/// Why a driver cannot start.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    /// A listener cannot be opened.
    #[error("cannot listen on TCP port {port} ({family})")]
    Listen {
        /// Port.
        port: u16,
        /// Family.
        family: Family,
        /// Why.
        #[source]
        source: io::Error,
    },
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
    /// A neighbour's TCP acknowledged more of what was sent: what is announced may have changed.
    Acknowledged {
        /// Which neighbour.
        peer: PeerId,
    },
}

type Connecting = Pin<Box<dyn Future<Output = io::Result<TcpStream>>>>;

/// A speaker with its sockets.
pub struct Driver {
    speaker: Recorded<Speaker, Journal>,
    tap: Option<Rc<dyn Tap>>,
    endpoints: Vec<Endpoint>,
    by_address: HashMap<IpAddr, PeerId>,
    place: Option<Place>,
    listeners: Vec<TcpListener>,
    connecting: BTreeMap<PeerId, Connecting>,
    /// Why the last attempt to connect failed; none once a connection stood.
    connect_errors: BTreeMap<PeerId, String>,
    connections: BTreeMap<ConnId, Connection>,
    next_conn: u64,
    timer: Pin<Box<Sleep>>,
    armed: Option<Time>,
    notices: VecDeque<Notice>,
    /// Inputs that came up while an output was carried out.
    feedback: VecDeque<In>,
    buffer: Box<[u8]>,
    refused: u64,
    refused_logged: Option<Time>,
}

impl Driver {
    /// Opens the listeners; no session starts before [`In::Start`]. Must be called on a tokio runtime.
    pub fn new(config: DriverConfig) -> Result<Driver, DriverError> {
        let mut listeners = Vec::new();
        if let Some(port) = config.listen {
            for family in Family::ALL {
                if config.endpoints.iter().any(|e| Family::of_address(e.remote) == family) {
                    let listener = socket::listen(config.place.as_ref(), family, port, &config.endpoints)
                        .map_err(|source| DriverError::Listen { port, family, source })?;
                    listeners.push(listener);
                }
            }
        }
        let by_address = (0..).map(PeerId).zip(&config.endpoints).map(|(id, e)| (e.remote, id)).collect();
        Ok(Driver {
            speaker: Recorded::new(
                now(),
                SpeakerConfig { tap: config.tap.is_some(), ..config.speaker },
                config.journal,
            ),
            tap: config.tap,
            endpoints: config.endpoints,
            by_address,
            place: config.place,
            listeners,
            connecting: BTreeMap::new(),
            connect_errors: BTreeMap::new(),
            connections: BTreeMap::new(),
            next_conn: 0,
            timer: Box::pin(tokio::time::sleep(Duration::ZERO)),
            armed: None,
            notices: VecDeque::new(),
            feedback: VecDeque::new(),
            buffer: vec![0; READ_BYTES].into_boxed_slice(),
            refused: 0,
            refused_logged: None,
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
                if self.connecting.remove(&peer).is_some() {
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
            Out::Refused { peer, reason } => tracing::error!(peer = peer.0, reason, "refused to announce"),
            Out::Message { peer, sent, bytes, .. } => {
                if let (Some(tap), Some(status)) = (&self.tap, self.speaker.peer(peer)) {
                    tap.message(&status, sent, &bytes);
                }
            }
            Out::Best { prefix, next_hop } => self.notices.push_back(Notice::Best { prefix, next_hop }),
        }
    }

    fn connect(&mut self, peer: PeerId) {
        let Some(endpoint) = self.endpoints.get(peer.0 as usize) else {
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
            let address = self.endpoints.get(peer.0 as usize).map(|e| e.remote);
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

    /// Makes all progress that is possible now.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Notice> {
        for _ in 0..ROUNDS_IN_A_ROW {
            if let Some(notice) = self.notices.pop_front() {
                return Poll::Ready(notice);
            }
            let now = now();
            let mut progress = self.poll_accept(cx, now);
            progress |= self.poll_connecting(cx, now);
            progress |= self.poll_connections(cx, now);
            // What the sockets have comes before a deadline: after a pause of this process the KEEPALIVE that
            // keeps a session alive may lie unread.
            if !progress && !self.poll_timer(cx, now) && self.notices.is_empty() {
                return Poll::Pending;
            }
        }
        // Not a plain wake-up: the runtime looks at its timers and sockets before it comes back here.
        let _ = pin!(tokio::task::yield_now()).poll(cx);
        Poll::Pending
    }

    /// Waits until the last bytes of all closed connections are out, and discards what is to be known.
    pub async fn drained(&mut self) {
        poll_fn(|cx| {
            while self.poll(cx).is_ready() {}
            if self.connections.is_empty() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    fn poll_accept(&mut self, cx: &mut Context<'_>, now: Time) -> bool {
        let mut progress = false;
        for index in 0..self.listeners.len() {
            // An error of accept concerns one connection that is gone, or too many open files: that passes.
            while let Poll::Ready(Ok((stream, from))) = self.listeners[index].poll_accept(cx) {
                progress = true;
                self.accepted(now, stream, from.ip());
            }
        }
        progress
    }

    fn accepted(&mut self, now: Time, stream: TcpStream, from: IpAddr) {
        let peer = self.by_address.get(&from).copied();
        let room = |&p: &PeerId| self.connections.values().filter(|c| c.peer == p).count() < CONNECTIONS_PER_PEER;
        let Some(peer) = peer.filter(room) else {
            self.refused += 1;
            if self.refused_logged.is_none_or(|at| now.since(at) >= REFUSED_LOG_EVERY) {
                self.refused_logged = Some(now);
                let cause = if peer.is_some() { "too many connections" } else { "no neighbor has this address" };
                tracing::warn!(%from, cause, refused = self.refused, "BGP connection refused");
            }
            return;
        };
        if let Some((conn, local)) = self.adopt(peer, stream) {
            self.speaker.handle_input(now, In::Accepted { peer, conn, local: local.into() });
            self.carry_out(now);
        }
    }

    fn adopt(&mut self, peer: PeerId, stream: TcpStream) -> Option<(ConnId, IpAddr)> {
        let local = stream.local_addr().ok()?.ip();
        socket::tune(&stream, self.endpoints.get(peer.0 as usize)?).ok()?;
        let conn = ConnId(self.next_conn);
        self.next_conn += 1;
        self.connect_errors.remove(&peer);
        self.connections.insert(conn, Connection::new(peer, stream));
        Some((conn, local))
    }

    fn poll_connecting(&mut self, cx: &mut Context<'_>, now: Time) -> bool {
        let mut done = Vec::new();
        for (&peer, attempt) in &mut self.connecting {
            if let Poll::Ready(result) = attempt.as_mut().poll(cx) {
                done.push((peer, result));
            }
        }
        let progress = !done.is_empty();
        for (peer, result) in done {
            // What was fed before may have cancelled this one.
            if self.connecting.remove(&peer).is_none() {
                continue;
            }
            let input = match result {
                Ok(stream) => {
                    self.adopt(peer, stream).map(|(conn, local)| In::Connected { peer, conn, local: local.into() })
                }
                Err(error) => {
                    self.cannot_connect(peer, error.to_string());
                    None
                }
            };
            self.speaker.handle_input(now, input.unwrap_or(In::ConnectFailed { peer }));
            self.carry_out(now);
        }
        progress
    }

    fn poll_connections(&mut self, cx: &mut Context<'_>, now: Time) -> bool {
        let mut progress = false;
        let ids: Vec<ConnId> = self.connections.keys().copied().collect();
        for conn in ids {
            progress |= self.poll_connection(cx, now, conn);
        }
        progress
    }

    fn poll_connection(&mut self, cx: &mut Context<'_>, now: Time, conn: ConnId) -> bool {
        for _ in 0..READS_IN_A_ROW {
            let Some(connection) = self.connections.get_mut(&conn) else {
                return true;
            };
            let broken = connection.poll_write(cx).is_err();
            if broken || connection.finish(now) {
                self.lost(conn);
                self.carry_out(now);
                return true;
            }
            let closing = connection.is_closing();
            match connection.poll_read(cx, &mut self.buffer) {
                Poll::Pending => return false,
                Poll::Ready(Read::End) => {
                    self.lost(conn);
                    self.carry_out(now);
                    return true;
                }
                Poll::Ready(Read::Bytes(_)) if closing => {}
                Poll::Ready(Read::Bytes(count)) => {
                    let bytes = self.buffer[..count].to_vec();
                    self.speaker.handle_input(now, In::Received { conn, bytes });
                    self.carry_out(now);
                }
            }
        }
        true
    }

    fn poll_timer(&mut self, cx: &mut Context<'_>, now: Time) -> bool {
        let due = |at: Option<Time>| at.is_some_and(|at| at <= now);
        let mut progress = false;
        if due(self.speaker.next_deadline()) {
            self.speaker.handle_deadline(now);
            self.carry_out(now);
            progress = true;
        }
        let mut looks = Vec::new();
        for (&conn, connection) in &mut self.connections {
            if let Some(offset) = connection.look(now) {
                looks.push((conn, connection.peer, offset));
            }
        }
        for (conn, peer, offset) in looks {
            self.speaker.handle_input(now, In::Acknowledged { conn, offset });
            self.carry_out(now);
            self.notices.push_back(Notice::Acknowledged { peer });
            progress = true;
        }
        progress | self.arm(cx, now)
    }

    /// Arms the one timer for the earliest deadline. True: that has come.
    fn arm(&mut self, cx: &mut Context<'_>, now: Time) -> bool {
        let connections = self.connections.values().filter_map(Connection::next_deadline).min();
        let next = [self.speaker.next_deadline(), connections].into_iter().flatten().min();
        if next != self.armed {
            self.armed = next;
            if let Some(at) = next {
                self.timer.as_mut().reset(instant(at, now));
            }
        }
        if self.armed.is_some() && self.timer.as_mut().poll(cx).is_ready() {
            self.armed = None;
            return true;
        }
        false
    }
}
