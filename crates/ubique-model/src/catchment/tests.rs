use super::*;

fn landing(site: Option<&str>) -> Landing {
    Landing { site: site.map(str::to_owned), rtt_ms: Some(1.5), as_path: vec![Asn(64496), Asn(64500)] }
}

fn catchment(rows: &[(&str, Option<&str>)]) -> Catchment {
    Catchment(rows.iter().map(|(vantage, site)| ((*vantage).to_owned(), landing(*site))).collect())
}

#[test]
fn moves_between_catchments() {
    let before = catchment(&[("a", Some("x")), ("b", Some("x")), ("c", None), ("gone", Some("y"))]);
    let after = catchment(&[("a", Some("y")), ("b", Some("x")), ("c", Some("x")), ("new", Some("x"))]);
    let moves: Vec<(String, Option<String>, Option<String>)> =
        before.moves(&after).into_iter().map(|m| (m.vantage, m.from, m.to)).collect();
    let site = |s: &str| Some(s.to_owned());
    assert_eq!(
        moves,
        [
            ("a".to_owned(), site("x"), site("y")),
            ("c".to_owned(), None, site("x")),
            ("gone".to_owned(), site("y"), None),
            ("new".to_owned(), None, site("x")),
        ]
    );
    assert!(before.moves(&before).is_empty());
    assert!(Catchment::default().moves(&catchment(&[("c", None)])).is_empty());
}

#[test]
fn shares_count_those_who_land() {
    let shares = catchment(&[("a", Some("x")), ("b", Some("x")), ("c", None), ("d", Some("y"))]);
    assert_eq!(shares.shares().into_iter().collect::<Vec<_>>(), [("x", 2), ("y", 1)]);
}

#[test]
fn json_is_a_plain_map() {
    let json = serde_json::to_value(catchment(&[("a", Some("x"))])).unwrap();
    assert_eq!(json, serde_json::json!({ "a": { "site": "x", "rtt_ms": 1.5, "as_path": [64496, 64500] } }));
    assert_eq!(serde_json::from_value::<Catchment>(json).unwrap(), catchment(&[("a", Some("x"))]));
}
