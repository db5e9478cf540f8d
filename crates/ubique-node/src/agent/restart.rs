//! Coming back: what an agent with graceful restart remembers of its former life, and what it may claim after it.
//!
//! A neighbour with graceful restart keeps our routes while we are away (RFC 4724), and keeps them further on only when
//! we say that packets were served all the time. That is so when the service addresses stayed on the loopback since this
//! machine booted, and we had announced. A small file next to the admin socket says the latter; it is written by another
//! thread, so that a full or stuck disk costs the claim and nothing else. It also says which addresses the agent has put
//! there, so that one that comes after a crash takes them for its own and removes them in the end.

use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use ubique_model::service::Site as SiteSpec;
use ubique_model::{AddressFamily, Family, IpNet, Prefix};
use ubique_proto::bfd::Carried;
use ubique_proto::bgp::family::AddressFamilies;
use ubique_proto::bgp::speaker::Restarted;

/// Identifies a boot: a random number of the kernel's.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Longest file that is read, octets: 64 prefixes and addresses fit several times.
const FILE_BYTES: u64 = 64 << 10;

/// What was so when it was last written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Life {
    /// The boot it was in.
    boot: String,
    /// What was announced.
    announced: Vec<Prefix>,
    /// Addresses the agent has put on the loopback.
    added: Vec<IpNet>,
    /// BFD sessions for the program that takes the place of this one.
    #[serde(default)]
    bfd: Vec<Carried>,
}

/// What is remembered, and what follows from it.
pub(super) struct Restart {
    /// `None`: this machine does not tell one boot from another.
    memory: Option<watch::Sender<Life>>,
    path: PathBuf,
    boot: String,
    former: Life,
    restarted: Option<Restarted>,
    settled: bool,
}

impl Restart {
    /// Reads what the former agent of this `site` left at `path`; `present`: service addresses that are on the loopback
    /// before anything was added. Must be called on the runtime.
    pub(super) fn new(site: &SiteSpec, path: PathBuf, addresses: &[IpNet], present: &[IpNet]) -> Restart {
        let mut upstreams = site.upstreams.iter().chain(site.dynamic.iter().map(|d| &d.template));
        let graceful = upstreams.any(|u| u.graceful_restart.is_some());
        let boot = fs::read_to_string(BOOT_ID).unwrap_or_default().trim().to_owned();
        if boot.is_empty() {
            let former = Life::default();
            return Restart { memory: None, path, boot, former, restarted: None, settled: true };
        }
        let former = read(&path).ok().filter(|life| life.boot == boot).unwrap_or_default();
        let restarted = claim(&former, addresses, present).filter(|_| graceful);
        if let Some(restarted) = restarted {
            tracing::info!(forwarding = ?restarted.forwarding, "this agent comes back: neighbours may keep our routes");
        }
        let (memory, changes) = watch::channel(Life::default());
        tokio::task::spawn_local(keep(path.clone(), changes));
        Restart { memory: Some(memory), path, boot, former, restarted, settled: restarted.is_none() }
    }

    /// What to tell the neighbours.
    pub(super) fn restarted(&self) -> Option<Restarted> {
        self.restarted
    }

    /// Addresses that the former agent put on the loopback: they are ours to remove.
    pub(super) fn added(&self) -> &[IpNet] {
        &self.former.added
    }

    /// BFD sessions that the program before this one left to go on with; their clock is that of the boot.
    pub(super) fn bfd(&mut self) -> Vec<Carried> {
        std::mem::take(&mut self.former.bfd)
    }

    /// Whether the neighbours still wait for us to say that we are through.
    pub(super) fn is_settling(&self) -> bool {
        !self.settled
    }

    pub(super) fn settle(&mut self) {
        self.settled = true;
    }

    /// Whether anything is to be remembered.
    pub(super) fn remembers(&self) -> bool {
        self.memory.is_some()
    }

    /// Writes what is remembered before this returns: the agent is about to be replaced by one that goes on with `bfd`.
    pub(super) fn write_now(&self, bfd: Vec<Carried>) {
        if let Some(memory) = &self.memory
            && let Err(error) = write(&self.path, &Life { bfd, ..memory.borrow().clone() })
        {
            tracing::error!(path = %self.path.display(), %error, "the next program cannot claim what was announced");
        }
    }

    /// Remembers what is announced now, and which addresses are ours.
    pub(super) fn remember(&self, announced: Vec<Prefix>, added: Vec<IpNet>) {
        if let Some(memory) = &self.memory {
            let life = Life { boot: self.boot.clone(), announced, added, bfd: vec![] };
            memory.send_if_modified(|now| {
                let changed = *now != life;
                *now = life;
                changed
            });
        }
    }
}

/// F, for each family whose service addresses all stayed where they were (RFC 4724 §4.1); `None`: nothing to claim.
fn claim(former: &Life, addresses: &[IpNet], present: &[IpNet]) -> Option<Restarted> {
    let stayed = |family: Family| {
        let mut own = addresses.iter().filter(|a| Family::of(a) == family).peekable();
        own.peek().is_some() && own.all(|a| present.contains(a))
    };
    let announced = |family: Family| former.announced.iter().any(|p| Family::of(p) == family);
    let kept = Family::ALL.into_iter().filter(|f| announced(*f) && stayed(*f));
    let forwarding: AddressFamilies = kept.map(AddressFamily::unicast).collect();
    (forwarding != AddressFamilies::NONE).then_some(Restarted { forwarding })
}

/// Writes every change, or the last of several; ends with the agent.
async fn keep(path: PathBuf, mut changes: watch::Receiver<Life>) {
    let mut failing = false;
    while changes.changed().await.is_ok() {
        let life = changes.borrow_and_update().clone();
        let to = path.clone();
        let save = move || {
            // What is there may claim too much.
            write(&to, &life).inspect_err(|_| drop(fs::remove_file(&to)))
        };
        let written = tokio::task::spawn_blocking(save).await;
        let error = match written {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(error) => Some(error.to_string()),
        };
        if let Some(error) = error.as_ref().filter(|_| !failing) {
            tracing::warn!(path = %path.display(), error, "cannot remember what is announced and whose the addresses are");
        }
        failing = error.is_some();
    }
}

fn write(path: &Path, life: &Life) -> io::Result<()> {
    let new = path.with_extension("state.new");
    let mut file = fs::File::create(&new)?;
    file.write_all(&serde_json::to_vec(life)?)?;
    drop(file);
    // No fsync: the file means nothing after the next boot.
    fs::rename(&new, path)
}

fn read(path: &Path) -> io::Result<Life> {
    let mut text = Vec::new();
    fs::File::open(path)?.take(FILE_BYTES).read_to_end(&mut text)?;
    Ok(serde_json::from_slice(&text)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nets(list: &[&str]) -> Vec<IpNet> {
        list.iter().map(|n| n.parse().unwrap()).collect()
    }

    fn forwarding(announced: &[&str], present: &[&str]) -> Option<AddressFamilies> {
        let former = Life { boot: "b".into(), announced: nets(announced), ..Life::default() };
        let addresses = nets(&["198.51.100.53/32", "198.51.100.54/32", "2001:db8:53::53/128"]);
        claim(&former, &addresses, &nets(present)).map(|r| r.forwarding)
    }

    #[test]
    fn only_what_was_announced_and_stayed_is_claimed() {
        let both = ["198.51.100.0/24", "2001:db8:53::/48"];
        let all = ["198.51.100.53/32", "198.51.100.54/32", "2001:db8:53::53/128"];
        assert_eq!(forwarding(&both, &all), Some(AddressFamilies::UNICAST));
        assert_eq!(forwarding(&both, &all[..2]), Some(AddressFamilies::only(Family::Ipv4)));
        assert_eq!(forwarding(&both, &all[1..]), Some(AddressFamilies::only(Family::Ipv6)), "one address is missing");
        assert_eq!(forwarding(&both[..1], &all), Some(AddressFamilies::only(Family::Ipv4)));
        assert_eq!(forwarding(&[], &all), None);
        assert_eq!(forwarding(&both, &[]), None);
    }

    #[test]
    fn a_life_is_written_whole_or_not_at_all() {
        let path = std::env::temp_dir().join(format!("ubique-life-{}.state", std::process::id()));
        let added = nets(&["198.51.100.53/32"]);
        let life = Life { boot: "b".into(), announced: nets(&["198.51.100.0/24"]), added, bfd: vec![] };
        write(&path, &life).unwrap();
        assert_eq!(read(&path).unwrap(), life);
        fs::write(&path, b"{\"boot\":").unwrap();
        assert!(read(&path).is_err());
        fs::remove_file(&path).unwrap();
        assert!(read(&path).is_err());
        assert!(write(Path::new("/nonexistent/life.state"), &life).is_err());
    }
}
