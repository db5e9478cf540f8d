//! Network namespaces, named by bind mounts.
//!
//! A namespace lives as long as a process, a mount or a descriptor refers to it. Sockets stay in the namespace they were
//! opened in, whatever their thread does later; [`NetNs::run`] uses that: it opens them on a thread of its own.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::thread::{LinkNameSpaceType, UnshareFlags};

use crate::netlink::Netlink;

/// `lo` is the first interface of every namespace.
pub(crate) const LOOPBACK_INDEX: u32 = 1;
const OWN_NAMESPACE: &str = "/proc/thread-self/ns/net";

/// A network namespace, kept alive by the descriptor in it.
#[derive(Debug)]
pub struct NetNs(OwnedFd);

impl AsFd for NetNs {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl NetNs {
    /// The namespace of the calling thread.
    pub fn current() -> io::Result<NetNs> {
        NetNs::open(Path::new(OWN_NAMESPACE))
    }

    /// The namespace bound at `path`, or a `/proc/PID/ns/net`. Another kind of file is found out by [`NetNs::enter`].
    pub fn open(path: &Path) -> io::Result<NetNs> {
        Ok(NetNs(File::open(path)?.into()))
    }

    /// Makes a namespace with its `lo` up and IPv6 on, and binds it at `path`, whose file and directories are made.
    /// The calling thread stays where it was. Needs `CAP_SYS_ADMIN` (the sandbox has it).
    pub fn create_at(path: &Path) -> io::Result<NetNs> {
        if let Some(directory) = path.parent() {
            std::fs::create_dir_all(directory)?;
        }
        // An existing file may be a live namespace: never hidden under a second mount.
        OpenOptions::new().write(true).create_new(true).open(path)?;
        let made = on_fresh_thread(|| {
            // SAFETY: only the namespace of this fresh thread changes; its descriptor table stays shared.
            unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }?;
            prepare_current()?;
            rustix::mount::mount_bind(OWN_NAMESPACE, path)?;
            NetNs::current()
        })
        .and_then(|made| made);
        if made.is_err() {
            // The empty file would be taken for a namespace by the next reader.
            let _ = std::fs::remove_file(path);
        }
        made
    }

    /// The calling thread's namespace when it is not that of PID 1: in a lab, or beside a host. `None` also when that
    /// cannot be told.
    pub fn special() -> Option<NetNs> {
        let own = NetNs::current().ok()?;
        let init = File::open("/proc/1/ns/net").ok()?.metadata().ok()?.ino();
        (own.inode().ok()? != init).then_some(own)
    }

    /// Moves the calling thread (and only it) into the namespace.
    pub fn enter(&self) -> io::Result<()> {
        let kind = Some(LinkNameSpaceType::Network);
        rustix::thread::move_into_link_name_space(self.0.as_fd(), kind)?;
        Ok(())
    }

    /// Runs `f` on a fresh thread inside the namespace and returns its value; sockets opened there stay there.
    /// A panic of `f` goes on in the caller.
    pub fn run<T: Send>(&self, f: impl FnOnce() -> T + Send) -> io::Result<T> {
        on_fresh_thread(|| self.enter().map(|()| f())).and_then(|value| value)
    }

    /// A second descriptor of the same namespace.
    pub fn try_clone(&self) -> io::Result<NetNs> {
        Ok(NetNs(self.0.try_clone()?))
    }

    /// The number that tells namespaces apart, as in `net:[4026531840]`.
    pub fn inode(&self) -> io::Result<u64> {
        Ok(File::from(self.0.try_clone()?).metadata()?.ino())
    }
}

/// Brings `lo` up in the calling thread's namespace. Hosts that switch IPv6 off by default pass that on to new
/// namespaces; ours need it.
pub(crate) fn prepare_current() -> io::Result<()> {
    for scope in ["all", "default", "lo"] {
        let path = format!("/proc/sys/net/ipv6/conf/{scope}/disable_ipv6");
        // Absent without IPv6 in the kernel: then IPv6 addresses are what fails, with a clear error.
        if std::fs::read_to_string(&path).is_ok_and(|value| value.trim() != "0") {
            std::fs::write(&path, "0")?;
        }
    }
    Netlink::open()?.set_up(LOOPBACK_INDEX)
}

fn on_fresh_thread<T: Send>(f: impl FnOnce() -> T + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("netns".into()).spawn_scoped(scope, f)?;
        thread.join().or_else(|panic| std::panic::resume_unwind(panic))
    })
}
