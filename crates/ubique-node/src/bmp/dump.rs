//! What is known already, told in pieces: Adj-RIB-In as kept, then each Adj-RIB-Out, then End-of-RIB.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use ubique_model::Prefix;
use ubique_proto::Time;
use ubique_proto::bgp::attributes::{Attributes, NextHop};
use ubique_proto::bgp::family::AddressFamilies;
use ubique_proto::bgp::message::Nlri;
use ubique_proto::bgp::rib::Candidate;
use ubique_proto::bgp::speaker::{PeerId, Speaker};
use ubique_proto::bgp::wire::{self, EncodeContext, MAX_EXTENDED_MESSAGE, MAX_MESSAGE};
use ubique_proto::bmp::{Message, Peer, encode, flag};

use super::{Up, Watched};
use crate::clock::wall;

/// Prefixes looked at in one turn of the loop: well below a millisecond.
const PREFIXES: usize = 200;

/// How far a collector has been told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dump {
    /// Adj-RIB-In, from this prefix on.
    Received(Option<Prefix>),
    /// Adj-RIB-Out of this neighbour, from this prefix on.
    Sent(PeerId, Option<Prefix>),
    /// End-of-RIB.
    End,
}

/// Appends the next piece; `None`: it was the last.
pub(super) fn piece(
    dump: Dump,
    speaker: &Speaker,
    sessions: &BTreeMap<PeerId, Watched>,
    out: &mut Vec<u8>,
) -> Option<Dump> {
    match dump {
        Dump::Received(start) => {
            let mut prefixes = speaker.rib().prefixes(start);
            let mut groups = Groups::default();
            for prefix in prefixes.by_ref().take(PREFIXES) {
                speaker.routes(prefix).into_iter().for_each(|route| groups.add(prefix, route));
            }
            groups.write(speaker, sessions, out);
            let first = sessions.keys().next().copied();
            match prefixes.next() {
                Some(next) => Some(Dump::Received(Some(next))),
                None => Some(first.map_or(Dump::End, |peer| Dump::Sent(peer, None))),
            }
        }
        Dump::Sent(peer, start) => {
            let mut routes = speaker.rib().advertised(peer, start);
            let up = sessions.get(&peer).and_then(|watched| watched.up.as_ref());
            if let Some(up) = up {
                for route in routes.by_ref().take(PREFIXES) {
                    let context = context(speaker, peer, true);
                    let header = up.now(flag::ADJ_RIB_OUT | flag::POST_POLICY);
                    let prefixes = [Nlri::from(route.prefix)];
                    updates(&header, &context, Some((&route.attributes, route.next_hop, &prefixes)), out);
                }
            }
            let after = sessions.range((std::ops::Bound::Excluded(peer), std::ops::Bound::Unbounded)).next();
            match routes.next().filter(|_| up.is_some()) {
                Some(next) => Some(Dump::Sent(peer, Some(next.prefix))),
                None => Some(after.map_or(Dump::End, |(&peer, _)| Dump::Sent(peer, None))),
            }
        }
        Dump::End => {
            for (&peer, watched) in sessions {
                if let (Some(up), Some(status)) = (&watched.up, speaker.peer(peer)) {
                    let families = status.negotiated.map_or(AddressFamilies::NONE, |n| n.families);
                    end_of_rib(up, families, out);
                }
            }
            None
        }
    }
}

fn end_of_rib(up: &Up, families: AddressFamilies, out: &mut Vec<u8>) {
    for flags in [0, flag::ADJ_RIB_OUT | flag::POST_POLICY] {
        for family in families.iter() {
            let mut update = Vec::new();
            wire::encode_end_of_rib(family, &mut update);
            encode(&Message::RouteMonitoring { peer: up.now(flags), update }, out);
        }
    }
}

/// Routes that one UPDATE can hold: of one neighbour, learned together, with the same attributes and next hop.
type Key = (PeerId, Time, Arc<Attributes>, NextHop);

/// Routes by what they share, in the order they came.
#[derive(Default)]
struct Groups {
    index: HashMap<Key, usize>,
    groups: Vec<(PeerId, Candidate, Vec<Nlri>)>,
}

impl Groups {
    fn add(&mut self, prefix: Prefix, route: Candidate) {
        // Routes of our own are nobody's Adj-RIB-In.
        let (Some(peer), Some(next_hop), Some(learned)) = (route.peer, route.next_hop, route.learned) else {
            return;
        };
        let nlri = Nlri { prefix, path_id: route.path_id };
        let groups = &mut self.groups;
        let at = *self.index.entry((peer, learned, Arc::clone(&route.attributes), next_hop)).or_insert_with(|| {
            groups.push((peer, route, vec![]));
            groups.len() - 1
        });
        groups[at].2.push(nlri);
    }

    fn write(self, speaker: &Speaker, sessions: &BTreeMap<PeerId, Watched>, out: &mut Vec<u8>) {
        for (peer, route, prefixes) in self.groups {
            // Stale routes of a session that is down are not monitored: its Peer Down took them away.
            let (Some(up), Some(next_hop)) = (sessions.get(&peer).and_then(|w| w.up.as_ref()), route.next_hop) else {
                continue;
            };
            let learned = wall(route.learned.unwrap_or_default()).duration_since(UNIX_EPOCH).unwrap_or_default();
            let header = Peer { seconds: learned.as_secs() as u32, microseconds: learned.subsec_micros(), ..up.now(0) };
            let routes = Some((&*route.attributes, next_hop, &prefixes[..]));
            updates(&header, &context(speaker, peer, false), routes, out);
        }
    }
}

/// How UPDATEs are written for a collector: with 4-octet AS numbers and every attribute, else as agreed on the session,
/// whose OPENs the collector has.
fn context(speaker: &Speaker, peer: PeerId, sent: bool) -> EncodeContext {
    let status = speaker.peer(peer);
    let negotiated = status.as_ref().and_then(|s| s.negotiated);
    let add_path = negotiated.filter(|_| !sent).map_or(AddressFamilies::NONE, |n| n.add_path);
    EncodeContext {
        four_octet_as: true,
        external: false,
        add_path,
        extended_next_hop: negotiated.map_or(AddressFamilies::NONE, |n| n.extended_next_hop),
        max_message: negotiated.map_or(MAX_MESSAGE, |n| n.max_message.min(MAX_EXTENDED_MESSAGE)),
    }
}

type Routes<'a> = Option<(&'a Attributes, NextHop, &'a [Nlri])>;

/// Appends a Route Monitoring message for each UPDATE these routes take. What no UPDATE can hold is left out.
fn updates(peer: &Peer, context: &EncodeContext, routes: Routes<'_>, out: &mut Vec<u8>) {
    let mut octets = Vec::new();
    let _ = wire::encode_updates(&[], routes, context, &mut octets);
    let mut rest = &octets[..];
    while let Some(head) = rest.get(16..18) {
        let length = usize::from(u16::from_be_bytes([head[0], head[1]]));
        let Some((update, after)) = rest.split_at_checked(length.max(wire::HEADER_LEN)) else { break };
        encode(&Message::RouteMonitoring { peer: peer.clone(), update: update.to_vec() }, out);
        rest = after;
    }
}
