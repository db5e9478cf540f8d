use super::*;
use crate::service::{Service, Upstream};

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

/// Two upstreams, a level of their own at one of them, and three steps of shedding.
fn laddered() -> Service {
    let text = r#"
[service]
name = "r"
asn = 64500
prefixes = ["198.51.100.0/24", "2001:db8:53::/48"]
addresses = ["198.51.100.1", "2001:db8:53::1"]
[level.degraded]
prepend = 3
communities = ["64500:7"]
[[shed]]
upstreams = ["transit"]
prepend = 2
[[shed]]
upstreams = [64502]
withdraw = true
[[shed]]
blackhole = true
more-specifics = ["198.51.100.0/25", "2001:db8:53::/49"]
[[check]]
kind = "process"
process = "nsd"
[[site]]
name = "a"
location = "AMS"
[[site.upstream]]
asn = 64501
address = "192.0.2.1"
prepend = 1
med = 7
[[site.upstream]]
asn = 64502
address = "192.0.2.2"
relation = "peer"
degraded = { med = 100 }
failed = { prepend = 15 }
"#;
    let parsed = Service::parse("s.toml", text.as_bytes());
    parsed.value.unwrap_or_else(|| panic!("{:#?}", parsed.diagnostics))
}

/// `prefix prepend med communities large`, of each announcement.
fn told(service: &Service, upstream: usize, stance: Stance) -> Vec<String> {
    let line = |a: Announcement| {
        let communities: Vec<String> = a.communities.iter().map(ToString::to_string).collect();
        let large: Vec<String> = a.large_communities.iter().map(ToString::to_string).collect();
        let med = a.med.map_or("-".to_owned(), |med| med.to_string());
        format!("{} +{} {med} [{}] [{}]", a.prefix, a.prepend, communities.join(" "), large.join(" "))
    };
    announcements(service, &service.sites[0].upstreams[upstream], &stance).into_iter().map(line).collect()
}

#[test]
fn levels_add_to_what_an_upstream_is_told() {
    let service = laddered();
    let at = |upstream, level| told(&service, upstream, Stance::at(level));
    assert_eq!(at(0, Level::Healthy), ["198.51.100.0/24 +1 7 [] []"]);
    assert_eq!(at(0, Level::Degraded), ["198.51.100.0/24 +4 7 [64500:7] []"]);
    assert_eq!(at(0, Level::Failed), [""; 0], "a failed site withdraws unless the file says otherwise");
    assert_eq!(at(1, Level::Degraded), ["198.51.100.0/24 +0 100 [] []"], "its own word replaces the service's");
    assert_eq!(at(1, Level::Failed), ["198.51.100.0/24 +15 - [] []"]);
    assert!(!is_silent(&service, &service.sites[0], &Stance::at(Level::Failed)), "one of them still hears of it");
}

#[test]
fn steps_of_shedding_add_up() {
    let service = laddered();
    let shed = |upstream, shed| told(&service, upstream, Stance { shed, ..Stance::HEALTHY });
    assert_eq!(shed(0, 1), ["198.51.100.0/24 +3 7 [] []"]);
    assert_eq!(shed(1, 1), ["198.51.100.0/24 +0 - [] []"], "peers are not concerned");
    assert_eq!(shed(1, 2), [""; 0]);
    let all =
        ["198.51.100.0/24 +3 7 [] []", "198.51.100.0/25 +3 7 [] []", "198.51.100.1/32 +3 7 [65535:666 65535:65281] []"];
    assert_eq!(shed(0, 3), all, "only prefixes of the session's family");
    assert_eq!(shed(0, u8::MAX), all, "there are no more steps");
    assert!(!is_silent(&service, &service.sites[0], &Stance { shed: 3, ..Stance::HEALTHY }));
}

#[test]
fn a_last_resort_speaks_and_says_what_it_is() {
    let service = laddered();
    let resort = Stance { last_resort: true, ..Stance::at(Level::Failed) };
    assert_eq!(told(&service, 0, resort), ["198.51.100.0/24 +4 7 [64500:7 65535:0] [64500:0:911]"]);
    assert_eq!(told(&service, 1, resort), ["198.51.100.0/24 +15 100 [65535:0] [64500:0:911]"]);
    assert_eq!(told(&service, 1, Stance { shed: 2, ..resort }), [""; 0], "what load has taken away stays away");
    let leaving = Stance { leaving: true, ..Stance::HEALTHY };
    assert_eq!(told(&service, 0, leaving), ["198.51.100.0/24 +1 7 [65535:0] []"]);
    assert_eq!(format!("{resort}; {leaving}"), "failed, as last resort; healthy, leaving");
}

#[test]
fn prepends_end_at_what_routers_take() {
    let service = laddered();
    let resort = Stance { shed: 1, last_resort: true, ..Stance::at(Level::Failed) };
    let upstream = Upstream { prepend: 14, ..service.sites[0].upstreams[0].clone() };
    assert_eq!(announcements(&service, &upstream, &resort)[0].prepend, 16);
}
