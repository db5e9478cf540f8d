//! `ubique doctor`: findings as a table or JSON, and the upstreams' side of the sessions.

use serde::Serialize;
use ubique_model::service::{Service, Site};
use ubique_node::doctor::{self, Case, Finding, Outcome, SCHEMA_VERSION, Severity, upstream};

use crate::Exit;
use crate::arguments::{Color, DoctorArguments, Output, RouterKind};
use crate::check::load_without_warnings;
use crate::say::{say, tell, tell_raw};

/// What `--output json` prints.
#[derive(Serialize)]
struct Report<'a> {
    schema_version: u32,
    ok: bool,
    service: Option<&'a str>,
    site: Option<&'a str>,
    checks: &'a [Outcome],
}

/// Runs `ubique doctor`.
pub fn doctor(arguments: &DoctorArguments, output: Output, color: Color) -> Exit {
    let service = match arguments.file.as_ref().map(|file| load_without_warnings(file, Service::parse, color)) {
        Some(Ok(service)) => Some(service),
        Some(Err(exit)) => return exit,
        None => None,
    };
    let subject = match service.as_ref().map(|service| Ok((service, choose(service, arguments.site.as_deref())?))) {
        Some(Ok(subject)) => Some(subject),
        Some(Err(words)) => {
            let words: String = words;
            say!("ubique: {words}");
            return Exit::BadInput;
        }
        None => None,
    };
    if let (Some(router), Some((service, site))) = (arguments.upstream, subject) {
        tell_raw!("{}", upstream::advice(kind(router), service, site));
        return Exit::Fine;
    }
    let facts = doctor::gather(subject, arguments.socket.as_deref());
    let outcomes = doctor::examine(Case { facts: &facts, subject });
    let ok = !findings(&outcomes).any(|finding| finding.severity > Severity::Note);
    match output {
        Output::Table => tell_raw!("{}", table(&outcomes)),
        Output::Json => {
            let (service, site) = subject.map(|(service, site)| (service.name.as_str(), site.name.as_str())).unzip();
            let report = Report { schema_version: SCHEMA_VERSION, ok, service, site, checks: &outcomes };
            match serde_json::to_string_pretty(&report) {
                Ok(json) => tell!("{json}"),
                Err(error) => say!("ubique: {error}"),
            }
        }
    }
    if ok { Exit::Fine } else { Exit::Findings }
}

fn choose<'a>(service: &'a Service, name: Option<&str>) -> Result<&'a Site, String> {
    let names = || service.sites.iter().map(|site| site.name.as_str()).collect::<Vec<_>>().join(", ");
    match (name, service.sites.as_slice()) {
        (Some(name), _) => service.site(name).ok_or_else(|| format!("no site {name:?}; the file has {}", names())),
        (None, [only]) => Ok(only),
        (None, _) => Err(format!("which site is this? Add --site, one of {}", names())),
    }
}

fn kind(router: RouterKind) -> upstream::Router {
    match router {
        RouterKind::Bird => upstream::Router::Bird,
        RouterKind::Frr => upstream::Router::Frr,
        RouterKind::Junos => upstream::Router::Junos,
        RouterKind::IosXr => upstream::Router::IosXr,
    }
}

fn findings(outcomes: &[Outcome]) -> impl Iterator<Item = &Finding> {
    outcomes.iter().flat_map(|outcome| &outcome.findings)
}

/// A line for each check, and below it what was found with its cure.
fn table(outcomes: &[Outcome]) -> String {
    let mut text = String::new();
    for outcome in outcomes {
        let worst = outcome.findings.iter().map(|finding| finding.severity).max();
        let word = match (worst, outcome.unknown.is_empty()) {
            (Some(severity), _) => severity_word(severity),
            (None, true) => "ok",
            (None, false) => "?",
        };
        text.push_str(&format!("{word:<8} {:<16} {}\n", outcome.check, outcome.about));
        for Finding { severity, message, fix, .. } in &outcome.findings {
            text.push_str(&format!("{:9}{}: {message}\n{:9}fix: {fix}\n", "", severity_word(*severity), ""));
        }
        for why in &outcome.unknown {
            text.push_str(&format!("{:9}not looked at: {why}\n", ""));
        }
    }
    let count = |severity| findings(outcomes).filter(|finding| finding.severity == severity).count();
    let (errors, warnings, notes) = (count(Severity::Error), count(Severity::Warning), count(Severity::Note));
    text.push_str(&format!("\n{errors} errors, {warnings} warnings, {notes} notes\n"));
    text
}

fn severity_word(severity: Severity) -> &'static str {
    match severity {
        Severity::Note => "note",
        Severity::Warning => "warning",
        Severity::Error => "error",
    }
}
