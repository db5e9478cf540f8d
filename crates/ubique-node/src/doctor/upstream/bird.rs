//! BIRD 2 (bird.network.cz, user's guide, "BGP", "BFD", "Filters").

use std::fmt::Write as _;

use super::{SECRET, Session, mirrored};
use ubique_model::{Family, Prefix};

pub(super) fn configuration(session: &Session<'_>) -> String {
    let mut text = format!(
        "# BIRD 2: {}\n# Besides, once in the file: protocol device {{ }}{}\n",
        session.title,
        if session.upstream.bfd.is_some() { "  and  protocol bfd { }" } else { "" }
    );
    for (family, own) in session.families() {
        filter(&mut text, session, family, &own);
    }
    // Writing to a string cannot fail.
    let _ = writeln!(text, "protocol bgp {} {{", session.name);
    let (upstream, site) = (session.upstream, &session.site);
    let mut line = |line: String| {
        let _ = writeln!(text, "  {line}");
    };
    line(format!("local {} as {};", session.address(), upstream.asn));
    let port = if upstream.port == 179 { String::new() } else { format!("  # we call port {}", upstream.port) };
    line(format!("neighbor {site} as {};{port}", session.asn()));
    if let Some(interface) = upstream.interface.as_ref().filter(|_| upstream.address.is_ipv6()) {
        line(format!("# the site is behind our interface that its {interface} is connected to: interface \"…\";"));
    }
    line(format!("hold time {}; keepalive time {};", session.hold_s, session.keepalive_s));
    line("connect delay time 1; connect retry time 5; error wait time 1, 30;".to_owned());
    match upstream.graceful_restart {
        None => line("graceful restart off; long lived graceful restart off;".to_owned()),
        Some(_) => line("graceful restart aware;  # the service file of the site wants it".to_owned()),
    }
    if let Some(hops) = upstream.multihop {
        line(format!("multihop {hops};"));
    }
    if let Some(hops) = upstream.ttl_security {
        line(if hops > 1 { format!("multihop {hops}; ttl security on;") } else { "ttl security on;".to_owned() });
    }
    if let Some(file) = session.secret_file() {
        line(format!("password \"{SECRET}\";  # the first line of {file} at the site"));
    }
    if let Some(bfd) = upstream.bfd {
        let (receive, send, multiplier) = mirrored(bfd);
        line(format!("bfd {{ min rx interval {receive} ms; min tx interval {send} ms; multiplier {multiplier}; }};"));
    }
    for (family, own) in session.families() {
        let limit = Session::limit(&own);
        line(format!("{} {{", word(family)));
        line(format!("  import filter {}_{};", session.name, word(family)));
        line(format!("  import limit {limit} action restart;"));
        line(format!("  export where net ~ [ {} ];  # routes of other sites; or: export all", list(&own)));
        line("};".to_owned());
    }
    text.push_str("}\n");
    text
}

fn filter(text: &mut String, session: &Session<'_>, family: Family, own: &[Prefix]) {
    let _ = writeln!(text, "filter {}_{} {{\n  if net !~ [ {} ] then reject;", session.name, word(family), list(own));
    if !session.is_internal() {
        let _ = writeln!(text, "  if bgp_path.last != {} then reject;", session.asn());
    }
    text.push_str(
        "  if (65535, 0) ~ bgp_community then bgp_local_pref = 0;  # GRACEFUL_SHUTDOWN, RFC 8326\n  accept;\n}\n",
    );
}

fn word(family: Family) -> &'static str {
    match family {
        Family::Ipv4 => "ipv4",
        Family::Ipv6 => "ipv6",
    }
}

fn list(own: &[Prefix]) -> String {
    own.iter().map(Prefix::to_string).collect::<Vec<_>>().join(", ")
}
