//! `ubique drain`: a drain with its stages as they happen, and a report of who still sends.

use std::io::IsTerminal;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ubique_node::admin::{
    self, ClientView, DrainRequest, DrainSessions, DrainView, Reply, Request, RequestError, SCHEMA_VERSION, TrafficView,
};
use ubique_proto::actions::drain::Stage;

use crate::Exit;
use crate::admin::socket;
use crate::arguments::{Color, DrainArguments, Output, Until};
use crate::operator::{agreed, ask};
use crate::say::{say, say_raw, tell, tell_raw};

/// How often the agent is asked.
const ASK_EVERY: Duration = Duration::from_millis(250);

/// How long an agent may be away that is restarted or upgraded meanwhile: it goes on with the drain.
const AWAY_MAX: Duration = Duration::from_secs(60);

/// `ubique drain`.
pub fn drain(arguments: &DrainArguments, output: Output, color: Color) -> Exit {
    let request = match request(arguments) {
        Ok(request) => request,
        Err(exit) => return exit,
    };
    let path = match socket(&arguments.agent, color) {
        Ok(path) => path,
        Err(exit) => return exit,
    };
    let dry = Request::DrainWatched(DrainRequest { dry_run: true, ..request.clone() });
    if let Err(exit) = agreed(&path, &dry, Exit::CouldNotRun, arguments.dry_run, arguments.yes, output) {
        return exit;
    }
    match ask(&path, &Request::DrainWatched(request), Exit::CouldNotRun) {
        Ok(Reply::Drain(view)) => view.warning.iter().for_each(|warning| say!("warning: {warning}")),
        Ok(_) => return Exit::CouldNotRun,
        Err(exit) => return exit,
    }
    if !arguments.detach {
        return watch(&path, output);
    }
    match output {
        Output::Json => tell!("{{\"schema_version\":{SCHEMA_VERSION},\"ok\":true}}"),
        Output::Table => say!("draining: {}; `ubique status` shows how far it is", arguments.reason),
    }
    Exit::Fine
}

fn request(arguments: &DrainArguments) -> Result<DrainRequest, Exit> {
    let within_s = match arguments.until {
        None | Some(Until::Gone) => None,
        Some(Until::After(duration)) => Some(duration.as_secs_f64()),
        Some(Until::At(at)) => {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            let left = Duration::from_secs(at).checked_sub(now).ok_or_else(|| {
                say!("ubique: --until is a time that has passed (UTC)");
                Exit::BadInput
            })?;
            Some(left.as_secs_f64())
        }
    };
    Ok(DrainRequest {
        reason: arguments.reason.clone(),
        within_s,
        until_gone: arguments.until == Some(Until::Gone),
        prepend: arguments.prepend,
        no_hook: arguments.no_hook,
        watch_s: arguments.watch.map(|watch| watch.as_secs_f64()),
        to: arguments.to.clone(),
        dry_run: false,
    })
}

/// Shows the drain until it is over. Whoever interrupts it ends the showing, not the drain.
fn watch(path: &Path, output: Output) -> Exit {
    let live = output == Output::Table && std::io::stderr().is_terminal();
    let mut stage = None;
    loop {
        let view = match progress_of(path, if live && stage.is_some() { "\n" } else { "" }) {
            Ok(view) => view,
            Err(exit) => return exit,
        };
        let news = stage != Some(view.stage);
        match output {
            Output::Json => {
                if news || !view.is_over() {
                    tell!("{}", serde_json::to_string(&view).unwrap_or_default());
                }
            }
            Output::Table if live => {
                say_raw!("{}\r{}\x1b[K", if news && stage.is_some() { "\n" } else { "" }, progress(&view))
            }
            Output::Table if news => say!("{}", progress(&view)),
            Output::Table => {}
        }
        stage = Some(view.stage);
        if view.is_over() {
            if live {
                say!("");
            }
            if output == Output::Table {
                tell_raw!("{}", report(&view));
            }
            return exit(&view);
        }
        std::thread::sleep(ASK_EVERY);
    }
}

/// How far it is, as soon as the agent tells; `end`: of the line on the screen.
fn progress_of(path: &Path, end: &str) -> Result<Box<DrainView>, Exit> {
    let mut away: Option<Instant> = None;
    loop {
        match admin::request(path, &Request::DrainProgress) {
            Ok(Reply::Drain(view)) => return Ok(view),
            Err(RequestError::Connect { .. } | RequestError::Conversation(_))
                if away.is_none_or(|since| since.elapsed() < AWAY_MAX) =>
            {
                if away.is_none() {
                    say!("{end}the agent does not answer: waiting for the next one, which goes on with the drain");
                }
                away.get_or_insert_with(Instant::now);
                std::thread::sleep(ASK_EVERY);
            }
            Ok(_) => return Err(Exit::CouldNotRun),
            Err(_) => return ask(path, &Request::DrainProgress, Exit::CouldNotRun).and(Err(Exit::CouldNotRun)),
        }
    }
}

fn exit(view: &DrainView) -> Exit {
    match (view.stage, view.gone) {
        (Stage::Over, Some(true) | None) => Exit::Fine,
        _ => Exit::Findings,
    }
}

fn progress(view: &DrainView) -> String {
    let mut text = format!("{:>6.1} s  {:<10}", view.lasted_s, view.stage.word());
    match (&view.now, &view.uncounted) {
        (_, Some(why)) => text.push_str(why),
        (Some(now), None) => text.push_str(&traffic(now)),
        (None, None) => {}
    }
    if let Some(sessions) = &view.sessions {
        text.push_str(&connections(view, sessions));
    }
    if view.stage == Stage::Leaving {
        text.push_str(&format!("; withdraws in {:.0} s at the latest", (view.within_s - view.stage_s).max(0.0)));
    }
    text
}

/// New connections, which another site takes, and old ones, which stay until they end.
fn connections(view: &DrainView, sessions: &DrainSessions) -> String {
    let count = |traffic: &Option<TrafficView>| traffic.as_ref().and_then(|traffic| traffic.connections);
    let new = match (&sessions.to, &sessions.wanted) {
        (Some(to), _) => format!("new: {:.0} a second go to {to}, ", sessions.handed_over_per_s),
        (None, Some(wanted)) if view.stage != Stage::Measuring => format!("new: {wanted} is not known to be up, "),
        (None, _) => "new: ".to_owned(),
    };
    let mut text = format!("; {new}{} handed over{}", sessions.handed_over, since(sessions));
    if let Some(open) = count(&view.now) {
        let of = count(&view.before).map_or(String::new(), |before| format!(" of {before}"));
        text.push_str(&format!("; old: {open}{of} open, {} packets by way of others", sessions.forwarded));
    }
    text
}

/// Since when packets are counted, where that is not the begin of the drain.
fn since(sessions: &DrainSessions) -> &'static str {
    if sessions.anew { " since the agent began again" } else { "" }
}

fn traffic(traffic: &TrafficView) -> String {
    let connections = traffic.connections.map_or(String::new(), |count| format!(", {count} connections"));
    format!("{:.1} packets/s{connections}", traffic.packets_per_s)
}

/// Connections that the drain was to wait for and did not see end.
fn open_still(view: &DrainView) -> u64 {
    let open = view.now.as_ref().and_then(|now| now.connections).unwrap_or_default();
    view.sessions.as_ref().map_or(0, |_| open)
}

fn report(view: &DrainView) -> String {
    let mut text = format!("site {} drained by {}: {}\n", view.site, view.who, view.reason);
    if view.stage == Stage::Abandoned {
        text = format!("site {}: the drain was ended before it was over: somebody wanted the site back\n", view.site);
    }
    let unknown = || "not counted".to_owned();
    text.push_str(&format!("  before  {}\n", view.before.as_ref().map_or_else(unknown, traffic)));
    text.push_str(&format!("  now     {}\n", view.now.as_ref().map_or_else(unknown, traffic)));
    let open = open_still(view);
    let gone = match (view.gone, view.gone_after_s, &view.uncounted) {
        (_, _, Some(why)) => format!("not known: {why}"),
        (Some(true), Some(after), _) => format!("the traffic was gone after {after:.1} s"),
        (Some(false), ..) if open > 0 => format!("{open} connections are still open, by way of other sites"),
        (Some(false), ..) => "somebody still sends: an upstream keeps a route that was withdrawn".to_owned(),
        _ => "not known".to_owned(),
    };
    text.push_str(&format!("  took    {:.1} s; {gone}\n", view.lasted_s));
    if let Some(sessions) = &view.sessions {
        let (DrainSessions { handed_over, forwarded, .. }, since) = (sessions, since(sessions));
        text.push_str(&format!(
            "  new     {handed_over} handed over{since}; old: {forwarded} packets by way of others{since}\n"
        ));
        for ClientView { prefix, connections } in sessions.clients.iter().filter(|_| open > 0) {
            text.push_str(&format!("  open    {prefix:<24} {connections} connections\n"));
        }
    }
    if let Some(hook) = &view.hook {
        let end = hook.error.as_deref().map_or("ended well".to_owned(), |error| format!("failed: {error}"));
        text.push_str(&format!("  hook    {end}\n"));
    }
    if view.gone == Some(false) {
        for sender in &view.senders {
            let asn = sender.asn.map_or_else(|| "unknown AS".to_owned(), |asn| format!("AS{asn}"));
            text.push_str(&format!(
                "  sender  {:<24} {asn:<12} {:.1} packets/s\n",
                sender.prefix, sender.packets_per_s
            ));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use ubique_node::admin::SenderView;

    fn view() -> DrainView {
        let traffic = |packets_per_s| Some(TrafficView { packets_per_s, connections: Some(3) });
        DrainView {
            schema_version: SCHEMA_VERSION,
            site: "lon".into(),
            who: "root".into(),
            reason: "disks".into(),
            stage: Stage::Over,
            began: "2026-11-21T08:15:30.000Z".into(),
            lasted_s: 12.34,
            stage_s: 0.1,
            within_s: 60.0,
            before: traffic(5000.0),
            now: traffic(12.5),
            gone: Some(false),
            gone_after_s: None,
            senders: vec![SenderView {
                prefix: "203.0.113.0/24".parse().expect("a prefix"),
                packets_per_s: 12.5,
                asn: Some(ubique_model::Asn(64999)),
            }],
            sessions: None,
            uncounted: None,
            hook: None,
            warning: None,
        }
    }

    fn with_sessions(to: Option<&str>) -> DrainView {
        let clients = vec![ClientView { prefix: "203.0.113.0/24".parse().expect("a prefix"), connections: 3 }];
        let sessions = DrainSessions {
            to: to.map(str::to_owned),
            wanted: Some("fra".into()),
            handed_over: 40,
            handed_over_per_s: 19.6,
            forwarded: 7,
            anew: false,
            clients,
        };
        let before = Some(TrafficView { packets_per_s: 5000.0, connections: Some(12) });
        DrainView { sessions: Some(sessions), before, ..view() }
    }

    /// The agent is away for a moment: nobody answers, then somebody who breaks off, then the next one.
    #[test]
    fn a_restart_of_the_agent_is_waited_for() {
        use std::io::{Read, Write};
        use std::os::unix::net::UnixListener;
        let path = std::env::temp_dir().join(format!("ubique-drain-{}.sock", std::process::id()));
        let (at, reply) = (path.clone(), serde_json::to_string(&view()).expect("JSON"));
        let agent = std::thread::spawn(move || {
            std::thread::sleep(ASK_EVERY);
            let listener = UnixListener::bind(&at).expect("a socket");
            drop(listener.accept().expect("somebody asks"));
            let (mut asks, _) = listener.accept().expect("again");
            let mut octet = [0];
            while asks.read_exact(&mut octet).is_ok() && octet != *b"\n" {}
            asks.write_all(format!("{reply}\n").as_bytes()).expect("an answer");
        });
        assert_eq!(progress_of(&path, "").map(|told| *told), Ok(view()));
        agent.join().expect("it was asked twice");
        std::fs::remove_file(&path).expect("its socket");
    }

    #[test]
    fn where_connections_go_is_shown() {
        let text = progress(&with_sessions(Some("fra")));
        let shown = "new: 20 a second go to fra, 40 handed over; old: 3 of 12 open, 7 packets by way of others";
        assert!(text.contains(shown), "{text}");
        let mut again = with_sessions(Some("fra"));
        again.sessions.iter_mut().for_each(|sessions| sessions.anew = true);
        assert!(report(&again).contains("40 handed over since the agent began again"), "{}", report(&again));
        let text = progress(&with_sessions(None));
        assert!(text.contains("new: fra is not known to be up, 40 handed over"), "{text}");
    }

    #[test]
    fn connections_that_are_still_open_are_named() {
        let text = report(&with_sessions(Some("fra")));
        for part in ["3 connections are still open, by way of other sites", "open    203.0.113.0/24", "40 handed over"]
        {
            assert!(text.contains(part), "{part} not in\n{text}");
        }
        assert!(!text.contains("an upstream keeps a route"), "{text}");
        assert_eq!(exit(&with_sessions(None)), Exit::Findings);
    }

    #[test]
    fn whoever_still_sends_is_named() {
        let text = report(&view());
        for part in
            ["5000.0 packets/s, 3 connections", "somebody still sends", "203.0.113.0/24", "AS64999", "12.5 packets/s"]
        {
            assert!(text.contains(part), "{part} not in\n{text}");
        }
        assert_eq!(exit(&view()), Exit::Findings);
    }

    #[test]
    fn what_is_gone_and_what_was_not_counted() {
        let gone = DrainView { gone: Some(true), gone_after_s: Some(3.2), ..view() };
        assert!(report(&gone).contains("gone after 3.2 s") && !report(&gone).contains("203.0.113.0"));
        assert_eq!(exit(&gone), Exit::Fine);
        let uncounted =
            DrainView { gone: None, uncounted: Some("no CAP_NET_RAW".into()), before: None, now: None, ..view() };
        assert!(report(&uncounted).contains("not known: no CAP_NET_RAW"));
        assert_eq!(exit(&uncounted), Exit::Fine);
        let back = DrainView { stage: Stage::Abandoned, gone: None, ..view() };
        assert_eq!(exit(&back), Exit::Findings);
    }
}
