//! The life of a site: the order that is safety.
//!
//! Up: addresses, healthy, announce. Down: withdraw, drain, remove. Each decision is local (design
//! principle 1) and carries its cause.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Parameters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SiteConfig {
    /// How long the service goes on serving between the withdrawal and the removal of its addresses.
    pub drain: Duration,
}

/// States.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Addresses are being added.
    Starting,
    /// Not announced: not healthy.
    Unhealthy,
    /// Announced.
    Announced,
    /// Withdrawn on request; addresses stay, stragglers are served.
    Drained,
    /// Withdrawn because the agent ends; waiting for the drain time.
    Stopping,
    /// Addresses are being removed.
    Removing,
    /// The agent may exit.
    Stopped,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum In {
    /// Begin.
    Start,
    /// The addresses are on the loopback.
    AddressesAdded,
    /// The addresses are off the loopback.
    AddressesRemoved,
    /// Verdict of the health core.
    Verdict {
        /// Fit to serve.
        healthy: bool,
        /// Why.
        cause: String,
    },
    /// An operator wants the site empty.
    Drain {
        /// Why, as typed.
        reason: String,
    },
    /// An operator wants it back.
    Undrain {
        /// Why, as typed.
        reason: String,
    },
    /// The agent shall end (SIGTERM).
    Stop {
        /// Why.
        reason: String,
    },
}

/// What the driver must do, or learns.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Out {
    /// Put the service addresses on the loopback; report [`In::AddressesAdded`].
    AddAddresses,
    /// Announce every prefix to every upstream.
    Announce {
        /// Why.
        cause: String,
    },
    /// Withdraw every prefix from every upstream.
    Withdraw {
        /// Why.
        cause: String,
    },
    /// Take the addresses off the loopback; report [`In::AddressesRemoved`].
    RemoveAddresses,
    /// The state changed.
    State {
        /// New state.
        state: State,
        /// Why.
        cause: String,
    },
    /// Close all sessions (Cease, administrative shutdown) and exit.
    Exit,
}
