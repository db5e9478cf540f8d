use super::*;
use crate::service::Service;

const ALL: [Relation; 5] =
    [Relation::Transit, Relation::Peer, Relation::RouteServer, Relation::Internal, Relation::Customer];

#[test]
fn customers_are_preferred_to_peers_and_those_to_transit() {
    assert!(local_preference(Relation::Customer) > local_preference(Relation::Peer));
    assert_eq!(local_preference(Relation::Peer), local_preference(Relation::RouteServer));
    assert!(local_preference(Relation::Peer) > local_preference(Relation::Transit));
}

#[test]
fn export_is_valley_free() {
    for to in ALL {
        assert!(exports(None, to), "own routes go to {to}");
        assert!(exports(Some(Relation::Customer), to), "customer routes go to {to}");
    }
    for from in [Relation::Transit, Relation::Peer, Relation::RouteServer, Relation::Internal] {
        for to in ALL {
            assert_eq!(exports(Some(from), to), to == Relation::Customer, "{from} to {to}");
        }
    }
}

#[test]
fn announcements_follow_the_session_family_and_are_normal() {
    let text = br#"
[service]
name = "r"
asn = 64500
prefixes = ["198.51.100.0/24", "2001:db8:53::/48", "203.0.113.0/24"]
addresses = ["198.51.100.1", "2001:db8:53::1", "203.0.113.1"]
[[check]]
kind = "process"
process = "nsd"
[[site]]
name = "a"
location = "AMS"
[[site.upstream]]
asn = 64501
address = "192.0.2.1"
communities = ["64500:9", "64500:1", "64500:9"]
large-communities = ["64500:2:1", "64500:1:2"]
prepend = 2
med = 7
[[site.upstream]]
asn = 64501
address = "2001:db8::1"
"#;
    let service = Service::parse("s.toml", text).value.unwrap();
    let [v4, v6] = &service.sites[0].upstreams[..] else { panic!() };
    let sent = announcements(&service, v4, &Stance::HEALTHY);
    let prefixes: Vec<String> = sent.iter().map(|a| a.prefix.to_string()).collect();
    assert_eq!(prefixes, ["198.51.100.0/24", "203.0.113.0/24"]);
    assert_eq!(sent[0].communities, ["64500:1".parse().unwrap(), "64500:9".parse().unwrap()]);
    assert_eq!(sent[0].large_communities, [LargeCommunity([64500, 1, 2]), LargeCommunity([64500, 2, 1])]);
    assert_eq!((sent[0].prepend, sent[0].med), (2, Some(7)));
    let sent = announcements(&service, v6, &Stance::HEALTHY);
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0].prefix.to_string(), "2001:db8:53::/48");
    assert_eq!((sent[0].prepend, sent[0].med), (0, None));
}

#[test]
fn a_session_of_several_families_gets_the_prefixes_of_all() {
    let text = include_str!("../../tests/files/service.toml");
    let service = Service::parse("s.toml", text.as_bytes()).value.unwrap();
    let sent = announcements(&service, &service.sites[0].upstreams[1], &Stance::HEALTHY);
    let prefixes: Vec<String> = sent.iter().map(|a| a.prefix.to_string()).collect();
    assert_eq!(prefixes, ["198.51.100.0/24", "2001:db8:53::/48"]);
    assert_eq!(sent[0].communities, [Community::BLACKHOLE, Community::NO_EXPORT]);
    let extended: Vec<String> = sent[0].extended_communities.iter().map(ToString::to_string).collect();
    assert_eq!(extended, ["rt:64500:1", "ro:192.0.2.1:7", "0x8006000000000000"]);
}
