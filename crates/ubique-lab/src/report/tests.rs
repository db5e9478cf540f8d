//! The report and its renderings, on the fixture.

use super::fixture::report;
use super::live::{LiveRow, LiveSite, LiveState};
use super::*;

#[test]
fn json_goes_round() {
    let report = report();
    let json = serde_json::to_string(&report).unwrap();
    assert_eq!(serde_json::from_str::<Report>(&json).unwrap(), report);
}

#[test]
fn the_json_has_the_documented_shape() {
    let json = serde_json::to_value(report()).unwrap();
    assert_eq!(json["schema_version"], 1);
    let landing = &json["phases"][2]["catchments"]["198.51.100.53"]["London"];
    assert_eq!((&landing["site"], &landing["as_path"][1]), (&"nyc".into(), &64500.into()));
    assert_eq!(json["faults"][0]["moved_to"]["London"], "nyc");
    assert_eq!(json["timeline"]["lanes"]["London"][0][0], LOST);
    assert_eq!(json["surprises"][0]["reason"], "decision");
    assert_eq!(json["links"][0]["relation"], "customer");
}

/// Every key of the JSON is in its documentation.
#[test]
fn every_key_is_documented() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/rehearse-json.md");
    let docs = std::fs::read_to_string(path).unwrap();
    fn keys(value: &serde_json::Value, path: &str, out: &mut Vec<String>) {
        // Keys of these are names and addresses.
        let names =
            ["catchments", "outage_ms", "moved_to", "lanes", "sites", "how", "198.51.100.53", "2001:db8:53::53"]
                .contains(&path);
        match value {
            serde_json::Value::Object(map) => map.iter().for_each(|(key, value)| {
                if !names {
                    out.push(key.clone());
                }
                keys(value, key, out);
            }),
            serde_json::Value::Array(items) => items.iter().for_each(|item| keys(item, "", out)),
            _ => {}
        }
    }
    let mut all = Vec::new();
    keys(&serde_json::to_value(report()).unwrap(), "", &mut all);
    let missing: std::collections::BTreeSet<_> = all.iter().filter(|k| !docs.contains(&format!("`{k}`"))).collect();
    assert!(all.len() > 100 && missing.is_empty(), "not in docs/rehearse-json.md: {missing:?}");
}

#[test]
fn the_text_says_what_matters() {
    let text = text(&report(), 100, false);
    for part in [
        "Converged in 3.39 s.",
        "kill-service lon (kill) at 4.400 s",
        "outage median 10.0 ms, worst 15.0 ms; 6 queries lost",
        "Frankfurt",
        "→ nyc",
        "AS64715 chose [AS64616 AS64500] over\n    [AS64621 AS64615 AS64500]: AS path 2 < 3",
        "Sessions: 0 of 32 lost, longest wait 81.5 ms; 1.0 MB compared",
        "Without the data plane, right: 6 of 32 lost (6 reset)",
        "  kill                            0/8  81.5 ms        6/8  81.5 ms\n",
        "  Johannesburg    tcp-short       0/8  81.5 ms        3/8  81.5 ms\n",
        "Expectations: 2 of 3 hold",
        "✗ freeze: outage-worst should be at most 9 s, is 9.10 s",
        "doubtful",
        "✗ Failed.",
    ] {
        assert!(text.contains(part), "{part:?} is not in:\n{text}");
    }
    assert!(!text.contains('\x1b') && !text.contains('\u{a0}'));
}

#[test]
fn the_text_fits_its_width() {
    for width in [40, 60, 80, 120] {
        for line in text(&report(), width, false).lines() {
            // The lines of a fault are tables, which only names make wide.
            assert!(line.chars().count() <= width.max(72), "{width}: {line:?}");
        }
    }
}

#[test]
fn colours_only_add_escape_sequences() {
    let mut plain = String::new();
    let mut escape = false;
    for c in text(&report(), 90, true).chars() {
        match (escape, c) {
            (false, '\x1b') => escape = true,
            (true, 'm') => escape = false,
            (true, _) => {}
            (false, c) => plain.push(c),
        }
    }
    assert_eq!(plain, text(&report(), 90, false));
}

#[test]
fn an_empty_report_renders() {
    let mut empty = report();
    empty.phases.clear();
    empty.faults.clear();
    empty.events.clear();
    empty.surprises.clear();
    empty.expectations.clear();
    (empty.sessions, empty.control) = (Some(SessionsReport::default()), None);
    empty.timeline = Timeline::default();
    empty.service.addresses.clear();
    empty.convergence_ms = None;
    empty.verdict = Verdict { ok: true, failed: vec![] };
    assert!(text(&empty, 0, true).contains("Everything held"));
    assert!(html(&empty).contains("Never converged."));
}

#[test]
fn the_page_is_self_contained_and_safe() {
    let mut hostile = report();
    hostile.service.name = "</script><script>alert(1)</script>{{script}}<!--".into();
    hostile.events[0].text = "]]> \u{2028} & <img src=x onerror=alert(1)>".into();
    let page = html(&hostile);
    assert_eq!(page.matches("<script").count(), 3, "a name made a script element");
    assert_eq!(page.matches("</script>").count(), 3);
    assert!(!page.contains("<img") && !page.contains("<!--") && !page.contains('\u{2028}'));
    assert!(page.contains("default-src 'none'"));
    let urls: Vec<_> = page.match_indices("://").collect();
    assert_eq!(urls.len(), 1, "only the name of the SVG namespace is a URL");
    let json = page.split_once("id=\"report\">").unwrap().1.split_once("</script>").unwrap().0;
    assert_eq!(serde_json::from_str::<Report>(json).unwrap(), hostile);
    if let Some(path) = std::env::var_os("UBIQUE_PAGE") {
        std::fs::write(path, html(&report())).unwrap();
    }
}

/// Base64 (RFC 4648) of 32 bytes.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().fold(0u32, |w, b| w << 8 | u32::from(*b)) << (8 * (3 - chunk.len()));
        let digits = (0..=chunk.len()).map(|i| char::from(ALPHABET[(word >> (18 - 6 * i) & 63) as usize]));
        text.extend(digits);
        text.extend(std::iter::repeat_n('=', 3 - chunk.len()));
    }
    text
}

#[test]
fn the_policy_lets_the_script_run() {
    use std::io::Write;
    use std::process::{Command, Stdio};
    let Ok(mut sum) = Command::new("sha256sum").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn() else {
        eprintln!("skipped: sha256sum is not installed (Debian: coreutils)");
        return;
    };
    let page = html(&report());
    let script = page.split_once("<script>").unwrap().1.split_once("</script>").unwrap().0;
    sum.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
    let hex = String::from_utf8(sum.wait_with_output().unwrap().stdout).unwrap();
    let bytes: Vec<u8> = (0..32).map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap()).collect();
    assert_eq!(super::html::SCRIPT_DIGEST, base64(&bytes), "page.js has changed: put this digest in html.rs");
    assert!(page.contains(&format!("script-src 'sha256-{}'", base64(&bytes))));
}

fn live_state() -> LiveState {
    let r = report();
    let row = |(i, v): (usize, &VantageInfo)| LiveRow {
        vantage: v.name.clone(),
        site: (v.name != "London").then_some(i % 6),
        rtt_ms: Some(i as f64 * 13.7),
        lost: if v.name == "London" { 7 } else { 0 },
        moved_ms: (i == 3).then_some(100.0),
    };
    LiveState {
        title: "quickstart · scenario quickstart · embedded routers".into(),
        step: "kill-service lon".into(),
        elapsed_ms: 4412.0,
        sites: r.sites.iter().map(|s| LiveSite { name: s.name.clone(), down: s.name == "lon" }).collect(),
        rows: r.vantage_points.iter().enumerate().map(row).collect(),
    }
}

#[test]
fn the_live_table_keeps_its_height_and_width() {
    let state = live_state();
    let mut silent = state.clone();
    silent.rows.iter_mut().for_each(|row| row.site = None);
    for width in [30, 50, 80, 120] {
        let lines = live::lines(&state, width, false);
        assert_eq!(live::lines(&silent, width, true).len(), lines.len(), "the state changes the height");
        for line in &lines {
            assert!(line.chars().count() <= width, "{width}: {line:?}");
        }
    }
}

#[test]
fn an_event_is_one_line_without_control_characters() {
    let text = "agent of site lon ended: exit status: 1\nlog \u{1b}[2J".to_string();
    let event = Event { at_ms: 4412.0, text: format!("\u{1b}]0;x\u{7}{text}"), kind: EventKind::Warning };
    let line = live::event_line(&event, 60, false);
    assert!(line.ends_with("agent of site lon ended: exit status: 1"), "{line:?}");
    assert!(!line.chars().any(char::is_control), "{line:?}");
    assert!(live::event_line(&event, 30, false).chars().count() <= 30);
}

#[test]
fn the_live_table_shows_who_lands_where() {
    let lines = live::lines(&live_state(), 100, false);
    let line = |name: &str| lines.iter().find(|l| l.starts_with(name)).unwrap();
    assert!(line("São Paulo").contains("→41 ms"), "a move is marked");
    assert!(line("London").contains("silent") && line("London").ends_with('7'));
    assert!(line("clients").ends_with("1 silent"));
    let last = report().events.into_iter().next_back().unwrap();
    assert!(live::event_line(&last, 100, false).contains("hold timer of tyo expired"));
    let narrow = live::lines(&live_state(), 40, false);
    assert!(narrow.iter().any(|l| l.contains("A nyc 0.0 ms")), "{narrow:?}");
}
