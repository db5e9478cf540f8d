//! `[[check]]` and `[[group]]` tables.

use std::time::Duration;

use super::spec::MAX_COMM_BYTES;
use super::{Check, CheckKind, Counts, Dns, DnsTransport, Flag, FlagBit, Group, Http, Metric, Roots, Trust, rules};
use crate::diagnostic as code;
use crate::policy::Level;
use crate::read::sink::{At, Finding, Span};
use crate::read::table::{Scalar, TableReader, report_duplicates};
use crate::read::text;
use crate::service::{narrow, values};

/// Default timeout, when `every` is not shorter.
const DEFAULT_TIMEOUT: Duration = Duration::from_millis(500);
/// Default path of DNS over HTTPS.
pub(super) const DNS_QUERY_PATH: &str = "/dns-query";

/// What a check is to its group, with the place of its name.
pub(super) struct Membership {
    pub group: At<String>,
    pub weight: u32,
}

/// A threshold as written.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Threshold {
    All,
    Any,
    Weight(u32),
}

/// `[[group]]` as far as it was readable.
pub(super) struct GroupDraft {
    pub span: Span,
    pub name: Option<At<String>>,
    pub healthy: Option<At<Threshold>>,
    pub degraded: Option<At<Threshold>>,
}

/// All checks and groups of a service file; `None` where one is not readable.
pub(crate) fn read_all(root: &TableReader<'_>) -> (Vec<Option<Check>>, Option<Vec<Group>>) {
    let mut names = Vec::new();
    let mut checks = Vec::new();
    let mut members = Vec::new();
    for table in root.tables("check") {
        let name = table.text("name", text::name).or_else(|| {
            let kind = table.variant().filter(|_| !table.has("name"))?;
            Some(At { value: kind.to_owned(), span: table.span.clone() })
        });
        names.extend(name.clone());
        checks.push(read(&table, name, &mut members));
    }
    report_duplicates(root.sink(), "check", &names);
    let drafts: Vec<GroupDraft> = root.tables("group").iter().map(read_group).collect();
    report_duplicates(root.sink(), "group", drafts.iter().filter_map(|g| g.name.as_ref()));
    let groups = rules::groups(root, &drafts, &members, &checks);
    (checks, groups)
}

fn read_group(table: &TableReader<'_>) -> GroupDraft {
    GroupDraft {
        span: table.span.clone(),
        name: table.text("name", text::name),
        healthy: table.scalar("healthy", threshold),
        degraded: table.scalar("degraded", threshold),
    }
}

fn threshold(written: Scalar<'_>) -> Result<Threshold, Finding> {
    match written {
        Scalar::Integer(weight) => Ok(Threshold::Weight(u32::try_from(weight).unwrap_or(u32::MAX))),
        Scalar::Text("all") => Ok(Threshold::All),
        Scalar::Text("any") => Ok(Threshold::Any),
        Scalar::Text(word) => Err(Finding::new(code::BAD_CHOICE, format!("unknown threshold \"{word}\""))
            .fix("write \"all\", \"any\" or a number without quotes")),
    }
}

fn read(table: &TableReader<'_>, name: Option<At<String>>, members: &mut Vec<Membership>) -> Option<Check> {
    let every = table.duration("every");
    let timeout = table.duration("timeout");
    if let (Some(every), Some(timeout)) = (&every, &timeout)
        && timeout.value > every.value
    {
        let shown = crate::quantity::format_duration(every.value);
        let finding =
            Finding::new(code::TIMEOUT_ABOVE_EVERY, format!("the timeout is longer than every = \"{shown}\""))
                .cause("a poll must be over before the next one starts");
        table.sink().report(&timeout.span, finding.fix(format!("write timeout = \"{shown}\" or less")));
    }
    let retry = table.duration("retry");
    let latency = table.duration("latency");
    let fall = narrow(table.integer("fall"));
    let rise = narrow(table.integer("rise"));
    let counts = read_counts(table, members);
    let kind = read_kind(table);
    let every = every?.value;
    let timeout = timeout.map_or(DEFAULT_TIMEOUT.min(every), |t| t.value);
    if let Some(retry) = &retry {
        rules::retry(table, retry, every, fall.as_ref().map(|at| at.value));
    }
    if let Some(latency) = &latency {
        rules::latency(table, latency, timeout);
    }
    Some(Check {
        name: name?.value,
        kind: kind?,
        every,
        timeout,
        retry: retry.map(|at| at.value),
        latency: latency.map(|at| at.value),
        fall: fall?.value,
        rise: rise?.value,
        counts,
    })
}

fn read_counts(table: &TableReader<'_>, members: &mut Vec<Membership>) -> Counts {
    let level = table.choice("on-failure");
    let group = table.text("group", text::name);
    let weight: Option<At<u32>> = narrow(table.integer("weight"));
    rules::counts(table);
    let weight = weight.map_or(1, |at| at.value);
    match group.filter(|_| table.variant() != Some("load")) {
        Some(group) => {
            let name = group.value.clone();
            members.push(Membership { group, weight });
            Counts::Member { group: name, weight }
        }
        None if level.is_some_and(|l| l.value == "degraded") => Counts::Alone(Level::Degraded),
        None => Counts::Alone(Level::Failed),
    }
}

fn read_kind(table: &TableReader<'_>) -> Option<CheckKind> {
    let target = || Some(table.text("target", text::target)?.value);
    match table.variant()? {
        "dns" => read_dns(table).map(CheckKind::Dns),
        "http" => {
            let http = read_http(table)?;
            if !http.tls {
                rules::tls_keys(table, "the URL begins with http://");
            }
            Some(CheckKind::Http(http))
        }
        "tcp" => Some(CheckKind::Tcp { target: target()? }),
        "tls" => {
            let (target, trust) = (target(), read_trust(table));
            let days_left = narrow(table.integer("days-left"));
            Some(CheckKind::Tls { target: target?, trust, days_left: days_left?.value })
        }
        "udp" => read_udp(table),
        "ntp" => {
            let (target, stratum, offset) = (target(), narrow(table.integer("stratum")), table.duration("offset"));
            Some(CheckKind::Ntp { target: target?, stratum: stratum?.value, offset: offset.map(|at| at.value) })
        }
        "process" => read_process(table),
        "systemd" => Some(CheckKind::Systemd { unit: table.text("unit", text::unit)?.value }),
        "load" => read_load(table),
        _ => {
            let command = table.texts("command", text::free);
            Some(CheckKind::Exec { command: values(command) })
        }
    }
}

fn read_dns(table: &TableReader<'_>) -> Option<Dns> {
    let target = table.text("target", text::target);
    let query = table.text("query", text::dns_query);
    let rcode = table.choice("expect");
    let answer = values(table.texts("answer", text::free));
    let answer_contains = values(table.texts("answer-contains", text::free));
    let flags = table.choices("flags");
    let transport = table.choice("transport");
    let path = table.text("path", text::url_path);
    let trust = read_trust(table);
    let transport = transport?.value;
    let transport = DnsTransport::ALL.into_iter().find(|(_, word)| *word == transport)?.0;
    rules::dns(table, transport, &flags);
    let query = query?.value;
    Some(Dns {
        target: target?.value,
        name: query.name,
        qtype: query.qtype,
        class: query.class,
        rcode: rcode?.value.to_owned(),
        answer,
        answer_contains,
        flags: flags.iter().filter_map(|at| flag(at.value)).collect(),
        transport,
        path: path.map_or_else(|| DNS_QUERY_PATH.to_owned(), |at| at.value),
        trust,
    })
}

pub(super) fn flag(word: &str) -> Option<Flag> {
    let (set, word) = word.strip_prefix("no-").map_or((true, word), |word| (false, word));
    let (bit, _) = FlagBit::ALL.into_iter().find(|(_, w)| *w == word)?;
    Some(Flag { bit, set })
}

fn read_http(table: &TableReader<'_>) -> Option<Http> {
    let url = table.text("url", text::http_url);
    let host = table.text("host", text::host);
    let status = values(table.scalars("expect", text::statuses));
    let body = values(table.texts("body", text::free));
    let headers = table.map("headers");
    for (name, _) in &headers {
        rules::header_name(table, name);
    }
    let trust = read_trust(table);
    let url = url?.value;
    Some(Http {
        target: url.target,
        tls: url.tls,
        host: host.map(|at| at.value),
        path: url.path,
        status,
        body,
        headers: headers.into_iter().map(|(name, value)| (name.value, value.value)).collect(),
        trust,
    })
}

fn read_trust(table: &TableReader<'_>) -> Trust {
    let server_name = table.text("server-name", text::host).map(|at| at.value);
    let file = table.text("ca-file", text::path);
    let insecure = table.boolean("insecure").is_some_and(|at| at.value);
    if file.is_some() && insecure {
        let finding = Finding::new(code::CONFLICTING_KEYS, "`ca-file` and `insecure` are both given")
            .cause("one says who must have signed the certificate, the other that nobody must");
        table.sink().report(&table.span_of("insecure"), finding.fix("remove one of the two"));
    }
    let roots = match file {
        _ if insecure => Roots::Insecure,
        Some(file) => Roots::File(file.value),
        None => Roots::System,
    };
    Trust { server_name, roots }
}

fn read_udp(table: &TableReader<'_>) -> Option<CheckKind> {
    let target = table.text("target", text::target);
    let octets = |key| table.text(key, text::octets);
    let (send, starts, contains) = (octets("send"), octets("starts"), octets("contains"));
    let or_any = |at: Option<At<Vec<u8>>>| at.map(|at| at.value).unwrap_or_default();
    Some(CheckKind::Udp {
        target: target?.value,
        send: send?.value,
        starts: or_any(starts),
        contains: or_any(contains),
    })
}

fn read_process(table: &TableReader<'_>) -> Option<CheckKind> {
    let pidfile = table.text("pidfile", text::path);
    let process = table.text("process", process_name);
    match (table.has("pidfile"), table.has("process")) {
        (true, true) => {
            let finding = Finding::new(code::NEED_ONE_OF, "both `pidfile` and `process` are given")
                .cause("it is unclear which process counts when they differ");
            table.sink().report(&table.span_of("process"), finding.fix("remove one of the two"));
        }
        (false, false) => {
            let finding = Finding::new(code::NEED_ONE_OF, "the check names no process");
            let fix = "add pidfile = \"/run/named.pid\" or process = \"nsd\"";
            table.sink().report_absent(&table.span, finding.fix(fix));
        }
        _ => {}
    }
    Some(CheckKind::Process { pidfile: pidfile.map(|at| at.value), name: process.map(|at| at.value) })
}

fn process_name(word: &str) -> Result<String, Finding> {
    if word.len() <= MAX_COMM_BYTES {
        return Ok(word.to_owned());
    }
    let finding = Finding::new(code::BAD_TEXT, format!("a process name has at most {MAX_COMM_BYTES} bytes"))
        .cause("the kernel cuts longer ones off");
    let end = (0..=MAX_COMM_BYTES).rev().find(|&at| word.is_char_boundary(at)).unwrap_or_default();
    Err(finding.fix(format!("write \"{}\", or use `pidfile`", &word[..end])))
}

fn read_load(table: &TableReader<'_>) -> Option<CheckKind> {
    let metric = table.choice("metric");
    let high: Option<At<u64>> = narrow(table.integer("high"));
    let low: Option<At<u64>> = narrow(table.integer("low"));
    let interface = table.text("interface", text::interface).map(|at| at.value);
    let port = narrow(table.integer("port")).map(|at| at.value);
    let command = if table.has("command") { values(table.texts("command", text::free)) } else { vec![] };
    let url = table.text("url", text::http_url).map(|at| at.value);
    let trust = read_trust(table);
    let word = metric?.value;
    rules::load(table, word, high.as_ref(), low.as_ref());
    if url.as_ref().is_some_and(|url| !url.tls) {
        rules::tls_keys(table, "the URL begins with http://");
    }
    let metric = match word {
        "packets" => Metric::Packets { interface },
        "datagrams" => Metric::Datagrams,
        "cpu" => Metric::Cpu,
        "backlog" => Metric::Backlog { port: port? },
        "drops" => Metric::Drops,
        "command" => Metric::Command(command),
        _ => Metric::Page(Box::new(page(url?, trust))),
    };
    let high = high?.value;
    Some(CheckKind::Load { metric, high, low: low.map_or(high / 5 * 4 + high % 5 * 4 / 5, |at| at.value) })
}

/// The page a number is read from.
fn page(url: text::HttpUrl, trust: Trust) -> Http {
    let status = vec![super::Statuses { first: 200, last: 200 }];
    Http { target: url.target, tls: url.tls, host: None, path: url.path, status, body: vec![], headers: vec![], trust }
}
