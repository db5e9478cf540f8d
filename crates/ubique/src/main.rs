//! The `ubique` program: arguments → call → render; exit codes.
//!
//! Everything a command does lives in a library crate; this one parses what was typed, calls, and renders
//! the outcome for people (tables) or machines (`--output json`). stdout is data, stderr is words and progress.
//!
//! Exit codes: 0 fine · 1 findings · 2 bad input · 3 could not run · 4 refused by a guard.

#![forbid(unsafe_code)]

mod admin;
mod arguments;
mod check;
mod diagnostics;
mod doctor;
mod drain;
mod internal;
mod logging;
mod man;
mod operator;
mod rehearse;
mod reload;
mod replay;
mod routes;
mod run;
mod say;
mod sessions;
mod top;
mod view;

use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use arguments::{Arguments, Command};

/// Exit codes of the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// All is well.
    Fine = 0,
    /// A check or an expectation failed.
    Findings = 1,
    /// The input cannot be used.
    BadInput = 2,
    /// The work could not be done here.
    CouldNotRun = 3,
    /// A guard refused; a confirmation would let it pass.
    Refused = 4,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let color = arguments.color();
    let output = arguments.output;
    match arguments.command {
        Command::Check(command) => check::check(&command, output, color).into(),
        Command::Rehearse(command) => rehearse::rehearse(&command, output, color).into(),
        Command::Run(command) => run::run(&command, color).into(),
        Command::Status(command) => admin::status(&command, output, color).into(),
        Command::Top(command) => top::top(&command, color).into(),
        Command::Drain(command) => drain::drain(&command, output, color).into(),
        Command::Undrain(command) => admin::undrain(&command, output).into(),
        Command::Reload(command) => reload::reload(&command, output, color).into(),
        Command::Upgrade(command) => reload::upgrade(&command, output, color).into(),
        Command::Attract(command) => operator::attract(&command, output, color).into(),
        Command::Blackhole(command) => operator::blackhole(&command, output, color).into(),
        Command::Filter(command) => operator::filter(&command, output, color).into(),
        Command::Actions(command) => operator::actions(&command, output, color).into(),
        Command::Routes(command) => routes::routes(&command, output, color).into(),
        Command::Doctor(command) => doctor::doctor(&command, output, color).into(),
        Command::Replay(command) => replay::replay(&command, output).into(),
        Command::Sessions(command) => sessions::sessions(&command, output, color).into(),
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Arguments::command(), "ubique", &mut std::io::stdout());
            Exit::Fine.into()
        }
        Command::Internal(command) => internal::internal(command).into(),
    }
}
