//! A neighbour on a test bench: inputs by name, outputs as one line of text.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use ubique_model::{Asn, Family, Relation};

use crate::bgp::family::AddressFamilies;
use crate::bgp::message::{Capability, GracefulRestart, Message, Notification, Open};
use crate::bgp::session::{CROSSING_TIME, Ended, Output, Refresh, Session, SessionConfig, State};
use crate::bgp::speaker::{ConnId, DownReason, GracefulRestartConfig, PeerConfig};
use crate::bgp::wire::{self, DecodeContext, MAX_MESSAGE};
use crate::time::Time;

pub(super) const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
pub(super) const OUR_ID: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
pub(super) const LOW_ID: Ipv4Addr = Ipv4Addr::new(1, 1, 1, 1);
pub(super) const HIGH_ID: Ipv4Addr = Ipv4Addr::new(200, 1, 1, 1);
/// Numbers for connections: the one we open, the one the neighbour opens.
pub(super) const A: ConnId = ConnId(1);
pub(super) const P: ConnId = ConnId(2);

pub(super) fn config() -> SessionConfig {
    SessionConfig {
        local_asn: Asn(64500),
        router_id: OUR_ID,
        peer: PeerConfig::new(Ipv4Addr::new(192, 0, 2, 2).into(), Asn(64501), Relation::Transit),
        seed: 7,
        restarted: None,
        tap: false,
    }
}

/// [`config`] with another neighbour.
pub(super) fn with(change: impl FnOnce(&mut PeerConfig)) -> SessionConfig {
    let mut config = config();
    change(&mut config.peer);
    config
}

/// The OPEN of a neighbour that suits [`config`].
pub(super) fn their_open(router_id: Ipv4Addr) -> Open {
    Open {
        asn: Asn(64501),
        hold_time_s: 90,
        router_id,
        capabilities: vec![
            Capability::Multiprotocol(Family::Ipv4.into()),
            Capability::RouteRefresh,
            Capability::FourOctetAs(Asn(64501)),
        ],
    }
}

/// Graceful restart as [`Bench::graceful`] offers it.
pub(super) const GR: GracefulRestartConfig =
    GracefulRestartConfig { restart_time: Duration::from_secs(60), long_lived: None };

/// [`their_open`] with graceful restart.
pub(super) fn their_graceful_open(notification: bool) -> Open {
    let mut open = their_open(LOW_ID);
    open.capabilities.push(Capability::GracefulRestart(GracefulRestart {
        restarting: false,
        notification,
        restart_time: Duration::from_secs(120),
        families: vec![(Family::Ipv4.into(), true)],
    }));
    open
}

pub(super) fn open_bytes(open: &Open) -> Vec<u8> {
    let mut bytes = vec![];
    wire::encode_open(open, &mut bytes);
    bytes
}

pub(super) fn keepalive() -> Vec<u8> {
    let mut bytes = vec![];
    wire::encode_keepalive(&mut bytes);
    bytes
}

pub(super) fn notification(code: u8, subcode: u8) -> Vec<u8> {
    let mut bytes = vec![];
    wire::encode_notification(&Notification::new(code, subcode), &mut bytes);
    bytes
}

pub(super) fn refresh(family: Family) -> Vec<u8> {
    refresh_of(family, 0)
}

pub(super) fn refresh_of(family: Family, subtype: u8) -> Vec<u8> {
    let mut bytes = vec![];
    wire::encode_route_refresh(family.into(), subtype, &mut bytes);
    bytes
}

/// An UPDATE that says nothing but End-of-RIB.
pub(super) fn update() -> Vec<u8> {
    let mut bytes = vec![];
    wire::encode_end_of_rib(Family::Ipv4.into(), &mut bytes);
    bytes
}

/// An UPDATE whose withdrawn routes are longer than the message.
pub(super) fn bad_update() -> Vec<u8> {
    let mut bytes = update();
    bytes[20] = 200;
    bytes
}

pub(super) struct Bench {
    pub(super) session: Session,
    pub(super) now: Time,
}

impl Bench {
    pub(super) fn new(config: &SessionConfig) -> Bench {
        Bench { session: Session::new(config), now: Time(1_000_000_000) }
    }

    /// A neighbour in the given state, its outputs so far thrown away. Connection [`A`] where there is one.
    pub(super) fn in_state(state: State) -> Bench {
        let mut b = Bench::new(&config());
        if state >= State::Connect {
            b.session.start(b.now);
        }
        if state == State::Active {
            b.session.connect_failed(b.now);
        }
        if state >= State::OpenSent {
            b.session.connected(b.now, A, LOCAL);
        }
        if state >= State::OpenConfirm {
            b.receive(A, &open_bytes(&their_open(LOW_ID)));
        }
        if state >= State::Established {
            b.receive(A, &keepalive());
        }
        b.outputs();
        assert_eq!(b.session.state(), state);
        b
    }

    /// Established, graceful restart agreed on, for long enough that nothing crosses any more.
    pub(super) fn graceful(notification: bool) -> Bench {
        let mut b = Bench::new(&with(|peer| peer.graceful_restart = Some(GR)));
        b.session.start(b.now);
        b.session.connected(b.now, A, LOCAL);
        b.receive(A, &open_bytes(&their_graceful_open(notification)));
        b.receive(A, &keepalive());
        b.wait(CROSSING_TIME);
        b.outputs();
        assert_eq!(b.session.state(), State::Established);
        b
    }

    /// Idle after an error, waiting to call again.
    pub(super) fn held() -> Bench {
        let mut b = Bench::in_state(State::OpenSent);
        b.receive(A, &[0; 19]);
        b.outputs();
        assert_eq!(b.session.state(), State::Idle);
        b
    }

    /// Waiting for a neighbour it never calls.
    pub(super) fn listening() -> Bench {
        let mut b = Bench::new(&with(|peer| peer.passive = true));
        b.session.start(b.now);
        b
    }

    pub(super) fn receive(&mut self, conn: ConnId, bytes: &[u8]) {
        self.session.received(self.now, conn, bytes);
    }

    pub(super) fn wait(&mut self, d: Duration) {
        let end = self.now + d;
        while let Some(at) = self.session.next_deadline().filter(|at| *at <= end) {
            self.now = at.max(self.now);
            self.session.handle_deadline(self.now);
        }
        self.now = end;
    }

    /// Lets the next timer expire.
    pub(super) fn next_timer(&mut self) {
        if let Some(at) = self.session.next_deadline() {
            self.now = self.now.max(at);
            self.session.handle_deadline(self.now);
        }
    }

    /// Confirms all that was sent.
    pub(super) fn acknowledge(&mut self, conn: ConnId) {
        self.session.acknowledged(self.now, conn, u64::MAX);
    }

    /// State and outputs in one line.
    pub(super) fn outcome(&mut self) -> String {
        let outputs = self.outputs();
        format!("{}: {}", self.session.state(), outputs).trim_end().to_owned()
    }

    /// Outputs so far in one line.
    pub(super) fn outputs(&mut self) -> String {
        let mut words = vec![];
        while let Some(output) = self.session.poll_output() {
            words.push(word(&output));
        }
        words.join(", ")
    }
}

fn word(output: &Output) -> String {
    match output {
        Output::Connect => "connect".to_owned(),
        Output::CancelConnect => "cancel".to_owned(),
        Output::Send(conn, bytes) => format!("{}@{}", message(bytes), conn.0),
        Output::Close(conn) => format!("close@{}", conn.0),
        Output::Up(_, negotiated) => format!("up {}", negotiated.hold_time.as_secs()),
        Output::Down(Ended::Gracefully(_), reason) => format!("restarts {}", cause(reason)),
        Output::Down(Ended::Session, reason) => format!("lost {}", cause(reason)),
        Output::Down(Ended::Attempt, reason) => format!("failed {}", cause(reason)),
        Output::Message(conn, bytes) => format!("saw {}@{}", message(bytes), conn.0),
        Output::Update(_) => "update".to_owned(),
        Output::Refresh(_, Refresh::Request) => "resend".to_owned(),
        Output::Refresh(_, Refresh::Begin) => "begin".to_owned(),
        Output::Refresh(_, Refresh::End) => "end".to_owned(),
    }
}

fn cause(reason: &DownReason) -> String {
    match reason {
        DownReason::Sent(n) => format!("sent {}/{}", n.code, n.subcode),
        DownReason::Received(n) => format!("received {}/{}", n.code, n.subcode),
        DownReason::TransportClosed => "closed".to_owned(),
        DownReason::Replaced => "replaced".to_owned(),
    }
}

pub(super) fn decode(bytes: &[u8]) -> Message {
    let context = DecodeContext {
        four_octet_as: true,
        external: true,
        families: AddressFamilies::UNICAST,
        max_message: MAX_MESSAGE,
        ..DecodeContext::INITIAL
    };
    wire::decode(bytes, &context).expect("what we send is well formed")
}

fn message(bytes: &[u8]) -> String {
    match decode(bytes) {
        Message::Open(_) => "OPEN".to_owned(),
        Message::Update(_) => "UPDATE".to_owned(),
        Message::Notification(n) => format!("{}/{}", n.code, n.subcode),
        Message::Keepalive => "KEEPALIVE".to_owned(),
        Message::RouteRefresh { .. } => "REFRESH".to_owned(),
    }
}
