//! What one neighbour was told of our own announcements, and what of that it has confirmed.
//!
//! Read back, not intended: an announcement counts as acknowledged only when the neighbour's TCP has confirmed the last
//! octet of the UPDATE that carried it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use ubique_model::Prefix;
use ubique_model::policy::Announcement;

/// How far an announcement has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Delivery {
    /// Not sent: the session is down, or its window is full.
    Pending,
    /// Sent, not confirmed.
    Sent,
    /// The neighbour's TCP has it.
    Acknowledged,
}

/// What the neighbour was last told of a prefix on this session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Told {
    Nothing,
    Announced { announcement: Announcement, end: u64 },
    Withdrawn { end: u64 },
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Entry {
    wanted: Option<Announcement>,
    told: Told,
}

impl Entry {
    /// Nothing is wanted, and the neighbour holds nothing.
    fn is_settled(&self, acknowledged: u64) -> bool {
        match (&self.wanted, &self.told) {
            (Some(_), _) | (None, Told::Announced { .. }) => false,
            (None, Told::Nothing) => true,
            (None, Told::Withdrawn { end }) => *end <= acknowledged,
        }
    }
}

/// The announcements made for one neighbour.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Ledger {
    entries: BTreeMap<Prefix, Entry>,
    acknowledged: u64,
}

impl Ledger {
    pub(super) fn announce(&mut self, announcement: &Announcement) {
        let fresh = || Entry { wanted: None, told: Told::Nothing };
        let entry = self.entries.entry(announcement.prefix).or_insert_with(fresh);
        entry.wanted = Some(announcement.clone());
    }

    pub(super) fn withdraw(&mut self, prefix: &Prefix) {
        let Some(entry) = self.entries.get_mut(prefix) else {
            return;
        };
        entry.wanted = None;
        if entry.is_settled(self.acknowledged) {
            self.entries.remove(prefix);
        }
    }

    /// Sent in octets that end at stream offset `end`. The same said again (RFC 2918) changes nothing.
    pub(super) fn announced(&mut self, prefix: &Prefix, end: u64) {
        let Some(entry) = self.entries.get_mut(prefix) else {
            return;
        };
        let Some(wanted) = &entry.wanted else { return };
        if !matches!(&entry.told, Told::Announced { announcement, .. } if announcement == wanted) {
            entry.told = Told::Announced { announcement: wanted.clone(), end };
        }
    }

    pub(super) fn withdrawn(&mut self, prefix: &Prefix, end: u64) {
        if let Some(entry) = self.entries.get_mut(prefix) {
            entry.told = Told::Withdrawn { end };
        }
    }

    /// The neighbour has everything up to this offset.
    pub(super) fn acknowledged(&mut self, offset: u64) {
        self.acknowledged = offset;
        self.forget_settled();
    }

    /// A session came or went: the neighbour holds nothing of ours.
    pub(super) fn restart(&mut self) {
        self.acknowledged = 0;
        for entry in self.entries.values_mut() {
            entry.told = Told::Nothing;
        }
        self.forget_settled();
    }

    fn forget_settled(&mut self) {
        let acknowledged = self.acknowledged;
        self.entries.retain(|_, entry| !entry.is_settled(acknowledged));
    }

    pub(super) fn deliveries(&self) -> impl Iterator<Item = (Prefix, Delivery)> + '_ {
        self.entries.iter().filter_map(|(prefix, entry)| {
            let wanted = entry.wanted.as_ref()?;
            let delivery = match &entry.told {
                Told::Announced { announcement, end } if announcement == wanted => {
                    if *end <= self.acknowledged {
                        Delivery::Acknowledged
                    } else {
                        Delivery::Sent
                    }
                }
                _ => Delivery::Pending,
            };
            Some((*prefix, delivery))
        })
    }

    pub(super) fn withdrawals(&self) -> impl Iterator<Item = Prefix> + '_ {
        self.entries.iter().filter(|(_, entry)| entry.wanted.is_none()).map(|(prefix, _)| *prefix)
    }
}
