use super::*;

#[test]
fn labels_selectors_and_expectations() {
    let text = include_bytes!("../../tests/files/scenario.toml");
    let scenario = Scenario::parse("s.toml", text).value.unwrap();
    assert_eq!(scenario.query_every, Duration::from_millis(5));
    assert_eq!(scenario.internet, Some(PathBuf::from("internet.toml")));
    let labels: Vec<&str> = scenario.steps.iter().map(|s| s.label.as_str()).collect();
    assert_eq!(
        labels,
        ["converge", "kill", "start-service", "drain", "undrain", "drain-2", "divert", "divert-2", "wait"]
    );
    assert_eq!(scenario.steps[0].action, Action::Converge { within: Duration::from_secs(30) });
    assert_eq!(scenario.steps[0].expect.lands["São Paulo"], "lon");
    assert_eq!(scenario.steps[1].action, Action::KillService { site: SiteSelector::Busiest });
    assert_eq!(scenario.steps[1].expect.outage_worst, Some(Duration::from_millis(30)));
    assert_eq!(scenario.steps[1].expect.lost, Some(20));
    assert_eq!(scenario.steps[2].action, Action::StartService { site: SiteSelector::SameAs("kill".into()) });
    assert_eq!(scenario.steps[3].action, Action::Drain { site: SiteSelector::Named("lon".into()) });
    assert_eq!(scenario.steps[6].action, Action::Divert { network: Asn(64497), to: Some(Asn(64498)) });
    assert_eq!(scenario.steps[6].expect.sessions_lost, Some(0));
    assert_eq!(scenario.steps[6].expect.sessions_stall, Some(Duration::from_secs(1)));
    assert_eq!(scenario.steps[7].action, Action::Divert { network: Asn(64497), to: None });
    assert_eq!(scenario.steps[8].observe, Duration::from_secs(60));
    let [short, download] = &scenario.sessions[..] else { panic!("{:?}", scenario.sessions) };
    let every = Duration::from_millis(100);
    let exchange = Exchange::Messages { every };
    let wanted = Sessions { kind: SessionKind::TcpShort, exchange, vantages: vec![], count: 1, port: None };
    assert_eq!(*short, wanted);
    let exchange = Exchange::Bulk { size_kib: 64, rate_bits_per_s: 8_000_000 };
    let vantages = vec!["São Paulo".to_owned()];
    assert_eq!(*download, Sessions { kind: SessionKind::Download, exchange, vantages, count: 3, port: Some(4433) });
}

#[test]
fn every_kind_of_sessions_has_a_name_that_serde_uses_too() {
    for (kind, word) in SessionKind::ALL {
        assert_eq!(kind.as_str(), word);
        assert_eq!(serde_json::to_value(kind).unwrap(), word);
        let text = format!("name = \"n\"\n[[session]]\nkind = \"{word}\"\n[[step]]\naction = \"wait\"\n");
        assert_eq!(Scenario::parse("s.toml", text.as_bytes()).value.unwrap().sessions[0].kind, kind);
    }
}

#[test]
fn every_action_has_a_name_that_serde_uses_too() {
    for variant in spec::action_names() {
        let keys = match variant {
            "divert" => "network = 64500",
            "converge" | "wait" => "",
            "crowd" => "vantage = \"Here\"\ntimes = 2",
            _ => "site = \"ams\"",
        };
        let text = format!("name = \"n\"\n[[step]]\naction = \"{variant}\"\n{keys}\n");
        let scenario = Scenario::parse("s.toml", text.as_bytes()).value.unwrap();
        let json = serde_json::to_value(&scenario.steps[0].action).unwrap();
        assert_eq!(json["action"], variant);
    }
}
