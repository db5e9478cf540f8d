//! FRR 8 and later (docs.frrouting.org, "BGP", "BFD", "Filtering").

use std::fmt::Write as _;

use super::{SECRET, Session, mirrored};
use ubique_model::{Family, Prefix};

pub(super) fn configuration(session: &Session<'_>) -> String {
    let (upstream, name, site) = (session.upstream, &session.name, &session.site);
    let mut text = format!("! FRR: {}\n", session.title);
    if let Some(bfd) = upstream.bfd {
        let (receive, send, multiplier) = mirrored(bfd);
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "! bfdd=yes in /etc/frr/daemons\nbfd\n profile {name}\n  detect-multiplier {multiplier}\n  receive-interval {receive}\n  \
             transmit-interval {send}\n exit\nexit\n"
        );
    }
    let _ = writeln!(text, "bgp community-list standard ubique-graceful-shutdown permit graceful-shutdown");
    if !session.is_internal() {
        let _ = writeln!(text, "bgp as-path access-list ubique-origin-{0} permit (^|_){0}$", session.asn());
    }
    for (family, own) in session.families() {
        filters(&mut text, session, family, &own);
    }
    let _ = writeln!(text, "router bgp {}", upstream.asn);
    let mut line = |line: String| {
        let _ = writeln!(text, " neighbor {site} {line}");
    };
    line(format!("remote-as {}", session.asn()));
    line(format!("description {}", session.title.replace(':', "")));
    line(format!("timers {} {}", session.keepalive_s, session.hold_s));
    line("timers connect 5".to_owned());
    if upstream.graceful_restart.is_none() {
        line("graceful-restart-disable".to_owned());
    }
    if let Some(hops) = upstream.multihop {
        line(format!("ebgp-multihop {hops}"));
    }
    if let Some(hops) = upstream.ttl_security {
        line(format!("ttl-security hops {hops}"));
    }
    if let Some(file) = session.secret_file() {
        line(format!("password {SECRET}"));
        let _ = writeln!(text, " ! the password is the first line of {file} at the site");
    }
    if upstream.bfd.is_some() {
        let _ = writeln!(text, " neighbor {site} bfd\n neighbor {site} bfd profile {name}");
    }
    for family in Family::ALL {
        let own = session.families().into_iter().find(|(one, _)| *one == family).map(|(_, own)| own);
        let address_family = match (own, family) {
            (Some(own), _) => format!(
                "  neighbor {site} activate\n  neighbor {site} route-map {name}-{0}-in in\n  neighbor {site} route-map {name}-{0}-out out\n  \
                 neighbor {site} maximum-prefix {1} restart 1\n",
                word(family),
                Session::limit(&own)
            ),
            // On without being asked for.
            (None, Family::Ipv4) => format!("  no neighbor {site} activate\n"),
            (None, Family::Ipv6) => continue,
        };
        let _ = write!(text, " address-family {} unicast\n{address_family} exit-address-family\n", word(family));
    }
    text.push_str("exit\n");
    text
}

fn filters(text: &mut String, session: &Session<'_>, family: Family, own: &[Prefix]) {
    let (name, family) = (&session.name, word(family));
    let ip = if family == "ipv4" { "ip" } else { "ipv6" };
    for prefix in own {
        let _ = writeln!(text, "{ip} prefix-list {name}-{family} permit {prefix}");
    }
    let origin =
        if session.is_internal() { String::new() } else { format!(" match as-path ubique-origin-{}\n", session.asn()) };
    let matches = format!(" match {ip} address prefix-list {name}-{family}\n{origin}");
    let _ = write!(
        text,
        "route-map {name}-{family}-in permit 10\n{matches} match community ubique-graceful-shutdown\n set local-preference 0\nexit\n\
         route-map {name}-{family}-in permit 20\n{matches}exit\n\
         ! routes of other sites to the same prefixes; all routes: a route-map without match\n\
         route-map {name}-{family}-out permit 10\n match {ip} address prefix-list {name}-{family}\nexit\n"
    );
}

fn word(family: Family) -> &'static str {
    match family {
        Family::Ipv4 => "ipv4",
        Family::Ipv6 => "ipv6",
    }
}
