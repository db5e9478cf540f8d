//! Connection identifiers that carry the site, as quinn asks for them.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use quinn_proto::{ConnectionId, ConnectionIdGenerator, InvalidCid, RandomConnectionIdGenerator};
use ubique_proto::sessions::Site;
use ubique_proto::sessions::connection_id::{BYTES, Config, NONCE_BYTES};

/// Identifiers of connections at one site. Clones share their keys: [`ConnectionIds::rotate`] is for all of them.
///
/// The nonce is of quinn's own source of random identifiers: ChaCha12 of each thread, seeded and reseeded by the system. So nobody can
/// guess the next one, with no state to keep over restarts and processes. Of `n` live identifiers a new one equals one with a chance of
/// `n` in 2⁵⁶; quinn then draws again, so within an endpoint there are never two. A counter under a block cipher of 56 bits would
/// never repeat itself, but no such cipher is at hand, and processes at one site would still have to agree on who counts what.
#[derive(Clone, Debug)]
pub struct ConnectionIds {
    site: Site,
    configs: Arc<RwLock<Configs>>,
}

#[derive(Clone, Copy, Debug)]
struct Configs {
    current: Config,
    previous: Option<Config>,
}

impl ConnectionIds {
    /// Identifiers of `site`.
    pub fn new(site: Site, config: Config) -> ConnectionIds {
        ConnectionIds { site, configs: Arc::new(RwLock::new(Configs { current: config, previous: None })) }
    }

    /// The site.
    pub fn site(&self) -> Site {
        self.site
    }

    /// New identifiers under another key. Connections keep those they have, so sites must be able to read both for as long as
    /// connections last: `config` must differ from the present one in its rotation.
    pub fn rotate(&self, config: Config) {
        let mut configs = self.configs.write().unwrap_or_else(PoisonError::into_inner);
        *configs = Configs { current: config, previous: Some(configs.current) };
    }

    fn configs(&self) -> Configs {
        *self.configs.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ConnectionIdGenerator for ConnectionIds {
    fn generate_cid(&mut self) -> ConnectionId {
        let random = RandomConnectionIdGenerator::new(NONCE_BYTES).generate_cid();
        let mut nonce = [0; NONCE_BYTES];
        nonce.copy_from_slice(&random);
        ConnectionId::new(&self.configs().current.encode(self.site, nonce))
    }

    /// quinn asks for short headers of no connection it knows: whether to answer with a stateless reset (RFC 9000 §10.3). Yes for an
    /// identifier of this site, which it has forgotten. No for one of another site: its client would not believe our reset,
    /// and the packet comes here only when it could not be forwarded. No for whatever is not an identifier of ours.
    fn validate(&self, id: &ConnectionId) -> Result<(), InvalidCid> {
        let Configs { current, previous } = self.configs();
        let ours = |config: Config| id.len() == BYTES && config.decode(id) == Some(self.site);
        if ours(current) || previous.is_some_and(ours) { Ok(()) } else { Err(InvalidCid) }
    }

    fn cid_len(&self) -> usize {
        BYTES
    }

    /// None: an identifier is as good as its key, and a connection may outlive any time we could choose.
    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}
