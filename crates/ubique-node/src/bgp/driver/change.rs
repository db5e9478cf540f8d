//! Neighbours that come and go while the driver runs: a reload. Whoever is not named keeps his session.

use ubique_model::Prefix;
use ubique_proto::bgp::notification::cease;
use ubique_proto::bgp::speaker::{In, PeerConfig, PeerId};

use super::{Driver, Endpoint, now};
use crate::bgp::socket::Key;

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

    /// Makes the listeners fit the neighbours: one for which nothing changes misses no call.
    pub fn listen(&mut self) {
        self.listeners.adapt(now(), self.place.as_ref(), &self.callers);
    }
}
