//! What the data plane costs: the examples of `ubique-edge` measure by BPF_PROG_TEST_RUN, net of a program that does nothing, and by a flood.

use std::process::Command;

use super::Row;
use crate::command::root;
use crate::setup;

/// What a packet costs, then SYN cookies and a flood of SYNs, then what a packet waits and how much gets through: of a packet ns, and rows
/// that name their unit.
pub fn run() -> Result<Vec<Row>, String> {
    is_built()?;
    Ok([example("costs", &[])?, example("cookies", &[])?, example("path", &[])?].concat())
}

/// So many minutes of everything at once.
pub fn soak(minutes: f64) -> Result<Vec<Row>, String> {
    is_built()?;
    example("soak", &[&minutes.to_string()])
}

fn is_built() -> Result<(), String> {
    if setup::data_plane().is_empty() {
        return Err("the data plane needs clang, make, pkg-config and libelf's headers: cargo xtask setup".into());
    }
    Ok(())
}

fn example(name: &str, rest: &[&str]) -> Result<Vec<Row>, String> {
    let mut arguments =
        vec!["run", "--release", "--locked", "--package", "ubique-edge", "--features", "bpf", "--example", name, "--"];
    arguments.extend(rest);
    eprintln!("» cargo {}", arguments.join(" "));
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(arguments).current_dir(root()).stderr(std::process::Stdio::inherit());
    let output = command.output().map_err(|e| format!("cargo: {e}"))?;
    if !output.status.success() {
        return Err(format!("the measurement: {}", output.status));
    }
    String::from_utf8_lossy(&output.stdout).lines().map(row).collect()
}

/// Name, value, goal, peer, unit; ns where there is none.
fn row(line: &str) -> Result<Row, String> {
    let fields: Vec<&str> = line.split('\t').collect();
    let [name, value, goal, peer, ref unit @ ..] = fields[..] else { return Err(format!("no row: {line}")) };
    let value: f64 = value.parse().map_err(|_| format!("no number: {line}"))?;
    let row = Row::new(name, value, unit.first().unwrap_or(&"ns"), goal.parse().ok());
    Ok(match peer.parse() {
        Ok(peer) => row.beside(peer, 0.1),
        Err(_) => row,
    })
}
