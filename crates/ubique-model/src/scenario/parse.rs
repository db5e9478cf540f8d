//! From a scenario file to a [`Scenario`], and its comparison with a service and an Internet.

mod session;

use std::collections::BTreeMap;

use toml::Spanned;
use toml::de::DeTable;

use super::{Action, Expect, Scenario, SiteSelector, Step, spec};
use crate::diagnostic::{self as code, Diagnostic, Parsed};
use crate::internet::Internet;
use crate::net::Asn;
use crate::read::MAX_NAME_CHARS;
use crate::read::sink::{At, Finding, Sink, read_file};
use crate::read::table::{TableReader, report_duplicates};
use crate::read::text;
use crate::read::words::{did_you_mean, shorten};
use crate::service::Service;

/// What the names in a scenario refer to.
#[derive(Clone, Copy, Default)]
struct World<'a> {
    service: Option<&'a Service>,
    internet: Option<&'a Internet>,
}

impl World<'_> {
    fn check_vantage(&self, table: &TableReader<'_>, name: &At<String>) {
        if let Some(internet) = self.internet
            && !internet.vantages.iter().any(|v| v.name == name.value)
        {
            let known = internet.vantages.iter().map(|v| v.name.as_str());
            let message = format!("the Internet has no vantage point \"{}\"", shorten(&name.value));
            let finding = Finding::new(code::UNKNOWN_VANTAGE, message).fix(did_you_mean(&name.value, known));
            table.sink().report(&name.span, finding);
        }
    }

    fn check_network(&self, table: &TableReader<'_>, asn: &At<Asn>) {
        let named = |service: &Service| service.sites.iter().flat_map(|s| &s.upstreams).any(|u| u.asn == asn.value);
        if let Some(internet) = self.internet
            && !internet.networks.iter().any(|n| n.asn == asn.value)
            && !self.service.is_some_and(named)
        {
            let message = format!("the Internet has no network AS{}", asn.value);
            let finding = Finding::new(code::UNKNOWN_ASN, message);
            table.sink().report(&asn.span, finding.fix("write the AS number of an [[as]] entry"));
        }
    }
}

impl Scenario {
    /// Reads a scenario file; `file_name` is repeated in the diagnostics.
    pub fn parse(file_name: &str, text: &[u8]) -> Parsed<Scenario> {
        read_file(file_name, text, |sink, root| build(sink, root, World::default()))
    }

    /// What the scenario file names that the service or the Internet lacks: sites of steps and expectations, and
    /// vantage points. `text` is the file the scenario was parsed from; only findings beyond [`Scenario::parse`].
    pub fn check_against(
        service: &Service,
        internet: Option<&Internet>,
        file_name: &str,
        text: &[u8],
    ) -> Vec<Diagnostic> {
        let world = World { service: Some(service), internet };
        let parsed = read_file(file_name, text, |sink, root| build(sink, root, world));
        let beyond = [code::UNKNOWN_SITE, code::UNKNOWN_VANTAGE, code::UNKNOWN_ASN, code::NOTHING_TO_CONTROL];
        let beyond = beyond.map(|code| code.code);
        parsed.diagnostics.into_iter().filter(|d| beyond.contains(&d.code.as_str())).collect()
    }
}

fn build(sink: &Sink<'_>, root: &Spanned<DeTable<'_>>, world: World<'_>) -> Option<Scenario> {
    let root = TableReader::root(sink, &spec::FILE, root);
    let name = root.text("name", text::name);
    let internet = root.text("internet", text::path);
    let query_every = root.duration("query-every");
    let tables = root.tables("step");
    if tables.is_empty() {
        let finding = Finding::new(code::NO_STEP, "the scenario has no step");
        let fix = "begin with [[step]] action = \"converge\"";
        sink.report_absent(&root.span_of("step"), finding.fix(fix));
    }
    let sessions = session::read(&root, world);
    let has_sessions = root.has("session");
    let mut steps =
        Steps { world, has_sessions, with_site: BTreeMap::new(), uses: BTreeMap::new(), labels: Vec::new() };
    let read: Vec<Option<Step>> = tables.iter().map(|table| steps.read(table)).collect();
    report_duplicates(sink, "step label", &steps.labels);
    Some(Scenario {
        name: name?.value,
        internet: internet.map(|at| at.value),
        query_every: query_every?.value,
        sessions: sessions?,
        steps: read.into_iter().collect::<Option<Vec<Step>>>()?,
    })
}

/// Reads steps in order, since later ones refer to earlier ones.
struct Steps<'a> {
    world: World<'a>,
    /// There is a `[[session]]`.
    has_sessions: bool,
    /// Label → whether the step has a site.
    with_site: BTreeMap<String, bool>,
    /// Action → how often it was used.
    uses: BTreeMap<&'static str, usize>,
    labels: Vec<At<String>>,
}

impl Steps<'_> {
    fn read(&mut self, table: &TableReader<'_>) -> Option<Step> {
        let label = self.label(table);
        let observe = table.duration("for");
        let site = table.variant().filter(|v| acts_on_site(v)).and_then(|_| self.site(table));
        let expect = table.table("expect").map(|t| self.expect(&t, table.variant())).unwrap_or_default();
        let action = match table.variant() {
            Some("crowd") => self.crowd(table),
            Some("divert") => self.divert(table),
            name => name.and_then(|name| action(name, table, site)),
        };
        if let Some(label) = &label {
            let has_site = table.variant().is_none_or(acts_on_site);
            self.with_site.insert(label.value.clone(), has_site);
            self.labels.push(label.clone());
        }
        Some(Step { label: label?.value, action: action?, observe: observe?.value, expect })
    }

    fn label(&mut self, table: &TableReader<'_>) -> Option<At<String>> {
        let written = table.text("label", text::name);
        let action = table.variant();
        let uses = action.map(|name| {
            let uses = self.uses.entry(name).or_default();
            *uses += 1;
            *uses
        });
        if table.has("label") {
            return written;
        }
        let value = match (action?, uses?) {
            (name, 1) => name.to_owned(),
            (name, n) => format!("{name}-{n}"),
        };
        Some(At { value, span: table.span_of("action") })
    }

    fn site(&self, table: &TableReader<'_>) -> Option<SiteSelector> {
        let at = table.text("site", |word| self.selector(word))?;
        if let SiteSelector::Named(name) = &at.value {
            self.check_site(table, &At { value: name.clone(), span: at.span.clone() });
        }
        Some(at.value)
    }

    fn selector(&self, word: &str) -> Result<SiteSelector, Finding> {
        if word == "busiest" {
            return Ok(SiteSelector::Busiest);
        }
        if let Some(label) = word.strip_prefix('@') {
            return match self.with_site.get(label) {
                Some(true) => Ok(SiteSelector::SameAs(label.to_owned())),
                Some(false) => Err(Finding::new(code::UNKNOWN_LABEL, format!("step \"{label}\" has no site"))
                    .fix("refer to a step whose action has a site")),
                None => {
                    let known = self.with_site.iter().filter(|(_, has_site)| **has_site).map(|(l, _)| l.as_str());
                    let message = format!("no earlier step is labelled \"{}\"", shorten(label));
                    let finding = Finding::new(code::UNKNOWN_LABEL, message);
                    Err(if known.clone().next().is_none() {
                        finding.cause("no earlier step has a site").fix("use \"busiest\" or the name of a site")
                    } else {
                        finding.fix(did_you_mean(label, known))
                    })
                }
            };
        }
        text::name(word).map(SiteSelector::Named).map_err(|_| {
            Finding::new(code::BAD_SELECTOR, format!("\"{}\" selects no site", shorten(word))).fix(format!(
                "use \"busiest\", a site's name (a-z, 0-9, `-`, at most {MAX_NAME_CHARS}), or \"@LABEL\" of an earlier step"
            ))
        })
    }

    fn check_site(&self, table: &TableReader<'_>, name: &At<String>) {
        let Some(service) = self.world.service else {
            return;
        };
        if service.site(&name.value).is_none() {
            let message = format!("the service \"{}\" has no site \"{}\"", service.name, name.value);
            let known = service.sites.iter().map(|s| s.name.as_str());
            let finding = Finding::new(code::UNKNOWN_SITE, message).fix(did_you_mean(&name.value, known));
            table.sink().report(&name.span, finding);
        }
    }

    fn crowd(&self, table: &TableReader<'_>) -> Option<Action> {
        let vantage = table.text("vantage", text::free);
        let times = table.integer("times").and_then(|at| u32::try_from(at.value).ok());
        if let Some(vantage) = &vantage {
            self.world.check_vantage(table, vantage);
        }
        Some(Action::Crowd { vantage: vantage?.value, times: times? })
    }

    fn divert(&self, table: &TableReader<'_>) -> Option<Action> {
        let network = table.asn("network");
        let to = table.asn("to");
        for asn in [&network, &to].into_iter().flatten() {
            self.world.check_network(table, asn);
        }
        Some(Action::Divert { network: network?.value, to: to.map(|at| at.value) })
    }

    /// Expectations of sessions need some, and a control run something that it does without.
    fn check_sessions(&self, table: &TableReader<'_>) {
        let keys = ["sessions-lost", "sessions-stall", "control-lost"];
        for key in keys.into_iter().filter(|key| table.has(key) && !self.has_sessions) {
            let finding = Finding::new(code::EXPECTATION_WITHOUT_SESSIONS, format!("`{key}` needs a [[session]]"));
            let fix = "add [[session]] kind = \"tcp\", or remove it";
            table.sink().report(&table.span_of(key), finding.fix(fix));
        }
        let key = "control-lost";
        if table.has(key) && self.world.service.is_some_and(|service| service.sessions.is_none()) {
            let finding = Finding::new(code::NOTHING_TO_CONTROL, "`control-lost`, and the service has no [sessions]")
                .cause("the control run is the same scenario without the data plane, which this service does not have");
            let fix = "add [sessions] to the service file, or remove it";
            table.sink().report(&table.span_of(key), finding.fix(fix));
        }
    }

    fn expect(&self, table: &TableReader<'_>, action: Option<&'static str>) -> Expect {
        let mut lands = BTreeMap::new();
        for (vantage, site) in table.map("lands") {
            self.check_site(table, &site);
            self.world.check_vantage(table, &vantage);
            lands.insert(vantage.value, site.value);
        }
        if let Some(action) = action.filter(|a| !acts_on_site(a)) {
            for key in ["outage-median", "evacuated"].into_iter().filter(|key| table.has(key)) {
                let message = format!("`{key}` needs a site, and \"{action}\" has none");
                let finding = Finding::new(code::EXPECTATION_WITHOUT_SITE, message);
                table.sink().report(&table.span_of(key), finding.fix("move it to a step with a site, or remove it"));
            }
        }
        self.check_sessions(table);
        let count = |key| table.integer(key).and_then(|at| u64::try_from(at.value).ok());
        Expect {
            outage_median: table.duration("outage-median").map(|at| at.value),
            outage_worst: table.duration("outage-worst").map(|at| at.value),
            lost: count("lost"),
            sessions_lost: count("sessions-lost"),
            sessions_stall: table.duration("sessions-stall").map(|at| at.value),
            control_lost: count("control-lost"),
            answered: table.boolean("answered").map(|at| at.value),
            evacuated: table.boolean("evacuated").map(|at| at.value),
            lands,
        }
    }
}

fn acts_on_site(action: &str) -> bool {
    !matches!(action, "converge" | "wait" | "crowd" | "divert")
}

fn action(name: &str, table: &TableReader<'_>, site: Option<SiteSelector>) -> Option<Action> {
    match name {
        "converge" => {
            return Some(Action::Converge { within: table.duration("within")?.value });
        }
        "wait" => return Some(Action::Wait),
        _ => {}
    }
    let site = site?;
    Some(match name {
        "kill-service" => Action::KillService { site },
        "hang-service" => Action::HangService { site },
        "fail-check" => Action::FailCheck { site },
        "pass-check" => Action::PassCheck { site },
        "resume-service" => Action::ResumeService { site },
        "start-service" => Action::StartService { site },
        "kill-agent" => Action::KillAgent { site },
        "stop-agent" => Action::StopAgent { site },
        "start-agent" => Action::StartAgent { site },
        "drain" => Action::Drain { site },
        "undrain" => Action::Undrain { site },
        "freeze-site" => Action::FreezeSite { site },
        "thaw-site" => Action::ThawSite { site },
        "cut-site" => Action::CutSite { site },
        "restore-site" => Action::RestoreSite { site },
        _ => return None,
    })
}
