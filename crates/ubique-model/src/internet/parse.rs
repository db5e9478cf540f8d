//! From an Internet file to an [`Internet`].

use std::collections::{BTreeMap, BTreeSet};

use toml::Spanned;
use toml::de::DeTable;

use super::spec::{self, MAX_LINKS};
use super::{Internet, Ixp, Link, Network, Vantage, graph};
use crate::diagnostic::{self as code, Parsed};
use crate::location::Location;
use crate::net::{Asn, Relation};
use crate::read::sink::{At, Finding, Sink, read_file};
use crate::read::table::{TableReader, report_duplicates};
use crate::read::text;
use crate::service::values;

/// A link and its place.
pub(super) struct LinkDraft {
    pub link: Link,
    pub at: At<()>,
}

/// The networks of the file, for lookups.
struct Networks {
    locations: BTreeMap<Asn, Option<Location>>,
}

impl Internet {
    /// Reads an Internet file; `file_name` is repeated in the diagnostics.
    pub fn parse(file_name: &str, text: &[u8]) -> Parsed<Internet> {
        read_file(file_name, text, build)
    }

    /// The network with this AS number.
    pub fn network(&self, asn: Asn) -> Option<&Network> {
        self.networks.iter().find(|n| n.asn == asn)
    }
}

/// Most networks listed in a fix.
const MAX_LISTED: usize = 10;

fn known_networks(networks: impl Iterator<Item = Asn>) -> String {
    let known: Vec<String> = networks.map(|asn| asn.to_string()).collect();
    let more = if known.len() > MAX_LISTED { ", …" } else { "" };
    let listed: Vec<&str> = known.iter().take(MAX_LISTED).map(String::as_str).collect();
    format!("add it as [[as]], or use one of {}{more}", listed.join(", "))
}

fn build(sink: &Sink<'_>, root: &Spanned<DeTable<'_>>) -> Option<Internet> {
    let root = TableReader::root(sink, &spec::FILE, root);
    let name = root.text("name", text::name);
    let (networks, known) = read_networks(&root);
    let mut links: Vec<Option<LinkDraft>> = root.tables("link").iter().map(|t| read_link(t, &known)).collect();
    report_duplicate_links(sink, &links);
    let ixps = read_ixps(&root, &known, &mut links);
    let vantages = read_vantages(&root, &known);
    let networks: Option<Vec<At<Network>>> = networks.into_iter().collect();
    let drafts: Vec<&LinkDraft> = links.iter().flatten().collect();
    // A link that is not readable, or leads nowhere, may be the one that was to join a network to the rest.
    let whole = drafts.len() == links.len() && drafts.iter().all(|l| known.has(l.link.a) && known.has(l.link.b));
    if let Some(networks) = networks.as_ref().filter(|_| whole) {
        graph::check(sink, networks, &drafts);
    }
    Some(Internet {
        name: name?.value,
        networks: values(networks?),
        links: links.into_iter().map(|l| l.map(|draft| draft.link)).collect::<Option<Vec<Link>>>()?,
        ixps: ixps.into_iter().collect::<Option<Vec<Ixp>>>()?,
        vantages: vantages.into_iter().collect::<Option<Vec<Vantage>>>()?,
    })
}

fn read_networks(root: &TableReader<'_>) -> (Vec<Option<At<Network>>>, Networks) {
    let mut numbers = Vec::new();
    let mut networks = Vec::new();
    let mut known = Networks { locations: BTreeMap::new() };
    for table in root.tables("as") {
        let asn = table.asn("asn");
        let name = table.text("name", text::free);
        let location = table.text("location", text::location).map(|at| at.value);
        if let Some(asn) = &asn {
            known.locations.entry(asn.value).or_insert_with(|| location.clone());
            numbers.push(asn.clone());
        }
        networks.push((|| {
            let network = Network { asn: asn?.value, name: name?.value, location: location? };
            Some(At { value: network, span: table.span.clone() })
        })());
    }
    if networks.is_empty() {
        let finding = Finding::new(code::NO_NETWORK, "the Internet has no network");
        let fix = "begin with [[as]] asn = 64496, name = \"…\", location = \"…\"";
        root.sink().report_absent(&root.span_of("as"), finding.fix(fix));
    }
    report_duplicates(root.sink(), "AS", &numbers);
    (networks, known)
}

impl Networks {
    fn has(&self, asn: Asn) -> bool {
        self.locations.contains_key(&asn)
    }

    /// Reports an AS number without network.
    fn check(&self, sink: &Sink<'_>, asn: &At<Asn>) {
        if !self.has(asn.value) {
            let finding = Finding::new(code::UNKNOWN_ASN, format!("there is no [[as]] with asn = {}", asn.value));
            sink.report_absent(&asn.span, finding.fix(known_networks(self.locations.keys().copied())));
        }
    }
}

fn read_link(table: &TableReader<'_>, known: &Networks) -> Option<LinkDraft> {
    let between = table.asns("between");
    for asn in &between {
        known.check(table.sink(), asn);
    }
    let relation = table.choice("relation");
    let delay = table.duration("delay").map(|at| at.value);
    let loss = table.text("loss", text::fraction);
    let rate = table.text("rate", text::bit_rate).map(|at| at.value);
    let [a, b] = &between[..] else { return None };
    if a.value == b.value {
        let finding = Finding::new(code::SELF_LINK, format!("the link joins AS {} with itself", a.value));
        table.sink().report(&b.span, finding.fix("write two different AS numbers"));
        return None;
    }
    let relation = if relation?.value == "transit" { Relation::Customer } else { Relation::Peer };
    let link = Link { a: a.value, b: b.value, relation, delay, loss: loss?.value, rate_bits_per_s: rate, ixp: None };
    Some(LinkDraft { link, at: At { value: (), span: table.span_of("between") } })
}

fn pair(link: &Link) -> (Asn, Asn) {
    (link.a.min(link.b), link.a.max(link.b))
}

fn report_duplicate_links(sink: &Sink<'_>, links: &[Option<LinkDraft>]) {
    let mut seen = BTreeSet::new();
    for draft in links.iter().flatten() {
        if !seen.insert(pair(&draft.link)) {
            let message = format!("AS {} and AS {} are linked twice", draft.link.a, draft.link.b);
            let finding = Finding::new(code::DUPLICATE, message).cause("two networks have one link and one relation");
            sink.report(&draft.at.span, finding.fix("remove one of the two"));
        }
    }
}

fn read_ixps(root: &TableReader<'_>, known: &Networks, links: &mut Vec<Option<LinkDraft>>) -> Vec<Option<Ixp>> {
    let sink = root.sink();
    let mut linked: BTreeSet<(Asn, Asn)> = links.iter().flatten().map(|draft| pair(&draft.link)).collect();
    let mut names = Vec::new();
    let mut ixps = Vec::new();
    for table in root.tables("ixp") {
        let name = table.text("name", text::free);
        let location = table.text("location", text::location);
        let members = table.asns("members");
        for member in &members {
            known.check(sink, member);
        }
        report_duplicates(sink, "member AS", &members);
        let ixp = (|| {
            names.push(name.clone()?);
            Some(Ixp { name: name?.value, location: location?.value, members: values(members) })
        })();
        if let Some(ixp) = &ixp {
            imply_links(ixp, &mut linked, links, &table);
        }
        ixps.push(ixp);
    }
    if links.len() > MAX_LINKS {
        let message = format!("links and exchange points make {} links, at most {MAX_LINKS} are possible", links.len());
        let finding = Finding::new(code::TOO_MANY, message).fix("make the exchange points smaller");
        sink.report(&root.span_of("ixp"), finding);
    }
    report_duplicates(sink, "exchange point", &names);
    ixps
}

fn imply_links(
    ixp: &Ixp,
    linked: &mut BTreeSet<(Asn, Asn)>,
    links: &mut Vec<Option<LinkDraft>>,
    table: &TableReader<'_>,
) {
    for (at, &a) in ixp.members.iter().enumerate() {
        for &b in ixp.members.iter().skip(at + 1).filter(|&&b| b != a) {
            // One more than the limit is enough to report it.
            if links.len() > MAX_LINKS || !linked.insert((a.min(b), a.max(b))) {
                continue;
            }
            let link = Link {
                a,
                b,
                relation: Relation::Peer,
                delay: None,
                loss: 0.0,
                rate_bits_per_s: None,
                ixp: Some(ixp.name.clone()),
            };
            links.push(Some(LinkDraft { link, at: At { value: (), span: table.span.clone() } }));
        }
    }
}

fn read_vantages(root: &TableReader<'_>, known: &Networks) -> Vec<Option<Vantage>> {
    let mut names = Vec::new();
    let mut vantages = Vec::new();
    for table in root.tables("vantage") {
        let name = table.text("name", text::free);
        let asn = table.asn("asn");
        if let Some(asn) = &asn {
            known.check(root.sink(), asn);
        }
        let location = if table.has("location") {
            table.text("location", text::location).map(|at| at.value)
        } else {
            asn.as_ref().and_then(|asn| known.locations.get(&asn.value).cloned().flatten())
        };
        names.extend(name.clone());
        vantages.push((|| Some(Vantage { name: name?.value, asn: asn?.value, location: location? }))());
    }
    report_duplicates(root.sink(), "vantage point", &names);
    vantages
}
