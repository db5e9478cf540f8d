//! What the responder answers: one query in, at most one response out. Pure.

use std::net::IpAddr;
use std::str::FromStr;

use domain::base::iana::{Class, Opcode, OptRcode, OptionCode, Rcode, Rtype};
use domain::base::message::Message;
use domain::base::message_builder::{AnswerBuilder, AuthorityBuilder, MessageBuilder, StaticCompressor};
use domain::base::name::ParsedName;
use domain::base::opt::{Opt, OptRecord, UnknownOptData};
use domain::base::record::ComposeRecord;
use domain::base::wire::ParseError;
use domain::base::{Name, Question, Record, Serial, ToName, Ttl};
use domain::dep::octseq::OctetsBuilder;
use domain::rdata::{A, Aaaa, Ns, Soa, Txt};

use super::DnsError;

/// UDP size the responder announces and never exceeds: what crosses any path (DNS Flag Day 2020).
pub const UDP_PAYLOAD_BYTES: u16 = 1232;
/// What a client without EDNS takes over UDP (RFC 1035 §2.3.4).
const UDP_PLAIN_BYTES: u16 = 512;
/// Longest message over TCP (RFC 1035 §4.2.2).
const TCP_BYTES: u16 = u16::MAX;
/// Bytes of a DNS header.
const HEADER_BYTES: usize = 12;
/// TTL of the zone's records.
const TTL: Ttl = Ttl::from_secs(60);
/// Longest site name: a TXT character string (RFC 1035 §3.3).
const MAX_SITE_BYTES: usize = 255;
/// What `version.bind` says.
const VERSION_TEXT: &str = concat!("ubique ", env!("CARGO_PKG_VERSION"));

/// How a query came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// In a datagram.
    Udp,
    /// In a stream.
    Tcp,
}

/// One zone in which every name exists, and the identity of the site.
#[derive(Clone, Debug)]
pub struct Zone {
    apex: Name<Vec<u8>>,
    ns: Name<Vec<u8>>,
    soa: Soa<Name<Vec<u8>>>,
    site: String,
    addresses: Vec<IpAddr>,
}

type Builder = AnswerBuilder<StaticCompressor<Vec<u8>>>;
type Asked<'a> = Question<ParsedName<&'a [u8]>>;

/// A query that was taken apart.
struct Query<'a> {
    question: Asked<'a>,
    edns: Option<Edns>,
}

/// What matters of a query's OPT record (RFC 6891).
#[derive(Clone, Copy)]
struct Edns {
    payload_bytes: u16,
    version: u8,
    nsid: bool,
}

/// What is answered, before it is put in a message.
enum Answer {
    /// A data of a class that is not the Internet.
    Chaos(String),
    /// Records of the zone; empty: the name has none of that type.
    Zone(Rtype),
    /// Nothing: not our name, class or type.
    Refused,
}

impl Zone {
    /// A zone whose every name has the same records: `addresses` as A and AAAA, the site's name as TXT.
    pub fn new(apex: &str, site: &str, addresses: &[IpAddr]) -> Result<Zone, DnsError> {
        let name = |text: String| Name::<Vec<u8>>::from_str(&text).map_err(|_| DnsError::Zone(apex.to_owned()));
        if site.len() > MAX_SITE_BYTES {
            return Err(DnsError::Site(MAX_SITE_BYTES));
        }
        let trimmed = apex.trim_end_matches('.');
        let ns = name(format!("ns.{trimmed}"))?;
        let apex_name = name(trimmed.to_owned())?;
        let contact = name(format!("hostmaster.{trimmed}"))?;
        let (refresh, retry, expire) = (Ttl::from_hours(1), Ttl::from_mins(10), Ttl::from_days(7));
        let soa = Soa::new(ns.clone(), contact, Serial(1), refresh, retry, expire, TTL);
        Ok(Zone { apex: apex_name, ns, soa, site: site.to_owned(), addresses: addresses.to_vec() })
    }

    /// The response to a message; `None`: it gets none, being a response itself or shorter than a header.
    pub fn respond(&self, message: &[u8], transport: Transport) -> Option<Vec<u8>> {
        if message.len() < HEADER_BYTES {
            return None;
        }
        let message = Message::from_octets(message).ok()?;
        if message.header().qr() {
            return None;
        }
        if message.header().opcode() != Opcode::QUERY {
            return Some(bare(&message, Rcode::NOTIMP));
        }
        match parse(&message) {
            Ok(query) => Some(self.answer(&message, &query, transport)),
            Err(_) => Some(bare(&message, Rcode::FORMERR)),
        }
    }

    fn answer(&self, message: &Message<&[u8]>, query: &Query, transport: Transport) -> Vec<u8> {
        let limit = match (transport, query.edns) {
            (Transport::Tcp, _) => TCP_BYTES,
            (Transport::Udp, None) => UDP_PLAIN_BYTES,
            (Transport::Udp, Some(edns)) => edns.payload_bytes.clamp(UDP_PLAIN_BYTES, UDP_PAYLOAD_BYTES),
        };
        let mut answer = self.decide(&query.question);
        if query.edns.is_some_and(|edns| edns.version > 0) {
            answer = Answer::Refused;
        }
        let whole = self.compose(message, query, Some(&answer));
        match whole {
            Some(bytes) if bytes.len() <= usize::from(limit) => bytes,
            _ => self.compose(message, query, None).unwrap_or_else(|| bare(message, Rcode::SERVFAIL)),
        }
    }

    fn decide(&self, question: &Asked) -> Answer {
        let qtype = question.qtype();
        match question.qclass() {
            Class::CH if matches!(qtype, Rtype::TXT | Rtype::ANY) => {
                let name = question.qname().to_string().to_ascii_lowercase();
                match name.as_str() {
                    // RFC 4892 §2 and the BIND names everybody knows.
                    "id.server" | "hostname.bind" => Answer::Chaos(self.site.clone()),
                    "version.server" | "version.bind" => Answer::Chaos(VERSION_TEXT.to_owned()),
                    _ => Answer::Refused,
                }
            }
            Class::IN if question.qname().ends_with(&self.apex) => match qtype {
                Rtype::AXFR | Rtype::IXFR => Answer::Refused,
                // One RRset is enough of an answer to ANY (RFC 8482 §4.1).
                Rtype::ANY => Answer::Zone(Rtype::TXT),
                other => Answer::Zone(other),
            },
            _ => Answer::Refused,
        }
    }

    /// The response's bytes; without `answer` it is truncated (RFC 2181 §9).
    fn compose(&self, message: &Message<&[u8]>, query: &Query, answer: Option<&Answer>) -> Option<Vec<u8>> {
        let bad_version = query.edns.is_some_and(|edns| edns.version > 0);
        let target = StaticCompressor::new(Vec::with_capacity(usize::from(UDP_PLAIN_BYTES)));
        let rcode = match answer {
            Some(Answer::Refused) if !bad_version => Rcode::REFUSED,
            _ => Rcode::NOERROR,
        };
        let mut builder = MessageBuilder::from_target(target).ok()?.start_answer(message, rcode).ok()?;
        builder.header_mut().set_aa(rcode == Rcode::NOERROR && !bad_version);
        builder.header_mut().set_tc(answer.is_none());
        let mut authority = match answer {
            Some(Answer::Zone(qtype)) => self.records(builder, &query.question, *qtype)?,
            Some(Answer::Chaos(text)) => {
                let txt = Txt::<Vec<u8>>::build_from_slice(text.as_bytes()).ok()?;
                builder.push((query.question.qname(), Class::CH, Ttl::ZERO, txt)).ok()?;
                builder.authority()
            }
            Some(Answer::Refused) | None => builder.authority(),
        };
        authority.header_mut().set_ra(false);
        let mut additional = authority.additional();
        if let Some(edns) = query.edns {
            additional
                .opt(|opt| {
                    opt.set_udp_payload_size(UDP_PAYLOAD_BYTES);
                    if bad_version {
                        opt.set_rcode(OptRcode::BADVERS);
                    }
                    if edns.nsid {
                        let site = self.site.as_bytes();
                        opt.push_raw_option(OptionCode::NSID, site.len() as u16, |target| target.append_slice(site))?;
                    }
                    Ok(())
                })
                .ok()?;
        }
        Some(additional.finish().into_target())
    }

    /// Pushes the records of that type, or the SOA as proof that there are none (RFC 2308 §2.2).
    fn records(
        &self,
        mut answer: Builder,
        question: &Asked,
        qtype: Rtype,
    ) -> Option<AuthorityBuilder<StaticCompressor<Vec<u8>>>> {
        let owner = question.qname();
        let at_apex = owner.name_eq(&self.apex);
        let before = answer.counts().ancount();
        match qtype {
            Rtype::A | Rtype::AAAA => {
                for address in &self.addresses {
                    match address {
                        IpAddr::V4(a) if qtype == Rtype::A => push(&mut answer, (owner, TTL, A::new(*a)))?,
                        IpAddr::V6(a) if qtype == Rtype::AAAA => push(&mut answer, (owner, TTL, Aaaa::new(*a)))?,
                        _ => {}
                    }
                }
            }
            Rtype::TXT => {
                let txt = Txt::<Vec<u8>>::build_from_slice(self.site.as_bytes()).ok()?;
                push(&mut answer, (owner, TTL, txt))?;
            }
            Rtype::SOA if at_apex => push(&mut answer, (owner, TTL, self.soa.clone()))?,
            Rtype::NS if at_apex => push(&mut answer, (owner, TTL, Ns::new(self.ns.clone())))?,
            _ => {}
        }
        let empty = answer.counts().ancount() == before;
        let mut authority = answer.authority();
        if empty {
            authority.push((&self.apex, TTL, self.soa.clone())).ok()?;
        }
        Some(authority)
    }
}

fn push(answer: &mut Builder, record: impl ComposeRecord) -> Option<()> {
    answer.push(record).ok()
}

/// A header alone: for what cannot be answered further.
fn bare(message: &Message<&[u8]>, rcode: Rcode) -> Vec<u8> {
    let mut builder = MessageBuilder::new_vec();
    let header = builder.header_mut();
    header.set_id(message.header().id());
    header.set_qr(true);
    header.set_opcode(message.header().opcode());
    header.set_rd(message.header().rd());
    header.set_rcode(rcode);
    builder.finish()
}

/// Takes a query apart; an error makes FORMERR: not exactly one question (RFC 9619), more than one OPT record
/// (RFC 6891 §6.1.1), or sections that do not parse.
fn parse<'a>(message: &'a Message<&'a [u8]>) -> Result<Query<'a>, ParseError> {
    let formerr = ParseError::form_error("");
    if message.header_counts().qdcount() != 1 {
        return Err(formerr);
    }
    let question = message.first_question().ok_or(formerr)?;
    for section in [message.answer()?, message.authority()?] {
        for record in section {
            record?;
        }
    }
    let mut edns = None;
    for record in message.additional()? {
        let record = record?;
        if record.rtype() != Rtype::OPT {
            continue;
        }
        let record: Record<_, Opt<_>> = record.into_record()?.ok_or(formerr)?;
        if !record.owner().is_root() {
            return Err(formerr);
        }
        let opt = OptRecord::from(record);
        let nsid = opt
            .opt()
            .iter::<UnknownOptData<_>>()
            .try_fold(false, |seen, option| Ok::<_, ParseError>(seen | (option?.code() == OptionCode::NSID)))?;
        if edns.replace(Edns { payload_bytes: opt.udp_payload_size(), version: opt.version(), nsid }).is_some() {
            return Err(formerr);
        }
    }
    Ok(Query { question, edns })
}

#[cfg(test)]
mod tests;
