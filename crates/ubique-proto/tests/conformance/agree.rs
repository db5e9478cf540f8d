//! The codec against the oracle.

use std::collections::BTreeSet;

use ubique_model::{Family, Prefix};
use ubique_proto::bgp::family::AddressFamilies;
use ubique_proto::bgp::message::{Message, Notification, Treatment, Update};
use ubique_proto::bgp::wire::{DecodeContext, decode};

use super::oracle::{Routes, Session, Verdict, judge};

/// The context of a session without extensions.
pub fn context(session: Session) -> DecodeContext {
    let mut families = AddressFamilies::NONE;
    for (family, used) in [(Family::Ipv4, session.ipv4), (Family::Ipv6, session.ipv6)] {
        if used {
            families.insert(family);
        }
    }
    DecodeContext {
        four_octet_as: session.four_octet_as,
        external: session.external,
        families,
        add_path: AddressFamilies::NONE,
        extended_next_hop: AddressFamilies::NONE,
        max_message: session.longest,
    }
}

/// Holds the codec's reading of one message against the oracle's verdict.
///
/// # Panics
/// When they differ.
pub fn agree(message: &[u8], session: Session) {
    let (verdict, length) = judge(message, session);
    if verdict == Verdict::Wait || length != message.len() {
        return;
    }
    let read = decode(message, &context(session));
    let fits = match (&read, &verdict) {
        // What it is counts for more in Established than what is wrong with it.
        (Ok(Message::Open(_)), Verdict::Reset(all)) => all.contains(&(5, 3)),
        (Err(Notification { code: 2, .. }), Verdict::Reset(all)) => all.contains(&(5, 3)),
        (Err(error), Verdict::Reset(all)) => all.contains(&(error.code, error.subcode)),
        (Ok(Message::Notification(_)), verdict) => *verdict == Verdict::Closed,
        (Ok(Message::Keepalive | Message::RouteRefresh { .. }), verdict) => *verdict == Verdict::Fine,
        (Ok(Message::Update(update)), Verdict::Routes(routes)) => same(update, routes),
        _ => false,
    };
    assert!(fits, "{session:?}\nread   {read:?}\njudged {verdict:?}\nmessage {message:02x?}");
}

/// The same routes, for the same reasons.
pub fn same(update: &Update, routes: &Routes) -> bool {
    let announced = update.announced.iter().flat_map(|reach| &reach.prefixes);
    let announced: BTreeSet<Prefix> = announced.map(|nlri| nlri.prefix).collect();
    let withdrawn: BTreeSet<Prefix> = update.withdrawn.iter().map(|nlri| nlri.prefix).collect();
    (announced, withdrawn) == (routes.announced.clone(), routes.withdrawn.clone())
        && reasons(update, Treatment::TreatAsWithdraw, routes.treated.clone())
        && reasons(update, Treatment::AttributeDiscard, routes.discarded.clone())
}

/// Faults kept of one message at most; the rest is treated all the same.
const MAX_FAULTS: usize = 16;

fn reasons(update: &Update, treatment: Treatment, mut judged: BTreeSet<u8>) -> bool {
    let listed = update.faults.iter().filter(|fault| fault.treatment == treatment);
    let mut listed: BTreeSet<u8> = listed.map(|fault| fault.code).collect();
    if treatment == Treatment::AttributeDiscard {
        // Routes left out, not attributes; and what a stronger fault of the same attribute covers.
        for set in [&mut listed, &mut judged] {
            set.retain(|code| !matches!(code, 0 | 14 | 15));
        }
    }
    if update.faults.len() < MAX_FAULTS {
        listed == judged
    } else {
        // What decided over the routes is never left out.
        listed.is_subset(&judged)
            && (treatment == Treatment::AttributeDiscard || listed.is_empty() == judged.is_empty())
    }
}
