//! What the data plane costs: `ubique-edge`'s example `costs` measures by BPF_PROG_TEST_RUN, net of a program that does nothing.

use std::process::Command;

use super::Row;
use crate::command::root;
use crate::setup;

/// One row for each kind of packet, ns.
pub fn run() -> Result<Vec<Row>, String> {
    if setup::data_plane().is_empty() {
        return Err("the data plane needs clang, make, pkg-config and libelf's headers: cargo xtask setup".into());
    }
    let arguments =
        ["run", "--release", "--locked", "--package", "ubique-edge", "--features", "bpf", "--example", "costs"];
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
    let row = Row::new(name, value, "ns", goal.parse().ok());
    Ok(match peer.parse() {
        Ok(peer) => row.beside(peer, 0.1),
        Err(_) => row,
    })
}
