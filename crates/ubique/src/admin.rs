//! `ubique status` and `undrain`: asking an agent.

use std::path::PathBuf;

use ubique_model::service::Service;
use ubique_node::admin::{self, Announced, Reply, Request, Status};

use crate::Exit;
use crate::arguments::{AgentArguments, Color, Output, UndrainArguments};
use crate::check::load_without_warnings;
use crate::run::chain;
use crate::say::{say, tell, tell_raw};

/// Transitions shown by `status`.
const EVENTS_SHOWN: usize = 8;

/// `ubique status`.
pub fn status(arguments: &AgentArguments, output: Output, color: Color) -> Exit {
    let status = match ask(arguments, &Request::Status, color) {
        Ok(Reply::Status(status)) => status,
        Ok(_) => return Exit::CouldNotRun,
        Err(exit) => return exit,
    };
    match output {
        Output::Json => match serde_json::to_string_pretty(&status) {
            Ok(json) => tell!("{json}"),
            Err(error) => say!("ubique: {error}"),
        },
        Output::Table => tell_raw!("{}", table(&status)),
    }
    if status.healthy { Exit::Fine } else { Exit::Findings }
}

/// `ubique undrain`.
pub fn undrain(arguments: &UndrainArguments, output: Output) -> Exit {
    let request = Request::Undrain { reason: arguments.reason.clone() };
    act(arguments, &request, "announce again once healthy", "undrained", output)
}

fn act(arguments: &UndrainArguments, request: &Request, would: &str, done: &str, output: Output) -> Exit {
    let color = Color { stdout: false, stderr: false };
    if arguments.dry_run {
        return match ask(&arguments.agent, &Request::Status, color) {
            Ok(Reply::Status(status)) => {
                tell!("site {} is {}: would {would}", status.site, word(&status.state));
                Exit::Fine
            }
            Ok(_) => Exit::CouldNotRun,
            Err(exit) => exit,
        };
    }
    match ask(&arguments.agent, request, color) {
        Ok(_) => {
            match output {
                Output::Json => tell!("{{\"schema_version\":{},\"ok\":true}}", admin::SCHEMA_VERSION),
                Output::Table => say!("{done}: {}", arguments.reason),
            }
            Exit::Fine
        }
        Err(exit) => exit,
    }
}

fn ask(arguments: &AgentArguments, request: &Request, color: Color) -> Result<Reply, Exit> {
    let path = socket(arguments, color)?;
    admin::request(&path, request).map_err(|error| {
        say!("ubique: {}", chain(&error));
        Exit::CouldNotRun
    })
}

pub(crate) fn socket(arguments: &AgentArguments, color: Color) -> Result<PathBuf, Exit> {
    if let Some(socket) = &arguments.socket {
        return Ok(socket.clone());
    }
    let Some(file) = &arguments.file else { return Err(Exit::BadInput) };
    let service = load_without_warnings(file, Service::parse, color)?;
    let site = match (&arguments.site, service.sites.as_slice()) {
        (Some(name), _) if service.site(name).is_some() => name.clone(),
        (None, [only]) => only.name.clone(),
        (wanted, sites) => {
            let names: Vec<&str> = sites.iter().map(|s| s.name.as_str()).collect();
            let problem = wanted.as_ref().map_or("say which with --site".into(), |w| format!("there is no {w:?}"));
            say!("ubique: the service has the sites {}: {problem}", names.join(", "));
            return Err(Exit::BadInput);
        }
    };
    Ok(admin::socket_path(&service.agent.socket, &service.name, &site))
}

fn table(status: &Status) -> String {
    let mut text = format!(
        "{} at {}: {} since {}\n  {}\n\n",
        status.service,
        status.site,
        word(&status.state),
        status.since,
        status.cause
    );
    let told = status.stance.as_ref().map(|stance| format!("upstreams are told: {stance}"));
    let overload = status.overload.as_ref().map(|cause| format!("overloaded: {cause}"));
    let guard = status.guard.as_ref().map(|seen| format!("last-site guard: {seen}"));
    for line in [told, overload, guard, status.flap.clone()].into_iter().flatten() {
        text.truncate(text.trim_end().len());
        text.push_str(&format!("\n  {line}\n\n"));
    }
    text.push_str(&format!(
        "{:<24} {:<8} {:<5} {:>9} {:>9}  last result\n",
        "check", "kind", "state", "polls", "failed"
    ));
    for check in &status.checks {
        let state = if check.up { "up" } else { "down" };
        let last = check.last_result.as_deref().unwrap_or("–");
        let (polls, failures) = (check.polls, check.failures);
        text.push_str(&format!("{:<24} {:<8} {state:<5} {polls:>9} {failures:>9}  {last}\n", check.name, check.kind));
    }
    text.push_str(&format!("\n{:<40} {:<12} {:<22} announced\n", "upstream", "session", "since"));
    for peer in &status.peers {
        let name = format!("AS{} {}", peer.asn, peer.address);
        let prefixes: Vec<String> = peer
            .prefixes
            .iter()
            .map(|p| match p.announced {
                Announced::Acknowledged => p.prefix.to_string(),
                other => format!("{} ({})", p.prefix, word(&other)),
            })
            .collect();
        text.push_str(&format!("{name:<40} {:<12} {:<22} {}\n", peer.state, peer.since, prefixes.join(", ")));
        if let Some(bfd) = &peer.bfd {
            let lost = |ms: Option<f64>| ms.map_or("–".to_string(), |ms| format!("{ms:.0} ms"));
            text.push_str(&format!(
                "{:<40} {:<12} {:<22} lost after {}, we after {}; {} discarded; last down: {}\n",
                "  BFD",
                bfd.state,
                bfd.since,
                lost(bfd.detection_ms),
                lost(bfd.neighbour_detection_ms),
                bfd.discarded,
                bfd.diagnostic
            ));
            if let Some(error) = &bfd.error {
                text.push_str(&format!("{:<40} last error: {error}\n", ""));
            }
        }
        if let Some(error) = &peer.last_error {
            text.push_str(&format!("{:<40} last error: {error}\n", ""));
        }
    }
    text.push('\n');
    for event in status.events.iter().rev().take(EVENTS_SHOWN).rev() {
        text.push_str(&format!("{}  {}: {}\n", event.time, event.what, event.cause));
    }
    text
}

/// The word a value serialises to.
fn word<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_value(value).ok().and_then(|v| v.as_str().map(str::to_string)).unwrap_or_default()
}
