//! `[[check]]` and `[[group]]` as a service file writes them.

use super::{Check, CheckKind, Counts, Dns, DnsTransport, Group, Http, Metric, Roots, Trust, octets_text};
use crate::policy::Level;
use crate::quantity::format_duration;
use crate::service::print::{Page, list, quoted};

pub(crate) fn print_group(page: &mut Page, group: &Group) {
    page.table("[[group]]");
    page.text("name", &group.name);
    page.key("healthy", group.healthy);
    page.key("degraded", group.degraded);
}

pub(crate) fn print_check(page: &mut Page, check: &Check) {
    page.table("[[check]]");
    page.text("name", &check.name);
    page.text("kind", check.kind.word());
    print_kind(page, &check.kind);
    page.text("every", format_duration(check.every));
    page.text("timeout", format_duration(check.timeout));
    if let Some(retry) = check.retry {
        page.text("retry", format_duration(retry));
    }
    if let Some(latency) = check.latency {
        page.text("latency", format_duration(latency));
    }
    page.key("fall", check.fall);
    page.key("rise", check.rise);
    match &check.counts {
        _ if matches!(check.kind, CheckKind::Load { .. }) => {}
        Counts::Alone(Level::Degraded) => page.text("on-failure", "degraded"),
        Counts::Alone(_) => page.text("on-failure", "failed"),
        Counts::Member { group, weight } => {
            page.text("group", group);
            page.key("weight", weight);
        }
    }
}

fn print_kind(page: &mut Page, kind: &CheckKind) {
    match kind {
        CheckKind::Dns(dns) => print_dns(page, dns),
        CheckKind::Http(http) => print_http(page, http),
        CheckKind::Tcp { target } => page.shown("target", target),
        CheckKind::Tls { target, trust, days_left } => {
            page.shown("target", target);
            print_trust(page, trust);
            page.key("days-left", days_left);
        }
        CheckKind::Udp { target, send, starts, contains } => {
            page.shown("target", target);
            for (key, octets) in [("send", send), ("starts", starts), ("contains", contains)] {
                if !octets.is_empty() {
                    page.text(key, octets_text(octets));
                }
            }
        }
        CheckKind::Ntp { target, stratum, offset } => {
            page.shown("target", target);
            page.key("stratum", stratum);
            if let Some(offset) = offset {
                page.text("offset", format_duration(*offset));
            }
        }
        CheckKind::Process { pidfile, name } => {
            if let Some(pidfile) = pidfile {
                page.text("pidfile", pidfile.to_string_lossy());
            }
            if let Some(name) = name {
                page.text("process", name);
            }
        }
        CheckKind::Systemd { unit } => page.text("unit", unit),
        CheckKind::Exec { command } => page.key("command", list(command.iter().cloned())),
        CheckKind::Load { metric, high, low } => {
            print_metric(page, metric);
            page.key("high", high);
            page.key("low", low);
        }
    }
}

fn print_dns(page: &mut Page, dns: &Dns) {
    page.shown("target", dns.target);
    page.text("query", format!("{} {} {}", dns.name, dns.qtype, dns.class));
    page.text("expect", &dns.rcode);
    some(page, "answer", &dns.answer);
    some(page, "answer-contains", &dns.answer_contains);
    some(page, "flags", &dns.flags);
    page.text("transport", dns.transport.word());
    if dns.transport == DnsTransport::Https {
        page.text("path", &dns.path);
    }
    print_trust(page, &dns.trust);
}

fn print_http(page: &mut Page, http: &Http) {
    print_url(page, http);
    if let Some(host) = &http.host {
        page.text("host", host);
    }
    some(page, "expect", &http.status);
    some(page, "body", &http.body);
    if !http.headers.is_empty() {
        let pairs: Vec<String> =
            http.headers.iter().map(|(name, value)| format!("{} = {}", quoted(name), quoted(value))).collect();
        page.key("headers", format!("{{ {} }}", pairs.join(", ")));
    }
    print_trust(page, &http.trust);
}

fn print_url(page: &mut Page, http: &Http) {
    let scheme = if http.tls { "https" } else { "http" };
    page.text("url", format!("{scheme}://{}{}", http.target, http.path));
}

fn print_trust(page: &mut Page, trust: &Trust) {
    if let Some(name) = &trust.server_name {
        page.text("server-name", name);
    }
    match &trust.roots {
        Roots::System => {}
        Roots::File(path) => page.text("ca-file", path.to_string_lossy()),
        Roots::Insecure => page.key("insecure", true),
    }
}

fn print_metric(page: &mut Page, metric: &Metric) {
    let word = match metric {
        Metric::Packets { .. } => "packets",
        Metric::Datagrams => "datagrams",
        Metric::Cpu => "cpu",
        Metric::Backlog { .. } => "backlog",
        Metric::Drops => "drops",
        Metric::Command(_) => "command",
        Metric::Page(_) => "page",
    };
    page.text("metric", word);
    match metric {
        Metric::Packets { interface: Some(interface) } => page.text("interface", interface),
        Metric::Backlog { port } => page.key("port", port),
        Metric::Command(command) => page.key("command", list(command.iter().cloned())),
        Metric::Page(http) => {
            print_url(page, http);
            print_trust(page, &http.trust);
        }
        Metric::Packets { interface: None } | Metric::Datagrams | Metric::Cpu | Metric::Drops => {}
    }
}

/// A list, when there is something in it.
fn some<T: std::fmt::Display>(page: &mut Page, key: &str, items: &[T]) {
    if !items.is_empty() {
        page.key(key, list(items.iter().map(ToString::to_string)));
    }
}
