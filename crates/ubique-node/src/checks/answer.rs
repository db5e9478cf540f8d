//! What a DNS check expects of an answer. Reads octets of others: no input panics (fuzz target `dns_answer`).

use std::fmt::Write;

use domain::base::iana::{Class, Rcode};
use domain::base::{Message, Name, ParsedName, Rtype};
use domain::rdata::AllRecordData;
use ubique_model::check::{Dns as Spec, Flag, FlagBit};

use super::quote;

/// Records of an answer that are looked at.
const RECORDS: usize = 256;

/// What is expected.
pub(super) struct Expected {
    name: Name<Vec<u8>>,
    qtype: Rtype,
    class: Class,
    rcode: Rcode,
    flags: Vec<Flag>,
    /// Data of records, normal.
    answer: Vec<String>,
    contains: Vec<String>,
}

impl Expected {
    pub(super) fn new(name: Name<Vec<u8>>, qtype: Rtype, class: Class, spec: &Spec) -> Result<Expected, String> {
        let rcode: Rcode = spec.rcode.parse().map_err(|_| format!("{:?} is not an RCODE", spec.rcode))?;
        let answer = spec.answer.iter().map(|text| normal(text)).collect();
        let contains = spec.answer_contains.clone();
        Ok(Expected { name, qtype, class, rcode, flags: spec.flags.clone(), answer, contains })
    }

    /// `None`: not the answer to this query (late, or somebody's guess).
    pub(super) fn judge(&self, octets: &[u8], id: u16) -> Option<Result<(), String>> {
        let Ok(message) = Message::from_octets(octets) else {
            return Some(Err(format!("answer of {} octets is not a DNS message", octets.len())));
        };
        (message.header().id() == id).then(|| self.judge_message(&message))
    }

    /// Over a stream nobody else can answer.
    pub(super) fn judge_stream(&self, octets: &[u8], id: u16) -> Result<(), String> {
        self.judge(octets, id).unwrap_or_else(|| Err("answer with another identifier".to_owned()))
    }

    fn judge_message(&self, message: &Message<&[u8]>) -> Result<(), String> {
        let header = message.header();
        if !header.qr() {
            return Err("answer is a query".to_owned());
        }
        let asked = message
            .sole_question()
            .is_ok_and(|q| *q.qname() == self.name && q.qtype() == self.qtype && q.qclass() == self.class);
        let rcode = header.rcode();
        // A server that cannot parse the query returns the bare header (RFC 1035 §4.1.1): its RCODE tells more.
        if !asked && message.header_counts().qdcount() > 0 {
            return Err("answer to another question".to_owned());
        }
        if rcode != self.rcode {
            return Err(format!("{rcode}, expected {}", self.rcode));
        }
        if !asked {
            return Err("answer without the question".to_owned());
        }
        for flag in &self.flags {
            let set = match flag.bit {
                FlagBit::Aa => header.aa(),
                FlagBit::Ad => header.ad(),
                FlagBit::Ra => header.ra(),
                FlagBit::Tc => header.tc(),
            };
            if set != flag.set {
                let (bit, state) = (Flag { set: true, ..*flag }, if set { "set" } else { "not set" });
                return Err(format!("flag {bit} is {state}"));
            }
        }
        if self.answer.is_empty() && self.contains.is_empty() { Ok(()) } else { self.judge_data(message) }
    }

    fn judge_data(&self, message: &Message<&[u8]>) -> Result<(), String> {
        let data = data(message)?;
        let normal: Vec<String> = data.iter().map(|text| normal(text)).collect();
        let missing = self.answer.iter().find(|wanted| !normal.contains(wanted));
        let lacking = self.contains.iter().find(|wanted| !data.iter().any(|text| text.contains(wanted.as_str())));
        let Some(wanted) = missing.or(lacking) else {
            return Ok(());
        };
        if message.header().tc() {
            return Err(format!("answer is truncated, {wanted:?} is not in what there is"));
        }
        if data.is_empty() {
            return Err(format!("no record, expected {wanted:?}"));
        }
        Err(format!("answer is {}, expected {wanted:?}", quote(data.join(", ").as_bytes())))
    }
}

/// The data of the records of the answer section, as zone files write it.
fn data(message: &Message<&[u8]>) -> Result<Vec<String>, String> {
    let broken = |_| "answer section is damaged".to_owned();
    let mut found = Vec::new();
    for record in message.answer().map_err(broken)?.take(RECORDS) {
        let record = record.map_err(broken)?;
        let record = record.into_any_record::<AllRecordData<&[u8], ParsedName<&[u8]>>>().map_err(broken)?;
        let mut text = String::new();
        write!(text, "{}", record.data()).map_err(|e| e.to_string())?;
        found.push(text);
    }
    Ok(found)
}

/// Without what people write or leave out as they like: the case of names, the final dot, quotation marks.
fn normal(data: &str) -> String {
    let words = data.split_ascii_whitespace().map(|word| {
        let word = word.trim_matches('"');
        word.strip_suffix('.').filter(|w| !w.is_empty()).unwrap_or(word).to_ascii_lowercase()
    });
    words.collect::<Vec<_>>().join(" ")
}

/// Judges octets as the answer to a query for `example.com TXT` that expects everything there is; for fuzzing.
pub fn judge_any(octets: &[u8]) {
    let flags = FlagBit::ALL.map(|(bit, _)| Flag { bit, set: octets.len().is_multiple_of(2) });
    let Ok(name) = "example.com".parse::<Name<Vec<u8>>>() else {
        return;
    };
    for flags in [vec![], flags.to_vec()] {
        let expected = Expected {
            name: name.clone(),
            qtype: Rtype::TXT,
            class: Class::IN,
            rcode: Rcode::NOERROR,
            flags,
            answer: vec!["ams1".to_owned()],
            contains: vec!["v=".to_owned()],
        };
        let id = octets.first_chunk().map_or(0, |id| u16::from_be_bytes(*id));
        if let Some(Err(cause)) = expected.judge(octets, id) {
            assert!(!cause.is_empty() && cause.len() < 4 * super::QUOTE_BYTES, "{cause}");
        }
    }
}
