//! Adj-RIB-Out: what each neighbour should hold, what it was sent, and the difference (RFC 4271 §9.2).

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use ubique_model::{Family, Prefix};

use super::entry::{Opened, Source};
use super::peers::{Peer, Session};
use super::{Advertised, Rib, policy, view};
use crate::bgp::attributes::{Attributes, NextHop};
use crate::bgp::family::AddressFamily;
use crate::bgp::speaker::{Export, PeerConfig, PeerId};

/// What to send to a neighbour: one set of attributes and the prefixes that have them, at most [`MAX_CHANGE`]. The encoder
/// splits it into messages of legal size.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Prefixes it was sent and must forget.
    pub withdrawn: Vec<Prefix>,
    /// Prefixes with these attributes and this next hop.
    pub announced: Option<(Arc<Attributes>, NextHop, Vec<Prefix>)>,
}

/// Prefixes of one [`Change`] at most: whoever writes changes until there is enough to send must not be given a whole table
/// at once.
pub const MAX_CHANGE: usize = 4096;

#[derive(Debug, Serialize, Deserialize)]
struct Sent {
    attributes: Arc<Attributes>,
    next_hop: NextHop,
    /// The neighbour asked to hear it again.
    repeat: bool,
}

/// What a neighbour should hold for a prefix.
type Wanted = (Arc<Attributes>, NextHop);

/// Prefixes that get the same attributes and next hop; `None`: that are withdrawn.
#[derive(Debug, Serialize, Deserialize)]
struct Group {
    wanted: Option<Wanted>,
    prefixes: Vec<Prefix>,
}

/// Adj-RIB-Out of one neighbour. Its queues hold a prefix at most once each.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct AdjOut {
    sent: BTreeMap<Prefix, Sent>,
    /// Prefixes that may have changed.
    marked: BTreeSet<Prefix>,
    /// Changes computed from `marked` and not yet given out; one is void for a prefix marked again since.
    staged: VecDeque<Group>,
    /// Prefixes without a next hop to announce them with.
    withheld: BTreeSet<Prefix>,
}

impl AdjOut {
    pub(super) fn mark(&mut self, prefix: Prefix) {
        self.marked.insert(prefix);
    }

    pub(super) fn mark_all(&mut self, prefixes: impl Iterator<Item = Prefix>) {
        self.marked.extend(prefixes);
    }

    pub(super) fn len(&self) -> usize {
        self.sent.len()
    }

    pub(super) fn sent(&self, start: Option<Prefix>) -> impl Iterator<Item = Advertised> + '_ {
        self.sent.range(view::from(start)).map(|(prefix, sent)| Advertised {
            prefix: *prefix,
            attributes: Arc::clone(&sent.attributes),
            next_hop: sent.next_hop,
        })
    }

    pub(super) fn withheld(&self) -> impl Iterator<Item = Prefix> + '_ {
        self.withheld.iter().copied()
    }

    /// Prefixes whose change has not been given out; an upper bound, since some may prove unchanged.
    pub(super) fn pending(&self) -> usize {
        self.marked.len() + self.staged.iter().map(|g| g.prefixes.len()).sum::<usize>()
    }

    fn differs(&self, prefix: &Prefix, wanted: Option<&Wanted>) -> bool {
        match (self.sent.get(prefix), wanted) {
            (None, None) => false,
            (Some(sent), Some((attributes, next_hop))) => {
                sent.repeat || sent.attributes != *attributes || sent.next_hop != *next_hop
            }
            (Some(_), None) | (None, Some(_)) => true,
        }
    }

    /// Groups the real changes among the marked prefixes, withdrawals first: they are what must not wait.
    fn stage(&mut self, wanted: Vec<(Prefix, Option<Wanted>)>) {
        let mut withdrawn = vec![];
        let mut groups: Vec<Group> = vec![];
        let mut by_wanted: HashMap<(*const Attributes, NextHop, Family), usize> = HashMap::new();
        for (prefix, wanted) in wanted {
            if !self.differs(&prefix, wanted.as_ref()) {
                continue;
            }
            let Some((attributes, next_hop)) = wanted else {
                withdrawn.push(prefix);
                continue;
            };
            // Interned: equal attributes have one address.
            let key = (Arc::as_ptr(&attributes), next_hop, Family::of(&prefix));
            let group = by_wanted.entry(key).or_insert(usize::MAX);
            if groups.get(*group).is_none_or(|group| group.prefixes.len() >= MAX_CHANGE) {
                *group = groups.len();
                groups.push(Group { wanted: Some((attributes, next_hop)), prefixes: vec![] });
            }
            groups[*group].prefixes.push(prefix);
        }
        let withdrawn = withdrawn.chunks(MAX_CHANGE).map(|part| Group { wanted: None, prefixes: part.to_vec() });
        self.staged.extend(withdrawn.chain(groups));
    }

    /// The next staged group that still holds, recorded as sent.
    fn pop(&mut self) -> Option<Group> {
        while let Some(mut group) = self.staged.pop_front() {
            group.prefixes.retain(|prefix| !self.marked.contains(prefix));
            for prefix in &group.prefixes {
                match &group.wanted {
                    Some((a, next_hop)) => {
                        let sent = Sent { attributes: Arc::clone(a), next_hop: *next_hop, repeat: false };
                        self.sent.insert(*prefix, sent)
                    }
                    None => self.sent.remove(prefix),
                };
            }
            if !group.prefixes.is_empty() {
                return Some(group);
            }
        }
        None
    }

    fn repeat_all(&mut self, family: Family) {
        for (prefix, sent) in self.sent.iter_mut().filter(|(prefix, _)| Family::of(prefix) == family) {
            sent.repeat = true;
            self.marked.insert(*prefix);
        }
    }
}

impl Session {
    /// What we announce a family with (RFC 4271 §5.1.3, RFC 2545 §3, RFC 8950); `None`: nothing serves, or only the
    /// neighbour's own address would.
    pub(super) fn next_hop(&self, config: &PeerConfig, family: Family) -> Option<NextHop> {
        let local = &self.local;
        let v6 = || match (config.next_hop.ipv6, local.ipv6) {
            // A third party's link-local address is not known.
            (Some(global), ours) if ours != Some(global) => Some(NextHop::V6 { global, link_local: None }),
            (_, Some(global)) => Some(NextHop::V6 { global, link_local: local.link_local }),
            _ => local.link_local.map(|global| NextHop::V6 { global, link_local: None }),
        };
        let next_hop = match family {
            Family::Ipv4 => match config.next_hop.ipv4.or(local.ipv4) {
                Some(address) => Some(NextHop::V4(address)),
                None if self.extended_next_hop.contains(family) => v6(),
                None => None,
            },
            Family::Ipv6 => v6(),
        };
        self.serves(config, family, next_hop?)
    }

    /// The next hop itself, when the neighbour can take it for a family: never its own address (RFC 4271 §5.1.3).
    fn serves(&self, config: &PeerConfig, family: Family, next_hop: NextHop) -> Option<NextHop> {
        let fits = match (family, next_hop) {
            (Family::Ipv4, NextHop::V4(_)) | (Family::Ipv6, NextHop::V6 { .. }) => true,
            (Family::Ipv4, NextHop::V6 { .. }) => self.extended_next_hop.contains(family),
            (Family::Ipv6, NextHop::V4(_)) => false,
        };
        (fits && next_hop.address() != config.address).then_some(next_hop)
    }
}

impl Peer {
    /// An announcement made for it changed.
    pub(super) fn mark_own(&mut self, prefix: Prefix) {
        if self.carries(Family::of(&prefix)) {
            self.out.mark(prefix);
        }
    }
}

impl Rib {
    /// What to send next to a neighbour whose session is up; call until `None`.
    pub fn poll_changes(&mut self, peer: PeerId) -> Option<Change> {
        loop {
            let p = self.peer_mut(peer)?;
            let _established = p.session?;
            if let Some(group) = p.out.pop() {
                let count = group.prefixes.len() as u64;
                return Some(match group.wanted {
                    Some((attributes, next_hop)) => {
                        p.counters.announcements_out += count;
                        Change { withdrawn: vec![], announced: Some((attributes, next_hop, group.prefixes)) }
                    }
                    None => {
                        p.counters.withdrawals_out += count;
                        Change { withdrawn: group.prefixes, announced: None }
                    }
                });
            }
            let marked = std::mem::take(&mut p.out.marked);
            if marked.is_empty() {
                return None;
            }
            let wanted = marked.into_iter().map(|prefix| (prefix, self.wanted(peer, prefix))).collect();
            if let Some(p) = self.peer_mut(peer) {
                p.out.stage(wanted);
            }
        }
    }

    /// What the neighbour should hold for a prefix, with a next hop that serves; notes it when there is none.
    fn wanted(&mut self, to: PeerId, prefix: Prefix) -> Option<Wanted> {
        let exported = self.exported(to, &prefix);
        let p = self.peers.get_mut(to.0 as usize)?.as_mut()?;
        let (session, family) = (p.session?, Family::of(&prefix));
        let wanted = exported.map(|(attributes, fixed)| {
            let next_hop = match fixed {
                Some(fixed) => session.serves(&p.config, family, fixed),
                None => session.next_hop(&p.config, family),
            };
            next_hop.map(|next_hop| (self.pool.intern(attributes), next_hop))
        });
        if let Some(None) = wanted {
            p.out.withheld.insert(prefix);
        } else {
            p.out.withheld.remove(&prefix);
        }
        wanted?
    }

    /// What policy lets the neighbour have for a prefix, and the next hop where that must not change.
    fn exported(&self, to: PeerId, prefix: &Prefix) -> Option<(Attributes, Option<NextHop>)> {
        let own = self.own;
        let peer = self.peer(to)?;
        if let Some(announcement) = peer.own.get(prefix) {
            return Some((policy::announced(own, &peer.config, announcement), None));
        }
        if peer.config.export == Export::OwnOnly {
            return None;
        }
        let slot = self.table.get(prefix)?;
        let key = match slot.best()? {
            Source::Own => return Some((policy::own_route(own, &peer.config), None)),
            Source::Route(key) => key,
        };
        let from = self.peer(key.peer).filter(|_| key.peer != to)?;
        let route = Opened::new(&self.offers, &slot.route(&self.offers, key)?)?;
        policy::may_export(own, &from.config, &route, &peer.config, peer.session.as_ref()?)
            .then(|| policy::exported(own, &from.config, from.router_id, &route, &peer.config))
    }

    /// The neighbour asked for everything again (RFC 2918): all it holds of a family is owed to it once more.
    pub fn refresh(&mut self, peer: PeerId, family: AddressFamily) {
        if let Some(p) = self.peer_mut(peer).filter(|_| family.is_unicast()) {
            p.out.repeat_all(family.family());
        }
    }
}
