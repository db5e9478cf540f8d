//! `ubique run`: the agent of a site.

use std::error::Error;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use ubique_model::policy::{Stance, announcements};
use ubique_model::service::{Service, Site};
use ubique_node::agent::{self, AgentOptions, End, Privileges, Rehearsal};

use crate::Exit;
use crate::arguments::{Color, RunArguments};
use crate::check::load;
use crate::logging;
use crate::say::{say, tell, tell_raw};

/// Runs until told to stop.
pub fn run(arguments: &RunArguments, color: Color) -> Exit {
    let service = match load(&arguments.file, Service::parse, color) {
        Ok((service, _)) => service,
        Err(exit) => return exit,
    };
    let Some(site) = service.site(&arguments.site) else {
        let names: Vec<&str> = service.sites.iter().map(|s| s.name.as_str()).collect();
        say!("ubique: {} has no site {:?}; it has {}", arguments.file.display(), arguments.site, names.join(", "));
        return Exit::BadInput;
    };
    if arguments.dry_run {
        dry_run(&service, site);
        return Exit::Fine;
    }
    let mut service = service;
    let rehearsal = arguments.rehearsal.then(|| Rehearsal { secret: arguments.secret.clone() });
    if let Some(rehearsal) = &rehearsal {
        rehearsal.apply(&mut service);
    }
    let options = AgentOptions {
        socket: arguments.socket.clone(),
        // A reload finds it wherever the agent is by then.
        file: std::path::absolute(&arguments.file).ok(),
        rehearsal,
        // Before the log's thread.
        privileges: Some(Privileges::reduce(&service)),
        ..AgentOptions::default()
    };
    let guard = logging::start(arguments.log_json, color.stderr);
    match agent::run(service, &arguments.site, options) {
        Ok(End::Replaced(program)) => {
            drop(guard);
            replace(&program)
        }
        Ok(End::Stopped | End::Hurried) => Exit::Fine,
        Err(error) => {
            say!("ubique: {}", chain(&error));
            Exit::CouldNotRun
        }
    }
}

/// Executes `program` in the place of this one; when that is impossible after all, this one again.
fn replace(program: &Path) -> Exit {
    let mut arguments = std::env::args_os();
    let name = arguments.next().unwrap_or_default();
    let arguments: Vec<_> = arguments.collect();
    // Else the capabilities of an ordinary user's agent would end here. Without them the new one says what it lacks.
    if let Err(error) = ubique_sys::privilege::hand_over() {
        say!("ubique: capabilities cannot be handed over: {error}");
    }
    let execute = |program: &Path| Command::new(program).arg0(&name).args(&arguments).exec();
    let error = execute(program);
    say!("ubique: cannot execute {}: {error}: going on with this version", program.display());
    let error = execute(Path::new("/proc/self/exe"));
    say!("ubique: cannot execute this version again: {error}");
    Exit::CouldNotRun
}

/// What would be announced to whom.
fn dry_run(service: &Service, site: &Site) {
    for address in &service.addresses {
        tell!("+ address {address} on lo");
    }
    for check in &service.checks {
        tell!("  healthy when {} passes {} times, every {:?}", check.name, check.rise, check.every);
    }
    for upstream in &site.upstreams {
        for announcement in announcements(service, upstream, &Stance::HEALTHY) {
            let path: Vec<String> =
                std::iter::repeat_n(service.asn.to_string(), 1 + usize::from(announcement.prepend)).collect();
            tell_raw!("+ announce {} to AS{} at {}", announcement.prefix, upstream.asn, upstream.address);
            tell_raw!(", path {}", path.join(" "));
            for community in &announcement.communities {
                tell_raw!(", community {community}");
            }
            for community in &announcement.extended_communities {
                tell_raw!(", extended community {community}");
            }
            for community in &announcement.large_communities {
                tell_raw!(", large community {community}");
            }
            tell!();
        }
    }
}

/// An error with its causes, on one line.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
