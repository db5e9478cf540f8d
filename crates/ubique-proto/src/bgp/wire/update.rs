//! UPDATE: from three fields to routes, and what RFC 7606 makes of faults.
//!
//! Three outcomes, the strongest wins (RFC 7606 §3 h): a NOTIFICATION when the routes of the message cannot be located
//! or read; all announced routes withdrawn; an attribute dropped.

use std::collections::BTreeSet;
use std::sync::Arc;

use ubique_model::{Family, Prefix};

use super::super::attributes::NextHop;
use super::super::family::AddressFamily;
use super::super::flowspec::FlowSpec;
use super::super::message::{Nlri, Notification, Reach, Update};
use super::super::notification::update;
use super::attributes::{self, Faults, Multiprotocol, Parsed, flag, typecode, update_error};
use super::reader::Reader;
use super::{DecodeContext, nlri};

/// Reads the body of an UPDATE.
pub(super) fn decode(body: &[u8], ctx: &DecodeContext) -> Result<Update, Notification> {
    let [withdrawn, attributes, nlri] =
        fields(body).ok_or_else(|| update_error(update::MALFORMED_ATTRIBUTE_LIST, &[]))?;
    let invalid_network = || update_error(update::INVALID_NETWORK_FIELD, &[]);
    let add_path = ctx.add_path.contains(AddressFamily::Ipv4Unicast);
    let prefixes = |field| nlri::decode(field, Family::Ipv4, add_path).ok_or_else(invalid_network);
    let (withdrawn, nlri) = (prefixes(withdrawn)?, prefixes(nlri)?);

    let mut faults = Faults::default();
    let mut parsed = attributes::decode(attributes, ctx, &mut faults)?;
    let reachable = !nlri.is_empty() || reaches(&parsed);
    let end_of_rib = end_of_rib(&withdrawn, &parsed, &nlri).filter(|&family| ctx.families.contains(family));

    let unused = !ctx.families.contains(Family::Ipv4) && (!withdrawn.is_empty() || !nlri.is_empty());
    if unused {
        faults.discard(0, "IPv4 routes, a family not negotiated: ignored");
    }
    let used = |prefixes: Vec<Nlri>| if unused { vec![] } else { prefixes };
    let (mut withdrawn, nlri) = (used(withdrawn), used(nlri));
    let classic = !nlri.is_empty();
    let mut flows_withdrawn = taken_back(&mut parsed, &mut withdrawn, &mut faults);
    let mut flows_announced = flows(&mut parsed, &mut faults);
    let mut announced = announced(nlri, &mut parsed, &mut faults);
    unicast_only(&mut withdrawn, &mut announced, &mut faults);
    let any = !announced.is_empty() || !flows_announced.is_empty();
    missing(&parsed, classic, any, ctx.external, &mut faults);

    let attributes = match faults.withdraw.take() {
        // RFC 7606 §5.2: without a reachable prefix we cannot be sure to have found the routes meant.
        Some(notification) if !reachable => return Err(notification),
        Some(_) => {
            withdrawn.extend(announced.drain(..).flat_map(|reach| reach.prefixes));
            flows_withdrawn.append(&mut flows_announced);
            None
        }
        None => {
            without_announced(&mut withdrawn, &announced);
            let announced: BTreeSet<&FlowSpec> = flows_announced.iter().collect();
            flows_withdrawn.retain(|flow| !announced.contains(flow));
            any.then(|| Arc::new(parsed.into_attributes()))
        }
    };
    let faults = faults.list;
    Ok(Update { withdrawn, announced, flows_withdrawn, flows_announced, attributes, end_of_rib, faults })
}

/// What MP_UNREACH_NLRI takes back: prefixes are added to `withdrawn`, rules are returned.
fn taken_back(parsed: &mut Parsed, withdrawn: &mut Vec<Nlri>, faults: &mut Faults) -> Vec<FlowSpec> {
    match parsed.unreach.take() {
        Some(Multiprotocol::Routes(_, (), prefixes)) => withdrawn.extend(prefixes),
        Some(Multiprotocol::Flows(_, flows)) => {
            // It was treated as withdrawn when it was announced: there is nothing to take back.
            if let Some(reason) = flows.malformed {
                faults.discard(typecode::MP_UNREACH, format!("FlowSpec: {reason}"));
            }
            return flows.rules;
        }
        Some(Multiprotocol::Ignored(true)) => ignored_family(typecode::MP_UNREACH, faults),
        Some(Multiprotocol::Ignored(false)) | None => {}
    }
    vec![]
}

/// What MP_REACH_NLRI announces when it is FlowSpec.
fn flows(parsed: &mut Parsed, faults: &mut Faults) -> Vec<FlowSpec> {
    match parsed.reach.take() {
        Some(Multiprotocol::Flows(_, flows)) => {
            // RFC 8955 §10: a malformed rule is a fault of its message.
            if let Some(reason) = flows.malformed {
                let notification = update_error(update::OPTIONAL_ATTRIBUTE, &[]);
                faults.withdraw(typecode::MP_REACH, format!("FlowSpec: {reason}"), notification);
            }
            flows.rules
        }
        other => {
            parsed.reach = other;
            vec![]
        }
    }
}

/// Withdrawn routes, path attributes, NLRI (RFC 4271 §4.3).
fn fields(body: &[u8]) -> Option<[&[u8]; 3]> {
    let mut r = Reader::new(body);
    let length = usize::from(r.u16()?);
    let withdrawn = r.take(length)?;
    let length = usize::from(r.u16()?);
    let attributes = r.take(length)?;
    Some([withdrawn, attributes, r.rest()])
}

fn reaches(parsed: &Parsed) -> bool {
    match &parsed.reach {
        Some(Multiprotocol::Routes(_, _, prefixes)) => !prefixes.is_empty(),
        Some(Multiprotocol::Flows(_, flows)) => flows.malformed.is_some() || !flows.rules.is_empty(),
        Some(Multiprotocol::Ignored(any)) => *any,
        None => false,
    }
}

/// RFC 4724 §2: an empty UPDATE, or nothing but an empty MP_UNREACH_NLRI.
fn end_of_rib(withdrawn: &[Nlri], parsed: &Parsed, nlri: &[Nlri]) -> Option<AddressFamily> {
    if !withdrawn.is_empty() || !nlri.is_empty() {
        return None;
    }
    match (&parsed.unreach, parsed.count) {
        (None, 0) => Some(AddressFamily::Ipv4Unicast),
        (Some(Multiprotocol::Routes(family, (), prefixes)), 1) if prefixes.is_empty() => Some(*family),
        (Some(Multiprotocol::Flows(family, flows)), 1) if flows.malformed.is_none() && flows.rules.is_empty() => {
            Some(*family)
        }
        _ => None,
    }
}

fn ignored_family(code: u8, faults: &mut Faults) {
    faults.discard(code, "routes of a family not negotiated: ignored");
}

/// Pairs prefixes with their next hops and judges these (RFC 4271 §6.3, RFC 7606 §7.3).
fn announced(nlri: Vec<Nlri>, parsed: &mut Parsed, faults: &mut Faults) -> Vec<Reach> {
    let mut announced = Vec::with_capacity(1);
    if !nlri.is_empty() {
        // Without NEXT_HOP the routes are withdrawn below; any address serves until then.
        let address = parsed.next_hop.unwrap_or(std::net::Ipv4Addr::UNSPECIFIED);
        if parsed.next_hop.is_some() && !nlri::is_host_v4(address) {
            let [a, b, c, d] = address.octets();
            let raw = [flag::TRANSITIVE, typecode::NEXT_HOP, 4, a, b, c, d];
            let reason = format!("{address} is not the address of a host");
            faults.withdraw(typecode::NEXT_HOP, reason, update_error(update::INVALID_NEXT_HOP, &raw));
        }
        announced.push(Reach { next_hop: NextHop::V4(address), prefixes: nlri });
    }
    match parsed.reach.take() {
        Some(Multiprotocol::Routes(_, next_hop, prefixes)) if !prefixes.is_empty() => {
            let valid = match next_hop {
                NextHop::V4(address) => nlri::is_host_v4(address),
                NextHop::V6 { global, .. } => nlri::is_host_v6(global),
            };
            if !valid {
                let reason = format!("next hop {} is not the address of a host", next_hop.address());
                faults.withdraw(typecode::MP_REACH, reason, update_error(update::OPTIONAL_ATTRIBUTE, &[]));
            }
            announced.push(Reach { next_hop, prefixes });
        }
        Some(Multiprotocol::Ignored(true)) => ignored_family(typecode::MP_REACH, faults),
        _ => {}
    }
    announced
}

/// RFC 4271 §6.3: multicast destinations are logged and ignored.
fn unicast_only(withdrawn: &mut Vec<Nlri>, announced: &mut Vec<Reach>, faults: &mut Faults) {
    let mut first: Option<Prefix> = None;
    let mut keep = |nlri: &Nlri| {
        let multicast = nlri::is_multicast(&nlri.prefix);
        if multicast {
            first.get_or_insert(nlri.prefix);
        }
        !multicast
    };
    withdrawn.retain(&mut keep);
    for reach in announced.iter_mut() {
        reach.prefixes.retain(&mut keep);
    }
    announced.retain(|reach| !reach.prefixes.is_empty());
    if let Some(prefix) = first {
        faults.discard(0, format!("{prefix} is multicast, not unicast: ignored"));
    }
}

/// RFC 7606 §3 d: ORIGIN and AS_PATH for any route, NEXT_HOP for those in NLRI; LOCAL_PREF from every internal neighbour
/// (RFC 4271 §5.1.5).
fn missing(parsed: &Parsed, classic: bool, any: bool, external: bool, faults: &mut Faults) {
    let needed = [
        (typecode::ORIGIN, "ORIGIN", any),
        (typecode::AS_PATH, "AS_PATH", any),
        (typecode::NEXT_HOP, "NEXT_HOP", classic),
        (typecode::LOCAL_PREF, "LOCAL_PREF", any && !external),
    ];
    for (code, name, needed) in needed {
        if needed && !parsed.has(code) {
            let notification = update_error(update::MISSING_WELL_KNOWN_ATTRIBUTE, &[code]);
            faults.withdraw(code, format!("{name} is missing"), notification);
        }
    }
}

/// RFC 4271 §4.3: a prefix both withdrawn and announced is announced.
fn without_announced(withdrawn: &mut Vec<Nlri>, announced: &[Reach]) {
    if withdrawn.is_empty() || announced.is_empty() {
        return;
    }
    let mut kept: Vec<Nlri> = announced.iter().flat_map(|reach| reach.prefixes.iter().copied()).collect();
    kept.sort_unstable();
    withdrawn.retain(|prefix| kept.binary_search(prefix).is_err());
}
