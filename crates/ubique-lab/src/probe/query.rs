//! The query of the prober and what an answer tells about the site it came from.

use std::str::FromStr;

use domain::base::iana::{Class, Rtype};
use domain::base::message_builder::MessageBuilder;
use domain::base::{Message, Name, Question};
use domain::rdata::Txt;
use serde::{Deserialize, Serialize};

use super::record::MAX_SITE_BYTES;

/// UDP size announced with EDNS (RFC 6891), as DNS Flag Day 2020 recommends.
const UDP_PAYLOAD_BYTES: u16 = 1232;

/// What vantage points ask, always with NSID (RFC 5001).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeQuery {
    /// Name.
    pub name: String,
    /// Type mnemonic: `TXT`.
    pub qtype: String,
    /// Class mnemonic: `CH`.
    pub class: String,
}

impl Default for ProbeQuery {
    /// `id.server CH TXT` (RFC 4892).
    fn default() -> Self {
        ProbeQuery { name: "id.server".into(), qtype: "TXT".into(), class: "CH".into() }
    }
}

/// Why a query cannot be built.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not a {1}")]
pub struct QueryError(String, &'static str);

impl ProbeQuery {
    /// The query's bytes with identifier 0.
    pub fn to_bytes(&self) -> Result<Vec<u8>, QueryError> {
        let name = Name::<Vec<u8>>::from_str(&self.name).map_err(|_| QueryError(self.name.clone(), "domain name"))?;
        let qtype = Rtype::from_str(&self.qtype).map_err(|_| QueryError(self.qtype.clone(), "record type"))?;
        let class = Class::from_str(&self.class).map_err(|_| QueryError(self.class.clone(), "class"))?;
        let too_long = |_| QueryError(self.name.clone(), "name that fits a query");
        let mut question = MessageBuilder::new_vec().question();
        question.push(Question::new(name, qtype, class)).map_err(too_long)?;
        let mut additional = question.additional();
        additional
            .opt(|opt| {
                opt.set_udp_payload_size(UDP_PAYLOAD_BYTES);
                opt.client_nsid()
            })
            .map_err(too_long)?;
        Ok(additional.finish())
    }
}

/// The identifier of a response; `None`: not a response.
pub fn response_id(bytes: &[u8]) -> Option<u16> {
    let message = Message::from_octets(bytes).ok()?;
    message.header().qr().then(|| message.header().id())
}

/// The site a response names: its NSID when printable, else its first TXT record; `None`: it does not tell.
pub fn response_site(bytes: &[u8]) -> Option<String> {
    let message = Message::from_octets(bytes).ok()?;
    let opt = message.opt();
    let nsid = opt.as_ref().and_then(|opt| opt.opt().nsid()).and_then(|nsid| printable(nsid.as_slice()));
    nsid.or_else(|| {
        let txt = message.answer().ok()?.limit_to::<Txt<_>>().next()?.ok()?;
        printable(&txt.data().text::<Vec<u8>>())
    })
}

/// `bytes` as text when it is short, not empty and printable ASCII.
fn printable(bytes: &[u8]) -> Option<String> {
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
        assert_eq!(response_id(&bytes), None, "a query is no response");
    }

    #[test]
    fn nsid_wins_over_txt_when_printable() {
        assert_eq!(response_site(&answer(Some("lon"), Some(b"ams"))), Some("ams".into()));
        assert_eq!(response_site(&answer(Some("lon"), Some(&[0xFF, 0]))), Some("lon".into()));
        assert_eq!(response_site(&answer(Some("lon"), None)), Some("lon".into()));
        assert_eq!(response_site(&answer(None, None)), None);
        assert_eq!(response_site(&answer(None, Some(&[b'x'; MAX_SITE_BYTES + 1]))), None);
        assert_eq!(response_id(&answer(None, None)), Some(0));
    }

    #[test]
    fn a_wrong_query_says_what_is_wrong() {
        let query = |name: &str, qtype: &str, class: &str| {
            let query = ProbeQuery { name: name.into(), qtype: qtype.into(), class: class.into() };
            query.to_bytes().map_err(|e| e.to_string())
        };
        assert_eq!(query("a..b", "TXT", "CH"), Err("\"a..b\" is not a domain name".into()));
        assert_eq!(query("a", "TXXT", "CH"), Err("\"TXXT\" is not a record type".into()));
        assert_eq!(query("a", "TXT", "QQ"), Err("\"QQ\" is not a class".into()));
        assert!(query("example.com", "A", "IN").is_ok());
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200), cut in 0usize..100) {
            let _ = (response_id(&bytes), response_site(&bytes));
            let mut bytes = answer(Some("lon"), Some(b"ams"));
            bytes.truncate(bytes.len().saturating_sub(cut));
            let _ = (response_id(&bytes), response_site(&bytes));
        }
    }
}
