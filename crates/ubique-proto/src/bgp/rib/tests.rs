//! Four rungs: the decision step by step, each rule by name, random operations against an oracle, a network of RIBs.

mod common;
mod decision;
mod epoch;
mod export;
mod limits;
mod named;
mod network;
mod oracle;
mod rules;

/// Routes that hold their attributes and are not gone. The fuzz target that shares the oracle looks from outside and cannot tell.
fn holders(rib: &super::Rib) -> Option<usize> {
    Some(rib.offers.users() - rib.gone.routes)
}

/// Routes of a neighbour that count as stale.
fn unvouched(rib: &super::Rib, peer: crate::bgp::speaker::PeerId) -> Option<usize> {
    Some(rib.peer(peer)?.held.iter().map(|held| held.unvouched).sum())
}
