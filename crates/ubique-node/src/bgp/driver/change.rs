//! Neighbours that come and go while the driver runs: a reload. Whoever is not named keeps his session.

use ubique_model::{Family, Prefix};
use ubique_proto::bgp::notification::cease;
use ubique_proto::bgp::speaker::{In, PeerConfig, PeerId};

use super::{Driver, DriverError, Endpoint};
use crate::bgp::callers::Callers;
use crate::bgp::socket::{self, Key, Listener, ListenerSpec, Place};

impl Driver {
    /// A further neighbour, disabled until [`In::StartPeer`]; `None`: there are too many. Call [`Driver::listen`] after
    /// the last change.
    pub fn add(&mut self, endpoint: Endpoint, config: PeerConfig) -> Option<PeerId> {
        let peer = self.callers.add(endpoint);
        self.handle(In::AddPeer { peer, config: Box::new(config) });
        if self.speaker.peer(peer).is_none() {
            self.callers.remove(peer);
            return None;
        }
        Some(peer)
    }

    /// Ends a neighbour's session for good (Cease, peer de-configured): it is no neighbour any more.
    pub fn remove(&mut self, peer: PeerId) {
        // Followers of the session are told of its end while it is still known.
        self.handle(In::StopPeer { peer, subcode: cease::PEER_DECONFIGURED, message: String::new() });
        self.handle(In::RemovePeer { peer });
        self.callers.remove(peer);
        self.connecting.remove(&peer);
        self.connect_errors.remove(&peer);
        // Numbers are used again: nothing old may be told of the next one.
        self.notices.retain(|notice| notice.peer() != Some(peer));
    }

    /// Gives a neighbour its key. Only for one whose sessions are not under way: theirs keep the old one.
    pub fn rekey(&mut self, peer: PeerId, key: Option<Key>) {
        self.callers.arm(peer, key);
        self.connect_errors.remove(&peer);
    }

    /// Why a neighbour cannot be connected to, as its owner knows it: told until [`Driver::rekey`].
    pub fn disarm(&mut self, peer: PeerId, why: String) {
        self.connect_errors.insert(peer, why);
    }

    /// What may be announced from now on.
    pub fn rescope(&mut self, scope: Vec<Prefix>) {
        self.scope.clone_from(&scope);
        self.handle(In::Rescope { scope });
    }

    /// Makes the listeners fit the neighbours: those that stay open miss no call.
    pub fn listen(&mut self) -> Result<(), DriverError> {
        let Some(port) = self.port else { return Ok(()) };
        adapt(self.place.as_ref(), port, &self.callers, &mut self.listeners)
    }
}

/// One for each family and interface that somebody may call at. Those that are there already are kept, with other keys.
pub(super) fn adapt(
    place: Option<&Place>,
    port: u16,
    callers: &Callers,
    listeners: &mut Vec<Listener>,
) -> Result<(), DriverError> {
    let mut wanted: Vec<(Family, Option<&str>)> =
        callers.all().map(|(_, e)| (e.family(), e.interface.as_deref())).collect();
    wanted.sort_unstable();
    wanted.dedup();
    listeners.retain(|l| wanted.contains(&(l.family, l.interface.as_deref())));
    let shared = |family| wanted.iter().filter(|(f, _)| *f == family).count() > 1;
    for &(family, interface) in &wanted {
        let here = |e: &Endpoint| e.interface.is_none() || e.interface.as_deref() == interface;
        let who = callers.all().filter(|(_, e)| e.family() == family && here(e)).collect();
        let spec = ListenerSpec { family, interface, port, shared: shared(family), callers: who };
        let failed = |source| DriverError::Listen { port, family, source };
        match listeners.iter_mut().find(|l| (l.family, l.interface.as_deref()) == (family, interface)) {
            Some(listener) => listener.adapt(&spec).map_err(failed)?,
            None => listeners.push(socket::listen(place, &spec).map_err(failed)?),
        }
    }
    Ok(())
}
