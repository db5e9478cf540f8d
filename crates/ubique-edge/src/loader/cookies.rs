//! SYN cookies of our own, which the kernel adopts (`bpf/adopt.bpf.c`, Linux 6.9).
//!
//! Loaded only for [`Tier::Cookies`](crate::Tier::Cookies). Where it cannot be, [`Error::Cookies`] says why, and the agent falls to
//! [`Tier::Timestamps`](crate::Tier::Timestamps).

use crate::Error;

/// What the kernel must do for connections that our cookies agree on (`net.ipv4`), and by default does.
const SWITCHES: [&str; 4] = ["tcp_syncookies", "tcp_timestamps", "tcp_sack", "tcp_window_scaling"];

/// A kernel that is told to do without what a cookie agrees on would refuse the connection.
pub(super) fn check_switches() -> Result<(), Error> {
    for switch in SWITCHES {
        let path = format!("/proc/sys/net/ipv4/{switch}");
        if std::fs::read_to_string(path).is_ok_and(|value| value.trim() == "0") {
            return Err(Error::Cookies(format!("net.ipv4.{switch} is 0: set it to 1")));
        }
    }
    Ok(())
}

/// What the kernel says about the object with them.
pub(super) fn explain(error: Error) -> Error {
    match error {
        Error::Load(why) => Error::Cookies(format!("the kernel cannot adopt them (Linux 6.9 with BTF can): {why}")),
        other => other,
    }
}
