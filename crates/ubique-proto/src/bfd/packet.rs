//! The control packet: 24 octets (RFC 5880 §4.1), and every reason to discard one.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Octets of a control packet without authentication.
pub const CONTROL_BYTES: usize = 24;

/// Octets of the shortest packet with an authentication section (RFC 5880 §6.8.6).
const AUTHENTICATED_BYTES_MIN: usize = 26;

/// Version of the protocol.
const VERSION: u8 = 1;

const POLL: u8 = 0x20;
const FINAL: u8 = 0x10;
const CONTROL_INDEPENDENT: u8 = 0x08;
const AUTHENTICATION: u8 = 0x04;
const DEMAND: u8 = 0x02;
const MULTIPOINT: u8 = 0x01;

/// What the second octet of a packet is, in the bits that matter, when the packet is a sign of life and nothing else: Up, and
/// neither P, F nor D. Mask, value.
pub const ROUTINE: (u8, u8) = (0xc0 | POLL | FINAL | DEMAND, 0xc0);

/// State of a session (RFC 5880 §6.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Held down by an operator.
    AdminDown,
    /// Nothing is known of the neighbour, or it was lost.
    Down,
    /// The neighbour is heard; it does not hear us yet.
    Init,
    /// Both hear each other.
    Up,
}

impl State {
    /// As the RFC spells it.
    pub fn name(self) -> &'static str {
        match self {
            State::AdminDown => "AdminDown",
            State::Down => "Down",
            State::Init => "Init",
            State::Up => "Up",
        }
    }

    fn of_bits(bits: u8) -> State {
        match bits & 3 {
            0 => State::AdminDown,
            1 => State::Down,
            2 => State::Init,
            _ => State::Up,
        }
    }
}

/// Why a session last went down: the diagnostic code of RFC 5880 §4.1. Five bits; unassigned ones are kept as they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Diagnostic(u8);

impl Diagnostic {
    /// It never did.
    pub const NONE: Diagnostic = Diagnostic(0);
    /// The detection time passed without a packet.
    pub const DETECTION_TIME_EXPIRED: Diagnostic = Diagnostic(1);
    /// The neighbour said that its session is down.
    pub const NEIGHBOUR_SIGNALLED_DOWN: Diagnostic = Diagnostic(3);
    /// An operator took it down.
    pub const ADMINISTRATIVELY_DOWN: Diagnostic = Diagnostic(7);

    /// The code; bits beyond the five are cut off.
    pub fn new(code: u8) -> Diagnostic {
        Diagnostic(code & 0x1f)
    }

    /// The code.
    pub fn code(self) -> u8 {
        self.0
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = match self.0 {
            0 => "no diagnostic",
            1 => "control detection time expired",
            2 => "echo function failed",
            3 => "neighbour signalled session down",
            4 => "forwarding plane reset",
            5 => "path down",
            6 => "concatenated path down",
            7 => "administratively down",
            8 => "reverse concatenated path down",
            code => return write!(f, "diagnostic {code}"),
        };
        f.write_str(words)
    }
}

/// A control packet. Intervals in µs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Control {
    /// Why the sender's session last went down.
    pub diagnostic: Diagnostic,
    /// The sender's state.
    pub state: State,
    /// P: the sender asks for an answer at once.
    pub poll: bool,
    /// F: the answer.
    pub final_bit: bool,
    /// C: the sender's BFD does not share fate with its control plane.
    pub control_independent: bool,
    /// D: the sender asks us not to send periodically.
    pub demand: bool,
    /// Detect Mult.
    pub multiplier: u8,
    /// The sender's number of the session.
    pub my_discriminator: u32,
    /// The receiver's; 0: not known yet.
    pub your_discriminator: u32,
    /// Desired Min TX Interval.
    pub desired_min_tx_us: u32,
    /// Required Min RX Interval; 0: send nothing periodically.
    pub required_min_rx_us: u32,
    /// Required Min Echo RX Interval; 0: no echo.
    pub required_min_echo_rx_us: u32,
}

/// Why a packet was discarded: RFC 5880 §6.8.6 in its order, then the rules of RFC 5881 and 5883.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Discard {
    /// Shorter than a control packet.
    Truncated,
    /// A version other than 1.
    Version,
    /// The length field is below the least, or beyond the payload.
    Length,
    /// Detect Mult 0.
    Multiplier,
    /// The M bit.
    Multipoint,
    /// My Discriminator 0.
    MyDiscriminator,
    /// Your Discriminator is none of ours.
    UnknownSession,
    /// Your Discriminator 0 in a state that knows it.
    YourDiscriminator,
    /// Your Discriminator 0 from an address that is no neighbour's.
    Stranger,
    /// The A bit: we use no authentication.
    Authentication,
    /// Our session is administratively down.
    AdminDown,
    /// TTL or hop limit below what the session's hops allow (RFC 5881 §5, RFC 5883 §4).
    Ttl,
    /// Your Discriminator is that of a session with another address.
    Address,
}

impl Discard {
    /// All of them.
    pub const ALL: [Discard; 13] = [
        Discard::Truncated,
        Discard::Version,
        Discard::Length,
        Discard::Multiplier,
        Discard::Multipoint,
        Discard::MyDiscriminator,
        Discard::UnknownSession,
        Discard::YourDiscriminator,
        Discard::Stranger,
        Discard::Authentication,
        Discard::AdminDown,
        Discard::Ttl,
        Discard::Address,
    ];

    /// A word for metrics.
    pub fn name(self) -> &'static str {
        match self {
            Discard::Truncated => "truncated",
            Discard::Version => "version",
            Discard::Length => "length",
            Discard::Multiplier => "multiplier",
            Discard::Multipoint => "multipoint",
            Discard::MyDiscriminator => "my-discriminator",
            Discard::UnknownSession => "unknown-session",
            Discard::YourDiscriminator => "your-discriminator",
            Discard::Stranger => "stranger",
            Discard::Authentication => "authentication",
            Discard::AdminDown => "admin-down",
            Discard::Ttl => "ttl",
            Discard::Address => "address",
        }
    }
}

impl Control {
    /// The packet as octets: version 1, no authentication, not multipoint.
    pub fn encode(&self) -> [u8; CONTROL_BYTES] {
        let bit = |on: bool, mask: u8| if on { mask } else { 0 };
        let mut out = [0; CONTROL_BYTES];
        out[0] = VERSION << 5 | self.diagnostic.code();
        out[1] = (self.state as u8) << 6
            | bit(self.poll, POLL)
            | bit(self.final_bit, FINAL)
            | bit(self.control_independent, CONTROL_INDEPENDENT)
            | bit(self.demand, DEMAND);
        out[2] = self.multiplier;
        out[3] = CONTROL_BYTES as u8;
        let words = [
            self.my_discriminator,
            self.your_discriminator,
            self.desired_min_tx_us,
            self.required_min_rx_us,
            self.required_min_echo_rx_us,
        ];
        for (octets, word) in out[4..].chunks_exact_mut(4).zip(words) {
            octets.copy_from_slice(&word.to_be_bytes());
        }
        out
    }

    /// Reads the packet at the start of a UDP payload, and whether it is authenticated: the rules of RFC 5880 §6.8.6 that
    /// need no session, in their order. Octets beyond the length field are ignored.
    pub fn decode(payload: &[u8]) -> Result<(Control, bool), Discard> {
        let Some(fixed) = payload.first_chunk::<CONTROL_BYTES>() else {
            return Err(Discard::Truncated);
        };
        if fixed[0] >> 5 != VERSION {
            return Err(Discard::Version);
        }
        let (flags, length) = (fixed[1], usize::from(fixed[3]));
        let authenticated = flags & AUTHENTICATION != 0;
        if length < if authenticated { AUTHENTICATED_BYTES_MIN } else { CONTROL_BYTES } || length > payload.len() {
            return Err(Discard::Length);
        }
        let word = |at: usize| u32::from_be_bytes([fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]]);
        let control = Control {
            diagnostic: Diagnostic::new(fixed[0]),
            state: State::of_bits(flags >> 6),
            poll: flags & POLL != 0,
            final_bit: flags & FINAL != 0,
            control_independent: flags & CONTROL_INDEPENDENT != 0,
            demand: flags & DEMAND != 0,
            multiplier: fixed[2],
            my_discriminator: word(4),
            your_discriminator: word(8),
            desired_min_tx_us: word(12),
            required_min_rx_us: word(16),
            required_min_echo_rx_us: word(20),
        };
        if control.multiplier == 0 {
            return Err(Discard::Multiplier);
        }
        if flags & MULTIPOINT != 0 {
            return Err(Discard::Multipoint);
        }
        if control.my_discriminator == 0 {
            return Err(Discard::MyDiscriminator);
        }
        if control.your_discriminator == 0 && !matches!(control.state, State::Down | State::AdminDown) {
            return Err(Discard::YourDiscriminator);
        }
        Ok((control, authenticated))
    }
}
