//! Catchments: which site each vantage point lands on, predicted, rehearsed or observed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::net::Asn;

/// Where one vantage point lands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Landing {
    /// The site that answers; `None`: nobody does.
    pub site: Option<String>,
    /// Median round-trip time, ms.
    pub rtt_ms: Option<f64>,
    /// AS path from the vantage point's network (excluded) to the origin (included), as its best route states it.
    pub as_path: Vec<Asn>,
}

/// Vantage point → landing, at one moment, for one address.
#[derive(Clone, Debug, PartialEq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Catchment(pub BTreeMap<String, Landing>);

/// A vantage point that changed its site between two catchments.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Move {
    /// The vantage point.
    pub vantage: String,
    /// Its site before.
    pub from: Option<String>,
    /// Its site after.
    pub to: Option<String>,
}

impl Catchment {
    /// Vantage points whose site differs in `later`, in name order; one that is absent on a side lands nowhere there.
    pub fn moves(&self, later: &Catchment) -> Vec<Move> {
        let mut names: Vec<&String> = self.0.keys().chain(later.0.keys()).collect();
        names.sort_unstable();
        names.dedup();
        let site = |c: &Catchment, name: &String| c.0.get(name).and_then(|l| l.site.clone());
        names
            .into_iter()
            .map(|name| Move { vantage: name.clone(), from: site(self, name), to: site(later, name) })
            .filter(|m| m.from != m.to)
            .collect()
    }

    /// How many vantage points land on each site.
    pub fn shares(&self) -> BTreeMap<&str, usize> {
        let mut shares = BTreeMap::new();
        for site in self.0.values().filter_map(|l| l.site.as_deref()) {
            *shares.entry(site).or_default() += 1;
        }
        shares
    }
}

#[cfg(test)]
mod tests;
