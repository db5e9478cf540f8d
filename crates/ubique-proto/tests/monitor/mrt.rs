use std::net::IpAddr;

use ubique_model::Asn;
use ubique_proto::bgp::attributes::{AsPath, Attributes, NextHop};
use ubique_proto::bgp::family::AddressFamilies;
use ubique_proto::bgp::message::Nlri;
use ubique_proto::bgp::wire::{self, EncodeContext, MAX_MESSAGE};
use ubique_proto::mrt::{Event, Parsed, Record, decode, encode};

use crate::{Scratch, printed};

fn update(four_octet_as: bool, prefix: &str, hop: &str) -> Vec<u8> {
    let context = EncodeContext {
        four_octet_as,
        external: true,
        add_path: AddressFamilies::NONE,
        extended_next_hop: AddressFamilies::NONE,
        max_message: MAX_MESSAGE,
    };
    let attributes = Attributes {
        as_path: AsPath::sequence([Asn(64501), Asn(4_200_000_001)]),
        communities: vec!["64501:7".parse().unwrap()],
        ..Attributes::originated()
    };
    let next_hop = match hop.parse().unwrap() {
        IpAddr::V4(a) => NextHop::V4(a),
        IpAddr::V6(global) => NextHop::V6 { global, link_local: None },
    };
    let routes = [Nlri::from(prefix.parse::<ubique_model::Prefix>().unwrap())];
    let mut out = vec![];
    wire::encode_updates(&[], Some((&attributes, next_hop, &routes)), &context, &mut out).unwrap();
    out
}

/// 203.0.115.0/24 with path identifier 77 (RFC 7911 §3).
fn with_path_id() -> Vec<u8> {
    let mut out = update(true, "203.0.115.0/24", "192.0.2.1");
    let nlri = out.split_off(out.len() - 4);
    out.extend_from_slice(&[0, 0, 0, 77]);
    out.extend(nlri);
    let length = (out.len() as u16).to_be_bytes();
    out[16..18].copy_from_slice(&length);
    out
}

fn record(peer: &str, local: &str, event: Event) -> Record {
    Record {
        seconds: 1_795_248_930,
        microseconds: 250_000,
        peer_asn: Asn(64501),
        local_asn: Asn(64500),
        interface: 0,
        peer: peer.parse().unwrap(),
        local: local.parse().unwrap(),
        event,
    }
}

fn message(sent: bool, four_octet_as: bool, add_path: bool, bytes: Vec<u8>) -> Event {
    Event::Message { sent, four_octet_as, add_path, bytes }
}

fn records() -> Vec<Record> {
    let (peer4, local4, peer6, local6) = ("192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8::2");
    let mut keepalive = vec![];
    wire::encode_keepalive(&mut keepalive);
    let received = update(true, "203.0.113.0/24", peer4);
    vec![
        record(peer4, local4, Event::StateChange { from: 5, to: 6 }),
        record(peer4, local4, message(false, true, false, received.clone())),
        record(peer6, local6, message(false, true, false, update(true, "2001:db8:113::/48", peer6))),
        record(peer4, local4, message(true, true, false, update(true, "198.51.100.0/24", local4))),
        record(peer4, local4, message(false, false, false, update(false, "203.0.114.0/24", peer4))),
        record(peer4, local4, message(false, true, true, with_path_id())),
        record(peer4, local4, message(true, false, true, vec![])),
        record(peer4, local4, message(true, true, true, vec![])),
        record(peer4, local4, message(false, false, true, vec![])),
        record(peer4, local4, message(true, false, false, keepalive.clone())),
        record(peer4, local4, message(false, true, false, keepalive)),
        record(peer6, local6, Event::StateChange { from: 6, to: 1 }),
    ]
}

fn encoded(records: &[Record]) -> Vec<u8> {
    let mut octets = vec![];
    records.iter().for_each(|record| encode(record, &mut octets));
    octets
}

#[test]
fn bgpdump_reads_what_we_write() {
    // What it knows: neither our own messages with path identifiers nor empty ones.
    let readable: Vec<Record> = records()
        .into_iter()
        .filter(|r| !matches!(&r.event, Event::Message { bytes, .. } if bytes.is_empty()))
        .collect();
    let file = Scratch::new("updates.mrt", &encoded(&readable));
    let Some(text) = printed("bgpdump", &["-m", "-q", file.0.to_str().unwrap()]) else { return };
    println!("{text}");
    let lines: Vec<&str> = text.lines().collect();
    for expected in [
        "|STATE|192.0.2.1|64501|5|6",
        "|A|192.0.2.1|64501|203.0.113.0/24|64501 4200000001|IGP|192.0.2.1|0|0|64501:7|NAG|",
        "|A|2001:db8::1|64501|2001:db8:113::/48|64501 4200000001|IGP|2001:db8::1|0|0|64501:7|NAG|",
        "|A|192.0.2.1|64501|198.51.100.0/24|64501 4200000001|IGP|192.0.2.2|0|0|64501:7|NAG|",
        "|A|192.0.2.1|64501|203.0.114.0/24|64501 4200000001|IGP|192.0.2.1|0|0|64501:7|NAG|",
        "|A|192.0.2.1|64501|203.0.115.0/24|77|64501 4200000001|",
        "|STATE|2001:db8::1|64501|6|1",
    ] {
        assert!(lines.iter().any(|line| line.contains(expected)), "{expected} not in\n{text}");
    }
    assert!(lines.iter().all(|line| line.contains("|1795248930.250000|")), "time with microseconds:\n{text}");
}

#[test]
fn records_read_back() {
    let records = records();
    let octets = encoded(&records);
    let mut rest = &octets[..];
    for record in records {
        assert_eq!(decode(&rest[..10]), Parsed::Incomplete);
        let Parsed::Record(read, used) = decode(rest) else { panic!("{:?}", decode(rest)) };
        assert_eq!(*read, record);
        assert_eq!(decode(&rest[..used - 1]), Parsed::Incomplete);
        rest = &rest[used..];
    }
    assert!(rest.is_empty());
}

#[test]
fn changed_octets_never_panic() {
    let octets = encoded(&records());
    for at in 0..octets.len() {
        for value in [0, 1, 0x7f, 0xff] {
            let mut changed = octets.clone();
            changed[at] = value;
            let mut rest = &changed[..];
            while let Parsed::Record(_, used) | Parsed::Other(used) = decode(rest) {
                rest = &rest[used..];
            }
        }
    }
}
