//! What goes to neighbours: what the RIB owes them, withdrawals first, and the marks of what is complete: End-of-RIB
//! (RFC 4724 §2), BoRR and EoRR (RFC 7313 §4).

use serde::{Deserialize, Serialize};
use ubique_model::Prefix;

use super::flows::{self, Flows};
use super::ledger::Ledger;
use super::run::{Settling, Speaker};
use super::{ConnId, Out, PeerId};
use crate::bgp::family::{AddressFamilies, AddressFamily};
use crate::bgp::message::Nlri;
use crate::bgp::rib::{Change, Rib};
use crate::bgp::session::{Negotiated, Refresh};
use crate::bgp::wire::{self, EncodeContext};
use crate::time::Time;

/// Octets under way to a neighbour beyond which no more UPDATEs are written to it. What it is owed stays in its
/// Adj-RIB-Out, where each prefix has room once, until [`super::In::Acknowledged`] makes room.
pub const SEND_WINDOW: u64 = 1 << 20;

/// Where a message has its length and its type (RFC 4271 §4.1).
const LENGTH_AT: usize = 16;
const TYPE_AT: usize = 18;

/// How far a neighbour has been told everything on its present session.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Sending {
    /// Families whose initial exchange is complete and whose End-of-RIB was sent.
    end_of_rib: AddressFamilies,
    /// Families the neighbour asked for again, and that wait for what it is owed: for End-of-RIB, too, where the answer has a
    /// beginning and an end (RFC 7313 §4). However often it asks meanwhile, it is told once more.
    pub(super) asked: AddressFamilies,
    /// Families between BoRR and EoRR.
    resending: AddressFamilies,
    pub(super) flows: Flows,
}

impl Sending {
    /// A session came or went.
    pub(super) fn restart(&mut self) {
        *self = Sending { flows: std::mem::take(&mut self.flows), ..Sending::default() };
        self.flows.restart();
    }

    /// Owes the neighbour everything of a family once more.
    fn repeat(&mut self, rib: &mut Rib, peer: PeerId, family: AddressFamily) {
        rib.refresh(peer, family);
        self.flows.repeat(family);
    }

    /// Everything owed is written: appends what marks that, and begins refreshes that were asked for. Whether that
    /// makes more to write.
    fn mark(&mut self, rib: &mut Rib, peer: PeerId, negotiated: &Negotiated, settled: bool, out: &mut Vec<u8>) -> bool {
        let (families, enhanced) = (negotiated.families, negotiated.enhanced_route_refresh);
        for family in families.iter().filter(|family| settled && !self.end_of_rib.contains(*family)) {
            wire::encode_end_of_rib(family, out);
        }
        if settled {
            self.end_of_rib = families;
        }
        for family in std::mem::take(&mut self.resending).iter() {
            wire::encode_route_refresh(family, Refresh::End.subtype(), out);
        }
        let answered = self.asked.intersection(if enhanced { self.end_of_rib } else { families });
        for family in answered.iter() {
            self.asked.remove(family);
            if enhanced {
                wire::encode_route_refresh(family, Refresh::Begin.subtype(), out);
                self.resending.insert(family);
            }
            self.repeat(rib, peer, family);
        }
        !answered.is_empty()
    }
}

impl Speaker {
    /// Sends every neighbour what it is owed, withdrawals first, then tells what to forward where, and frees a part of what is gone.
    pub(super) fn flush(&mut self, now: Time) {
        for index in 0..self.peers.len() {
            self.flush_peer(now, PeerId(u32::try_from(index).unwrap_or(u32::MAX)));
        }
        while let Some((prefix, next_hop)) = self.rib.poll_best() {
            self.output.push_back(Out::Best { prefix, next_hop });
        }
        self.reap(now);
    }

    fn flush_peer(&mut self, now: Time, peer: PeerId) {
        let Some(p) = self.peers.get_mut(peer.0 as usize).and_then(Option::as_mut) else {
            return;
        };
        let (Some(context), Some(negotiated)) = (p.session.encode_context(), p.session.negotiated()) else {
            return;
        };
        let Some((start, under_way)) = p.session.established().map(|c| (c.sent(), c.unacknowledged())) else {
            return;
        };
        let settled = p.settling == Settling::Done;
        let mut bytes = vec![];
        while under_way + (bytes.len() as u64) < SEND_WINDOW {
            if let Some(change) = self.rib.poll_changes(peer) {
                write_change(&change, &context, start, &mut bytes, &mut p.ledger);
            } else if let Some((flow, actions)) = p.sending.flows.poll(negotiated.families) {
                flows::write(&flow, actions, self.config.asn, p.session.config(), &context, &mut bytes);
            } else if !p.sending.mark(&mut self.rib, peer, negotiated, settled, &mut bytes) {
                break;
            }
        }
        if !bytes.is_empty() {
            let (messages, updates) = count(&bytes);
            p.session.send_updates(now, bytes, messages, updates);
            self.last_activity = now;
            self.drain(now, peer);
        }
    }

    /// Whole messages, to the socket first; whoever watches sees them after that.
    pub(super) fn send(&mut self, peer: PeerId, conn: ConnId, bytes: Vec<u8>) {
        let seen = if self.config.tap { bytes.clone() } else { vec![] };
        self.output.push_back(Out::Send { conn, bytes });
        let shown = messages(&seen).map(|message| Out::Message { peer, conn, sent: true, bytes: message.to_vec() });
        self.output.extend(shown);
    }
}

/// Appends the UPDATEs of a change and notes in the ledger where they end, in octets after `start`. Routes whose
/// attributes no message can hold are withdrawn instead: what the neighbour held before is no longer true.
fn write_change(change: &Change, context: &EncodeContext, start: u64, bytes: &mut Vec<u8>, ledger: &mut Ledger) {
    let prefixes = change.announced.as_ref().map_or(&[][..], |(_, _, prefixes)| prefixes);
    let nlri = |prefixes: &[Prefix]| prefixes.iter().copied().map(Nlri::from).collect::<Vec<_>>();
    let (withdrawn, announced) = (nlri(&change.withdrawn), nlri(prefixes));
    let with = change.announced.as_ref().map(|(a, next_hop, _)| (&**a, *next_hop, &announced[..]));
    let sent = wire::encode_updates(&withdrawn, with, context, bytes);
    if sent.is_err() {
        // Cannot fail: without attributes there is nothing that is too long.
        let _ = wire::encode_updates(&announced, None, context, bytes);
    }
    let end = start + bytes.len() as u64;
    for prefix in &change.withdrawn {
        ledger.withdrawn(prefix, end);
    }
    for prefix in prefixes {
        if sent.is_ok() { ledger.announced(prefix, end) } else { ledger.withdrawn(prefix, end) }
    }
}

/// The messages in a buffer of whole ones.
fn messages(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let length = bytes.get(LENGTH_AT..LENGTH_AT + 2)?;
        let length = usize::from(u16::from_be_bytes([length[0], length[1]])).max(wire::HEADER_LEN);
        let (message, rest) = bytes.split_at_checked(length)?;
        bytes = rest;
        Some(message)
    })
}

/// Messages in a buffer of whole ones, and how many of them are UPDATEs.
fn count(bytes: &[u8]) -> (u64, u64) {
    messages(bytes).fold((0, 0), |(all, updates), message| {
        (all + 1, updates + u64::from(message.get(TYPE_AT) == Some(&wire::kind::UPDATE)))
    })
}
