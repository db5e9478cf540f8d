use super::*;

#[test]
fn communities_parse_and_print() {
    assert_eq!("64500:100".parse::<Community>().unwrap(), Community(0xFBF4_0064));
    assert_eq!(Community::NO_EXPORT.to_string(), "65535:65281");
    assert_eq!(Community::GRACEFUL_SHUTDOWN.to_string(), "65535:0");
    for bad in ["", "1", "1:", ":1", "65536:1", "1:65536", "1:2:3", "-1:2", "a:b", "1 :2"] {
        assert!(bad.parse::<Community>().is_err(), "{bad}");
    }
    assert_eq!("4294967295:0:1".parse::<LargeCommunity>().unwrap(), LargeCommunity([u32::MAX, 0, 1]));
    for bad in ["", "1:2", "1:2:3:4", "4294967296:0:0", "1::2", "a:b:c"] {
        assert!(bad.parse::<LargeCommunity>().is_err(), "{bad}");
    }
}

#[test]
fn json_forms() {
    let community = "64500:1".parse::<Community>().unwrap();
    assert_eq!(serde_json::to_value(community).unwrap(), "64500:1");
    assert_eq!(serde_json::from_value::<Community>("64500:1".into()).unwrap(), community);
    assert!(serde_json::from_value::<Community>("x".into()).is_err());
    let large = LargeCommunity([1, 2, 3]);
    assert_eq!(serde_json::from_value::<LargeCommunity>(serde_json::to_value(large).unwrap()).unwrap(), large);
    assert_eq!(serde_json::to_value(Asn(64500)).unwrap(), 64500);
    assert_eq!(serde_json::to_value(Relation::RouteServer).unwrap(), "route-server");
    assert_eq!(serde_json::to_value(Family::Ipv6).unwrap(), "ipv6");
}

#[test]
fn families() {
    let v4: Prefix = "192.0.2.0/24".parse().unwrap();
    let v6: Prefix = "2001:db8::/32".parse().unwrap();
    assert_eq!([Family::of(&v4), Family::of(&v6)], Family::ALL);
    assert_eq!([Family::of_address(v4.addr()), Family::of_address(v6.addr())], Family::ALL);
    assert_eq!(format!("{} {:?} {}", Asn(1), Asn(1), Family::Ipv4), "1 AS1 ipv4");
}

#[test]
fn relations_print_as_they_are_written() {
    for relation in [Relation::Transit, Relation::Peer, Relation::RouteServer, Relation::Internal, Relation::Customer] {
        assert_eq!(serde_json::to_value(relation).unwrap(), relation.to_string());
    }
}
