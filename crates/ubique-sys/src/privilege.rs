//! Capabilities: giving up those a process does not need, for good.
//!
//! [`reduce`] limits the calling thread and everything it will start, and so is called before other threads exist. What
//! is given up cannot come back: not by executing a program with file capabilities or a set-user-ID bit
//! (`PR_SET_NO_NEW_PRIVS`), not as root (the bounding set, where we may change it, and again no new privileges). The
//! ambient set is emptied, so that programs an ordinary user's agent starts have no capability at all; those of root
//! have what is kept. `capabilities(7)`.

use std::fmt;
use std::io;

use rustix::thread::{CapabilitySet, CapabilitySets};

/// A set of capabilities.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Capabilities(CapabilitySet);

/// The capabilities that ubique knows by name.
const NAMED: &[(&str, CapabilitySet)] = &[
    ("CAP_BPF", CapabilitySet::BPF),
    ("CAP_CHOWN", CapabilitySet::CHOWN),
    ("CAP_DAC_OVERRIDE", CapabilitySet::DAC_OVERRIDE),
    ("CAP_KILL", CapabilitySet::KILL),
    ("CAP_NET_ADMIN", CapabilitySet::NET_ADMIN),
    ("CAP_NET_BIND_SERVICE", CapabilitySet::NET_BIND_SERVICE),
    ("CAP_NET_RAW", CapabilitySet::NET_RAW),
    ("CAP_PERFMON", CapabilitySet::PERFMON),
    ("CAP_SETPCAP", CapabilitySet::SETPCAP),
    ("CAP_SYS_ADMIN", CapabilitySet::SYS_ADMIN),
    ("CAP_SYS_NICE", CapabilitySet::SYS_NICE),
    ("CAP_SYS_PTRACE", CapabilitySet::SYS_PTRACE),
];

impl Capabilities {
    /// None.
    pub const NONE: Capabilities = Capabilities(CapabilitySet::empty());
    /// Addresses, socket events.
    pub const NET_ADMIN: Capabilities = Capabilities(CapabilitySet::NET_ADMIN);
    /// Ports below 1024.
    pub const NET_BIND_SERVICE: Capabilities = Capabilities(CapabilitySet::NET_BIND_SERVICE);
    /// Packet sockets, sockets bound to an interface.
    pub const NET_RAW: Capabilities = Capabilities(CapabilitySet::NET_RAW);
    /// Priorities of threads.
    pub const SYS_NICE: Capabilities = Capabilities(CapabilitySet::SYS_NICE);
    /// Files of other users' processes in `/proc`.
    pub const SYS_PTRACE: Capabilities = Capabilities(CapabilitySet::SYS_PTRACE);
    /// BPF programs and maps.
    pub const BPF: Capabilities = Capabilities(CapabilitySet::BPF);
    /// What BPF programs need to read packets at places they computed.
    pub const PERFMON: Capabilities = Capabilities(CapabilitySet::PERFMON);
    /// Files of other users.
    pub const DAC_OVERRIDE: Capabilities = Capabilities(CapabilitySet::DAC_OVERRIDE);

    /// Those that are in either.
    #[must_use]
    pub const fn and(self, other: Capabilities) -> Capabilities {
        Capabilities(self.0.union(other.0))
    }

    /// Those that are in both.
    #[must_use]
    pub fn common(self, other: Capabilities) -> Capabilities {
        Capabilities(self.0.intersection(other.0))
    }

    /// Those of `self` that are not in `other`.
    #[must_use]
    pub fn without(self, other: Capabilities) -> Capabilities {
        Capabilities(self.0.difference(other.0))
    }

    /// Whether all of `other` are in it.
    pub fn has(self, other: Capabilities) -> bool {
        self.0.contains(other.0)
    }

    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    /// As the kernel prints a set: `CapEff:` of `/proc/PID/status`.
    pub fn parse(hexadecimal: &str) -> Option<Capabilities> {
        u64::from_str_radix(hexadecimal.trim(), 16).ok().map(|bits| Capabilities(CapabilitySet::from_bits_retain(bits)))
    }
}

impl fmt::Display for Capabilities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0;
        let mut separator = "";
        for (name, set) in NAMED.iter().filter(|(_, set)| self.0.contains(*set)) {
            write!(f, "{separator}{name}")?;
            separator = " ";
            rest.remove(*set);
        }
        match rest.bits().count_ones() {
            0 if separator.is_empty() => f.write_str("none"),
            0 => Ok(()),
            others => write!(f, "{separator}{}{others} others", if separator.is_empty() { "" } else { "and " }),
        }
    }
}

impl fmt::Debug for Capabilities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Capabilities({self})")
    }
}

/// Capabilities in force for the calling thread.
pub fn effective() -> io::Result<Capabilities> {
    Ok(Capabilities(rustix::thread::capabilities(None)?.effective))
}

/// Whether we are root (in our user namespace).
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Keeps of the calling thread's capabilities those in `keep`, for it and all that it starts; returns them.
pub fn reduce(keep: Capabilities) -> io::Result<Capabilities> {
    rustix::thread::set_no_new_privs(true)?;
    let now = rustix::thread::capabilities(None)?;
    if now.effective.contains(CapabilitySet::SETPCAP) {
        reduce_bounding_set(keep)?;
    }
    // Before the sets shrink: an ambient capability that is no longer permitted would go by itself, others would not.
    rustix::thread::clear_ambient_capability_set()?;
    let kept = now.permitted.intersection(keep.0);
    let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
    rustix::thread::set_capabilities(None, sets)?;
    Ok(Capabilities(kept))
}

/// What root gets when it executes a program.
fn reduce_bounding_set(keep: Capabilities) -> io::Result<()> {
    for capability in CapabilitySet::from_bits_retain(u64::MAX).iter().filter(|c| !keep.0.contains(*c)) {
        match rustix::thread::capability_is_in_bounding_set(capability) {
            Ok(true) => rustix::thread::remove_capability_from_bounding_set(capability)?,
            Ok(false) => {}
            // Capabilities that this kernel does not have.
            Err(rustix::io::Errno::INVAL) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// The program that the calling thread executes next has what it has. Root's has that in any case.
pub fn hand_over() -> io::Result<()> {
    let now = rustix::thread::capabilities(None)?;
    rustix::thread::set_capabilities(None, CapabilitySets { inheritable: now.permitted, ..now })?;
    for capability in now.permitted.iter() {
        rustix::thread::configure_capability_in_ambient_set(capability, true)?;
    }
    Ok(())
}

/// Gives up everything, with system calls only: for a child between fork and its work.
pub(crate) fn renounce() -> io::Result<()> {
    rustix::thread::set_no_new_privs(true)?;
    let none = CapabilitySet::empty();
    let sets = CapabilitySets { effective: none, permitted: none, inheritable: none };
    Ok(rustix::thread::set_capabilities(None, sets)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_spelt_as_operators_know_them() {
        let both = Capabilities::NET_RAW.and(Capabilities::NET_ADMIN);
        assert_eq!(both.to_string(), "CAP_NET_ADMIN CAP_NET_RAW");
        assert_eq!(Capabilities::NONE.to_string(), "none");
        let all = Capabilities::parse("000001ffffffffff").unwrap();
        assert!(all.to_string().ends_with("and 29 others"), "{all}");
        assert!(all.has(both) && !both.has(all));
        assert_eq!(all.without(all.without(both)), both);
        assert_eq!(Capabilities::parse("nonsense"), None);
    }
}
