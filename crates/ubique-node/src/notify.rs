//! What a service manager is told: sd_notify(3), over the datagram socket in `NOTIFY_SOCKET`.
//!
//! A few lines of our own: the protocol is one datagram of `KEY=VALUE` lines, and nothing may ever wait for it. Without
//! the variable nothing is sent. `WATCHDOG=1` comes from the agent's loop, twice in the time the manager allows
//! (`WATCHDOG_USEC`), so that an agent whose loop stands still is ended even when its own watchdog is gone.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};
use ubique_sys::clock::monotonic_ns;

/// Variables of the protocol: not for programs we start.
pub(crate) const VARIABLES: [&str; 3] = ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"];

/// Longest status line, octets; the rest is left out.
const STATUS_BYTES: usize = 512;

/// Words in the time after which the manager gives up on us.
const WORDS_PER_STALL: u32 = 2;

/// A service manager, or nobody.
pub(crate) struct Notifier {
    socket: Option<UnixDatagram>,
    watchdog: Option<Interval>,
    /// The status told last.
    status: String,
    /// It was said that nobody listens.
    broken: bool,
}

impl Notifier {
    /// The manager that the environment names. Must be called on the runtime.
    pub(crate) fn from_environment() -> Notifier {
        let variable = |name: &str| std::env::var_os(name);
        Notifier::new(|name| variable(name), std::process::id())
    }

    fn new(variable: impl Fn(&str) -> Option<OsString>, own: u32) -> Notifier {
        let number = |name: &str| variable(name).and_then(|v| v.to_str().and_then(|v| v.parse::<u64>().ok()));
        let socket = variable("NOTIFY_SOCKET").filter(|path| !path.is_empty());
        let socket = socket.and_then(|path| match open(&path) {
            Ok(socket) => Some(socket),
            Err(error) => {
                tracing::warn!(%error, path = %path.to_string_lossy(), "the service manager cannot be told anything");
                None
            }
        });
        let ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(own));
        let stall = number("WATCHDOG_USEC").filter(|&us| ours && us > 0 && socket.is_some()).map(Duration::from_micros);
        let watchdog = stall.map(|stall| {
            let every = stall / WORDS_PER_STALL;
            let mut interval = interval_at(Instant::now() + every, every);
            interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
            interval
        });
        Notifier { socket, watchdog, status: String::new(), broken: false }
    }

    /// Waits until the watchdog must be told that we live; for ever where there is none.
    pub(crate) async fn due(&mut self) {
        match &mut self.watchdog {
            Some(interval) => drop(interval.tick().await),
            None => std::future::pending().await,
        }
    }

    /// We live.
    pub(crate) fn alive(&mut self) {
        self.send("WATCHDOG=1");
    }

    /// The agent runs: sessions are being opened, checks polled.
    pub(crate) fn ready(&mut self) {
        self.send("READY=1");
    }

    /// The service file is read again; [`Notifier::ready`] ends that.
    pub(crate) fn reloading(&mut self) {
        // systemd compares the time with that of its signal (sd_notify(3)).
        let now_us = monotonic_ns() / 1000;
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={now_us}"));
    }

    /// The agent withdraws and ends.
    pub(crate) fn stopping(&mut self) {
        self.send("STOPPING=1");
    }

    /// Whether anybody listens.
    pub(crate) fn is_heard(&self) -> bool {
        self.socket.is_some()
    }

    /// How things are, in one line; told when it differs from the last one.
    pub(crate) fn status(&mut self, status: &str) {
        if !self.is_heard() || self.status == status {
            return;
        }
        status.clone_into(&mut self.status);
        let line: String = status.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let end = (0..=STATUS_BYTES.min(line.len())).rev().find(|&i| line.is_char_boundary(i)).unwrap_or(0);
        self.send(&format!("STATUS={}", &line[..end]));
    }

    fn send(&mut self, text: &str) {
        let Some(socket) = &self.socket else {
            return;
        };
        match socket.send(text.as_bytes()) {
            Ok(_) => self.broken = false,
            Err(error) if !self.broken => {
                self.broken = true;
                tracing::warn!(%error, "the service manager takes no notifications");
            }
            Err(_) => {}
        }
    }
}

/// A socket to the manager's: a path, or with `@` an abstract name.
fn open(address: &OsStr) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    match address.as_bytes() {
        [b'@', name @ ..] => socket.connect_addr(&SocketAddr::from_abstract_name(name)?)?,
        [b'/', ..] => socket.connect(address)?,
        _ => return Err(io::Error::new(io::ErrorKind::Unsupported, "neither a path nor an abstract name")),
    }
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: u32 = 4711;

    /// A manager at an abstract name, and a notifier that the environment of a unit would make.
    fn pair(name: &str, more: &[(&str, &str)]) -> (UnixDatagram, Notifier) {
        let name = format!("ubique-notify-{name}-{}", std::process::id());
        let manager = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        manager.set_nonblocking(true).unwrap();
        let notifier = Notifier::new(
            |key| match key {
                "NOTIFY_SOCKET" => Some(format!("@{name}").into()),
                _ => more.iter().find(|(k, _)| *k == key).map(|(_, v)| v.into()),
            },
            OWN,
        );
        (manager, notifier)
    }

    fn heard(manager: &UnixDatagram) -> Option<String> {
        let mut buffer = [0u8; 2048];
        let length = manager.recv(&mut buffer).ok()?;
        Some(String::from_utf8(buffer[..length].to_vec()).unwrap())
    }

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap()
    }

    #[test]
    fn a_manager_hears_each_word_once() {
        let (manager, mut notifier) = pair("words", &[]);
        notifier.ready();
        notifier.status("announced: healthy");
        notifier.status("announced: healthy");
        notifier.status("drained: new\ndisks");
        notifier.stopping();
        for expected in ["READY=1", "STATUS=announced: healthy", "STATUS=drained: new disks", "STOPPING=1"] {
            assert_eq!(heard(&manager).as_deref(), Some(expected));
        }
        assert_eq!(heard(&manager), None);
        notifier.status(&"ä".repeat(STATUS_BYTES));
        assert_eq!(heard(&manager).unwrap().len(), "STATUS=".len() + STATUS_BYTES);
        notifier.reloading();
        let text = heard(&manager).unwrap();
        let (first, time) = text.split_once('\n').unwrap();
        let time: u64 = time.strip_prefix("MONOTONIC_USEC=").unwrap().parse().unwrap();
        assert!(first == "RELOADING=1" && time.abs_diff(monotonic_ns() / 1000) < 60_000_000, "{text}");
    }

    #[test]
    fn the_watchdog_hears_us_twice_in_its_time() {
        runtime().block_on(async {
            let (manager, mut notifier) = pair("watchdog", &[("WATCHDOG_USEC", "100000"), ("WATCHDOG_PID", "4711")]);
            let start = Instant::now();
            notifier.due().await;
            assert!(start.elapsed() >= Duration::from_millis(50));
            notifier.alive();
            assert_eq!(heard(&manager).as_deref(), Some("WATCHDOG=1"));
        });
    }

    #[test]
    fn what_is_not_for_us_is_not_answered() {
        runtime().block_on(async {
            let (_manager, other) = pair("other", &[("WATCHDOG_USEC", "2000000"), ("WATCHDOG_PID", "1")]);
            assert!(other.watchdog.is_none());
            let (_manager, nonsense) = pair("nonsense", &[("WATCHDOG_USEC", "soon")]);
            assert!(nonsense.watchdog.is_none());
        });
        let mut nobody = Notifier::new(|_| None, OWN);
        nobody.ready();
        assert!(nobody.socket.is_none());
        for address in ["", "relative", "vsock:2:1", "/nonexistent/socket"] {
            let silent = Notifier::new(|key| (key == "NOTIFY_SOCKET").then(|| address.into()), OWN);
            assert!(silent.socket.is_none(), "{address}");
        }
    }

    #[test]
    fn a_manager_that_goes_or_does_not_read_stops_nobody() {
        let (manager, mut notifier) = pair("deaf", &[]);
        for _ in 0..10_000 {
            notifier.alive();
        }
        assert!(notifier.broken);
        drop(manager);
        notifier.alive();
    }
}
