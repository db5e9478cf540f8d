//! Sessions with upstreams: keys, connections, BFD.

use ubique_model::service::Upstream;

use super::{Case, Connection, Report};
use crate::admin::PeerStatus;
use crate::agent::lacking;

/// What the agent says about an upstream.
fn peer<'a>(case: Case<'a>, upstream: &Upstream) -> Option<&'a PeerStatus> {
    let agent = case.facts.agent.as_ref()?.as_ref().ok()?;
    agent.status.peers.iter().find(|peer| peer.address == upstream.address && peer.interface == upstream.interface)
}

fn is_established(peer: &PeerStatus) -> bool {
    peer.state == "established"
}

pub(super) fn keys(case: Case<'_>, report: &mut Report) {
    if let Some((service, _)) = case.subject
        && let Some(what) = lacking(service)
    {
        report.error(what.message, what.fix);
    }
    let signed = |upstream: &&Upstream| upstream.password_file.is_some();
    if case.upstreams().any(|upstream| signed(&upstream)) && case.facts.has_md5 == Some(false) {
        report.error(
            "the kernel has no TCP MD5 signatures (CONFIG_TCP_MD5SIG), and the service file has password files",
            "use a kernel of your distribution: all have it",
        );
    }
    let counter = |name: &str| case.facts.counters.get(name).copied().unwrap_or(0);
    let down = |upstream: &&Upstream| peer(case, upstream).is_some_and(|peer| !is_established(peer));
    for upstream in case.upstreams().filter(down) {
        let address = upstream.address;
        // The counters are the machine's, since boot: they say what to look at first.
        let (expected, wrong) = (counter("TcpExt.TCPMD5NotFound"), counter("TcpExt.TCPMD5Failure"));
        let unexpected = counter("TcpExt.TCPMD5Unexpected");
        if signed(&upstream) && expected > 0 {
            report.error(
                format!("{address} is not connected, and {expected} segments came without the signature they need"),
                "configure the same TCP MD5 password at the upstream",
            );
        }
        if signed(&upstream) && wrong > 0 {
            report.error(
                format!("{address} is not connected, and {wrong} segments came with a wrong signature"),
                format!("compare both passwords; ours is the first line of {}", shown(upstream)),
            );
        }
        if !signed(&upstream) && upstream.tcp_ao.is_none() && unexpected > 0 {
            report.error(
                format!("{address} is not connected, and {unexpected} segments came signed with TCP MD5 that were to be plain"),
                "give the upstream a `password-file`, or take the password away at the upstream",
            );
        }
        if upstream.tcp_ao.is_some() && counter("TcpExt.TCPAOBad") + counter("TcpExt.TCPAOKeyNotFound") > 0 {
            report.error(
                format!("{address} is not connected, and segments came with a wrong or unknown TCP-AO key"),
                "compare secret, algorithm and both KeyIDs: our `send-id` is the upstream's receive-id",
            );
        }
    }
}

fn shown(upstream: &Upstream) -> String {
    upstream.password_file.as_ref().map(|file| file.display().to_string()).unwrap_or_default()
}

pub(super) fn upstreams(case: Case<'_>, report: &mut Report) {
    if case.subject.is_none() {
        return report.unknown("without a service file and a site no upstreams are known");
    }
    for upstream in case.upstreams() {
        let (address, port) = (upstream.address, upstream.port);
        if let Some(peer) = peer(case, upstream) {
            if !is_established(peer) {
                let why = peer.last_error.as_deref().unwrap_or("no connection has come about yet");
                report.error(
                    format!("no session with AS{} at {address} ({}): {why}", upstream.asn, peer.state),
                    "ping it; compare AS numbers, addresses, TTL and passwords of both sides; `ubique doctor --upstream bird|frr|junos|ios-xr` prints its side",
                );
            }
            continue;
        }
        let Some(path) = case.facts.paths.get(&address) else {
            continue;
        };
        if let Some(why) = &path.unreachable {
            report.error(
                format!("there is no way to {address}: {why}"),
                "look at `ip route get` and the interface's address",
            );
            continue;
        }
        match &path.connection {
            Some(Connection::Accepted) => {}
            Some(Connection::Refused) => report.warning(
                format!("{address} refuses connections to port {port}"),
                "configure this neighbour there: `ubique doctor --upstream …` prints how; most routers refuse unknown ones",
            ),
            Some(Connection::Silent) => report.error(
                format!("{address} does not answer on port {port}"),
                "ping it; if that works a filter drops TCP port 179 there, on the way, or its answers here",
            ),
            Some(Connection::Failed(why)) => report.error(format!("{address} cannot be reached: {why}"), "look at `ip route get`"),
            None => report.unknown(format!("{address} was not called: it needs a key, or calls us")),
        }
    }
}

pub(super) fn bfd(case: Case<'_>, report: &mut Report) {
    for upstream in case.upstreams().filter(|upstream| upstream.bfd.is_some()) {
        let (address, port) = (upstream.address, bfd_port(upstream));
        let Some(bfd) = peer(case, upstream).and_then(|peer| peer.bfd.as_ref()) else {
            report.unknown(format!("BFD with {address} can be judged only while the agent runs"));
            continue;
        };
        if bfd.state == "up" || bfd.state == "admindown" {
            continue;
        }
        if let Some(error) = &bfd.error {
            report.error(
                format!("BFD with {address}: {error}"),
                "mend that first: no packet leaves, or none can be heard",
            );
        } else if bfd.received == 0 && bfd.discarded == 0 {
            report.error(
                format!("no BFD packet has come from {address} (UDP port {port})"),
                "configure BFD there (`ubique doctor --upstream …`), and let UDP ports 3784 (one hop) and 4784 (multihop) pass",
            );
        } else if bfd.received == 0 {
            report.error(
                format!(
                    "BFD packets of {address} come and are discarded ({}): wrong TTL, discriminator or authentication",
                    bfd.discarded
                ),
                "one-hop BFD needs TTL 255 on a common link: more hops need `multihop` on both sides",
            );
        } else {
            report.error(
                format!("BFD with {address} is {}: {}", bfd.state, bfd.cause),
                "the upstream hears nothing of us, or has our session shut down: look at its BFD sessions",
            );
        }
    }
}

/// UDP port of BFD with an upstream (RFC 5881 §4, RFC 5883 §5).
pub(super) fn bfd_port(upstream: &Upstream) -> u16 {
    let hops = upstream.multihop.or(upstream.ttl_security).unwrap_or(1);
    if hops > 1 { 4784 } else { 3784 }
}
