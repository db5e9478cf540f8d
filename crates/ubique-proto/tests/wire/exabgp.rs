//! ExaBGP's vectors: what another implementation writes for announcements, with its own reading of them as JSON.
//!
//! A vector counts as supported when it is an OPEN, or an UPDATE of IPv4 or IPv6, unicast or FlowSpec.
//! Supported ones must decode without a fault (exceptions are listed), agree with the JSON, and encode to the same
//! octets. Where ExaBGP's octets are one of several right encodings, they are first brought into ours by
//! [`canonical`], which does not use the codec.

use std::path::PathBuf;

use serde_json::Value;
use ubique_model::Prefix;
use ubique_proto::bgp::attributes::{Attributes, NextHop, Segment};
use ubique_proto::bgp::family::{AddressFamilies, AddressFamily};
use ubique_proto::bgp::flowspec::Component;
use ubique_proto::bgp::message::{Message, Notification, Update};
use ubique_proto::bgp::wire::{
    DecodeContext, decode, encode_end_of_rib, encode_flows, encode_notification, encode_open, encode_updates,
};

use crate::support::{IBGP, attributes, contexts, hex, internal, message, sender, shared, to_hex};

/// Attribute types ubique reads; others it passes on when transitive.
const KNOWN: [u8; 17] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 14, 15, 16, 17, 18, 32, 35];

/// Offset and length of an IPv6 prefix in the layout of a draft: RFC 8956 §3.1 leaves out what lies before the offset.
const DRAFT_OFFSET: &str = "0280780000000000000000";

struct Vector {
    file: String,
    octets: Vec<u8>,
    json: Option<Value>,
}

fn files(folder: &str) -> Option<Vec<PathBuf>> {
    let folder = shared(&format!("badinput/exabgp/qa/{folder}"))?;
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    Some(files)
}

fn name(path: &std::path::Path) -> String {
    path.file_name().unwrap().to_string_lossy().into_owned()
}

/// `N:raw:HEX`, with colons or without, and the `N:json:…` after it.
fn encodings() -> Option<Vec<Vector>> {
    let mut vectors = Vec::new();
    for path in files("encoding")? {
        let text = std::fs::read_to_string(&path).unwrap();
        for line in text.lines() {
            let mut parts = line.splitn(3, ':');
            match (parts.next(), parts.next(), parts.next()) {
                (Some(_), Some("raw"), Some(raw)) => {
                    vectors.push(Vector { file: name(&path), octets: hex(raw), json: None });
                }
                (Some(_), Some("json"), Some(json)) => {
                    let json = serde_json::from_str(json).ok();
                    vectors.last_mut().expect("json comes after raw").json = json;
                }
                _ => {}
            }
        }
    }
    Some(vectors)
}

/// A kind, octets with or without a header, JSON.
fn decodings() -> Option<Vec<Vector>> {
    let mut vectors = Vec::new();
    for path in files("decoding")? {
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        // A bare prefix of another family is no message.
        if lines[0].starts_with("nlri") {
            continue;
        }
        let octets = hex(lines[1]);
        let octets = if octets.starts_with(&[0xff; 16]) { octets } else { message(2, &octets) };
        let json = lines.get(2).and_then(|line| serde_json::from_str(line).ok());
        vectors.push(Vector { file: name(&path), octets, json });
    }
    Some(vectors)
}

/// Families of the multiprotocol attributes that ubique does not have, or has with another next hop.
fn foreign(attributes: &[(u8, u8, &[u8])]) -> bool {
    attributes.iter().any(|(_, code, value)| match (code, value) {
        (14, [0, 1, 1, length, ..]) => !matches!(length, 4 | 16 | 32),
        (14, [0, 2, 1, length, ..]) => !matches!(length, 16 | 32),
        (14 | 15, [0, 1 | 2, 133, ..]) | (15, [0, 1 | 2, 1, ..]) => false,
        (14 | 15, _) => true,
        _ => false,
    })
}

/// The same UPDATE as we write it: MP_REACH_NLRI first (RFC 7606 §5.1), the others in order, lengths in two octets
/// only when needed, what is not understood without or with the partial bit (RFC 4271 §5), FlowSpec without a next hop
/// (RFC 8955 §4).
fn canonical(octets: &[u8]) -> Vec<u8> {
    let withdrawn = usize::from(u16::from_be_bytes([octets[19], octets[20]]));
    let length = usize::from(u16::from_be_bytes([octets[21 + withdrawn], octets[22 + withdrawn]]));
    let mut all = attributes(octets).expect("sound");
    all.retain(|(flags, code, _)| KNOWN.contains(code) || flags & 0x40 != 0);
    all.sort_by_key(|(_, code, _)| (*code != 14, *code));
    let mut field = Vec::new();
    for (flags, code, value) in all {
        let value = match (code, value) {
            (14, [0, afi, 133, length, rest @ ..]) => [&[0, *afi, 133, 0], &rest[usize::from(*length)..]].concat(),
            _ => value.to_vec(),
        };
        let flags = flags & 0xe0 | if KNOWN.contains(&code) { 0 } else { 0x20 };
        match u8::try_from(value.len()) {
            Ok(length) => field.extend([flags, code, length]),
            Err(_) => {
                field.extend([flags | 0x10, code]);
                field.extend((value.len() as u16).to_be_bytes());
            }
        }
        field.extend(&value);
    }
    let body =
        [&octets[19..21 + withdrawn], &(field.len() as u16).to_be_bytes(), &field, &octets[23 + withdrawn + length..]]
            .concat();
    message(2, &body)
}

/// What we would write for an UPDATE that has one kind of route.
fn encoded(update: &Update, ctx: &DecodeContext) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    if let Some(family) = update.end_of_rib {
        encode_end_of_rib(family, &mut out);
        return Some(out);
    }
    if !update.flows_announced.is_empty() || !update.flows_withdrawn.is_empty() {
        let announced = update.attributes.as_deref().map(|a| (a, update.flows_announced.as_slice()));
        encode_flows(&update.flows_withdrawn, announced, &sender(ctx), &mut out).unwrap();
        return Some(out);
    }
    let announced = match (update.announced.as_slice(), &update.attributes) {
        ([], None) => None,
        ([reach], Some(attributes)) if update.withdrawn.is_empty() => {
            Some((attributes.as_ref(), reach.next_hop, reach.prefixes.as_slice()))
        }
        // We write a message for each kind.
        _ => return None,
    };
    encode_updates(&update.withdrawn, announced, &sender(ctx), &mut out).unwrap();
    Some(out)
}

/// LOCAL_PREF is what tells internal sessions in these vectors.
fn context(vector: &Vector) -> DecodeContext {
    let paths = matches!(vector.file.as_str(), "conf-addpath.ci" | "conf-path-information.ci");
    let add_path = if paths { AddressFamilies::UNICAST } else { AddressFamilies::NONE };
    let extended_next_hop = AddressFamilies::only(AddressFamily::Ipv4Unicast);
    let everything = DecodeContext { families: AddressFamilies::ALL, add_path, extended_next_hop, ..IBGP };
    DecodeContext { external: !internal(&vector.octets), four_octet_as: vector.file != "conf-no-asn4.ci", ..everything }
}

/// ExaBGP's reading of an UPDATE against ours. Says how many prefixes were compared.
fn agrees(update: &Update, json: &Value, name: &str) -> usize {
    let json = &json["neighbor"]["message"]["update"];
    let mut theirs = Vec::new();
    for family in ["ipv4 unicast", "ipv6 unicast"] {
        for (next_hop, nlri) in json["announce"][family].as_object().into_iter().flatten() {
            let routes = nlri.as_array().into_iter().flatten();
            theirs.extend(routes.map(|it| format!("{next_hop} {}", route(it))));
        }
        let withdrawn = json["withdraw"][family].as_array().into_iter().flatten();
        theirs.extend(withdrawn.map(|it| format!("withdrawn {}", it["nlri"].as_str().unwrap())));
    }
    let mut ours: Vec<String> = update.withdrawn.iter().map(|prefix| format!("withdrawn {prefix}")).collect();
    for reach in &update.announced {
        ours.extend(reach.prefixes.iter().map(|prefix| format!("{} {prefix}", reach.next_hop.address())));
    }
    for family in ["ipv4 flow", "ipv6 flow"] {
        let rules = json["announce"][family].as_object().into_iter().flatten();
        theirs.extend(rules.flat_map(|(_, rules)| rules.as_array().into_iter().flatten()).map(flow_addresses));
    }
    ours.extend(update.flows_announced.iter().map(|flow| {
        let address = |component: &Component| match component {
            Component::Destination { prefix, .. } => Some(format!(" to {prefix}")),
            Component::Source { prefix, .. } => Some(format!(" from {prefix}")),
            _ => None,
        };
        format!("flow{}", flow.components.iter().filter_map(address).collect::<String>())
    }));
    theirs.sort();
    ours.sort();
    assert_eq!(ours, theirs, "{name}");
    if let Some(attributes) = &update.attributes {
        attributes_agree(attributes, &json["attribute"], name);
    }
    ours.len()
}

/// A prefix with its path identifier, which ExaBGP writes like an address.
fn route(json: &Value) -> String {
    let prefix = json["nlri"].as_str().unwrap();
    match json["path-information"].as_str() {
        Some(id) => format!("{prefix} path {}", u32::from(id.parse::<std::net::Ipv4Addr>().unwrap())),
        None => prefix.to_owned(),
    }
}

/// Where packets of a rule go and come from; IPv6 has an offset behind the length. The rest is compared as octets.
fn flow_addresses(json: &Value) -> String {
    let part = |word: &str, keys: [&str; 2]| {
        let text = keys.iter().find_map(|key| json[key][0].as_str());
        text.map(|text| format!(" {word} {}", text.splitn(3, '/').take(2).collect::<Vec<_>>().join("/")))
    };
    let to = part("to", ["destination-ipv4", "destination-ipv6"]);
    let from = part("from", ["source-ipv4", "source-ipv6"]);
    format!("flow{}{}", to.unwrap_or_default(), from.unwrap_or_default())
}

fn numbers(list: &Value) -> Vec<u64> {
    let items = list.as_array().into_iter().flatten();
    items.map(|it| it.as_u64().unwrap()).collect()
}

fn attributes_agree(a: &Attributes, json: &Value, name: &str) {
    assert_eq!(json["origin"].as_str(), Some(format!("{:?}", a.origin).to_lowercase().as_str()), "{name}");
    assert_eq!(json["med"].as_u64(), a.med.map(u64::from), "{name}");
    assert_eq!(json["local-preference"].as_u64(), a.local_pref.map(u64::from), "{name}");
    assert_eq!(json["atomic-aggregate"].as_bool().unwrap_or_default(), a.atomic_aggregate, "{name}");
    let lists = |key: &str| -> Vec<Vec<u64>> { json[key].as_array().into_iter().flatten().map(numbers).collect() };
    let communities: Vec<Vec<u64>> =
        a.communities.iter().map(|c| vec![u64::from(c.0 >> 16), u64::from(c.0 & 0xffff)]).collect();
    assert_eq!(lists("community"), communities, "{name}");
    let large: Vec<Vec<u64>> = a.large_communities.iter().map(|c| c.0.iter().map(|&v| v.into()).collect()).collect();
    assert_eq!(lists("large-community"), large, "{name}");
    for (at, segment) in a.as_path.0.iter().enumerate() {
        let theirs = &json["as-path"][at.to_string()];
        let (element, ases) = match segment {
            Segment::Sequence(ases) => ("as-sequence", ases),
            Segment::Set(ases) => ("as-set", ases),
            Segment::ConfedSequence(ases) => ("as-confed-sequence", ases),
            Segment::ConfedSet(ases) => ("as-confed-set", ases),
        };
        assert_eq!(theirs["element"].as_str(), Some(element), "{name}");
        assert_eq!(numbers(&theirs["value"]), ases.iter().map(|asn| asn.0.into()).collect::<Vec<u64>>(), "{name}");
    }
}

#[derive(Debug, Default)]
struct Tally {
    opens: usize,
    updates: usize,
    same_octets: usize,
    same_canonical: usize,
    withdrawn_by_rule: usize,
    refused_by_rule: usize,
    several_kinds: usize,
    json: usize,
    prefixes: usize,
    foreign: usize,
    path_identifiers: usize,
    flows: usize,
    over_ipv6: usize,
    notifications: usize,
}

#[test]
fn encoding_vectors() {
    let Some(vectors) = encodings() else { return };
    let mut tally = Tally::default();
    for vector in &vectors {
        check(vector, &mut tally);
        for ctx in contexts() {
            let _ = decode(&vector.octets, &ctx);
        }
    }
    println!("{} vectors: {tally:?}", vectors.len());
    assert!(vectors.len() >= 160);
    assert!(tally.opens >= 3 && tally.updates >= 90, "{tally:?}");
    assert!(tally.same_octets >= 68 && tally.json >= 49 && tally.prefixes >= 54, "{tally:?}");
    assert!(tally.flows >= 14 && tally.path_identifiers >= 4 && tally.over_ipv6 >= 1, "{tally:?}");
    let compared = tally.same_octets
        + tally.same_canonical
        + tally.several_kinds
        + tally.withdrawn_by_rule
        + tally.refused_by_rule;
    assert_eq!(compared, tally.updates, "{tally:?}");
}

fn check(vector: &Vector, tally: &mut Tally) {
    let ctx = context(vector);
    let name = format!("{} {}", vector.file, to_hex(&vector.octets));
    let result = decode(&vector.octets, &ctx);
    match (vector.octets[18], &result) {
        (1, Ok(message @ Message::Open(_))) => {
            same_octets(message, vector, &name);
            tally.opens += 1;
            return;
        }
        (3, Ok(message @ Message::Notification(_))) => {
            same_octets(message, vector, &name);
            tally.notifications += 1;
            return;
        }
        (2, _) => {}
        _ => panic!("{name}: {result:?}"),
    }
    let all = attributes(&vector.octets).expect(&name);
    if foreign(&all) {
        let ignored = all.iter().all(|(_, code, value)| *code != 14 || !matches!(value, [0, 1 | 2, 1, ..]));
        // Ignored, except an IPv6 route with an IPv4 next hop: a next hop of a wrong length.
        assert_eq!(result.is_ok(), ignored, "{name}: {result:?}");
        tally.foreign += 1;
        return;
    }
    tally.updates += 1;
    supported(vector, &ctx, result, tally, &name);
}

fn same_octets(message: &Message, vector: &Vector, name: &str) {
    let mut out = Vec::new();
    match message {
        Message::Open(open) => encode_open(open, &mut out),
        Message::Notification(notification) => encode_notification(notification, &mut out),
        other => panic!("{name}: {other:?}"),
    }
    assert_eq!(to_hex(&out), to_hex(&vector.octets), "{name}");
}

/// An UPDATE of a family in use: no fault but the expected ones, the same content, the same octets.
fn supported(
    vector: &Vector,
    ctx: &DecodeContext,
    result: Result<Message, Notification>,
    tally: &mut Tally,
    name: &str,
) {
    let all = attributes(&vector.octets).expect(name);
    if let Some((_, code, _)) = all.iter().find(|(flags, code, _)| flags & 0x80 == 0 && !KNOWN.contains(code)) {
        // An unknown attribute that claims to be well-known (RFC 4271 §6.3).
        let error = result.expect_err(name);
        assert_eq!((error.code, error.subcode, error.data[1]), (3, 2, *code), "{name}");
        tally.refused_by_rule += 1;
        return;
    }
    let Ok(Message::Update(update)) = result else { panic!("{name}: {result:?}") };
    if name.contains(DRAFT_OFFSET) {
        assert_eq!((update.flows_announced.len(), update.faults.len()), (0, 1), "{name}");
        tally.withdrawn_by_rule += 1;
        return;
    }
    tally.flows += update.flows_announced.len();
    tally.path_identifiers +=
        update.announced.iter().flat_map(|r| &r.prefixes).filter(|nlri| nlri.path_id != 0).count();
    tally.over_ipv6 += update
        .announced
        .iter()
        .filter(|r| matches!((r.next_hop, r.prefixes[0].prefix), (NextHop::V6 { .. }, Prefix::V4(_))))
        .count();
    if all.contains(&(0x40, 3, &[255; 4])) {
        assert_eq!((update.announced.len(), update.faults.len()), (0, 1), "{name}");
        tally.withdrawn_by_rule += 1;
        return;
    }
    assert_eq!(update.faults, vec![], "{name}");
    if let Some(json) = &vector.json {
        tally.prefixes += agrees(&update, json, name);
        tally.json += 1;
    }
    if update.end_of_rib == Some(AddressFamily::Ipv4Unicast) && vector.octets.len() > 23 {
        // In MP_UNREACH_NLRI; we write the shorter form (RFC 4724 §2).
        tally.same_canonical += 1;
        return;
    }
    let Some(ours) = encoded(&update, ctx) else {
        tally.several_kinds += 1;
        return;
    };
    if ours == vector.octets {
        tally.same_octets += 1;
    } else {
        assert_eq!(to_hex(&ours), to_hex(&canonical(&vector.octets)), "{name}");
        tally.same_canonical += 1;
    }
}

#[test]
fn decoding_vectors() {
    let Some(vectors) = decodings() else { return };
    let (mut opens, mut compared, mut ignored, mut flows) = (0, 0, 0, 0);
    for vector in &vectors {
        for ctx in contexts() {
            let _ = decode(&vector.octets, &ctx);
        }
        match decode(&vector.octets, &context(vector)) {
            Ok(Message::Open(open)) => {
                let mut out = Vec::new();
                encode_open(&open, &mut out);
                assert_eq!(out.len(), vector.octets.len() + 2 * (open.capabilities.len() - 1) - 4);
                opens += 1;
            }
            Ok(Message::Update(update)) if vector.file.starts_with("bgp-flow") => {
                assert_eq!(update.faults, vec![], "{}", vector.file);
                let json = vector.json.as_ref().expect("a line of JSON");
                agrees(&update, json, &vector.file);
                let ours = encoded(&update, &context(vector)).expect("rules only");
                assert_eq!(to_hex(&ours), to_hex(&canonical(&vector.octets)), "{}", vector.file);
                flows += update.flows_announced.len();
            }
            Ok(Message::Update(update)) if vector.file.starts_with("ipv4-unicast") => {
                let json = vector.json.as_ref().expect("a line of JSON");
                assert!(agrees(&update, json, &vector.file) > 0 || update.announced.is_empty());
                compared += 1;
            }
            Ok(Message::Update(update)) => {
                assert_eq!((update.announced.len(), update.withdrawn.len()), (0, 0), "{}", vector.file);
                ignored += 1;
            }
            other => panic!("{}: {other:?}", vector.file),
        }
    }
    println!(
        "{} vectors: {opens} OPEN, {compared} compared with JSON, {flows} rules, {ignored} of other families",
        vectors.len()
    );
    assert!(opens == 1 && compared == 2 && flows == 5 && ignored >= 13);
}
