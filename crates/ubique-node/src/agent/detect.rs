//! Detectors: events that tell at once what a poll would tell later.
//!
//! - The kernel announces every destroyed socket (sock_diag). When it was the last one that served the target
//!   of a check, the check is down now.
//! - A pidfd becomes readable when its process ends: for `process` checks, and where sock_diag is not permitted
//!   for the owner of the serving socket.
//! - An address of the service was removed from the loopback.
//!
//! A socket or process that goes away says nothing while another one still serves (workers that share a port
//! with SO_REUSEPORT), so each event is followed by a look at what is left.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::Poll;

use tokio::io::unix::AsyncFd;
use tokio::sync::{Notify, mpsc};
use tokio::task::spawn_blocking;
use ubique_model::IpNet;
use ubique_model::check::CheckKind;
use ubique_sys::netlink::{AddressEvent, AddressMonitor};
use ubique_sys::process::{PidFd, owner_of_socket};
use ubique_sys::sockdiag::{DestroyMonitor, Destroyed, Listener, listeners};

use crate::checks::{self, Find};
use crate::fd::{Watched, watch};

/// Processes of one check that are watched at a time.
const PROCESSES: usize = 64;

/// What a detector saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Detected {
    /// What serves this check is gone.
    Gone {
        /// Index of the check.
        check: usize,
        /// What was seen.
        cause: String,
    },
    /// The service addresses were asked for the start gate.
    Verified {
        /// `Err`: which does not answer, and why.
        result: Result<(), String>,
    },
    /// Another site was looked for by a ping through an upstream.
    Probed {
        /// Its name.
        upstream: String,
        /// Whether one answered; `Err`: no ping could be sent.
        answered: Result<bool, String>,
    },
    /// An address is no longer on this interface; `None`: look at all.
    AddressRemoved {
        /// Interface and address.
        which: Option<(u32, IpNet)>,
    },
}

/// A server on this machine that a check asks.
#[derive(Clone, Debug)]
pub(super) struct Server {
    check: usize,
    target: SocketAddr,
    tcp: bool,
    /// A socket was found once. Where none ever is (the kernel sends queries on to elsewhere), that none is left says
    /// nothing.
    seen: Arc<AtomicBool>,
}

impl Server {
    /// The servers behind a check that are local: a service address, a loopback address, or one of this machine.
    pub(super) fn of(check: usize, kind: &CheckKind, service: &[IpAddr]) -> Vec<Server> {
        let local = |ip: IpAddr| {
            service.contains(&ip)
                || ip.is_loopback()
                || ip.is_unspecified()
                // An address that can be bound is ours.
                || std::net::UdpSocket::bind((ip, 0)).is_ok()
        };
        let servers = checks::servers(kind, service).into_iter().filter(|(target, _)| local(target.ip()));
        servers.map(|(target, tcp)| Server { check, target, tcp, seen: Arc::default() }).collect()
    }

    fn is_served_by(&self, socket: &Listener) -> bool {
        let ip = self.target.ip();
        let covers = socket.address == ip
            || ip.is_unspecified()
            || match socket.address {
                IpAddr::V4(any) => any.is_unspecified() && ip.is_ipv4(),
                // A socket bound to :: serves IPv4 too unless IPV6_V6ONLY is set.
                IpAddr::V6(any) => {
                    any.is_unspecified() || any.to_ipv4_mapped().is_some_and(|v4| v4 == ip || v4.is_unspecified())
                }
            };
        socket.tcp == self.tcp && socket.port == self.target.port() && covers
    }

    /// The sockets that serve it now.
    fn sockets(&self) -> io::Result<Vec<Listener>> {
        let mut sockets = listeners(self.target.port())?;
        sockets.retain(|s| self.is_served_by(s));
        if !sockets.is_empty() {
            self.seen.store(true, Relaxed);
        }
        Ok(sockets)
    }

    /// Whether any is left. When that cannot be seen, the polls will tell.
    fn is_served(&self) -> bool {
        self.sockets().map_or(true, |sockets| !sockets.is_empty())
    }

    fn gone(&self) -> String {
        let protocol = if self.tcp { "TCP" } else { "UDP" };
        format!("no socket serves {protocol} {} any more", self.target)
    }
}

/// Tells of servers whose last socket was destroyed. Ends only when events cannot be had.
pub(super) async fn sockets(
    monitor: DestroyMonitor,
    servers: Vec<Server>,
    out: mpsc::Sender<Detected>,
) -> io::Result<()> {
    let mut monitor = watch(monitor)?;
    loop {
        let mut ready = monitor.readable_mut().await?;
        // A server with many workers goes with many events: one look at each server tells all.
        let mut concerned = vec![false; servers.len()];
        while let Some(event) = ready.get_inner_mut().0.recv()? {
            for (concerned, server) in concerned.iter_mut().zip(&servers) {
                *concerned |= match &event {
                    Destroyed::Socket(socket) => server.is_served_by(socket),
                    Destroyed::Overrun => server.seen.load(Relaxed),
                };
            }
        }
        ready.clear_ready();
        for (server, _) in servers.iter().zip(concerned).filter(|(_, concerned)| *concerned) {
            let gone = || Detected::Gone { check: server.check, cause: server.gone() };
            if !server.is_served() && out.send(gone()).await.is_err() {
                return Ok(());
            }
        }
    }
}

/// Tells of addresses that were removed.
pub(super) async fn addresses(monitor: AddressMonitor, out: mpsc::Sender<Detected>) -> io::Result<()> {
    let mut monitor = watch(monitor)?;
    loop {
        let mut ready = monitor.readable_mut().await?;
        while let Some(event) = ready.get_inner_mut().0.recv()? {
            let which = match event {
                AddressEvent::Address { added: false, index, address } => Some((index, address)),
                AddressEvent::Overrun => None,
                AddressEvent::Address { .. } | AddressEvent::Link { .. } => continue,
            };
            if out.send(Detected::AddressRemoved { which }).await.is_err() {
                return Ok(());
            }
        }
        ready.clear_ready();
    }
}

/// Whose processes are watched for a check.
#[derive(Clone, Debug)]
pub(super) enum Subject {
    /// Those that hold the sockets of the servers; all of these must be served.
    Owners(Vec<Server>),
    /// Those a `process` or `systemd` check finds.
    Process(Find),
}

impl Subject {
    /// What to watch for a check, if anything.
    pub(super) fn of(kind: &CheckKind, servers: Vec<Server>) -> Option<Subject> {
        match Find::of(kind) {
            Some(find) => find.ok().map(Subject::Process),
            None => (!servers.is_empty()).then_some(Subject::Owners(servers)),
        }
    }

    /// Searches all of `/proc` for owners: not on the runtime's thread.
    fn processes(&self) -> Vec<u32> {
        match self {
            Subject::Process(find) => find.pids().unwrap_or_default(),
            Subject::Owners(servers) => {
                let mut inodes: Vec<u32> =
                    servers.iter().flat_map(|s| s.sockets().unwrap_or_default()).map(|s| s.inode).collect();
                inodes.sort_unstable();
                inodes.dedup();
                let owners = |inode: &u32| owner_of_socket(*inode).unwrap_or_default();
                let mut pids: Vec<u32> = inodes.iter().flat_map(owners).collect();
                pids.sort_unstable();
                pids.dedup();
                pids
            }
        }
    }

    /// Whether something still serves. A process may have to be searched for in all of `/proc`, off the runtime's thread;
    /// a socket is one question to the kernel. Where another thread is not needed a withdrawal does not wait for one: on a
    /// busy machine it gets its turn late.
    async fn is_alive(&self) -> bool {
        match self {
            Subject::Owners(servers) => servers.iter().all(Server::is_served),
            Subject::Process(find) => {
                if let Some(look) = find.look_at_once() {
                    return look.is_ok();
                }
                let find = find.clone();
                spawn_blocking(move || find.look(None).is_ok()).await.unwrap_or(false)
            }
        }
    }
}

/// Tells when the processes of a check are gone. `resolve` says that it is worth looking for them (again).
pub(super) async fn processes(check: usize, subject: Subject, resolve: Arc<Notify>, out: mpsc::Sender<Detected>) {
    loop {
        resolve.notified().await;
        let mut ended = None;
        loop {
            let watched = watch_once(&subject, &resolve).await;
            ended = watched.or(ended);
            let Some(pid) = ended else { break };
            if !subject.is_alive().await {
                let cause = format!("process {pid} ended");
                if out.send(Detected::Gone { check, cause }).await.is_err() {
                    return;
                }
                break;
            }
            // Where nothing is left to watch, the last one may have ended while it was searched for; who serves now
            // cannot be watched.
            if watched.is_none() {
                break;
            }
        }
    }
}

/// Finds the processes and waits until one ends. `None`: there is none to watch.
async fn watch_once(subject: &Subject, resolve: &Notify) -> Option<u32> {
    loop {
        let search = subject.clone();
        let pids = spawn_blocking(move || search.processes()).await.unwrap_or_default();
        let held: Vec<(u32, AsyncFd<Watched<PidFd>>)> = pids
            .into_iter()
            .take(PROCESSES)
            .filter_map(|pid| Some((pid, PidFd::open(pid).ok()?)))
            // A zombie would be readable at once, again and again.
            .filter(|(_, fd)| fd.exited().is_ok_and(|ended| !ended))
            .filter_map(|(pid, fd)| Some((pid, watch(fd).ok()?)))
            .collect();
        if held.is_empty() {
            return None;
        }
        let first_end = std::future::poll_fn(|cx| {
            for (pid, fd) in &held {
                if fd.poll_read_ready(cx).is_ready() {
                    return Poll::Ready(*pid);
                }
            }
            Poll::Pending
        });
        tokio::select! {
            pid = first_end => return Some(pid),
            () = resolve.notified() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listener(address: &str, tcp: bool) -> Listener {
        Listener { tcp, address: address.parse().unwrap(), port: 53, inode: 1, uid: 0, queue: 0 }
    }

    #[test]
    fn wildcard_sockets_serve_what_they_cover() {
        let server =
            |target: &str| Server { check: 0, target: target.parse().unwrap(), tcp: false, seen: Arc::default() };
        let (v4, v6) = (server("198.51.100.53:53"), server("[2001:db8::53]:53"));
        for (socket, serves_v4, serves_v6) in [
            ("198.51.100.53", true, false),
            ("198.51.100.54", false, false),
            ("0.0.0.0", true, false),
            ("::", true, true),
            ("::ffff:198.51.100.53", true, false),
            ("2001:db8::53", false, true),
        ] {
            assert_eq!(v4.is_served_by(&listener(socket, false)), serves_v4, "{socket} v4");
            assert_eq!(v6.is_served_by(&listener(socket, false)), serves_v6, "{socket} v6");
            assert!(!v4.is_served_by(&listener(socket, true)), "another protocol");
        }
    }
}
