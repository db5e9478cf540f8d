//! Messages of the shapes that crashed or reset other speakers, built here, with what RFC 4271 and RFC 7606 ask for.
//!
//! The numbers name the published flaw a shape resembles; what matters is that none ends in more than its rule.

use ubique_proto::bgp::attributes::AsPath;
use ubique_proto::bgp::message::{Capability, Message, Notification, Treatment};
use ubique_proto::bgp::wire::decode;

use crate::faults::{NEXT_HOP, NLRI, ORIGIN, PATH, codes, prefix};
use crate::support::{EBGP, OLD, decode_update, hex, message, update};

/// OPENs whose optional parameters end too early (CVE-2022-40302, -40318, -43681): read to the end and no further.
#[test]
fn cut_off_opens() {
    let sound = "04 FDE8 005A C0000201";
    for parameters in
        ["FF", "FFFF", "FFFF00", "FFFF0001", "FFFF000102", "FFFF00020200", "FFFF0004 02 0002 40", "01 02", "02 02 FF"]
    {
        let open = message(1, &hex(&format!("{sound}{parameters}")));
        assert_eq!(decode(&open, &EBGP), Err(Notification::new(2, 0)), "{parameters}");
    }
    // Without even the length of the parameters the header is at fault.
    let open = message(1, &hex(sound));
    assert_eq!(decode(&open, &EBGP), Err(Notification::with_data(1, 2, [0, 28])));
    // A software version of no octets (CVE-2025-43971): a capability not understood.
    let Ok(Message::Open(open)) = decode(&message(1, &hex(&format!("{sound} 05 0203 4B01 00"))), &EBGP) else {
        panic!()
    };
    assert_eq!(open.capabilities, [Capability::Unknown { code: 75, value: vec![0] }]);
}

/// Routes without some or all attributes (CVE-2023-41358, -46753, -47234): withdrawn.
#[test]
fn routes_without_attributes() {
    for (attributes, missing) in [
        ("", vec![1, 2, 3]),
        ("C0630101", vec![1, 2, 3]),
        ("800F03000201", vec![1, 2, 3]),
        (&format!("{ORIGIN}{PATH}800F03000201"), vec![3]),
    ] {
        let read = decode_update(&update(&[], &hex(attributes), &hex(NLRI)), &EBGP).unwrap();
        assert_eq!(codes(&read, Treatment::TreatAsWithdraw), missing, "{attributes}");
        assert_eq!((&read.withdrawn[..], read.end_of_rib), (&[prefix("203.0.113.0/24").into()][..], None));
        assert!(read.announced.is_empty() && read.attributes.is_none());
    }
    // What looks like the end of the RIB and is not: other attributes stand beside it, malformed ones too (CVE-2023-47235).
    let more = decode_update(&update(&[], &hex(&format!("800F03000201{ORIGIN}")), &[]), &EBGP).unwrap();
    assert_eq!((more.end_of_rib, more.faults), (None, vec![]));
    let malformed = decode_update(&update(&[], &hex("800F03000201 40010109"), &[]), &EBGP);
    assert!(matches!(malformed, Err(Notification { code: 3, subcode: 6, .. })), "{malformed:?}");
}

/// MP_REACH_NLRI that promises more than it holds (CVE-2023-46752), cut after every octet: 3/9, or nothing announced.
#[test]
fn cut_off_multiprotocol_routes() {
    let value = hex("0002011020010DB80000000000000000000000010020 20010DB8");
    for end in 0..value.len() {
        let attribute = [&[0x80, 14, end as u8], &value[..end]].concat();
        let attributes = [attribute, hex(&format!("{ORIGIN}{PATH}"))].concat();
        match decode_update(&update(&[], &attributes, &[]), &EBGP) {
            Err(error) => assert_eq!((error.code, error.subcode), (3, 9), "{end} octets"),
            Ok(read) => assert!(read.announced.is_empty() && end == 21, "{end} octets"),
        }
    }
}

/// Optional transitive attributes nobody on the way understood: a malformed one costs its routes at most, never the
/// session (CVE-2023-38802, CVE-2024-44070, VU#347067: CVE-2023-4481, -38283, -40457).
#[test]
fn strange_transitive_attributes() {
    for (attribute, withdrawn) in [
        // Tunnel encapsulation: short, overrun, sub-TLV overrun.
        ("E01701FF", true),
        ("E01704 0008FFFF", true),
        ("E01708 0008 0004 01FF 0000", true),
        // Entropy label, empty, in both forms of the length; other types without a meaning.
        ("E01C00", false),
        ("F01C0000", false),
        ("E01C01FF", false),
        ("E0FE00", false),
        ("E0FF00", false),
        ("E01E03 AABBCC", false),
        // AIGP and BGP-LS that claim to be transitive, PREFIX_SID cut off.
        ("C01A03 010003", false),
        ("E01D01FF", false),
        ("E02801FF", false),
        ("E080020000", true),
    ] {
        let attributes = hex(&format!("{ORIGIN}{PATH}{NEXT_HOP}{attribute}"));
        let read = decode_update(&update(&[], &attributes, &hex(NLRI)), &EBGP).expect(attribute);
        assert_eq!(
            (read.withdrawn.len(), read.announced.len()),
            if withdrawn { (1, 0) } else { (0, 1) },
            "{attribute}"
        );
    }
}

/// AS4_PATH before AS_PATH, alone, and longer than it (the shape of CVE-2026-41643): the order does not matter.
#[test]
fn as4_path_in_any_place() {
    let (as_path, as4_path) = ("400206 0202 FDE8 5BA0", "C01106 0201 00030D40");
    let read = |attributes: String| decode_update(&update(&[], &hex(&attributes), &hex(NLRI)), &OLD).unwrap();
    let want = AsPath::sequence([65_000, 200_000].map(ubique_model::Asn));
    for attributes in
        [format!("{ORIGIN}{as_path}{NEXT_HOP}{as4_path}"), format!("{as4_path}{ORIGIN}{as_path}{NEXT_HOP}")]
    {
        assert_eq!(read(attributes).attributes.unwrap().as_path, want);
    }
    let alone = read(format!("{ORIGIN}{as4_path}{NEXT_HOP}"));
    assert_eq!((codes(&alone, Treatment::TreatAsWithdraw), alone.withdrawn.len()), (vec![2], 1));
    let empty = read(format!("{ORIGIN}400200{NEXT_HOP}{as4_path}"));
    assert_eq!(empty.attributes.unwrap().as_path, AsPath::default());
}
