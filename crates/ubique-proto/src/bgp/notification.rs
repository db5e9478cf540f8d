//! NOTIFICATION codes, their words, and the shutdown communication.
//!
//! Names and numbers are those of the IANA registry "BGP Error (Notification) Codes": RFC 4271 §4.5, RFC 4486 and
//! RFC 8538 (Cease), RFC 6608 (state machine), RFC 7313 (ROUTE-REFRESH), RFC 9687 (send hold timer).
//! Start at [`Notification::describe`].

use std::fmt;

use super::message::Notification;

/// Error codes.
pub mod code {
    /// Message Header Error (RFC 4271 §6.1).
    pub const MESSAGE_HEADER: u8 = 1;
    /// OPEN Message Error (RFC 4271 §6.2).
    pub const OPEN: u8 = 2;
    /// UPDATE Message Error (RFC 4271 §6.3).
    pub const UPDATE: u8 = 3;
    /// Hold Timer Expired (RFC 4271 §6.5).
    pub const HOLD_TIMER_EXPIRED: u8 = 4;
    /// Finite State Machine Error (RFC 4271 §6.6).
    pub const FSM: u8 = 5;
    /// Cease (RFC 4271 §6.7).
    pub const CEASE: u8 = 6;
    /// ROUTE-REFRESH Message Error (RFC 7313 §5).
    pub const ROUTE_REFRESH: u8 = 7;
    /// Send Hold Timer Expired (RFC 9687).
    pub const SEND_HOLD_TIMER_EXPIRED: u8 = 8;
}

/// Subcodes of [`code::MESSAGE_HEADER`].
pub mod header {
    /// The marker is not all ones.
    pub const CONNECTION_NOT_SYNCHRONIZED: u8 = 1;
    /// Data: the length field.
    pub const BAD_MESSAGE_LENGTH: u8 = 2;
    /// Data: the type field.
    pub const BAD_MESSAGE_TYPE: u8 = 3;
}

/// Subcodes of [`code::OPEN`].
pub mod open {
    /// A malformed optional parameter or capability.
    pub const UNSPECIFIC: u8 = 0;
    /// Data: the largest version we speak, 2 octets.
    pub const UNSUPPORTED_VERSION_NUMBER: u8 = 1;
    /// Not the configured AS, or AS 0 (RFC 7607).
    pub const BAD_PEER_AS: u8 = 2;
    /// Zero, or the same as ours within an AS (RFC 6286).
    pub const BAD_BGP_IDENTIFIER: u8 = 3;
    /// An optional parameter other than capabilities.
    pub const UNSUPPORTED_OPTIONAL_PARAMETER: u8 = 4;
    /// One or two seconds, or too short for us.
    pub const UNACCEPTABLE_HOLD_TIME: u8 = 6;
    /// Data: the capabilities we require (RFC 5492 §5).
    pub const UNSUPPORTED_CAPABILITY: u8 = 7;
    /// The roles of RFC 9234 do not fit together.
    pub const ROLE_MISMATCH: u8 = 11;
}

/// Subcodes of [`code::UPDATE`].
pub mod update {
    /// The lengths contradict each other, or MP_REACH_NLRI or MP_UNREACH_NLRI came twice.
    pub const MALFORMED_ATTRIBUTE_LIST: u8 = 1;
    /// Data: the attribute.
    pub const UNRECOGNIZED_WELL_KNOWN_ATTRIBUTE: u8 = 2;
    /// Data: the missing type code.
    pub const MISSING_WELL_KNOWN_ATTRIBUTE: u8 = 3;
    /// Data: the attribute.
    pub const ATTRIBUTE_FLAGS: u8 = 4;
    /// Data: the attribute.
    pub const ATTRIBUTE_LENGTH: u8 = 5;
    /// Data: the attribute.
    pub const INVALID_ORIGIN: u8 = 6;
    /// Data: the attribute.
    pub const INVALID_NEXT_HOP: u8 = 8;
    /// Data: the attribute. Every fault of the multiprotocol attributes ends here (RFC 4760 §7).
    pub const OPTIONAL_ATTRIBUTE: u8 = 9;
    /// A prefix longer than its family allows, or cut off.
    pub const INVALID_NETWORK_FIELD: u8 = 10;
    /// Segments that do not add up.
    pub const MALFORMED_AS_PATH: u8 = 11;
}

/// Subcodes of [`code::FSM`] (RFC 6608).
pub mod fsm {
    /// Not one of the below.
    pub const UNSPECIFIED: u8 = 0;
    /// Data: the message type.
    pub const UNEXPECTED_MESSAGE_IN_OPEN_SENT: u8 = 1;
    /// Data: the message type.
    pub const UNEXPECTED_MESSAGE_IN_OPEN_CONFIRM: u8 = 2;
    /// Data: the message type.
    pub const UNEXPECTED_MESSAGE_IN_ESTABLISHED: u8 = 3;
}

/// Subcodes of [`code::CEASE`] (RFC 4486, RFC 8538).
pub mod cease {
    /// Data: AFI, SAFI and the limit.
    pub const MAXIMUM_NUMBER_OF_PREFIXES: u8 = 1;
    /// Data: a shutdown communication (RFC 9003).
    pub const ADMINISTRATIVE_SHUTDOWN: u8 = 2;
    /// The neighbour is no longer configured.
    pub const PEER_DECONFIGURED: u8 = 3;
    /// Data: a shutdown communication (RFC 9003).
    pub const ADMINISTRATIVE_RESET: u8 = 4;
    /// Connections from this neighbour are not wanted.
    pub const CONNECTION_REJECTED: u8 = 5;
    /// Something else changed in the configuration.
    pub const OTHER_CONFIGURATION_CHANGE: u8 = 6;
    /// The other connection won (RFC 4271 §6.8).
    pub const CONNECTION_COLLISION_RESOLUTION: u8 = 7;
    /// Out of resources.
    pub const OUT_OF_RESOURCES: u8 = 8;
    /// The session must really end, graceful restart or not; data: the NOTIFICATION meant (RFC 8538 §3).
    pub const HARD_RESET: u8 = 9;
    /// BFD says down (RFC 9384).
    pub const BFD_DOWN: u8 = 10;
}

/// Subcodes of [`code::ROUTE_REFRESH`] (RFC 7313 §5).
pub mod route_refresh {
    /// Data: the message.
    pub const INVALID_MESSAGE_LENGTH: u8 = 1;
}

/// Longest shutdown communication, octets (RFC 9003 §2).
pub const SHUTDOWN_COMMUNICATION_MAX: usize = 255;

/// A shutdown communication that cannot be read (RFC 9003 §4); the NOTIFICATION itself stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommunicationError {
    /// The length octet promises more than there is.
    #[error("a shutdown communication of {claimed} octets was promised, {present} came")]
    CutOff {
        /// Length octet.
        claimed: usize,
        /// Octets after it.
        present: usize,
    },
    /// It is not UTF-8.
    #[error("the shutdown communication is not UTF-8")]
    NotUtf8,
}

impl Notification {
    /// One without data.
    pub fn new(code: u8, subcode: u8) -> Notification {
        Notification { code, subcode, data: vec![] }
    }

    /// One with data.
    pub fn with_data(code: u8, subcode: u8, data: impl Into<Vec<u8>>) -> Notification {
        Notification { code, subcode, data: data.into() }
    }

    /// A Cease. A message goes out with [`cease::ADMINISTRATIVE_SHUTDOWN`] and [`cease::ADMINISTRATIVE_RESET`] only
    /// (RFC 9003 §2), cut to [`SHUTDOWN_COMMUNICATION_MAX`] on a character boundary.
    pub fn cease(subcode: u8, message: &str) -> Notification {
        let mut cut = message.len().min(SHUTDOWN_COMMUNICATION_MAX);
        while !message.is_char_boundary(cut) {
            cut -= 1;
        }
        let mut data = Vec::new();
        if cut > 0 && carries_communication(code::CEASE, subcode) {
            data.push(cut as u8);
            data.extend_from_slice(&message.as_bytes()[..cut]);
        }
        Notification { code: code::CEASE, subcode, data }
    }

    /// The shutdown communication (RFC 9003), `None` when there is none.
    ///
    /// # Errors
    /// It is there and cannot be read. Octets after it are ignored.
    pub fn shutdown_communication(&self) -> Result<Option<&str>, CommunicationError> {
        if !carries_communication(self.code, self.subcode) {
            return Ok(None);
        }
        let Some((&claimed, rest)) = self.data.split_first() else {
            return Ok(None);
        };
        let claimed = usize::from(claimed);
        let text = rest.get(..claimed).ok_or(CommunicationError::CutOff { claimed, present: rest.len() })?;
        let text = std::str::from_utf8(text).map_err(|_| CommunicationError::NotUtf8)?;
        Ok((!text.is_empty()).then_some(text))
    }

    /// The hard reset that means this NOTIFICATION (RFC 8538 §3.1).
    #[must_use]
    pub fn hard_reset(self) -> Notification {
        let mut data = vec![self.code, self.subcode];
        data.extend(self.data);
        Notification::with_data(code::CEASE, cease::HARD_RESET, data)
    }

    /// The NOTIFICATION inside a hard reset (RFC 8538 §3.1).
    pub fn hard_reset_cause(&self) -> Option<Notification> {
        match (self.code, self.subcode, self.data.as_slice()) {
            (code::CEASE, cease::HARD_RESET, [code, subcode, data @ ..]) => {
                Some(Notification::with_data(*code, *subcode, data))
            }
            _ => None,
        }
    }

    /// In the words of the RFCs, for logs: `Cease, Administrative Shutdown: "new kernel"`. What the neighbour wrote is
    /// quoted with escapes, so it cannot forge a log line.
    pub fn describe(&self) -> String {
        let mut text = match (code_words(self.code), subcode_words(self.code, self.subcode)) {
            (None, _) => format!("code {}, subcode {}", self.code, self.subcode),
            (Some(code), Some(subcode)) => format!("{code}, {subcode}"),
            (Some(code), None) if self.subcode == 0 => code.to_owned(),
            (Some(code), None) => format!("{code}, subcode {}", self.subcode),
        };
        match self.shutdown_communication() {
            Ok(None) => {}
            Ok(Some(message)) => text.push_str(&format!(": {message:?}")),
            Err(error) => text.push_str(&format!(" ({error})")),
        }
        // One level only: a hard reset inside a hard reset means nothing.
        if let Some(cause) = self.hard_reset_cause().filter(|c| c.hard_reset_cause().is_none()) {
            text.push_str(&format!(" ({})", cause.describe()));
        }
        text
    }
}

impl fmt::Display for Notification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.describe())
    }
}

fn carries_communication(code: u8, subcode: u8) -> bool {
    code == code::CEASE && matches!(subcode, cease::ADMINISTRATIVE_SHUTDOWN | cease::ADMINISTRATIVE_RESET)
}

fn code_words(code: u8) -> Option<&'static str> {
    Some(match code {
        code::MESSAGE_HEADER => "Message Header Error",
        code::OPEN => "OPEN Message Error",
        code::UPDATE => "UPDATE Message Error",
        code::HOLD_TIMER_EXPIRED => "Hold Timer Expired",
        code::FSM => "Finite State Machine Error",
        code::CEASE => "Cease",
        code::ROUTE_REFRESH => "ROUTE-REFRESH Message Error",
        code::SEND_HOLD_TIMER_EXPIRED => "Send Hold Timer Expired",
        _ => return None,
    })
}

fn subcode_words(code: u8, subcode: u8) -> Option<&'static str> {
    Some(match (code, subcode) {
        (code::MESSAGE_HEADER, header::CONNECTION_NOT_SYNCHRONIZED) => "Connection Not Synchronized",
        (code::MESSAGE_HEADER, header::BAD_MESSAGE_LENGTH) => "Bad Message Length",
        (code::MESSAGE_HEADER, header::BAD_MESSAGE_TYPE) => "Bad Message Type",
        (code::OPEN, open::UNSUPPORTED_VERSION_NUMBER) => "Unsupported Version Number",
        (code::OPEN, open::BAD_PEER_AS) => "Bad Peer AS",
        (code::OPEN, open::BAD_BGP_IDENTIFIER) => "Bad BGP Identifier",
        (code::OPEN, open::UNSUPPORTED_OPTIONAL_PARAMETER) => "Unsupported Optional Parameter",
        (code::OPEN, open::UNACCEPTABLE_HOLD_TIME) => "Unacceptable Hold Time",
        (code::OPEN, open::UNSUPPORTED_CAPABILITY) => "Unsupported Capability",
        (code::OPEN, open::ROLE_MISMATCH) => "Role Mismatch",
        (code::UPDATE, update::MALFORMED_ATTRIBUTE_LIST) => "Malformed Attribute List",
        (code::UPDATE, update::UNRECOGNIZED_WELL_KNOWN_ATTRIBUTE) => "Unrecognized Well-known Attribute",
        (code::UPDATE, update::MISSING_WELL_KNOWN_ATTRIBUTE) => "Missing Well-known Attribute",
        (code::UPDATE, update::ATTRIBUTE_FLAGS) => "Attribute Flags Error",
        (code::UPDATE, update::ATTRIBUTE_LENGTH) => "Attribute Length Error",
        (code::UPDATE, update::INVALID_ORIGIN) => "Invalid ORIGIN Attribute",
        (code::UPDATE, update::INVALID_NEXT_HOP) => "Invalid NEXT_HOP Attribute",
        (code::UPDATE, update::OPTIONAL_ATTRIBUTE) => "Optional Attribute Error",
        (code::UPDATE, update::INVALID_NETWORK_FIELD) => "Invalid Network Field",
        (code::UPDATE, update::MALFORMED_AS_PATH) => "Malformed AS_PATH",
        (code::FSM, fsm::UNEXPECTED_MESSAGE_IN_OPEN_SENT) => "Receive Unexpected Message in OpenSent State",
        (code::FSM, fsm::UNEXPECTED_MESSAGE_IN_OPEN_CONFIRM) => "Receive Unexpected Message in OpenConfirm State",
        (code::FSM, fsm::UNEXPECTED_MESSAGE_IN_ESTABLISHED) => "Receive Unexpected Message in Established State",
        (code::CEASE, cease::MAXIMUM_NUMBER_OF_PREFIXES) => "Maximum Number of Prefixes Reached",
        (code::CEASE, cease::ADMINISTRATIVE_SHUTDOWN) => "Administrative Shutdown",
        (code::CEASE, cease::PEER_DECONFIGURED) => "Peer De-configured",
        (code::CEASE, cease::ADMINISTRATIVE_RESET) => "Administrative Reset",
        (code::CEASE, cease::CONNECTION_REJECTED) => "Connection Rejected",
        (code::CEASE, cease::OTHER_CONFIGURATION_CHANGE) => "Other Configuration Change",
        (code::CEASE, cease::CONNECTION_COLLISION_RESOLUTION) => "Connection Collision Resolution",
        (code::CEASE, cease::OUT_OF_RESOURCES) => "Out of Resources",
        (code::CEASE, cease::HARD_RESET) => "Hard Reset",
        (code::CEASE, cease::BFD_DOWN) => "BFD Down",
        (code::ROUTE_REFRESH, route_refresh::INVALID_MESSAGE_LENGTH) => "Invalid Message Length",
        _ => return None,
    })
}
