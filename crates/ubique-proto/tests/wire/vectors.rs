//! The vectors in `tests/vectors`: octets and what they say, so that a clone without other data tests the codec.
//!
//! A vector is a line `CONTEXT FLAG HEX` and, below it, indented lines: the message in words. Contexts: `ebgp`,
//! `ibgp`, `ebgp2`, `ibgp2` (2-octet AS numbers). FLAG `=`: the message is written back to the same octets; `>`: it is
//! only read. `#` starts a comment.

use std::path::Path;

use ubique_proto::bgp::attributes::{Attributes, NextHop};
use ubique_proto::bgp::family::AddressFamily;
use ubique_proto::bgp::message::{Capability, Message, Notification, Treatment, Update};
use ubique_proto::bgp::wire::{
    DecodeContext, decode, encode_end_of_rib, encode_keepalive, encode_notification, encode_open, encode_route_refresh,
    encode_updates,
};

use crate::support::{context, hex, sender, to_hex};

#[test]
fn committed_vectors() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors");
    let mut count = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|e| e != "vectors") {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let mut lines = text.lines().map(str::trim_end).filter(|l| !l.starts_with('#') && !l.is_empty()).peekable();
        while let Some(head) = lines.next() {
            let mut want = Vec::new();
            while let Some(line) = lines.next_if(|line| line.starts_with(' ')) {
                want.push(line.trim());
            }
            let [ctx, flag, octets] = head.splitn(3, ' ').collect::<Vec<_>>()[..] else { panic!("{head}") };
            check(&path.display().to_string(), &named(ctx), flag, &hex(octets), &want);
            count += 1;
        }
    }
    assert!(count >= 40, "{count} vectors");
}

fn named(name: &str) -> DecodeContext {
    match name {
        "ebgp" => context(true, true),
        "ibgp" => context(true, false),
        "ebgp2" => context(false, true),
        "ibgp2" => context(false, false),
        other => panic!("context {other}"),
    }
}

fn check(file: &str, ctx: &DecodeContext, flag: &str, octets: &[u8], want: &[&str]) {
    let message = decode(octets, ctx);
    assert_eq!(words(&message), want, "{file}: {}", to_hex(octets));
    match flag {
        "=" => assert_eq!(to_hex(&written(&message.unwrap(), ctx)), to_hex(octets), "{file}"),
        ">" => {}
        other => panic!("{file}: flag {other}"),
    }
}

fn written(message: &Message, ctx: &DecodeContext) -> Vec<u8> {
    let mut out = Vec::new();
    match message {
        Message::Open(open) => encode_open(open, &mut out),
        Message::Keepalive => encode_keepalive(&mut out),
        Message::Notification(notification) => encode_notification(notification, &mut out),
        Message::RouteRefresh { afi, subtype, safi } => {
            encode_route_refresh(AddressFamily::from_afi_safi(*afi, *safi).unwrap(), *subtype, &mut out);
        }
        Message::Update(Update { end_of_rib: Some(family), .. }) => encode_end_of_rib(*family, &mut out),
        Message::Update(update) => {
            let announced = update
                .announced
                .first()
                .map(|reach| (update.attributes.as_deref().unwrap(), reach.next_hop, reach.prefixes.as_slice()));
            encode_updates(&update.withdrawn, announced, &sender(ctx), &mut out).unwrap();
        }
    }
    out
}

fn words(message: &Result<Message, Notification>) -> Vec<String> {
    match message {
        Err(n) if n.data.is_empty() => vec![format!("send {n}")],
        Err(n) => vec![format!("send {n}; data {}", to_hex(&n.data))],
        Ok(Message::Keepalive) => vec!["keepalive".into()],
        Ok(Message::RouteRefresh { afi, subtype, safi }) => {
            vec![format!("refresh {afi} {subtype} {safi}")]
        }
        Ok(Message::Notification(n)) => vec![format!("notification {n}")],
        Ok(Message::Open(open)) => {
            let mut lines = vec![format!("open AS{} hold {} s id {}", open.asn, open.hold_time_s, open.router_id)];
            lines.extend(open.capabilities.iter().map(|capability| match capability {
                Capability::Unknown { code, value } => {
                    format!("capability {code} {}", to_hex(value)).trim_end().to_owned()
                }
                known => format!("capability {known:?}"),
            }));
            lines
        }
        Ok(Message::Update(update)) => update_words(update),
    }
}

fn update_words(update: &Update) -> Vec<String> {
    let mut lines: Vec<String> = update.withdrawn.iter().map(|prefix| format!("withdraw {prefix}")).collect();
    for reach in &update.announced {
        let via = match reach.next_hop {
            NextHop::V6 { global, link_local: Some(local) } => format!("{global} or {local}"),
            next_hop => next_hop.address().to_string(),
        };
        lines.extend(reach.prefixes.iter().map(|prefix| format!("announce {prefix} via {via}")));
    }
    lines.extend(update.attributes.iter().flat_map(|a| attribute_words(a)));
    lines.extend(update.end_of_rib.map(|family| format!("end of RIB {family}")));
    lines.extend(update.faults.iter().map(|fault| match fault.treatment {
        Treatment::AttributeDiscard => format!("discarded {}: {}", fault.code, fault.reason),
        Treatment::TreatAsWithdraw => format!("withdrawn for {}: {}", fault.code, fault.reason),
    }));
    lines
}

fn attribute_words(a: &Attributes) -> Vec<String> {
    let mut lines = vec![format!("origin {:?}, path {}", a.origin, a.as_path).trim_end().to_owned()];
    lines.extend(a.med.map(|med| format!("MED {med}")));
    lines.extend(a.local_pref.map(|preference| format!("LOCAL_PREF {preference}")));
    lines.extend(a.atomic_aggregate.then(|| "atomic aggregate".to_owned()));
    lines.extend(a.aggregator.map(|it| format!("aggregator AS{} {}", it.asn, it.router_id)));
    lines.extend(a.communities.iter().map(|c| format!("community {c}")));
    lines.extend(a.originator_id.map(|id| format!("originator {id}")));
    lines.extend(a.cluster_list.iter().map(|id| format!("cluster {id}")));
    lines.extend(a.extended_communities.iter().map(|c| format!("extended community {}", to_hex(c))));
    lines.extend(a.large_communities.iter().map(|c| format!("large community {c}")));
    lines.extend(a.only_to_customer.map(|asn| format!("only to customer {asn}")));
    lines
        .extend(a.unknown.iter().map(|raw| format!("attribute {} {:02x} {}", raw.code, raw.flags, to_hex(&raw.value))));
    lines
}
