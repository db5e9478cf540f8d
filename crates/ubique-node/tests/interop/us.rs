//! Our side: a driver of the speaker, run while something is waited for.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;
use ubique_model::policy::Announcement;
use ubique_model::{Asn, Prefix, Relation};
use ubique_node::bgp::{BGP_PORT, Driver, DriverConfig, Endpoint, Key, Notice, Range, Secret};
use ubique_proto::bgp::rib::Received;
use ubique_proto::bgp::session::{Negotiated, State};
use ubique_proto::bgp::speaker::{DownReason, In, PeerConfig, PeerId, PeerStatus, SessionEvent, SpeakerConfig};

use crate::lab;
use crate::peer::{Opens, Setup};

/// The one neighbour of most cells.
pub const PEER: PeerId = PeerId(0);

/// How long our side runs between two looks at the peer.
const TURN: Duration = Duration::from_millis(10);

/// Configuration of our side.
pub struct Ours {
    pub speaker: SpeakerConfig,
    pub endpoints: Vec<Endpoint>,
    pub ranges: Vec<Range>,
    /// On the port of BGP.
    pub listens: bool,
}

impl Ours {
    /// The other side of a peer that is set up like this.
    pub fn new(setup: &Setup) -> Ours {
        let address: IpAddr = setup.theirs.parse().unwrap();
        let relation = if setup.internal() { Relation::Internal } else { Relation::Transit };
        let mut speaker = SpeakerConfig::new(Asn(setup.remote_as), "192.0.2.2".parse().unwrap(), 7);
        let mut peer = PeerConfig::new(address, Asn(setup.local_as), relation);
        peer.families = setup.families;
        peer.hold_time = Duration::from_secs(90);
        peer.passive = setup.opens == Opens::Peer;
        speaker.peers.push(peer);
        let endpoint = Endpoint { key: setup.password.map(secret).map(Key::Md5), ..Endpoint::new(address) };
        Ours { speaker, endpoints: vec![endpoint], ranges: vec![], listens: true }
    }

    /// The configuration of the neighbour.
    pub fn peer(&mut self) -> &mut PeerConfig {
        &mut self.speaker.peers[0]
    }
}

/// A key, as an operator gives it: by file.
pub fn secret(words: &str) -> Secret {
    let path = format!("/run/{words}");
    lab::write(&path, words);
    Secret::read(path.as_ref()).unwrap()
}

/// The running speaker.
pub struct Us {
    runtime: Runtime,
    driver: Option<Driver>,
    started: Instant,
    /// Sessions that came and went, the oldest first.
    pub events: Vec<(Duration, PeerId, SessionEvent)>,
}

impl Us {
    /// Listens, and has not started yet.
    pub fn new(ours: Ours) -> Us {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let config = DriverConfig {
            speaker: ours.speaker,
            endpoints: ours.endpoints,
            ranges: ours.ranges,
            place: None,
            listen: ours.listens.then_some(BGP_PORT),
            must_listen: true,
            journal: None,
            tap: None,
        };
        let driver = Some(runtime.block_on(async { Driver::new(config) }).unwrap());
        Us { runtime, driver, started: Instant::now(), events: vec![] }
    }

    /// Feeds the core.
    pub fn handle(&mut self, input: In) {
        let _guard = self.runtime.enter();
        self.driver.as_mut().expect("running").handle(input);
    }

    /// Runs for a moment.
    pub fn turn(&mut self) {
        let until = Instant::now() + TURN;
        while let Some(left) = until.checked_duration_since(Instant::now()) {
            let Some(driver) = &mut self.driver else {
                return;
            };
            let next = driver.next();
            let Ok(notice) = self.runtime.block_on(async { tokio::time::timeout(left, next).await }) else {
                return;
            };
            if let Notice::Session { peer, event } = notice {
                self.events.push((self.started.elapsed(), peer, event));
            }
        }
    }

    pub fn driver(&self) -> &Driver {
        self.driver.as_ref().expect("running")
    }

    pub fn status(&self) -> PeerStatus<'_> {
        self.driver().speaker().peer(PEER).unwrap()
    }

    pub fn established(&self) -> bool {
        self.driver().speaker().peer(PEER).is_some_and(|peer| peer.state == State::Established)
    }

    pub fn negotiated(&self) -> &Negotiated {
        self.status().negotiated.expect("the session is established")
    }

    /// Why the session last went down or did not come up.
    pub fn down(&self) -> Option<&DownReason> {
        self.status().last_down
    }

    /// How often a session was lost.
    pub fn losses(&self) -> usize {
        let lost = |e: &SessionEvent| matches!(e, SessionEvent::Down { was_established: true, .. });
        self.events.iter().filter(|(_, _, event)| lost(event)).count()
    }

    /// How often the peer ended an established session for another connection, which it may while its own side is still in
    /// OpenConfirm (RFC 4271 §6.8).
    pub fn collisions(&self) -> usize {
        let ended = |e: &SessionEvent| match e {
            SessionEvent::Down { was_established: true, reason: DownReason::Received(n) } => {
                (n.code, n.subcode) == (6, 7)
            }
            _ => false,
        };
        self.events.iter().filter(|(_, _, event)| ended(event)).count()
    }

    /// A route of the peer's.
    pub fn route(&self, prefix: Prefix) -> Option<Received> {
        self.driver().speaker().rib().received(PEER, Some(prefix)).find(|r| r.prefix == prefix)
    }

    /// Ends as a killed process does: its sockets are closed, nothing is said.
    pub fn end(&mut self) {
        let _guard = self.runtime.enter();
        self.driver = None;
    }

    /// All paths of the peer's to a prefix.
    pub fn paths(&self, prefix: Prefix) -> Vec<Received> {
        self.driver().speaker().rib().received(PEER, Some(prefix)).take_while(|r| r.prefix == prefix).collect()
    }

    pub fn announce(&mut self, announcement: Announcement) {
        self.handle(In::Announce { peer: PEER, announcement });
    }

    pub fn withdraw(&mut self, prefix: Prefix) {
        self.handle(In::Withdraw { peer: PEER, prefix });
    }

    /// What happened, for a report.
    pub fn report(&self) -> String {
        let mut text = String::new();
        for (at, peer, event) in &self.events {
            text.push_str(&format!("{:8.3} s peer {} {event:?}\n", at.as_secs_f64(), peer.0));
        }
        if self.driver.is_none() {
            return text + "ended\n";
        }
        for peer in self.driver().speaker().peers() {
            let connect = self.driver().connect_error(peer.peer).unwrap_or("none");
            text.push_str(&format!("{peer:?}\nconnect error: {connect}\n"));
            for route in self.driver().speaker().rib().received(peer.peer, None).take(10) {
                text.push_str(&format!("{route:?}\n"));
            }
        }
        text
    }
}

/// An announcement without anything optional.
pub fn announcement(prefix: Prefix) -> Announcement {
    Announcement {
        prefix,
        prepend: 0,
        med: None,
        communities: vec![],
        large_communities: vec![],
        extended_communities: vec![],
    }
}
