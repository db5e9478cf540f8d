//! Who may ask the agent, and where: the admin socket's mode and group, and the HTTPS API.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// `socket-mode`, `admin-group` and `[agent.api]` of `[agent]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AdminSettings {
    /// Mode of the admin socket: who may connect, and so read.
    pub mode: u32,
    /// Group whose members may act, beside root and the agent's own user: its name, or its number.
    pub group: Option<String>,
    /// The same over HTTPS, when wanted.
    pub api: Option<ApiSettings>,
}

impl Default for AdminSettings {
    fn default() -> AdminSettings {
        AdminSettings { mode: 0o660, group: None, api: None }
    }
}

/// `[agent.api]`: HTTPS with certificates on both sides.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiSettings {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Our certificate with its chain, PEM.
    pub certificate: PathBuf,
    /// Its key, PEM.
    pub key_file: PathBuf,
    /// Certificates of the authorities whose clients may read, PEM.
    pub client_ca: PathBuf,
    /// Names of clients that may act; empty: every client of `client_ca`.
    pub clients: Vec<String>,
}
