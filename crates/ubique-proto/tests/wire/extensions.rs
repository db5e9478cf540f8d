//! What is read and written only when negotiated: path identifiers (RFC 7911), extended messages (RFC 8654), IPv4 routes
//! with IPv6 next hops (RFC 8950).

use ubique_model::{Community, Prefix};
use ubique_proto::bgp::attributes::{Attributes, NextHop};
use ubique_proto::bgp::family::{AddressFamilies, AddressFamily};
use ubique_proto::bgp::message::{Message, Nlri, Notification, Reach, Treatment};
use ubique_proto::bgp::wire::{
    DecodeContext, EXTENDED_FRAMER_CAPACITY, EncodeError, FRAMER_CAPACITY, Framer, MAX_EXTENDED_MESSAGE, decode,
    encode_updates,
};

use crate::faults::{NEXT_HOP, ORIGIN, PATH, codes};
use crate::support::{EBGP, decode_all, decode_update, hex, message, sender, to_hex, update};

const PATHS: DecodeContext = DecodeContext { add_path: AddressFamilies::UNICAST, ..EBGP };
const EXTENDED: DecodeContext = DecodeContext { max_message: MAX_EXTENDED_MESSAGE, ..EBGP };

fn over_ipv6() -> DecodeContext {
    DecodeContext { extended_next_hop: AddressFamilies::only(AddressFamily::Ipv4Unicast), ..EBGP }
}

fn path(prefix: &str, path_id: u32) -> Nlri {
    Nlri { prefix: prefix.parse().unwrap(), path_id }
}

fn v4() -> NextHop {
    NextHop::V4("192.0.2.1".parse().unwrap())
}

fn v6(link_local: bool) -> NextHop {
    let link_local = link_local.then(|| "fe80::1".parse().unwrap());
    NextHop::V6 { global: "2001:db8::1".parse().unwrap(), link_local }
}

#[test]
fn path_identifiers() {
    let attributes = hex(&format!("{ORIGIN}{PATH}{NEXT_HOP}"));
    let nlri = hex("00000001 18 CB0071 FFFFFFFF 18 CB0071 00000000 00");
    let read = decode_update(&update(&hex("00000007 08 0A"), &attributes, &nlri), &PATHS).unwrap();
    assert_eq!(read.withdrawn, [path("10.0.0.0/8", 7)]);
    let want = [path("203.0.113.0/24", 1), path("203.0.113.0/24", u32::MAX), path("0.0.0.0/0", 0)];
    assert_eq!(read.announced, [Reach { next_hop: v4(), prefixes: want.to_vec() }]);
    // The same prefix taken back by one identifier, announced by another: two routes.
    let read = decode_update(&update(&hex("00000007 08 0A"), &attributes, &hex("00000008 08 0A")), &PATHS).unwrap();
    assert_eq!((read.withdrawn.len(), read.announced.len()), (1, 1));
    let read = decode_update(&update(&hex("00000007 08 0A"), &attributes, &hex("00000007 08 0A")), &PATHS).unwrap();
    assert_eq!((read.withdrawn.len(), read.announced.len()), (0, 1));
    // Cut off; or a prefix too long, since the neighbour sends no identifiers (RFC 7606 §5.3).
    for nlri in ["00", "000000", "00000001", "00000001 18 CB00", "20 CB007101"] {
        let error = decode_update(&update(&[], &attributes, &hex(nlri)), &PATHS);
        assert_eq!(error, Err(Notification::new(3, 10)), "{nlri}");
    }
    // For one family and not the other.
    let one = DecodeContext { add_path: AddressFamilies::only(AddressFamily::Ipv6Unicast), ..EBGP };
    let reach = hex(&format!(
        "800E1E 000201 10 20010DB8000000000000000000000001 00 00000009 20 20010DB8{ORIGIN}{PATH}{NEXT_HOP}"
    ));
    let read = decode_update(&update(&hex("08 0A"), &reach, &hex("08 0B")), &one).unwrap();
    assert_eq!(read.faults, vec![]);
    assert_eq!(read.withdrawn, [path("10.0.0.0/8", 0)]);
    assert_eq!(read.announced[0].prefixes, [path("11.0.0.0/8", 0)]);
    assert_eq!(read.announced[1].prefixes, [path("2001:db8::/32", 9)]);
    let unreach = decode_update(&update(&[], &hex("800F0C 000201 0000000A 20 20010DB8"), &[]), &one).unwrap();
    assert_eq!(unreach.withdrawn, [path("2001:db8::/32", 10)]);
    // Written; without ADD-PATH the identifier is not.
    let routes = [path("203.0.113.0/24", 1), path("203.0.113.0/24", 2)];
    for (ctx, want) in [(PATHS, "00000001 18CB0071 00000002 18CB0071"), (EBGP, "18CB0071 18CB0071")] {
        let mut out = Vec::new();
        encode_updates(&routes, Some((&Attributes::originated(), v4(), &routes)), &sender(&ctx), &mut out).unwrap();
        let want = want.replace(' ', "");
        let size = want.len() / 2;
        let announce = format!("{:04X}020000000E4001010040020040 0304C0000201{want}", 23 + 14 + size).replace(' ', "");
        let withdraw = format!("{:04X}02{size:04X}{want}0000", 23 + size);
        assert_eq!(to_hex(&out), format!("{0}{withdraw}{0}{announce}", "F".repeat(32)));
    }
}

#[test]
fn extended_messages() {
    // UPDATE, NOTIFICATION and ROUTE-REFRESH grow, OPEN and KEEPALIVE do not (RFC 8654 §4).
    let body =
        |octets: usize| [hex("0000"), ((octets - 23) as u16).to_be_bytes().to_vec(), vec![0; octets - 23]].concat();
    for octets in [4096, 4097, MAX_EXTENDED_MESSAGE] {
        let update = message(2, &body(octets));
        let bad = Err(Notification::with_data(1, 2, (octets as u16).to_be_bytes()));
        let judged = |ctx| decode(&update, ctx).map(|_| ()).map_err(|error| error.code);
        assert_eq!(judged(&EBGP), Err(if octets > 4096 { 1 } else { 3 }));
        assert_eq!(judged(&EXTENDED), Err(3), "read, and found to be zeros");
        let notification = message(3, &vec![6; octets - 19]);
        let read = decode(&notification, &EXTENDED).unwrap();
        assert!(matches!(read, Message::Notification(n) if n.data.len() == octets - 21));
        if octets > 4096 {
            assert_eq!(decode(&notification, &EBGP), bad);
            for kind in [1, 4] {
                assert_eq!(decode(&message(kind, &vec![0; octets - 19]), &EXTENDED), bad);
            }
            // From its header alone.
            let mut framer = Framer::new();
            assert_eq!(framer.push(&notification[..19]), 19);
            assert_eq!(framer.next(&EBGP), Some(bad));
        }
    }
    // Written as long as allowed.
    let communities = (0..5_000).map(Community).collect();
    let attributes = Attributes { communities, ..Attributes::originated() };
    let routes: Vec<Nlri> = (0..40_000_u32)
        .map(|i| Prefix::new(std::net::Ipv4Addr::from(0x0a00_0000 + (i << 8)).into(), 24).unwrap().into())
        .collect();
    let announced = Some((&attributes, v4(), routes.as_slice()));
    let mut out = Vec::new();
    let result = encode_updates(&[], announced, &sender(&EBGP), &mut out);
    assert!(matches!(result, Err(EncodeError::AttributesTooLong { max_message: 4096, .. })));
    encode_updates(&routes, announced, &sender(&EXTENDED), &mut out).unwrap();
    for step in [1000, 16_384, 100_000] {
        let (mut withdrawn, mut back) = (vec![], vec![]);
        for message in decode_all(&out, step, &EXTENDED) {
            let Ok(Message::Update(update)) = message else { panic!("{message:?}") };
            assert!(update.attributes.is_none_or(|a| a.as_ref() == &attributes));
            withdrawn.extend(update.withdrawn);
            back.extend(update.announced.into_iter().flat_map(|reach| reach.prefixes));
        }
        assert!(withdrawn == routes && back == routes);
    }
    assert!(matches!(decode_all(&out, 1000, &EBGP).as_slice(), [Err(Notification { code: 1, subcode: 2, .. })]));
}

#[test]
fn the_framer_grows_when_negotiated() {
    let refresh = message(5, &hex("00010001"));
    let long = message(3, &vec![6; MAX_EXTENDED_MESSAGE - 19]);
    let stream = [refresh, long.clone(), long].concat();
    let mut framer = Framer::new();
    let taken = framer.push(&stream);
    assert_eq!(taken, FRAMER_CAPACITY);
    assert!(matches!(framer.next(&EXTENDED), Some(Ok(Message::RouteRefresh { .. }))));
    assert_eq!(framer.next(&EXTENDED), None);
    let more = framer.push(&stream[taken..]);
    assert_eq!(taken + more - 23, EXTENDED_FRAMER_CAPACITY);
    assert!(matches!(framer.next(&EXTENDED), Some(Ok(Message::Notification(_)))));
    assert_eq!(framer.next(&EXTENDED), None);
    assert_eq!(framer.push(&stream[taken + more..]), stream.len() - taken - more);
    assert!(matches!(framer.next(&EXTENDED), Some(Ok(Message::Notification(_)))));
}

#[test]
fn ipv4_over_ipv6_next_hops() {
    let (global, local) = ("20010DB8000000000000000000000001", "FE800000000000000000000000000001");
    let plain = Attributes::originated();
    let routes = [path("203.0.113.0/24", 0)];
    for (octets, next_hop) in [(global.to_owned(), v6(false)), (format!("{global}{local}"), v6(true))] {
        let length = octets.len() / 2;
        let reach = format!("800E{:02X}000101{length:02X}{octets}0018CB0071", length + 9);
        let read = decode_update(&update(&[], &hex(&format!("{reach}{ORIGIN}{PATH}")), &[]), &over_ipv6()).unwrap();
        assert_eq!((read.announced, read.faults), (vec![Reach { next_hop, prefixes: routes.to_vec() }], vec![]));
        // Not negotiated: a next hop of a wrong length (RFC 7606 §7.11).
        let error = decode_update(&update(&[], &hex(&format!("{reach}{ORIGIN}{PATH}")), &[]), &EBGP).unwrap_err();
        assert_eq!((error.code, error.subcode), (3, 9));
        let mut out = Vec::new();
        encode_updates(&routes, Some((&plain, next_hop, &routes)), &sender(&over_ipv6()), &mut out).unwrap();
        let withdraw = "001B02000418CB00710000";
        let announce = format!("{:04X}020000{:04X}{reach}40010100400200", 23 + length + 19, length + 19);
        assert_eq!(to_hex(&out), format!("{0}{withdraw}{0}{announce}", "F".repeat(32)));
        let mut out = Vec::new();
        let refused = encode_updates(&[], Some((&plain, next_hop, &routes)), &sender(&EBGP), &mut out);
        assert!(matches!(refused, Err(EncodeError::FamilyMismatch { .. })));
    }
    // An IPv4 next hop is still one, in both places; 5 and 24 octets are none.
    for (octets, sound) in [("04C0000201", true), ("0520010DB800", false), (&format!("18{}", "20".repeat(24)), false)] {
        let reach = format!("{octets}0018CB0071");
        let reach = format!("800E{:02X}000101{reach}{ORIGIN}{PATH}", 3 + reach.len() / 2);
        assert_eq!(decode_update(&update(&[], &hex(&reach), &[]), &over_ipv6()).is_ok(), sound, "{octets}");
    }
    // One that cannot be a host's.
    let reach = format!("800E19 000101 10 {} 00 18CB0071 {ORIGIN}{PATH}", "00".repeat(16));
    let read = decode_update(&update(&[], &hex(&reach), &[]), &over_ipv6()).unwrap();
    assert_eq!((codes(&read, Treatment::TreatAsWithdraw), read.withdrawn), (vec![14], routes.to_vec()));
    // IPv6 routes never have IPv4 next hops, and both kinds do not mix.
    let six = path("2001:db8::/32", 0);
    for (next_hop, routes) in [(v4(), vec![six]), (v6(false), vec![routes[0], six]), (v6(false), vec![six, routes[0]])]
    {
        let refused = encode_updates(&[], Some((&plain, next_hop, &routes)), &sender(&over_ipv6()), &mut Vec::new());
        assert!(matches!(refused, Err(EncodeError::FamilyMismatch { .. })), "{routes:?}");
    }
}
