//! The machine: rights, clock, disks, the service manager, addresses.

use ubique_proto::site::State;
use ubique_sys::privilege::Capabilities;

use super::{Case, Report};

/// Less of a file system free than this is too little: a journal file, some logs.
const FREE_BYTES: u64 = 128 << 20;

/// Less than this share, too.
const FREE_PERCENT: u64 = 3;

/// A clock that may be this wrong is of no use for logs of several sites, ms.
const CLOCK_ERROR_MS: u64 = 1000;

/// The capabilities an agent needs, and what each is for.
const NEEDED: [(Capabilities, &str); 2] = [
    (Capabilities::NET_ADMIN, "service addresses cannot be put on the loopback, socket events not be had"),
    (Capabilities::NET_BIND_SERVICE, "upstreams cannot connect: port 179 cannot be opened"),
];

pub(super) fn capabilities(case: Case<'_>, report: &mut Report) {
    let (whose, have) = match &case.facts.agent {
        Some(Ok(agent)) => ("the agent", agent.capabilities),
        _ => ("you, and an agent you start,", case.facts.capabilities),
    };
    let Some(have) = have else {
        return report.unknown(format!("the capabilities of {whose} cannot be read"));
    };
    for (needed, what) in NEEDED {
        if !have.has(needed) {
            report.error(
                format!("{whose} lacks {needed}: {what}").replace("you start, lacks", "you start, lack"),
                "run it as ubique@SITE.service, or as root; in a container, add the capability (docker run --cap-add)",
            );
        }
    }
}

pub(super) fn clock(case: Case<'_>, report: &mut Report) {
    let Some(clock) = case.facts.clock else {
        return report.unknown("the kernel does not tell how its clock is kept");
    };
    let fix = "install and start an NTP client: apt install chrony (a container's clock is its host's)";
    if !clock.synchronised {
        report.warning("the clock is not synchronised: logs of sites cannot be compared, certificates may fail", fix);
    } else if clock.error_max_ms > CLOCK_ERROR_MS {
        report.warning(format!("the clock may be wrong by {} ms", clock.error_max_ms), fix);
    }
}

pub(super) fn directories(case: Case<'_>, report: &mut Report) {
    if case.subject.is_none() {
        return report.unknown("without a service file it is not known where the agent writes");
    }
    for directory in &case.facts.directories {
        let (path, purpose) = (directory.path.display(), directory.purpose);
        if let Err(why) = &directory.writable {
            report.error(
                format!("{purpose} cannot be written to {path}: {why}"),
                format!("mkdir -p {path}; chown ubique: {path} (the package and its unit do that)"),
            );
        }
        if let Some((free, total)) = directory.space
            && (free < FREE_BYTES || free < total / 100 * FREE_PERCENT)
        {
            report.warning(
                format!("only {} MiB are free for {purpose} in {path}", free >> 20),
                "make room, or let `size-mib` and `files` of [agent.journal] and [agent.mrt] take less",
            );
        }
    }
}

pub(super) fn supervision(case: Case<'_>, report: &mut Report) {
    let agent = match &case.facts.agent {
        Some(Ok(agent)) => agent,
        Some(Err(why)) => {
            let fix = match case.facts.systemd {
                true => "systemctl enable --now ubique@SITE",
                false => "ubique run FILE --site SITE, under a supervisor that starts it again",
            };
            return report.warning(format!("the agent does not run, or cannot be asked: {why}"), fix);
        }
        None => return report.unknown("without a service file and a site no agent is looked for"),
    };
    if !case.facts.systemd {
        return;
    }
    if agent.unit.is_none() {
        report.warning(
            "the agent is no unit of systemd's: after a crash nobody starts it again",
            "stop it, then systemctl enable --now ubique@SITE",
        );
    } else if agent.watchdog == Some(false) {
        report.warning(
            "the unit of the agent has no WatchdogSec",
            "use the unit of the package, or add WatchdogSec=10s and NotifyAccess=main",
        );
    }
}

pub(super) fn addresses(case: Case<'_>, report: &mut Report) {
    let (Some((service, _)), Some(loopback)) = (case.subject, &case.facts.loopback) else {
        return report.unknown("without a service file no addresses are known");
    };
    let serving = match &case.facts.agent {
        Some(Ok(agent)) => matches!(agent.status.state, State::Announced | State::Draining),
        _ => false,
    };
    for address in service.addresses.iter().filter(|address| loopback.contains(address) != serving) {
        if serving {
            report.error(
                format!("{address} is announced and not on the loopback: its clients get no answer"),
                format!("ip address add {address} dev lo; find out who removes it: ip monitor address"),
            );
        } else if !matches!(case.facts.agent, Some(Ok(_))) {
            report.note(
                format!(
                    "{address} is on the loopback although no agent runs: the agent will leave it there at its end"
                ),
                format!("if nobody else wants it: ip address del {address} dev lo"),
            );
        }
    }
}
