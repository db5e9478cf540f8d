//! What the programs are called, and what they tell: the same whether they were built or not.

/// A program of the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// For what arrives (XDP).
    Ingress,
    /// For what leaves (tc).
    Egress,
    /// Lets everything pass (XDP).
    Pass,
    /// What arrives, forwarded, and as it was again (XDP): only in [`Edge::load_for_measurement`](crate::Edge::load_for_measurement).
    Forward,
    /// What [`Program::Forward`] costs without forwarding.
    Undo,
    /// For acknowledgements that may be cookies (tc): of [`Tier::Cookies`](crate::Tier::Cookies) only.
    Adopt,
}

/// What the driver of an interface can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Device {
    /// Run programs itself ([`Mode::Native`]).
    pub native: bool,
    /// Take packets from programs now. A veth does once its other end has a program or GRO; many drivers do once they have a program.
    pub transmits: bool,
}

/// How programs are attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// In the driver.
    Native,
    /// In the kernel's generic receive path: slower, but for any driver.
    Generic,
}

/// What a program did with one packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// `XDP_…` or `TC_ACT_…`
    pub action: u32,
    /// The packet afterwards.
    pub packet: Vec<u8>,
    /// Of each repetition, on average.
    pub duration: std::time::Duration,
}
