//! `ubique rehearse`: files → sandbox → play → render.

use std::error::Error;
use std::fs;
use std::io::{IsTerminal, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ubique_lab::plan::Plan;
use ubique_lab::play::{self, Observer, PlayError, Setup};
use ubique_lab::report::live::{self, LiveState};
use ubique_lab::report::{self, Event, Report, SessionsReport};
use ubique_lab::routers::Backend;
use ubique_lab::wire::{self, WireLink};
use ubique_model::internet::Internet;
use ubique_model::scenario::Scenario;
use ubique_model::service::Service;
use ubique_sys::sandbox::{self, Sandbox};

use crate::Exit;
use crate::arguments::{Color, Output, RehearseArguments, Routers};
use crate::check::load;
use crate::diagnostics::render;
use crate::run::chain;
use crate::say::{say, say_raw, tell, tell_raw};

/// The embedded rehearsal: what `ubique rehearse` plays without files.
const QUICKSTART: &str = include_str!("../../../examples/quickstart.toml");
const QUICKSTART_INTERNET: &str = include_str!("../../../examples/quickstart-internet.toml");
const QUICKSTART_SCENARIO: &str = include_str!("../../../examples/quickstart-scenario.toml");

/// Height of the live table when the terminal does not tell.
const HEIGHT: usize = 50;
/// Width of tables when the terminal does not tell.
const WIDTH: usize = 120;

/// Runs `ubique rehearse`.
pub fn rehearse(arguments: &RehearseArguments, output: Output, color: Color) -> Exit {
    let setup = match setup(arguments, color) {
        Ok(setup) => setup,
        Err(exit) => return exit,
    };
    if arguments.dry_run {
        return dry_run(&setup);
    }
    if let Some(directory) = &arguments.report
        && let Err(error) = fs::create_dir_all(directory)
    {
        say!("ubique: cannot make the report's directory {}: {error}", directory.display());
        return Exit::CouldNotRun;
    }
    let mut setup = setup;
    if arguments.control || setup.scenario.steps.iter().any(|step| step.expect.control_lost.is_some()) {
        match control(&setup, output, color) {
            Ok(control) => setup.control = Some(control),
            Err(exit) => return exit,
        }
    }
    let screen = Screen {
        live: std::io::stderr().is_terminal(),
        drawn: 0,
        output,
        color,
        report: arguments.report.clone(),
        keep: arguments.keep,
        failed: false,
        is_control: false,
    };
    // The parent only waits: Ctrl-C ends it, and with it the sandbox and everything inside.
    let lab = match sandbox::spawn(move || play(&setup, screen) as i32) {
        Ok(lab) => lab,
        Err(error) => {
            say!("ubique: {}", chain(&error));
            return Exit::CouldNotRun;
        }
    };
    if arguments.keep {
        say!("look around in the lab, from another terminal: nsenter --all --target {}", lab.pid());
        say!("and there for example: nsenter --net=/run/ubique/ns/site-lon ip route");
    }
    ended(lab)
}

fn ended(lab: Sandbox) -> Exit {
    match lab.wait() {
        Ok(0) => Exit::Fine,
        Ok(1) => Exit::Findings,
        Ok(2) => Exit::BadInput,
        Ok(_) => Exit::CouldNotRun,
        Err(error) => {
            say!("ubique: the lab ended unexpectedly: {error}");
            Exit::CouldNotRun
        }
    }
}

/// Plays the scenario without the data plane, in a lab of its own: what became of sessions.
fn control(setup: &Setup, output: Output, color: Color) -> Result<SessionsReport, Exit> {
    let why = match (&setup.service.sessions, setup.scenario.sessions.is_empty()) {
        (None, _) => Some("the service has no [sessions], so that a control run without them is the same"),
        (_, true) => Some("the scenario has no [[session]], so that a control run shows nothing"),
        _ => None,
    };
    if let Some(why) = why {
        say!("ubique: {why}");
        return Err(Exit::BadInput);
    }
    let failed = |error: &dyn Error| {
        say!("ubique: the control run: {}", chain(error));
        Exit::CouldNotRun
    };
    // Outlives the lab's file system, and has no name that could be left behind.
    let told = rustix::fs::memfd_create("ubique-control", rustix::fs::MemfdFlags::CLOEXEC);
    let mut told = fs::File::from(told.map_err(|error| failed(&std::io::Error::from(error)))?);
    let into = told.try_clone().map_err(|error| failed(&error))?;
    let without = Setup { data_plane: false, ..setup.clone() };
    let live = std::io::stderr().is_terminal();
    let screen = Screen { live, drawn: 0, output, color, report: None, keep: false, failed: false, is_control: true };
    say!("the control run: without the data plane");
    let lab = sandbox::spawn(move || match play_control(&without, screen, into) {
        Ok(()) => Exit::Fine as i32,
        Err(exit) => exit as i32,
    });
    match ended(lab.map_err(|error| failed(&error))?) {
        Exit::Fine => {}
        exit => return Err(exit),
    }
    let mut json = Vec::new();
    let read = told.seek(SeekFrom::Start(0)).and_then(|_| told.read_to_end(&mut json)).map_err(|error| failed(&error));
    read?;
    say!("the rehearsal: with the data plane");
    serde_json::from_slice(&json).map_err(|error| failed(&error))
}

fn play_control(setup: &Setup, mut screen: Screen, mut into: fs::File) -> Result<(), Exit> {
    let report = play::rehearse(setup, &mut screen).map_err(|error| screen.refused(&error))?;
    let json = serde_json::to_vec(&report.sessions.unwrap_or_default()).map_err(std::io::Error::from);
    json.and_then(|json| into.write_all(&json)).map_err(|error| {
        say!("ubique: {error}");
        Exit::CouldNotRun
    })
}

fn setup(arguments: &RehearseArguments, color: Color) -> Result<Setup, Exit> {
    let (service, service_text) = match &arguments.file {
        Some(file) => load(file, Service::parse, color)?,
        None => embedded("quickstart.toml", QUICKSTART, Service::parse)?,
    };
    let (scenario, scenario_text) = match &arguments.scenario {
        Some(file) => load(file, Scenario::parse, color)?,
        None => embedded("quickstart-scenario.toml", QUICKSTART_SCENARIO, Scenario::parse)?,
    };
    let beside = arguments.scenario.as_deref().and_then(Path::parent);
    let internet = match (&scenario.internet, beside) {
        (Some(file), Some(beside)) => load(&beside.join(file), Internet::parse, color)?.0,
        _ => embedded("quickstart-internet.toml", QUICKSTART_INTERNET, Internet::parse)?.0,
    };
    if let Some(file) = &arguments.scenario {
        let name = file.display().to_string();
        let findings = Scenario::check_against(&service, Some(&internet), &name, &scenario_text);
        if !findings.is_empty() {
            say_raw!("{}", render(&findings, &String::from_utf8_lossy(&scenario_text), color.stderr));
            return Err(Exit::BadInput);
        }
    }
    let executable = std::env::current_exe().map_err(|error| {
        say!("ubique: cannot find its own program: {error}");
        Exit::CouldNotRun
    })?;
    let backend = match arguments.routers {
        Routers::Embedded => Backend::Embedded,
        Routers::Bird => Backend::Bird,
        Routers::Frr => Backend::Frr,
    };
    let file =
        std::path::absolute(arguments.file.as_deref().unwrap_or(Path::new("quickstart.toml"))).map_err(|error| {
            say!("ubique: cannot tell the working directory: {error}");
            Exit::CouldNotRun
        })?;
    let service_directory = file.parent().map(Path::to_path_buf).unwrap_or_default();
    let seed = arguments.seed;
    let (control, data_plane) = (None, true);
    Ok(Setup {
        service,
        service_text,
        service_directory,
        scenario,
        internet,
        backend,
        executable,
        seed,
        control,
        data_plane,
    })
}

/// Parses a file that is part of the program. A test proves that it parses.
fn embedded<T>(
    name: &str,
    text: &str,
    parse: impl Fn(&str, &[u8]) -> ubique_model::diagnostic::Parsed<T>,
) -> Result<(T, Vec<u8>), Exit> {
    let parsed = parse(name, text.as_bytes());
    parsed.value.map(|value| (value, text.as_bytes().to_vec())).ok_or_else(|| {
        say_raw!("{}", render(&parsed.diagnostics, text, false));
        Exit::BadInput
    })
}

fn dry_run(setup: &Setup) -> Exit {
    let plan = match Plan::new(&setup.internet, &setup.service) {
        Ok(plan) => plan,
        Err(error) => {
            say!("ubique: {}", chain(&error));
            return Exit::BadInput;
        }
    };
    tell!(
        "would build {} networks, {} links, {} sites and {} vantage points, routed by {}",
        plan.networks.len(),
        plan.links.len(),
        plan.sites.len(),
        plan.vantages.len(),
        setup.backend
    );
    for note in &plan.notes {
        tell!("note: {note}");
    }
    for sessions in &setup.scenario.sessions {
        let vantages = match sessions.vantages.len() {
            0 => plan.vantages.len(),
            some => some,
        };
        tell!("sessions {}: {} at once from each of {vantages} vantage points", sessions.kind.as_str(), sessions.count);
    }
    for step in &setup.scenario.steps {
        tell!("step {}: observed for {:?}", step.label, step.observe);
    }
    Exit::Fine
}

/// Inside the sandbox: plays and renders.
fn play(setup: &Setup, mut screen: Screen) -> Exit {
    match play::rehearse(setup, &mut screen) {
        Ok(_) if screen.failed => Exit::CouldNotRun,
        Ok(report) if report.verdict.ok => Exit::Fine,
        Ok(_) => Exit::Findings,
        Err(error) => screen.refused(&error),
    }
}

/// What the user sees: events as lines, below them a live table on a terminal, at the end the verdict.
struct Screen {
    live: bool,
    /// Lines of the live table on the screen now.
    drawn: usize,
    output: Output,
    color: Color,
    report: Option<PathBuf>,
    keep: bool,
    failed: bool,
    /// What is found out is for the rehearsal that follows.
    is_control: bool,
}

impl Screen {
    /// Why it could not be played.
    fn refused(&mut self, error: &PlayError) -> Exit {
        self.clear();
        say!("ubique: {}", chain(error));
        match error {
            PlayError::Plan(_) | PlayError::Step { .. } | PlayError::TooLong { .. } => Exit::BadInput,
            _ => Exit::CouldNotRun,
        }
    }

    /// Removes the live table.
    fn clear(&mut self) {
        if self.drawn > 0 {
            say_raw!("\x1b[{}A\x1b[J", self.drawn);
            self.drawn = 0;
        }
    }

    fn write_report(&self, directory: &Path, report: &Report) -> std::io::Result<()> {
        let json = serde_json::to_vec_pretty(report)?;
        fs::write(directory.join("report.json"), json)?;
        fs::write(directory.join("index.html"), report::html(report))
    }
}

impl Observer for Screen {
    fn event(&mut self, event: &Event) {
        if self.live {
            self.clear();
            say!("{}", live::event_line(event, size().1, self.color.stderr));
        } else {
            say!("{:>8.3} s  {}", event.at_ms / 1000.0, event.text);
        }
    }

    fn frame(&mut self, state: &LiveState) {
        if !self.live {
            return;
        }
        let (rows, columns) = size();
        let mut lines = live::lines(state, columns, self.color.stderr);
        // What does not fit could not be taken back.
        lines.truncate(rows.saturating_sub(1));
        let mut text = String::new();
        if self.drawn > 0 {
            text.push_str(&format!("\x1b[{}A\x1b[J", self.drawn));
        }
        for line in &lines {
            text.push_str(line);
            text.push('\n');
        }
        self.drawn = lines.len();
        // A terminal that is gone is no reason to stop the rehearsal.
        let _ = std::io::stderr().write_all(text.as_bytes());
    }

    fn finished(&mut self, report: &Report) {
        self.clear();
        if self.is_control {
            return;
        }
        match self.output {
            Output::Json => match serde_json::to_string_pretty(report) {
                Ok(json) => tell!("{json}"),
                Err(error) => say!("ubique: {error}"),
            },
            Output::Table => tell_raw!("{}", report::text(report, size().1, self.color.stdout)),
        }
        if let Some(directory) = &self.report {
            match self.write_report(directory, report) {
                Ok(()) => say!("report: {}", directory.join("index.html").display()),
                Err(error) => {
                    say!("ubique: cannot write the report to {}: {error}", directory.display());
                    self.failed = true;
                }
            }
        }
        if self.keep {
            say!("the lab stays up until Ctrl-C");
            loop {
                std::thread::park();
            }
        }
    }
}

/// Rows and columns of the terminal, told by it or by LINES and COLUMNS; [`HEIGHT`] and [`WIDTH`] when there is none.
fn size() -> (usize, usize) {
    let terminal = [rustix::termios::tcgetwinsize(std::io::stderr()), rustix::termios::tcgetwinsize(std::io::stdout())];
    let terminal = terminal.into_iter().flatten().find(|size| size.ws_col > 0 && size.ws_row > 0);
    if let Some(size) = terminal {
        return (size.ws_row.into(), size.ws_col.into());
    }
    let told = |name: &str| std::env::var(name).ok().and_then(|number| number.parse().ok());
    (told("LINES").unwrap_or(HEIGHT), told("COLUMNS").unwrap_or(WIDTH))
}

/// Link, load and length of `ubique internal bench-wire`.
const BENCH_DELAY_NS: u64 = 10_000_000;
const BENCH_PACKETS_PER_S: u64 = 20_000;
const BENCH_DURATION: Duration = Duration::from_secs(5);

/// `ubique internal bench-wire`.
pub fn bench_wire() -> Result<(), Box<dyn Error>> {
    let link =
        WireLink { a: "w0a".into(), b: "w0b".into(), delay_ns: BENCH_DELAY_NS, loss: 0.0, rate_bits_per_s: None };
    let lab = sandbox::spawn(move || {
        let figures = fs::create_dir_all("/run/ubique")
            .and_then(|()| wire::bench(Path::new("/run/ubique"), &link, BENCH_PACKETS_PER_S, BENCH_DURATION));
        match figures {
            Ok(figures) => {
                tell!("{}", serde_json::json!(figures));
                0
            }
            Err(error) => {
                say!("ubique: {}", chain(&error));
                3
            }
        }
    })?;
    match lab.wait()? {
        0 => Ok(()),
        code => Err(format!("the benchmark ended with {code}").into()),
    }
}
