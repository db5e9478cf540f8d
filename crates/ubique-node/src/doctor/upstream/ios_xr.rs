//! Cisco IOS XR. Never run on a router, and not yet compared with the command reference: `bfd`, `maximum-prefix`, `timers`,
//! `password`, `ttl-security`, `ebgp-multihop`, `prefix-set`, `as-path originates-from`, `community matches-any`.

use std::fmt::Write as _;

use super::{SECRET, Session, mirrored};
use ubique_model::{Family, Prefix};

pub(super) fn configuration(session: &Session<'_>) -> String {
    let (upstream, site) = (session.upstream, &session.site);
    let name = session.name.to_uppercase().replace('_', "-");
    let mut text = format!("! IOS XR: {}\n", session.title);
    let families = session.families();
    for (family, own) in &families {
        policies(&mut text, session, &name, *family, own);
    }
    // Writing to a string cannot fail.
    let _ = writeln!(
        text,
        "router bgp {}\n ! graceful restart is off unless `bgp graceful-restart` stands here",
        upstream.asn
    );
    let _ = writeln!(text, " neighbor {site}");
    let mut line = |line: String| {
        let _ = writeln!(text, "  {line}");
    };
    line(format!("remote-as {}", session.asn()));
    line(format!("description {}", session.title));
    line(format!("timers {} {}", session.keepalive_s, session.hold_s));
    if let Some(bfd) = upstream.bfd {
        let (receive, send, multiplier) = mirrored(bfd);
        line("bfd fast-detect".to_owned());
        // One interval for both directions: the slower of ours.
        line(format!("bfd minimum-interval {}", receive.max(send)));
        line(format!("bfd multiplier {multiplier}"));
    }
    if let Some(hops) = upstream.multihop {
        line(format!("ebgp-multihop {hops}"));
    }
    if upstream.ttl_security.is_some() {
        line("ttl-security".to_owned());
    }
    if let Some(file) = session.secret_file() {
        line(format!("password clear {SECRET}"));
        line(format!("! the password is the first line of {file} at the site"));
    }
    for (family, own) in &families {
        line(format!("address-family {} unicast", word(*family)));
        line(format!(" route-policy {name}-{}-IN in", word(*family).to_uppercase()));
        line(format!(" route-policy {name}-{}-OUT out", word(*family).to_uppercase()));
        line(format!(" maximum-prefix {} 80 restart 1", Session::limit(own)));
        line("!".to_owned());
    }
    text.push_str(" !\n!\n");
    text
}

fn policies(text: &mut String, session: &Session<'_>, name: &str, family: Family, own: &[Prefix]) {
    let name = format!("{name}-{}", word(family).to_uppercase());
    let list = own.iter().map(|prefix| format!("  {prefix}")).collect::<Vec<_>>().join(",\n");
    let origin = if session.is_internal() {
        String::new()
    } else {
        format!("  if not as-path originates-from '{}' then\n    drop\n  endif\n", session.asn())
    };
    let _ = write!(
        text,
        "prefix-set {name}\n{list}\nend-set\n!\n\
         route-policy {name}-IN\n  if not destination in {name} then\n    drop\n  endif\n{origin}\
         \x20 if community matches-any (65535:0) then\n    set local-preference 0\n  endif\n  pass\nend-policy\n!\n\
         route-policy {name}-OUT\n  if destination in {name} then\n    pass\n  endif\nend-policy\n!\n"
    );
}

fn word(family: Family) -> &'static str {
    match family {
        Family::Ipv4 => "ipv4",
        Family::Ipv6 => "ipv6",
    }
}
