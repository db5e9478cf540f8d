//! What goes wrong with a data plane, and what to do about it.

/// Why there is no data plane.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The program was built without it.
    #[error("data plane: unavailable: {0}")]
    Unavailable(&'static str),
    /// A value of [`Config`](crate::Config) that the programs cannot hold.
    #[error("data plane: {0}")]
    Config(String),
    /// CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON are needed.
    #[error(
        "data plane: not permitted to load BPF programs: run as root, or with CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON"
    )]
    NotPermitted,
    /// The kernel refuses a program.
    #[error("data plane: the kernel refuses the programs: {0}")]
    Load(String),
    /// SYNs cannot be answered by cookies of our own here; [`Tier::Timestamps`](crate::Tier::Timestamps) may do.
    #[error("data plane: no SYN cookies of our own: {0}")]
    Cookies(String),
    /// Another XDP program is on the interface.
    #[error(
        "data plane: {interface} has another XDP program, {program}: detach it (ip link set dev {interface} xdp off), or leave the interface out of [sessions] interfaces"
    )]
    Occupied {
        /// Name of the interface.
        interface: String,
        /// Name and number of the program.
        program: String,
    },
    /// Anything else the kernel says.
    #[error("data plane: {what}: {source}")]
    Kernel {
        /// What was tried.
        what: String,
        /// What it said.
        source: std::io::Error,
    },
}
