//! Octets written for each kind of neighbour, AS_TRANS and the AS4 attributes (RFC 6793), packing at the limit.

use ubique_model::{Asn, Community, Family, Prefix};
use ubique_proto::bgp::attributes::{Aggregator, AsPath, Attributes, NextHop, RawAttribute, Segment};
use ubique_proto::bgp::message::{Message, Nlri};
use ubique_proto::bgp::wire::{DecodeContext, EncodeError, MAX_MESSAGE, encode_updates};

use crate::support::{EBGP, IBGP, OLD, decode_all, decode_update, hex, sender, to_hex, update};

fn net(text: &str) -> Nlri {
    text.parse::<Prefix>().unwrap().into()
}

fn v4() -> NextHop {
    NextHop::V4("192.0.2.1".parse().unwrap())
}

fn v6() -> NextHop {
    NextHop::V6 { global: "2001:db8::1".parse().unwrap(), link_local: None }
}

fn written(
    withdrawn: &[Nlri],
    attributes: &Attributes,
    hop: NextHop,
    prefixes: &[Nlri],
    ctx: &DecodeContext,
) -> String {
    let mut out = Vec::new();
    encode_updates(withdrawn, Some((attributes, hop, prefixes)), &sender(ctx), &mut out).unwrap();
    to_hex(&out).replace(&"F".repeat(32), " ").trim().to_owned()
}

fn everything() -> Attributes {
    Attributes {
        as_path: AsPath::sequence([Asn(65000), Asn(200_000)]),
        med: Some(7),
        local_pref: Some(100),
        atomic_aggregate: true,
        aggregator: Some(Aggregator { asn: Asn(200_000), router_id: [10, 0, 0, 1].into() }),
        communities: vec![Community::NO_EXPORT],
        extended_communities: vec![[0, 2, 0, 1, 0, 0, 0, 1]],
        large_communities: vec!["1:2:3".parse().unwrap()],
        originator_id: Some([10, 0, 0, 2].into()),
        cluster_list: vec![[10, 0, 0, 3].into()],
        unknown: vec![
            RawAttribute { flags: 0xd0, code: 99, value: vec![1] },
            RawAttribute { flags: 0xc0, code: 20, value: vec![2] },
        ],
        ..Attributes::originated()
    }
}

#[test]
fn octets_for_each_neighbour() {
    let prefixes = [net("203.0.113.0/24")];
    let common = ("40010100", "400304C0000201800404 00000007", "400600", "C00804FFFFFF01", "C010080002000100000001");
    let end = ("C0200C000000010000000200000003", "E0630101", "18CB0071");
    let (path, aggregator) = ("40020A02020000FDE800030D40", "C0070800030D400A000001");
    let external =
        [common.0, path, common.1, common.2, aggregator, common.3, common.4, "E0140102", end.0, end.1, end.2];
    let internal = [
        common.0,
        path,
        common.1,
        "40050400000064",
        common.2,
        aggregator,
        common.3,
        "8009040A000002",
        "800A040A000003",
        common.4,
        "E0140102",
        end.0,
        end.1,
        end.2,
    ];
    let old = [
        common.0,
        "4002060202FDE85BA0",
        common.1,
        common.2,
        "C007065BA00A000001",
        common.3,
        common.4,
        "C0110A02020000FDE800030D40",
        "C0120800030D400A000001",
        "E0140102",
        end.0,
        end.1,
        end.2,
    ];
    for (ctx, want) in [(EBGP, external.as_slice()), (IBGP, &internal), (OLD, &old)] {
        let body = want.concat().replace(' ', "");
        let attributes = body.len() / 2 - 4;
        let want = format!("{:04X}020000{attributes:04X}{body}", 23 + attributes + 4);
        assert_eq!(written(&[], &everything(), v4(), &prefixes, &ctx), want);
    }
}

#[test]
fn octets_of_ipv6() {
    let plain = Attributes::originated();
    let prefixes = [net("2001:db8:1::/48"), net("::/0")];
    let reach = "800E1D0002011020010DB8000000000000000000000001003020010DB8000100";
    assert_eq!(
        written(&[], &plain, v6(), &prefixes, &EBGP),
        format!("003E020000 0027{reach}40010100400200").replace(' ', "")
    );
    let both = NextHop::V6 { global: "2001:db8::1".parse().unwrap(), link_local: Some("fe80::9".parse().unwrap()) };
    let text = written(&[], &plain, both, &prefixes, &EBGP);
    assert!(
        text.contains(
            "800E2D00020120 20010DB8000000000000000000000001 FE800000000000000000000000000009 00"
                .replace(' ', "")
                .as_str()
        ),
        "{text}"
    );
    // Withdrawals of both families, announcements after them.
    let withdrawn = [net("2001:db8:2::/48"), net("192.0.2.0/25"), net("0.0.0.0/0")];
    assert_eq!(
        written(&withdrawn, &plain, v4(), &[], &EBGP),
        "001D020006 19C0000200 00 0000 0024020000 000D800F0A000201 3020010DB80002"
            .replace("0000 0024", "0000#0024")
            .replace(' ', "")
            .replace('#', " ")
    );
}

/// RFC 6793 §4.2.3, received from an old speaker: AS_PATH, AS4_PATH, and the path meant.
#[test]
fn paths_merge() {
    let (seq, set) = (|a: &[u32]| Segment::Sequence(asns(a)), |a: &[u32]| Segment::Set(asns(a)));
    fn asns(a: &[u32]) -> Vec<Asn> {
        a.iter().copied().map(Asn).collect()
    }
    let cases = [
        // As long: AS4_PATH is all of it.
        ("0202 5BA0 5BA0", "0202 00030D40 00030D41", vec![seq(&[200_000, 200_001])]),
        // Longer: what old speakers prepended stays.
        ("0203 FDE8 5BA0 5BA0", "0202 00030D40 00030D41", vec![seq(&[65000, 200_000, 200_001])]),
        ("0202 FDE8 FDE9 0101 5BA0", "0101 00030D40", vec![seq(&[65000, 65001]), set(&[200_000])]),
        ("0102 FDE8 FDE9 0201 5BA0", "0201 00030D40", vec![set(&[65000, 65001]), seq(&[200_000])]),
        // Shorter: AS4_PATH is ignored.
        ("0201 5BA0", "0202 00030D40 00030D41", vec![seq(&[23456])]),
        ("", "0201 00030D40", vec![]),
        // A set counts one.
        ("0101 5BA0 0201 5BA0", "0201 00030D40", vec![set(&[23456]), seq(&[200_000])]),
        // Confederation segments in AS4_PATH are taken out.
        ("0201 5BA0", "0301 0000FDE8 0201 00030D40", vec![seq(&[200_000])]),
    ];
    for (as_path, as4_path, want) in cases {
        let (short, long) = (hex(as_path), hex(as4_path));
        let as_path = [&[0x40, 2, short.len() as u8], &short[..]].concat();
        let as4_path = [&[0xc0, 17, long.len() as u8], &long[..]].concat();
        // In any order.
        for (first, second) in [(&as_path, &as4_path), (&as4_path, &as_path)] {
            let attributes = [&hex("40010100")[..], first, &hex("400304C0000201"), second].concat();
            let update = decode_update(&update(&[], &attributes, &hex("18CB0071")), &OLD).unwrap();
            assert_eq!(update.faults, vec![], "{attributes:02x?}");
            assert_eq!(update.attributes.unwrap().as_path, AsPath(want.clone()), "{attributes:02x?}");
        }
    }
    // Confederation segments in front, from within the AS.
    let inside = DecodeContext { external: false, ..OLD };
    let attributes = hex("40010100 400208 0301 FDE8 0201 5BA0 400304C0000201 40050400000064 C01106 0201 00030D40");
    let update = decode_update(&update(&[], &attributes, &hex("18CB0071")), &inside).unwrap();
    assert_eq!(
        update.attributes.unwrap().as_path,
        AsPath(vec![Segment::ConfedSequence(asns(&[65000])), seq(&[200_000])])
    );
}

#[test]
fn aggregators_merge() {
    let read = |aggregator: &str| {
        let attributes = hex(&format!("40010100 400204 0201 5BA0 400304C0000201 {aggregator} C01106 0201 00030D40"));
        let update = decode_update(&update(&[], &attributes, &hex("18CB0071")), &OLD).unwrap();
        let attributes = update.attributes.unwrap();
        (attributes.aggregator.map(|a| a.asn.0), attributes.as_path.neighbor().map(|a| a.0))
    };
    assert_eq!(read("C007065BA00A000001"), (Some(23456), Some(200_000)));
    assert_eq!(read("C007065BA00A000001 C0120800030D400A000001"), (Some(200_000), Some(200_000)));
    // An AGGREGATOR of an old speaker: both AS4 attributes are stale.
    assert_eq!(read("C00706FDE80A000001 C0120800030D400A000001"), (Some(65000), Some(23456)));
    assert_eq!(read("C00706FDE80A000001"), (Some(65000), Some(200_000)));
    assert_eq!(read("C0120800030D400A000001"), (None, Some(200_000)));
}

#[test]
fn long_segments_are_split() {
    let ases: Vec<Asn> = (1..=600).map(Asn).collect();
    let attributes = Attributes { as_path: AsPath::sequence(ases.clone()), ..Attributes::originated() };
    for ctx in [EBGP, OLD] {
        let mut out = Vec::new();
        encode_updates(&[], Some((&attributes, v4(), &[net("10.0.0.0/8")])), &sender(&ctx), &mut out).unwrap();
        let back = decode_update(&out, &ctx).unwrap().attributes.unwrap();
        assert_eq!(back.as_path.ases().collect::<Vec<_>>(), ases);
        assert_eq!(back.as_path.0.len(), 3);
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    // 4096 - 23 header and lengths - 14 ORIGIN, AS_PATH, NEXT_HOP - 4 header - 5 prefix.
    let most = 4096 - 23 - 14 - 4 - 5;
    let value = vec![0; 5000];
    for (len, fits) in [(most, true), (most + 1, false)] {
        let mut attributes = Attributes::originated();
        attributes.unknown = vec![RawAttribute { flags: 0xc0, code: 99, value: value[..len].to_vec() }];
        let mut out = Vec::new();
        let prefixes = [net("192.0.2.1/32"), net("192.0.2.2/32")];
        let result = encode_updates(&prefixes, Some((&attributes, v4(), &prefixes)), &sender(&EBGP), &mut out);
        let messages = decode_all(&out, 4096, &EBGP);
        assert_eq!(messages.len(), if fits { 3 } else { 1 });
        assert_eq!(result.is_ok(), fits);
        if !fits {
            let octets = 4096 - 23 - 4;
            assert_eq!(result, Err(EncodeError::AttributesTooLong { octets, max_message: MAX_MESSAGE }));
        }
    }
    let mut attributes = Attributes::originated();
    attributes.unknown = vec![RawAttribute { flags: 0xc0, code: 99, value: value[..4020].to_vec() }];
    let result = encode_updates(&[], Some((&attributes, v6(), &[net("::/0")])), &sender(&EBGP), &mut Vec::new());
    assert!(matches!(result, Err(EncodeError::AttributesTooLong { .. })));
    for (hop, prefix) in [(v4(), net("::/0")), (v6(), net("0.0.0.0/0"))] {
        let mut out = Vec::new();
        let result = encode_updates(&[], Some((&Attributes::originated(), hop, &[prefix])), &sender(&EBGP), &mut out);
        assert_eq!(result, Err(EncodeError::FamilyMismatch { prefix: prefix.prefix, next_hop: hop.address() }));
        assert!(out.is_empty());
    }
}

#[test]
fn a_full_table_is_packed_tightly() {
    for family in Family::ALL {
        let prefixes: Vec<Nlri> = (0..50_000u32)
            .map(|i| match family {
                Family::Ipv4 => Prefix::new(std::net::Ipv4Addr::from(0x0a00_0000 + (i << 8)).into(), 24).unwrap(),
                Family::Ipv6 => {
                    let address = 0x2001_0db8_u128 << 96 | u128::from(i) << 64;
                    Prefix::new(std::net::Ipv6Addr::from(address).into(), 64).unwrap()
                }
            })
            .map(Nlri::from)
            .collect();
        let hop = if family == Family::Ipv4 { v4() } else { v6() };
        let mut out = Vec::new();
        encode_updates(&prefixes, Some((&Attributes::originated(), hop, &prefixes)), &sender(&EBGP), &mut out).unwrap();
        let messages = decode_all(&out, 65536, &EBGP);
        let each = if family == Family::Ipv4 { 4 } else { 9 };
        assert!(messages.len() <= 2 * (50_000_usize * each).div_ceil(4096 - 100), "{}", messages.len());
        let counts = messages.into_iter().fold((0, 0), |(withdrawn, announced), message| match message {
            Ok(Message::Update(u)) => (
                withdrawn + u.withdrawn.len(),
                announced + u.announced.iter().map(|reach| reach.prefixes.len()).sum::<usize>(),
            ),
            other => panic!("{other:?}"),
        });
        assert_eq!(counts, (50_000, 50_000));
    }
}
