//! `ubique internal …`: the parts of a rehearsal that are processes of their own.

use std::error::Error;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use serde::de::DeserializeOwned;
use ubique_lab::dns::{self, DnsOptions};
use ubique_lab::{probe, wire};
use ubique_node::routers;

use crate::Exit;
use crate::arguments::InternalCommand;
use crate::logging;
use crate::run::chain;

/// Runs one part until it is told to end.
pub fn internal(command: InternalCommand) -> Exit {
    let outcome = match command {
        InternalCommand::Wire { spec } => read(&spec).and_then(|spec| wire::run(spec).map_err(Into::into)),
        InternalCommand::Routers { spec } => {
            let _guard = logging::start(false, false);
            read(&spec).and_then(|spec| routers::run(spec).map_err(Into::into))
        }
        InternalCommand::Probe { spec } => read(&spec).and_then(|spec| {
            let stop = AtomicBool::new(false);
            probe::run(&spec, io::stdout(), &stop).map_err(Into::into)
        }),
        InternalCommand::Dns { site, zone, address, listen } => {
            let stop = AtomicBool::new(false);
            dns::run(&DnsOptions { site, zone, addresses: address, listen }, &stop).map_err(Into::into)
        }
        InternalCommand::BenchWire => crate::rehearse::bench_wire(),
    };
    match outcome {
        Ok(()) => Exit::Fine,
        Err(error) => {
            eprintln!("ubique: {}", chain(error.as_ref()));
            Exit::CouldNotRun
        }
    }
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<T, Box<dyn Error>> {
    let text = fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
    Ok(serde_json::from_str(&text).map_err(|e| format!("{}: {e}", path.display()))?)
}
