//! What the firewall does with a packet: a reader of nftables rules (`nft -j list ruleset`, libnftables-json(5)).
//!
//! A packet is a new connection to a port of ours. The rules of every chain that hooks incoming packets are walked as the
//! kernel walks them, jumps included. What a rule asks of a packet is true, false, or not known to us (sets by name,
//! limits, `xt` matches of iptables): a verdict behind the last is only possible. So the answer is one of three,
//! and only the certain "dropped" is an error. iptables of today's distributions writes nftables rules; the old `iptables-legacy` is not seen.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde_json::Value;

use super::{Case, FirewallFacts, Report, network, sessions};

/// Jumps that the kernel follows (`NFT_JUMP_STACK_SIZE`).
const DEPTH_MAX: usize = 16;

/// Rules looked at for one packet: jumps may visit a chain again and again.
const STEPS_MAX: usize = 20_000;

/// A packet that begins a connection.
#[derive(Clone, Debug)]
pub(super) struct Packet {
    /// `tcp` or `udp`.
    pub(super) protocol: &'static str,
    /// Port it goes to.
    pub(super) port: u16,
    /// Where it comes from; `None`: from anybody.
    pub(super) from: Option<IpAddr>,
    /// Where it goes; `None`: an address of this machine that is not known here.
    pub(super) to: Option<IpAddr>,
    /// Interface it comes in at, when that is known.
    pub(super) interface: Option<String>,
    /// IPv6.
    pub(super) v6: bool,
}

/// What becomes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It gets in.
    Passes,
    /// A rule drops it; which.
    Dropped(String),
    /// Some rule may drop it; which.
    Perhaps(String),
}

/// Whether a rule fits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fit {
    No,
    Perhaps,
    Yes,
}

impl From<bool> for Fit {
    fn from(fits: bool) -> Fit {
        if fits { Fit::Yes } else { Fit::No }
    }
}

/// Where a walk through a chain ended.
enum End {
    /// Nothing in this hook's chain happens to it any more.
    Settled,
    Dropped(String),
    /// At its last rule, or at a `return`.
    Over,
}

type ChainName<'a> = (&'a str, &'a str, &'a str);

/// The rules of a machine.
struct Ruleset<'a> {
    chains: BTreeMap<ChainName<'a>, Vec<&'a Value>>,
    /// Chains that packets enter, with their policy's verdict and hook.
    base: Vec<(ChainName<'a>, bool)>,
}

fn name_of<'a>(object: &'a Value, name: &str) -> Option<ChainName<'a>> {
    Some((object["family"].as_str()?, object["table"].as_str()?, object[name].as_str()?))
}

impl<'a> Ruleset<'a> {
    fn new(rules: &'a Value) -> Ruleset<'a> {
        let mut ruleset = Ruleset { chains: BTreeMap::new(), base: Vec::new() };
        for object in rules["nftables"].as_array().into_iter().flatten() {
            if let Some(chain) = object.get("chain") {
                let incoming = matches!(chain["hook"].as_str(), Some("input" | "prerouting" | "ingress"));
                // Chains of type nat see the first packet, and translate; they are not there to drop.
                if let (Some(name), true, true) = (name_of(chain, "name"), incoming, chain["type"] != "nat") {
                    ruleset.base.push((name, chain["policy"] == "drop"));
                }
            }
            if let Some(rule) = object.get("rule")
                && let Some(chain) = name_of(rule, "chain")
            {
                ruleset.chains.entry(chain).or_default().push(rule);
            }
        }
        ruleset
    }
}

/// A walk of one packet.
struct Walk<'a> {
    ruleset: &'a Ruleset<'a>,
    packet: &'a Packet,
    steps: usize,
    /// In the present base chain some rule may have let it in.
    perhaps_accepted: bool,
    /// The first rule that may drop it.
    perhaps_dropped: Option<String>,
}

/// What becomes of a packet by these rules.
pub(super) fn fate(rules: &Value, packet: &Packet) -> Fate {
    let ruleset = Ruleset::new(rules);
    let mut walk = Walk { ruleset: &ruleset, packet, steps: 0, perhaps_accepted: false, perhaps_dropped: None };
    for (chain, drops) in &ruleset.base {
        let wrong_family = match chain.0 {
            "ip" => packet.v6,
            "ip6" => !packet.v6,
            "inet" | "netdev" => false,
            _ => true,
        };
        if wrong_family {
            continue;
        }
        // What one chain accepts the next one may drop.
        walk.perhaps_accepted = false;
        let policy = || format!("the policy of chain {} in table {} {}", chain.2, chain.0, chain.1);
        match walk.chain(*chain, 0, Fit::Yes) {
            End::Dropped(rule) => return Fate::Dropped(rule),
            End::Over if *drops && !walk.perhaps_accepted => return Fate::Dropped(policy()),
            End::Over if *drops => drop(walk.perhaps_dropped.get_or_insert_with(policy)),
            End::Over | End::Settled => {}
        }
    }
    walk.perhaps_dropped.map_or(Fate::Passes, Fate::Perhaps)
}

impl Walk<'_> {
    /// `certain`: whether the packet gets here at all.
    fn chain(&mut self, name: ChainName<'_>, depth: usize, certain: Fit) -> End {
        let Some(rules) = self.ruleset.chains.get(&name) else {
            return End::Over;
        };
        let mut here = certain;
        for rule in rules {
            self.steps += 1;
            if depth > DEPTH_MAX || self.steps > STEPS_MAX {
                self.perhaps_dropped.get_or_insert_with(|| "one of very many rules".to_owned());
                return End::Over;
            }
            let mut fit = here;
            for part in rule["expr"].as_array().into_iter().flatten() {
                if let Some(ask) = part.get("match") {
                    fit = fit.min(self.fits(ask));
                    if fit == Fit::No {
                        break;
                    }
                    continue;
                }
                let place = || format!("rule {} of chain {} in table {} {}", rule["handle"], name.2, name.0, name.1);
                match self.statement(part, &place, (name.0, name.1), depth, fit) {
                    Step::On => {}
                    Step::Unknown => fit = fit.min(Fit::Perhaps),
                    // A return that is only possible makes the rest of the chain so.
                    Step::PerhapsOver => here = here.min(Fit::Perhaps),
                    Step::End(end) => return end,
                }
            }
        }
        End::Over
    }

    /// What a statement does with a packet that gets to it.
    fn statement(
        &mut self,
        part: &Value,
        place: &dyn Fn() -> String,
        table: (&str, &str),
        depth: usize,
        fit: Fit,
    ) -> Step {
        let Some((kind, what)) = part.as_object().and_then(|object| object.iter().next()) else {
            return Step::On;
        };
        let certain = fit == Fit::Yes;
        match kind.as_str() {
            "accept" if certain => Step::End(End::Settled),
            "accept" => {
                self.perhaps_accepted = true;
                Step::On
            }
            "return" if certain => Step::End(End::Over),
            "return" => Step::PerhapsOver,
            "drop" | "reject" if certain && !self.perhaps_accepted => Step::End(End::Dropped(place())),
            "drop" | "reject" => {
                self.perhaps_dropped.get_or_insert_with(place);
                if certain { Step::End(End::Settled) } else { Step::On }
            }
            "jump" | "goto" => {
                let target = what["target"].as_str().unwrap_or_default();
                match self.chain((table.0, table.1, target), depth + 1, fit) {
                    End::Over if kind == "jump" => Step::On,
                    End::Over if certain => Step::End(End::Over),
                    End::Over => Step::PerhapsOver,
                    end => Step::End(end),
                }
            }
            "vmap" => self.verdict_map(what, place, table, depth, fit),
            "xt" | "limit" | "quota" | "connlimit" => Step::Unknown,
            // counter, log, notrack, meta mark set …: nothing for a verdict.
            _ => Step::On,
        }
    }

    /// `tcp dport vmap { 22 : accept, 179 : drop }`
    fn verdict_map(
        &mut self,
        map: &Value,
        place: &dyn Fn() -> String,
        table: (&str, &str),
        depth: usize,
        fit: Fit,
    ) -> Step {
        let Some(pairs) = map["data"]["set"].as_array() else {
            // A map by its name.
            self.perhaps_accepted = true;
            self.perhaps_dropped.get_or_insert_with(place);
            return Step::Unknown;
        };
        for pair in pairs {
            let ask = serde_json::json!({ "op": "==", "left": map["key"], "right": pair[0] });
            let fit = fit.min(self.fits(&ask));
            if fit > Fit::No {
                match self.statement(&pair[1], place, table, depth, fit) {
                    Step::On | Step::Unknown => {}
                    end => return end,
                }
            }
        }
        Step::On
    }

    /// Whether a comparison holds.
    fn fits(&self, ask: &Value) -> Fit {
        let (left, right) = (&ask["left"], &ask["right"]);
        let packet = self.packet;
        let holds = if let Some(payload) = left.get("payload") {
            match (payload["protocol"].as_str(), payload["field"].as_str()) {
                (Some(protocol @ ("tcp" | "udp")), Some("dport")) if protocol != packet.protocol => Fit::No,
                (Some("tcp" | "udp" | "th"), Some("dport")) => is_number(right, packet.port.into()),
                (Some(protocol @ ("tcp" | "udp")), _) if protocol != packet.protocol => Fit::No,
                (Some("icmp" | "icmpv6"), _) => Fit::No,
                (Some(family @ ("ip" | "ip6")), _) if (family == "ip6") != packet.v6 => Fit::No,
                (Some("ip" | "ip6"), Some("saddr")) => is_address(right, packet.from),
                (Some("ip" | "ip6"), Some("daddr")) => is_address(right, packet.to),
                (Some("ip" | "ip6"), Some("protocol" | "nexthdr")) => is_word(right, packet.protocol),
                _ => Fit::Perhaps,
            }
        } else if let Some(key) = left["meta"]["key"].as_str() {
            match key {
                "l4proto" => is_word(right, packet.protocol),
                "nfproto" => is_word(right, if packet.v6 { "ipv6" } else { "ipv4" }),
                "protocol" => is_word(right, if packet.v6 { "ip6" } else { "ip" }),
                "iifname" | "iif" => packet.interface.as_deref().map_or_else(
                    // A client's packet comes in somewhere, not from ourselves.
                    || if right == "lo" { Fit::No } else { Fit::Perhaps },
                    |interface| is_word(right, interface),
                ),
                _ => Fit::Perhaps,
            }
        } else if left["ct"]["key"] == "state" {
            is_word(right, "new")
        } else {
            Fit::Perhaps
        };
        match ask["op"].as_str() {
            Some("==" | "in") | None => holds,
            Some("!=") => match holds {
                Fit::Yes => Fit::No,
                Fit::No => Fit::Yes,
                Fit::Perhaps => Fit::Perhaps,
            },
            _ => Fit::Perhaps,
        }
    }
}

/// How a rule goes on after a statement.
enum Step {
    On,
    /// Whether it goes on is not known to us.
    Unknown,
    /// The chain may be over.
    PerhapsOver,
    End(End),
}

/// The best fit among the elements of a right-hand side.
fn any(right: &Value, one: impl Fn(&Value) -> Fit) -> Fit {
    let list = right.get("set").unwrap_or(right);
    match list {
        Value::Array(list) => list.iter().map(|element| one(element.get("elem").map_or(element, |e| &e["val"]))).max(),
        single => Some(one(single)),
    }
    .unwrap_or(Fit::No)
}

fn is_number(right: &Value, number: u64) -> Fit {
    any(right, |element| match element {
        Value::Number(n) => (n.as_u64() == Some(number)).into(),
        Value::Object(object) => match object.get("range").and_then(Value::as_array).map(Vec::as_slice) {
            Some([low, high]) => match (low.as_u64(), high.as_u64()) {
                (Some(low), Some(high)) => (low..=high).contains(&number).into(),
                _ => Fit::Perhaps,
            },
            _ => Fit::Perhaps,
        },
        // A set by its name.
        _ => Fit::Perhaps,
    })
}

fn is_word(right: &Value, word: &str) -> Fit {
    any(right, |element| match element.as_str() {
        Some(named) if named.starts_with('@') => Fit::Perhaps,
        Some(pattern) => match pattern.strip_suffix('*') {
            Some(start) => word.starts_with(start).into(),
            None => (pattern == word).into(),
        },
        None => Fit::Perhaps,
    })
}

fn is_address(right: &Value, address: Option<IpAddr>) -> Fit {
    let Some(address) = address else { return Fit::Perhaps };
    let parse = |value: &Value| value.as_str().and_then(|text| text.parse::<IpAddr>().ok());
    any(right, |element| {
        if let Some(prefix) = element.get("prefix") {
            let length = prefix["len"].as_u64().and_then(|length| u8::try_from(length).ok());
            let net =
                parse(&prefix["addr"]).zip(length).and_then(|(ip, length)| ubique_model::IpNet::new(ip, length).ok());
            return net.map_or(Fit::Perhaps, |net| net.contains(&address).into());
        }
        if let Some([low, high]) = element.get("range").and_then(Value::as_array).map(Vec::as_slice) {
            let bounds = parse(low).zip(parse(high));
            return bounds.map_or(Fit::Perhaps, |(low, high)| (low..=high).contains(&address).into());
        }
        parse(element).map_or(Fit::Perhaps, |ip| (ip == address).into())
    })
}

/// Whether a word stands anywhere in the rules.
pub(super) fn mentions(facts: &FirewallFacts, word: &str) -> bool {
    fn within(value: &Value, word: &str) -> bool {
        match value {
            Value::Object(object) => object.iter().any(|(key, value)| key == word || within(value, word)),
            Value::Array(list) => list.iter().any(|value| within(value, word)),
            _ => false,
        }
    }
    matches!(facts, FirewallFacts::Rules(rules) if within(rules, word))
}

/// What must get in: each packet with its name.
fn wanted(case: Case<'_>) -> Vec<(String, Packet)> {
    let mut packets = Vec::new();
    for upstream in case.upstreams() {
        let address = upstream.address;
        let interface = network::interface_of(case, address).map(str::to_owned);
        let mut add = |name: String, protocol, port| {
            let (from, to) = (Some(address), upstream.local_address);
            let packet = Packet { protocol, port, from, to, interface: interface.clone(), v6: address.is_ipv6() };
            packets.push((name, packet));
        };
        add(format!("BGP from {address} (TCP port 179)"), "tcp", crate::bgp::BGP_PORT);
        if upstream.bfd.is_some() {
            let port = sessions::bfd_port(upstream);
            add(format!("BFD from {address} (UDP port {port})"), "udp", port);
        }
    }
    let Some((service, _)) = case.subject else {
        return packets;
    };
    for check in &service.checks {
        let servers = crate::checks::servers(&check.kind, &service.addresses);
        for (target, tcp) in servers.into_iter().filter(|(target, _)| service.addresses.contains(&target.ip())) {
            let protocol = if tcp { "tcp" } else { "udp" };
            let (to, port) = (Some(target.ip()), target.port());
            let packet = Packet { protocol, port, from: None, to, interface: None, v6: target.is_ipv6() };
            packets.push((format!("the service at {target} ({protocol}) from clients"), packet));
        }
    }
    packets
}

pub(super) fn check(case: Case<'_>, report: &mut Report) {
    let rules = match &case.facts.firewall {
        FirewallFacts::Rules(rules) => rules,
        FirewallFacts::Unknown(why) => {
            return report.unknown(format!("the rules of the firewall cannot be read: {why}"));
        }
        FirewallFacts::NotAsked => return report.unknown("the firewall was not asked"),
    };
    for (name, packet) in wanted(case) {
        let allow = format!(
            "let it in before that: nft insert rule inet filter input {}{} dport {} accept (your table and chain)",
            packet
                .from
                .map(|from| format!("{} saddr {from} ", if packet.v6 { "ip6" } else { "ip" }))
                .unwrap_or_default(),
            packet.protocol,
            packet.port
        );
        match fate(rules, &packet) {
            Fate::Passes => {}
            Fate::Dropped(rule) => report.error(format!("{rule} drops {name}"), allow),
            Fate::Perhaps(rule) => {
                report.note(format!("{rule} may drop {name}: it depends on what cannot be read here"), allow)
            }
        }
    }
}

#[cfg(test)]
mod tests;
