//! Configurations and messages for tests.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ubique_model::policy::Announcement;
use ubique_model::{Asn, Family, Prefix, Relation};

use crate::bgp::attributes::{AsPath, Attributes, NextHop};
use crate::bgp::family::AddressFamilies;
use crate::bgp::message::{Capability, Message, Nlri, Open};
use crate::bgp::speaker::{Export, Import, Local, Out, PeerConfig, Speaker, SpeakerConfig};
use crate::bgp::wire::{self, DecodeContext, EncodeContext, Framer, MAX_MESSAGE};

/// Speaker `n` is AS 64500 + n, identifier and address 10.0.0.n.
pub(super) fn asn(n: u8) -> Asn {
    Asn(64500 + u32::from(n))
}

pub(super) fn address(n: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 0, 0, n))
}

/// The addresses of speaker `n` on its links.
pub(super) fn local(n: u8) -> Local {
    let ipv6 = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, n.into());
    Local { ipv6: Some(ipv6), ..Local::from(address(n)) }
}

pub(super) fn peer(n: u8, relation: Relation) -> PeerConfig {
    PeerConfig {
        import: Import::GaoRexford,
        export: Export::GaoRexford,
        ..PeerConfig::new(address(n), asn(n), relation)
    }
}

pub(super) fn config(n: u8, seed: u64, peers: Vec<PeerConfig>) -> SpeakerConfig {
    SpeakerConfig { peers, ..SpeakerConfig::new(asn(n), Ipv4Addr::new(10, 0, 0, n), seed) }
}

pub(super) fn prefix(text: &str) -> Prefix {
    text.parse().expect("a prefix")
}

pub(super) fn announcement(text: &str) -> Announcement {
    Announcement::new(prefix(text))
}

pub(super) const CONTEXT: DecodeContext = DecodeContext {
    four_octet_as: true,
    external: true,
    families: AddressFamilies::ALL,
    max_message: MAX_MESSAGE,
    ..DecodeContext::INITIAL
};

/// The messages in a buffer of whole ones.
pub(super) fn messages(bytes: &[u8]) -> Vec<Message> {
    let mut framer = Framer::new();
    let (mut rest, mut all) = (bytes, vec![]);
    while !rest.is_empty() {
        rest = &rest[framer.push(rest)..];
        while let Some(message) = framer.next(&CONTEXT) {
            all.push(message.expect("what we send is well formed"));
        }
    }
    all
}

/// The OPEN of speaker `n`.
pub(super) fn open(n: u8, family: Family) -> Vec<u8> {
    open_as(n, asn(n), family)
}

/// The OPEN of speaker `n` in that AS.
pub(super) fn open_as(n: u8, asn: Asn, family: Family) -> Vec<u8> {
    let open = Open {
        asn,
        hold_time_s: 90,
        router_id: Ipv4Addr::new(10, 0, 0, n),
        capabilities: vec![
            Capability::Multiprotocol(family.into()),
            Capability::RouteRefresh,
            Capability::FourOctetAs(asn),
        ],
    };
    let mut bytes = vec![];
    wire::encode_open(&open, &mut bytes);
    bytes
}

pub(super) fn keepalive() -> Vec<u8> {
    let mut bytes = vec![];
    wire::encode_keepalive(&mut bytes);
    bytes
}

/// UPDATEs of speaker `n`: takes back the first list, announces the second.
pub(super) fn update(n: u8, withdrawn: &[&str], announced: &[&str]) -> Vec<u8> {
    let parse = |list: &[&str]| list.iter().map(|text| prefix(text).into()).collect::<Vec<Nlri>>();
    let attributes = Attributes { as_path: AsPath::sequence([asn(n), Asn(65000)]), ..Attributes::originated() };
    let next_hop = NextHop::V4(Ipv4Addr::new(10, 0, 0, n));
    let context = EncodeContext {
        four_octet_as: true,
        external: true,
        max_message: MAX_MESSAGE,
        add_path: AddressFamilies::NONE,
        extended_next_hop: AddressFamilies::NONE,
    };
    let (withdrawn, announced) = (parse(withdrawn), parse(announced));
    let mut bytes = vec![];
    let routes = Some((&attributes, next_hop, &announced[..]));
    wire::encode_updates(&withdrawn, routes, &context, &mut bytes).expect("fits");
    bytes
}

pub(super) fn drain(speaker: &mut Speaker) -> Vec<Out> {
    std::iter::from_fn(|| speaker.poll_output()).collect()
}
