//! `ubique routes`: what an agent has received and sent.

use std::net::IpAddr;
use std::path::PathBuf;

use ubique_model::Prefix;
use ubique_node::admin::{self, Announced, Direction, Reply, Request, RouteView, RoutesRequest};

use crate::Exit;
use crate::admin::socket;
use crate::arguments::{AgentArguments, Color, Output, RoutesArguments};
use crate::run::chain;
use crate::say::{say, tell, tell_raw};

/// `ubique routes`.
pub fn routes(arguments: &RoutesArguments, output: Output, color: Color) -> Exit {
    let (path, mut which) = match ask(arguments, color) {
        Ok(ask) => ask,
        Err(exit) => return exit,
    };
    let mut shown = 0;
    loop {
        let page = match admin::request(&path, &Request::Routes(which.clone())) {
            Ok(Reply::Routes(page)) => page,
            Ok(_) => return Exit::CouldNotRun,
            Err(error) => {
                say!("ubique: {}", chain(&error));
                return Exit::CouldNotRun;
            }
        };
        let room = if arguments.limit == 0 { u64::MAX } else { arguments.limit - shown };
        for route in page.routes.iter().take(usize::try_from(room).unwrap_or(usize::MAX)) {
            show(route, output, shown);
            shown += 1;
        }
        let more = page.next.is_some() || page.routes.len() as u64 > room;
        if page.next.is_none() || shown == arguments.limit {
            end(output, shown, more);
            return if shown == 0 && (which.prefix.is_some() || which.address.is_some()) {
                Exit::Findings
            } else {
                Exit::Fine
            };
        }
        which.after = page.next;
    }
}

/// Whom to ask, and what.
fn ask(arguments: &RoutesArguments, color: Color) -> Result<(PathBuf, RoutesRequest), Exit> {
    let (mut file, mut prefix, mut address) = (None, None, None);
    for target in &arguments.targets {
        if let Ok(wanted) = target.parse::<Prefix>() {
            prefix = Some(wanted.trunc());
        } else if let Ok(wanted) = target.parse::<IpAddr>() {
            address = Some(wanted);
        } else if PathBuf::from(target).exists() {
            file = Some(PathBuf::from(target));
        } else {
            say!("ubique: {target:?} is neither a file nor a prefix (198.51.100.0/24) nor an address (198.51.100.53)");
            return Err(Exit::BadInput);
        }
    }
    if file.is_none() && arguments.socket.is_none() {
        say!("ubique: name a service file or --socket; see `ubique routes --help`");
        return Err(Exit::BadInput);
    }
    let agent = AgentArguments { file, site: arguments.site.clone(), socket: arguments.socket.clone() };
    let received = arguments.received.then_some(Direction::Received);
    let direction = received.or(arguments.sent.then_some(Direction::Sent));
    Ok((socket(&agent, color)?, RoutesRequest { prefix, address, peer: arguments.peer, direction, after: None }))
}

fn show(route: &RouteView, output: Output, before: u64) {
    match output {
        Output::Json => {
            let start = if before == 0 {
                format!("{{\"schema_version\":{},\"routes\":[\n", admin::SCHEMA_VERSION)
            } else {
                ",\n".into()
            };
            tell_raw!("{start}{}", serde_json::to_string(route).unwrap_or_else(|_| "null".to_owned()));
        }
        Output::Table => {
            if before == 0 {
                tell!("  {:<20} {:<21} {:<19} {:>5}  AS path", "prefix", "from ← or to →", "next hop", "age");
            }
            tell!("{}", row(route));
        }
    }
}

fn end(output: Output, shown: u64, more: bool) {
    if output == Output::Json {
        let start = if shown == 0 {
            format!("{{\"schema_version\":{},\"routes\":[", admin::SCHEMA_VERSION)
        } else {
            "\n".into()
        };
        tell!("{start}],\"complete\":{}}}", !more);
    }
    if more {
        say!("stopped after {shown} route{}: --limit 0 shows all", if shown == 1 { "" } else { "s" });
    } else if shown == 0 {
        say!("no route");
    }
}

/// One line, and below it what else is to be said.
fn row(route: &RouteView) -> String {
    let arrow = if route.direction == Direction::Received { '←' } else { '→' };
    let mark = if route.best { '>' } else { ' ' };
    let next_hop = route.next_hop.map_or(String::new(), |a| a.to_string());
    let age = route.age_s.map_or(String::new(), age);
    let path = if route.as_path.is_empty() { "(ours)" } else { &route.as_path };
    let (prefix, peer) = (route.prefix.to_string(), route.peer.to_string());
    let mut text = format!("{mark} {prefix:<20} {arrow} {peer:<19} {next_hop:<19} {age:>5}  {path}");
    for part in details(route) {
        text.push_str(&format!("\n      {part}"));
    }
    text
}

fn details(route: &RouteView) -> Vec<String> {
    let mut parts = vec![];
    let announced = match route.announced {
        None | Some(Announced::Acknowledged) => None,
        Some(other) => serde_json::to_value(other).ok().and_then(|v| v.as_str().map(str::to_owned)),
    };
    let why = [route.step.clone(), route.stale.as_ref().map(|s| format!("stale: {s}")), announced];
    let mut why: Vec<String> = why.into_iter().flatten().collect();
    why.extend((route.path_id > 0).then(|| format!("path {}", route.path_id)));
    why.extend(route.med.map(|med| format!("MED {med}")));
    why.extend(route.local_pref.map(|preference| format!("local preference {preference}")));
    why.extend((route.origin != "igp").then(|| format!("origin {}", route.origin)));
    if !why.is_empty() {
        parts.push(why.join(", "));
    }
    let lists =
        [("", &route.communities), ("large ", &route.large_communities), ("extended ", &route.extended_communities)];
    for (kind, list) in lists.into_iter().filter(|(_, list)| !list.is_empty()) {
        parts.push(format!("{kind}communities {}", list.join(" ")));
    }
    parts
}

/// Seconds as `59s`, `59m`, `23h` or `400d`.
fn age(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m", seconds / 60),
        3_600..86_400 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}
