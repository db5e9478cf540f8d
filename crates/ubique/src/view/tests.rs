//! Screens of fixed statuses.

use jiff::Timestamp;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use serde_json::{Value, json};
use ubique_node::admin::Status;

use super::live::{View, compose, draw};
use super::screen::Screen;
use super::*;

fn now() -> Timestamp {
    "2026-11-21T14:00:00Z".parse().unwrap()
}

fn check(name: &str, up: bool, last: &str) -> Value {
    json!({ "name": name, "kind": "dns", "up": up, "since": "2026-11-21T13:57:00.000Z", "cause": "", "last_result": last,
        "polls": 12_345, "failures": 3, "p50_ms": 0.25, "p99_ms": 1.0 })
}

fn peer(address: &str, state: &str, announced: &str) -> Value {
    json!({ "asn": 1299, "address": address, "relation": "transit", "state": state, "since": "2026-11-20T11:00:00.000Z",
        "hold_time_s": 9, "prefixes": [{ "prefix": "198.51.100.0/24", "announced": announced }],
        "last_error": if state == "established" { Value::Null } else { json!("cannot connect: Connection refused") },
        "messages": { "received": 5, "sent": 5 } })
}

fn status(state: &str, checks: Vec<Value>, peers: Vec<Value>) -> Status {
    let healthy = checks.iter().all(|c| c["up"] == true);
    let event = |time: &str, what: &str| json!({ "time": time, "what": what, "cause": "all 2 checks are up" });
    serde_json::from_value(json!({
        "schema_version": 1, "version": "1.0.0", "service": "resolver", "site": "ams", "state": state,
        "since": "2026-11-21T11:55:00.000Z", "cause": "all 2 checks are up", "healthy": healthy, "level": "healthy",
        "checks": checks, "peers": peers,
        "events": [
            event("2026-11-20T09:00:00.000Z", "site starting"),
            { "time": "2026-11-21T11:50:00.000Z", "what": "drain requested", "cause": "new disks", "who": "alice (uid 1000, pid 7)" },
            event("2026-11-21T11:55:00.000Z", "site announced"),
        ],
    }))
    .unwrap()
}

fn good() -> Status {
    let checks = vec![check("answers", true, "ok"), check("answers6", true, "ok")];
    status(
        "announced",
        checks,
        vec![peer("192.0.2.1", "established", "acknowledged"), peer("2001:db8::1", "established", "acknowledged")],
    )
}

fn bad() -> Status {
    let checks = vec![check("answers", false, "timeout after 80 ms"), check("answers6", true, "ok")];
    status(
        "unhealthy",
        checks,
        vec![peer("192.0.2.1", "established", "withdrawing"), peer("2001:db8::1", "active", "no")],
    )
}

fn text(lines: &[Line]) -> String {
    lines.iter().map(|line| line.paint(false) + "\n").collect()
}

fn whole(screen: &Screen) -> Vec<Line> {
    let panels = [&screen.checks, &screen.upstreams, &screen.events];
    let rows = panels.iter().flat_map(|p| std::iter::once(p.head.clone()).chain(p.rows.iter().map(|r| r.line.clone())));
    screen.verdict.iter().chain(&screen.notes).cloned().chain(rows).collect()
}

#[test]
fn a_site_that_is_well_fits_into_eighty_columns() {
    let expected = "\
● resolver at ams  announced, acknowledged by all 2 upstreams
  for 2 h 5 min, since 11:55:00 UTC: all 2 checks are up

CHECK     KIND  STATE    FOR     P50     P99   FAILED  LAST RESULT
answers   dns   up     3 min  0.2 ms  1.0 ms  3/12345  ok
answers6  dns   up     3 min  0.2 ms  1.0 ms  3/12345  ok

UPSTREAM            SESSION          FOR  PREFIXES  BFD  LAST ERROR
AS1299 192.0.2.1    established  1 d 3 h       1/1  –
AS1299 2001:db8::1  established  1 d 3 h       1/1  –

TIME         EVENT            WHY
11-20 09:00  site starting    all 2 checks are up
11:50:00     drain requested  alice (uid 1000, pid 7) · new disks
11:55:00     site announced   all 2 checks are up
";
    assert_eq!(text(&compose(&screen(&good(), now(), 80), 40)), expected);
}

#[test]
fn a_site_that_is_not_says_so_first() {
    let seen = text(&compose(&screen(&bad(), now(), 100), 40));
    let first = seen.lines().next().unwrap();
    assert_eq!(first, "✗ resolver at ams  withdrawn: not healthy");
    for expected in
        ["answers   dns   down", "timeout after 80 ms", "0-1/1", "active", "cannot connect: Connection refused"]
    {
        assert!(seen.contains(expected), "{expected} not in\n{seen}");
    }
    let no_upstream = status("announced", vec![], vec![peer("192.0.2.1", "active", "pending")]);
    let first = screen(&no_upstream, now(), 100).verdict.remove(0);
    assert_eq!(first.paint(false), "✗ resolver at ams  meant to be announced, but no upstream has it");
    assert_eq!(first.0.last().unwrap().tone, Tone::Bad);
}

#[test]
fn the_verdict_says_how_and_to_how_many_it_is_announced() {
    let seen = |change: fn(&mut Status)| {
        let mut status = good();
        change(&mut status);
        let first = screen(&status, now(), 120).verdict.remove(0);
        (first.0.last().unwrap().tone, first.paint(false).split_once("ams  ").unwrap().1.to_owned())
    };
    assert_eq!(seen(|_| {}).0, Tone::Good);
    let degraded = seen(|s| s.stance = Some("degraded, shedding by 1".into()));
    assert_eq!(degraded, (Tone::Warn, "announced as degraded, shedding by 1, acknowledged by all 2 upstreams".into()));
    let half = seen(|s| s.peers[1].state = "active".into());
    assert_eq!(half, (Tone::Warn, "announced, acknowledged by 1 of 2 upstreams".into()));
    let one = seen(|s| s.peers.truncate(1));
    assert_eq!(one, (Tone::Good, "announced, acknowledged by its upstream".into()));
    let last = seen(|s| s.state = ubique_proto::site::State::LastResort);
    assert_eq!(last.0, Tone::Bad);
}

#[test]
fn no_line_is_wider_than_the_terminal() {
    for status in [good(), bad()] {
        for room in 1..220 {
            for line in whole(&screen(&status, now(), room)) {
                assert!(line.width() <= room, "{room}: {:?}", line.paint(false));
            }
        }
        // What is no terminal gets all of it.
        assert!(text(&whole(&screen(&status, now(), usize::MAX))).contains("alice (uid 1000, pid 7) · new disks"));
    }
}

#[test]
fn drains_actions_and_budgets_are_told_above_the_tables() {
    let mut status = good();
    status.state = ubique_proto::site::State::Draining;
    status.flap = Some(ubique_node::admin::FlapStatus { left_ratio: 0.2, text: "flap budget 1200 of 6000".into() });
    status.guard = Some("another site is seen".into());
    status.actions = serde_json::from_value(json!([{ "id": 3, "what": { "kind": "blackhole", "prefix": "198.51.100.53/32" },
        "text": "blackhole 198.51.100.53/32", "who": "alice (uid 1000, pid 7)", "reason": "flood", "since": "", "until": "",
        "left_s": 725, "upstreams": [] }]))
    .unwrap();
    status.drain =
        serde_json::from_value(json!({ "schema_version": 1, "site": "ams", "who": "bob (uid 0)", "reason": "disks",
        "stage": "leaving", "began": "", "lasted_s": 14.0, "stage_s": 12.5, "within_s": 60.0,
        "before": { "packets_per_s": 5000.0, "connections": null }, "now": { "packets_per_s": 12.0, "connections": 3 },
        "gone": false, "gone_after_s": null,
        "senders": [{ "prefix": "203.0.113.0/24", "packets_per_s": 12.0, "asn": 64511 }] }))
        .unwrap();
    let expected = "
  drain    leaving for 12 s, 5000 → 12 packets/s · bob (uid 0): disks; still sending: 203.0.113.0/24 (AS64511)
  action   #3 blackhole 198.51.100.53/32, 12 min left · alice (uid 1000, pid 7): flood
  guard    another site is seen
  flaps    ██░░░░░░░░ flap budget 1200 of 6000
";
    assert_eq!(format!("\n{}", text(&screen(&status, now(), 120).notes)), expected);
}

#[test]
fn whether_connections_survive_is_told() {
    let seen = |sessions: Value| {
        let mut status = good();
        status.sessions = serde_json::from_value(sessions).unwrap();
        format!("\n{}", text(&screen(&status, now(), 120).notes))
    };
    let fra =
        json!({ "name": "fra", "number": 3, "address": "192.0.2.9", "up": true, "since": "", "round_trip_ms": 9.6 });
    let nrt = json!({ "name": "nrt", "number": 4, "address": "192.0.2.10", "up": false, "since": "" });
    let well = seen(json!({ "state": "native", "tcp": "timestamp", "number": 41, "adopted": false, "decisions": {},
        "interfaces": [{ "name": "eth0", "mode": "native" }], "sites": [fra], "without_timestamps_ratio": 0.04 }));
    let expected = "
  sessions TCP by timestamp, on eth0 (native); fra up 9.6 ms; 4 % of new ones without timestamps
";
    assert_eq!(well, expected);
    let ill = seen(json!({ "state": "off", "tcp": "off", "number": 41, "adopted": false, "decisions": {},
        "interfaces": [], "sites": [nrt], "hands_over_to": "fra", "troubles": [{ "what": "secret", "why": "it is short" }] }));
    let expected = "
  sessions off: connections do not survive a route change; nrt down; new connections go to fra
  sessions secret: it is short
";
    assert_eq!(ill, expected);
}

#[test]
fn a_long_cause_takes_lines_of_its_own() {
    let mut status = bad();
    status.cause = "one two three four five six seven eight nine ten eleven twelve".into();
    let seen = text(&screen(&status, now(), 46).verdict);
    let expected = "\
✗ resolver at ams  withdrawn: not healthy
  for 2 h 5 min, since 11:55:00 UTC: one two
  three four five six seven eight nine ten
  eleven twelve
";
    assert_eq!(seen, expected);
    status.cause = status.cause.repeat(5);
    let seen = text(&screen(&status, now(), 46).verdict);
    assert!(seen.lines().count() == 4 && seen.ends_with("…\n"), "three lines are enough:\n{seen}");
}

#[test]
fn what_others_say_cannot_drive_the_terminal() {
    let mut status = bad();
    let evil = "bye\u{1b}]0;owned\u{7}\u{1b}[2J\r\n\u{202e}moc";
    status.cause = evil.into();
    status.peers[1].last_error = Some(evil.into());
    status.checks[0].last_result = Some(evil.into());
    status.events[0].what = evil.into();
    status.events[1].who = Some(evil.into());
    let seen = text(&whole(&screen(&status, now(), usize::MAX)));
    let obeyed = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
    assert!(!seen.contains(obeyed), "{seen:?}");
    assert!(seen.contains("bye ]0;owned"));
    let colours = |line: &Line| line.paint(true).replace("\u{1b}[0m", "");
    let painted: String = whole(&screen(&status, now(), 100)).iter().map(colours).collect();
    assert!(painted.contains("\u{1b}[1;31m") && !painted.contains("\u{1b}[2J"));
}

/// The window as text.
fn window(view: &View, columns: u16, rows: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(columns, rows)).unwrap();
    terminal.draw(|frame| draw(frame, view, now())).unwrap();
    let buffer = terminal.backend().buffer().clone();
    let row = |y| (0..columns).map(|x| buffer[(x, y)].symbol()).collect::<String>().trim_end().to_owned() + "\n";
    (0..rows).map(row).collect()
}

fn view(status: Option<Status>) -> View {
    View { status: status.map(Box::new), error: None, fetched: Some(now()), help: false, color: true }
}

#[test]
fn a_window_shows_what_is_not_well_when_there_is_no_room_for_all() {
    let mut checks: Vec<Value> = (0..64).map(|n| check(&format!("check-{n}"), true, "ok")).collect();
    checks[50] = check("check-50", false, "timeout after 80 ms");
    let mut peers: Vec<Value> = (1..60).map(|n| peer(&format!("192.0.2.{n}"), "established", "acknowledged")).collect();
    peers[40] = peer("192.0.2.41", "active", "no");
    let seen = window(&view(Some(status("unhealthy", checks, peers))), 80, 24);
    for expected in ["check-50", "192.0.2.41", "more that are well", "site announced", "q quit", "14:00:00 UTC"] {
        assert!(seen.contains(expected), "{expected} not in\n{seen}");
    }
    assert_eq!(seen.lines().count(), 24);
}

#[test]
fn every_window_can_be_drawn() {
    let lost = View { error: Some("no agent answers".into()), ..view(Some(bad())) };
    let help = View { help: true, ..view(Some(good())) };
    let none = View { error: Some("no agent answers".into()), fetched: None, ..view(None) };
    for view in [view(Some(good())), view(Some(bad())), view(None), lost, help, none] {
        for columns in (1..40).chain([80, 200]) {
            for rows in (1..30).chain([60]) {
                window(&view, columns, rows);
            }
        }
    }
}

#[test]
fn a_window_says_when_the_agent_is_gone() {
    let fetched = Some("2026-11-21T13:59:48Z".parse().unwrap());
    let gone = View { error: Some("no agent answers on /run/x".into()), fetched, ..view(Some(good())) };
    assert!(window(&gone, 80, 24).contains("no answer for 12 s: no agent answers on /run/x"));
    let help = window(&View { help: true, ..view(Some(good())) }, 80, 24);
    assert!(help.contains("ubique top") && help.contains("ask the agent now"), "{help}");
}
