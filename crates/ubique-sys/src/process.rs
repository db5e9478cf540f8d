//! Processes: pidfds, who owns what, and children that die with us.
//!
//! Process ids are those of our own PID namespace. Where `/proc` belongs to an outer one (a container that forbids
//! mounting a new one), they are translated, so that a signal never hits another process than the one looked up.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, Mode, OFlags, RawDir, fstat, open};
use rustix::io::{FdFlags, fcntl_getfd};
use rustix::net::SocketType;
use rustix::net::sockopt::socket_type;
use rustix::process::{Pid, PidfdFlags};
use rustix::thread::UnshareFlags;

use crate::netns::NetNs;

const NO_WAIT: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };

/// The signals ubique sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGKILL
    Kill,
    /// SIGTERM
    Term,
    /// SIGSTOP
    Stop,
    /// SIGCONT
    Cont,
    /// SIGINT
    Int,
    /// SIGHUP
    Hup,
    /// SIGUSR2
    Usr2,
}

impl From<Signal> for rustix::process::Signal {
    fn from(signal: Signal) -> Self {
        match signal {
            Signal::Kill => Self::KILL,
            Signal::Term => Self::TERM,
            Signal::Stop => Self::STOP,
            Signal::Cont => Self::CONT,
            Signal::Int => Self::INT,
            Signal::Hup => Self::HUP,
            Signal::Usr2 => Self::USR2,
        }
    }
}

/// A process that keeps its identity when its number is used again. Readable once the process has ended.
#[derive(Debug)]
pub struct PidFd(OwnedFd);

impl AsFd for PidFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl PidFd {
    /// `NotFound` when there is no such process.
    pub fn open(pid: u32) -> io::Result<PidFd> {
        let fd = rustix::process::pidfd_open(to_pid(pid)?, PidfdFlags::empty());
        Ok(PidFd(fd.map_err(no_process)?))
    }

    /// `NotFound` when it has ended and was waited for.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        rustix::process::pidfd_send_signal(&self.0, signal.into()).map_err(no_process)
    }

    /// A second descriptor of the same process.
    pub fn try_clone(&self) -> io::Result<PidFd> {
        Ok(PidFd(self.0.try_clone()?))
    }

    /// Whether the process has ended.
    pub fn exited(&self) -> io::Result<bool> {
        let mut poll_fd = [PollFd::new(&self.0, PollFlags::IN)];
        loop {
            match poll(&mut poll_fd, Some(&NO_WAIT)) {
                Err(rustix::io::Errno::INTR) => {}
                ready => return Ok(ready? > 0),
            }
        }
    }
}

fn to_pid(pid: u32) -> io::Result<Pid> {
    let raw = i32::try_from(pid).ok().and_then(Pid::from_raw);
    raw.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, format!("no process id: {pid}")))
}

/// `ESRCH` has no kind of its own in the standard library.
fn no_process(errno: rustix::io::Errno) -> io::Error {
    match errno {
        rustix::io::Errno::SRCH => io::Error::new(io::ErrorKind::NotFound, "no such process"),
        other => other.into(),
    }
}

/// Processes of this name: what the kernel calls them (`comm`, at most 15 octets), or the file name of their program.
/// Daemons like to change the first (`nsd: main`); the second is told for one's own processes only, but to root for all.
pub fn find_by_name(name: &str) -> io::Result<Vec<u32>> {
    select(|directory| {
        let comm = fs::read(directory.join("comm")).unwrap_or_default();
        let program =
            || fs::read_link(directory.join("exe")).is_ok_and(|exe| exe.file_name() == Some(OsStr::new(name)));
        comm.strip_suffix(b"\n").unwrap_or(&comm) == name.as_bytes() || program()
    })
}

/// Processes that hold the socket with this inode number. Those of other users are seen only by root.
pub fn owner_of_socket(inode: u32) -> io::Result<Vec<u32>> {
    let wanted = format!("socket:[{inode}]");
    select(|directory| {
        let Ok(descriptors) = fs::read_dir(directory.join("fd")) else {
            return false;
        };
        descriptors.flatten().any(|descriptor| {
            fs::read_link(descriptor.path()).is_ok_and(|link| link.as_os_str() == OsStr::new(&wanted))
        })
    })
}

/// Processes of the process group `pgid`, zombies included.
pub fn members_of_group(pgid: u32) -> io::Result<Vec<u32>> {
    let mut members = Vec::new();
    for (_, pid) in processes()? {
        // Asked of the kernel, not of `/proc/PID/stat`, whose numbers may be those of an outer PID namespace.
        // SAFETY: no pointers.
        let group = unsafe { libc::getpgid(pid.cast_signed()) };
        if group > 0 && group.cast_unsigned() == pgid {
            members.push(pid);
        }
    }
    Ok(members)
}

/// Whether the calling process leads its session. The leader may be in an outer PID namespace, where the kernel says 0
/// (so it does for groups): not a [`Pid`].
pub(crate) fn leads_its_session() -> bool {
    // SAFETY: no pointers.
    let leader = unsafe { libc::getsid(0) };
    leader > 0 && leader.cast_unsigned() == std::process::id()
}

/// What processes cost so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Resident memory, octets; pages that processes share count for each.
    pub resident_bytes: u64,
    /// Time on a processor of all threads that still live, ns.
    pub cpu_ns: u64,
}

/// The cost of all processes of the group `pgid`; zero when there are none.
pub fn cost_of_group(pgid: u32) -> io::Result<Cost> {
    let members = members_of_group(pgid)?;
    let mut cost = Cost::default();
    for (directory, _) in processes()?.into_iter().filter(|(_, pid)| members.contains(pid)) {
        let number = |file: PathBuf, field: usize| {
            let text = fs::read_to_string(file).unwrap_or_default();
            text.split_ascii_whitespace().nth(field).and_then(|word| word.parse::<u64>().ok()).unwrap_or(0)
        };
        cost.resident_bytes += number(directory.join("statm"), 1) * rustix::param::page_size() as u64;
        let threads = fs::read_dir(directory.join("task")).into_iter().flatten().flatten();
        cost.cpu_ns += threads.map(|thread| number(thread.path().join("schedstat"), 0)).sum::<u64>();
    }
    Ok(cost)
}

/// Processes whose main thread is in `ns`. Those of other users are seen only by root.
pub fn members_of_netns(ns: &NetNs) -> io::Result<Vec<u32>> {
    let wanted = ns.inode()?;
    select(|directory| fs::metadata(directory.join("ns/net")).is_ok_and(|metadata| metadata.ino() == wanted))
}

fn select(wanted: impl Fn(&Path) -> bool) -> io::Result<Vec<u32>> {
    let all = processes()?.into_iter();
    Ok(all.filter(|(directory, _)| wanted(directory)).map(|(_, pid)| pid).collect())
}

/// The `/proc` directory and the number (in our PID namespace) of every process we can see there.
fn processes() -> io::Result<Vec<(PathBuf, u32)>> {
    let own = own_pid().to_string();
    let ours = fs::read_link("/proc/self")?.as_os_str() == OsStr::new(&own);
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let Some(listed) = parse_number(entry.file_name().as_bytes()) else {
            continue;
        };
        let directory = entry.path();
        if ours {
            found.push((directory, listed));
        } else if let Some(pid) = translate(&directory) {
            found.push((directory, pid));
        }
    }
    Ok(found)
}

/// For a `/proc` of an outer PID namespace: the number in ours; `None` for processes that are not in ours.
fn translate(directory: &Path) -> Option<u32> {
    let namespace = |of: &Path| Some(fs::metadata(of.join("ns/pid")).ok()?.ino());
    if namespace(directory)? != namespace(Path::new("/proc/self"))? {
        return None;
    }
    let status = fs::read_to_string(directory.join("status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
    line.split_ascii_whitespace().next_back()?.parse().ok()
}

fn parse_number(bytes: &[u8]) -> Option<u32> {
    std::str::from_utf8(bytes).ok()?.parse().ok()
}

/// Signals every process of the group `pgid`.
pub fn signal_group(pgid: u32, signal: Signal) -> io::Result<()> {
    rustix::process::kill_process_group(to_pid(pgid)?, signal.into()).map_err(no_process)
}

/// A command whose process enters `ns`, leads a process group of its own, and is killed when we die. It holds none of our
/// sockets from before its program is looked for: with a dead file system that may take for ever, and what is to be closed
/// on exec would stay open for as long, after our death, too.
///
/// **The kernel ties that death to the thread that spawns, not to the process**: spawn from a thread that lives as
/// long as the child should, as the main thread does; never from a worker that may end.
/// Entering needs our capabilities: with `Command::uid`, which takes effect before, use no `ns`.
pub fn command_in(program: &Path, ns: Option<&NetNs>) -> Command {
    // What fails here is reported by `spawn`, where the caller looks for it.
    let ns = ns.map(NetNs::try_clone).transpose().map_err(errno_of);
    let parent = PidFd::open(own_pid()).map_err(errno_of);
    let mut command = Command::new(program);
    command.process_group(0);
    let before_exec = move || {
        let parent = parent.as_ref().map_err(|errno| io::Error::from(*errno))?;
        set_death_signal()?;
        // It may have died before the request above was in force.
        if parent.exited()? {
            return Err(rustix::io::Errno::SRCH.into());
        }
        if let Some(ns) = ns.as_ref().map_err(|errno| io::Error::from(*errno))? {
            ns.enter()?;
        }
        // A process without /proc keeps them until exec.
        let _ = close_copies();
        Ok(())
    };
    // SAFETY: the closure makes only system calls (prctl, poll, setns, getdents, close and the like) and errors without
    // allocation: nothing that is forbidden after a fork among threads.
    unsafe { command.pre_exec(before_exec) };
    command
}

/// Closes what would be closed on exec. What the standard library tells of errors through stays, a pipe or a pair of
/// SOCK_SEQPACKET sockets, and with it others of these kinds, which nobody waits for the end of.
fn close_copies() -> io::Result<()> {
    let directory = open(c"/proc/self/fd", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut entries = RawDir::new(&directory, &mut buffer);
    while let Some(entry) = entries.next() {
        let Some(number) = parse_number(entry?.file_name().to_bytes()).and_then(|n| i32::try_from(n).ok()) else {
            continue;
        };
        if number == directory.as_raw_fd() {
            continue;
        }
        // SAFETY: it was open a moment ago, and this process has no other thread that could close it.
        let fd = unsafe { BorrowedFd::borrow_raw(number) };
        let kept = match FileType::from_raw_mode(fstat(fd)?.st_mode) {
            FileType::Fifo => true,
            FileType::Socket => socket_type(fd)? == SocketType::SEQPACKET,
            _ => false,
        };
        if !kept && fcntl_getfd(fd)?.contains(FdFlags::CLOEXEC) {
            // SAFETY: nothing that this process does between here and exec uses it.
            unsafe { rustix::io::close(number) };
        }
    }
    Ok(())
}

/// The command's process gets a host name of its own, as on a machine of that name. Needs CAP_SYS_ADMIN.
pub fn with_hostname(command: &mut Command, name: &str) {
    let name = name.as_bytes().to_owned();
    let before_exec = move || {
        // SAFETY: only the host name is unshared; no memory, descriptor or thread is concerned.
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWUTS) }?;
        Ok(rustix::system::sethostname(&name)?)
    };
    // SAFETY: the closure makes two system calls and allocates nothing.
    unsafe { command.pre_exec(before_exec) };
}

/// The calling process is killed when its parent dies: precisely, the thread of the parent that made it.
/// A parent that died before the call is not noticed; children of [`command_in`] need no call, and have no such gap.
pub fn die_with_parent() -> io::Result<()> {
    let parent = rustix::process::getppid();
    set_death_signal()?;
    if rustix::process::getppid() != parent {
        return Err(rustix::io::Errno::SRCH.into());
    }
    Ok(())
}

pub(crate) fn set_death_signal() -> io::Result<()> {
    let kill = Some(rustix::process::Signal::KILL);
    Ok(rustix::process::set_parent_process_death_signal(kill)?)
}

pub(crate) fn own_pid() -> u32 {
    rustix::process::getpid().as_raw_nonzero().get().unsigned_abs()
}

fn errno_of(error: io::Error) -> rustix::io::Errno {
    rustix::io::Errno::from_io_error(&error).unwrap_or(rustix::io::Errno::INVAL)
}
