//! FlowSpec rules of our own (RFC 8955, RFC 8956).

use ubique_model::{Family, Prefix};

use super::bench::*;
use super::fixture::{asn, prefix};
use crate::bgp::attributes::Segment;
use crate::bgp::family::{AddressFamilies, AddressFamily};
use crate::bgp::flowspec::{Component, FlowSpec};
use crate::bgp::message::{Capability, Message, Open};
use crate::bgp::speaker::{In, MAX_FLOWS, Out, PeerConfig, SpeakerConfig};
use crate::bgp::wire::{self, EncodeContext, MAX_MESSAGE};

const DROP: [u8; 8] = [0x80, 6, 0, 0, 0, 0, 0, 0];
const MARK: [u8; 8] = [0x80, 9, 0, 0, 0, 0, 0, 10];
const FLOWS: AddressFamily = AddressFamily::Ipv4FlowSpec;

fn to(text: &str) -> FlowSpec {
    let prefix: Prefix = prefix(text);
    FlowSpec { family: Family::of(&prefix), components: vec![Component::Destination { prefix, offset: 0 }] }
}

fn protector() -> SpeakerConfig {
    let config = neighbour(|peer: &mut PeerConfig| peer.families = AddressFamilies::ALL);
    SpeakerConfig { scope: Some(vec![prefix("192.0.2.0/24"), prefix("2001:db8::/32")]), ..config }
}

fn open() -> Open {
    open_with(&[V4, FLOWS], vec![Capability::EnhancedRouteRefresh])
}

fn announce(b: &mut Bench, flow: FlowSpec, actions: Vec<[u8; 8]>) {
    b.input(In::AnnounceFlow { peer: P0, flow, actions });
}

#[test]
fn a_rule_is_announced_changed_and_taken_back() {
    let mut b = Bench::up(protector(), &open());
    announce(&mut b, to("192.0.2.53/32"), vec![DROP]);
    let sent = b.sent();
    let [Message::Update(update)] = &sent[..] else { panic!("{sent:?}") };
    assert_eq!(update.flows_announced, [to("192.0.2.53/32")]);
    let attributes = update.attributes.as_ref().expect("attributes");
    assert_eq!(attributes.extended_communities, [DROP]);
    assert_eq!(attributes.as_path.0, [Segment::Sequence(vec![asn(1)])]);
    assert_eq!(b.speaker.flows(P0).collect::<Vec<_>>(), [(&to("192.0.2.53/32"), true)]);
    // The same again is nothing new, another action is.
    announce(&mut b, to("192.0.2.53/32"), vec![DROP]);
    assert_eq!(b.words(), "");
    announce(&mut b, to("192.0.2.53/32"), vec![MARK]);
    assert_eq!(b.words(), "+flow");
    b.input(In::WithdrawFlow { peer: P0, flow: to("192.0.2.53/32") });
    assert_eq!(b.words(), "-flow");
    b.input(In::WithdrawFlow { peer: P0, flow: to("192.0.2.53/32") });
    assert_eq!(b.words(), "");
    assert_eq!(b.speaker.flows(P0).count(), 0);
}

#[test]
fn rules_outlive_sessions_and_are_part_of_the_initial_exchange() {
    let mut b = Bench::new(protector());
    announce(&mut b, to("192.0.2.53/32"), vec![DROP]);
    b.connect(&open());
    assert_eq!(b.words(), "OPEN, KEEPALIVE, +flow, EoR ipv4 unicast, EoR ipv4 flowspec");
    b.close();
    b.input(In::WithdrawFlow { peer: P0, flow: to("192.0.2.53/32") });
    b.connect(&open());
    assert_eq!(b.words(), "OPEN, KEEPALIVE, EoR ipv4 unicast, EoR ipv4 flowspec");
}

#[test]
fn only_where_the_family_is_agreed_on() {
    let mut b = Bench::up(protector(), &open_with(&[V4], vec![]));
    announce(&mut b, to("192.0.2.53/32"), vec![DROP]);
    assert_eq!(b.words(), "");
    assert_eq!(b.speaker.flows(P0).collect::<Vec<_>>(), [(&to("192.0.2.53/32"), false)]);
    let mut b = Bench::up(protector(), &open());
    announce(&mut b, to("2001:db8::53/128"), vec![DROP]);
    assert_eq!(b.words(), "");
}

#[test]
fn a_refresh_repeats_the_rules() {
    let mut b = Bench::up(protector(), &open());
    announce(&mut b, to("192.0.2.53/32"), vec![DROP]);
    b.sent();
    b.receive_refresh(FLOWS, 0);
    assert_eq!(b.words(), "BoRR ipv4 flowspec, +flow, EoRR ipv4 flowspec");
    b.receive_refresh(V4, 0);
    assert_eq!(b.words(), "BoRR ipv4 unicast, EoRR ipv4 unicast");
    // Withdrawn between the question and the answer.
    let mut b = Bench::up(protector(), &open_with(&[V4, FLOWS], vec![]));
    announce(&mut b, to("192.0.2.53/32"), vec![DROP]);
    b.receive_refresh(FLOWS, 0);
    b.input(In::WithdrawFlow { peer: P0, flow: to("192.0.2.53/32") });
    assert!(b.words().ends_with("-flow"));
}

#[test]
fn rules_about_others_packets_are_refused() {
    let offset = Component::Destination { prefix: prefix("2001:db8::/64"), offset: 32 };
    let source = Component::Source { prefix: prefix("192.0.2.0/24"), offset: 0 };
    for flow in [
        to("198.51.100.0/24"),
        to("192.0.0.0/16"),
        FlowSpec { family: Family::Ipv6, components: vec![offset] },
        FlowSpec { family: Family::Ipv4, components: vec![source] },
        FlowSpec { family: Family::Ipv4, components: vec![] },
    ] {
        let mut b = Bench::up(protector(), &open());
        announce(&mut b, flow.clone(), vec![DROP]);
        let outputs = b.outputs();
        assert!(matches!(&outputs[..], [Out::Refused { peer: P0, .. }]), "{flow:?}: {outputs:?}");
        assert_eq!(b.speaker.flows(P0).count(), 0);
    }
    // Without a scope any destination will do, but one there must be.
    let anyone = SpeakerConfig { scope: None, ..protector() };
    let mut b = Bench::up(anyone, &open());
    announce(&mut b, to("198.51.100.0/24"), vec![DROP]);
    assert_eq!(b.words(), "+flow");
}

#[test]
fn no_more_than_fit() {
    let mut b = Bench::up(protector(), &open());
    announce(&mut b, to("192.0.2.53/32"), vec![DROP; 600]);
    assert!(matches!(&b.outputs()[..], [Out::Refused { .. }]), "actions longer than a message");
    let anyone = SpeakerConfig { scope: None, ..protector() };
    let mut b = Bench::new(anyone);
    for n in 0..=MAX_FLOWS as u32 {
        announce(&mut b, to(&format!("10.{}.{}.0/24", n >> 8, n & 0xff)), vec![DROP]);
    }
    assert_eq!(b.outputs().iter().filter(|o| matches!(o, Out::Refused { .. })).count(), 1);
    announce(&mut b, to("10.0.0.0/24"), vec![MARK]);
    assert!(b.outputs().is_empty(), "one that is there may change");
}

#[test]
fn what_neighbours_announce_is_counted_and_stays_there() {
    let mut b = Bench::up(protector(), &open());
    let context = EncodeContext {
        four_octet_as: true,
        external: true,
        add_path: AddressFamilies::NONE,
        extended_next_hop: AddressFamilies::NONE,
        max_message: MAX_MESSAGE,
    };
    let attributes = crate::bgp::attributes::Attributes::originated();
    let mut bytes = vec![];
    wire::encode_flows(&[], Some((&attributes, &[to("192.0.2.53/32")])), &context, &mut bytes).expect("fits");
    b.receive(bytes);
    assert!(b.outputs().is_empty());
    assert_eq!(b.speaker.peer(P0).map(|p| p.counters.flows_in), Some(1));
}
