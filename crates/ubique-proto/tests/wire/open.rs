//! OPEN: every error of RFC 4271 §6.2, capabilities, RFC 9072.

use ubique_model::{Asn, Family};
use ubique_proto::bgp::message::{Capability, Message, Notification, Open};
use ubique_proto::bgp::wire::{decode, encode_open};

use crate::support::{EBGP, hex, message, to_hex};

fn read(body: &str) -> Result<Open, Notification> {
    match decode(&message(1, &hex(body)), &EBGP)? {
        Message::Open(open) => Ok(open),
        other => panic!("not an OPEN: {other:?}"),
    }
}

#[test]
fn errors() {
    let version = |v: &str| format!("{v}FDE8005AC000020100");
    let cases = [
        (version("03"), 1, "0004"),
        (version("05"), 1, "0004"),
        (version("00"), 1, "0004"),
        // The version comes first, whatever else is wrong.
        ("03 0000 0001 00000000 FF".into(), 1, "0004"),
        // AS 0 (RFC 7607), in either place.
        ("04 0000 005A C0000201 00".into(), 2, ""),
        ("04 FDE8 005A C0000201 08 0206 4104 00000000".into(), 2, ""),
        ("04 0000 005A C0000201 08 0206 4104 0000FDE8".into(), 2, ""),
        // BGP identifier 0 (RFC 6286).
        ("04 FDE8 005A 00000000 00".into(), 3, ""),
        // Hold time of one or two seconds.
        ("04 FDE8 0001 C0000201 00".into(), 6, ""),
        ("04 FDE8 0002 C0000201 00".into(), 6, ""),
        // Parameters of another kind: authentication, unassigned, the reserved one.
        ("04 FDE8 005A C0000201 03 01 01 00".into(), 4, ""),
        ("04 FDE8 005A C0000201 02 03 00".into(), 4, ""),
        ("04 FDE8 005A C0000201 04 0200 0000".into(), 4, ""),
        // Parameters that do not add up.
        ("04 FDE8 005A C0000201 01".into(), 0, ""),
        ("04 FDE8 005A C0000201 00 00".into(), 0, ""),
        ("04 FDE8 005A C0000201 01 02".into(), 0, ""),
        ("04 FDE8 005A C0000201 02 02 01".into(), 0, ""),
        ("04 FDE8 005A C0000201 03 02 01 02".into(), 0, ""),
        ("04 FDE8 005A C0000201 04 02 02 02 01".into(), 0, ""),
        // Capabilities of a wrong length.
        ("04 FDE8 005A C0000201 07 0205 0103 000100".into(), 0, ""),
        ("04 FDE8 005A C0000201 09 0207 0105 0001000100".into(), 0, ""),
        ("04 FDE8 005A C0000201 05 0203 0201 00".into(), 0, ""),
        ("04 FDE8 005A C0000201 07 0205 4103 00FDE8".into(), 0, ""),
        ("04 FDE8 005A C0000201 09 0207 4105 0000FDE800".into(), 0, ""),
        // The long form of RFC 9072, cut off, too long, or with a length that is not there.
        ("04 FDE8 005A C0000201 FF FF".into(), 0, ""),
        ("04 FDE8 005A C0000201 FF FF 00".into(), 0, ""),
        ("04 FDE8 005A C0000201 FF FF 0001".into(), 0, ""),
        ("04 FDE8 005A C0000201 FF FF 0000 00".into(), 0, ""),
        ("04 FDE8 005A C0000201 FF FF 0002 0200".into(), 0, ""),
        ("04 FDE8 005A C0000201 FF FF 0004 02 0002 02".into(), 0, ""),
        ("04 FDE8 005A C0000201 FF FF 0003 01 0000".into(), 4, ""),
    ];
    for (body, subcode, data) in cases {
        let want = Notification::with_data(2, subcode, hex(data));
        assert_eq!(read(&body), Err(want), "{body}");
    }
}

#[test]
fn sound() {
    let open = read("04 FDE8 0000 C0000201 00").unwrap();
    assert_eq!((open.asn, open.hold_time_s, open.capabilities), (Asn(65000), 0, vec![]));
    assert_eq!(read("04 FDE8 0003 C0000201 00").unwrap().hold_time_s, 3);
    // The 4-octet capability decides about the AS (RFC 6793 §4.1).
    let open = read("04 5BA0 005A C0000201 08 0206 4104 FFFFFFFF").unwrap();
    assert_eq!(open.asn, Asn(u32::MAX));
    // Without it AS_TRANS is what it says.
    assert_eq!(read("04 5BA0 005A C0000201 00").unwrap().asn, Asn::TRANS);
    // Several capabilities in one parameter, and of families and codes ubique does not use.
    let open =
        read("04 FDE8 00B4 C0000201 1A 0218 0104 00010001 0104 0002FF01 0104 00190041 0200 4600 8502 ABCD 02 00");
    assert_eq!(open, Err(Notification::new(2, 0)), "the length is one too many");
    let open =
        read("04 FDE8 00B4 C0000201 1C 0218 0104 00010001 0104 0002FF01 0104 00190041 0200 4600 4000 0200").unwrap();
    assert_eq!(
        open.capabilities,
        [
            Capability::Multiprotocol(Family::Ipv4.into()),
            Capability::Multiprotocol(Family::Ipv6.into()),
            Capability::Unknown { code: 1, value: hex("00190041") },
            Capability::RouteRefresh,
            Capability::Unknown { code: 70, value: vec![] },
            Capability::Unknown { code: 64, value: vec![] },
        ]
    );
}

#[test]
fn long_form() {
    // RFC 9072 §2: the type says so, the one-octet length is ignored unless 0.
    for length in ["FF", "01", "10"] {
        let open = read(&format!("04 FDE8 005A C0000201 {length} FF 0009 02 0006 4104 0000FDE8")).unwrap();
        assert_eq!(open.capabilities, [Capability::FourOctetAs(Asn(65000))]);
    }
    // 255 octets of parameters still go the short way, more the long way.
    for (octets, extended) in [(251, false), (252, true), (255, true)] {
        let value = vec![7; octets];
        let capabilities = vec![Capability::Unknown { code: 200, value }];
        let open = Open { asn: Asn(65000), hold_time_s: 90, router_id: [192, 0, 2, 1].into(), capabilities };
        let mut out = Vec::new();
        encode_open(&open, &mut out);
        assert_eq!(out[29] == 255, extended, "{octets}");
        assert_eq!(decode(&out, &EBGP), Ok(Message::Open(open)));
    }
}

#[test]
fn written_octets() {
    let capabilities = vec![
        Capability::Multiprotocol(Family::Ipv4.into()),
        Capability::RouteRefresh,
        Capability::FourOctetAs(Asn(4_200_000_000)),
    ];
    let open = Open { asn: Asn(4_200_000_000), hold_time_s: 90, router_id: [192, 0, 2, 1].into(), capabilities };
    let mut out = Vec::new();
    encode_open(&open, &mut out);
    assert_eq!(to_hex(&out[19..]), "045BA0005AC00002011402060104000100010202020002064104FA56EA00");
    // What cannot be written is left out, what can stays sound.
    let capabilities = vec![Capability::Unknown { code: 200, value: vec![0; 256] }, Capability::RouteRefresh];
    let mut out = Vec::new();
    encode_open(&Open { capabilities, ..open.clone() }, &mut out);
    let Ok(Message::Open(back)) = decode(&out, &EBGP) else { panic!() };
    assert_eq!(back.capabilities, [Capability::RouteRefresh]);
    let mut out = Vec::new();
    let many = vec![Capability::Unknown { code: 200, value: vec![0; 255] }; 40];
    encode_open(&Open { capabilities: many, ..open }, &mut out);
    let Ok(Message::Open(back)) = decode(&out, &EBGP) else { panic!() };
    assert_eq!(back.capabilities.len(), 15);
}
