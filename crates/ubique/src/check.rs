//! `ubique check`, and reading files for all commands.

use std::fs;
use std::io::Read;
use std::path::Path;

use serde::Serialize;
use ubique_model::diagnostic::{CODES, Diagnostic, NOT_ON_THIS_MACHINE, Parsed};
use ubique_model::internet::Internet;
use ubique_model::scenario::Scenario;
use ubique_model::service::Service;
use ubique_model::{MAX_FILE_BYTES, internet_schema, scenario_schema, service_schema};

use crate::Exit;
use crate::arguments::{CheckArguments, Color, FileKind, Output};
use crate::diagnostics::{render, summary};
use crate::say::{say, say_raw, tell, tell_raw};

/// Version of the JSON that `check --output json` prints.
const SCHEMA_VERSION: u32 = 1;

/// What `check --output json` prints.
#[derive(Serialize)]
struct CheckReport {
    schema_version: u32,
    ok: bool,
    diagnostics: Vec<Diagnostic>,
}

/// Runs `ubique check`.
pub fn check(arguments: &CheckArguments, output: Output, color: Color) -> Exit {
    if let Some(code) = &arguments.explain {
        return explain(code);
    }
    if arguments.schema {
        let schema = match arguments.kind {
            FileKind::Service => service_schema(),
            FileKind::Scenario => scenario_schema(),
            FileKind::Internet => internet_schema(),
        };
        tell!("{schema:#}");
        return Exit::Fine;
    }
    let mut all = Vec::new();
    let mut exit = Exit::Fine;
    for file in &arguments.files {
        let Some(source) = read(file) else {
            exit = Exit::CouldNotRun;
            continue;
        };
        let name = file.display().to_string();
        let (diagnostics, printed, good) = match arguments.kind {
            FileKind::Service => outcome(Service::parse(&name, &source), |s| (s.to_toml(), service_line(s))),
            FileKind::Scenario => outcome(Scenario::parse(&name, &source), |s| {
                (String::new(), format!("scenario {}: {} steps", s.name, s.steps.len()))
            }),
            FileKind::Internet => outcome(Internet::parse(&name, &source), |i| {
                let (networks, links) = (i.networks.len(), i.links.len());
                (String::new(), format!("Internet {}: {networks} networks, {links} links", i.name))
            }),
        };
        let (mut diagnostics, mut good) = (diagnostics, good);
        if arguments.here
            && let Some(lacking) = lacking(arguments.kind, &name, &source)
        {
            diagnostics.push(lacking);
            good = None;
        }
        if good.is_none() && exit == Exit::Fine {
            exit = Exit::BadInput;
        }
        if output == Output::Table {
            say_raw!("{}", render(&diagnostics, &String::from_utf8_lossy(&source), color.stderr));
            say!("{name}: {}{}", good.map(|g| format!("{g}; ")).unwrap_or_default(), summary(&diagnostics));
            if arguments.print {
                tell_raw!("{printed}");
            }
        }
        all.extend(diagnostics);
    }
    if output == Output::Json {
        let report = CheckReport { schema_version: SCHEMA_VERSION, ok: exit == Exit::Fine, diagnostics: all };
        match serde_json::to_string_pretty(&report) {
            Ok(json) => tell!("{json}"),
            Err(error) => say!("ubique: {error}"),
        }
    }
    exit
}

/// What this machine's kernel cannot do for a service file, as a finding at the key that asks for it.
fn lacking(kind: FileKind, name: &str, source: &[u8]) -> Option<Diagnostic> {
    if !matches!(kind, FileKind::Service) {
        return None;
    }
    let what = ubique_node::agent::lacking(&Service::parse(name, source).value?)?;
    let text = String::from_utf8_lossy(source);
    let start = text.find(what.key).unwrap_or(0);
    let before = &text[..start];
    Some(Diagnostic {
        code: NOT_ON_THIS_MACHINE.code.to_owned(),
        severity: NOT_ON_THIS_MACHINE.severity(),
        file: name.to_owned(),
        start,
        end: start + what.key.len(),
        line: before.matches('\n').count() + 1,
        column: before.chars().rev().take_while(|c| *c != '\n').count() + 1,
        message: what.message.to_owned(),
        cause: None,
        fix: Some(what.fix.to_owned()),
    })
}

fn outcome<T>(
    parsed: Parsed<T>,
    describe: impl Fn(&T) -> (String, String),
) -> (Vec<Diagnostic>, String, Option<String>) {
    match parsed.value.as_ref().map(describe) {
        Some((printed, line)) => (parsed.diagnostics, printed, Some(line)),
        None => (parsed.diagnostics, String::new(), None),
    }
}

fn service_line(service: &Service) -> String {
    let plural = |n: usize, word: &str, many: &str| format!("{n} {}", if n == 1 { word } else { many });
    format!(
        "service {}: AS{} announces {} from {}, {}",
        service.name,
        service.asn,
        plural(service.prefixes.len(), "prefix", "prefixes"),
        plural(service.sites.len(), "site", "sites"),
        plural(service.checks.len(), "check", "checks"),
    )
}

fn explain(code: &str) -> Exit {
    match CODES.iter().find(|c| c.code.eq_ignore_ascii_case(code)) {
        Some(entry) => {
            tell!("{} {}\n\n{}", entry.code, entry.title, entry.explanation);
            Exit::Fine
        }
        None => {
            say!("ubique: {code:?} is not a diagnostic code; docs/diagnostics.md lists them all");
            Exit::BadInput
        }
    }
}

/// Reads at most one byte more than a file may have; says why it could not.
pub fn read(path: &Path) -> Option<Vec<u8>> {
    let limit = MAX_FILE_BYTES as u64 + 1;
    let mut bytes = Vec::new();
    match fs::File::open(path).and_then(|file| file.take(limit).read_to_end(&mut bytes)) {
        Ok(_) => Some(bytes),
        Err(error) => {
            say!("ubique: cannot read {}: {error}", path.display());
            None
        }
    }
}

/// Reads and parses a file for a command that needs it; findings go to stderr, errors to the exit code.
pub fn load<T>(path: &Path, parse: impl Fn(&str, &[u8]) -> Parsed<T>, color: Color) -> Result<(T, Vec<u8>), Exit> {
    let (value, source, diagnostics) = parsed(path, parse, color)?;
    say_raw!("{}", render(&diagnostics, &String::from_utf8_lossy(&source), color.stderr));
    Ok((value, source))
}

/// The same for commands that ask an agent: its own log and `ubique check` have the warnings.
pub fn load_without_warnings<T>(
    path: &Path,
    parse: impl Fn(&str, &[u8]) -> Parsed<T>,
    color: Color,
) -> Result<T, Exit> {
    parsed(path, parse, color).map(|(value, ..)| value)
}

/// What a file means; says what is wrong with one that means nothing.
fn parsed<T>(
    path: &Path,
    parse: impl Fn(&str, &[u8]) -> Parsed<T>,
    color: Color,
) -> Result<(T, Vec<u8>, Vec<Diagnostic>), Exit> {
    let source = read(path).ok_or(Exit::CouldNotRun)?;
    let parsed = parse(&path.display().to_string(), &source);
    let Some(value) = parsed.value else {
        say_raw!("{}", render(&parsed.diagnostics, &String::from_utf8_lossy(&source), color.stderr));
        say!("{}: {}", path.display(), summary(&parsed.diagnostics));
        return Err(Exit::BadInput);
    };
    Ok((value, source, parsed.diagnostics))
}
