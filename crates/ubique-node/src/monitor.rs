//! What others may know of the BGP sessions: MRT files and BMP collectors behind one [`Tap`].

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;

use ubique_model::service::{Records, Service};
use ubique_proto::bgp::speaker::{PeerId, PeerStatus, SessionEvent, Speaker};
use ubique_proto::bgp::wire::HEADER_LEN;

use crate::bgp::Tap;
use crate::bmp::{Exporter, Watched};
use crate::mrt::Mrt;

/// Types of messages (RFC 4271 §4.1).
const OPEN: u8 = 1;
const UPDATE: u8 = 2;

/// Both of them, as far as they are wanted.
pub(crate) struct Monitor {
    mrt: Option<Mrt>,
    bmp: Exporter,
    /// What BMP says of a session when it comes up, collected while it does.
    sessions: RefCell<BTreeMap<PeerId, Watched>>,
}

impl Monitor {
    /// Opens what the service file asks for; `None`: nothing. Must be called on the runtime.
    pub(crate) fn start(service: &Service, site: &str, version: &str) -> io::Result<Option<Monitor>> {
        let Records { bmp, mrt, .. } = &service.agent.records;
        if bmp.is_empty() && mrt.is_none() {
            return Ok(None);
        }
        let mrt = mrt.as_ref().map(|file| Mrt::start(file, &service.name, site, service.asn)).transpose()?;
        let name = format!("{}-{site}", service.name);
        Ok(Some(Monitor { mrt, bmp: Exporter::start(bmp, version, &name), sessions: RefCell::default() }))
    }

    /// Waits until a collector can be told more of what is known: [`Monitor::feed`] then.
    pub(crate) async fn hungry(&self) {
        self.bmp.hungry().await;
    }

    /// Tells collectors the next few routes of what is known already.
    pub(crate) fn feed(&self, speaker: &Speaker) {
        self.bmp.feed(speaker, &self.sessions.borrow());
    }

    /// The agent ends.
    pub(crate) fn terminate(&self) {
        self.bmp.terminate();
    }

    /// Whether all that can be told and written has been.
    pub(crate) fn is_done(&self) -> bool {
        self.bmp.is_done() && self.mrt.as_ref().is_none_or(Mrt::is_written)
    }

    /// Numbers of the MRT files.
    pub(crate) fn mrt(&self) -> Option<&Mrt> {
        self.mrt.as_ref()
    }

    /// The collectors.
    pub(crate) fn bmp(&self) -> &Exporter {
        &self.bmp
    }
}

impl Tap for Monitor {
    fn message(&self, peer: &PeerStatus<'_>, sent: bool, bytes: &[u8]) {
        if let Some(mrt) = &self.mrt {
            mrt.message(peer, sent, bytes);
        }
        let mut sessions = self.sessions.borrow_mut();
        let watched = sessions.entry(peer.peer).or_default();
        match bytes.get(HEADER_LEN - 1) {
            Some(&OPEN) if sent => watched.sent_open = bytes.to_vec(),
            Some(&OPEN) => watched.received_open = bytes.to_vec(),
            Some(&UPDATE) if watched.up.is_some() => self.bmp.update(watched, sent, bytes),
            _ => {}
        }
    }

    fn session(&self, peer: &PeerStatus<'_>, event: &SessionEvent, ports: (u16, u16)) {
        if let Some(mrt) = &self.mrt {
            mrt.session(peer, event);
        }
        let mut sessions = self.sessions.borrow_mut();
        let watched = sessions.entry(peer.peer).or_default();
        match event {
            SessionEvent::Up { router_id, .. } => {
                watched.ports = ports;
                self.bmp.up(peer, watched, *router_id);
            }
            SessionEvent::Down { was_established: true, reason } => self.bmp.down(peer, watched, reason),
            SessionEvent::Down { .. } => {}
        }
    }
}
