//! The prefixes of a speaker with their routes, in order.
//!
//! Made for a full table of which nearly every prefix has one route that is only kept: there a prefix takes its packed
//! key and 16 octets. Whatever more is to be said about a prefix is in a box of its own.
//!
//! Most of what a route costs is the first touch of the B-tree's leaf, a cache miss: prefixes come in no order. Sorted
//! chunks of 256 with an array of their first keys took a tenth less memory and were no faster.

use std::collections::{BTreeMap, btree_map};
use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};
use serde::ser::SerializeSeq;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use ubique_model::{Family, Prefix};

use super::entry::{Entry, Route, RouteKey, Source};
use super::offers::Offers;
use crate::bgp::speaker::PeerId;

/// What is known of a prefix.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Slot {
    /// One route, not the best, never told to the forwarding table.
    One(Route),
    /// Anything.
    Many(Box<Entry>),
}

impl Slot {
    /// Its routes, sorted by neighbour and path identifier.
    pub(super) fn routes(&self) -> &[Route] {
        match self {
            Slot::One(route) => std::slice::from_ref(route),
            Slot::Many(entry) => &entry.routes,
        }
    }

    fn position(&self, offers: &Offers, key: RouteKey) -> Result<usize, usize> {
        self.routes().binary_search_by_key(&Some(key), |route| route.key(offers))
    }

    pub(super) fn route(&self, offers: &Offers, key: RouteKey) -> Option<Route> {
        self.position(offers, key).ok().map(|i| self.routes()[i])
    }

    /// Routes of one neighbour that `counts`.
    pub(super) fn count(&self, offers: &Offers, peer: PeerId, counts: impl Fn(&Route) -> bool) -> usize {
        let of_peer = |r: &&Route| r.key(offers).is_some_and(|key| key.peer == peer) && counts(r);
        self.routes().iter().filter(of_peer).count()
    }

    /// Goes through its routes; those `keep` says no to, go. Whether anything is left to know.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(&mut Route) -> bool) -> bool {
        match self {
            Slot::One(route) => keep(route),
            Slot::Many(entry) => {
                entry.routes.retain_mut(keep);
                self.settle()
            }
        }
    }

    /// Puts a route in, in place of the one with its key.
    pub(super) fn put(&mut self, offers: &Offers, key: RouteKey, route: Route) {
        match (self.position(offers, key), self) {
            (Ok(_), Slot::One(old)) => *old = route,
            (Ok(i), Slot::Many(entry)) => entry.routes[i] = route,
            (Err(i), slot) => {
                let routes = &mut slot.entry().routes;
                routes.reserve_exact(1);
                routes.insert(i, route);
            }
        }
    }

    /// Takes a route out.
    pub(super) fn take(&mut self, offers: &Offers, key: RouteKey) -> Option<Route> {
        self.position(offers, key).ok().map(|i| self.entry().routes.remove(i))
    }

    /// Everything about the prefix, to change; [`Slot::settle`] afterwards.
    pub(super) fn entry(&mut self) -> &mut Entry {
        if let Slot::One(route) = self {
            *self = Slot::Many(Box::new(Entry { routes: vec![*route], ..Entry::default() }));
        }
        match self {
            Slot::Many(entry) => entry,
            Slot::One(_) => unreachable!("made an entry above"),
        }
    }

    /// Takes the least room again; whether anything is left to know.
    pub(super) fn settle(&mut self) -> bool {
        let Slot::Many(entry) = self else { return true };
        let plain = entry.is_plain();
        match entry.routes[..] {
            [] => !plain,
            [route] if plain => {
                *self = Slot::One(route);
                true
            }
            _ => true,
        }
    }

    /// Whether there is more to know than its routes.
    pub(super) fn says_more(&self) -> bool {
        matches!(self, Slot::Many(entry) if !entry.is_plain())
    }

    pub(super) fn own(&self) -> bool {
        matches!(self, Slot::Many(entry) if entry.own)
    }

    /// Result of the decision process.
    pub(super) fn best(&self) -> Option<Source> {
        match self {
            Slot::One(_) => None,
            Slot::Many(entry) => entry.best,
        }
    }
}

/// An IPv4 prefix in the order of [`Prefix`]: address, then length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct KeyV4(u64);

impl KeyV4 {
    fn new(net: &Ipv4Net) -> KeyV4 {
        KeyV4(u64::from(net.addr().to_bits()) << 8 | u64::from(net.prefix_len()))
    }

    fn prefix(self) -> Prefix {
        Prefix::V4(Ipv4Net::new_assert(Ipv4Addr::from_bits((self.0 >> 8) as u32), self.0 as u8))
    }
}

/// An IPv6 prefix in the order of [`Prefix`]. Halves, since a u128 would take 32 octets with the length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct KeyV6 {
    high: u64,
    low: u64,
    length: u8,
}

impl KeyV6 {
    fn new(net: &Ipv6Net) -> KeyV6 {
        let bits = net.addr().to_bits();
        KeyV6 { high: (bits >> 64) as u64, low: bits as u64, length: net.prefix_len() }
    }

    fn prefix(self) -> Prefix {
        let address = Ipv6Addr::from_bits(u128::from(self.high) << 64 | u128::from(self.low));
        Prefix::V6(Ipv6Net::new_assert(address, self.length))
    }
}

/// All prefixes anything is known of: IPv4 before IPv6, by address, then by length.
#[derive(Debug, Default)]
pub(super) struct Table {
    v4: BTreeMap<KeyV4, Slot>,
    v6: BTreeMap<KeyV6, Slot>,
}

impl Table {
    pub(super) fn get(&self, prefix: &Prefix) -> Option<&Slot> {
        match prefix {
            Prefix::V4(net) => self.v4.get(&KeyV4::new(net)),
            Prefix::V6(net) => self.v6.get(&KeyV6::new(net)),
        }
    }

    pub(super) fn get_mut(&mut self, prefix: &Prefix) -> Option<&mut Slot> {
        match prefix {
            Prefix::V4(net) => self.v4.get_mut(&KeyV4::new(net)),
            Prefix::V6(net) => self.v6.get_mut(&KeyV6::new(net)),
        }
    }

    /// The slot of a prefix, or the vacant one that [`Vacancy::fill`] fills.
    pub(super) fn find(&mut self, prefix: &Prefix) -> Result<&mut Slot, Vacancy<'_>> {
        match prefix {
            Prefix::V4(net) => match self.v4.entry(KeyV4::new(net)) {
                btree_map::Entry::Occupied(slot) => Ok(slot.into_mut()),
                btree_map::Entry::Vacant(slot) => Err(Vacancy::V4(slot)),
            },
            Prefix::V6(net) => match self.v6.entry(KeyV6::new(net)) {
                btree_map::Entry::Occupied(slot) => Ok(slot.into_mut()),
                btree_map::Entry::Vacant(slot) => Err(Vacancy::V6(slot)),
            },
        }
    }

    /// The slot of a prefix, made when there is none; [`Table::settle`] afterwards.
    pub(super) fn slot(&mut self, prefix: &Prefix) -> &mut Slot {
        match self.find(prefix) {
            Ok(slot) => slot,
            Err(vacancy) => vacancy.fill(Slot::Many(Box::default())),
        }
    }

    /// Gives back the room of a slot that has nothing to say, or little.
    pub(super) fn settle(&mut self, prefix: &Prefix) {
        self.retain_of(prefix, |_| true);
    }

    /// Goes through the routes of a prefix; those `keep` says no to, go.
    pub(super) fn retain_of(&mut self, prefix: &Prefix, keep: impl FnMut(&mut Route) -> bool) {
        if self.get_mut(prefix).is_some_and(|slot| !slot.retain(keep)) {
            match prefix {
                Prefix::V4(net) => self.v4.remove(&KeyV4::new(net)),
                Prefix::V6(net) => self.v6.remove(&KeyV6::new(net)),
            };
        }
    }

    /// All slots from a prefix on, in order.
    pub(super) fn from(&self, start: Option<Prefix>) -> impl Iterator<Item = (Prefix, &Slot)> {
        // No IPv4 prefix follows an IPv6 one, so that any one beyond the last will do.
        let v4 = match start {
            None => KeyV4(0),
            Some(Prefix::V4(net)) => KeyV4::new(&net),
            Some(Prefix::V6(_)) => KeyV4(u64::MAX),
        };
        let v6 = match start {
            Some(Prefix::V6(net)) => KeyV6::new(&net),
            _ => KeyV6 { high: 0, low: 0, length: 0 },
        };
        let v4 = self.v4.range(v4..).map(|(key, slot)| (key.prefix(), slot));
        v4.chain(self.v6.range(v6..).map(|(key, slot)| (key.prefix(), slot)))
    }

    /// Goes through the routes of a family; those `keep` says no to, go.
    pub(super) fn retain(&mut self, family: Family, mut keep: impl FnMut(Prefix, &mut Route) -> bool) {
        match family {
            Family::Ipv4 => self.v4.retain(|key, slot| slot.retain(|route| keep(key.prefix(), route))),
            Family::Ipv6 => self.v6.retain(|key, slot| slot.retain(|route| keep(key.prefix(), route))),
        }
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }
}

/// Room for a prefix nothing is known of yet.
pub(super) enum Vacancy<'a> {
    V4(btree_map::VacantEntry<'a, KeyV4, Slot>),
    V6(btree_map::VacantEntry<'a, KeyV6, Slot>),
}

impl<'a> Vacancy<'a> {
    pub(super) fn fill(self, slot: Slot) -> &'a mut Slot {
        match self {
            Vacancy::V4(vacant) => vacant.insert(slot),
            Vacancy::V6(vacant) => vacant.insert(slot),
        }
    }
}

impl Serialize for Table {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // Compact formats want the length first.
        let mut seq = serializer.serialize_seq(Some(self.v4.len() + self.v6.len()))?;
        self.from(None).try_for_each(|slot| seq.serialize_element(&slot))?;
        seq.end()
    }
}

impl<'de> Deserialize<'de> for Table {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Table, D::Error> {
        let mut table = Table::default();
        for (prefix, slot) in Vec::<(Prefix, Slot)>::deserialize(deserializer)? {
            match table.find(&prefix) {
                Ok(known) => *known = slot,
                Err(vacancy) => {
                    vacancy.fill(slot);
                }
            }
        }
        Ok(table)
    }
}
