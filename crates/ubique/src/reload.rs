//! `ubique reload` and `upgrade`: changes of a running agent.

use ubique_model::diagnostic::{Diagnostic, Severity};
use ubique_node::admin::{ReloadOutcome, ReloadReply, ReloadRequest, Reply, Request, UpgradeReply};

use crate::Exit;
use crate::admin::ask;
use crate::arguments::{ChangeArguments, Color, Output};
use crate::say::{say, tell, tell_raw};

/// `ubique reload`.
pub fn reload(arguments: &ChangeArguments, output: Output, color: Color) -> Exit {
    let reply = match ask(&arguments.agent, &Request::Reload(request(arguments)), color) {
        Ok(Reply::Reload(reply)) => reply,
        Ok(_) => return Exit::CouldNotRun,
        Err(exit) => return exit,
    };
    if output == Output::Json {
        print(&*reply);
    } else {
        explain(&reply);
    }
    match reply.outcome {
        ReloadOutcome::Applied | ReloadOutcome::Unchanged | ReloadOutcome::DryRun => Exit::Fine,
        ReloadOutcome::Refused => Exit::Refused,
        ReloadOutcome::Unusable => Exit::BadInput,
    }
}

/// `ubique upgrade`.
pub fn upgrade(arguments: &ChangeArguments, output: Output, color: Color) -> Exit {
    let reply = match ask(&arguments.agent, &Request::Upgrade(request(arguments)), color) {
        Ok(Reply::Upgrade(reply)) => reply,
        Ok(_) => return Exit::CouldNotRun,
        Err(exit) => return exit,
    };
    let UpgradeReply { program, version, accepted, guarded, message, .. } = &reply;
    if output == Output::Json {
        print(&reply);
    } else if *accepted {
        let version = version.as_deref().unwrap_or("unknown version");
        let tense = if arguments.dry_run { "would be" } else { "is" };
        say!("{version} ({}) {tense} started in place: sessions come back under graceful restart", program.display());
    }
    if let Some(message) = message {
        say!("ubique: {message}");
    }
    match (accepted, guarded) {
        (true, _) => Exit::Fine,
        (false, true) => Exit::Refused,
        (false, false) => Exit::CouldNotRun,
    }
}

fn request(arguments: &ChangeArguments) -> ReloadRequest {
    ReloadRequest { dry_run: arguments.dry_run, yes: arguments.yes }
}

fn print(reply: &impl serde::Serialize) {
    match serde_json::to_string_pretty(reply) {
        Ok(json) => tell!("{json}"),
        Err(error) => say!("ubique: {error}"),
    }
}

fn explain(reply: &ReloadReply) {
    reply.diagnostics.iter().filter(|d| d.severity == Severity::Error).for_each(finding);
    if let Some(change) = &reply.change {
        tell_raw!("{change}");
    }
    if let Some(message) = &reply.message {
        say!("ubique: {message}");
    }
    match reply.outcome {
        ReloadOutcome::Applied => say!("applied"),
        ReloadOutcome::DryRun => say!("nothing was changed"),
        ReloadOutcome::Refused => say!("nothing was changed: refused by a guard"),
        ReloadOutcome::Unchanged | ReloadOutcome::Unusable => {}
    }
}

/// One line, as compilers have it: the file is the agent's, and may be on another machine's disk.
fn finding(finding: &Diagnostic) {
    let Diagnostic { code, file, line, column, message, fix, .. } = finding;
    let fix = fix.as_ref().map(|fix| format!("; {fix}")).unwrap_or_default();
    say!("{file}:{line}:{column}: {code}: {message}{fix}");
}
