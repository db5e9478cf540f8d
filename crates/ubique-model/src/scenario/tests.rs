use super::*;

#[test]
fn labels_selectors_and_expectations() {
    let text = include_bytes!("../../tests/files/scenario.toml");
    let scenario = Scenario::parse("s.toml", text).value.unwrap();
    assert_eq!(scenario.query_every, Duration::from_millis(5));
    assert_eq!(scenario.internet, Some(PathBuf::from("internet.toml")));
    let labels: Vec<&str> = scenario.steps.iter().map(|s| s.label.as_str()).collect();
    assert_eq!(labels, ["converge", "kill", "start-service", "drain", "undrain", "drain-2", "wait"]);
    assert_eq!(scenario.steps[0].action, Action::Converge { within: Duration::from_secs(30) });
    assert_eq!(scenario.steps[0].expect.lands["São Paulo"], "lon");
    assert_eq!(scenario.steps[1].action, Action::KillService { site: SiteSelector::Busiest });
    assert_eq!(scenario.steps[1].expect.outage_worst, Some(Duration::from_millis(30)));
    assert_eq!(scenario.steps[1].expect.lost, Some(20));
    assert_eq!(scenario.steps[2].action, Action::StartService { site: SiteSelector::SameAs("kill".into()) });
    assert_eq!(scenario.steps[3].action, Action::Drain { site: SiteSelector::Named("lon".into()) });
    assert_eq!(scenario.steps[6].observe, Duration::from_secs(60));
}

#[test]
fn every_action_has_a_name_that_serde_uses_too() {
    for variant in spec::action_names() {
        let keys = match variant {
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
