//! Reads `cases.txt`: what a neighbour may send, and what must come of it.

use std::collections::BTreeSet;

/// What a message comes from, or meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    External,
    Internal,
    /// External, with 2-octet AS numbers.
    Old,
    OpenSent,
    OpenConfirm,
    Established,
}

impl From {
    const NAMES: [(&'static str, From); 6] = [
        ("external", From::External),
        ("internal", From::Internal),
        ("old", From::Old),
        ("opensent", From::OpenSent),
        ("openconfirm", From::OpenConfirm),
        ("established", From::Established),
    ];

    fn read(word: &str) -> From {
        let found = From::NAMES.iter().find(|(name, _)| *name == word);
        found.unwrap_or_else(|| panic!("no such neighbour or state: {word}")).1
    }

    pub fn internal(self) -> bool {
        self == From::Internal
    }
}

/// What must happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The routes are taken, with these attributes dropped.
    Keep { discarded: BTreeSet<u8> },
    /// They are withdrawn because of these attributes; these others are dropped.
    Withdraw { treated: BTreeSet<u8>, discarded: BTreeSet<u8> },
    /// An UPDATE that changes nothing.
    Ignore,
    /// On to Established, or still there.
    Up,
    /// Nothing at all.
    Wait,
    /// NOTIFICATION: code, subcode, data.
    Reset(u8, u8, Vec<u8>),
    /// Closed without a word.
    Closed,
}

/// A line of the table, for one neighbour.
#[derive(Clone, Debug)]
pub struct Case {
    pub source: String,
    pub name: String,
    /// RFC and section.
    pub rule: String,
    pub from: From,
    pub message: Vec<u8>,
    pub outcome: Outcome,
}

/// AS of the neighbour outside: 64502.
pub const NEIGHBOR_AS: [u8; 2] = [0xfb, 0xf6];
/// Its address and identifier.
pub const NEIGHBOR: [u8; 4] = [10, 0, 0, 2];
/// 203.0.113.0/24
pub const ROUTE: [u8; 4] = [24, 203, 0, 113];

/// All cases.
pub fn cases() -> Vec<Case> {
    let (mut all, mut source) = (vec![], String::new());
    for line in include_str!("cases.txt").lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if let Some(name) = line.strip_prefix('[') {
            source = name.trim_end_matches(']').to_owned();
            continue;
        }
        let fields: Vec<&str> = line.split('|').map(str::trim).collect();
        let [name, rule, from, message, outcome] = fields[..] else { panic!("five fields: {line}") };
        all.extend(from.split_whitespace().map(|from| {
            let from = From::read(from);
            Case {
                source: source.clone(),
                name: name.to_owned(),
                rule: rule.to_owned(),
                from,
                message: read_message(message, from),
                outcome: read_outcome(outcome),
            }
        }));
    }
    all
}

/// Hexadecimal; `00(16)` is the group before the parenthesis so many times.
pub fn hex(text: &str) -> Vec<u8> {
    let mut all = vec![];
    for word in text.split_whitespace() {
        let (digits, times) = match word.trim_end_matches(')').split_once('(') {
            Some((digits, times)) => (digits, times.parse().expect("a number")),
            None => (word, 1),
        };
        assert!(digits.len().is_multiple_of(2), "an odd number of digits: {word}");
        let octets = (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16));
        let octets: Vec<u8> = octets.map(|octet| octet.unwrap_or_else(|_| panic!("not hexadecimal: {word}"))).collect();
        all.extend(octets.repeat(times));
    }
    all
}

/// A message of a type with a body.
pub fn wrapped(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = (19 + body.len()) as u16;
    [&[0xff; 16], &length.to_be_bytes()[..], &[kind], body].concat()
}

/// An UPDATE of its three fields.
pub fn update(withdrawn: &[u8], attributes: &[u8], nlri: &[u8]) -> Vec<u8> {
    let length = |field: &[u8]| (field.len() as u16).to_be_bytes();
    wrapped(2, &[&length(withdrawn), withdrawn, &length(attributes), attributes, nlri].concat())
}

/// An OPEN of the neighbour with these optional parameters.
pub fn open(parameters: &[u8]) -> Vec<u8> {
    let head = [&[4][..], &NEIGHBOR_AS, &[0, 90], &NEIGHBOR, &[parameters.len() as u8], parameters];
    wrapped(1, &head.concat())
}

/// Attributes: words and hexadecimal.
pub fn attributes(text: &str, from: From) -> Vec<u8> {
    let word = |word: &str| match word {
        "origin" => hex("40010100"),
        "path" if from.internal() => hex("400200"),
        "path" if from == From::Old => [&hex("4002040201")[..], &NEIGHBOR_AS].concat(),
        "path" => [&hex("40020602010000")[..], &NEIGHBOR_AS].concat(),
        "hop" => [&hex("400304")[..], &NEIGHBOR].concat(),
        "med" => hex("80040400000007"),
        "nopref" => vec![],
        "pref" => hex("40050400000064"),
        "reach" => hex("800E1C 00020110 20010DB8000000000000000000000002 00 30 20010DB80001"),
        digits => hex(digits),
    };
    text.split_whitespace().flat_map(word).collect()
}

/// Internal neighbours send LOCAL_PREF with every route (RFC 4271 §5.1.5): in front, where a case has none of its own.
pub fn with_preference(text: &str, from: From, nlri: bool) -> Vec<u8> {
    let announces = nlri || text.split_whitespace().any(|word| word == "reach");
    let has =
        text.split_whitespace().any(|word| word == "nopref" || word.starts_with("4005") || word.starts_with("C005"));
    let own = attributes(text, from);
    let needed = from.internal() && announces && !has && !own.is_empty();
    if needed { [attributes("pref", from), own].concat() } else { own }
}

fn read_message(text: &str, from: From) -> Vec<u8> {
    let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
    match word {
        "raw" => hex(rest),
        "type" => {
            let (kind, body) = rest.split_once(' ').unwrap_or((rest, ""));
            wrapped(kind.parse().expect("a type"), &hex(body))
        }
        "open" => open(&hex(rest)),
        _ => match text.split('/').map(str::trim).collect::<Vec<&str>>()[..] {
            [attributes] => update(&[], &with_preference(attributes, from, true), &ROUTE),
            [withdrawn, attributes, nlri] => {
                update(&hex(withdrawn), &with_preference(attributes, from, !nlri.is_empty()), &hex(nlri))
            }
            _ => panic!("withdrawn / attributes / NLRI: {text}"),
        },
    }
}

fn read_outcome(text: &str) -> Outcome {
    let words: Vec<&str> = text.split_whitespace().collect();
    let number = |word: &str| -> u8 { word.parse().unwrap_or_else(|_| panic!("not a number: {word}")) };
    let after = |name: &str| -> BTreeSet<u8> {
        let rest = words.iter().skip_while(|word| **word != name).skip(1);
        rest.take_while(|word| word.parse::<u8>().is_ok()).map(|word| number(word)).collect()
    };
    match words[..] {
        ["keep"] => Outcome::Keep { discarded: BTreeSet::new() },
        ["discard", ..] => Outcome::Keep { discarded: after("discard") },
        ["withdraw", ..] => Outcome::Withdraw { treated: after("withdraw"), discarded: after("discard") },
        ["ignore"] => Outcome::Ignore,
        ["up"] => Outcome::Up,
        ["wait"] => Outcome::Wait,
        ["closed"] => Outcome::Closed,
        ["reset", code, subcode, ref data @ ..] => Outcome::Reset(number(code), number(subcode), hex(&data.join(" "))),
        _ => panic!("no such outcome: {text}"),
    }
}
