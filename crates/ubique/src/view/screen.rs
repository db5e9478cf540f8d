//! From a status to lines.

use jiff::Timestamp;
use ubique_model::policy::Level;
use ubique_node::admin::{
    Announced, CheckStatus, DrainView, Event, PeerStatus, SenderView, SessionsSite, SessionsStatus, SessionsTrouble,
    Status, TrafficView,
};
use ubique_proto::site::State;

use super::table::{Cell, lay_out, left, right};
use super::time::{age, duration, milliseconds, moment};
use super::{Line, Tone, clean};

/// Networks named that still send to a site being drained.
const SENDERS: usize = 3;

/// Columns before the text of a note.
const NAME: usize = 11;

/// Most lines of a cause or a note.
const LINES: usize = 3;

/// A flap budget is shown when less of it is left.
const FLAP_SHOWN: f64 = 0.995;

/// It is low when less is left.
const FLAP_LOW: f64 = 0.25;

/// A table with its head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Panel {
    /// Names of the columns.
    pub head: Line,
    /// One for each thing.
    pub rows: Vec<Row>,
}

/// A row of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// As it is shown.
    pub line: Line,
    /// How well the thing is: those that are not are shown when there is no room for all.
    pub tone: Tone,
}

/// What there is to see, in the order of importance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Screen {
    /// What the site does, and why.
    pub verdict: Vec<Line>,
    /// Budgets, guards and what operators asked for; often nothing.
    pub notes: Vec<Line>,
    /// The checks.
    pub checks: Panel,
    /// The upstreams.
    pub upstreams: Panel,
    /// What happened, oldest first.
    pub events: Panel,
}

/// The screen of a status, in lines of at most `room` columns.
pub fn screen(status: &Status, now: Timestamp, room: usize) -> Screen {
    Screen {
        verdict: verdict(status, now, room),
        notes: notes(status).into_iter().flat_map(|line| line.wrap(room, NAME, LINES)).collect(),
        checks: checks(status, now, room),
        upstreams: upstreams(status, now, room),
        events: events(&status.events, now, room),
    }
}

/// How many upstreams have every prefix that is theirs to have, of how many.
fn reach(status: &Status) -> (usize, usize) {
    let has_all = |peer: &&PeerStatus| {
        peer.state == "established"
            && !peer.prefixes.is_empty()
            && peer.prefixes.iter().all(|p| p.announced == Announced::Acknowledged)
    };
    let wanted = status.peers.iter().filter(|p| !p.prefixes.is_empty());
    (wanted.clone().filter(has_all).count(), wanted.count())
}

/// What the site does, in few words: read back from the sessions, not from intent.
fn judgement(status: &Status) -> (Tone, String) {
    let (have, all) = reach(status);
    let upstreams = |n: usize| if n == 1 { "upstream" } else { "upstreams" };
    match status.state {
        State::Announced if have == 0 => (Tone::Bad, "meant to be announced, but no upstream has it".to_owned()),
        State::Announced => {
            let (well, how) = match status.stance.as_deref().filter(|stance| *stance != "healthy") {
                Some(stance) => (false, format!("announced as {stance}")),
                None => (true, "announced".to_owned()),
            };
            let by = match (have == all, all) {
                (true, 1) => "its".to_owned(),
                (true, all) => format!("all {all}"),
                (false, all) => format!("{have} of {all}"),
            };
            let tone = if well && have == all { Tone::Good } else { Tone::Warn };
            (tone, format!("{how}, acknowledged by {by} {}", upstreams(all)))
        }
        State::Draining => (Tone::Warn, "draining: upstreams are asked to move traffic away".to_owned()),
        State::Drained => (Tone::Warn, "drained: withdrawn until `ubique undrain`".to_owned()),
        State::LastResort if have == 0 => (Tone::Bad, "last resort, and no upstream has it".to_owned()),
        State::LastResort => {
            (Tone::Bad, "announced as the last resort: not healthy, but no other site is in sight".to_owned())
        }
        State::Held => (Tone::Warn, "held back: healthy, not announced yet".to_owned()),
        State::Unhealthy => (Tone::Bad, "withdrawn: not healthy".to_owned()),
        State::Starting => (Tone::Warn, "starting: nothing is announced yet".to_owned()),
        State::Stopping => (Tone::Warn, "stopping: withdrawn, stragglers are served".to_owned()),
        State::Removing | State::Stopped => (Tone::Warn, "stopped".to_owned()),
    }
}

fn verdict(status: &Status, now: Timestamp, room: usize) -> Vec<Line> {
    let (tone, words) = judgement(status);
    let mark = match tone {
        Tone::Good => "●",
        Tone::Bad => "✗",
        _ => "▲",
    };
    let name = format!("{} at {}", status.service, status.site);
    let first = Line::of(tone, format!("{mark} ")).and(Tone::Strong, name).and(Tone::Plain, "  ").and(tone, words);
    let since = format!("  for {}, since {} UTC: ", age(&status.since, now), moment(&status.since, now));
    let second = Line::of(Tone::Dim, since).and(Tone::Plain, &status.cause);
    let mut lines = vec![first.cut(room)];
    lines.extend(second.wrap(room, 2, LINES));
    lines
}

/// What is out of the ordinary, each on a line of its own.
fn notes(status: &Status) -> Vec<Line> {
    let note = |tone, name: &str, text: &str| Line::of(Tone::Dim, format!("  {name:<9}")).and(tone, text);
    let mut notes = Vec::new();
    let stance = status.stance.as_deref().filter(|stance| *stance != "healthy");
    notes.extend(stance.map(|stance| note(Tone::Warn, "told as", stance)));
    notes.extend(status.not_kept.as_deref().map(|why| note(Tone::Bad, "not kept", why)));
    for group in status.groups.iter().filter(|group| group.level != Level::Healthy) {
        let text = format!(
            "{}: {} of {} up, {} needed to be healthy, {} to be degraded: {}",
            group.name, group.up, group.weight, group.healthy, group.degraded, group.level
        );
        notes.push(note(if group.level == Level::Failed { Tone::Bad } else { Tone::Warn }, "group", &text));
    }
    notes.extend(status.overloaded.as_deref().map(|why| note(Tone::Warn, "overload", why)));
    notes.extend(
        status
            .drain
            .as_deref()
            .filter(|drain| !drain.is_over())
            .map(|drain| note(Tone::Warn, "drain", &drained(drain))),
    );
    if let Some(sessions) = status.sessions.as_deref() {
        let (tone, text) = sessions_note(sessions);
        notes.push(note(tone, "sessions", &text));
        let why =
            |trouble: &SessionsTrouble| note(Tone::Bad, "sessions", &format!("{}: {}", trouble.what, trouble.why));
        notes.extend(sessions.troubles.iter().map(why));
    }
    for action in &status.actions {
        let left = i64::try_from(action.left_s).unwrap_or(i64::MAX);
        let text =
            format!("#{} {}, {} left · {}: {}", action.id, action.text, duration(left), action.who, action.reason);
        notes.push(note(Tone::Warn, "action", &text));
    }
    notes.extend(status.guard.as_deref().map(|guard| note(Tone::Plain, "guard", guard)));
    notes.extend(status.not_kept.as_deref().map(|why| note(Tone::Warn, "not kept", why)));
    if let Some(flap) = status.flap.as_ref().filter(|flap| flap.left_ratio < FLAP_SHOWN) {
        let tone = if flap.left_ratio < FLAP_LOW { Tone::Bad } else { Tone::Warn };
        let text = Line::of(Tone::Dim, format!("  {:<9}", "flaps")).and(tone, bar(flap.left_ratio));
        notes.push(text.and(Tone::Plain, format!(" {}", flap.text)));
    }
    notes
}

/// Where a drain is: what still comes, and from whom.
fn drained(drain: &DrainView) -> String {
    let stage = serde_json::to_value(drain.stage).ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default();
    let mut text = format!("{stage} for {}", duration(drain.stage_s as i64));
    let rate = |at: &Option<TrafficView>| at.as_ref().map(|t| format!("{:.0}", t.packets_per_s));
    if let (Some(before), Some(now)) = (rate(&drain.before), rate(&drain.now)) {
        text += &format!(", {before} → {now} packets/s");
    }
    text += &format!(" · {}: {}", drain.who, drain.reason);
    let sender = |s: &SenderView| match s.asn {
        Some(asn) => format!("{} (AS{asn})", s.prefix),
        None => s.prefix.to_string(),
    };
    let senders: Vec<String> = drain.senders.iter().take(SENDERS).map(sender).collect();
    if !senders.is_empty() {
        text += &format!("; still sending: {}", senders.join(", "));
    }
    text
}

/// Whether connections survive a route change, and where to.
fn sessions_note(sessions: &SessionsStatus) -> (Tone, String) {
    let interfaces: Vec<String> = sessions.interfaces.iter().map(|i| format!("{} ({})", i.name, i.mode)).collect();
    let by = match sessions.tcp.as_str() {
        "off" => "TCP not protected".to_owned(),
        tcp => format!("TCP by {tcp}"),
    };
    let mut text = match interfaces.is_empty() {
        true if sessions.state == "adopting" => {
            "taking over from the former agent, whose programs are at work".to_owned()
        }
        true => "off: connections do not survive a route change".to_owned(),
        false => format!("{by}, on {}", interfaces.join(" ")),
    };
    let site = |site: &SessionsSite| match (site.up, site.round_trip_ms) {
        (Some(true), Some(ms)) => format!("{} up {}", site.name, milliseconds(ms)),
        (Some(true), None) => format!("{} up", site.name),
        (Some(false), _) => format!("{} down", site.name),
        (None, _) => format!("{} not known yet", site.name),
    };
    let sites: Vec<String> = sessions.sites.iter().map(site).collect();
    text += &format!("; {}", sites.join(", "));
    match (&sessions.hands_over_to, &sessions.hands_over_wanted) {
        (Some(to), _) => text += &format!("; new connections go to {to}"),
        (None, Some(wanted)) => {
            text += &format!("; new connections are to go to {wanted}, which is not known to be up")
        }
        (None, None) => {}
    }
    if let Some(share) = sessions.without_timestamps_ratio {
        text += &format!("; {:.0} % of new ones without timestamps", share * 100.0);
    }
    let well = sessions.troubles.is_empty() && sessions.sites.iter().all(|site| site.up == Some(true));
    (
        if interfaces.is_empty() {
            Tone::Bad
        } else if well {
            Tone::Plain
        } else {
            Tone::Warn
        },
        text,
    )
}

/// Ten cells, filled as far as there is something left.
fn bar(ratio: f64) -> String {
    let filled = (ratio.clamp(0.0, 1.0) * 10.0).round() as usize;
    "█".repeat(filled) + &"░".repeat(10 - filled)
}

fn checks(status: &Status, now: Timestamp, room: usize) -> Panel {
    let columns = [
        left("CHECK", 9, 32),
        left("KIND", 2, 10),
        left("STATE", 9, 10),
        right("FOR", 4, 12),
        right("P50", 5, 8),
        right("P99", 6, 8),
        right("FAILED", 3, 18),
        left("LAST RESULT", 9, usize::MAX),
    ];
    let cells: Vec<Vec<Cell>> = status.checks.iter().map(|check| check_cells(check, now)).collect();
    let tones = status.checks.iter().map(|check| if check.up { Tone::Good } else { Tone::Bad });
    panel(lay_out(&columns, &cells, room), tones)
}

fn check_cells(check: &CheckStatus, now: Timestamp) -> Vec<Cell> {
    let state = if check.up { (Tone::Good, "up") } else { (Tone::Bad, "down") };
    let ms = |ms: Option<f64>| (Tone::Plain, ms.map_or_else(|| "–".to_owned(), milliseconds));
    let failed = format!("{}/{}", check.failures, check.polls);
    let failing = if check.failures > 0 { Tone::Plain } else { Tone::Dim };
    let last = match check.last_result.as_deref() {
        Some("ok") => (Tone::Dim, "ok".to_owned()),
        Some(error) if check.up => (Tone::Warn, clean(error)),
        Some(error) => (Tone::Bad, clean(error)),
        None => (Tone::Dim, "no poll has ended yet".to_owned()),
    };
    vec![
        (Tone::Plain, check.name.clone()),
        (Tone::Dim, check.kind.clone()),
        (state.0, state.1.to_owned()),
        (Tone::Plain, age(&check.since, now)),
        ms(check.p50_ms),
        ms(check.p99_ms),
        (failing, failed),
        last,
    ]
}

fn upstreams(status: &Status, now: Timestamp, room: usize) -> Panel {
    let columns = [
        left("UPSTREAM", 9, 46),
        left("SESSION", 9, 11),
        right("FOR", 4, 12),
        right("PREFIXES", 8, 10),
        left("BFD", 5, 14),
        left("LAST ERROR", 9, usize::MAX),
    ];
    let cells: Vec<Vec<Cell>> = status.peers.iter().map(|peer| peer_cells(peer, now)).collect();
    let tones = status.peers.iter().map(peer_tone);
    panel(lay_out(&columns, &cells, room), tones)
}

fn is_bfd_up(peer: &PeerStatus) -> bool {
    peer.bfd.as_ref().is_none_or(|bfd| matches!(bfd.state.as_str(), "up" | "admindown") && bfd.error.is_none())
}

fn peer_tone(peer: &PeerStatus) -> Tone {
    match peer.state.as_str() {
        "established" if is_bfd_up(peer) => Tone::Good,
        "established" => Tone::Warn,
        _ => Tone::Bad,
    }
}

fn peer_cells(peer: &PeerStatus, now: Timestamp) -> Vec<Cell> {
    let up = peer.state == "established";
    let scope = peer.interface.as_ref().filter(|_| peer.address.to_string().starts_with("fe80:"));
    let name = match scope {
        Some(interface) => format!("AS{} {}%{interface}", peer.asn, peer.address),
        None => format!("AS{} {}", peer.asn, peer.address),
    };
    let bfd = match &peer.bfd {
        None => (Tone::Dim, "–".to_owned()),
        Some(bfd) if bfd.state == "up" => {
            (Tone::Good, bfd.detection_ms.map_or_else(|| "up".to_owned(), |ms| format!("up {ms:.0} ms")))
        }
        Some(bfd) if bfd.state == "admindown" => (Tone::Dim, "admindown".to_owned()),
        Some(bfd) => (if up { Tone::Warn } else { Tone::Bad }, bfd.state.clone()),
    };
    let bfd_error = peer.bfd.as_ref().and_then(|bfd| bfd.error.as_deref()).map(|error| format!("BFD: {error}"));
    let error = bfd_error.or_else(|| peer.last_error.clone()).unwrap_or_default();
    vec![
        (Tone::Plain, clean(&name)),
        (if up { Tone::Good } else { Tone::Bad }, peer.state.clone()),
        (Tone::Plain, age(&peer.since, now)),
        prefixes(peer),
        bfd,
        (if up { Tone::Dim } else { Tone::Bad }, clean(&error)),
    ]
}

/// How many of its prefixes the upstream has acknowledged; what is on its way is said.
fn prefixes(peer: &PeerStatus) -> Cell {
    let count = |what: Announced| peer.prefixes.iter().filter(|p| p.announced == what).count();
    let (all, have, leaving) = (peer.prefixes.len(), count(Announced::Acknowledged), count(Announced::Withdrawing));
    let up = peer.state == "established";
    let on_the_way = if up { count(Announced::Pending) + count(Announced::Sent) } else { 0 };
    match (have, on_the_way, leaving) {
        (have, 0, 0) if have == all && all > 0 => (Tone::Good, format!("{have}/{all}")),
        (0, 0, 0) => (Tone::Dim, format!("0/{all}")),
        (have, 0, 0) => (Tone::Warn, format!("{have}/{all}")),
        (have, way, 0) => (Tone::Warn, format!("{have}+{way}/{all}")),
        (have, _, leaving) => (Tone::Warn, format!("{have}-{leaving}/{all}")),
    }
}

fn events(events: &[Event], now: Timestamp, room: usize) -> Panel {
    let columns = [left("TIME", 5, 11), left("EVENT", 9, 36), left("WHY", 9, usize::MAX)];
    let cells: Vec<Vec<Cell>> = events
        .iter()
        .map(|event| {
            let bad = ["down", "unhealthy", "denied"].iter().any(|word| event.what.ends_with(word));
            let tone = if bad { Tone::Warn } else { Tone::Plain };
            let why = match &event.who {
                Some(who) => format!("{} · {}", clean(who), clean(&event.cause)),
                None => clean(&event.cause),
            };
            vec![(Tone::Dim, moment(&event.time, now)), (tone, clean(&event.what)), (Tone::Dim, why)]
        })
        .collect();
    let tones = events.iter().map(|_| Tone::Good);
    panel(lay_out(&columns, &cells, room), tones)
}

fn panel((head, lines): (Line, Vec<Line>), tones: impl Iterator<Item = Tone>) -> Panel {
    Panel { head, rows: lines.into_iter().zip(tones).map(|(line, tone)| Row { line, tone }).collect() }
}

impl Panel {
    /// The rows that fit into so many lines, with a line that says what is missing. Those that are not well come before
    /// the others, else the order stays.
    pub fn fit(&self, lines: usize) -> Vec<Line> {
        if self.rows.len() <= lines {
            return self.rows.iter().map(|row| row.line.clone()).collect();
        }
        let shown = lines.saturating_sub(1);
        let mut order: Vec<usize> = (0..self.rows.len()).collect();
        order.sort_by_key(|&index| self.rows[index].tone == Tone::Good);
        let (kept, left_out) = order.split_at(shown);
        let mut kept = kept.to_vec();
        kept.sort_unstable();
        let unwell = left_out.iter().filter(|&&index| self.rows[index].tone != Tone::Good).count();
        let mut lines: Vec<Line> = kept.iter().map(|&index| self.rows[index].line.clone()).collect();
        let tone = if unwell > 0 { Tone::Bad } else { Tone::Dim };
        let wells = left_out.len() - unwell;
        lines.push(Line::of(
            tone,
            match (unwell, wells) {
                (0, wells) => format!("… and {wells} more that are well"),
                (unwell, 0) => format!("… and {unwell} more that are not well"),
                (unwell, wells) => format!("… and {unwell} more that are not well, {wells} that are"),
            },
        ));
        lines
    }

    /// The last rows that fit into so many lines.
    pub fn last(&self, lines: usize) -> Vec<Line> {
        self.rows[self.rows.len().saturating_sub(lines)..].iter().map(|row| row.line.clone()).collect()
    }
}
