//! UPDATEs as a whole: where routes are found, several faults at once, families, End-of-RIB.

use ubique_model::Family;
use ubique_proto::bgp::attributes::NextHop;
use ubique_proto::bgp::family::{AddressFamilies, AddressFamily};
use ubique_proto::bgp::message::{Notification, Reach, Treatment};
use ubique_proto::bgp::wire::DecodeContext;

use crate::faults::{NEXT_HOP, NLRI, ORIGIN, PATH, REACH, Want, check, codes, field, prefix, without_route};
use crate::support::{EBGP, IBGP, decode_update, hex, message, update};

#[test]
fn multiprotocol_routes() {
    let global = "20010DB8000000000000000000000001";
    let link_local = "FE800000000000000000000000000001";
    let read = |attributes: String| decode_update(&update(&[], &hex(&attributes), &[]), &EBGP);
    for (address, found) in [(link_local, Some("fe80::1".parse().unwrap())), (global, None)] {
        let reach = format!("800E2A00020120{global}{address}0020 20010DB8");
        let update = read(format!("{reach}{ORIGIN}{PATH}")).unwrap();
        assert_eq!(update.faults, vec![]);
        let next_hop = NextHop::V6 { global: "2001:db8::1".parse().unwrap(), link_local: found };
        assert_eq!(update.announced, [Reach { next_hop, prefixes: vec![prefix("2001:db8::/32").into()] }]);
    }
    // IPv4 unicast may come in MP_REACH_NLRI, and no NEXT_HOP is missed then.
    let update = read(format!("800E0D00010104C000020100 18CB0071{ORIGIN}{PATH}")).unwrap();
    let next_hop = NextHop::V4("192.0.2.1".parse().unwrap());
    assert_eq!(update.announced, [Reach { next_hop, prefixes: vec![prefix("203.0.113.0/24").into()] }]);
    assert_eq!(update.faults, vec![]);
    // A next hop that cannot be a host.
    for address in ["00000000000000000000000000000000", "FF020000000000000000000000000001"] {
        let update = read(format!("800E1A00020110{address}0020 20010DB8{ORIGIN}{PATH}")).unwrap();
        assert_eq!(update.withdrawn, [prefix("2001:db8::/32")]);
        assert_eq!(codes(&update, Treatment::TreatAsWithdraw), [14]);
    }
    // NEXT_HOP beside MP_REACH_NLRI says nothing (RFC 4760 §3).
    let update = read(format!("{REACH}{ORIGIN}{PATH}40030400000000")).unwrap();
    assert_eq!((update.announced.len(), update.faults), (1, vec![]));
}

#[test]
fn both_encodings_in_one_message() {
    let attributes = hex(&format!("{REACH}{ORIGIN}{PATH}{NEXT_HOP}800F08000201 20 20010DB9"));
    let message = update(&hex("18CB0072"), &attributes, &hex(NLRI));
    let sound = decode_update(&message, &EBGP).unwrap();
    assert_eq!(sound.announced.len(), 2);
    assert_eq!(sound.withdrawn, [prefix("203.0.114.0/24"), prefix("2001:db9::/32")]);
    assert_eq!((sound.faults, sound.end_of_rib), (vec![], None));
    // One malformed attribute withdraws both.
    let attributes = hex(&format!("{REACH}40010109{PATH}{NEXT_HOP}"));
    let withdrawn = decode_update(&update(&[], &attributes, &hex(NLRI)), &EBGP).unwrap();
    assert_eq!(withdrawn.withdrawn, [prefix("203.0.113.0/24"), prefix("2001:db8::/32")]);
    assert!(withdrawn.announced.is_empty() && withdrawn.attributes.is_none());
    // NEXT_HOP is missed only by NLRI, and takes the others along.
    let attributes = hex(&format!("{REACH}{ORIGIN}{PATH}"));
    let missing = decode_update(&update(&[], &attributes, &hex(NLRI)), &EBGP).unwrap();
    assert_eq!((codes(&missing, Treatment::TreatAsWithdraw), missing.withdrawn.len()), (vec![3], 2));
}

#[test]
fn missing_attributes() {
    for (attributes, missing) in [
        (format!("{PATH}{NEXT_HOP}"), vec![1]),
        (format!("{ORIGIN}{NEXT_HOP}"), vec![2]),
        (format!("{ORIGIN}{PATH}"), vec![3]),
        (String::new(), vec![1, 2, 3]),
    ] {
        let update = decode_update(&update(&[], &hex(&attributes), &hex(NLRI)), &EBGP).unwrap();
        assert_eq!(codes(&update, Treatment::TreatAsWithdraw), missing);
        assert_eq!(update.withdrawn, [prefix("203.0.113.0/24")]);
        assert_eq!(update.end_of_rib, None);
    }
    // LOCAL_PREF from an internal neighbour (RFC 4271 §5.1.5); an external one sends none.
    let attributes = hex(&format!("{ORIGIN}{PATH}{NEXT_HOP}"));
    let internal = decode_update(&update(&[], &attributes, &hex(NLRI)), &IBGP).unwrap();
    assert_eq!((codes(&internal, Treatment::TreatAsWithdraw), internal.withdrawn.len()), (vec![5], 1));
    // A malformed one is not also missing.
    check(&EBGP, "malformed", "400100", &Want::Withdraw(1, 5));
    // Nothing is missing where nothing is announced.
    let update = decode_update(&update(&hex(NLRI), &hex(ORIGIN), &[]), &EBGP).unwrap();
    assert_eq!((update.withdrawn.len(), update.faults), (1, vec![]));
}

#[test]
fn duplicates_the_first_counts() {
    for twice in ["80040400000001 80040400000002", "C0630101 C0630102", "80630101 80630102"] {
        let code = hex(twice)[1];
        let update = decode_update(&update(&[], &field(&EBGP, twice), &hex(NLRI)), &EBGP).unwrap();
        assert_eq!(codes(&update, Treatment::AttributeDiscard), [code]);
        let attributes = update.attributes.unwrap();
        assert!(code != 4 || attributes.med == Some(1));
        assert!(code != 0x63 || attributes.unknown.len() <= 1);
        assert!(attributes.unknown.iter().all(|raw| raw.value == [1]));
    }
    // Also when the second is malformed: it is not read.
    let malformed = field(&EBGP, "80040400000001 800400");
    let update = decode_update(&update(&[], &malformed, &hex(NLRI)), &EBGP).unwrap();
    assert_eq!(update.attributes.unwrap().med, Some(1));
    assert_eq!(update.faults.len(), 1);
}

#[test]
fn attributes_that_run_over() {
    // RFC 7606 §4: fewer octets than a header takes, and a length beyond the end; the NLRI are found all the same.
    for (end, code) in [("40", 0), ("4008", 8), ("500800", 8), ("C0080800000000", 8), ("D008FFFF", 8)] {
        let field = hex(&format!("{ORIGIN}{PATH}{NEXT_HOP}{end}"));
        let update = decode_update(&update(&[], &field, &hex(NLRI)), &EBGP).unwrap();
        assert_eq!(codes(&update, Treatment::TreatAsWithdraw), [code], "{end}");
        assert_eq!(update.withdrawn, [prefix("203.0.113.0/24")]);
        without_route(&EBGP, end, &field, 1);
    }
}

#[test]
fn message_structure() {
    let reset = |subcode| Err(Notification::new(3, subcode));
    // Lengths of the fields beyond the message.
    for body in ["0001 0000", "FFFF 0000", "0000 0001", "0000 FFFF", "0001 00 00", "0004 18CB0071 00"] {
        assert_eq!(decode_update(&message(2, &hex(body)), &EBGP), reset(1), "{body}");
    }
    // Prefixes too long or cut off, in both fields (RFC 7606 §5.3).
    for prefixes in ["21C000020100", "FF", "18CB00", "18CB0071 20C00002", "08"] {
        let attributes = field(&EBGP, "");
        let (withdrawn, nlri) = (update(&hex(prefixes), &[], &[]), update(&[], &attributes, &hex(prefixes)));
        assert_eq!(decode_update(&withdrawn, &EBGP), reset(10), "{prefixes}");
        assert_eq!(decode_update(&nlri, &EBGP), reset(10), "{prefixes}");
    }
    // Host bits are cleared.
    let bits = update(&[], &field(&EBGP, ""), &hex("14CB0071"));
    assert_eq!(decode_update(&bits, &EBGP).unwrap().announced[0].prefixes, [prefix("203.0.112.0/20")]);
    // A prefix in both fields is announced (RFC 4271 §4.3).
    let both = decode_update(&update(&hex(NLRI), &field(&EBGP, ""), &hex(NLRI)), &EBGP).unwrap();
    assert_eq!((both.withdrawn.len(), both.announced.len()), (0, 1));
    // Multicast is no unicast route (RFC 4271 §6.3); the default route is.
    let some = update(&[], &field(&EBGP, ""), &hex("04E0 18E00001 00 08 0A"));
    let some = decode_update(&some, &EBGP).unwrap();
    assert_eq!(some.announced[0].prefixes, [prefix("0.0.0.0/0"), prefix("10.0.0.0/8")]);
    assert_eq!(codes(&some, Treatment::AttributeDiscard), [0]);
}

#[test]
fn strongest_treatment_wins() {
    // Discard and withdraw: withdraw, both are told.
    let field = hex(&format!("{ORIGIN}{PATH}{NEXT_HOP}40060100C00803FFFFFF"));
    let both = decode_update(&update(&[], &field, &hex(NLRI)), &EBGP).unwrap();
    assert_eq!(both.withdrawn.len(), 1);
    assert_eq!(
        (codes(&both, Treatment::AttributeDiscard), codes(&both, Treatment::TreatAsWithdraw)),
        (vec![6], vec![8])
    );
    // Withdraw and reset: reset.
    let field = hex(&format!("400100{PATH}{NEXT_HOP}800E00"));
    let reset = decode_update(&update(&[], &field, &hex(NLRI)), &EBGP).unwrap_err();
    assert_eq!((reset.code, reset.subcode), (3, 9));
    // Without a route, a discard is no reason to reset (RFC 7606 §5.2).
    let only = decode_update(&update(&hex(NLRI), &hex("40060100"), &[]), &EBGP).unwrap();
    assert_eq!((only.withdrawn.len(), codes(&only, Treatment::AttributeDiscard)), (1, vec![6]));
    // However many faults: a bounded list that keeps what decided.
    let field = hex(&format!("{ORIGIN}{PATH}{NEXT_HOP}{}C00803FFFFFF", "C06300".repeat(900)));
    let many = decode_update(&update(&[], &field, &hex(NLRI)), &EBGP).unwrap();
    assert_eq!((many.faults.len(), codes(&many, Treatment::TreatAsWithdraw)), (16, vec![8]));
}

#[test]
fn families_not_negotiated() {
    let v4 = DecodeContext { families: AddressFamilies::only(Family::Ipv4), ..EBGP };
    let v6 = DecodeContext { families: AddressFamilies::only(Family::Ipv6), ..EBGP };
    let both =
        update(&hex("18CB0072"), &hex(&format!("{REACH}{ORIGIN}{PATH}{NEXT_HOP}800F08000201 20 20010DB9")), &hex(NLRI));
    let seen4 = decode_update(&both, &v4).unwrap();
    assert_eq!((seen4.announced.len(), &seen4.withdrawn[..]), (1, &[prefix("203.0.114.0/24").into()][..]));
    assert_eq!(seen4.announced[0].prefixes, [prefix("203.0.113.0/24")]);
    assert_eq!(codes(&seen4, Treatment::AttributeDiscard), [15, 14]);
    let seen6 = decode_update(&both, &v6).unwrap();
    assert_eq!((seen6.announced.len(), &seen6.withdrawn[..]), (1, &[prefix("2001:db9::/32").into()][..]));
    assert_eq!(seen6.announced[0].prefixes, [prefix("2001:db8::/32")]);
    // VPN, flow specification, … are neither read nor judged.
    for reach in ["800E0E00018000 00 FFFFFFFFFFFFFFFFFF", "800E0700018500 00 2001"] {
        let update = decode_update(&update(&[], &hex(&format!("{reach}{ORIGIN}{PATH}")), &[]), &EBGP).unwrap();
        assert_eq!(codes(&update, Treatment::AttributeDiscard), [14]);
        assert_eq!((update.announced, update.withdrawn, update.attributes), (vec![], vec![], None));
    }
}

#[test]
fn end_of_rib() {
    let v4 = DecodeContext { families: AddressFamilies::only(Family::Ipv4), ..EBGP };
    let v6 = DecodeContext { families: AddressFamilies::only(Family::Ipv6), ..EBGP };
    let read = |attributes: &str, ctx| decode_update(&update(&[], &hex(attributes), &[]), ctx).unwrap().end_of_rib;
    assert_eq!(read("", &EBGP), Some(AddressFamily::Ipv4Unicast));
    assert_eq!(read("", &v6), None);
    assert_eq!(read("800F03000201", &EBGP), Some(AddressFamily::Ipv6Unicast));
    assert_eq!(read("900F0003000201", &EBGP), Some(AddressFamily::Ipv6Unicast));
    assert_eq!(read("900F0003000101", &EBGP), Some(AddressFamily::Ipv4Unicast));
    assert_eq!(read("800F03000201", &v4), None);
    assert_eq!(read("800F03000185", &EBGP), None);
    assert_eq!(read("800F08000201 20 20010DB9", &EBGP), None);
    assert_eq!(read(&format!("800F03000201{ORIGIN}"), &EBGP), None);
    let withdrawn = decode_update(&update(&hex(NLRI), &[], &[]), &EBGP).unwrap();
    assert_eq!((withdrawn.end_of_rib, withdrawn.withdrawn.len()), (None, 1));
}

#[test]
fn repeated_large_communities() {
    let (one, two) = ("000000010000000200000003", "000000010000000200000004");
    let field = field(&EBGP, &format!("C02030{two}{one}{two}{one}"));
    let update = decode_update(&update(&[], &field, &hex(NLRI)), &EBGP).unwrap();
    assert_eq!(update.faults, vec![]);
    let found: Vec<String> = update.attributes.unwrap().large_communities.iter().map(|c| c.to_string()).collect();
    assert_eq!(found, ["1:2:4", "1:2:3"]);
}
