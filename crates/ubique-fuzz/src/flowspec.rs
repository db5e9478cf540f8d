//! FlowSpec rules and actions, in octets and in words.

use ubique_model::Family;
use ubique_proto::bgp::attributes::{AsPath, Attributes};
use ubique_proto::bgp::family::AddressFamilies;
use ubique_proto::bgp::flowspec::{Action, FlowSpec};
use ubique_proto::bgp::message::{Message, Update};
use ubique_proto::bgp::wire::{DecodeContext, EncodeContext, HEADER_LEN, MAX_EXTENDED_MESSAGE, decode, encode_flows};

use crate::rng::feed;

const CONTEXT: DecodeContext = DecodeContext {
    four_octet_as: true,
    external: true,
    families: AddressFamilies::ALL,
    add_path: AddressFamilies::NONE,
    extended_next_hop: AddressFamilies::NONE,
    max_message: MAX_EXTENDED_MESSAGE,
};

/// Octets: family, then NLRI. Rules that are read can be written, in octets and in words, and read again.
pub(crate) fn flowspec(input: &[u8]) {
    let mut rng = feed(input);
    let family = Family::ALL[rng.below(2) as usize];
    let community: [u8; 8] = std::array::from_fn(|_| rng.octet());
    action(Action::from_community(community), Some(community));
    let rest = rng.rest();
    let Some(update) = announced(family, &rest) else { return };
    assert_eq!(update.attributes.is_some(), !update.flows_announced.is_empty());
    for flow in &update.flows_announced {
        assert_eq!(flow.family, family);
        rule(flow);
    }
}

/// An UPDATE with this NLRI behind sound attributes.
fn announced(family: Family, nlri: &[u8]) -> Option<Update> {
    let afi = if family == Family::Ipv4 { 1 } else { 2 };
    let value = [&[0, afi, 133, 0, 0], nlri].concat();
    let mut attributes = vec![0x90, 14];
    attributes.extend((value.len() as u16).to_be_bytes());
    attributes.extend(value);
    attributes.extend([0x40, 1, 1, 0, 0x40, 2, 6, 2, 1, 0, 0, 0xfd, 0xe8]);
    let mut message = vec![0xff; 16];
    message.extend(((HEADER_LEN + 4 + attributes.len()) as u16).to_be_bytes());
    message.extend([2, 0, 0]);
    message.extend((attributes.len() as u16).to_be_bytes());
    message.extend(attributes);
    match decode(&message, &CONTEXT) {
        Ok(Message::Update(update)) => Some(update),
        Ok(other) => panic!("not an UPDATE: {other:?}"),
        Err(_) => None,
    }
}

/// A rule, written and read again.
fn rule(flow: &FlowSpec) {
    assert!(flow.well_formed().is_ok(), "{flow:?} is read and cannot be written");
    let _ = flow.validate();
    let attributes = Attributes { as_path: AsPath::sequence([ubique_model::Asn(65000)]), ..Attributes::originated() };
    let sender = EncodeContext {
        four_octet_as: true,
        external: true,
        add_path: AddressFamilies::NONE,
        extended_next_hop: AddressFamilies::NONE,
        max_message: MAX_EXTENDED_MESSAGE,
    };
    let (mut out, flows) = (Vec::new(), std::slice::from_ref(flow));
    let Ok(()) = encode_flows(&[], Some((&attributes, flows)), &sender, &mut out) else { return };
    match decode(&out, &CONTEXT) {
        // Numbers beyond their field are cut; such a rule is never announced.
        Ok(Message::Update(update)) => assert!(update.flows_announced == flows || flow.validate().is_err(), "{flow:?}"),
        other => panic!("{other:?} for {flow:?}"),
    }
    let words = flow.to_string();
    let again: Result<FlowSpec, _> = words.parse();
    // A comparison that is always or never true is written without its number.
    assert!(again.is_ok_and(|again| again.to_string() == words), "{words}");
}

/// An action, written and read again.
fn action(action: Action, community: Option<[u8; 8]>) {
    if let Some(community) = community {
        assert_eq!(Action::from_community(community).community(), action.community());
    }
    let again = Action::from_community(action.community());
    assert_eq!(again.community(), action.community(), "{action:?}");
    let words = action.to_string();
    let read: Result<Action, _> = words.parse();
    assert!(read.is_ok_and(|read| read.community() == action.community()), "{words}");
}

/// Words: a rule, or an action.
pub(crate) fn text(input: &[u8]) {
    let Ok(words) = std::str::from_utf8(input) else { return };
    match words.parse::<FlowSpec>() {
        Ok(flow) => rule(&flow),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    match words.parse::<Action>() {
        Ok(read) => action(read, None),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}
