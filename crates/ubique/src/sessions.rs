//! `ubique sessions`: what a QUIC server is told, and taking the data plane off.

use ubique_model::service::Service;
use ubique_node::admin::SCHEMA_VERSION;
use ubique_node::sessions;

use crate::Exit;
use crate::arguments::{Color, Output, SessionsCommand, SessionsKeyArguments};
use crate::check::load;
use crate::say::{say, tell};

/// `ubique sessions`.
pub fn sessions(command: &SessionsCommand, output: Output, color: Color) -> Exit {
    match command {
        SessionsCommand::Key(arguments) => key(arguments, output, color),
        SessionsCommand::Off => off(output),
    }
}

fn key(arguments: &SessionsKeyArguments, output: Output, color: Color) -> Exit {
    let service = match load(&arguments.file, Service::parse, color) {
        Ok((service, _)) => service,
        Err(exit) => return exit,
    };
    let file = arguments.file.display();
    let (Some(settings), Some(site)) = (&service.sessions, service.site(&arguments.site)) else {
        match service.sessions {
            Some(_) => say!("ubique: {file} has no site {:?}", arguments.site),
            None => say!("ubique: {file} has no [sessions]"),
        }
        return Exit::BadInput;
    };
    match sessions::connection_id_key(&settings.secret_file) {
        Ok(key) => {
            match output {
                Output::Json => tell!(
                    "{}",
                    serde_json::json!({
                        "schema_version": SCHEMA_VERSION,
                        "site": site.number,
                        "rotation": sessions::keys::ROTATION,
                        "key": key,
                    })
                ),
                Output::Table => {
                    tell!("site     {}", site.number);
                    tell!("rotation {}", sessions::keys::ROTATION);
                    tell!("key      {key}");
                }
            }
            Exit::Fine
        }
        Err(error) => {
            say!("ubique: {error}");
            Exit::CouldNotRun
        }
    }
}

fn off(output: Output) -> Exit {
    match sessions::off() {
        Ok(removed) => {
            let names: Vec<&str> = removed.iter().map(|removed| removed.interface.as_str()).collect();
            match output {
                Output::Json => {
                    tell!("{}", serde_json::json!({ "schema_version": SCHEMA_VERSION, "interfaces": names }));
                }
                Output::Table if names.is_empty() => say!("no program of ubique is on any interface"),
                Output::Table => say!("taken off {}", names.join(", ")),
            }
            Exit::Fine
        }
        Err(why) => {
            say!("ubique: {why}");
            Exit::CouldNotRun
        }
    }
}
