//! Adj-RIB-Out: what each neighbour should hold, what it was sent, and the difference (RFC 4271 §9.2).

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use ubique_model::{Family, Prefix};

use super::entry::Source;
use super::{Advertised, Peer, Rib, Session, policy};
use crate::bgp::attributes::{Attributes, NextHop};
use crate::bgp::speaker::{Export, PeerId};

/// What to send to a neighbour: one set of attributes and every prefix that has them. The encoder splits it into
/// messages of legal size.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Prefixes it was sent and must forget.
    pub withdrawn: Vec<Prefix>,
    /// Prefixes with these attributes and this next hop.
    pub announced: Option<(Arc<Attributes>, NextHop, Vec<Prefix>)>,
}

#[derive(Debug)]
struct Sent {
    attributes: Arc<Attributes>,
    /// The neighbour asked to hear it again.
    repeat: bool,
}

/// Prefixes that get the same attributes; `None`: that are withdrawn.
#[derive(Debug)]
struct Group {
    attributes: Option<Arc<Attributes>>,
    prefixes: Vec<Prefix>,
}

/// Adj-RIB-Out of one neighbour. Its queues hold a prefix at most once each.
#[derive(Debug, Default)]
pub(super) struct AdjOut {
    sent: BTreeMap<Prefix, Sent>,
    /// Prefixes that may have changed.
    marked: BTreeSet<Prefix>,
    /// Changes computed from `marked` and not yet given out; one is void for a prefix marked again since.
    staged: VecDeque<Group>,
}

impl AdjOut {
    pub(super) fn mark(&mut self, prefix: Prefix) {
        self.marked.insert(prefix);
    }

    pub(super) fn mark_all<'a>(&mut self, prefixes: impl Iterator<Item = &'a Prefix>) {
        self.marked.extend(prefixes);
    }

    pub(super) fn len(&self) -> usize {
        self.sent.len()
    }

    /// Prefixes whose change has not been given out; an upper bound, since some may prove unchanged.
    pub(super) fn pending(&self) -> usize {
        self.marked.len() + self.staged.iter().map(|g| g.prefixes.len()).sum::<usize>()
    }

    fn differs(&self, prefix: &Prefix, wanted: Option<&Arc<Attributes>>) -> bool {
        match (self.sent.get(prefix), wanted) {
            (None, None) => false,
            (Some(sent), Some(wanted)) => sent.repeat || sent.attributes != *wanted,
            (Some(_), None) | (None, Some(_)) => true,
        }
    }

    /// Groups the real changes among the marked prefixes, withdrawals first: they are what must not wait.
    fn stage(&mut self, wanted: Vec<(Prefix, Option<Arc<Attributes>>)>) {
        let mut withdrawn = vec![];
        let mut groups: Vec<Group> = vec![];
        let mut by_attributes: HashMap<*const Attributes, usize> = HashMap::new();
        for (prefix, wanted) in wanted {
            if !self.differs(&prefix, wanted.as_ref()) {
                continue;
            }
            let Some(attributes) = wanted else {
                withdrawn.push(prefix);
                continue;
            };
            // Interned: equal attributes have one address.
            let group = *by_attributes.entry(Arc::as_ptr(&attributes)).or_insert_with(|| {
                groups.push(Group { attributes: Some(attributes), prefixes: vec![] });
                groups.len() - 1
            });
            groups[group].prefixes.push(prefix);
        }
        if !withdrawn.is_empty() {
            self.staged.push_back(Group { attributes: None, prefixes: withdrawn });
        }
        self.staged.extend(groups);
    }

    /// The next staged group that still holds, recorded as sent.
    fn pop(&mut self) -> Option<Group> {
        while let Some(mut group) = self.staged.pop_front() {
            group.prefixes.retain(|prefix| !self.marked.contains(prefix));
            for prefix in &group.prefixes {
                match &group.attributes {
                    Some(a) => self.sent.insert(*prefix, Sent { attributes: Arc::clone(a), repeat: false }),
                    None => self.sent.remove(prefix),
                };
            }
            if !group.prefixes.is_empty() {
                return Some(group);
            }
        }
        None
    }

    fn repeat_all(&mut self) {
        for (prefix, sent) in &mut self.sent {
            sent.repeat = true;
            self.marked.insert(*prefix);
        }
    }
}

impl Session {
    /// Our address on the session (RFC 4271 §5.1.3; for IPv6 RFC 2545 §3, global address only).
    fn next_hop(&self) -> NextHop {
        match self.local.address {
            std::net::IpAddr::V4(a) => NextHop::V4(a),
            std::net::IpAddr::V6(global) => NextHop::V6 { global, link_local: None },
        }
    }
}

impl Peer {
    /// An announcement made for it changed.
    pub(super) fn mark_own(&mut self, prefix: Prefix) {
        if self.session.is_some() && Family::of(&prefix) == self.family {
            self.out.mark(prefix);
        }
    }
}

impl Rib {
    /// What to send next to a neighbour whose session is up; call until `None`.
    pub fn poll_changes(&mut self, peer: PeerId) -> Option<Change> {
        loop {
            let p = self.peers.get_mut(peer.0 as usize)?;
            let next_hop = p.session?.next_hop();
            if let Some(group) = p.out.pop() {
                let count = group.prefixes.len() as u64;
                return Some(match group.attributes {
                    Some(attributes) => {
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
            let wanted = marked.into_iter().map(|prefix| (prefix, self.wanted(peer, &prefix))).collect();
            self.peers[peer.0 as usize].out.stage(wanted);
        }
    }

    /// What the neighbour should hold for a prefix.
    fn wanted(&mut self, to: PeerId, prefix: &Prefix) -> Option<Arc<Attributes>> {
        let own = self.own;
        let peer = &self.peers[to.0 as usize];
        if let Some(announcement) = peer.own.get(prefix) {
            return Some(self.pool.intern_new(policy::announced(own, &peer.config, announcement)));
        }
        if peer.config.export == Export::OwnOnly {
            return None;
        }
        let entry = self.table.get(prefix)?;
        let from = match entry.best? {
            Source::Own => return Some(self.pool.intern_new(policy::own_route(own, &peer.config))),
            Source::Peer(from) => from,
        };
        let route = entry.route(from)?;
        let allowed =
            from != to && policy::may_export(own, &self.peers[from.0 as usize].config, &route.attributes, &peer.config);
        allowed.then(|| self.pool.intern_new(policy::exported(own, &route.attributes, route.local_pref, &peer.config)))
    }

    /// The neighbour asked for everything again (RFC 2918): all it holds is owed to it once more.
    pub fn refresh(&mut self, peer: PeerId) {
        if let Some(p) = self.peer_mut(peer) {
            p.out.repeat_all();
        }
    }

    /// Adj-RIB-Out of a neighbour: what [`Rib::poll_changes`] gave out for it on this session.
    pub fn advertised(&self, peer: PeerId) -> impl Iterator<Item = Advertised<'_>> + '_ {
        let up = self.peer(peer).and_then(|p| p.session.map(|s| (p, s.next_hop())));
        up.into_iter().flat_map(|(p, next_hop)| {
            p.out.sent.iter().map(move |(prefix, sent)| Advertised {
                prefix: *prefix,
                attributes: &sent.attributes,
                next_hop,
            })
        })
    }
}
