//! `ubique routes` as a user types it, against the pages an agent tells. The agent's side, with BIRD, is tested in
//! `ubique-node`: `routes_are_told_in_pages`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;

use serde_json::{Value, json};
use ubique_node::admin::{Announced, Direction, Place, Request, RouteView, RoutesPage, RoutesRequest, SCHEMA_VERSION};

/// What the agent knows: every form of a line.
fn routes() -> Vec<RouteView> {
    let plain = RouteView {
        direction: Direction::Received,
        peer: "192.0.2.1".parse().unwrap(),
        asn: ubique_model::Asn(65000),
        prefix: "203.0.113.0/24".parse().unwrap(),
        path_id: 0,
        next_hop: "192.0.2.1".parse().ok(),
        as_path: "65000 64999".into(),
        origin: "igp".into(),
        med: None,
        local_pref: None,
        communities: vec![],
        large_communities: vec![],
        extended_communities: vec![],
        best: true,
        step: None,
        stale: None,
        since: Some("2026-11-21T12:00:00Z".into()),
        age_s: Some(7_300),
        announced: None,
    };
    let v6 = RouteView {
        peer: "2001:db8:ffff:1::1".parse().unwrap(),
        prefix: "2001:db8:1234::/48".parse().unwrap(),
        path_id: 3,
        next_hop: "2001:db8:ffff:1::1".parse().ok(),
        origin: "incomplete".into(),
        med: Some(50),
        communities: vec!["65000:100".into(), "65000:200".into()],
        large_communities: vec!["65000:1:2".into()],
        best: false,
        step: Some("AS path 2 > 1".into()),
        stale: Some("restart".into()),
        age_s: Some(59),
        ..plain.clone()
    };
    let sent = RouteView {
        direction: Direction::Sent,
        prefix: "198.51.100.0/24".parse().unwrap(),
        next_hop: "192.0.2.2".parse().ok(),
        as_path: "64500".into(),
        best: false,
        since: None,
        age_s: None,
        announced: Some(Announced::Acknowledged),
        ..plain.clone()
    };
    let pending =
        RouteView { prefix: "198.51.101.0/24".parse().unwrap(), announced: Some(Announced::Pending), ..sent.clone() };
    vec![plain, v6, sent, pending]
}

/// An agent that answers one call of the program, and what it was asked.
struct Agent {
    socket: PathBuf,
    thread: JoinHandle<Vec<RoutesRequest>>,
}

impl Agent {
    fn start() -> Agent {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let socket = std::env::temp_dir().join(format!("ubique-routes-{}-{number}", std::process::id()));
        let listener = UnixListener::bind(&socket).unwrap();
        Agent { socket, thread: std::thread::spawn(move || answer(&listener)) }
    }

    /// Runs the program; what it said, and what the agent was asked.
    fn ask(self, arguments: &[&str]) -> (i32, String, String, Vec<RoutesRequest>) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ubique"));
        command.arg("routes").arg("--socket").arg(&self.socket).args(arguments).env("NO_COLOR", "1");
        let Output { status, stdout, stderr } = command.output().unwrap();
        // Whoever hangs up without a word ends the agent.
        drop(std::os::unix::net::UnixStream::connect(&self.socket));
        let asked = self.thread.join().unwrap();
        std::fs::remove_file(&self.socket).unwrap();
        (status.code().unwrap(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap(), asked)
    }
}

fn answer(listener: &UnixListener) -> Vec<RoutesRequest> {
    let mut asked: Vec<RoutesRequest> = vec![];
    loop {
        let (mut stream, _) = listener.accept().unwrap();
        let mut line = String::new();
        BufReader::new(&stream).read_line(&mut line).unwrap();
        if line.is_empty() {
            return asked;
        }
        let Request::Routes(which) = serde_json::from_str(&line).unwrap() else { panic!("{line}") };
        let wanted = |r: &RouteView| {
            which.direction.is_none_or(|d| d == r.direction)
                && which.peer.is_none_or(|p| p == r.peer)
                && which.prefix.is_none_or(|p| p == r.prefix)
                && which.address.is_none_or(|a| r.prefix.contains(&a))
        };
        let all: Vec<RouteView> = routes().into_iter().filter(wanted).collect();
        // One route a page; the place says how many were told.
        let told = which.after.map_or(0, |place| place.peer);
        assert_eq!(told as usize, asked.len(), "page by page");
        let next = (told as usize + 1 < all.len()).then_some(Place {
            direction: Direction::Received,
            peer: told + 1,
            prefix: None,
        });
        let routes = all.into_iter().skip(told as usize).take(1).collect();
        let page = RoutesPage { schema_version: SCHEMA_VERSION, routes, next };
        writeln!(stream, "{}", serde_json::to_string(&page).unwrap()).unwrap();
        asked.push(which);
    }
}

#[test]
fn the_table_shows_what_there_is_and_only_that() {
    let (code, out, err, asked) = Agent::start().ask(&[]);
    let expected = "\x20 prefix               from ← or to →        next hop              age  AS path
> 203.0.113.0/24       ← 192.0.2.1           192.0.2.1              2h  65000 64999
  2001:db8:1234::/48   ← 2001:db8:ffff:1::1  2001:db8:ffff:1::1    59s  65000 64999
      AS path 2 > 1, stale: restart, path 3, MED 50, origin incomplete
      communities 65000:100 65000:200
      large communities 65000:1:2
  198.51.100.0/24      → 192.0.2.1           192.0.2.2                  64500
  198.51.101.0/24      → 192.0.2.1           192.0.2.2                  64500
      pending
";
    assert_eq!((code, out.as_str(), err.as_str()), (0, expected, ""), "{out}");
    assert_eq!(asked.len(), 4, "page by page");
    assert!(out.lines().all(|line| line.chars().count() <= 90), "{out}");
}

#[test]
fn what_is_typed_is_what_is_asked_for() {
    let none = RoutesRequest::default;
    let cases = [
        ("203.0.113.0/24", RoutesRequest { prefix: "203.0.113.0/24".parse().ok(), ..none() }),
        ("203.0.113.9/24", RoutesRequest { prefix: "203.0.113.0/24".parse().ok(), ..none() }),
        ("203.0.113.7", RoutesRequest { address: "203.0.113.7".parse().ok(), ..none() }),
        ("2001:db8:1234::7", RoutesRequest { address: "2001:db8:1234::7".parse().ok(), ..none() }),
        ("--received", RoutesRequest { direction: Some(Direction::Received), ..none() }),
        ("--sent", RoutesRequest { direction: Some(Direction::Sent), ..none() }),
        ("--peer=192.0.2.1", RoutesRequest { peer: "192.0.2.1".parse().ok(), ..none() }),
    ];
    for (argument, expected) in cases {
        let (code, out, err, asked) = Agent::start().ask(&[argument]);
        assert_eq!((code, &asked[0]), (0, &expected), "{argument}: {out}{err}");
        let received = out.lines().skip(1).any(|line| line.contains('←'));
        assert_eq!(received, expected.direction != Some(Direction::Sent), "{argument}: {out}");
    }
}

#[test]
fn json_is_one_object_and_says_whether_it_is_all() {
    let (code, out, err, _) = Agent::start().ask(&["--output", "json"]);
    let json: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, err.as_str(), &json["schema_version"], &json["complete"]), (0, "", &json!(1), &json!(true)));
    let read: Vec<RouteView> = serde_json::from_value(json["routes"].clone()).unwrap();
    assert_eq!(read, routes());
    let (code, out, err, asked) = Agent::start().ask(&["--output", "json", "--limit", "2"]);
    let json: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, json["routes"].as_array().unwrap().len(), &json["complete"]), (0, 2, &json!(false)));
    assert!(err.contains("stopped after 2 routes") && asked.len() == 2, "{err}");
    // Just as many as there are is all.
    let (_, out, err, _) = Agent::start().ask(&["--output", "json", "--limit", "4"]);
    assert_eq!((&serde_json::from_str::<Value>(&out).unwrap()["complete"], err.as_str()), (&json!(true), ""));
}

#[test]
fn nothing_found_is_an_exit_code() {
    let (code, out, err, _) = Agent::start().ask(&["9.9.9.9"]);
    assert_eq!((code, out.as_str(), err.as_str()), (1, "", "no route\n"));
    let (code, out, _, _) = Agent::start().ask(&["9.9.9.0/24", "--output", "json"]);
    assert_eq!((code, serde_json::from_str::<Value>(&out).unwrap()["routes"].clone()), (1, json!([])));
    let (code, _, _, _) = Agent::start().ask(&["--peer", "192.0.2.77"]);
    assert_eq!(code, 0, "an agent without routes is no finding");
}
