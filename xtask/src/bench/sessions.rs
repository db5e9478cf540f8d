//! What the data plane costs: the examples of `ubique-edge` measure by BPF_PROG_TEST_RUN, net of a program that does nothing, and by a flood.

use std::process::Command;

use super::Row;
use crate::command::root;
use crate::setup;

/// What a packet costs, then SYN cookies and a flood of SYNs: ns a packet, and connections.
pub fn run() -> Result<Vec<Row>, String> {
    if setup::data_plane().is_empty() {
        return Err("the data plane needs clang, make, pkg-config and libelf's headers: cargo xtask setup".into());
    }
    Ok([example("costs")?, example("cookies")?].concat())
}

fn example(name: &str) -> Result<Vec<Row>, String> {
    let arguments =
        ["run", "--release", "--locked", "--package", "ubique-edge", "--features", "bpf", "--example", name];
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

fn row(line: &str) -> Result<Row, String> {
    let fields: Vec<&str> = line.split('\t').collect();
    let [name, ns, goal, peer] = fields[..] else { return Err(format!("no row: {line}")) };
    let value: f64 = ns.parse().map_err(|_| format!("no number: {line}"))?;
    let unit = if name.contains("connections") { "" } else { "ns" };
    let row = Row::new(name, value, unit, goal.parse().ok());
    Ok(match peer.parse() {
        Ok(peer) => row.beside(peer, 0.1),
        Err(_) => row,
    })
}
