//! `ubique status` and `undrain`: asking an agent.

use std::path::PathBuf;

use jiff::Timestamp;
use ubique_model::service::Service;
use ubique_node::admin::{self, Reply, Request, Status};

use crate::Exit;
use crate::arguments::{AgentArguments, Color, Output, UndrainArguments};
use crate::check::load_without_warnings;
use crate::run::chain;
use crate::say::{say, tell, tell_raw};
use crate::view::{Line, screen};

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
        Output::Table => tell_raw!("{}", page(&status, room(), color.stdout)),
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
        Ok(reply) => {
            if let Reply::Done { warning: Some(warning) } = reply {
                say!("ubique: {warning}");
            }
            match output {
                Output::Json => tell!("{{\"schema_version\":{},\"ok\":true}}", admin::SCHEMA_VERSION),
                Output::Table => say!("{done}: {}", arguments.reason),
            }
            Exit::Fine
        }
        Err(exit) => exit,
    }
}

pub(crate) fn ask(arguments: &AgentArguments, request: &Request, color: Color) -> Result<Reply, Exit> {
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

/// The screen as a text: all rows, the last events, cut to the width of a terminal.
fn page(status: &Status, room: usize, color: bool) -> String {
    let screen = screen(status, Timestamp::now(), room);
    let mut lines = screen.verdict;
    lines.extend(screen.notes);
    for panel in [&screen.checks, &screen.upstreams] {
        lines.push(Line::default());
        lines.push(panel.head.clone());
        lines.extend(panel.rows.iter().map(|row| row.line.clone()));
    }
    if !screen.events.rows.is_empty() {
        lines.push(Line::default());
        lines.push(screen.events.head.clone());
        lines.extend(screen.events.last(EVENTS_SHOWN));
    }
    lines.iter().map(|line| line.paint(color) + "\n").collect()
}

/// Columns of the terminal; what is no terminal gets whole lines.
fn room() -> usize {
    let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok();
    size.map(|size| usize::from(size.ws_col)).filter(|&columns| columns > 0).unwrap_or(usize::MAX)
}

/// The word a value serialises to.
fn word<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_value(value).ok().and_then(|v| v.as_str().map(str::to_string)).unwrap_or_default()
}
