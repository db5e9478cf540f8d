//! Malformed messages of public fuzzing campaigns: no panic, and the same result however they arrive.

use std::collections::BTreeMap;
use std::io::Read;

use ubique_proto::bgp::message::Message;
use ubique_proto::bgp::wire::decode;

use crate::support::{contexts, decode_all, message, shared};

/// The messages, in memory.
fn corpus() -> Option<Vec<Vec<u8>>> {
    let file = std::fs::File::open(shared("badinput/bgp-messages.tar.gz")?).unwrap();
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(file));
    let mut all = Vec::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        if entry.header().entry_type().is_file() && entry.path().unwrap().extension().is_none_or(|e| e != "md") {
            let mut octets = Vec::new();
            entry.read_to_end(&mut octets).unwrap();
            all.push(octets);
        }
    }
    Some(all)
}

#[test]
fn never_panics() {
    let Some(corpus) = corpus() else { return };
    assert!(corpus.len() >= 1700, "{} messages", corpus.len());
    let mut outcomes: BTreeMap<&str, usize> = BTreeMap::new();
    for octets in &corpus {
        for ctx in contexts() {
            // As a message, and as every part of one.
            for end in 0..=octets.len().min(600) {
                let _ = decode(&octets[..end], &ctx);
            }
            // As a stream: whole, octet by octet, and in odd pieces.
            let whole = decode_all(octets, octets.len(), &ctx);
            assert_eq!(whole, decode_all(octets, 1, &ctx));
            assert_eq!(whole, decode_all(octets, 23, &ctx));
            for result in whole {
                *outcomes.entry(outcome(result)).or_default() += 1;
            }
            // As the body of each type: most have a header that stops them early.
            for body in [&octets[..], octets.get(19..).unwrap_or_default()] {
                let body = &body[..body.len().min(4096 - 19)];
                for kind in 1..=5 {
                    *outcomes.entry(outcome(decode(&message(kind, body), &ctx))).or_default() += 1;
                }
            }
        }
    }
    println!("{} messages: {outcomes:?}", corpus.len());
    assert!(outcomes.len() > 5, "{outcomes:?}");
}

fn outcome(result: Result<Message, ubique_proto::bgp::message::Notification>) -> &'static str {
    match result {
        Err(notification) => {
            // Each is one the RFCs know.
            assert!(!notification.describe().contains("subcode") || notification.code == 2, "{notification:?}");
            "NOTIFICATION sent"
        }
        Ok(Message::Update(update)) => {
            let any = !update.announced.is_empty() || !update.flows_announced.is_empty();
            assert_eq!(update.attributes.is_some(), any);
            assert!(update.announced.len() <= 2 && update.faults.len() <= 16);
            if update.faults.is_empty() { "UPDATE" } else { "UPDATE with faults" }
        }
        Ok(Message::Open(open)) => {
            assert!(open.asn.0 != 0 && !open.router_id.is_unspecified() && !matches!(open.hold_time_s, 1 | 2));
            "OPEN"
        }
        Ok(Message::Notification(notification)) => {
            assert!(!notification.describe().contains('\n'));
            "NOTIFICATION"
        }
        Ok(Message::Keepalive) => "KEEPALIVE",
        Ok(Message::RouteRefresh { .. }) => "ROUTE-REFRESH",
    }
}
