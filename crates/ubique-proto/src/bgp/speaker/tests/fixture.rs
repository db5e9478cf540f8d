//! Configurations and messages for tests.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use ubique_model::policy::Announcement;
use ubique_model::{Asn, Prefix, Relation};

use crate::bgp::message::Message;
use crate::bgp::speaker::{Export, Import, Out, PeerConfig, Speaker, SpeakerConfig};
use crate::bgp::wire::{DecodeContext, Families, Framer, MAX_MESSAGE};

/// Speaker `n` is AS 64500 + n, identifier and address 10.0.0.n.
pub(super) fn asn(n: u8) -> Asn {
    Asn(64500 + u32::from(n))
}

pub(super) fn address(n: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 0, 0, n))
}

pub(super) fn peer(n: u8, relation: Relation) -> PeerConfig {
    PeerConfig {
        address: address(n),
        asn: asn(n),
        relation,
        passive: false,
        hold_time: Duration::from_secs(9),
        connect_retry: Duration::from_secs(1),
        import: Import::GaoRexford,
        export: Export::GaoRexford,
    }
}

pub(super) fn config(n: u8, seed: u64, peers: Vec<PeerConfig>) -> SpeakerConfig {
    SpeakerConfig {
        asn: asn(n),
        router_id: Ipv4Addr::new(10, 0, 0, n),
        peers,
        seed,
        prefer_oldest: false,
    }
}

pub(super) fn prefix(text: &str) -> Prefix {
    text.parse().expect("a prefix")
}

pub(super) fn announcement(text: &str) -> Announcement {
    Announcement {
        prefix: prefix(text),
        prepend: 0,
        med: None,
        communities: vec![],
        large_communities: vec![],
    }
}

/// The messages in a buffer of whole ones.
pub(super) fn messages(bytes: &[u8]) -> Vec<Message> {
    let context = DecodeContext {
        four_octet_as: true,
        external: true,
        families: Families::ALL,
        max_message: MAX_MESSAGE,
    };
    let mut framer = Framer::new();
    let (mut rest, mut all) = (bytes, vec![]);
    while !rest.is_empty() {
        rest = &rest[framer.push(rest)..];
        while let Some(message) = framer.next(&context) {
            all.push(message.expect("what we send is well formed"));
        }
    }
    all
}

pub(super) fn drain(speaker: &mut Speaker) -> Vec<Out> {
    std::iter::from_fn(|| speaker.poll_output()).collect()
}
