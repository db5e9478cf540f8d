//! Junos OS, as `set` commands. Never run on a router; compared with documentation: `bfd-liveness-detection` and
//! `prefix-limit`. To be compared: `hold-time`, `graceful-restart`, `advertise-peer-as`, `route-filter`, `multihop`.

use std::fmt::Write as _;

use super::{SECRET, Session, mirrored};
use ubique_model::{Family, Prefix};

pub(super) fn configuration(session: &Session<'_>) -> String {
    let (upstream, site) = (session.upstream, &session.site);
    let name = session.name.replace('_', "-");
    let mut text =
        format!("# Junos OS: {}\nset policy-options community graceful-shutdown members 65535:0\n", session.title);
    if !session.is_internal() {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "set policy-options as-path ubique-origin-{0} \"(.* )?{0}\"", session.asn());
    }
    let families = session.families();
    for (family, own) in &families {
        policies(&mut text, session, &name, *family, own);
    }
    let group = format!("set protocols bgp group {name}");
    let _ = writeln!(text, "{group} type {}", if session.is_internal() { "internal" } else { "external" });
    // The other sites' routes have the site's own AS at their end.
    let _ = writeln!(text, "{group} advertise-peer-as");
    if let Some(hops) = upstream.multihop {
        let _ = writeln!(text, "{group} multihop ttl {hops}");
    }
    if upstream.ttl_security.is_some() {
        let _ = writeln!(
            text,
            "{group} ttl 255\n# and a firewall filter that drops TCP port 179 from {site} with a smaller TTL"
        );
    }
    let neighbor = format!("{group} neighbor {site}");
    let mut line = |line: String| {
        let _ = writeln!(text, "{neighbor} {line}");
    };
    if !session.is_internal() {
        line(format!("peer-as {}", session.asn()));
    }
    line(format!("local-address {}", session.address()));
    line(format!("hold-time {}", session.hold_s));
    if upstream.graceful_restart.is_none() {
        line("graceful-restart disable".to_owned());
    }
    if let Some(file) = session.secret_file() {
        line(format!("authentication-key \"{SECRET}\""));
        let _ = writeln!(text, "# the key is the first line of {file} at the site");
    }
    let mut line = |line: String| {
        let _ = writeln!(text, "{neighbor} {line}");
    };
    if let Some(bfd) = upstream.bfd {
        let (receive, send, multiplier) = mirrored(bfd);
        line(format!("bfd-liveness-detection minimum-receive-interval {receive}"));
        line(format!("bfd-liveness-detection transmit-interval minimum-interval {send}"));
        line(format!("bfd-liveness-detection multiplier {multiplier}"));
    }
    for (family, own) in &families {
        let limit = Session::limit(own);
        line(format!("family {} unicast prefix-limit maximum {limit}", inet(*family)));
        line(format!("family {} unicast prefix-limit teardown idle-timeout 1", inet(*family)));
        line(format!("import {name}-{}-in", inet(*family)));
        line(format!("export {name}-{}-out", inet(*family)));
    }
    line(format!("import {name}-reject"));
    line(format!("export {name}-reject"));
    let _ = writeln!(text, "set policy-options policy-statement {name}-reject then reject");
    text
}

/// Policies that accept what they know and leave the rest to the next one.
fn policies(text: &mut String, session: &Session<'_>, name: &str, family: Family, own: &[Prefix]) {
    let policy = format!("set policy-options policy-statement {name}-{}", inet(family));
    let mut line = |line: String| {
        let _ = writeln!(text, "{policy}-{line}");
    };
    line("in term graceful-shutdown from community graceful-shutdown".to_owned());
    line("in term graceful-shutdown then local-preference 0".to_owned());
    for prefix in own {
        line(format!("in term ours from route-filter {prefix} exact"));
        line(format!("out term ours from route-filter {prefix} exact"));
    }
    if !session.is_internal() {
        line(format!("in term ours from as-path ubique-origin-{}", session.asn()));
    }
    line("in term ours then accept".to_owned());
    line("out term ours from protocol bgp".to_owned());
    line("out term ours then accept".to_owned());
}

fn inet(family: Family) -> &'static str {
    match family {
        Family::Ipv4 => "inet",
        Family::Ipv6 => "inet6",
    }
}
