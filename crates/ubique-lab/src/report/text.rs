//! The report as text for a terminal.

use super::paint::{Paint, columns, duration, left, letter, moment, right, wrap};
use super::{AgentCost, Fault, Phase, Report, SessionFigures, SessionRow};
use ubique_model::catchment::{Catchment, Landing};

/// Narrowest width laid out for.
const MIN_WIDTH: usize = 40;
/// Columns of sessions: their kind, lost of how many, the longest wait.
const KIND_COLUMN: usize = 9;
const LOST_COLUMN: usize = 9;
const WAIT_COLUMN: usize = 8;
/// Widest column of names.
const MAX_NAME: usize = 24;

/// The whole verdict, lines of at most `width` columns where words allow it, with ANSI colours or without.
pub fn text(report: &Report, width: usize, color: bool) -> String {
    let mut page = Page { report, paint: Paint(color), width: width.max(MIN_WIDTH), out: String::new() };
    page.header();
    page.landings();
    for fault in &report.faults {
        page.fault(fault);
    }
    page.sessions();
    page.surprises();
    page.expectations();
    page.agents();
    page.quality();
    page.verdict();
    page.out
}

struct Page<'a> {
    report: &'a Report,
    paint: Paint,
    width: usize,
    out: String,
}

impl<'a> Page<'a> {
    fn line(&mut self, text: &str) {
        self.out.push_str(text.trim_end());
        self.out.push('\n');
    }

    fn title(&mut self, text: &str) {
        let title = self.paint.bold(text);
        self.line("");
        self.line(&title);
    }

    /// Words, broken at the width, later lines indented.
    fn words(&mut self, indent: usize, text: &str) {
        for (i, line) in wrap(text, self.width.saturating_sub(indent + 2)).iter().enumerate() {
            let space = " ".repeat(if i == 0 { indent } else { indent + 2 });
            self.line(&format!("{space}{line}"));
        }
    }

    fn header(&mut self) {
        let r = self.report;
        self.line(&self.paint.bold(&format!("{} · scenario {}", r.service.name, r.scenario)));
        let addresses: Vec<String> = r.service.addresses.iter().map(ToString::to_string).collect();
        self.words(
            0,
            &format!(
                "{} at {} sites of AS{}, {} vantage points, {} networks, {} routers",
                addresses.join(" and "),
                r.sites.len(),
                r.service.asn,
                r.vantage_points.len(),
                r.networks.len(),
                r.routers
            ),
        );
        match r.convergence_ms {
            Some(ms) => self.line(&format!("Converged in {}.", duration(ms))),
            None => {
                let never = self.paint.loss("Never converged.");
                self.line(&never);
            }
        }
    }

    /// The catchment before the first fault, one line for each site.
    fn landings(&mut self) {
        let Some(phase) = self.calm_phase() else {
            return;
        };
        let Some(catchment) = self.catchment(phase) else {
            return;
        };
        self.title("Who lands where");
        let name_width = self.report.sites.iter().map(|s| columns(&s.name)).max().unwrap_or(0).min(MAX_NAME);
        for (index, site) in self.report.sites.iter().enumerate() {
            let clients: Vec<String> = catchment
                .0
                .iter()
                .filter(|(_, l)| l.site.as_ref() == Some(&site.name))
                .map(|(name, l)| unbroken(format!("{name} {}", rtt(l)).trim_end()))
                .collect();
            let head = format!("  {} {} ", letter(index), left(&site.name, name_width));
            let indent = columns(&head);
            let clients = if clients.is_empty() { "—".to_owned() } else { clients.join(", ") };
            for (i, line) in wrap(&clients, self.width.saturating_sub(indent)).iter().enumerate() {
                let start = if i == 0 { self.paint.site(index, &head) } else { " ".repeat(indent) };
                self.line(&format!("{start}{}", line.replace('\u{a0}', " ")));
            }
        }
        for (name, _) in catchment.0.iter().filter(|(_, l)| l.site.is_none()) {
            let line = self.paint.loss(&format!("  {name}: nobody answers"));
            self.line(&line);
        }
    }

    fn fault(&mut self, fault: &Fault) {
        self.title(&format!("{} {} ({}) at {}", fault.kind, fault.site, fault.label, moment(fault.at_ms)));
        let lost = format!("{} {} lost", fault.lost, if fault.lost == 1 { "query" } else { "queries" });
        let outage = match (fault.median_ms, fault.worst_ms) {
            (Some(median), Some(worst)) => {
                format!("  outage median {}, worst {}; {lost}", duration(median), duration(worst))
            }
            _ => format!("  no vantage point was on the site; {lost}"),
        };
        let outage = if fault.lost == 0 { self.paint.good(&outage) } else { outage };
        self.line(&outage);
        self.clients_of(fault);
    }

    /// One line for each vantage point that was on the site or moved.
    fn clients_of(&mut self, fault: &Fault) {
        let phase = self.report.phases.iter().find(|p| p.label == fault.label);
        let after = phase.and_then(|p| self.catchment(p));
        let nobody = Landing { site: None, rtt_ms: None, as_path: Vec::new() };
        let landing = |name: &String| after.and_then(|c| c.0.get(name)).unwrap_or(&nobody);
        let names = || fault.outage_ms.keys().chain(fault.moved_to.keys());
        let name_width = names().map(|n| columns(n)).max().unwrap_or(0).min(MAX_NAME);
        for (name, outage_ms) in &fault.outage_ms {
            let arrow = self.arrow(fault, name, landing(name));
            let mut line = format!("  {} {}  {arrow}", left(name, name_width), right(&gap(*outage_ms), 9));
            if fault.unrecovered.contains(name) {
                line += &self.paint.loss("  not recovered");
            }
            if fault.doubtful.contains(name) {
                line += &self.paint.dim("  (doubtful: the prober was late)");
            }
            self.line(&line);
        }
        for name in fault.moved_to.keys().filter(|name| !fault.outage_ms.contains_key(*name)) {
            let arrow = self.arrow(fault, name, landing(name));
            let line = format!("  {} {}  {arrow}", left(name, name_width), right("", 9));
            self.line(&line);
        }
    }

    /// `→ lon 34 ms`, or `stays on lon`.
    fn arrow(&self, fault: &Fault, vantage: &str, landing: &Landing) -> String {
        let Some(site) = &landing.site else {
            return self.paint.loss("→ nobody answers");
        };
        let index = self.report.sites.iter().position(|s| s.name == *site).unwrap_or(0);
        let word = if fault.moved_to.contains_key(vantage) { "→" } else { "stays on" };
        format!("{word} {} {}", self.paint.site(index, site), self.paint.dim(&rtt(landing)))
    }

    /// What became of sessions, and beside it what becomes of them without the data plane.
    fn sessions(&mut self) {
        let Some(sessions) = &self.report.sessions else { return };
        let control = self.report.control.as_ref();
        self.title(&format!("Sessions: {}", lost(&sessions.total)));
        if let Some(why) = sessions.without_data_plane() {
            let text = self.paint.loss(&format!("The data plane is not available here: {why}"));
            self.words(2, &text);
        }
        if let Some(control) = control {
            self.words(2, &format!("Without the data plane, right: {}", lost(&control.total)));
        }
        let labels = sessions.steps.iter().map(|step| &step.label);
        let names = labels.chain(sessions.rows.iter().map(|row| &row.vantage)).map(|name| columns(name));
        let width = names.max().unwrap_or(0).min(MAX_NAME);
        let heads = format!("{} {}", right("lost", LOST_COLUMN), right("longest", WAIT_COLUMN));
        let beside = if control.is_some() { format!("  {heads}") } else { String::new() };
        let head = self.paint.dim(&format!("{heads}{beside}"));
        self.line(&format!("  {} {head}", left("", width + 1 + KIND_COLUMN)));
        for step in &sessions.steps {
            let beside = control.and_then(|control| control.step(&step.label));
            self.session_line(&left(&step.label, width), "", &step.figures, beside);
        }
        for row in &sessions.rows {
            let same = |other: &&SessionRow| (&other.vantage, &other.kind) == (&row.vantage, &row.kind);
            let beside = control.and_then(|control| control.rows.iter().find(same)).map(|row| &row.figures);
            self.session_line(&left(&row.vantage, width), &row.kind, &row.figures, beside);
        }
    }

    fn session_line(&mut self, name: &str, kind: &str, figures: &SessionFigures, control: Option<&SessionFigures>) {
        let share = |f: &SessionFigures| right(&format!("{}/{}", f.lost, f.sessions), LOST_COLUMN);
        let wait = |f: &SessionFigures| right(&duration(f.longest_wait_ms), WAIT_COLUMN);
        let lost = if figures.lost == 0 { share(figures) } else { self.paint.loss(&share(figures)) };
        let beside = control.map(|f| format!("  {} {}", share(f), wait(f))).unwrap_or_default();
        let ways = if figures.lost == 0 { String::new() } else { format!("  {}", figures.ways()) };
        let (kind, wait, beside) = (left(kind, KIND_COLUMN), wait(figures), self.paint.dim(&beside));
        self.line(&format!("  {name} {kind} {lost} {wait}{beside}{ways}"));
    }

    fn surprises(&mut self) {
        if self.report.surprises.is_empty() {
            return;
        }
        self.title("Surprises");
        for surprise in &self.report.surprises {
            self.words(2, &surprise.text);
        }
    }

    fn expectations(&mut self) {
        let total = self.report.expectations.len();
        if total == 0 {
            return;
        }
        let good = self.report.expectations.iter().filter(|e| e.ok).count();
        self.title(&format!("Expectations: {good} of {total} hold"));
        for e in self.report.expectations.iter().filter(|e| !e.ok) {
            let mark = self.paint.loss("✗");
            self.line(&format!("  {mark} {}: {} should be {}, is {}", e.step, e.what, e.expected, e.actual));
        }
    }

    /// Memory and processor time of the agents: the most of any.
    fn agents(&mut self) {
        let most = |of: fn(&AgentCost) -> f64| self.report.agents.iter().map(of).fold(0.0, f64::max);
        let (memory, cpu) = (most(|a| a.resident_mib), most(|a| a.cpu_percent));
        if memory > 0.0 {
            self.line("");
            self.words(0, &format!("An agent took at most {memory:.1} MiB of memory and {cpu:.2} % of a core."));
        }
    }

    fn quality(&mut self) {
        let q = self.report.probe;
        self.line("");
        let text = format!(
            "Measured with {} queries, one every {} from each vantage point; the prober was at most {} late (99 %: {}).",
            q.sent,
            duration(q.every_ms),
            duration(q.late_max_ms),
            duration(q.late_p99_ms)
        );
        for line in wrap(&text, self.width) {
            let line = self.paint.dim(&line);
            self.line(&line);
        }
        if q.stalls > 0 {
            self.words(
                0,
                &format!(
                    "The prober stood still {}: this machine is busy, short outages may be artefacts.",
                    if q.stalls == 1 { "once".to_owned() } else { format!("{} times", q.stalls) }
                ),
            );
        }
        if q.dropped > 0 {
            self.words(0, &format!("{} records of the prober were lost: numbers are incomplete.", q.dropped));
        }
    }

    fn verdict(&mut self) {
        self.line("");
        if self.report.verdict.ok {
            let line = self.paint.good("✓ Everything held.");
            self.line(&line);
            return;
        }
        let line = self.paint.loss("✗ Failed.");
        self.line(&line);
        for failed in &self.report.verdict.failed {
            self.words(2, failed);
        }
    }

    /// The last phase before the first fault; without faults the last one.
    fn calm_phase(&self) -> Option<&'a Phase> {
        let phases = &self.report.phases;
        let fault = self.report.faults.first().and_then(|f| phases.iter().position(|p| p.label == f.label));
        phases.get(fault.unwrap_or(phases.len()).checked_sub(1)?)
    }

    fn catchment(&self, phase: &'a Phase) -> Option<&'a Catchment> {
        phase.catchments.get(self.report.service.addresses.first()?)
    }
}

/// `3 of 90 lost (2 reset, 1 timeout), longest wait 400 ms; 12.3 MB compared`.
fn lost(figures: &SessionFigures) -> String {
    let ways = if figures.lost == 0 { String::new() } else { format!(" ({})", figures.ways()) };
    let megabytes = figures.content_bytes as f64 / 1e6;
    let longest = duration(figures.longest_wait_ms);
    format!("{} of {} lost{ways}, longest wait {longest}; {megabytes:.1} MB compared", figures.lost, figures.sessions)
}

/// `34 ms`, or nothing.
fn rtt(landing: &Landing) -> String {
    landing.rtt_ms.map(duration).unwrap_or_default()
}

/// A name that [`wrap`] does not break.
fn unbroken(text: &str) -> String {
    text.replace(' ', "\u{a0}")
}

/// `10.0 ms`, or `none`.
fn gap(ms: f64) -> String {
    if ms > 0.0 { duration(ms) } else { "none".to_owned() }
}
