//! Every fault of an UPDATE and what it ends in: RFC 7606 with RFC 4271 §6.3, 4360, 4456, 4760, 5065, 6793, 7607, 8092.

use ubique_model::Prefix;
use ubique_proto::bgp::message::{Notification, Treatment, Update};
use ubique_proto::bgp::wire::DecodeContext;

use crate::support::{EBGP, IBGP, OLD, decode_update, hex, update};

pub const ORIGIN: &str = "40010100";
pub const PATH: &str = "40020602010000FDE8";
const PATH_OLD: &str = "4002040201FDE8";
pub const NEXT_HOP: &str = "400304C0000201";
/// 203.0.113.0/24
pub const NLRI: &str = "18CB0071";
/// 2001:db8::/32 by 2001:db8::1
pub const REACH: &str = "800E1A0002011020010DB80000000000000000000000010020 20010DB8";

pub enum Want {
    /// Kept whole.
    Fine,
    /// This attribute is dropped, the route stays.
    Discard(u8),
    /// Withdrawn on account of this attribute; the UPDATE subcode when the message has no route (RFC 7606 §5.2).
    Withdraw(u8, u8),
    /// NOTIFICATION UPDATE Message Error with subcode and data.
    Reset(u8, &'static str),
}
use Want::*;

pub fn prefix(text: &str) -> Prefix {
    text.parse().unwrap()
}

pub fn codes(update: &Update, treatment: Treatment) -> Vec<u8> {
    update.faults.iter().filter(|f| f.treatment == treatment).map(|f| f.code).collect()
}

/// `attributes` beside a sound ORIGIN, AS_PATH and NEXT_HOP, or in the place of those of the same type.
pub fn field(ctx: &DecodeContext, attributes: &str) -> Vec<u8> {
    let given = hex(attributes);
    let code = given.get(1).copied();
    let path = if ctx.four_octet_as { PATH } else { PATH_OLD };
    let mut field = Vec::new();
    let local_pref = if ctx.external { "" } else { "40050400000064" };
    for (own, sound) in [(1, ORIGIN), (2, path), (3, NEXT_HOP), (5, local_pref)] {
        field.extend(if code == Some(own) { given.clone() } else { hex(sound) });
    }
    if !matches!(code, Some(1..=3 | 5)) {
        field.extend(given);
    }
    field
}

pub fn check(ctx: &DecodeContext, name: &str, attributes: &str, want: &Want) {
    let field = field(ctx, attributes);
    let result = decode_update(&update(&[], &field, &hex(NLRI)), ctx);
    let name = format!("{name}: {attributes}");
    match want {
        Fine => {
            let update = result.expect(&name);
            assert_eq!(update.faults, vec![], "{name}");
            assert_eq!(update.announced.len(), 1, "{name}");
            assert!(update.attributes.is_some() && update.withdrawn.is_empty(), "{name}");
        }
        Discard(code) => {
            let update = result.expect(&name);
            assert_eq!(codes(&update, Treatment::AttributeDiscard), [*code], "{name}");
            assert_eq!(codes(&update, Treatment::TreatAsWithdraw), [0_u8; 0], "{name}");
            assert_eq!(update.announced[0].prefixes, [prefix("203.0.113.0/24")], "{name}");
            // Nothing of the dropped attribute is left.
            let plain = decode_update(&self::update(&[], &self::field(ctx, ""), &hex(NLRI)), ctx).unwrap();
            assert_eq!(update.attributes, plain.attributes, "{name}");
            assert!(update.faults.iter().all(|fault| !fault.reason.is_empty()));
        }
        Withdraw(code, subcode) => {
            let update = result.expect(&name);
            assert_eq!(codes(&update, Treatment::TreatAsWithdraw), [*code], "{name}");
            assert_eq!(update.withdrawn, [prefix("203.0.113.0/24")], "{name}");
            assert!(update.announced.is_empty() && update.attributes.is_none(), "{name}");
            assert!(update.faults.iter().all(|fault| !fault.reason.is_empty()));
            if *subcode != 0 {
                without_route(ctx, &name, &field, *subcode);
            }
        }
        Reset(subcode, data) => {
            assert_eq!(result, Err(Notification::with_data(3, *subcode, hex(data))), "{name}");
        }
    }
}

/// RFC 7606 §5.2: the same attributes without a route end the session, whether something is withdrawn or not.
pub fn without_route(ctx: &DecodeContext, name: &str, field: &[u8], subcode: u8) {
    for withdrawn in ["", NLRI] {
        let error = decode_update(&update(&hex(withdrawn), field, &[]), ctx).expect_err(name);
        assert_eq!((error.code, error.subcode), (3, subcode), "{name}");
    }
}

fn table(ctx: &DecodeContext, cases: &[(&str, &str, Want)]) {
    for (name, attributes, want) in cases {
        check(ctx, name, attributes, want);
    }
}

/// From an external neighbour.
const WELL_KNOWN: &[(&str, &str, Want)] = &[
    ("ORIGIN IGP", "40010100", Fine),
    ("ORIGIN EGP", "40010101", Fine),
    ("ORIGIN INCOMPLETE", "40010102", Fine),
    ("ORIGIN with the partial bit: not looked at", "60010102", Fine),
    ("ORIGIN in the long form", "5001000102", Fine),
    ("ORIGIN undefined", "40010103", Withdraw(1, 6)),
    ("ORIGIN undefined", "400101FF", Withdraw(1, 6)),
    ("ORIGIN empty", "400100", Withdraw(1, 5)),
    ("ORIGIN too long", "4001020000", Withdraw(1, 5)),
    ("ORIGIN optional", "C0010100", Withdraw(1, 4)),
    ("ORIGIN not transitive", "00010100", Withdraw(1, 4)),
    ("AS_PATH empty", "400200", Fine),
    ("AS_PATH with a set", "40020C02010000FDE801010000FDE9", Fine),
    ("AS_PATH one octet", "40020102", Withdraw(2, 11)),
    ("AS_PATH underrun", "40020702010000FDE802", Withdraw(2, 11)),
    ("AS_PATH overrun", "40020602020000FDE8", Withdraw(2, 11)),
    ("AS_PATH half a number", "40020502010000FD", Withdraw(2, 11)),
    ("AS_PATH empty segment", "4002020200", Withdraw(2, 11)),
    ("AS_PATH empty segment after another", "40020802010000FDE80200", Withdraw(2, 11)),
    ("AS_PATH segment type 0", "40020600010000FDE8", Withdraw(2, 11)),
    ("AS_PATH segment type 5", "40020605010000FDE8", Withdraw(2, 11)),
    ("AS_PATH with AS 0", "400206020100000000", Withdraw(2, 11)),
    ("AS_PATH confederation sequence", "40020603010000FDE8", Withdraw(2, 11)),
    ("AS_PATH confederation set", "40020604010000FDE8", Withdraw(2, 11)),
    ("AS_PATH optional", "C0020602010000FDE8", Withdraw(2, 4)),
    ("NEXT_HOP on loopback", "4003047F000001", Fine),
    ("NEXT_HOP empty", "400300", Withdraw(3, 5)),
    ("NEXT_HOP short", "400303C00002", Withdraw(3, 5)),
    ("NEXT_HOP long", "400305C000020100", Withdraw(3, 5)),
    ("NEXT_HOP optional", "800304C0000201", Withdraw(3, 4)),
    // Judged only for routes of NLRI, hence no reset without them.
    ("NEXT_HOP 0.0.0.0", "40030400000000", Withdraw(3, 0)),
    ("NEXT_HOP multicast", "400304E0000001", Withdraw(3, 0)),
    ("NEXT_HOP broadcast", "400304FFFFFFFF", Withdraw(3, 0)),
    ("ATOMIC_AGGREGATE", "400600", Fine),
    ("ATOMIC_AGGREGATE with a value", "40060100", Discard(6)),
    ("ATOMIC_AGGREGATE optional", "C00600", Withdraw(6, 4)),
    ("LOCAL_PREF", "40050400000064", Discard(5)),
    ("LOCAL_PREF however malformed", "C0050100", Discard(5)),
    ("type 0, well-known", "40000100", Reset(2, "40000100")),
    ("type 99, well-known", "40630100", Reset(2, "40630100")),
    ("type 99, well-known, flags 0", "006300", Reset(2, "006300")),
];

/// From an internal one.
const WELL_KNOWN_INTERNAL: &[(&str, &str, Want)] = &[
    ("AS_PATH confederation sequence", "40020603010000FDE8", Fine),
    ("LOCAL_PREF", "40050400000064", Fine),
    ("LOCAL_PREF empty", "400500", Withdraw(5, 5)),
    ("LOCAL_PREF short", "400503000064", Withdraw(5, 5)),
    ("LOCAL_PREF long", "4005050000006400", Withdraw(5, 5)),
    ("LOCAL_PREF optional", "C0050400000064", Withdraw(5, 4)),
];

/// From an external neighbour.
const OPTIONAL: &[(&str, &str, Want)] = &[
    ("MED", "80040400000064", Fine),
    ("MED empty", "800400", Withdraw(4, 5)),
    ("MED short", "800403000064", Withdraw(4, 5)),
    ("MED long", "8004050000006400", Withdraw(4, 5)),
    ("MED transitive", "C0040400000064", Withdraw(4, 4)),
    ("MED well-known", "40040400000064", Withdraw(4, 4)),
    ("AGGREGATOR", "C007080000FDE8C0000201", Fine),
    ("AGGREGATOR empty", "C00700", Discard(7)),
    ("AGGREGATOR of a 2-octet speaker", "C00706FDE8C0000201", Discard(7)),
    ("AGGREGATOR long", "C007090000FDE8C000020100", Discard(7)),
    ("AGGREGATOR AS 0", "C0070800000000C0000201", Discard(7)),
    ("AGGREGATOR not transitive", "80070800000000C0000201", Withdraw(7, 4)),
    ("COMMUNITIES", "C00808FFFFFF01FDE80001", Fine),
    ("COMMUNITIES empty", "C00800", Withdraw(8, 9)),
    ("COMMUNITIES short", "C00803FFFFFF", Withdraw(8, 9)),
    ("COMMUNITIES 6 octets", "C00806FFFFFF010000", Withdraw(8, 9)),
    ("COMMUNITIES not transitive", "800804FFFFFF01", Withdraw(8, 4)),
    ("ORIGINATOR_ID", "800904C0000201", Discard(9)),
    ("ORIGINATOR_ID however malformed", "800900", Discard(9)),
    ("CLUSTER_LIST", "800A04C0000201", Discard(10)),
    ("CLUSTER_LIST however malformed", "C00A03C00002", Discard(10)),
    ("EXTENDED COMMUNITIES", "C010080002FDE800000001", Fine),
    ("EXTENDED COMMUNITIES empty", "C01000", Withdraw(16, 9)),
    ("EXTENDED COMMUNITIES 7 octets", "C010070002FDE8000000", Withdraw(16, 9)),
    ("EXTENDED COMMUNITIES 12 octets", "C0100C0002FDE80000000100000000", Withdraw(16, 9)),
    ("EXTENDED COMMUNITIES not transitive", "8010080002FDE800000001", Withdraw(16, 4)),
    ("LARGE_COMMUNITY", "C0200C000000010000000200000003", Fine),
    ("LARGE_COMMUNITY empty", "C02000", Withdraw(32, 9)),
    ("LARGE_COMMUNITY 11 octets", "C0200B0000000100000002000000", Withdraw(32, 9)),
    ("LARGE_COMMUNITY 13 octets", "C0200D00000001000000020000000300", Withdraw(32, 9)),
    ("LARGE_COMMUNITY not transitive", "80200C000000010000000200000003", Withdraw(32, 4)),
    ("AS4_PATH of a 4-octet speaker", "C0110602010000FDE8", Discard(17)),
    ("AS4_AGGREGATOR of a 4-octet speaker", "C012080000FDE8C0000201", Discard(18)),
    ("unknown, optional, not transitive", "80630100", Fine),
    ("unknown, optional, transitive", "C0630100", Fine),
    ("unknown, optional, transitive, empty", "C06300", Fine),
    ("type 254", "C0FE0100", Fine),
    ("type 0, optional", "C0000100", Discard(0)),
    ("type 255", "C0FF0100", Discard(255)),
    ("type 255, not transitive", "80FF0100", Discard(255)),
    ("ONLY_TO_CUSTOMER", "C023040000FDE8", Fine),
    ("ONLY_TO_CUSTOMER with the partial bit", "E023040000FDE8", Fine),
    ("ONLY_TO_CUSTOMER empty", "C02300", Withdraw(35, 5)),
    ("ONLY_TO_CUSTOMER short", "C0230300FDE8", Withdraw(35, 5)),
    ("ONLY_TO_CUSTOMER long", "C023050000FDE800", Withdraw(35, 5)),
    ("ONLY_TO_CUSTOMER not transitive", "8023040000FDE8", Withdraw(35, 4)),
];

/// Not interpreted, from an external neighbour.
const OPAQUE: &[(&str, &str, Want)] = &[
    ("PMSI_TUNNEL", "C01605 0006000001", Fine),
    ("PMSI_TUNNEL short", "C01604 00060000", Withdraw(22, 9)),
    ("PMSI_TUNNEL not transitive", "801605 0006000001", Withdraw(22, 4)),
    ("PMSI_TUNNEL well-known", "401605 0006000001", Withdraw(22, 4)),
    ("AIGP", "801A0B 01 000B 0000000000000064", Fine),
    ("AIGP of unknown TLVs", "801A07 02 0004 00 03 0003", Fine),
    ("AIGP empty", "801A00", Fine),
    ("AIGP transitive", "C01A0B 01 000B 0000000000000064", Discard(26)),
    ("AIGP well-known", "401A0B 01 000B 0000000000000064", Discard(26)),
    ("AIGP value of 7", "801A0A 01 000A 00000000000064", Discard(26)),
    ("AIGP TLV of 2", "801A03 02 0002", Discard(26)),
    ("AIGP TLV overrun", "801A04 02 0005 00", Discard(26)),
    ("AIGP TLV cut off", "801A02 02 00", Discard(26)),
    ("BGP-LS", "801D04 04470000", Fine),
    ("BGP-LS, whatever its TLVs", "801D03 044700", Fine),
    ("BGP-LS transitive", "C01D04 04470000", Discard(29)),
    ("IPv6 extended communities", "C01914 000220010DB8000000000000000000000001 0005", Fine),
    ("IPv6 extended communities empty", "C01900", Withdraw(25, 9)),
    ("IPv6 extended communities 19 octets", "C01913 000220010DB8000000000000000000000001 00", Withdraw(25, 9)),
    (
        "IPv6 extended communities 24 octets",
        "C01918 000220010DB8000000000000000000000001 000500000000",
        Withdraw(25, 9),
    ),
    ("IPv6 extended communities not transitive", "801914 000220010DB8000000000000000000000001 0005", Withdraw(25, 4)),
    ("PREFIX_SID", "C0280A 01 0007 00000000000001", Discard(40)),
    ("PREFIX_SID not transitive", "80280A 01 0007 00000000000001", Withdraw(40, 4)),
    ("tunnel encapsulation", "C01711 0008 000D 0402 3344 80 0004 55667788 0C 00", Fine),
    ("tunnel encapsulation, two, one without sub-TLVs", "C01708 0008 0000 0001 0000", Fine),
    ("tunnel encapsulation empty", "C01700", Discard(23)),
    ("tunnel encapsulation not transitive", "801704 0008 0000", Discard(23)),
    ("tunnel encapsulation cut off", "C01703 0008 00", Withdraw(23, 9)),
    ("tunnel encapsulation overrun", "C01704 0008 0001", Withdraw(23, 9)),
    ("tunnel encapsulation sub-TLV overrun", "C01708 0008 0004 04033344", Withdraw(23, 9)),
    ("tunnel encapsulation long sub-TLV cut off", "C01706 0008 0002 8000", Withdraw(23, 9)),
    ("ATTR_SET", "C0800F 0000FDE8 40010100 40050400000064", Fine),
    ("ATTR_SET without attributes", "C08004 0000FDE8", Fine),
    ("ATTR_SET short", "C08003 00FDE8", Withdraw(128, 9)),
    ("ATTR_SET overrun", "C08008 0000FDE8 40010200", Withdraw(128, 9)),
    ("ATTR_SET with NEXT_HOP", "C0800B 0000FDE8 400304C0000201", Withdraw(128, 9)),
    ("ATTR_SET with MP_REACH_NLRI", "C0800C 0000FDE8 800E05 0001010000", Withdraw(128, 9)),
    ("ATTR_SET not transitive", "808004 0000FDE8", Withdraw(128, 4)),
];

/// Not interpreted, from an internal neighbour.
const OPAQUE_INTERNAL: &[(&str, &str, Want)] = &[
    ("PREFIX_SID", "C0280A 01 0007 00000000000001", Fine),
    ("PREFIX_SID with an SRGB", "C02815 01 0007 00000000000001 03 0008 0000 003E80 001F40", Fine),
    ("PREFIX_SID of an unknown TLV", "C02803 05 0000", Fine),
    ("PREFIX_SID empty", "C02800", Discard(40)),
    ("PREFIX_SID cut off", "C02802 05 00", Discard(40)),
    ("PREFIX_SID overrun", "C02803 05 0001", Discard(40)),
    ("PREFIX_SID label index of 6", "C02809 01 0006 000000000001", Discard(40)),
    ("PREFIX_SID SRGB without a range", "C02805 03 0002 0000", Discard(40)),
    ("PREFIX_SID SRGB of half a range", "C02808 03 0005 0000 003E80", Discard(40)),
];

/// From an internal one.
const OPTIONAL_INTERNAL: &[(&str, &str, Want)] = &[
    ("ORIGINATOR_ID", "800904C0000201", Fine),
    ("ORIGINATOR_ID empty", "800900", Withdraw(9, 5)),
    ("ORIGINATOR_ID long", "800905C000020100", Withdraw(9, 5)),
    ("ORIGINATOR_ID transitive", "C00904C0000201", Withdraw(9, 4)),
    ("CLUSTER_LIST", "800A08C0000201C0000202", Fine),
    ("CLUSTER_LIST empty", "800A00", Withdraw(10, 9)),
    ("CLUSTER_LIST 5 octets", "800A05C0000201C0", Withdraw(10, 9)),
    ("CLUSTER_LIST transitive", "C00A04C0000201", Withdraw(10, 4)),
];

/// From one with 2-octet AS numbers.
const OPTIONAL_OLD: &[(&str, &str, Want)] = &[
    ("AGGREGATOR", "C00706FDE8C0000201", Fine),
    ("AGGREGATOR of a 4-octet speaker", "C007080000FDE8C0000201", Discard(7)),
    ("AS4_PATH", "C0110602010000FDE8", Fine),
    ("AS4_PATH empty", "C01100", Discard(17)),
    ("AS4_PATH underrun", "C0110702010000FDE802", Discard(17)),
    ("AS4_PATH overrun", "C0110602020000FDE8", Discard(17)),
    ("AS4_PATH empty segment", "C011020200", Discard(17)),
    ("AS4_PATH segment type 9", "C0110609010000FDE8", Discard(17)),
    ("AS4_PATH AS 0", "C011060201 00000000", Discard(17)),
    ("AS4_PATH not transitive", "80110602010000FDE8", Discard(17)),
    ("AS4_PATH of confederation segments only", "C01106 0301 0000FDE8", Fine),
    ("AS4_AGGREGATOR without AGGREGATOR", "C012080000FDE8C0000201", Fine),
    ("AS4_AGGREGATOR 6 octets", "C01206FDE8C0000201", Discard(18)),
    ("AS4_AGGREGATOR AS 0", "C0120800000000C0000201", Discard(18)),
    ("AS4_AGGREGATOR not transitive", "8012080000FDE8C0000201", Discard(18)),
    ("AS_PATH of a 4-octet speaker", "40020602010000FDE8", Withdraw(2, 11)),
];

/// From any.
const MULTIPROTOCOL: &[(&str, &str, Want)] = &[
    ("MP_REACH short", "800E0400020110", Reset(9, "800E0400020110")),
    ("MP_REACH empty", "800E00", Reset(9, "800E00")),
    ("MP_REACH next hop overrun", "800E0500020110 20", Reset(9, "800E050002011020")),
    ("MP_REACH no reserved octet", "800E06000101 02 C000", Reset(9, "800E0600010102C000")),
    ("MP_REACH IPv4 next hop of 3", "800E0800010103C0000200", Reset(9, "800E0800010103C0000200")),
    ("MP_REACH IPv6 next hop of 4", "800E0900020104C000020100", Reset(9, "800E0900020104C000020100")),
    (
        "MP_REACH IPv6 next hop of 24",
        "800E1D00020118 000000000000000020010DB8000000000000000000000001 00",
        Reset(9, "800E1D00020118000000000000000020010DB800000000000000000000000100"),
    ),
    (
        "MP_REACH IPv6 prefix of 129",
        "800E160002011020010DB8000000000000000000000001 00 81",
        Reset(9, "800E160002011020010DB80000000000000000000000010081"),
    ),
    (
        "MP_REACH IPv6 prefix cut off",
        "800E180002011020010DB8000000000000000000000001 00 20 2001",
        Reset(9, "800E180002011020010DB80000000000000000000000010020 2001"),
    ),
    ("MP_REACH flags", "C00E0500010100 00", Reset(9, "C00E050001010000")),
    ("MP_REACH flags", "400E0500010100 00", Reset(9, "400E050001010000")),
    ("MP_UNREACH short", "800F020002", Reset(9, "800F020002")),
    ("MP_UNREACH empty", "800F00", Reset(9, "800F00")),
    ("MP_UNREACH prefix of 129", "800F04000201 81", Reset(9, "800F0400020181")),
    ("MP_UNREACH prefix cut off", "800F05000201 2020", Reset(9, "800F050002012020")),
    ("MP_UNREACH IPv4 prefix of 33", "800F0900010121 0A00000000", Reset(9, "800F09000101210A00000000")),
    ("MP_UNREACH flags", "C00F03000201", Reset(9, "C00F03000201")),
];

#[test]
fn well_known_attributes() {
    table(&EBGP, WELL_KNOWN);
    table(&IBGP, WELL_KNOWN_INTERNAL);
}

#[test]
fn optional_attributes() {
    table(&EBGP, OPTIONAL);
    table(&IBGP, OPTIONAL_INTERNAL);
    table(&OLD, OPTIONAL_OLD);
    table(&EBGP, OPAQUE);
    table(&IBGP, OPAQUE_INTERNAL);
    // Kept as they came when transitive, left out when not.
    for (attributes, kept) in [("C01605 0006000001", true), ("801A0B 01 000B 0000000000000064", false)] {
        let read = decode_update(&update(&[], &field(&EBGP, attributes), &hex(NLRI)), &EBGP).unwrap();
        let unknown = &read.attributes.unwrap().unknown;
        assert_eq!(
            unknown.iter().map(|raw| (raw.flags, raw.code)).collect::<Vec<_>>(),
            [(0xe0, 22)][..usize::from(kept)]
        );
    }
}

#[test]
fn multiprotocol_attributes() {
    table(&EBGP, MULTIPROTOCOL);
    for twice in [REACH, "800F03000201", "800F03000185"] {
        check(&EBGP, "multiprotocol attribute twice", &twice.repeat(2), &Reset(1, ""));
    }
}
