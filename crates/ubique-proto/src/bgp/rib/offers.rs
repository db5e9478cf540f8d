//! What routes have in common, stored once: an offer of a neighbour, with what policy made of it.
//!
//! A route is then an offer, a path identifier and a time: paths with equal attributes share them. Offers are counted by the routes that have them and go with the last one.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::num::NonZeroU32;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Stale;
use super::decision::Ineligible;
use super::epoch::Epoch;
use super::packed::Packed;
use crate::bgp::attributes::{Attributes, NextHop};
use crate::bgp::speaker::PeerId;

/// Whose it is and what became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Terms {
    pub peer: PeerId,
    pub local_pref: u32,
    pub ineligible: Option<Ineligible>,
    pub stale: Stale,
    pub epoch: Epoch,
}

impl Terms {
    /// The same for a route the neighbour has just named.
    pub(super) fn vouched(self, epoch: Epoch) -> Terms {
        Terms { stale: Stale::No, epoch, ..self }
    }
}

/// What routes of one neighbour have in common.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Offer {
    pub terms: Terms,
    packed: Packed,
}

impl Offer {
    pub(super) fn unpack(&self) -> (Attributes, NextHop) {
        self.packed.unpack()
    }

    fn is(&self, terms: &Terms, packed: &[u8]) -> bool {
        self.terms == *terms && self.packed.octets() == packed
    }
}

/// An offer in [`Offers`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct OfferId(NonZeroU32);

impl OfferId {
    fn new(index: usize) -> Option<OfferId> {
        NonZeroU32::new(u32::try_from(index + 1).ok()?).map(OfferId)
    }

    fn index(self) -> usize {
        self.0.get() as usize - 1
    }
}

/// A place for an offer; `next` leads to the next one of the same bucket, or the next free place.
#[derive(Debug)]
struct Place {
    offer: Option<Offer>,
    users: u32,
    hash: u32,
    next: Option<OfferId>,
}

/// The offers in use: a hash table whose places do not move.
#[derive(Debug, Default)]
pub(super) struct Offers {
    places: Vec<Place>,
    free: Option<OfferId>,
    /// Heads of the chains; a power of two, or none.
    buckets: Vec<Option<OfferId>>,
    used: usize,
    /// Octets of attributes of each neighbour's offers, by [`PeerId`].
    octets: Vec<usize>,
    /// Makes the hash unpredictable for neighbours, who choose what is hashed.
    seed: u64,
}

impl Offers {
    pub(super) fn new(seed: u64) -> Offers {
        Offers { seed, ..Offers::default() }
    }

    pub(super) fn get(&self, id: OfferId) -> Option<&Offer> {
        self.places.get(id.index())?.offer.as_ref()
    }

    /// The terms of an offer, and whether another one has the same attributes and next hop.
    pub(super) fn terms(&self, id: OfferId, other: OfferId) -> Option<(Terms, bool)> {
        let id_equal = id == other;
        let (offer, other) = (self.get(id)?, self.get(other)?);
        Some((offer.terms, id_equal || offer.packed == other.packed))
    }

    fn hash(&self, terms: &Terms, packed: &[u8]) -> u32 {
        let mut hasher = DefaultHasher::new();
        self.seed.hash(&mut hasher);
        (terms.peer, terms.epoch).hash(&mut hasher);
        hasher.write(packed);
        hasher.finish() as u32
    }

    /// The offer with one user more; `None` when four billion are in use.
    pub(super) fn hold(&mut self, terms: &Terms, packed: &[u8]) -> Option<OfferId> {
        let hash = self.hash(terms, packed);
        let mut next = self.bucket(hash).and_then(|b| self.buckets[b]);
        while let Some(id) = next {
            let place = &mut self.places[id.index()];
            if place.hash == hash && place.offer.as_ref().is_some_and(|o| o.is(terms, packed)) {
                place.users += 1;
                return Some(id);
            }
            next = place.next;
        }
        self.insert(Offer { terms: *terms, packed: Packed::new(packed) }, hash)
    }

    /// The same offer on other terms, with one user more.
    pub(super) fn hold_with(&mut self, id: OfferId, terms: &Terms) -> Option<OfferId> {
        if self.get(id)?.terms == *terms {
            self.share(id);
            return Some(id);
        }
        // Taken out for the time of the search, not copied.
        let packed = std::mem::replace(&mut self.places.get_mut(id.index())?.offer.as_mut()?.packed, Packed::new(&[]));
        let held = self.hold(terms, packed.octets());
        if let Some(offer) = self.places.get_mut(id.index()).and_then(|p| p.offer.as_mut()) {
            offer.packed = packed;
        }
        held
    }

    /// One user more.
    pub(super) fn share(&mut self, id: OfferId) {
        if let Some(place) = self.places.get_mut(id.index()) {
            place.users += 1;
        }
    }

    /// One user less; the last one takes the offer along.
    pub(super) fn release(&mut self, id: OfferId) {
        let Some(place) = self.places.get_mut(id.index()) else {
            return;
        };
        place.users = place.users.saturating_sub(1);
        if place.users > 0 || place.offer.is_none() {
            return;
        }
        if let Some(Offer { terms, packed }) = place.offer.take()
            && let Some(octets) = self.octets.get_mut(terms.peer.0 as usize)
        {
            *octets -= packed.octets().len();
        }
        let place = &mut self.places[id.index()];
        let after = std::mem::replace(&mut place.next, self.free.replace(id));
        if let Some(bucket) = self.bucket(place_hash(&self.places, id)) {
            self.unlink(bucket, id, after);
        }
        self.used -= 1;
        if self.used == 0 {
            *self = Offers::new(self.seed);
        }
    }

    fn unlink(&mut self, bucket: usize, id: OfferId, after: Option<OfferId>) {
        let mut next = &mut self.buckets[bucket];
        while let Some(at) = *next {
            if at == id {
                *next = after;
                return;
            }
            next = &mut self.places[at.index()].next;
        }
    }

    fn bucket(&self, hash: u32) -> Option<usize> {
        Some(hash as usize & self.buckets.len().checked_sub(1)?)
    }

    fn insert(&mut self, offer: Offer, hash: u32) -> Option<OfferId> {
        let id = match self.free {
            Some(id) => id,
            None => OfferId::new(self.places.len())?,
        };
        self.count(&offer);
        let place = Place { offer: Some(offer), users: 1, hash, next: None };
        match self.places.get_mut(id.index()) {
            Some(free) => {
                self.free = free.next;
                *free = place;
            }
            None => self.places.push(place),
        }
        self.used += 1;
        if self.used > self.buckets.len() {
            self.rehash();
        } else {
            self.link(id);
        }
        Some(id)
    }

    fn count(&mut self, offer: &Offer) {
        let peer = offer.terms.peer.0 as usize;
        if self.octets.len() <= peer {
            self.octets.resize(peer + 1, 0);
        }
        self.octets[peer] += offer.packed.octets().len();
    }

    /// Octets of attributes held of a neighbour.
    pub(super) fn octets(&self, peer: PeerId) -> usize {
        self.octets.get(peer.0 as usize).copied().unwrap_or(0)
    }

    fn link(&mut self, id: OfferId) {
        if let Some(bucket) = self.bucket(place_hash(&self.places, id)) {
            self.places[id.index()].next = self.buckets[bucket].replace(id);
        }
    }

    fn rehash(&mut self) {
        self.buckets = vec![None; self.used.next_power_of_two() * 2];
        for index in 0..self.places.len() {
            if let (Some(id), true) = (OfferId::new(index), self.places[index].offer.is_some()) {
                self.link(id);
            }
        }
    }

    /// Offers in use.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.used
    }

    /// Users of all offers together.
    #[cfg(test)]
    pub(super) fn users(&self) -> usize {
        self.places.iter().filter(|p| p.offer.is_some()).map(|p| p.users as usize).sum()
    }
}

impl Serialize for Offers {
    /// Seed, and offers with their users by place; everything else follows from these.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let places = self.places.iter().map(|p| p.offer.as_ref().map(|offer| (offer, p.users)));
        (self.seed, places.collect::<Vec<_>>()).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Offers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Offers, D::Error> {
        let (seed, places) = <(u64, Vec<Option<(Offer, u32)>>)>::deserialize(deserializer)?;
        let mut offers = Offers::new(seed);
        for (index, place) in places.into_iter().enumerate() {
            let (offer, users) = place.unzip();
            let hash = offer.as_ref().map_or(0, |o| offers.hash(&o.terms, o.packed.octets()));
            offer.iter().for_each(|offer| offers.count(offer));
            offers.used += usize::from(offer.is_some());
            let next = if offer.is_none() { std::mem::replace(&mut offers.free, OfferId::new(index)) } else { None };
            offers.places.push(Place { offer, users: users.unwrap_or(0), hash, next });
        }
        offers.rehash();
        Ok(offers)
    }
}

fn place_hash(places: &[Place], id: OfferId) -> u32 {
    places[id.index()].hash
}
