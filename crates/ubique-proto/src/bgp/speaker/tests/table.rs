//! A table that is lost.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use ubique_model::Prefix;

use super::bench::*;
use super::fixture::asn;
use crate::bgp::attributes::{AsPath, Attributes, NextHop};
use crate::bgp::family::AddressFamilies;
use crate::bgp::message::Nlri;
use crate::bgp::speaker::Import;
use crate::bgp::wire::{self, EncodeContext};

const ROUTES: u32 = 10_000;

fn table() -> Vec<u8> {
    let context = EncodeContext {
        four_octet_as: true,
        external: true,
        add_path: AddressFamilies::NONE,
        extended_next_hop: AddressFamilies::NONE,
        max_message: wire::MAX_MESSAGE,
    };
    let net = |i: u32| Prefix::V4(Ipv4Net::new_assert(Ipv4Addr::from_bits((10 << 24) + (i << 8)), 24));
    let prefixes: Vec<Nlri> = (0..ROUTES).map(|i| net(i).into()).collect();
    let attributes = Attributes { as_path: AsPath::sequence([asn(2)]), ..Attributes::originated() };
    let mut bytes = vec![];
    let next_hop = NextHop::V4(Ipv4Addr::new(192, 0, 2, 2));
    wire::encode_updates(&[], Some((&attributes, next_hop, &prefixes)), &context, &mut bytes).unwrap();
    bytes
}

#[test]
fn a_lost_table_is_gone_at_once_and_freed_in_turns_while_the_next_session_begins() {
    let open = open_with(&[V4], vec![]);
    let mut b = Bench::up(neighbour(|p| p.import = Import::Observe), &open);
    b.receive(table());
    assert_eq!(b.speaker.rib().received(P0, None).count(), ROUTES as usize);
    b.close();
    assert_eq!(b.speaker.rib().counters(P0).received, 0);
    assert_eq!(b.speaker.rib().prefixes(None).count(), 0);
    assert!(b.speaker.rib().has_gone(), "one turn is not enough");
    let due = b.speaker.next_deadline().unwrap();
    assert!(b.now < due && due < b.now + s(1));
    b.connect(&open);
    b.receive(table());
    assert_eq!(b.speaker.rib().counters(P0).received, ROUTES as usize);
    b.close();
    b.wait(s(1));
    assert!(!b.speaker.rib().has_gone());
}
