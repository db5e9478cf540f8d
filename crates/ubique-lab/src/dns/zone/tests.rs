//! The responder's decisions, message by message.

use domain::base::iana::Rcode;
use domain::rdata::AllRecordData;
use proptest::prelude::*;

use super::*;

fn zone() -> Zone {
    let addresses = ["198.51.100.53", "198.51.100.54", "2001:db8:53::53"].map(|a| a.parse().unwrap());
    Zone::new("example.com", "lon", &addresses).unwrap()
}

/// What a query asks with EDNS: payload size, version, NSID.
type Opts = Option<(u16, u8, bool)>;

fn query(name: &str, class: Class, qtype: Rtype, edns: Opts) -> Vec<u8> {
    let mut builder = MessageBuilder::new_vec();
    builder.header_mut().set_id(0x1234);
    builder.header_mut().set_rd(true);
    let mut question = builder.question();
    question.push((Name::<Vec<u8>>::from_str(name).unwrap(), qtype, class)).unwrap();
    let mut additional = question.additional();
    if let Some((size, version, nsid)) = edns {
        additional
            .opt(|opt| {
                opt.set_udp_payload_size(size);
                opt.set_version(version);
                if nsid { opt.client_nsid() } else { Ok(()) }
            })
            .unwrap();
    }
    additional.finish()
}

fn ask_zone(zone: &Zone, query: &[u8], transport: Transport) -> Message<Vec<u8>> {
    Message::from_octets(zone.respond(query, transport).expect("a response")).unwrap()
}

fn ask(name: &str, class: Class, qtype: Rtype, edns: Opts) -> Message<Vec<u8>> {
    let response = ask_zone(&zone(), &query(name, class, qtype, edns), Transport::Udp);
    let header = response.header();
    assert!(header.qr() && header.id() == 0x1234 && header.rd() && !header.ra());
    assert_eq!(response.opt().is_some(), edns.is_some(), "EDNS is answered when used");
    response
}

/// The answer section in presentation format.
fn answers(message: &Message<Vec<u8>>) -> Vec<String> {
    let records = message.answer().unwrap().limit_to::<AllRecordData<_, _>>();
    records.map(|r| r.unwrap()).map(|r| format!("{} {} {} {}", r.owner(), r.class(), r.rtype(), r.data())).collect()
}

fn rcode(message: &Message<Vec<u8>>) -> Rcode {
    message.header().rcode()
}

#[test]
fn every_name_of_the_zone_has_the_service_addresses() {
    for name in ["example.com", "www.example.com", "a.b.c.example.com", "WWW.eXample.Com"] {
        let response = ask(name, Class::IN, Rtype::A, None);
        assert_eq!(answers(&response), [format!("{name} IN A 198.51.100.53"), format!("{name} IN A 198.51.100.54")]);
        assert!(response.header().aa() && !response.header().tc());
        let response = ask(name, Class::IN, Rtype::AAAA, Some((4096, 0, false)));
        assert_eq!(answers(&response), [format!("{name} IN AAAA 2001:db8:53::53")]);
        assert_eq!(answers(&ask(name, Class::IN, Rtype::TXT, None)), [format!("{name} IN TXT \"lon\"")]);
        assert_eq!(answers(&ask(name, Class::IN, Rtype::ANY, None)), [format!("{name} IN TXT \"lon\"")]);
    }
}

#[test]
fn the_apex_has_soa_and_ns() {
    assert!(answers(&ask("example.com", Class::IN, Rtype::SOA, None))[0].contains("SOA ns.example.com"));
    assert!(answers(&ask("example.com", Class::IN, Rtype::NS, None))[0].contains("NS ns.example.com"));
}

#[test]
fn a_type_that_is_not_there_gives_the_soa_as_proof() {
    for (name, qtype) in [("www.example.com", Rtype::MX), ("www.example.com", Rtype::SOA), ("example.com", Rtype::MX)] {
        let response = ask(name, Class::IN, qtype, None);
        assert_eq!((rcode(&response), answers(&response).len()), (Rcode::NOERROR, 0));
        let authority: Vec<_> = response.authority().unwrap().map(|r| r.unwrap()).collect();
        assert_eq!((authority.len(), authority[0].rtype()), (1, Rtype::SOA));
        assert_eq!(authority[0].owner().to_string(), "example.com");
    }
}

#[test]
fn what_is_not_ours_is_refused() {
    for (name, class, qtype) in [
        ("example.org", Class::IN, Rtype::A),
        ("com", Class::IN, Rtype::NS),
        (".", Class::IN, Rtype::NS),
        ("badexample.com", Class::IN, Rtype::A),
        ("example.com", Class::IN, Rtype::AXFR),
        ("example.com", Class::HS, Rtype::A),
        ("example.com", Class::CH, Rtype::TXT),
        ("id.server", Class::CH, Rtype::A),
        ("id.server", Class::IN, Rtype::TXT),
    ] {
        let response = ask(name, class, qtype, None);
        assert_eq!((rcode(&response), answers(&response).len()), (Rcode::REFUSED, 0), "{name} {class} {qtype}");
        assert!(!response.header().aa());
    }
}

#[test]
fn the_site_tells_its_name() {
    for name in ["id.server", "hostname.bind", "ID.Server", "HOSTNAME.BIND"] {
        assert_eq!(answers(&ask(name, Class::CH, Rtype::TXT, None)), [format!("{name} CH TXT \"lon\"")]);
    }
    assert!(answers(&ask("version.bind", Class::CH, Rtype::TXT, None))[0].contains("ubique"));
    let nsid = |edns| {
        let response = ask("www.example.com", Class::IN, Rtype::A, edns);
        response.opt().and_then(|o| o.opt().nsid().map(|n| n.as_slice().to_vec()))
    };
    assert_eq!(nsid(Some((1232, 0, true))), Some(b"lon".to_vec()));
    assert_eq!(nsid(Some((1232, 0, false))), None, "NSID only when asked (RFC 5001)");
}

#[test]
fn an_unknown_edns_version_is_badvers() {
    let response = ask("www.example.com", Class::IN, Rtype::A, Some((1232, 1, false)));
    let opt = response.opt().unwrap();
    assert_eq!(opt.rcode(response.header()), OptRcode::BADVERS);
    assert_eq!((opt.version(), answers(&response).len()), (0, 0));
}

#[test]
fn what_does_not_fit_is_truncated_over_udp_only() {
    let many: Vec<IpAddr> = (0..100u8).map(|i| [198, 51, 100, i].into()).collect();
    let zone = Zone::new("example.com", "lon", &many).unwrap();
    for (edns, fits) in
        [(None, 512), (Some((100, 0, true)), 512), (Some((1000, 0, false)), 1000), (Some((65535, 0, true)), 1232)]
    {
        let query = query("www.example.com", Class::IN, Rtype::A, edns);
        let response = ask_zone(&zone, &query, Transport::Udp);
        assert!(response.header().tc() && response.as_slice().len() <= fits, "{edns:?}");
        assert_eq!((answers(&response).len(), response.opt().is_some()), (0, edns.is_some()));
        let response = ask_zone(&zone, &query, Transport::Tcp);
        assert!(!response.header().tc());
        assert_eq!(answers(&response).len(), 100);
    }
    let twenty = Zone::new("example.com", "lon", &many[..40]).unwrap();
    let large = query("www.example.com", Class::IN, Rtype::A, Some((1232, 0, false)));
    assert!(!ask_zone(&twenty, &large, Transport::Udp).header().tc());
    let small = query("www.example.com", Class::IN, Rtype::A, None);
    assert!(ask_zone(&twenty, &small, Transport::Udp).header().tc());
}

#[test]
fn wrong_messages_get_the_right_error_or_none() {
    let zone = zone();
    let good = query("www.example.com", Class::IN, Rtype::A, Some((1232, 0, false)));
    let code =
        |bytes: &[u8]| zone.respond(bytes, Transport::Udp).map(|r| Message::from_octets(r).unwrap().header().rcode());
    let changed = |place: usize, value: u8| {
        let mut bytes = good.clone();
        bytes[place] = value;
        code(&bytes)
    };
    assert_eq!(code(&good), Some(Rcode::NOERROR));
    assert_eq!(code(&good[..11]), None, "shorter than a header");
    assert_eq!(changed(2, 0x81), None, "a response");
    for opcode in [1u8, 2, 4, 5, 6, 15] {
        assert_eq!(changed(2, opcode << 3), Some(Rcode::NOTIMP), "opcode {opcode}");
    }
    assert_eq!(changed(5, 0), Some(Rcode::FORMERR), "no question");
    assert_eq!(changed(5, 2), Some(Rcode::FORMERR), "two questions");
    assert_eq!(changed(7, 1), Some(Rcode::FORMERR), "an answer that is not there");
    assert_eq!(changed(11, 2), Some(Rcode::FORMERR), "an additional record that is not there");
    assert_eq!(changed(12, 0xC0), Some(Rcode::FORMERR), "a compression loop or a wild pointer");
    let opt = &good[good.len() - 11..];
    let mut two = [&good[..], opt].concat();
    two[11] = 2;
    assert_eq!(code(&two), Some(Rcode::FORMERR), "two OPT records (RFC 6891 section 6.1.1)");
    for end in 12..good.len() {
        assert_eq!(code(&good[..end]), Some(Rcode::FORMERR), "cut at {end}");
    }
}

#[test]
fn bad_options_are_refused() {
    assert!(matches!(Zone::new("a..b", "lon", &[]), Err(DnsError::Zone(_))));
    assert!(matches!(Zone::new(&"a.".repeat(126), "lon", &[]), Err(DnsError::Zone(_))));
    assert!(matches!(Zone::new("example.com", &"x".repeat(256), &[]), Err(DnsError::Site(_))));
    assert!(Zone::new("example.com.", &"x".repeat(255), &[]).is_ok());
}

proptest! {
    #[test]
    fn garbage_never_panics_and_a_response_is_never_answered(
        mut bytes in proptest::collection::vec(any::<u8>(), 0..600),
        tcp: bool,
    ) {
        let transport = if tcp { Transport::Tcp } else { Transport::Udp };
        let response = zone().respond(&bytes, transport);
        if let Some(response) = &response {
            prop_assert_eq!(&response[..2], &bytes[..2]);
            prop_assert!(response.len() <= 1232 || tcp);
        }
        if let Some(flags) = bytes.get_mut(2) {
            *flags |= 0x80;
            prop_assert_eq!(zone().respond(&bytes, transport), None);
        }
    }

    #[test]
    fn a_damaged_query_gets_a_message_or_nothing(
        place in 0usize..60, value: u8, cut in 0usize..60, nsid: bool, size: u16,
    ) {
        let mut bytes = query("www.example.com", Class::IN, Rtype::A, Some((size, 0, nsid)));
        let length = bytes.len();
        bytes[place % length] = value;
        bytes.truncate(length.saturating_sub(cut / 2));
        if let Some(response) = zone().respond(&bytes, Transport::Udp) {
            let message = Message::from_octets(response).unwrap();
            prop_assert!(message.header().qr());
            for section in [message.answer(), message.authority(), message.additional()] {
                prop_assert!(section.unwrap().all(|r| r.is_ok()));
            }
        }
    }
}
