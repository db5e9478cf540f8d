//! The agent's MRT files: every BGP message sent and received, and when sessions came up and went down.
//!
//! Deliberately absent: changes of state other than to and from Established, which the cores do not tell.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{SystemTime, UNIX_EPOCH};

use ubique_model::Asn;
use ubique_model::service::RotatedFile;
use ubique_proto::bgp::session::State;
use ubique_proto::bgp::speaker::{PeerStatus, SessionEvent};
use ubique_proto::mrt::{Event, Record, encode};

use crate::spool::{Counters, Spool, SpoolConfig};

/// States of RFC 4271 §8.2.2 as RFC 6396 §4.4.1 numbers them.
const IDLE: u16 = 1;
const OPEN_CONFIRM: u16 = 5;
const ESTABLISHED: u16 = 6;

/// The files.
pub(crate) struct Mrt {
    spool: Spool,
    local_asn: Asn,
}

impl Mrt {
    pub(crate) fn start(file: &RotatedFile, service: &str, site: &str, local_asn: Asn) -> io::Result<Mrt> {
        let spool = Spool::start(SpoolConfig::new("MRT file", file, service, site, Box::new(|_| vec![])))?;
        Ok(Mrt { spool, local_asn })
    }

    pub(crate) fn message(&self, peer: &PeerStatus<'_>, sent: bool, bytes: &[u8]) {
        let four_octet_as = peer.negotiated.is_none_or(|n| n.four_octet_as);
        // What we send never has path identifiers: there is one path to offer.
        let add_path = !sent && peer.negotiated.is_some_and(|n| n.add_path.iter().next().is_some());
        self.write(peer, Event::Message { sent, four_octet_as, add_path, bytes: bytes.to_vec() });
    }

    pub(crate) fn session(&self, peer: &PeerStatus<'_>, event: &SessionEvent) {
        match event {
            SessionEvent::Up { .. } => self.write(peer, Event::StateChange { from: OPEN_CONFIRM, to: ESTABLISHED }),
            SessionEvent::Down { was_established: true, .. } => {
                let to = if peer.state == State::Idle { IDLE } else { peer.state as u16 + 1 };
                self.write(peer, Event::StateChange { from: ESTABLISHED, to });
            }
            SessionEvent::Down { .. } => {}
        }
    }

    fn write(&self, peer: &PeerStatus<'_>, event: Event) {
        let Some(segment) = self.spool.segment() else { return };
        let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let address = peer.config.address;
        let record = Record {
            seconds: time.as_secs() as u32,
            microseconds: time.subsec_micros(),
            peer_asn: peer.config.asn,
            local_asn: self.local_asn,
            interface: 0,
            peer: address,
            local: peer.local.map_or_else(|| unspecified(address), |local| local.address),
            event,
        };
        let mut octets = Vec::new();
        encode(&record, &mut octets);
        self.spool.write(segment, octets);
    }

    pub(crate) fn counters(&self) -> Counters {
        self.spool.counters()
    }

    pub(crate) fn is_written(&self) -> bool {
        self.spool.is_written()
    }
}

fn unspecified(like: IpAddr) -> IpAddr {
    if like.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() }
}
