//! The query of the prober and what an answer tells about the site it came from: DNS and NTP, a datagram each way.

use std::str::FromStr;

use domain::base::iana::{Class, Rtype};
use domain::base::message_builder::MessageBuilder;
use domain::base::{Message, Name, Question};
use domain::rdata::Txt;
use serde::{Deserialize, Serialize};
use ubique_model::service::Ask;

use super::record::MAX_SITE_BYTES;

/// UDP size announced with EDNS (RFC 6891), as DNS Flag Day 2020 recommends.
const UDP_PAYLOAD_BYTES: u16 = 1232;

/// What vantage points ask.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ProbeQuery {
    /// A DNS query, always with NSID (RFC 5001).
    Dns {
        /// Name.
        name: String,
        /// Type mnemonic: `TXT`.
        qtype: String,
        /// Class mnemonic: `CH`.
        class: String,
    },
    /// `GET /`, see [`super::http`].
    Http,
    /// The time (RFC 5905).
    Ntp,
}

impl Default for ProbeQuery {
    /// `id.server CH TXT` (RFC 4892).
    fn default() -> Self {
        ProbeQuery::Dns { name: "id.server".into(), qtype: "TXT".into(), class: "CH".into() }
    }
}

impl From<Ask> for ProbeQuery {
    fn from(ask: Ask) -> Self {
        match ask {
            Ask::Dns => ProbeQuery::default(),
            Ask::Http => ProbeQuery::Http,
            Ask::Ntp => ProbeQuery::Ntp,
        }
    }
}

/// Length of an NTP packet without extensions.
const NTP_BYTES: usize = 48;
/// Version 4, mode client, and the rest zero (RFC 5905 §7.3).
const NTP_CLIENT: u8 = 4 << 3 | 3;
/// Mode of an answer.
const NTP_SERVER: u8 = 4;
/// A server with a clock of its own: only its reference identifier is a text.
const NTP_PRIMARY: u8 = 1;
const NTP_REFERENCE: std::ops::Range<usize> = 12..16;
const NTP_ORIGIN: usize = 24;
const NTP_TRANSMIT: usize = 40;

/// Why a query cannot be built.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not a {1}")]
pub struct QueryError(String, &'static str);

impl ProbeQuery {
    /// The datagram that asks, with identifier 0.
    pub fn to_bytes(&self) -> Result<Vec<u8>, QueryError> {
        match self {
            ProbeQuery::Dns { name, qtype, class } => dns_query(name, qtype, class),
            ProbeQuery::Http => Ok(Vec::new()),
            ProbeQuery::Ntp => {
                let mut packet = vec![0; NTP_BYTES];
                packet[0] = NTP_CLIENT;
                // A transmit timestamp of zero would mean that there is none.
                packet[NTP_BYTES - 1] = 1;
                Ok(packet)
            }
        }
    }

    /// Where the identifier lies in a query: of NTP, the server copies the timestamp of the query into the answer.
    fn id_at(&self) -> usize {
        if *self == ProbeQuery::Ntp { NTP_TRANSMIT } else { 0 }
    }

    /// Gives a query its identifier.
    pub fn set_id(&self, query: &mut [u8], id: u16) {
        let at = self.id_at();
        query[at..at + 2].copy_from_slice(&id.to_be_bytes());
    }

    /// The identifier of a query that came back with an ICMP error.
    pub fn id(&self, query: &[u8]) -> Option<u16> {
        id_at(query, self.id_at())
    }

    /// The identifier of a response; `None`: not a response.
    pub fn response_id(&self, bytes: &[u8]) -> Option<u16> {
        match self {
            ProbeQuery::Ntp => {
                id_at(bytes, NTP_ORIGIN).filter(|_| bytes.len() >= NTP_BYTES && bytes[0] & 7 == NTP_SERVER)
            }
            _ => Message::from_octets(bytes).ok().filter(|m| m.header().qr()).map(|m| m.header().id()),
        }
    }

    /// The site a response names; `None`: it does not tell.
    pub fn response_site(&self, bytes: &[u8]) -> Option<String> {
        match self {
            ProbeQuery::Ntp => ntp_site(bytes),
            _ => dns_site(bytes),
        }
    }
}

fn id_at(bytes: &[u8], at: usize) -> Option<u16> {
    let id = bytes.get(at..)?.first_chunk()?;
    Some(u16::from_be_bytes(*id))
}

fn dns_query(name: &str, qtype: &str, class: &str) -> Result<Vec<u8>, QueryError> {
    let owner = Name::<Vec<u8>>::from_str(name).map_err(|_| QueryError(name.into(), "domain name"))?;
    let qtype = Rtype::from_str(qtype).map_err(|_| QueryError(qtype.into(), "record type"))?;
    let class = Class::from_str(class).map_err(|_| QueryError(class.into(), "class"))?;
    let too_long = |_| QueryError(name.into(), "name that fits a query");
    let mut question = MessageBuilder::new_vec().question();
    question.push(Question::new(owner, qtype, class)).map_err(too_long)?;
    let mut additional = question.additional();
    additional
        .opt(|opt| {
            opt.set_udp_payload_size(UDP_PAYLOAD_BYTES);
            opt.client_nsid()
        })
        .map_err(too_long)?;
    Ok(additional.finish())
}

/// The reference identifier of a stratum 1 server, at most four characters; site names are in lower case.
fn ntp_site(bytes: &[u8]) -> Option<String> {
    let reference = bytes.get(NTP_REFERENCE).filter(|_| bytes[1] == NTP_PRIMARY)?;
    let end = reference.iter().position(|b| *b == 0).unwrap_or(reference.len());
    printable(&reference[..end]).map(|name| name.to_ascii_lowercase())
}

/// The NSID when printable, else the first TXT record.
fn dns_site(bytes: &[u8]) -> Option<String> {
    let message = Message::from_octets(bytes).ok()?;
    let opt = message.opt();
    let nsid = opt.as_ref().and_then(|opt| opt.opt().nsid()).and_then(|nsid| printable(nsid.as_slice()));
    nsid.or_else(|| {
        let txt = message.answer().ok()?.limit_to::<Txt<_>>().next()?.ok()?;
        printable(&txt.data().text::<Vec<u8>>())
    })
}

/// `bytes` as text when it is short, not empty and printable ASCII.
pub(super) fn printable(bytes: &[u8]) -> Option<String> {
    let fits = !bytes.is_empty() && bytes.len() <= MAX_SITE_BYTES;
    let text = std::str::from_utf8(bytes).ok()?;
    (fits && bytes.iter().all(|b| b.is_ascii_graphic() || *b == b' ')).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use domain::base::iana::{OptionCode, Rcode};
    use domain::dep::octseq::OctetsBuilder;
    use proptest::prelude::*;

    use super::*;

    fn answer(txt: Option<&str>, nsid: Option<&[u8]>) -> Vec<u8> {
        let query = ProbeQuery::default().to_bytes().unwrap();
        let query = Message::from_octets(query).unwrap();
        let mut answer = MessageBuilder::new_vec().start_answer(&query, Rcode::NOERROR).unwrap();
        if let Some(text) = txt {
            let owner = query.sole_question().unwrap().into_qname();
            answer.push((owner, Class::CH, 0, Txt::<Vec<u8>>::build_from_slice(text.as_bytes()).unwrap())).unwrap();
        }
        let mut additional = answer.additional();
        if let Some(nsid) = nsid {
            let push = |target: &mut Vec<u8>| target.append_slice(nsid);
            additional.opt(|opt| opt.push_raw_option(OptionCode::NSID, nsid.len() as u16, push)).unwrap();
        }
        additional.finish()
    }

    #[test]
    fn the_default_query_asks_id_server_with_nsid() {
        let bytes = ProbeQuery::default().to_bytes().unwrap();
        let message = Message::from_octets(&bytes[..]).unwrap();
        let question = message.sole_question().unwrap();
        assert_eq!(question.qname().to_string(), "id.server");
        assert_eq!((question.qtype(), question.qclass()), (Rtype::TXT, Class::CH));
        assert_eq!(message.opt().unwrap().udp_payload_size(), UDP_PAYLOAD_BYTES);
        assert!(message.opt().unwrap().opt().nsid().unwrap().as_slice().is_empty());
        assert_eq!(ProbeQuery::default().response_id(&bytes), None, "a query is no response");
    }

    #[test]
    fn nsid_wins_over_txt_when_printable() {
        assert_eq!(dns_site(&answer(Some("lon"), Some(b"ams"))), Some("ams".into()));
        assert_eq!(dns_site(&answer(Some("lon"), Some(&[0xFF, 0]))), Some("lon".into()));
        assert_eq!(dns_site(&answer(Some("lon"), None)), Some("lon".into()));
        assert_eq!(dns_site(&answer(None, None)), None);
        assert_eq!(dns_site(&answer(None, Some(&[b'x'; MAX_SITE_BYTES + 1]))), None);
        assert_eq!(ProbeQuery::default().response_id(&answer(None, None)), Some(0));
    }

    #[test]
    fn a_wrong_query_says_what_is_wrong() {
        let query = |name: &str, qtype: &str, class: &str| {
            let query = ProbeQuery::Dns { name: name.into(), qtype: qtype.into(), class: class.into() };
            query.to_bytes().map_err(|e| e.to_string())
        };
        assert_eq!(query("a..b", "TXT", "CH"), Err("\"a..b\" is not a domain name".into()));
        assert_eq!(query("a", "TXXT", "CH"), Err("\"TXXT\" is not a record type".into()));
        assert_eq!(query("a", "TXT", "QQ"), Err("\"QQ\" is not a class".into()));
        assert!(query("example.com", "A", "IN").is_ok());
    }

    #[test]
    fn a_time_server_names_its_site_by_the_reference_of_its_clock() {
        let query = ProbeQuery::Ntp;
        let mut packet = query.to_bytes().unwrap();
        assert_eq!((packet.len(), packet[0]), (NTP_BYTES, 0x23));
        query.set_id(&mut packet, 0x1234);
        assert_eq!(query.id(&packet), Some(0x1234));
        assert_eq!(query.response_id(&packet), None, "a query is no response");

        let mut answer = vec![0; NTP_BYTES];
        answer[0] = 4 << 3 | NTP_SERVER;
        answer[1] = NTP_PRIMARY;
        answer[NTP_REFERENCE].copy_from_slice(b"LON\0");
        answer[NTP_ORIGIN..NTP_ORIGIN + 8].copy_from_slice(&packet[NTP_TRANSMIT..]);
        assert_eq!(query.response_id(&answer), Some(0x1234));
        assert_eq!(query.response_site(&answer), Some("lon".into()));
        answer[1] = 2;
        assert_eq!(query.response_site(&answer), None, "of stratum 2 it is an address");
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200), cut in 0usize..100) {
            let mut answer = answer(Some("lon"), Some(b"ams"));
            answer.truncate(answer.len().saturating_sub(cut));
            for query in [ProbeQuery::default(), ProbeQuery::Ntp] {
                let _ = (query.response_id(&bytes), query.response_site(&bytes), query.id(&bytes));
                let _ = (query.response_id(&answer), query.response_site(&answer));
            }
        }
    }
}
