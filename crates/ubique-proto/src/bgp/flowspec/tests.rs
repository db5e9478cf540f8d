use ubique_model::Asn;

use super::*;

fn rule(text: &str) -> FlowSpec {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

#[test]
fn the_notation_reads_back() {
    for text in [
        "dst 198.51.100.0/24 proto =udp port =53",
        "dst 0.0.0.0/0",
        "src 192.0.2.1/32",
        "dst 2001:db8::/32 src ::1234:5678:9a00:0/64-104 proto =tcp",
        "dst ::/0 flow-label =2013 >5&<9",
        "dst 203.0.113.0/24 dport >8080&<8088 =3128 sport !=80 length >=512&<=1500 false true dscp =46",
        "dst 203.0.113.0/24 icmp-type =8 icmp-code =0",
        "dst 203.0.113.0/24 tcp-flags =syn&!~rst+ack ~0x100 !=fin+0x200 =0x0 fragment ~is+first+last !=df",
        "ipv4 proto =icmp =89 =200",
        "ipv6 proto !=icmpv6",
        "dst 2001:db8::1/128 fragment =first",
    ] {
        let read = rule(text);
        // 89 has a name.
        assert_eq!(read.to_string(), text.replace("=89", "=ospf"));
        assert_eq!(rule(&read.to_string()), read);
    }
    // In any order, numbers as names and the reverse, host bits and bits before the offset cleared.
    assert_eq!(rule("port =53 proto =17 dst 198.51.100.77/24"), rule("dst 198.51.100.0/24 proto =udp port =53"));
    assert_eq!(rule("dst 2001:db8::1234:0/100-120"), rule("ipv6 dst ::1234:0/100-120"));
    assert_eq!(rule("ipv4 tcp-flags =0x12"), rule("ipv4 tcp-flags =ack+syn"));
}

#[test]
fn the_notation_says_what_is_wrong() {
    for (text, want) in [
        ("", "a rule without dst and src starts with ipv4 or ipv6"),
        ("ipv4", "the rule has no condition"),
        ("proto =udp", "a rule without dst and src starts with ipv4 or ipv6"),
        ("dst", "dst \"\": a prefix belongs here"),
        ("dst 198.51.100.0/33", "dst \"198.51.100.0/33\": a prefix belongs here"),
        ("dst 198.51.100.0/8-24", "a prefix belongs here"),
        ("dst ::/-24", "a prefix belongs here"),
        ("dst 2001:db8::/64-64", "offset 64 leaves nothing of"),
        ("dst 2001:db8::/200-201", "a prefix belongs here"),
        ("dst 198.51.100.0/24 protocol =udp", "\"protocol\" is no condition: dst, src"),
        ("dst 198.51.100.0/24 =udp", "\"=udp\" is no condition"),
        ("dst 198.51.100.0/24 proto", "proto \"\": a comparison belongs here, like =udp"),
        ("dst 198.51.100.0/24 proto udp", "proto \"udp\": a comparison belongs here, like =udp"),
        ("dst 198.51.100.0/24 proto =udq", "proto \"=udq\": a comparison belongs here"),
        ("dst 198.51.100.0/24 port =+53", "port \"=+53\""),
        ("dst 198.51.100.0/24 port >5&", "port \"\""),
        ("dst 198.51.100.0/24 port true5", "port \"true5\""),
        ("dst 198.51.100.0/24 port =99999999999999999999", "port \"=99999999999999999999\""),
        ("dst 198.51.100.0/24 tcp-flags =sin", "tcp-flags \"=sin\": a comparison belongs here, like =syn&!~ack+rst"),
        ("dst 198.51.100.0/24 fragment", "fragment \"\""),
        ("dst 198.51.100.0/24 src ::/0", "src does not belong into a rule about"),
        ("ipv6 dst 198.51.100.0/24", "dst does not belong into a rule about"),
        ("dst 198.51.100.0/24 flow-label =1", "flow-label does not belong into a rule about"),
        ("dst 198.51.100.0/24 dst 192.0.2.0/24", "dst after dst"),
        ("ipv4 dscp =256", "dscp 256 is too large: at most 255"),
    ] {
        let error = text.parse::<FlowSpec>().unwrap_err().to_string();
        assert!(error.contains(want), "{text}: {error}");
    }
}

#[test]
fn what_we_announce_is_judged() {
    use FlowSpecError::*;
    let never = |component| NeverMatches { component };
    for (text, want) in [
        ("dst 198.51.100.0/24", Ok(())),
        ("dst 198.51.100.0/24 proto =udp port =53", Ok(())),
        ("dst 198.51.100.0/24 port =53", Ok(())),
        ("dst 198.51.100.0/24 port =53 fragment !~is", Ok(())),
        ("dst 198.51.100.0/24 proto =udp fragment ~is", Ok(())),
        ("dst 198.51.100.0/24 tcp-flags =syn", Ok(())),
        ("dst 198.51.100.0/24 proto >5&<18 dport =53", Ok(())),
        ("dst 198.51.100.0/24 icmp-type =8", Ok(())),
        ("dst 2001:db8::/32 proto =icmpv6 icmp-type =128 flow-label =0", Ok(())),
        ("src 198.51.100.0/24", Err(NoDestination)),
        ("ipv4 proto =udp", Err(NoDestination)),
        ("dst 198.51.100.0/24 proto =256", Err(Value { component: "proto", value: 256, largest: 255 })),
        ("dst 198.51.100.0/24 port =65536", Err(Value { component: "port", value: 65536, largest: 65535 })),
        ("dst 198.51.100.0/24 dscp =64", Err(Value { component: "dscp", value: 64, largest: 63 })),
        ("dst ::/0 flow-label =1048576", Err(Value { component: "flow-label", value: 1 << 20, largest: 0xf_ffff })),
        ("dst 198.51.100.0/24 tcp-flags =0x1000", Err(Bits { component: "tcp-flags", bits: 0x1000 })),
        ("dst ::/0 fragment =df", Err(Bits { component: "fragment", bits: 1 })),
        ("dst 198.51.100.0/24 port >10&<10", Err(never("port"))),
        ("dst 198.51.100.0/24 port >10&<11 false", Err(never("port"))),
        ("dst 198.51.100.0/24 length <0", Err(never("length"))),
        ("dst 198.51.100.0/24 port >65535", Err(never("port"))),
        ("dst 198.51.100.0/24 tcp-flags =syn&!=syn", Err(never("tcp-flags"))),
        ("dst 198.51.100.0/24 tcp-flags ~0", Err(never("tcp-flags"))),
        ("dst 198.51.100.0/24 proto =icmp port =53", Err(Protocols)),
        ("dst 198.51.100.0/24 proto =udp tcp-flags =syn", Err(Protocols)),
        ("dst 198.51.100.0/24 proto =tcp icmp-type =8", Err(Protocols)),
        ("dst 198.51.100.0/24 port =53 icmp-type =8", Err(Protocols)),
        ("dst ::/0 proto =icmp icmp-type =8", Err(Protocols)),
        ("dst 198.51.100.0/24 port =53 fragment =is", Err(Fragments)),
        ("dst 198.51.100.0/24 tcp-flags =syn fragment =last", Err(Fragments)),
    ] {
        assert_eq!(rule(text).validate(), want, "{text}");
    }
    let terms = vec![];
    let empty = Component::Numeric { field: NumericField::Port, terms };
    let flow = FlowSpec { components: vec![empty.clone()], ..rule("dst 198.51.100.0/24") };
    assert_eq!(flow.validate(), Err(NoTerms { component: "port" }));
    let mut flow = rule("dst 198.51.100.0/24 port =53");
    flow.components.reverse();
    assert_eq!(flow.validate(), Err(Order { first: "port", second: "dst" }));
    let prefix = "198.51.100.0/24".parse().expect("a prefix");
    flow.components = vec![Component::Destination { prefix, offset: 8 }];
    assert_eq!(flow.validate(), Err(Offset { prefix, offset: 8 }));
    flow.components.clear();
    assert_eq!(flow.validate(), Err(Empty));
}

#[test]
fn actions() {
    for (octets, text, action) in [
        ([0x80, 6, 0, 0, 0, 0, 0, 0], "discard", Action::DISCARD),
        ([0x80, 6, 0, 0, 0x46, 0x16, 0, 0], "rate-bytes 9600", Action::RateBytes { asn: 0, rate: 9600.0 }),
        (
            [0x80, 6, 0xfd, 0xe8, 0x4e, 0x95, 0x02, 0xf9],
            "rate-bytes 1250000000 as 65000",
            Action::RateBytes { asn: 65000, rate: 1.25e9 },
        ),
        ([0x80, 6, 0, 1, 0, 0, 0, 0], "rate-bytes 0 as 1", Action::RateBytes { asn: 1, rate: 0.0 }),
        ([0x80, 0x0c, 0, 0, 0x44, 0x7a, 0, 0], "rate-packets 1000", Action::RatePackets { asn: 0, rate: 1000.0 }),
        ([0x80, 0x0c, 0, 0, 0, 0, 0, 0], "rate-packets 0", Action::RatePackets { asn: 0, rate: 0.0 }),
        ([0x80, 7, 0, 0, 0, 0, 0, 0], "last", Action::Traffic { sample: false, continues: false }),
        ([0x80, 7, 0, 0, 0, 0, 0, 1], "continue", Action::Traffic { sample: false, continues: true }),
        ([0x80, 7, 0, 0, 0, 0, 0, 2], "sample last", Action::Traffic { sample: true, continues: false }),
        ([0x80, 7, 0, 0, 0, 0, 0, 3], "sample continue", Action::Traffic { sample: true, continues: true }),
        ([0x80, 8, 0xfd, 0xe9, 0, 0, 0, 0x77], "redirect 65001:119", Action::Redirect { asn: 65001, value: 119 }),
        (
            [0x81, 8, 192, 0, 2, 1, 0, 5],
            "redirect 192.0.2.1:5",
            Action::RedirectIpv4 { address: [192, 0, 2, 1].into(), value: 5 },
        ),
        ([0x82, 8, 0, 1, 0x11, 0x70, 0, 5], "redirect 70000L:5", Action::RedirectAs4 { asn: Asn(70000), value: 5 }),
        ([0x80, 9, 0, 0, 0, 0, 0, 46], "mark 46", Action::Marking { dscp: 46 }),
        ([0, 2, 0, 1, 0, 0, 0, 1], "0x0002000100000001", Action::Other([0, 2, 0, 1, 0, 0, 0, 1])),
        ([8, 0, 0, 0, 0, 0, 0, 1], "0x0800000000000001", Action::Other([8, 0, 0, 0, 0, 0, 0, 1])),
    ] {
        assert_eq!(Action::from_community(octets), action, "{text}");
        assert_eq!(action.community(), octets, "{text}");
        assert_eq!(action.to_string(), text);
        assert_eq!(text.parse(), Ok(action));
    }
    // Negative rates are 0 (RFC 8955 §7.1), what is not a number too; reserved bits mean nothing.
    for rate in [f32::NAN, -1.0, f32::NEG_INFINITY, -0.0] {
        let [c, d, e, f] = rate.to_be_bytes();
        assert_eq!(Action::from_community([0x80, 6, 0, 0, c, d, e, f]), Action::DISCARD);
        assert_eq!(Action::RateBytes { asn: 0, rate }.community(), Action::DISCARD.community());
    }
    assert_eq!(Action::from_community([0x80, 9, 1, 2, 3, 4, 5, 0xff]), Action::Marking { dscp: 63 });
    assert_eq!("redirect 70000:5".parse(), Ok(Action::RedirectAs4 { asn: Asn(70000), value: 5 }));
    assert_eq!("redirect 1L:5".parse(), Ok(Action::RedirectAs4 { asn: Asn(1), value: 5 }));
    assert_eq!("sample".parse(), Ok(Action::Traffic { sample: true, continues: false }));
    for (text, want) in [
        ("", "\"\" is no action: discard, rate-bytes N"),
        ("drop", "\"drop\" is no action"),
        ("discard now", "\"discard now\" is no action"),
        ("rate-bytes", "rate-bytes \"\": octets each second belongs here"),
        ("rate-bytes -1", "rate-bytes \"-1\""),
        ("rate-packets nan", "rate-packets \"nan\""),
        ("rate-packets 1 as 70000", "rate-packets \"1 as 70000\""),
        ("redirect 65001", "redirect \"65001\": a route target like 65000:1"),
        ("redirect 192.0.2.1:70000", "redirect"),
        ("redirect 70000:70000", "redirect"),
        ("mark 64", "mark \"64\": a DSCP from 0 to 63"),
        ("0x00", "is no action"),
    ] {
        let error = text.parse::<Action>().unwrap_err().to_string();
        assert!(error.contains(want), "{text}: {error}");
    }
}
