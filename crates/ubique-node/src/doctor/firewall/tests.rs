use serde_json::json;

use super::*;

fn packet(protocol: &'static str, port: u16, from: Option<&str>) -> Packet {
    let from: Option<IpAddr> = from.map(|from| from.parse().unwrap());
    let v6 = from.is_some_and(|from| from.is_ipv6());
    Packet { protocol, port, from, to: None, interface: Some("eth0".into()), v6 }
}

fn bgp() -> Packet {
    packet("tcp", 179, Some("192.0.2.1"))
}

fn base(policy: &str) -> Value {
    json!({"chain": {"family": "inet", "table": "filter", "name": "input", "type": "filter", "hook": "input", "policy": policy}})
}

fn rule(chain: &str, expr: Value) -> Value {
    json!({"rule": {"family": "inet", "table": "filter", "chain": chain, "handle": 7, "expr": expr}})
}

fn dport(port: Value) -> Value {
    json!({"match": {"op": "==", "left": {"payload": {"protocol": "tcp", "field": "dport"}}, "right": port}})
}

fn established() -> Value {
    json!([{"match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": ["established", "related"]}}, {"accept": null}])
}

fn judge(objects: Vec<Value>, packet: &Packet) -> Fate {
    fate(&json!({ "nftables": objects }), packet)
}

fn dropped() -> Fate {
    Fate::Dropped("rule 7 of chain input in table inet filter".into())
}

#[test]
fn policies_and_rules_as_the_kernel_has_them() {
    let by_policy = Fate::Dropped("the policy of chain input in table inet filter".into());
    assert_eq!(judge(vec![], &bgp()), Fate::Passes);
    assert_eq!(judge(vec![base("accept")], &bgp()), Fate::Passes);
    assert_eq!(judge(vec![base("drop"), rule("input", established())], &bgp()), by_policy);
    let opened = |right| vec![base("drop"), rule("input", json!([dport(right), {"counter": {}}, {"accept": null}]))];
    assert_eq!(judge(opened(json!(179)), &bgp()), Fate::Passes);
    assert_eq!(judge(opened(json!({"set": [22, {"range": [170, 180]}]})), &bgp()), Fate::Passes);
    assert_eq!(judge(opened(json!({"set": [22, 80]})), &bgp()), by_policy);
    assert_eq!(judge(opened(json!(179)), &packet("udp", 179, None)), by_policy, "another protocol");
    // A named set cannot be looked into: it may let BGP in.
    assert!(matches!(judge(opened(json!("@ports")), &bgp()), Fate::Perhaps(_)));
    let closed = |right| vec![base("accept"), rule("input", json!([dport(right), {"reject": {}}]))];
    assert_eq!(judge(closed(json!(179)), &bgp()), dropped());
    assert_eq!(judge(closed(json!(80)), &bgp()), Fate::Passes);
    assert!(matches!(judge(closed(json!("@ports")), &bgp()), Fate::Perhaps(_)));
}

#[test]
fn addresses_interfaces_and_protocols() {
    let one = |left: Value, op: &str, right: Value| {
        let ask = json!({"match": {"op": op, "left": left, "right": right}});
        judge(vec![base("accept"), rule("input", json!([ask, {"drop": null}]))], &bgp())
    };
    let saddr = || json!({"payload": {"protocol": "ip", "field": "saddr"}});
    let net = json!({"prefix": {"addr": "192.0.2.0", "len": 24}});
    assert_eq!(one(saddr(), "==", net.clone()), dropped());
    assert_eq!(one(saddr(), "!=", net), Fate::Passes);
    assert_eq!(one(saddr(), "==", json!({"range": ["192.0.2.2", "192.0.2.9"]})), Fate::Passes);
    assert_eq!(one(saddr(), "==", json!({"set": ["192.0.2.1"]})), dropped());
    assert_eq!(one(json!({"payload": {"protocol": "ip6", "field": "saddr"}}), "==", json!("::1")), Fate::Passes);
    assert_eq!(one(json!({"meta": {"key": "iifname"}}), "==", json!("lo")), Fate::Passes);
    assert_eq!(one(json!({"meta": {"key": "iifname"}}), "==", json!("eth*")), dropped());
    assert_eq!(one(json!({"meta": {"key": "iifname"}}), "!=", json!("lo")), dropped());
    assert_eq!(one(json!({"meta": {"key": "l4proto"}}), "==", json!({"set": ["tcp", "udp"]})), dropped());
    assert_eq!(one(json!({"meta": {"key": "nfproto"}}), "==", json!("ipv6")), Fate::Passes);
    assert!(matches!(one(json!({"meta": {"key": "mark"}}), "==", json!(1)), Fate::Perhaps(_)));
}

#[test]
fn jumps_returns_and_maps() {
    let jump = |kind: &str| rule("input", json!([{kind: {"target": "ours"}}]));
    let back = || rule("ours", json!([dport(json!(179)), {"return": null}]));
    let drop_all = |chain: &str| rule(chain, json!([{"drop": null}]));
    // Returned from a jump: what follows counts. From a goto: the policy does.
    assert_eq!(judge(vec![base("accept"), jump("jump"), back(), drop_all("ours")], &bgp()), Fate::Passes);
    assert_eq!(judge(vec![base("accept"), jump("jump"), drop_all("input"), back()], &bgp()), dropped());
    assert_eq!(judge(vec![base("accept"), jump("goto"), drop_all("input"), back()], &bgp()), Fate::Passes);
    let other = packet("tcp", 80, None);
    let in_ours = Fate::Dropped("rule 7 of chain ours in table inet filter".into());
    assert_eq!(judge(vec![base("accept"), jump("jump"), back(), drop_all("ours")], &other), in_ours);
    // Round in circles, which the kernel does not take: no hang.
    let circle = rule("ours", json!([{"jump": {"target": "ours"}}]));
    assert!(matches!(judge(vec![base("accept"), jump("jump"), circle], &bgp()), Fate::Perhaps(_)));
    let key = json!({"payload": {"protocol": "tcp", "field": "dport"}});
    let map = |verdict: &str| json!([{"vmap": {"key": key, "data": {"set": [[22, {"accept": null}], [179, {verdict: null}]]}}}]);
    assert_eq!(judge(vec![base("accept"), rule("input", map("drop"))], &bgp()), dropped());
    assert_eq!(judge(vec![base("drop"), rule("input", map("accept"))], &bgp()), Fate::Passes);
}

#[test]
fn what_is_not_understood_is_never_certain() {
    let doubtful = || rule("input", json!([{"xt": {"type": "match", "name": "tcp"}}, {"drop": null}]));
    assert!(matches!(judge(vec![base("accept"), doubtful()], &bgp()), Fate::Perhaps(_)));
    let limited = rule("input", json!([{"limit": {"rate": 4}}, {"accept": null}]));
    assert!(matches!(judge(vec![base("drop"), limited], &bgp()), Fate::Perhaps(_)));
    // Nonsense instead of rules.
    for nonsense in [json!(null), json!([1, 2]), json!({"nftables": [{"rule": 1}, {"chain": {}}, 7]})] {
        assert_eq!(fate(&nonsense, &bgp()), Fate::Passes);
    }
    // Chains of nat and those of packets that leave do not count.
    let nat = json!({"chain": {"family": "ip", "table": "nat", "name": "pre", "type": "nat", "hook": "prerouting", "policy": "drop"}});
    let out = json!({"chain": {"family": "ip", "table": "t", "name": "out", "type": "filter", "hook": "output", "policy": "drop"}});
    assert_eq!(judge(vec![nat, out], &bgp()), Fate::Passes);
}
