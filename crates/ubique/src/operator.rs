//! `ubique attract`, `blackhole`, `filter` and `actions`.

use std::io::{BufRead, IsTerminal};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use ubique_model::Prefix;
use ubique_node::admin::{self, ActRequest, ActionList, Plan, Reached, Reply, Request, RequestError};
use ubique_proto::actions::Kind;

use crate::Exit;
use crate::admin::socket;
use crate::arguments::{
    ActionArguments, ActionsArguments, AgentArguments, AttractArguments, BlackholeArguments, Color, FilterArguments,
    Output,
};
use crate::run::chain;
use crate::say::{say, say_raw, tell, tell_raw};

/// `ubique attract`.
pub fn attract(arguments: &AttractArguments, output: Output, color: Color) -> Exit {
    let kind = |text: &str| Ok(Kind::Attract { prefix: prefix(text)? });
    begin(&arguments.targets, &arguments.action, kind, output, color)
}

/// `ubique blackhole`.
pub fn blackhole(arguments: &BlackholeArguments, output: Output, color: Color) -> Exit {
    let kind = |text: &str| Ok(Kind::Blackhole { prefix: prefix(text)? });
    begin(&arguments.targets, &arguments.action, kind, output, color)
}

/// `ubique filter`.
pub fn filter(arguments: &FilterArguments, output: Output, color: Color) -> Exit {
    let kind = |text: &str| {
        let rule = text.parse().map_err(|error| format!("{text:?} is no rule: {error}"))?;
        let then = arguments.then.parse().map_err(|error| format!("--then: {error}"))?;
        Ok(Kind::Filter { rule, then })
    };
    begin(&arguments.targets, &arguments.action, kind, output, color)
}

/// `ubique actions`.
pub fn actions(arguments: &ActionsArguments, output: Output, color: Color) -> Exit {
    let path = match socket(&arguments.agent, color) {
        Ok(path) => path,
        Err(exit) => return exit,
    };
    if let Some(id) = arguments.cancel {
        let request = Request::Cancel { id, reason: arguments.reason.clone() };
        return match ask(&path, &request, Exit::BadInput) {
            Ok(reply) => {
                if let Reply::Done { warning: Some(warning) } = reply {
                    say!("warning: {warning}");
                }
                match output {
                    Output::Json => tell!("{{\"schema_version\":{},\"ok\":true}}", admin::SCHEMA_VERSION),
                    Output::Table => say!("action {id} cancelled"),
                }
                Exit::Fine
            }
            Err(exit) => exit,
        };
    }
    match ask(&path, &Request::Actions, Exit::CouldNotRun) {
        Ok(Reply::Actions(list)) => show(&list, output),
        Ok(_) => Exit::CouldNotRun,
        Err(exit) => exit,
    }
}

/// A prefix, or the one of an address alone.
fn prefix(text: &str) -> Result<Prefix, String> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(address.into());
    }
    let prefix: Prefix = text
        .parse()
        .map_err(|_| format!("{text:?} is neither a prefix (198.51.100.0/24) nor an address (198.51.100.53)"))?;
    if prefix.trunc() != prefix {
        return Err(format!("{text} has bits beyond its length: {} was probably meant", prefix.trunc()));
    }
    Ok(prefix)
}

fn begin(
    targets: &[String],
    arguments: &ActionArguments,
    kind: impl Fn(&str) -> Result<Kind, String>,
    output: Output,
    color: Color,
) -> Exit {
    let (file, text) = match (targets, &arguments.socket) {
        ([file, text], _) => (Some(PathBuf::from(file)), text),
        ([text], Some(_)) => (None, text),
        _ => {
            say!("ubique: name a service file (or --socket) and what the action is about");
            return Exit::BadInput;
        }
    };
    let what = match kind(text) {
        Ok(what) => what,
        Err(error) => {
            say!("ubique: {error}");
            return Exit::BadInput;
        }
    };
    let agent = AgentArguments { file, site: arguments.site.clone(), socket: arguments.socket.clone() };
    let path = match socket(&agent, color) {
        Ok(path) => path,
        Err(exit) => return exit,
    };
    let request = |dry_run, confirmed| {
        let for_s = arguments.lasts.as_secs_f64();
        Request::Act(ActRequest { what: what.clone(), for_s, reason: arguments.reason.clone(), confirmed, dry_run })
    };
    let dry = request(true, false);
    if let Err(exit) = agreed(&path, &dry, Exit::BadInput, arguments.dry_run, arguments.yes, output) {
        return exit;
    }
    match ask(&path, &request(false, true), Exit::BadInput) {
        Ok(Reply::Actions(list)) => show(&list, output),
        Ok(_) => Exit::CouldNotRun,
        Err(exit) => exit,
    }
}

/// Asks what `dry` would do. `Err`: nothing is to be done, since that was all that was wanted, or was refused.
pub(crate) fn agreed(
    path: &Path,
    dry: &Request,
    refused: Exit,
    dry_run: bool,
    yes: bool,
    output: Output,
) -> Result<(), Exit> {
    let Reply::Plan(plan) = ask(path, dry, refused)? else {
        return Err(Exit::CouldNotRun);
    };
    if dry_run {
        return Err(show_plan(&plan, output));
    }
    plan.warnings.iter().for_each(|warning| say!("warning: {warning}"));
    confirm(&plan, yes)
}

/// Asks, and says why not; `refused` is the exit code when the agent says no.
pub(crate) fn ask(path: &Path, request: &Request, refused: Exit) -> Result<Reply, Exit> {
    admin::request(path, request).map_err(|error| {
        say!("ubique: {}", chain(&error));
        match error {
            RequestError::Refused(_) => refused,
            RequestError::Guarded(_) => Exit::Refused,
            _ => Exit::CouldNotRun,
        }
    })
}

/// Has the site's name typed where much moves; without a terminal only `--yes` will do.
fn confirm(plan: &Plan, yes: bool) -> Result<(), Exit> {
    let terminal = std::io::stdin().is_terminal() && std::io::stderr().is_terminal();
    let typed = || {
        let mut typed = String::new();
        // What cannot be read was not typed.
        let _ = std::io::stdin().lock().read_line(&mut typed);
        typed
    };
    confirmed(plan, yes, terminal, typed)
}

fn confirmed(plan: &Plan, yes: bool, terminal: bool, typed: impl FnOnce() -> String) -> Result<(), Exit> {
    if !plan.confirm || yes {
        return Ok(());
    }
    let (what, site) = (&plan.what, &plan.site);
    let share = format!("{what} at site {site}: concerns {} % of the service's traffic there", plan.share);
    if !terminal {
        say!("ubique: {share}: say --yes when that is meant (agent.confirm-share)");
        return Err(Exit::Refused);
    }
    say_raw!("{share}.\nType the name of the site ({}) to go on: ", plan.site);
    if typed().trim() == plan.site {
        return Ok(());
    }
    say!("ubique: that is not the name of the site: nothing was done");
    Err(Exit::Refused)
}

/// The reply to a dry run.
fn show_plan(plan: &Plan, output: Output) -> Exit {
    match output {
        Output::Json => json(plan),
        Output::Table => {
            tell!("would {} at site {}; concerns {} % of the service", plan.what, plan.site, plan.share);
            if plan.confirm {
                tell!("needs the site's name typed, or --yes");
            }
            plan.warnings.iter().for_each(|warning| tell!("warning: {warning}"));
            tell_raw!("{}", reached(&plan.upstreams));
        }
    }
    Exit::Fine
}

fn reached(upstreams: &[Reached]) -> String {
    let mut text = String::new();
    for upstream in upstreams {
        let name = format!("AS{} {}", upstream.asn, upstream.address);
        let told = match (&upstream.told, &upstream.why_not) {
            (Some(told), _) => told.clone(),
            (None, why) => format!("not reached: {}", why.as_deref().unwrap_or("nothing to tell")),
        };
        text.push_str(&format!("  {name:<40} {told}\n"));
    }
    text
}

fn show(list: &ActionList, output: Output) -> Exit {
    list.warning.iter().for_each(|warning| say!("warning: {warning}"));
    match output {
        Output::Json => json(list),
        Output::Table => {
            list.warnings.iter().for_each(|warning| say!("warning: {warning}"));
            if list.actions.is_empty() {
                say!("no action lasts");
            }
            tell_raw!("{}", table(list));
        }
    }
    Exit::Fine
}

fn json(value: &impl serde::Serialize) {
    match serde_json::to_string_pretty(value) {
        Ok(json) => tell!("{json}"),
        Err(error) => say!("ubique: {error}"),
    }
}

fn table(list: &ActionList) -> String {
    let mut text = String::new();
    for action in &list.actions {
        let left = left(action.left_s);
        text.push_str(&format!("{}  {}  {left} left, until {}\n", action.id, action.text, action.until));
        text.push_str(&format!("  by {} since {}: {}\n", action.who, action.since, action.reason));
        text.push_str(&reached(&action.upstreams));
    }
    text
}

/// `1h05m`, `4m10s`, `9s`.
pub(crate) fn left(seconds: u64) -> String {
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match (hours, minutes) {
        (0, 0) => format!("{seconds}s"),
        (0, _) => format!("{minutes}m{seconds:02}s"),
        _ => format!("{hours}h{minutes:02}m"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_and_addresses() {
        assert_eq!(prefix("198.51.100.53").map(|p| p.to_string()), Ok("198.51.100.53/32".to_owned()));
        assert_eq!(prefix("2001:db8::/48").map(|p| p.to_string()), Ok("2001:db8::/48".to_owned()));
        assert!(prefix("198.51.100.1/24").is_err_and(|e| e.contains("198.51.100.0/24 was probably meant")));
        assert!(prefix("everything").is_err_and(|e| e.contains("neither")));
    }

    #[test]
    fn much_is_done_only_when_it_is_meant() {
        let plan = |confirm| Plan {
            schema_version: 1,
            what: "drain".into(),
            site: "lon".into(),
            share: 100,
            confirm,
            warnings: vec![],
            upstreams: vec![],
        };
        let never = || -> String { unreachable!("nobody is asked") };
        assert_eq!(confirmed(&plan(false), false, false, never), Ok(()));
        assert_eq!(confirmed(&plan(true), true, false, never), Ok(()));
        assert_eq!(confirmed(&plan(true), false, false, never), Err(Exit::Refused));
        assert_eq!(confirmed(&plan(true), false, true, || "lon\n".into()), Ok(()));
        for typed in ["", "y\n", "LON\n", "lon yes\n"] {
            assert_eq!(confirmed(&plan(true), false, true, || typed.into()), Err(Exit::Refused), "{typed:?}");
        }
    }

    #[test]
    fn times_left_are_short() {
        assert_eq!([9, 250, 3900].map(left), ["9s", "4m10s", "1h05m"]);
    }
}
