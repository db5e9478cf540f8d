//! BGP sessions between routers of several vendors, as they were captured: each direction is read with what the two
//! OPENs agree on.

use std::collections::BTreeMap;

use ubique_proto::bgp::family::{AddressFamilies, AddressFamily};
use ubique_proto::bgp::message::{AddPath, Capability, Message, Notification, Open};
use ubique_proto::bgp::wire::{DecodeContext, Framer, MAX_EXTENDED_MESSAGE};

use crate::pcap;
use crate::support::shared;

const BGP_PORT: [u8; 2] = 179_u16.to_be_bytes();

/// What a receiver may expect of a sender.
fn negotiated(receiver: &Open, sender: &Open) -> DecodeContext {
    let has = |open: &Open, want: &Capability| open.capabilities.contains(want);
    let four_octet = |open: &Open| open.capabilities.iter().any(|c| matches!(c, Capability::FourOctetAs(_)));
    let families = |open: &Open| -> AddressFamilies {
        let multiprotocol = open.capabilities.iter().filter_map(|c| match c {
            Capability::Multiprotocol(family) => Some(*family),
            _ => None,
        });
        let any = open
            .capabilities
            .iter()
            .any(|c| matches!(c, Capability::Multiprotocol(_) | Capability::Unknown { code: 1, .. }));
        if any { multiprotocol.collect() } else { AddressFamilies::only(AddressFamily::Ipv4Unicast) }
    };
    let paths = |open: &Open, able: AddPath| -> AddressFamilies {
        let all = open.capabilities.iter().filter_map(|c| match c {
            Capability::AddPath(families) => Some(families),
            _ => None,
        });
        let able = all.flatten().filter(|(_, it)| [able, AddPath::Both].contains(it));
        able.map(|(family, _)| *family).collect()
    };
    let next_hops = |open: &Open| -> AddressFamilies {
        let all = open.capabilities.iter().filter_map(|c| match c {
            Capability::ExtendedNextHop(families) => Some(families),
            _ => None,
        });
        all.flatten().copied().collect()
    };
    DecodeContext {
        four_octet_as: four_octet(receiver) && four_octet(sender),
        external: receiver.asn != sender.asn,
        families: families(receiver).intersection(families(sender)),
        add_path: paths(receiver, AddPath::Receive).intersection(paths(sender, AddPath::Send)),
        extended_next_hop: next_hops(receiver).intersection(next_hops(sender)),
        max_message: if has(receiver, &Capability::ExtendedMessage) {
            MAX_EXTENDED_MESSAGE
        } else {
            DecodeContext::INITIAL.max_message
        },
    }
}

fn read(stream: &[u8], ctx: &DecodeContext) -> Vec<Result<Message, Notification>> {
    let mut framer = Framer::new();
    let mut messages = vec![];
    let mut rest = stream;
    while !rest.is_empty() {
        rest = &rest[framer.push(rest)..];
        messages.extend(std::iter::from_fn(|| framer.next(ctx)));
    }
    messages
}

fn reversed(flow: &pcap::Flow) -> pcap::Flow {
    let (addresses, ports) = flow.split_at(flow.len() - 4);
    let (from, to) = addresses.split_at(addresses.len() / 2);
    [to, from, &ports[2..], &ports[..2]].concat()
}

fn open(stream: &[u8]) -> Option<Open> {
    match read(stream, &DecodeContext::INITIAL).into_iter().next()? {
        Ok(Message::Open(open)) => Some(open),
        _ => None,
    }
}

#[test]
fn vendors_sessions() {
    let Some(folder) = shared("badinput/netgauze-pcap") else { return };
    let mut captures: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    captures.sort();
    let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
    let (mut directions, mut errors, mut faults) = (0, vec![], BTreeMap::<String, usize>::new());
    for path in captures {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let flows = pcap::flows(&std::fs::read(&path).unwrap());
        for (flow, stream) in flows.iter().filter(|(flow, stream)| {
            let ports = &flow[flow.len() - 4..];
            !stream.is_empty() && (ports[..2] == BGP_PORT || ports[2..] == BGP_PORT)
        }) {
            let other = flows.get(&reversed(flow)).and_then(|stream| open(stream));
            let ctx = match (open(stream), other) {
                (Some(sender), Some(receiver)) => negotiated(&receiver, &sender),
                // Captured in the middle: as most sessions are.
                _ => DecodeContext { four_octet_as: true, ..DecodeContext::INITIAL },
            };
            directions += 1;
            for message in read(stream, &ctx) {
                let kind = match &message {
                    Ok(Message::Open(_)) => "OPEN",
                    Ok(Message::Update(update)) => {
                        for fault in &update.faults {
                            *faults.entry(format!("{name}: {} {}", fault.code, fault.reason)).or_default() += 1;
                        }
                        "UPDATE"
                    }
                    Ok(Message::Notification(_)) => "NOTIFICATION",
                    Ok(Message::Keepalive) => "KEEPALIVE",
                    Ok(Message::RouteRefresh { .. }) => "ROUTE-REFRESH",
                    Err(notification) => {
                        errors.push(format!("{name}: {notification}"));
                        "error"
                    }
                };
                *kinds.entry(kind).or_default() += 1;
            }
        }
    }
    println!("{directions} directions: {kinds:?}\nfaults: {faults:#?}\nerrors: {errors:#?}");
    assert_eq!(errors, [""; 0], "every message of these is sound");
    assert!(faults.is_empty() && directions == 38, "{directions} directions, {faults:?}");
    let want = [("KEEPALIVE", 171), ("OPEN", 20), ("UPDATE", 100)];
    assert_eq!(kinds, BTreeMap::from(want));
}
