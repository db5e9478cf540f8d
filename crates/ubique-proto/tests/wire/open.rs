//! OPEN: every error of RFC 4271 §6.2, capabilities, RFC 9072.

use std::time::Duration;

use ubique_model::{Asn, Family};
use ubique_proto::bgp::family::AddressFamily;
use ubique_proto::bgp::message::{AddPath, Capability, GracefulRestart, LongLived, Message, Notification, Open, Role};
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
        ("04 FDE8 005A C0000201 09 0207 0505 0001000100".into(), 0, ""),
        ("04 FDE8 005A C0000201 05 0203 0601 00".into(), 0, ""),
        ("04 FDE8 005A C0000201 04 0202 0900".into(), 0, ""),
        ("04 FDE8 005A C0000201 06 0204 0902 0303".into(), 0, ""),
        ("04 FDE8 005A C0000201 04 0202 4000".into(), 0, ""),
        ("04 FDE8 005A C0000201 05 0203 4001 80".into(), 0, ""),
        ("04 FDE8 005A C0000201 09 0207 4005 0078000101".into(), 0, ""),
        ("04 FDE8 005A C0000201 05 0203 4601 00".into(), 0, ""),
        ("04 FDE8 005A C0000201 0A 0208 4706 000101800000".into(), 0, ""),
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
        read("04 FDE8 00B4 C0000201 1C 0218 0104 00010001 0104 0002FF01 0104 00190041 0200 4600 4300 0200").unwrap();
    assert_eq!(
        open.capabilities,
        [
            Capability::Multiprotocol(Family::Ipv4.into()),
            Capability::Multiprotocol(Family::Ipv6.into()),
            Capability::Unknown { code: 1, value: hex("00190041") },
            Capability::RouteRefresh,
            Capability::EnhancedRouteRefresh,
            Capability::Unknown { code: 67, value: vec![] },
        ]
    );
}

/// Capabilities of an OPEN with these octets, each with code and length.
fn capabilities(octets: &str) -> Vec<Capability> {
    let length = hex(octets).len();
    let open = format!("04 FDE8 005A C0000201 {:02X} 02{length:02X} {octets}", length + 2);
    read(&open).unwrap().capabilities
}

#[test]
fn capability_values() {
    use AddressFamily::{Ipv4FlowSpec, Ipv4Unicast, Ipv6Unicast};
    let graceful = |restarting, notification, seconds, families| {
        let restart_time = Duration::from_secs(seconds);
        Capability::GracefulRestart(GracefulRestart { restarting, notification, restart_time, families })
    };
    let long_lived =
        |family, forwarding, seconds| LongLived { family, forwarding, stale_time: Duration::from_secs(seconds) };
    // Written as read.
    for (octets, want) in [
        ("0506 000100010002", Capability::ExtendedNextHop(vec![Ipv4Unicast])),
        ("0500", Capability::ExtendedNextHop(vec![])),
        ("0600", Capability::ExtendedMessage),
        ("0901 00", Capability::Role(Role::Provider)),
        ("0901 01", Capability::Role(Role::RouteServer)),
        ("0901 02", Capability::Role(Role::RouteServerClient)),
        ("0901 03", Capability::Role(Role::Customer)),
        ("0901 04", Capability::Role(Role::Peer)),
        ("0901 05", Capability::Role(Role::Unknown(5))),
        ("4002 0078", graceful(false, false, 120, vec![])),
        ("4002 8FFF", graceful(true, false, 4095, vec![])),
        ("400A C001 00010180 00020100", graceful(true, true, 1, vec![(Ipv4Unicast, true), (Ipv6Unicast, false)])),
        (
            "4508 00010101 00018503",
            Capability::AddPath(vec![(Ipv4Unicast, AddPath::Receive), (Ipv4FlowSpec, AddPath::Both)]),
        ),
        ("4504 00020102", Capability::AddPath(vec![(Ipv6Unicast, AddPath::Send)])),
        ("4600", Capability::EnhancedRouteRefresh),
        ("4700", Capability::LongLivedGracefulRestart(vec![])),
        (
            "470E 00010180 000E10 00020100 FFFFFF",
            Capability::LongLivedGracefulRestart(vec![
                long_lived(Ipv4Unicast, true, 3600),
                long_lived(Ipv6Unicast, false, 16_777_215),
            ]),
        ),
    ] {
        assert_eq!(capabilities(octets), std::slice::from_ref(&want), "{octets}");
        let open =
            Open { asn: Asn(65000), hold_time_s: 90, router_id: [192, 0, 2, 1].into(), capabilities: vec![want] };
        let mut out = Vec::new();
        encode_open(&open, &mut out);
        assert_eq!(to_hex(&out[31..]), octets.replace(' ', ""));
    }
    // Families ubique does not know are left out, reserved flags are ignored.
    let vpn = "0506 000100800002";
    assert_eq!(capabilities(vpn), [Capability::ExtendedNextHop(vec![])]);
    assert_eq!(capabilities("0506 000200010002"), [Capability::ExtendedNextHop(vec![])]);
    assert_eq!(capabilities("0506 000101010002"), [Capability::ExtendedNextHop(vec![])]);
    assert_eq!(capabilities("0506 000100010001"), [Capability::ExtendedNextHop(vec![])]);
    assert_eq!(capabilities("4006 3001 00194180"), [graceful(false, false, 1, vec![])]);
    assert_eq!(capabilities("4006 0001 0001017F"), [graceful(false, false, 1, vec![(Ipv4Unicast, false)])]);
    assert_eq!(capabilities("4508 00194103 00010103"), [Capability::AddPath(vec![(Ipv4Unicast, AddPath::Both)])]);
    assert_eq!(capabilities("4707 00194180 000001"), [Capability::LongLivedGracefulRestart(vec![])]);
    // ADD-PATH that makes no sense is not understood (RFC 7911 §4): as if it was not there.
    for malformed in ["00010104", "00010100", "0001010100020104", "000101", "0001010300"] {
        let value = hex(malformed);
        let octets = format!("45{:02X} {malformed}", value.len());
        assert_eq!(capabilities(&octets), [Capability::Unknown { code: 69, value }], "{malformed}");
    }
    // Times beyond the field.
    let long = |seconds| Duration::from_secs(seconds);
    let capabilities = vec![
        graceful(false, false, 5000, vec![]),
        Capability::LongLivedGracefulRestart(vec![LongLived {
            family: Ipv4Unicast,
            forwarding: false,
            stale_time: long(1 << 24),
        }]),
    ];
    let mut out = Vec::new();
    encode_open(&Open { asn: Asn(1), hold_time_s: 90, router_id: [192, 0, 2, 1].into(), capabilities }, &mut out);
    assert_eq!(to_hex(&out[29..]), "020440020FFF0209470700010100FFFFFF");
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
