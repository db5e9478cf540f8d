//! `ubique internal …`: the parts of a rehearsal that are processes of their own.

use std::error::Error;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use serde::de::DeserializeOwned;
use ubique_lab::dns::{self, DnsOptions};
use ubique_lab::{probe, wire};
use ubique_model::traffic::ServerSpec;
use ubique_node::sessions::connection_id_key;
use ubique_node::{bfd, routers};
use ubique_sys::sandbox;

use crate::Exit;
use crate::arguments::InternalCommand;
use crate::logging;
use crate::run::chain;
use crate::say::{say, tell};

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
            probe::run(&spec, io::stdin(), io::stdout(), &stop).map_err(Into::into)
        }),
        InternalCommand::Clients { spec } => read(&spec)
            .and_then(|spec| ubique_traffic::run_clients(&spec, io::stdin(), io::stdout()).map_err(Into::into)),
        InternalCommand::Sessions { spec } => read(&spec).and_then(|spec| stand_in(&spec)),
        InternalCommand::Dns { site, zone, address, listen } => {
            let stop = AtomicBool::new(false);
            dns::run(&DnsOptions { site, zone, addresses: address, listen }, &stop).map_err(Into::into)
        }
        InternalCommand::Man { directory } => crate::man::write(&directory).map_err(Into::into),
        InternalCommand::BenchWire => crate::rehearse::bench_wire(),
        InternalCommand::BenchBfd { minutes } => bench_bfd(minutes),
    };
    match outcome {
        Ok(()) => Exit::Fine,
        Err(error) => {
            say!("ubique: {}", chain(error.as_ref()));
            Exit::CouldNotRun
        }
    }
}

/// The stand-in service of a site, until it is killed.
fn stand_in(spec: &ServerSpec) -> Result<(), Box<dyn Error>> {
    let secret = spec.identifiers.as_ref().map(|(_, secret)| secret);
    let key = secret.map(|secret| connection_id_key(secret)).transpose()?;
    Ok(ubique_traffic::serve(spec, key.as_deref())?)
}

/// BFD sessions for so many minutes, in a sandbox; JSON on stdout.
fn bench_bfd(minutes: f64) -> Result<(), Box<dyn Error>> {
    let duration = Duration::try_from_secs_f64(minutes * 60.0)?;
    let soak = sandbox::spawn(move || {
        let directory = Path::new("/run/ubique");
        match fs::create_dir_all(directory).and_then(|()| bfd::bench::soak(directory, duration)) {
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
    match soak.wait()? {
        0 => Ok(()),
        code => Err(format!("the benchmark ended with {code}").into()),
    }
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<T, Box<dyn Error>> {
    let text = fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
    Ok(serde_json::from_str(&text).map_err(|e| format!("{}: {e}", path.display()))?)
}
