//! FlowSpec rules as octets: examples of RFC 8955 and RFC 8956, what is malformed, what fits.

use proptest::collection::vec;
use proptest::prelude::*;
use ubique_model::Family;
use ubique_proto::bgp::attributes::Attributes;
use ubique_proto::bgp::family::{AddressFamilies, AddressFamily};
use ubique_proto::bgp::flowspec::{
    Action, BitmaskField, BitmaskTerm, Component, FlowSpec, FlowSpecError, NumericField, NumericTerm,
};
use ubique_proto::bgp::message::{Message, Notification, Treatment, Update};
use ubique_proto::bgp::wire::{DecodeContext, EncodeError, encode_end_of_rib, encode_flows};

use crate::faults::{ORIGIN, PATH, codes};
use crate::support::{EBGP, IBGP, decode_all, decode_update, hex, sender, to_hex, update};

const FLOWS: DecodeContext = DecodeContext { families: AddressFamilies::ALL, ..EBGP };

fn rule(text: &str) -> FlowSpec {
    text.parse().unwrap()
}

fn length(octets: usize) -> String {
    if octets < 240 { format!("{octets:02X}") } else { format!("{:04X}", 0xf000 | octets) }
}

/// MP_REACH_NLRI or MP_UNREACH_NLRI of a field of rules.
fn attribute(reach: bool, family: Family, field: &[u8]) -> Vec<u8> {
    let (afi, _) = AddressFamily::flowspec(family).afi_safi();
    let (code, next_hop) = if reach { ("0E", "0000") } else { ("0F", "") };
    let value = [hex(&format!("{afi:04X}85{next_hop}")), field.to_vec()].concat();
    [hex(&format!("90{code}{:04X}", value.len())), value].concat()
}

fn reached(family: Family, field: &str) -> Result<Update, Notification> {
    let attributes = [attribute(true, family, &hex(field)), hex(&format!("{ORIGIN}{PATH}"))].concat();
    decode_update(&update(&[], &attributes, &[]), &FLOWS)
}

fn unreached(family: Family, field: &str) -> Result<Update, Notification> {
    decode_update(&update(&[], &attribute(false, family, &hex(field)), &[]), &FLOWS)
}

#[test]
fn octets_of_rules() {
    use Family::{Ipv4, Ipv6};
    for (family, text, octets) in [
        // RFC 8955 §4.3.1, §4.3.2, and the lengths of §4.1.
        (Ipv4, "dst 192.0.2.0/24 proto =tcp port =25", "01 18 C00002 03 8106 04 8119"),
        (
            Ipv4,
            "dst 192.0.2.0/24 src 203.0.113.0/24 port >=137&<=139 =8080",
            "01 18 C00002 02 18 CB0071 04 0389 458B 911F90",
        ),
        (Ipv4, "dst 192.0.2.1/32 fragment =is", "01 20 C0000201 0C 8102"),
        // RFC 8956 §3.8: with an offset, the pattern starts there.
        (
            Ipv6,
            "dst 2001:db8::/32 src ::1234:5678:9a00:0/64-104 proto =tcp",
            "01 20 00 20010DB8 02 68 40 123456789A 03 8106",
        ),
        (
            Ipv6,
            "dst 2001:db8::/32 src ::1234:5678:9a00:0/65-104 proto =tcp",
            "01 20 00 20010DB8 02 68 41 2468ACF134 03 8106",
        ),
        (Ipv6, "dst ::/0 src ::1/127-128 flow-label =2013", "01 00 00 02 80 7F 80 0D A1000007DD"),
        // Everything, and every width of a value.
        (
            Ipv4,
            "dst 10.0.0.0/8 src 0.0.0.0/0 proto !=gre port <1 >256 dport true sport false icmp-type =8 icmp-code <=5 \
             tcp-flags =syn&!~ack !=0x100 length >65536&<4294967296 dscp =46 fragment ~df+last",
            "01 08 0A 02 00 03 862F 04 0401 920100 05 8700 06 8000 07 8108 08 8505 09 0102 4210 930100 \
             0A 2200010000 F40000000100000000 0B 812E 0C 8009",
        ),
    ] {
        let octets = hex(octets);
        let field = format!("{}{}", length(octets.len()), to_hex(&octets));
        let flow = rule(text);
        assert_eq!(flow.family, family);
        let read = reached(family, &field).unwrap();
        assert_eq!((&read.flows_announced, &read.faults), (&vec![flow.clone()], &vec![]), "{text}");
        assert_eq!(read.flows_announced[0].to_string(), text);
        assert!(read.attributes.is_some() && read.announced.is_empty());
        let mut out = Vec::new();
        let announced = Some((&Attributes::originated(), std::slice::from_ref(&flow)));
        encode_flows(std::slice::from_ref(&flow), announced, &sender(&FLOWS), &mut out).unwrap();
        let (afi, _) = AddressFamily::flowspec(family).afi_safi();
        let size = hex(&field).len();
        let unreach = format!("{:04X}020000{:04X}800F{:02X}{afi:04X}85{field}", 29 + size, size + 6, size + 3);
        let reach =
            format!("{:04X}020000{:04X}800E{:02X}{afi:04X}850000{field}40010100400200", 38 + size, size + 15, size + 5);
        assert_eq!(to_hex(&out), format!("{0}{unreach}{0}{reach}", "F".repeat(32)), "{text}");
    }
}

#[test]
fn lenient_reading() {
    let want = rule("ipv4 proto =tcp port =53 =80&!=81");
    for field in [
        // Reserved bits, "and" on the first term, wide values, the length in two octets.
        "0A 03 8906 04 0935 0950 CE51",
        "0A 03 C106 04 4135 0150 C651",
        "F00A 03 8106 04 0135 0150 C651",
        "16 03 A100000006 04 110035 110050 F60000000000000051",
    ] {
        let read = reached(Family::Ipv4, field).unwrap();
        assert_eq!((read.flows_announced, read.faults), (vec![want.clone()], vec![]), "{field}");
    }
    // Bits of a prefix beyond its length, of a DSCP beyond six.
    assert_eq!(reached(Family::Ipv4, "03 01 07 0B").unwrap().flows_announced, [rule("dst 10.0.0.0/7")]);
    assert_eq!(reached(Family::Ipv6, "04 02 7F 7C FF").unwrap().flows_announced, [rule("ipv6 src ::e/124-127")]);
    assert_eq!(reached(Family::Ipv4, "03 0B 81 EE").unwrap().flows_announced, [rule("ipv4 dscp =46")]);
    // A next hop, whatever its length, means nothing (RFC 8955 §4).
    let reach = hex(&format!("800E0D 000185 04 01020304 00 03 0B 812E {ORIGIN}{PATH}"));
    let read = decode_update(&update(&[], &reach, &[]), &FLOWS).unwrap();
    assert_eq!((read.flows_announced, read.faults), (vec![rule("ipv4 dscp =46")], vec![]));
}

#[test]
fn malformed_rules() {
    for (family, malformed) in [
        (Family::Ipv4, "00"),
        // Unknown, out of order, twice.
        (Family::Ipv4, "03 00 8106"),
        (Family::Ipv4, "03 0E 8106"),
        (Family::Ipv4, "03 0D 8106"),
        (Family::Ipv4, "06 04 8106 03 8106"),
        (Family::Ipv4, "06 03 8106 03 8111"),
        (Family::Ipv4, "04 02 00 01 00"),
        // Prefixes too long or cut off.
        (Family::Ipv4, "07 01 21 0A00000000"),
        (Family::Ipv4, "03 01 18 0A"),
        (Family::Ipv4, "01 01"),
        (Family::Ipv6, "02 01 00"),
        (Family::Ipv6, "04 01 10 10 20"),
        (Family::Ipv6, "04 01 08 10 20"),
        (Family::Ipv6, "03 01 00 01"),
        (Family::Ipv6, "04 01 FF F8 20"),
        (Family::Ipv6, "14 01 81 00 20010DB80000000000000000000000000100"),
        // Operators without an end, values cut off, wider than their type.
        (Family::Ipv4, "01 03"),
        (Family::Ipv4, "03 03 0106"),
        (Family::Ipv4, "02 03 81"),
        (Family::Ipv4, "03 03 9106"),
        (Family::Ipv4, "04 0B 91002E"),
        (Family::Ipv4, "04 0C 910002"),
        (Family::Ipv4, "06 09 A100000002"),
    ] {
        // Alone or beside a sound one: the message withdraws (RFC 8955 §10).
        let sound = if family == Family::Ipv4 { "03 0B 812E" } else { "03 03 8106" };
        let read = reached(family, &format!("{sound}{malformed}")).unwrap();
        assert_eq!(codes(&read, Treatment::TreatAsWithdraw), [14], "{malformed}");
        assert_eq!((read.flows_announced.len(), read.flows_withdrawn.len()), (0, 1), "{malformed}");
        assert_eq!(read.attributes, None);
        let alone = reached(family, malformed).unwrap();
        assert_eq!((alone.flows_announced.len(), alone.flows_withdrawn.len()), (0, 0), "{malformed}");
        // Withdrawn, as it must be in the end: it was never taken, those beside it go.
        let back = unreached(family, &format!("{malformed}{sound}")).unwrap();
        assert_eq!(codes(&back, Treatment::AttributeDiscard), [15], "{malformed}");
        assert_eq!((back.flows_withdrawn.len(), back.faults.len(), back.end_of_rib), (1, 1, None), "{malformed}");
        let alone = unreached(family, malformed).unwrap();
        assert_eq!((alone.flows_withdrawn.len(), alone.faults.len(), alone.end_of_rib), (0, 1, None), "{malformed}");
    }
    // Lengths that do not add up.
    for field in ["01", "04 03 8106", "F0", "F004 038106", "FF", "03 0B 812E 01"] {
        for result in [reached(Family::Ipv4, field), unreached(Family::Ipv4, field)] {
            let error = result.unwrap_err();
            assert_eq!((error.code, error.subcode), (3, 9), "{field}");
        }
    }
}

#[test]
fn rules_among_other_routes() {
    // Another fault of the message withdraws rules, too; a missing attribute is missed.
    let field = attribute(true, Family::Ipv4, &hex("03 0B 812E"));
    for attributes in [format!("40010109{PATH}"), ORIGIN.to_owned(), format!("{ORIGIN}{PATH}C00803FFFFFF")] {
        let read = decode_update(&update(&[], &[&field[..], &hex(&attributes)].concat(), &[]), &FLOWS).unwrap();
        assert_eq!((read.flows_announced.len(), &read.flows_withdrawn), (0, &vec![rule("ipv4 dscp =46")]));
        assert!(read.attributes.is_none() && read.faults.len() == 1);
    }
    // Taken back and announced at once: announced.
    let back = attribute(false, Family::Ipv4, &hex("03 0B 812E 03 0B 812F"));
    let both = [&field[..], &hex(&format!("{ORIGIN}{PATH}")), &back].concat();
    let read = decode_update(&update(&[], &both, &[]), &FLOWS).unwrap();
    assert_eq!(
        (read.flows_announced, read.flows_withdrawn),
        (vec![rule("ipv4 dscp =46")], vec![rule("ipv4 dscp =47")])
    );
    // Not negotiated: not looked at.
    let unread = [attribute(true, Family::Ipv4, &hex("FF")), hex(&format!("{ORIGIN}{PATH}"))].concat();
    let read = decode_update(&update(&[], &unread, &[]), &EBGP).unwrap();
    assert_eq!(codes(&read, Treatment::AttributeDiscard), [14]);
    // The end of the RIB.
    for family in Family::ALL {
        let mut out = Vec::new();
        encode_end_of_rib(AddressFamily::flowspec(family), &mut out);
        let read = decode_update(&out, &FLOWS).unwrap();
        assert_eq!((read.end_of_rib, read.faults), (Some(AddressFamily::flowspec(family)), vec![]));
        assert_eq!(decode_update(&out, &EBGP).unwrap().end_of_rib, None);
    }
    assert_eq!(unreached(Family::Ipv4, "03 0B 812E").unwrap().end_of_rib, None);
    // Actions go along as extended communities.
    let attributes = Attributes {
        extended_communities: vec![Action::DISCARD.community(), Action::Marking { dscp: 46 }.community()],
        ..Attributes::originated()
    };
    let mut out = Vec::new();
    encode_flows(&[], Some((&attributes, &[rule("dst 192.0.2.1/32")])), &sender(&FLOWS), &mut out).unwrap();
    assert_eq!(decode_update(&out, &FLOWS).unwrap().attributes.unwrap().as_ref(), &attributes);
}

#[test]
fn what_does_not_fit_is_refused() {
    let plain = Attributes::originated();
    let long = |terms: usize| {
        let terms = (0..terms).map(|_| NumericTerm::equal(53)).collect();
        let components = vec![Component::Numeric { field: NumericField::Port, terms }];
        FlowSpec { family: Family::Ipv4, components }
    };
    // 4,096 - 23 header and lengths - 9 of MP_REACH_NLRI - 7 ORIGIN, AS_PATH - 2 length - 1 type, and 2 for each term.
    let most = 2027;
    let mut out = vec![1];
    let small = rule("dst 192.0.2.1/32");
    encode_flows(&[], Some((&plain, &[small.clone(), long(most), small.clone()])), &sender(&FLOWS), &mut out).unwrap();
    let messages = decode_all(&out[1..], 4096, &FLOWS);
    assert_eq!(messages.len(), 3);
    assert!(messages.iter().all(|message| matches!(message, Ok(Message::Update(u)) if u.flows_announced.len() == 1)));
    let refused = |flow: FlowSpec, ctx: &DecodeContext| {
        let mut out = vec![1];
        let error = encode_flows(&[rule("dst 192.0.2.1/32")], Some((&plain, &[flow])), &sender(ctx), &mut out);
        assert_eq!(out, [1], "nothing is written");
        error.unwrap_err()
    };
    assert!(matches!(refused(long(most + 1), &FLOWS), EncodeError::FlowTooLong { .. }));
    // However long messages are, a rule has 4,095 octets.
    let extended = DecodeContext { max_message: 65_535, ..FLOWS };
    assert_eq!(refused(long(2048), &extended), EncodeError::FlowTooLong { octets: 4097, room: 4095 });
    let unsound = FlowSpec { components: vec![], ..small };
    assert_eq!(refused(unsound, &FLOWS), EncodeError::Flow(FlowSpecError::Empty));
    let communities = vec![[0; 8]; 600];
    let attributes = Attributes { extended_communities: communities, ..Attributes::originated() };
    let result = encode_flows(&[], Some((&attributes, &[rule("ipv4 proto =tcp")])), &sender(&FLOWS), &mut out);
    assert!(matches!(result, Err(EncodeError::AttributesTooLong { .. })));
}

fn numeric_terms(widest: u32) -> impl Strategy<Value = Vec<NumericTerm>> {
    let term =
        (any::<[bool; 4]>(), any::<u64>(), 0..64u32).prop_map(move |([and, less, greater, equal], value, bits)| {
            let mask = if widest == 64 { u64::MAX } else { (1 << widest) - 1 };
            let constant = less == greater && greater == equal;
            NumericTerm { and, less, greater, equal, value: if constant { 0 } else { value >> bits & mask } }
        });
    vec(term, 1..12).prop_map(|mut terms| {
        terms[0].and = false;
        terms
    })
}

fn bitmask_terms(widest: u32) -> impl Strategy<Value = Vec<BitmaskTerm>> {
    let term = (any::<[bool; 3]>(), 0..1u64 << widest);
    let term = term.prop_map(|([and, not, all], value)| BitmaskTerm { and, not, all, value });
    vec(term, 1..12).prop_map(|mut terms| {
        terms[0].and = false;
        terms
    })
}

fn address(family: Family) -> BoxedStrategy<(ubique_model::Prefix, u8)> {
    match family {
        Family::Ipv4 => (any::<u32>(), 0..=32u8)
            .prop_map(|(a, len)| {
                (ubique_model::Prefix::new(std::net::Ipv4Addr::from(a).into(), len).unwrap().trunc(), 0)
            })
            .boxed(),
        Family::Ipv6 => (any::<u128>(), 0..=128u8, any::<u8>())
            .prop_map(|(a, len, offset)| {
                let offset = if len == 0 { 0 } else { offset % len };
                let address = std::net::Ipv6Addr::from(a >> offset);
                (ubique_model::Prefix::new(address.into(), len).unwrap().trunc(), offset)
            })
            .boxed(),
    }
}

fn flow() -> impl Strategy<Value = FlowSpec> {
    let component = |family| {
        let fields: Vec<NumericField> =
            NumericField::ALL.into_iter().filter(|f| family == Family::Ipv6 || *f != NumericField::FlowLabel).collect();
        prop_oneof![
            address(family).prop_map(|(prefix, offset)| Component::Destination { prefix, offset }),
            address(family).prop_map(|(prefix, offset)| Component::Source { prefix, offset }),
            (prop::sample::select(fields), numeric_terms(64)).prop_map(|(field, mut terms)| {
                if field == NumericField::Dscp {
                    terms.iter_mut().for_each(|term| term.value &= 0x3f);
                }
                Component::Numeric { field, terms }
            }),
            bitmask_terms(16).prop_map(|terms| Component::Bitmask { field: BitmaskField::TcpFlags, terms }),
            bitmask_terms(8).prop_map(|terms| Component::Bitmask { field: BitmaskField::Fragment, terms }),
        ]
    };
    prop_oneof![Just(Family::Ipv4), Just(Family::Ipv6)].prop_flat_map(move |family| {
        vec(component(family), 1..8).prop_map(move |mut components| {
            components.sort_by_key(Component::code);
            components.dedup_by_key(|component| component.code());
            FlowSpec { family, components }
        })
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn rules_read_back(withdrawn in vec(flow(), 0..30), announced in vec(flow(), 0..30), extended: bool) {
        for flow in &announced {
            prop_assert_eq!(&flow.to_string().parse::<FlowSpec>().unwrap(), flow);
            let _ = flow.validate();
        }
        let max_message = if extended { 65_535 } else { 4_096 };
        let ctx = DecodeContext { max_message, families: AddressFamilies::ALL, ..IBGP };
        let attributes = Attributes { local_pref: Some(5), ..Attributes::originated() };
        let mut stream = Vec::new();
        encode_flows(&withdrawn, Some((&attributes, &announced)), &sender(&ctx), &mut stream).unwrap();
        let (mut taken, mut given) = (vec![], vec![]);
        for message in decode_all(&stream, stream.len(), &ctx) {
            let Message::Update(update) = message.unwrap() else { panic!("not an UPDATE") };
            prop_assert_eq!(&update.faults, &vec![]);
            prop_assert_eq!(update.attributes.is_some(), !update.flows_announced.is_empty());
            taken.extend(update.flows_withdrawn);
            given.extend(update.flows_announced);
        }
        let by_family = |flows: &[FlowSpec]| -> Vec<FlowSpec> {
            let of = |family| flows.iter().filter(move |flow| flow.family == family).cloned();
            of(Family::Ipv4).chain(of(Family::Ipv6)).collect()
        };
        prop_assert_eq!((taken, given), (by_family(&withdrawn), by_family(&announced)));
    }

    /// Any octets as rules: an answer, and what is readable is well-formed.
    #[test]
    fn any_rules(field in vec(any::<u8>(), 0..200), reach: bool, six: bool) {
        let family = if six { Family::Ipv6 } else { Family::Ipv4 };
        let attributes = [attribute(reach, family, &field), hex(&format!("{ORIGIN}{PATH}"))].concat();
        if let Ok(update) = decode_update(&update(&[], &attributes, &[]), &FLOWS) {
            for flow in update.flows_announced.iter().chain(&update.flows_withdrawn) {
                prop_assert_eq!(flow.well_formed(), Ok(()));
            }
        }
    }

    /// Any text as a rule or an action.
    #[test]
    fn any_text(text in "[a-z0-9=<>!~&+/.: -]{0,60}") {
        if let Ok(flow) = text.parse::<FlowSpec>() {
            prop_assert_eq!(flow.to_string().parse(), Ok(flow));
        }
        if let Ok(action) = text.parse::<Action>() {
            prop_assert_eq!(action.to_string().parse(), Ok(action));
        }
    }
}
