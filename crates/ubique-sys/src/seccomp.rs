//! Seccomp: the system calls a process makes, and no others.
//!
//! [`Filter::new`] makes a filter of the calls an agent needs, [`Filter::apply`] puts it on all threads; what they start
//! inherits it. A call that is not on the list fails with `EPERM`: the agent goes on, since a site that dies of a library's
//! new habit is worse than one call less. What the list cannot know fails with `ENOSYS`, calls newer than the list and
//! `clone3`, whose flags a filter cannot see: C libraries then use the older call. Namespaces cannot be made, and only sockets of
//! [`calls::FAMILIES`] opened.
//!
//! - [`Calls::Agent`]: an agent and the programs it starts, which inherit the filter: those of `exec` checks, and its
//!   successor in an upgrade in place. What ordinary programs do, and nothing that changes the machine.
//! - [`Calls::AgentWithBpf`]: the same with `bpf`, for the data plane; what may be done with it is a matter of capabilities.
//! - [`Calls::Watchdog`]: the watchdog process, which only waits, kills and exits.
//!
//! Own code and no library: a filter is a list of comparisons, and no kept crate tells `ENOSYS` from `EPERM`. The numbers of calls are
//! the C library's. x86-64, AArch64 and RISC-V; elsewhere there is no filter. `seccomp(2)`, `Documentation/userspace-api/seccomp_filter.rst`.

mod calls;

use std::io;

use libc::{c_long, sock_filter};

/// For whom a filter is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Calls {
    /// The agent and the programs it starts.
    Agent,
    /// The same with `bpf`: an agent with a data plane.
    AgentWithBpf,
    /// The watchdog process.
    Watchdog,
}

impl Calls {
    /// Of an agent, with or without a data plane.
    fn is_agent(self) -> bool {
        self != Calls::Watchdog
    }
}

/// Newest call that was looked at for the lists: all architectures have the same numbers since 424. `listxattrat`, Linux 6.13.
const NEWEST_KNOWN: u32 = 466;

/// `AUDIT_ARCH_*` of `linux/audit.h`.
#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: Option<u32> = Some(0xc000_003e);
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: Option<u32> = Some(0xc000_00b7);
#[cfg(target_arch = "riscv64")]
const ARCHITECTURE: Option<u32> = Some(0xc000_00f3);
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64")))]
const ARCHITECTURE: Option<u32> = None;

// Offsets in `struct seccomp_data`; of arguments the low half, on little-endian machines.
const NUMBER: u32 = 0;
const MACHINE: u32 = 4;
const FIRST_ARGUMENT: u32 = 16;

const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const ABOVE: u16 = (libc::BPF_JMP | libc::BPF_JGT | libc::BPF_K) as u16;
const ANY_BIT: u16 = (libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K) as u16;
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;

const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;

/// Namespaces of all kinds.
const NEW_NAMESPACE: u32 = (libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET) as u32;

/// A filter, ready to be applied.
#[derive(Clone, Debug)]
pub struct Filter(Vec<sock_filter>);

impl Filter {
    /// `Unsupported` where the numbers of system calls are not known.
    pub fn new(calls: Calls) -> io::Result<Filter> {
        let unknown = || io::Error::new(io::ErrorKind::Unsupported, "no filter for this architecture");
        let mut code = Code(Vec::new());
        code.load(MACHINE);
        code.jump(EQUAL, ARCHITECTURE.ok_or_else(unknown)?, 1, 0);
        code.answer(refusal(libc::EPERM));
        code.load(NUMBER);
        // Also the calls of x32, whose numbers have a high bit.
        code.jump(ABOVE, NEWEST_KNOWN, 0, 1);
        code.answer(refusal(libc::ENOSYS));
        if calls.is_agent() {
            code.when(libc::SYS_clone3, refusal(libc::ENOSYS));
        }
        for list in calls::lists(calls) {
            list.iter().for_each(|&call| code.when(call, ALLOW));
        }
        if calls.is_agent() {
            code.arguments();
        }
        code.answer(refusal(libc::EPERM));
        Ok(Filter(code.0))
    }

    /// Puts it on every thread of the process, with `PR_SET_NO_NEW_PRIVS`. For good; a further filter only takes more.
    pub fn apply(&self) -> io::Result<()> {
        self.install(libc::SECCOMP_FILTER_FLAG_TSYNC | libc::SECCOMP_FILTER_FLAG_LOG)
    }

    /// Puts it on the calling thread: with system calls only.
    pub(crate) fn apply_here(&self) -> io::Result<()> {
        self.install(libc::SECCOMP_FILTER_FLAG_LOG)
    }

    fn install(&self, flags: libc::c_ulong) -> io::Result<()> {
        rustix::thread::set_no_new_privs(true)?;
        let length = u16::try_from(self.0.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        let program = libc::sock_fprog { len: length, filter: self.0.as_ptr().cast_mut() };
        // SAFETY: the kernel copies `len` instructions, which it does not change, and checks them.
        let result = unsafe {
            libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, std::ptr::from_ref(&program))
        };
        match result {
            0 => Ok(()),
            -1 => Err(io::Error::last_os_error()),
            thread => Err(io::Error::other(format!("thread {thread} has another filter already"))),
        }
    }
}

fn refusal(errno: i32) -> u32 {
    libc::SECCOMP_RET_ERRNO | errno.unsigned_abs() & libc::SECCOMP_RET_DATA
}

/// The program as it grows.
struct Code(Vec<sock_filter>);

impl Code {
    fn jump(&mut self, code: u16, k: u32, jt: u8, jf: u8) {
        self.0.push(sock_filter { code, jt, jf, k });
    }

    fn load(&mut self, offset: u32) {
        self.jump(LOAD, offset, 0, 0);
    }

    fn answer(&mut self, answer: u32) {
        self.jump(RETURN, answer, 0, 0);
    }

    /// Every call has its answer right behind its comparison, so that no jump is too far.
    fn when(&mut self, call: c_long, answer: u32) {
        self.jump(EQUAL, call as u32, 0, 1);
        self.answer(answer);
    }

    /// The calls that are looked at closer.
    fn arguments(&mut self) {
        // socket(family, …)
        let families = calls::FAMILIES;
        self.jump(EQUAL, libc::SYS_socket as u32, 0, 2 * families.len() as u8 + 2);
        self.load(FIRST_ARGUMENT);
        families.iter().for_each(|&family| self.when(family.into(), ALLOW));
        self.answer(refusal(libc::EAFNOSUPPORT));
        // clone(flags, …)
        self.jump(EQUAL, libc::SYS_clone as u32, 0, 4);
        self.load(FIRST_ARGUMENT);
        self.jump(ANY_BIT, NEW_NAMESPACE, 0, 1);
        self.answer(refusal(libc::EPERM));
        self.answer(ALLOW);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a program answers to a call: the machine of `bpf(4)`, as far as filters use it.
    fn run(filter: &Filter, architecture: u32, call: c_long, argument: u32) -> u32 {
        let (mut at, mut value) = (0, 0);
        loop {
            let line = filter.0[at];
            at += 1;
            let jump = |holds: bool| at + usize::from(if holds { line.jt } else { line.jf });
            match line.code {
                LOAD => {
                    value = match line.k {
                        NUMBER => call as u32,
                        MACHINE => architecture,
                        FIRST_ARGUMENT => argument,
                        other => panic!("offset {other}"),
                    }
                }
                EQUAL => at = jump(value == line.k),
                ABOVE => at = jump(value > line.k),
                ANY_BIT => at = jump(value & line.k != 0),
                RETURN => return line.k,
                other => panic!("code {other}"),
            }
        }
    }

    #[test]
    fn each_call_has_its_answer() {
        let Some(here) = ARCHITECTURE else { return };
        let eperm = refusal(libc::EPERM);
        let agent = Filter::new(Calls::Agent).unwrap();
        let data_plane = Filter::new(Calls::AgentWithBpf).unwrap();
        let watchdog = Filter::new(Calls::Watchdog).unwrap();
        for (call, argument, of_agent, of_watchdog) in [
            (libc::SYS_read, 0, ALLOW, eperm),
            (libc::SYS_ppoll, 0, ALLOW, ALLOW),
            (libc::SYS_pidfd_send_signal, 0, ALLOW, ALLOW),
            (libc::SYS_execve, 0, ALLOW, eperm),
            (libc::SYS_ptrace, 0, eperm, eperm),
            (libc::SYS_mount, 0, eperm, eperm),
            (libc::SYS_bpf, 0, eperm, eperm),
            (libc::SYS_setns, 0, eperm, eperm),
            (libc::SYS_unshare, 0, eperm, eperm),
            (libc::SYS_socket, libc::AF_INET6 as u32, ALLOW, eperm),
            (libc::SYS_socket, libc::AF_VSOCK as u32, refusal(libc::EAFNOSUPPORT), eperm),
            (libc::SYS_clone, libc::CLONE_VM as u32, ALLOW, eperm),
            (libc::SYS_clone, libc::CLONE_NEWUSER as u32, eperm, eperm),
            (libc::SYS_clone3, 0, refusal(libc::ENOSYS), eperm),
            (10_000, 0, refusal(libc::ENOSYS), refusal(libc::ENOSYS)),
        ] {
            assert_eq!(run(&agent, here, call, argument), of_agent, "agent: call {call} ({argument})");
            assert_eq!(run(&watchdog, here, call, argument), of_watchdog, "watchdog: call {call} ({argument})");
            // The numbers of another architecture (i386 on x86-64) mean other calls.
            assert_eq!(run(&agent, here ^ 1, call, argument), eperm);
            let with_bpf = if call == libc::SYS_bpf { ALLOW } else { of_agent };
            assert_eq!(run(&data_plane, here, call, argument), with_bpf, "with BPF: call {call} ({argument})");
        }
    }

    #[test]
    fn no_call_is_listed_twice_and_programs_are_not_too_long() {
        for calls in [Calls::Agent, Calls::AgentWithBpf, Calls::Watchdog] {
            let mut all: Vec<c_long> = calls::lists(calls).concat();
            let count = all.len();
            all.sort_unstable();
            all.dedup();
            assert_eq!(all.len(), count, "{calls:?}");
            // BPF_MAXINSNS
            assert!(Filter::new(calls).map_or(0, |f| f.0.len()) <= 4096);
        }
    }
}
