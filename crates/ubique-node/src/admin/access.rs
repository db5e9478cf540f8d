//! Who a caller of the admin socket is, and whether he may act.
//!
//! The kernel tells who connected (SO_PEERCRED, SO_PEERGROUPS): nothing the caller says counts. Root, the agent's own
//! user and members of `[agent] admin-group` may act; whoever else the socket's mode lets connect may read.
//! Names come from `/etc/passwd` and `/etc/group`: a static binary has no name service, so groups of a directory
//! service are given by number. A group that does not exist is no reason not to start: nobody is in it.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use ubique_sys::peer::{Credentials, credentials};

/// Octets of an account file that are looked at.
const ACCOUNT_BYTES: u64 = 4 << 20;

/// Mode of a socket whose owner and group may connect.
const MODE: u32 = 0o660;

/// Who may connect to the socket, and who may act.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Access {
    /// Mode of the socket.
    pub mode: u32,
    /// Members of it may act; the socket is given to it.
    pub group: Option<u32>,
    /// Our own user.
    own: u32,
}

impl Default for Access {
    fn default() -> Access {
        Access { mode: MODE, group: None, own: rustix::process::geteuid().as_raw() }
    }
}

impl Access {
    /// A socket of this mode, with members of `group` (name or number) as operators.
    pub(crate) fn new(mode: u32, group: Option<&str>) -> Access {
        let number = group.and_then(|name| {
            let number = name.parse().ok().or_else(|| lookup(&read_accounts("/etc/group"), name));
            if number.is_none() {
                tracing::error!(group = name, "no such admin-group in /etc/group: only root and our own user may act");
            }
            number
        });
        Access { mode, group: number, ..Access::default() }
    }

    fn may_act(&self, who: &Credentials) -> bool {
        let member = |group: u32| who.gid == group || who.groups.contains(&group);
        who.uid == 0 || who.uid == self.own || self.group.is_some_and(member)
    }
}

/// Somebody who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Caller {
    /// Over the admin socket.
    Local {
        /// Who the kernel says he is.
        credentials: Credentials,
        /// Whether he may act.
        may_act: bool,
    },
    /// Over HTTPS, with a certificate.
    #[cfg(feature = "tls")]
    Certificate {
        /// Its name.
        name: String,
        /// Whether he may act.
        may_act: bool,
    },
}

impl Caller {
    /// Who connected the socket.
    pub(crate) fn of(socket: &tokio::net::UnixStream, access: &Access) -> io::Result<Caller> {
        let credentials = credentials(socket)?;
        let may_act = access.may_act(&credentials);
        Ok(Caller::Local { credentials, may_act })
    }

    /// Whether he may act.
    pub(crate) fn may_act(&self) -> bool {
        match self {
            Caller::Local { may_act, .. } => *may_act,
            #[cfg(feature = "tls")]
            Caller::Certificate { may_act, .. } => *may_act,
        }
    }

    /// For events and the log: `alice (uid 1000, pid 4711)`, `CN=ops`.
    pub(crate) fn who(&self) -> String {
        match self {
            Caller::Local { credentials: Credentials { uid, pid, .. }, .. } => {
                let pid = if *pid == 0 { String::new() } else { format!(", pid {pid}") };
                match name_of(&read_accounts("/etc/passwd"), *uid) {
                    Some(name) => format!("{name} (uid {uid}{pid})"),
                    None => format!("uid {uid}{pid}"),
                }
            }
            #[cfg(feature = "tls")]
            Caller::Certificate { name, .. } => format!("CN={name}"),
        }
    }

    /// `Err`: why he may not act, and what would let him.
    pub(crate) fn permit(&self) -> Result<(), Refusal> {
        if self.may_act() {
            return Ok(());
        }
        let who = self.who();
        tracing::warn!(who, "refused: may read, not act");
        let cure = match self {
            Caller::Local { .. } => "root, the agent's own user and members of `[agent] admin-group` may",
            #[cfg(feature = "tls")]
            Caller::Certificate { .. } => "the names in `clients` of [agent.api] may",
        };
        Err(Refusal::Forbidden(format!("{who} may read but not act: {cure}")))
    }
}

fn read_accounts(path: &str) -> String {
    let mut octets = Vec::new();
    let read = File::open(Path::new(path)).and_then(|file| file.take(ACCOUNT_BYTES).read_to_end(&mut octets));
    match read {
        Ok(_) => String::from_utf8_lossy(&octets).into_owned(),
        Err(_) => String::new(),
    }
}

/// Fields of a line: name, password, number, …
fn accounts(text: &str) -> impl Iterator<Item = (&str, u32)> {
    text.lines().filter_map(|line| {
        let mut fields = line.split(':');
        Some((fields.next()?, fields.nth(1)?.parse().ok()?))
    })
}

fn lookup(text: &str, wanted: &str) -> Option<u32> {
    accounts(text).find(|(name, _)| *name == wanted).map(|(_, number)| number)
}

/// The name, when it can be printed.
fn name_of(text: &str, wanted: u32) -> Option<String> {
    let (name, _) = accounts(text).find(|(_, number)| *number == wanted)?;
    (!name.is_empty() && !name.chars().any(char::is_control)).then(|| name.to_owned())
}

/// Why a request was not carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    /// It is not a request.
    #[error("{0}")]
    Malformed(String),
    /// The caller may not.
    #[error("{0}")]
    Forbidden(String),
    /// Not now, or not this.
    #[error("{0}")]
    Refused(String),
    /// A guard says no; with a confirmation it would be carried out.
    #[error("{0}")]
    Guarded(String),
    /// The agent is ending.
    #[error("the agent is ending")]
    Ending,
}

impl Refusal {
    /// The reply that says so.
    pub(crate) fn line(&self) -> String {
        match self {
            Refusal::Guarded(error) => serde_json::json!({ "error": error, "guard": true }).to_string(),
            _ => super::error_line(&self.to_string()),
        }
    }
}

impl From<String> for Refusal {
    fn from(error: String) -> Refusal {
        Refusal::Refused(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACCOUNTS: &str =
        "root:x:0:0:root:/root:/bin/sh\nbroken\nalice:x:1000:1000::/:\nops:x:50:alice\nodd:x:many:\n";

    #[test]
    fn accounts_are_found_by_name_and_number() {
        assert_eq!(lookup(ACCOUNTS, "ops"), Some(50));
        assert_eq!(lookup(ACCOUNTS, "odd"), None);
        assert_eq!(lookup(ACCOUNTS, "al"), None);
        assert_eq!(name_of(ACCOUNTS, 1000).as_deref(), Some("alice"));
        assert_eq!(name_of(ACCOUNTS, 7), None);
        assert_eq!(name_of("e\u{1b}vil:x:7:7", 7), None);
    }

    #[test]
    fn root_we_ourselves_and_members_may_act() {
        let access = Access { mode: 0o666, group: Some(50), own: 999 };
        let who = |uid, gid, groups: &[u32]| Credentials { pid: 1, uid, gid, groups: groups.to_vec() };
        for (peer, may) in [
            (who(0, 0, &[]), true),
            (who(999, 999, &[]), true),
            (who(1000, 50, &[]), true),
            (who(1000, 1000, &[4, 50]), true),
            (who(1000, 1000, &[4, 51]), false),
            (who(1000, 0, &[0]), false),
        ] {
            assert_eq!(access.may_act(&peer), may, "{peer:?}");
        }
        let nobody = Access { group: None, ..access };
        assert!(!nobody.may_act(&who(1000, 50, &[50])));
    }

    #[test]
    fn a_caller_who_may_only_read_is_told_why() {
        let credentials = Credentials { pid: 7, uid: 4_000_000_000, gid: 1, groups: vec![] };
        let caller = Caller::Local { credentials, may_act: false };
        assert_eq!(caller.who(), "uid 4000000000, pid 7");
        let refusal = caller.permit().unwrap_err().to_string();
        assert!(refusal.starts_with("uid 4000000000, pid 7 may read but not act: root"), "{refusal}");
        #[cfg(feature = "tls")]
        {
            let remote = Caller::Certificate { name: "ops".into(), may_act: true };
            assert_eq!((remote.who().as_str(), remote.permit()), ("CN=ops", Ok(())));
        }
    }
}
