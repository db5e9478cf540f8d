//! How long a full table takes to read. Run with `cargo test --release -p ubique-proto --test wire speed -- --ignored --nocapture`.

use std::time::Instant;

use ubique_model::{Asn, Community, LargeCommunity, Prefix};
use ubique_proto::bgp::attributes::{AsPath, Attributes, NextHop};
use ubique_proto::bgp::message::{Message, Nlri};
use ubique_proto::bgp::wire::{DecodeContext, Framer, encode_updates};

use crate::support::{EBGP, sender};

const ROUTES: u32 = 1_000_000;
/// What a driver reads at once.
const READ: usize = 16_384;

/// The octets of a table whose routes share attributes in groups of this size.
fn table(group: u32, ctx: &DecodeContext) -> Vec<u8> {
    let mut out = Vec::new();
    let next_hop = NextHop::V4([192, 0, 2, 1].into());
    for (at, first) in (0..ROUTES).step_by(group as usize).enumerate() {
        let at = at as u32;
        let attributes = Attributes {
            as_path: AsPath::sequence([65000, 3356, 1299 + at % 97, 200_000 + at % 70_000, at % 60_000 + 1].map(Asn)),
            communities: (0..6).map(|i| Community((65000 << 16) | ((at + i) % 9000))).collect(),
            large_communities: (0..at % 3).map(|i| LargeCommunity([65000, i, at % 5000])).collect(),
            med: at.is_multiple_of(4).then_some(at % 100),
            ..Attributes::originated()
        };
        let prefixes: Vec<Nlri> = (first..ROUTES.min(first + group))
            .map(|i| Prefix::new(std::net::Ipv4Addr::from(0x0100_0000 + (i << 7)).into(), 22 + (i % 4) as u8).unwrap())
            .map(|prefix| prefix.trunc().into())
            .collect();
        encode_updates(&[], Some((&attributes, next_hop, &prefixes)), &sender(ctx), &mut out).unwrap();
    }
    out
}

#[test]
#[ignore = "a measurement, for release builds"]
fn a_full_table() {
    for (name, group) in [("5 routes to a message, as in the Internet", 5), ("all routes alike", ROUTES)] {
        let stream = table(group, &EBGP);
        let mut best = u128::MAX;
        for _ in 0..5 {
            let started = Instant::now();
            let mut framer = Framer::new();
            let (mut routes, mut messages) = (0, 0);
            for mut piece in stream.chunks(READ) {
                while !piece.is_empty() {
                    piece = &piece[framer.push(piece)..];
                    while let Some(result) = framer.next(&EBGP) {
                        let Ok(Message::Update(update)) = result else { panic!("{result:?}") };
                        routes += update.announced.iter().map(|reach| reach.prefixes.len()).sum::<usize>();
                        messages += 1;
                    }
                }
            }
            assert_eq!(routes, ROUTES as usize);
            best = best.min(started.elapsed().as_nanos() / u128::from(ROUTES));
            println!("{name}: {messages} messages, {} octets, best {best} ns per route", stream.len());
        }
    }
}
