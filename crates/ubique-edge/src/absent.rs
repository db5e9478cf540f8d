//! Stands for the loader where the programs were not built: the same interface, which says so.

use ubique_proto::sessions::{Flow, Site};

use crate::{Config, Counters, Device, Error, Found, Mode, Peer, Program, Run};

/// A data plane: there is none.
#[derive(Debug)]
pub enum Edge {}

/// Programs on an interface: there are none.
#[derive(Debug)]
pub enum Attachment {}

impl Attachment {
    /// How it is attached.
    pub fn mode(&self) -> Mode {
        match *self {}
    }

    /// Takes the programs off.
    pub fn detach(self) -> Result<(), Error> {
        match self {}
    }
}

impl Edge {
    /// # Errors
    /// [`Error::Unavailable`], always.
    pub fn load(_config: &Config) -> Result<Edge, Error> {
        let why =
            if cfg!(feature = "bpf") { "built where there was no clang" } else { "built without the feature bpf" };
        Err(Error::Unavailable(why))
    }

    /// # Errors
    /// As [`Edge::load`].
    pub fn load_for_measurement(config: &Config) -> Result<Edge, Error> {
        Edge::load(config)
    }

    /// # Errors
    /// As [`Edge::load`].
    pub fn load_after(config: &Config, _former: &Former) -> Result<Edge, Error> {
        Edge::load(config)
    }

    /// Programs that are ours.
    pub fn follow(&mut self, _former: Vec<u32>) {
        match *self {}
    }

    /// Its number.
    pub fn program_number(&self) -> Result<u32, Error> {
        match *self {}
    }

    /// What is asked for.
    pub fn found(&self) -> Result<Notes, Error> {
        match *self {}
    }

    /// Programs on the interface with this index.
    pub fn attach(&self, _interface: u32, _mode: Option<Mode>) -> Result<Attachment, Error> {
        match *self {}
    }

    /// A program that lets everything pass.
    pub fn attach_pass(&self, _interface: u32) -> Result<(), Error> {
        match *self {}
    }

    /// Runs a program on a frame.
    pub fn run(&mut self, _program: Program, _frame: &[u8], _repeat: u32) -> Result<Run, Error> {
        match *self {}
    }

    /// What is known of another site.
    pub fn set_peer(&mut self, _site: Site, _peer: Option<&Peer>) -> Result<(), Error> {
        match *self {}
    }

    /// The wall clock at 0 of the monotonic clock, ms since 1970.
    pub fn set_wall_base(&mut self, _ms: u64) -> Result<(), Error> {
        match *self {}
    }

    /// Where new connections go.
    pub fn drain_to(&mut self, _site: Option<Site>) -> Result<(), Error> {
        match *self {}
    }

    /// Whether SYNs are answered by cookies.
    pub fn answer_syns(&mut self, _answers: bool) -> Result<(), Error> {
        match *self {}
    }

    /// Remembers the owner of a connection.
    pub fn remember(&mut self, _flow: &Flow, _owner: Site) -> Result<(), Error> {
        match *self {}
    }

    /// What was decided so far.
    pub fn counters(&self) -> Result<Counters, Error> {
        match *self {}
    }
}

/// A running program: there is none.
#[derive(Debug)]
pub enum Former {}

impl Former {
    /// `None`
    pub fn of(_program: u32) -> Option<Former> {
        None
    }

    /// Its clock.
    pub fn clock_base_ms(&self) -> u64 {
        match *self {}
    }

    /// How many there are of its kind.
    pub fn loaded(&self) -> (usize, usize) {
        match *self {}
    }
}

/// What a program notes: there is none.
#[derive(Debug)]
pub enum Notes {}

impl Notes {
    /// What waits.
    pub fn take(&mut self, _limit: usize) -> Vec<Found> {
        match *self {}
    }
}

impl std::os::fd::AsFd for Notes {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        match *self {}
    }
}

/// The number of the program on an interface: 0, for all this knows.
///
/// # Errors
/// None.
pub fn attached(_interface: u32) -> Result<u32, Error> {
    Ok(0)
}

/// `None`
pub fn is_ours(_program: u32) -> Option<bool> {
    None
}

/// Takes nothing off.
///
/// # Errors
/// None.
pub fn detach(_interface: u32, _program: u32) -> Result<bool, Error> {
    Ok(false)
}

/// `None`
pub fn device(_interface: u32) -> Option<Device> {
    None
}
