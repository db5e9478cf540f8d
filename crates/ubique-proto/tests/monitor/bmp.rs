use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use ubique_model::Asn;
use ubique_proto::bgp::attributes::{AsPath, Attributes, NextHop};
use ubique_proto::bgp::family::{AddressFamilies, AddressFamily};
use ubique_proto::bgp::message::{Capability, Nlri, Notification, Open};
use ubique_proto::bgp::wire::{self, EncodeContext, MAX_MESSAGE};
use ubique_proto::bmp::{
    DownReason, Message, Peer, Statistic, Tlv, decode, encode, flag, information, length, statistic,
};

use crate::{Scratch, pcap, printed};

/// The port tshark is told to expect BMP on.
const PORT: u16 = 11019;

fn encoded(message: &Message) -> Vec<u8> {
    let mut octets = vec![];
    encode(message, &mut octets);
    octets
}

fn peer(address: &str, flags: u8) -> Peer {
    Peer {
        kind: 0,
        flags,
        distinguisher: 0,
        address: address.parse().unwrap(),
        asn: Asn(4_200_000_001),
        router_id: Ipv4Addr::new(192, 0, 2, 9),
        seconds: 1_795_248_930,
        microseconds: 123_456,
    }
}

fn open(asn: u32) -> Vec<u8> {
    let capabilities = vec![Capability::Multiprotocol(AddressFamily::Ipv4Unicast), Capability::FourOctetAs(Asn(asn))];
    let mut out = vec![];
    wire::encode_open(
        &Open { asn: Asn(asn), hold_time_s: 9, router_id: [192, 0, 2, 1].into(), capabilities },
        &mut out,
    );
    out
}

fn update(prefix: &str, next_hop: &str) -> Vec<u8> {
    let context = EncodeContext {
        four_octet_as: true,
        external: true,
        add_path: AddressFamilies::NONE,
        extended_next_hop: AddressFamilies::NONE,
        max_message: MAX_MESSAGE,
    };
    let attributes =
        Attributes { as_path: AsPath::sequence([Asn(64501), Asn(4_200_000_001)]), ..Attributes::originated() };
    let next_hop = match next_hop.parse().unwrap() {
        IpAddr::V4(a) => NextHop::V4(a),
        IpAddr::V6(global) => NextHop::V6 { global, link_local: None },
    };
    let mut out = vec![];
    let routes = [Nlri::from(prefix.parse::<ubique_model::Prefix>().unwrap())];
    wire::encode_updates(&[], Some((&attributes, next_hop, &routes)), &context, &mut out).unwrap();
    out
}

fn notification() -> Vec<u8> {
    let mut out = vec![];
    wire::encode_notification(&Notification::with_data(6, 2, b"\x07drained".to_vec()), &mut out);
    out
}

/// One of each that ubique sends.
fn ours() -> Vec<Message> {
    let (v4, v6) = ("192.0.2.1", "2001:db8::1");
    let up = |address: &str, local: &str| Message::PeerUp {
        peer: peer(address, 0),
        local: local.parse().unwrap(),
        local_port: 40_001,
        remote_port: 179,
        sent_open: open(64500),
        received_open: open(4_200_000_001),
        information: vec![],
    };
    let monitoring = |address: &str, flags, prefix: &str, hop: &str| Message::RouteMonitoring {
        peer: peer(address, flags),
        update: update(prefix, hop),
    };
    vec![
        Message::Initiation(vec![
            Tlv::text(information::SYS_DESCR, "ubique 0.1.0"),
            Tlv::text(information::SYS_NAME, "resolver-ams"),
        ]),
        up(v4, "192.0.2.2"),
        up(v6, "2001:db8::2"),
        monitoring(v4, 0, "203.0.113.0/24", "192.0.2.1"),
        monitoring(v6, 0, "2001:db8:113::/48", "2001:db8::1"),
        monitoring(v4, flag::ADJ_RIB_OUT | flag::POST_POLICY, "198.51.100.0/24", "192.0.2.2"),
        Message::StatisticsReport {
            peer: peer(v4, 0),
            statistics: vec![
                Statistic::Gauge(statistic::ADJ_RIB_IN, 7),
                Statistic::Counter(statistic::TREATED_AS_WITHDRAW, 3),
                Statistic::Gauge(statistic::ADJ_RIB_OUT_POST_POLICY, 2),
            ],
        },
        Message::PeerDown { peer: peer(v4, 0), reason: DownReason::LocalNotification(notification()) },
        Message::PeerDown { peer: peer(v4, 0), reason: DownReason::LocalClosed(18) },
        Message::PeerDown { peer: peer(v6, 0), reason: DownReason::RemoteNotification(notification()) },
        Message::PeerDown { peer: peer(v6, 0), reason: DownReason::RemoteClosed },
        Message::PeerDown { peer: peer(v6, 0), reason: DownReason::NotMonitored },
        Message::Termination(vec![Tlv {
            kind: information::REASON,
            value: information::ADMINISTRATIVELY_CLOSED.to_be_bytes().to_vec(),
        }]),
    ]
}

#[test]
fn tshark_reads_what_we_write() {
    let messages: Vec<Vec<u8>> = ours().iter().map(encoded).collect();
    let file = Scratch::new("bmp.pcap", &pcap::capture(PORT, &messages));
    let fields = [
        "bmp.type",
        "bmp.peer.ip.addr",
        "bmp.peer.ipv6.addr",
        "bmp.peer.asn",
        "bmp.peer.flags.adj_rib_out",
        "bmp.peer.flags.post_policy",
        "bmp.peer.timestamp.sec",
        "bmp.peer.up.port.local",
        "bmp.peer.down.reason",
        "bmp.init.info",
        "bmp.stats.data.routes_adj_rib_in",
        "bmp.stats.data.update_treat",
        "bmp.stats.data.routes_post_adj_rib_out",
        "bgp.type",
        "bgp.nlri_prefix",
        "bgp.prefix_length",
        "bgp.mp_reach_nlri_ipv6_prefix",
        "bgp.update.path_attribute.as_path_segment.as4",
        "bgp.notify.minor_error_cease",
        "_ws.malformed",
    ];
    let (decode_as, path) = (format!("tcp.port=={PORT},bmp"), file.0.to_str().unwrap().to_owned());
    let mut arguments =
        vec!["-r", &path, "-d", &decode_as, "-T", "fields", "-E", "separator=;", "-o", "tcp.check_checksum:FALSE"];
    fields.iter().for_each(|field| arguments.extend(["-e", field]));
    let Some(text) = printed("tshark", &arguments) else { return };
    let rows: Vec<Vec<&str>> = text.lines().map(|line| line.split(';').collect()).collect();
    let at = |row: usize, field: &str| rows[row][fields.iter().position(|f| *f == field).unwrap()];
    assert_eq!(rows.len(), messages.len(), "{text}");
    let types: Vec<&str> = (0..rows.len()).map(|row| at(row, "bmp.type")).collect();
    assert_eq!(types, ["4", "3", "3", "0", "0", "0", "1", "2", "2", "2", "2", "2", "5"], "{text}");
    assert!((0..rows.len()).all(|row| at(row, "_ws.malformed").is_empty()), "{text}");
    assert_eq!(at(0, "bmp.init.info"), "ubique 0.1.0,resolver-ams");
    assert_eq!((at(1, "bmp.peer.ip.addr"), at(2, "bmp.peer.ipv6.addr")), ("192.0.2.1", "2001:db8::1"));
    assert_eq!((at(1, "bmp.peer.asn"), at(1, "bmp.peer.up.port.local")), ("4200000001", "40001"));
    assert_eq!(at(1, "bmp.peer.timestamp.sec"), "1795248930");
    assert_eq!(at(1, "bgp.type"), "1,1", "two OPENs");
    assert!(at(3, "bgp.nlri_prefix").starts_with("203.0.113.0"), "{text}");
    assert_eq!(at(3, "bgp.update.path_attribute.as_path_segment.as4"), "64501,4200000001");
    assert!(at(4, "bgp.mp_reach_nlri_ipv6_prefix").starts_with("2001:db8:113::"), "{text}");
    let flags = |row| (at(row, "bmp.peer.flags.adj_rib_out"), at(row, "bmp.peer.flags.post_policy"));
    assert_eq!((flags(3), flags(5)), (("0", "0"), ("1", "1")));
    assert_eq!(at(6, "bmp.stats.data.routes_adj_rib_in"), "7");
    assert_eq!(at(6, "bmp.stats.data.update_treat"), "3");
    assert_eq!(at(6, "bmp.stats.data.routes_post_adj_rib_out"), "2");
    let reasons: Vec<&str> = (7..12).map(|row| at(row, "bmp.peer.down.reason")).collect();
    assert_eq!(reasons, ["1", "2", "3", "4", "5"]);
    assert_eq!((at(7, "bgp.notify.minor_error_cease"), at(9, "bgp.notify.minor_error_cease")), ("2", "2"));
}

#[test]
fn what_we_write_reads_back() {
    for message in ours() {
        let octets = encoded(&message);
        assert_eq!(length(&octets), Ok(Some(octets.len())));
        assert_eq!(decode(&octets).as_ref(), Ok(&message));
        for cut in 0..octets.len() {
            assert!(decode(&octets[..cut]).is_err(), "{message:?} cut at {cut}");
        }
    }
}

/// The messages of a stream of version 3, up to what is not one.
fn messages(mut stream: &[u8]) -> Vec<&[u8]> {
    let mut messages = vec![];
    while let Ok(Some(octets)) = length(stream) {
        let Some((message, rest)) = stream.split_at_checked(octets) else { break };
        messages.push(message);
        stream = rest;
    }
    messages
}

#[test]
fn vendors_messages_read_and_write_back_to_the_same_octets() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/badinput/netgauze-pcap");
    let Ok(entries) = std::fs::read_dir(&folder) else {
        eprintln!("skipped: no shared data at {}", folder.display());
        return;
    };
    let mut kinds = [0; 7];
    for path in entries.map(|entry| entry.unwrap().path()).filter(|path| path.extension().is_some_and(|e| e == "pcap"))
    {
        for stream in pcap::streams(&std::fs::read(&path).unwrap()) {
            for octets in messages(&stream) {
                let message = decode(octets).unwrap_or_else(|fault| panic!("{}: {fault}: {octets:x?}", path.display()));
                assert_eq!(encoded(&message), octets, "{}", path.display());
                kinds[usize::from(octets[5])] += 1;
            }
        }
    }
    println!("messages of each type: {kinds:?}");
    assert_eq!(kinds, [2136, 161, 7, 273, 16, 0, 0], "as many as tshark counts");
}

#[test]
fn changed_octets_never_panic() {
    let mut state = 1u64;
    let mut random = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize
    };
    let originals: Vec<Vec<u8>> = ours().iter().map(encoded).collect();
    for _ in 0..20_000 {
        let mut octets = originals[random() % originals.len()].clone();
        for _ in 0..1 + random() % 4 {
            let at = random() % octets.len();
            octets[at] = random() as u8;
        }
        octets.truncate(1 + random() % octets.len());
        let total = (octets.len() as u32).to_be_bytes();
        if octets.len() >= 6 && random() % 2 == 0 {
            octets[1..5].copy_from_slice(&total);
        }
        if let Ok(message) = decode(&octets) {
            assert_eq!(decode(&encoded(&message)), Ok(message));
        }
    }
}
