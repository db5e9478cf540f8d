//! Plans of reloads, as they are read by people and by the agent.

use super::*;
use crate::read::spec::Type;
use crate::service::spec;

const FILE: &str = r#"
[service]
name = "resolver"
asn = 64500
prefixes = ["198.51.100.0/24", "2001:db8:53::/48"]
addresses = ["198.51.100.53", "2001:db8:53::53"]
[[check]]
name = "answers"
kind = "dns"
target = "198.51.100.53:53"
query = "example.com A"
[[site]]
name = "ams"
location = "AMS"
[[site.upstream]]
asn = 1299
address = "192.0.2.1"
prepend = 1
communities = ["64500:100"]
[[site.upstream]]
asn = 1299
address = "2001:db8::1"
[[site]]
name = "lon"
location = "LHR"
[[site.upstream]]
asn = 174
address = "203.0.113.1"
[[site.upstream]]
asn = 174
address = "2001:db8:1::1"
"#;

fn parse(text: &str) -> Service {
    let parsed = Service::parse("s.toml", text.as_bytes());
    parsed.value.unwrap_or_else(|| panic!("{:?}", parsed.diagnostics))
}

/// The change by replacing texts in [`FILE`].
fn edited(edits: &[(&str, &str)]) -> Change {
    let mut text = FILE.to_owned();
    for (from, to) in edits {
        assert!(text.contains(from), "{from}");
        text = text.replacen(from, to, 1);
    }
    diff(&parse(FILE), &parse(&text), "ams").unwrap()
}

#[test]
fn nothing_is_nothing() {
    let change = edited(&[]);
    assert!(change.is_empty() && change.surprises.is_empty());
    assert_eq!(change.to_string(), "resolver at ams: nothing changes\n");
    let other = edited(&[("asn = 174", "asn = 3356")]);
    assert!(other.is_empty(), "another site's upstream is none of ours: {other}");
    let reordered = edited(&[
        ("[[site.upstream]]\nasn = 1299\naddress = \"2001:db8::1\"\n", ""),
        (
            "[[site.upstream]]\nasn = 1299\naddress = \"192.0.2.1\"",
            "[[site.upstream]]\nasn = 1299\naddress = \"2001:db8::1\"\n[[site.upstream]]\nasn = 1299\naddress = \"192.0.2.1\"",
        ),
    ]);
    assert!(reordered.is_empty(), "{reordered}");
}

#[test]
fn attributes_leave_the_session_alone() {
    let change = edited(&[(
        "prepend = 1\ncommunities = [\"64500:100\"]",
        "prepend = 3\nmed = 7\ncommunities = [\"64500:200\"]",
    )]);
    assert_eq!(
        change.to_string(),
        "resolver at ams: 0 to add, 1 to change, 0 to remove
  ~ [[site.upstream]] AS1299 192.0.2.1
      ~ communities = [\"64500:100\"] -> [\"64500:200\"]
      ~ prepend = 1 -> 3
      + med = 7
  AS1299 192.0.2.1: session stays; announces 198.51.100.0/24 with 3 prepends instead of 1, med 7 instead of none, \
         community 64500:200 added, community 64500:100 removed\n"
    );
    assert!(change.surprises.is_empty() && change.needs_restart.is_empty());
}

#[test]
fn session_parameters_reset_it_by_name() {
    let change = edited(&[("prepend = 1", "prepend = 1\nhold-time = \"30s\"\npassword-file = \"/etc/k\"")]);
    let [upstream] = change.upstreams.as_slice() else { panic!("{change}") };
    assert_eq!(
        (upstream.fate, upstream.because.as_slice()),
        (Fate::Resets, &["hold-time", "password-file"].map(String::from)[..])
    );
    assert_eq!(
        upstream.sentence,
        "AS1299 192.0.2.1: session resets because of hold-time, password-file: 198.51.100.0/24 withdrawn until it is back"
    );
    assert!(change.surprises.is_empty(), "the other session stays");
    let both = edited(&[
        ("address = \"192.0.2.1\"", "address = \"192.0.2.1\"\nhold-time = \"30s\""),
        ("address = \"2001:db8::1\"", "address = \"2001:db8::1\"\nhold-time = \"30s\""),
    ]);
    assert_eq!(both.surprises, ["every session would reset at the same time: nothing is announced meanwhile"]);
    let asn = edited(&[("asn = 1299", "asn = 3356")]);
    assert_eq!((asn.upstreams[0].fate, asn.upstreams[0].because.as_slice()), (Fate::Resets, &["asn".to_owned()][..]));
}

#[test]
fn neighbours_that_come_and_go_need_a_yes() {
    let change = edited(&[("address = \"192.0.2.1\"", "address = \"192.0.2.9\"")]);
    let fates: Vec<Fate> = change.upstreams.iter().map(|u| u.fate).collect();
    assert_eq!(fates, [Fate::Comes, Fate::Goes]);
    assert_eq!(
        change.surprises,
        [
            "198.51.100.0/24 would be newly announced to AS1299 192.0.2.9",
            "198.51.100.0/24 would be withdrawn from AS1299 192.0.2.1",
        ]
    );
    assert_eq!(
        change.upstreams[0].sentence,
        "AS1299 192.0.2.9: new session; announces 198.51.100.0/24 with 1 prepend, community 64500:100"
    );
    assert_eq!(change.upstreams[1].sentence, "AS1299 192.0.2.1: session ends for good; withdraws 198.51.100.0/24");
}

#[test]
fn prefixes_and_addresses_that_come_and_go_need_a_yes() {
    let change = edited(&[
        ("\"198.51.100.0/24\", ", "\"198.51.100.0/24\", \"203.0.113.0/24\", "),
        ("[\"198.51.100.53\", ", "[\"203.0.113.53\", "),
        ("target = \"198.51.100.53:53\"", "target = \"203.0.113.53:53\""),
    ]);
    assert_eq!(
        change.surprises,
        [
            "203.0.113.0/24 would be newly announced to AS1299 192.0.2.1",
            "the service address 198.51.100.53 would be taken off the loopback",
        ]
    );
    assert_eq!(change.upstreams[0].fate, Fate::Stays);
    let fewer = edited(&[
        (", \"2001:db8:53::/48\"", ""),
        (", \"2001:db8:53::53\"", ""),
        ("[[site.upstream]]\nasn = 1299\naddress = \"2001:db8::1\"\n", ""),
        ("[[site.upstream]]\nasn = 174\naddress = \"2001:db8:1::1\"\n", ""),
    ]);
    assert!(fewer.surprises[0].contains("2001:db8:53::/48 would be withdrawn from"), "{fewer}");
}

#[test]
fn checks_keep_their_state_unless_they_become_others() {
    let effect = |edits: &[(&str, &str)]| edited(edits).tables.remove(0).effect;
    assert_eq!(effect(&[("query = \"example.com A\"", "query = \"example.com A\"\nrise = 9")]), "keeps its state");
    assert_eq!(
        effect(&[("example.com A", "example.net A")]),
        "is another check: it counts as up until its polls tell otherwise"
    );
    assert_eq!(
        effect(&[("[[site]]", "[[check]]\nkind = \"tcp\"\ntarget = \"198.51.100.53:53\"\n[[site]]")]),
        "counts as up until its polls tell otherwise"
    );
}

#[test]
fn what_needs_a_restart_is_said_and_does_not_run() {
    let edits = [
        ("[[check]]", "[agent]\nsocket = \"/run/x.sock\"\ndrain = \"9s\"\n[agent.mrt]\n[[check]]"),
        ("asn = 64500", "asn = 64501"),
        ("location = \"AMS\"", "location = \"AMS\"\nrouter-id = \"192.0.2.7\""),
    ];
    let change = edited(&edits);
    let keys: Vec<&str> = change.needs_restart.iter().map(|r| r.key.as_str()).collect();
    for expected in ["[service] asn", "[agent] socket", "[agent.mrt] path", "[[site]] router-id"] {
        assert!(keys.contains(&expected), "{expected} not in {keys:?}");
    }
    assert!(!keys.contains(&"[agent] drain"), "{keys:?}");
    let old = parse(FILE);
    let text = edits.iter().fold(FILE.to_owned(), |text, (from, to)| text.replacen(from, to, 1));
    let runs = effective(&old, &parse(&text), "ams");
    assert_eq!((runs.asn, &runs.agent.socket, &runs.agent.records), (old.asn, &old.agent.socket, &old.agent.records));
    assert_eq!((runs.agent.drain.as_secs(), runs.sites[0].router_id), (9, None));
    // What waits is said again at the next reload.
    assert_eq!(diff(&runs, &parse(&text), "ams").unwrap().needs_restart, change.needs_restart);
}

/// [`FILE`] with `[sessions]`, and where the sites are.
fn with_sessions() -> String {
    let file = FILE.replacen("[[site]]", "[sessions]\nsecret-file = \"/etc/s\"\n[[site]]", 1);
    let file = file.replace("location = \"AMS\"", "location = \"AMS\"\nunicast = [\"192.0.2.10\"]");
    file.replace("location = \"LHR\"", "location = \"LHR\"\nunicast = [\"203.0.113.10\"]")
}

#[test]
fn sessions_wait_for_a_restart_and_other_sites_do_not() {
    let (old, file) = (parse(FILE), with_sessions());
    let with = parse(&file);
    let change = diff(&old, &with, "ams").unwrap();
    let shown = change.to_string();
    for line in [
        "  + [sessions]\n",
        "      + unicast = [\"192.0.2.10\"]\n",
        "      + number = 41\n",
        "[sessions] secret-file (the data",
    ] {
        assert!(shown.contains(line), "{line} not in\n{shown}");
    }
    assert!(!shown.contains("lon"), "who they are belongs to the table: {shown}");
    assert_eq!(effective(&old, &with, "ams").sessions, None);
    assert_eq!(effective(&old, &with, "ams").sites[0], old.sites[0]);

    let quic = parse(&file.replace("[sessions]", "[sessions]\nquic-ports = [443]"));
    assert_eq!(
        diff(&with, &quic, "ams").unwrap().to_string(),
        "resolver at ams: 0 to add, 1 to change, 0 to remove
  ~ [sessions]
      ~ quic-ports = [] -> [443]
  needs a restart: [sessions] quic-ports (the data plane is set up when the agent starts)\n"
    );
    // Without the table, the others are where they were for as long as the data plane is there.
    let kept = effective(&with, &old, "ams");
    assert_eq!((&kept.sessions, &kept.sites), (&with.sessions, &with.sites));
}

#[test]
fn other_sites_are_told_when_packets_go_to_them() {
    let file = with_sessions();
    let old = parse(&file);
    let new = parse(&file.replace("203.0.113.10", "203.0.113.11"));
    let change = diff(&old, &new, "ams").unwrap();
    assert_eq!(
        change.to_string(),
        "resolver at ams: 0 to add, 1 to change, 0 to remove
  ~ [[site]] lon: packets of its connections are passed on to there at once
      ~ unicast = [\"203.0.113.10\"] -> [\"203.0.113.11\"]\n"
    );
    assert_eq!(effective(&old, &new, "ams").sites[1], new.sites[1]);
    let moved = diff(&old, &parse(&file.replace("LHR\"", "LHR\"\nnumber = 7")), "ams").unwrap();
    assert_eq!(moved.tables[0].effect, "its connections that are open now are not known as its own any more");
    let fra = "[[site]]\nname = \"fra\"\nlocation = \"FRA\"\nunicast = [\"203.0.113.9\"]\n\
               upstream = [{ asn = 174, address = \"203.0.113.1\" }, { asn = 174, address = \"2001:db8:1::1\" }]\n";
    let three = parse(&format!("{file}{fra}"));
    let effect = |old: &Service, new: &Service| {
        let change = diff(old, new, "ams").unwrap();
        assert!(change.needs_restart.is_empty(), "{change}");
        (change.tables[0].sign, change.tables[0].name.clone())
    };
    assert_eq!(effect(&old, &three), (Sign::Added, "fra".to_owned()));
    assert_eq!(effect(&three, &old), (Sign::Removed, "fra".to_owned()));
    assert!(diff(&old, &parse(&file.replace("LHR", "LGW")), "ams").unwrap().is_empty());
}

#[test]
fn another_key_in_the_same_file_resets_the_session() {
    let service = parse(FILE);
    let mut change = diff(&service, &service, "ams").unwrap();
    change.rekey(&service, &service.sites[0].upstreams[0]);
    let [upstream] = change.upstreams.as_slice() else { panic!("{change}") };
    assert_eq!(upstream.fate, Fate::Resets);
    assert!(upstream.sentence.contains("because of content of the key's file"), "{}", upstream.sentence);
    assert!(!change.is_empty());
}

#[test]
fn a_site_that_is_gone_is_refused() {
    let new = parse(&FILE.replace("name = \"ams\"", "name = \"fra\""));
    let said = diff(&parse(FILE), &new, "ams").unwrap_err();
    assert!(said.contains("fra, lon") && said.contains("drain this one"), "{said}");
}

#[test]
fn its_json_has_a_version_and_reads_back() {
    let change = edited(&[("prepend = 1", "prepend = 2")]);
    let json = serde_json::to_value(&change).unwrap();
    assert_eq!(json["schema_version"], SCHEMA_VERSION);
    assert_eq!(json["tables"][0]["keys"][0]["new"], "2");
    assert_eq!(serde_json::from_value::<Change>(json).unwrap(), change);
}

/// A key that nobody has thought of would be applied as if it did nothing to the session.
#[test]
fn every_key_of_an_upstream_is_known_here() {
    let of = |spec: &'static crate::read::spec::Spec, key: &str| {
        let field = spec.fields.iter().find(|f| f.key == key).unwrap();
        let Type::Tables { spec, .. } = field.ty else { panic!("{key} is a list of tables") };
        spec
    };
    let upstream = of(of(&spec::FILE, "site"), "upstream");
    for field in upstream.fields {
        let known = [effect::ATTRIBUTES, effect::SESSION, &["bfd", "address", "interface"]].concat();
        assert!(known.contains(&field.key), "{} is neither an attribute nor a parameter of the session", field.key);
    }
}
