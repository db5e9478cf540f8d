//! BMP: telling collectors of the sessions and their routes (RFC 7854, RFC 8671).
//!
//! [`Exporter`] turns what the tap sees into messages and puts them into the bounded queue of each [`Collector`], whose
//! task writes them. A collector that has just connected is told what is known in pieces, between turns of the loop,
//! while what happens meanwhile goes to it at once. One that does not read is disconnected, and told everything anew
//! when it comes back: nothing here ever waits for it.
//!
//! Monitored are Adj-RIB-In before policy, as received, and Adj-RIB-Out after policy, as sent. Deliberately absent:
//! post-policy Adj-RIB-In (an announcing edge chooses nothing), Loc-RIB (RFC 9069), Route Mirroring, TLS (a collector
//! belongs into the same network), and the passive side.

mod collector;
mod dump;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::sync::Notify;
use ubique_model::service::BmpCollector;
use ubique_proto::bgp::message::Notification;
use ubique_proto::bgp::speaker::{DownReason, PeerId, PeerStatus, Speaker};
use ubique_proto::bgp::wire;
use ubique_proto::bmp::{self, Message, Peer, Statistic, Tlv, encode, flag, information, statistic};

use collector::Collector;
pub(crate) use collector::CollectorStatus;

/// Event 18 of the state machine: TcpConnectionFails (RFC 4271 §8.1.4).
const TCP_CONNECTION_FAILS: u16 = 18;

/// What is known of a session beside the speaker's view.
#[derive(Default)]
pub(crate) struct Watched {
    /// The last OPEN we sent.
    pub sent_open: Vec<u8>,
    /// The last one received.
    pub received_open: Vec<u8>,
    /// TCP ports, ours first.
    pub ports: (u16, u16),
    /// It is up: what its messages say of it.
    pub up: Option<Up>,
}

/// A session that is up.
#[derive(Clone)]
pub(crate) struct Up {
    /// Its header, with the time it came up.
    peer: Peer,
    local: IpAddr,
    /// A, for its UPDATEs: AS numbers have two octets.
    two_octet_as: bool,
}

/// All collectors.
pub(crate) struct Exporter {
    collectors: Vec<Rc<Collector>>,
    hungry: Rc<Notify>,
    greeting: Vec<u8>,
}

impl Exporter {
    /// Starts a task for each collector.
    pub(crate) fn start(collectors: &[BmpCollector], version: &str, name: &str) -> Exporter {
        let hungry = Rc::new(Notify::new());
        let start = |spec: &BmpCollector| Collector::start(spec, hungry.clone());
        let mut greeting = Vec::new();
        let information = vec![
            Tlv::text(information::SYS_DESCR, &format!("ubique {version}")),
            Tlv::text(information::SYS_NAME, name),
        ];
        encode(&Message::Initiation(information), &mut greeting);
        Exporter { collectors: collectors.iter().map(start).collect(), hungry, greeting }
    }

    pub(crate) async fn hungry(&self) {
        self.hungry.notified().await;
    }

    /// State of each collector.
    pub(crate) fn status(&self) -> impl Iterator<Item = CollectorStatus> + '_ {
        self.collectors.iter().map(|c| c.status())
    }

    /// A session is up.
    pub(crate) fn up(&self, status: &PeerStatus<'_>, watched: &mut Watched, router_id: Ipv4Addr) {
        let (seconds, microseconds) = time();
        let address = status.config.address.to_canonical();
        let up = Up {
            peer: Peer {
                kind: 0,
                flags: 0,
                distinguisher: 0,
                address,
                asn: status.config.asn,
                router_id,
                seconds,
                microseconds,
            },
            local: status.local.map_or(Ipv4Addr::UNSPECIFIED.into(), |local| local.address),
            two_octet_as: status.negotiated.is_some_and(|n| !n.four_octet_as),
        };
        watched.up = Some(up.clone());
        self.tell(&up.message(watched));
    }

    /// A session that was up is down.
    pub(crate) fn down(&self, status: &PeerStatus<'_>, watched: &mut Watched, reason: &DownReason) {
        let Some(up) = watched.up.take() else { return };
        tracing::debug!(peer = status.peer.0, "told to collectors: session down");
        let reason = match reason {
            DownReason::Sent(notification) => bmp::DownReason::LocalNotification(written(notification)),
            DownReason::Received(notification) => bmp::DownReason::RemoteNotification(written(notification)),
            DownReason::TransportClosed => bmp::DownReason::RemoteClosed,
            DownReason::Replaced => bmp::DownReason::LocalClosed(TCP_CONNECTION_FAILS),
        };
        self.tell(&Message::PeerDown { peer: up.now(0), reason });
    }

    /// An UPDATE on a session that is up.
    pub(crate) fn update(&self, watched: &Watched, sent: bool, bytes: &[u8]) {
        let Some(up) = &watched.up else { return };
        if self.collectors.iter().any(|c| c.is_greeted()) {
            self.tell(&Message::RouteMonitoring { peer: up.now(up.flags(sent)), update: bytes.to_vec() });
        }
    }

    fn tell(&self, message: &Message) {
        let mut octets = Vec::new();
        encode(message, &mut octets);
        self.collectors.iter().filter(|c| c.is_greeted()).for_each(|c| c.push(&octets));
    }

    /// Tells each collector that has room some more of what it does not know yet.
    pub(crate) fn feed(&self, speaker: &Speaker, sessions: &BTreeMap<PeerId, Watched>) {
        for collector in &self.collectors {
            if collector.wants_greeting() {
                let mut octets = self.greeting.clone();
                for watched in sessions.values() {
                    if let Some(up) = &watched.up {
                        encode(&up.message(watched), &mut octets);
                    }
                }
                collector.greet(&octets);
            }
            if collector.wants_statistics() {
                let reports = sessions.iter().filter_map(|(&peer, watched)| report(speaker.peer(peer)?, watched));
                let mut octets = Vec::new();
                reports.for_each(|report| encode(&report, &mut octets));
                collector.push(&octets);
            }
            if let Some(dump) = collector.next_piece() {
                let mut octets = Vec::new();
                let next = dump::piece(dump, speaker, sessions, &mut octets);
                collector.push_piece(&octets, next);
            }
        }
    }

    /// Says good-bye to all.
    pub(crate) fn terminate(&self) {
        let reason = information::ADMINISTRATIVELY_CLOSED.to_be_bytes().to_vec();
        self.tell(&Message::Termination(vec![Tlv { kind: information::REASON, value: reason }]));
        self.collectors.iter().for_each(|c| c.end());
    }

    /// Whether every collector has been told everything that waits for it.
    pub(crate) fn is_done(&self) -> bool {
        self.collectors.iter().all(|c| c.is_done())
    }
}

impl Up {
    fn message(&self, watched: &Watched) -> Message {
        Message::PeerUp {
            peer: self.peer.clone(),
            local: self.local,
            local_port: watched.ports.0,
            remote_port: watched.ports.1,
            sent_open: watched.sent_open.clone(),
            received_open: watched.received_open.clone(),
            information: vec![],
        }
    }

    fn flags(&self, sent: bool) -> u8 {
        let rib = if sent { flag::ADJ_RIB_OUT | flag::POST_POLICY } else { 0 };
        rib | if self.two_octet_as { flag::TWO_OCTET_AS } else { 0 }
    }

    /// The header of a message of this moment.
    fn now(&self, flags: u8) -> Peer {
        let (seconds, microseconds) = time();
        Peer { flags, seconds, microseconds, ..self.peer.clone() }
    }
}

fn report(status: PeerStatus<'_>, watched: &Watched) -> Option<Message> {
    let gauge = |kind, value: usize| Statistic::Gauge(kind, value as u64);
    Some(Message::StatisticsReport {
        peer: watched.up.as_ref()?.now(0),
        statistics: vec![
            gauge(statistic::ADJ_RIB_IN, status.routes.received),
            Statistic::Counter(statistic::TREATED_AS_WITHDRAW, status.faults.withdrawn as u32),
            gauge(statistic::ADJ_RIB_OUT_POST_POLICY, status.routes.advertised),
        ],
    })
}

fn written(notification: &Notification) -> Vec<u8> {
    let mut octets = Vec::new();
    wire::encode_notification(notification, &mut octets);
    octets
}

/// Wall-clock time, s and µs since 1970.
fn time() -> (u32, u32) {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    (since.as_secs() as u32, since.subsec_micros())
}
