//! `[[check]]` tables.

use std::time::Duration;

use super::{Check, CheckKind};
use crate::diagnostic as code;
use crate::read::sink::{At, Finding};
use crate::read::table::{TableReader, report_duplicates};
use crate::read::text;
use crate::service::narrow;
use crate::service::spec::MAX_COMM_BYTES;

/// Default timeout, when `every` is not shorter.
const DEFAULT_TIMEOUT: Duration = Duration::from_millis(500);

/// All checks of a service file; `None` for one that is not readable.
pub(crate) fn read_all(root: &TableReader<'_>) -> Vec<Option<Check>> {
    let mut names = Vec::new();
    let mut checks = Vec::new();
    for table in root.tables("check") {
        let name = table.text("name", text::name).or_else(|| {
            let kind = table.variant().filter(|_| !table.has("name"))?;
            Some(At { value: kind.to_owned(), span: table.span.clone() })
        });
        names.extend(name.clone());
        checks.push(read(&table, name));
    }
    report_duplicates(root.sink(), "check", &names);
    checks
}

fn read(table: &TableReader<'_>, name: Option<At<String>>) -> Option<Check> {
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
    let fall = narrow(table.integer("fall"));
    let rise = narrow(table.integer("rise"));
    let kind = read_kind(table);
    let every = every?.value;
    Some(Check {
        name: name?.value,
        kind: kind?,
        every,
        timeout: timeout.map_or(DEFAULT_TIMEOUT.min(every), |t| t.value),
        fall: fall?.value,
        rise: rise?.value,
    })
}

fn read_kind(table: &TableReader<'_>) -> Option<CheckKind> {
    match table.variant()? {
        "dns" => read_dns(table),
        "http" => read_http(table),
        "tcp" => Some(CheckKind::Tcp { target: table.text("target", text::endpoint)?.value }),
        "process" => read_process(table),
        _ => read_exec(table),
    }
}

fn read_dns(table: &TableReader<'_>) -> Option<CheckKind> {
    let target = table.text("target", text::endpoint);
    let query = table.text("query", text::dns_query);
    let rcode = table.choice("expect");
    let transport = table.choice("transport");
    let query = query?.value;
    Some(CheckKind::Dns {
        target: target?.value,
        name: query.name,
        qtype: query.qtype,
        class: query.class,
        rcode: rcode?.value.to_owned(),
        tcp: transport?.value == "tcp",
    })
}

fn read_http(table: &TableReader<'_>) -> Option<CheckKind> {
    let url = table.text("url", text::http_url);
    let host = table.text("host", text::host);
    let status = narrow(table.integer("expect"));
    let url = url?.value;
    Some(CheckKind::Http {
        target: url.target,
        host: host.map_or(url.host, |at| at.value),
        path: url.path,
        status: status?.value,
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

fn read_exec(table: &TableReader<'_>) -> Option<CheckKind> {
    let command = table.texts("command", text::free);
    Some(CheckKind::Exec { command: crate::service::values(command) })
}
