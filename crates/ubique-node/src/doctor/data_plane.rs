//! What `[sessions]` needs of the machine, and what an agent says of its data plane.

use ubique_model::service::TcpMethod;
use ubique_proto::sessions::timestamp::SLACK_MS;
use ubique_sys::privilege::Capabilities;

use super::{Case, Report};

/// The oldest kernel with all that the programs use.
const KERNEL: (u32, u32) = (5, 10);

/// A clock of another site that is further away will be too far one day, ms.
const CLOCK_APART_MS: u64 = SLACK_MS as u64 / 5;

pub(super) fn check(case: Case<'_>, report: &mut Report) {
    let Some((sessions, facts)) =
        case.subject.and_then(|(service, _)| service.sessions.as_ref()).zip(case.facts.data_plane.as_ref())
    else {
        return;
    };
    if !facts.built {
        report.error(
            "[sessions] does nothing: this program was built without its data plane",
            "use the program of the package, or build it where clang and libelf's headers are: cargo build --features sessions",
        );
    }
    if let Err(why) = &facts.secret {
        report.error(
            why.clone(),
            "openssl rand -hex 32 makes a secret: the same file at all sites, chmod 640, group ubique",
        );
    }
    kernel(case, report);
    if sessions.tcp != TcpMethod::Off && case.number("net/ipv4/tcp_timestamps").is_some_and(|setting| setting != 2) {
        report.error(
            "net.ipv4.tcp_timestamps is not 2: each connection has a clock of its own, and TCP connections end at a route change",
            "sysctl -w net.ipv4.tcp_timestamps=2, and in /etc/sysctl.d for the next boot",
        );
    }
    for (interface, program) in &facts.foreign {
        report.error(
            format!("{interface} has another XDP program (number {program}): ours cannot be there, too"),
            format!("ip link set dev {interface} xdp off, or leave {interface} out of `interfaces` of [sessions]"),
        );
    }
    ways(case, sessions.mtu_bytes, report);
    agent(case, report);
}

fn kernel(case: Case<'_>, report: &mut Report) {
    let release = case.facts.sysctls.get("kernel/osrelease").map(String::as_str).unwrap_or_default();
    let mut numbers = release.split(['.', '-']).map(str::parse::<u32>);
    let (Some(Ok(major)), Some(Ok(minor))) = (numbers.next(), numbers.next()) else {
        return report.unknown("the version of the kernel cannot be read");
    };
    if (major, minor) < KERNEL {
        report.error(
            format!("Linux {release} is too old for the data plane of [sessions]"),
            format!("Linux {}.{} or later", KERNEL.0, KERNEL.1),
        );
    }
    let needed = Capabilities::BPF.and(Capabilities::PERFMON);
    let (whose, have) = match &case.facts.agent {
        Some(Ok(agent)) => ("the agent lacks", agent.capabilities),
        _ => ("you, and an agent you start, lack", case.facts.capabilities),
    };
    match have.map(|have| needed.without(have)).filter(|lacking| !lacking.is_empty()) {
        Some(lacking) => report.error(
            format!("{whose} {lacking}: the data plane cannot be loaded"),
            "run it as ubique@SITE.service, or as root; in a container, add the capabilities",
        ),
        None if have.is_none() => report.unknown("capabilities cannot be read"),
        None => {}
    }
}

/// The ways to the other sites.
fn ways(case: Case<'_>, mtu: u16, report: &mut Report) {
    for (site, way) in case.facts.data_plane.iter().flat_map(|facts| &facts.sites) {
        if let Some(why) = &way.unreachable {
            report.error(
                format!("site {site} cannot be reached from our unicast address: {why}"),
                "`unicast` of this site is an address of this machine, with a route to those of the others",
            );
        }
        if let Some(path) = way.mtu.filter(|path| *path < mtu.into()) {
            report.error(
                format!("only {path} octets reach site {site}, and `mtu` of [sessions] says {mtu}: long packets that are passed on are lost"),
                format!("mtu = {path} in [sessions], or mend the path"),
            );
        }
    }
}

/// What an agent found out for itself.
fn agent(case: Case<'_>, report: &mut Report) {
    let Some(Ok(agent)) = &case.facts.agent else { return };
    let Some(sessions) = &agent.status.sessions else {
        return report
            .warning("the agent began without [sessions]", "restart it: programs are put on interfaces at its start");
    };
    for trouble in &sessions.troubles {
        report.error(
            format!("{}: {}", trouble.what, trouble.why),
            "see docs/sessions/agent.md; `ubique status` shows when it is over",
        );
    }
    for site in &sessions.sites {
        if site.up == Some(false) {
            report.error(
                format!("site {} does not answer at {}: its connections are reset here", site.name, site.address),
                "is its agent set up with [sessions] and the same secret? firewalls let UDP to `port` through, both ways",
            );
        }
        let apart = site.clock_ahead_ms.unwrap_or_default();
        if apart.unsigned_abs() > CLOCK_APART_MS {
            report.warning(
                format!(
                    "the clock of site {} is {:+} s from ours; beyond {} s nothing of it is believed",
                    site.name,
                    apart / 1000,
                    SLACK_MS / 1000
                ),
                "keep the clocks of all sites in step: apt install chrony",
            );
        }
    }
}
