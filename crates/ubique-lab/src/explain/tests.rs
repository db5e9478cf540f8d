//! Hand-made graphs.

use super::*;

fn site(name: &str, lat: f64, lon: f64) -> SiteInfo {
    SiteInfo { name: name.into(), location: name.into(), lat, lon }
}

fn sites() -> Vec<SiteInfo> {
    vec![site("sin", 1.29, 103.85), site("bom", 19.07, 72.88)]
}

fn mumbai() -> VantageInfo {
    VantageInfo {
        name: "Mumbai".into(),
        asn: Asn(64811),
        lat: 19.08,
        lon: 72.9,
        nearest_site: "bom".into(),
        nearest_km: 3.0,
    }
}

/// Sessions with sites, by the site's address.
fn site_links() -> BTreeMap<IpAddr, String> {
    BTreeMap::from([(address(1), "sin".to_owned()), (address(2), "bom".to_owned())])
}

fn address(last: u8) -> IpAddr {
    [192, 0, 2, last].into()
}

fn asns(numbers: &[u32]) -> Vec<Asn> {
    numbers.iter().map(|n| Asn(*n)).collect()
}

fn route(peer: u32, local_pref: u32, path: &[u32], best: bool, step: Option<&str>) -> Candidate {
    Candidate {
        peer_asn: Some(Asn(peer)),
        peer_address: Some([10, 0, 0, peer as u8].into()),
        local_pref,
        as_path: asns(path),
        best,
        step: step.map(Into::into),
    }
}

/// A route over a session with a site.
fn from_site(last: u8) -> Candidate {
    Candidate { peer_address: Some(address(last)), ..route(64500, 200, &[64500], true, None) }
}

fn link(a: u32, b: u32, relation: Relation) -> LinkInfo {
    LinkInfo { a: Asn(a), b: Some(Asn(b)), site: None, relation, ixp: None }
}

type Routes = BTreeMap<u32, Vec<Candidate>>;

fn explain(routes: &Routes, links: &[LinkInfo], landed: &str, rtt_ms: f64) -> Option<Surprise> {
    let (sites, site_links) = (sites(), site_links());
    let mut explainer =
        Explainer::new(&sites, &site_links, links, |asn| routes.get(&asn.0).cloned().unwrap_or_default());
    explainer.explain(&mumbai(), landed, Some(rtt_ms))
}

/// AS64620 serves sin, AS64730 serves bom, AS64710 is its customer, AS64811 buys from AS64620 and AS64710.
fn both_offered() -> Routes {
    BTreeMap::from([
        (64620, vec![from_site(1)]),
        (64730, vec![from_site(2)]),
        (64710, vec![route(64730, 50, &[64730, 64500], true, None)]),
        (
            64811,
            vec![
                route(64620, 50, &[64620, 64500], true, None),
                route(64710, 50, &[64710, 64730, 64500], false, Some("AS path 2 < 3")),
            ],
        ),
    ])
}

#[test]
fn the_first_network_that_rejected_the_nearer_site_is_named() {
    let surprise = explain(&both_offered(), &[], "sin", 61.4).unwrap();
    assert_eq!(
        surprise.text,
        "Mumbai lands on sin (61 ms) although bom is 2 km away: \
         AS64811 chose [AS64620 AS64500] over [AS64710 AS64730 AS64500]: AS path 2 < 3"
    );
    assert_eq!((surprise.reason, surprise.decided_by), (Reason::Decision, Some(Asn(64811))));
    assert_eq!(surprise.chosen, asns(&[64620, 64500]));
    assert_eq!(surprise.rejected, asns(&[64710, 64730, 64500]));
    assert!((3800.0..4000.0).contains(&surprise.km) && surprise.nearest_rtt_ms < 1.0);
}

#[test]
fn a_router_that_does_not_tell_its_step_is_second_guessed() {
    let mut routes = both_offered();
    routes.get_mut(&64811).unwrap()[1].step = None;
    assert_eq!(explain(&routes, &[], "sin", 61.0).unwrap().step, "AS path 2 < 3");
    routes.get_mut(&64811).unwrap()[0].local_pref = 100;
    assert_eq!(explain(&routes, &[], "sin", 61.0).unwrap().step, "local preference 100 > 50");
    let equal = routes.get_mut(&64811).unwrap();
    equal[0].local_pref = 50;
    equal[1].as_path.pop();
    assert_eq!(explain(&routes, &[], "sin", 61.0).unwrap().step, "a later tie-breaker");
}

#[test]
fn the_decision_may_be_made_farther_on() {
    let mut routes = both_offered();
    // A stub behind AS64811 has one route only.
    let decider = routes.remove(&64811).unwrap();
    routes.insert(64812, decider);
    routes.insert(64811, vec![route(64812, 50, &[64812, 64620, 64500], true, None)]);
    assert_eq!(explain(&routes, &[], "sin", 61.0).unwrap().decided_by, Some(Asn(64812)));
}

#[test]
fn a_neighbour_that_chose_otherwise_is_found_beside_the_way() {
    let mut routes = both_offered();
    // AS64710 itself prefers the way to Singapore over AS64730's route, so that AS64811 hears of sin only.
    routes.insert(
        64710,
        vec![
            route(64620, 100, &[64620, 64500], true, None),
            route(64730, 50, &[64730, 64500], false, Some("local preference 100 > 50")),
        ],
    );
    routes.get_mut(&64811).unwrap()[1].as_path = asns(&[64710, 64620, 64500]);
    let links = [
        link(64620, 64811, Relation::Customer),
        link(64710, 64811, Relation::Customer),
        link(64730, 64710, Relation::Customer),
    ];
    let surprise = explain(&routes, &links, "sin", 61.0).unwrap();
    assert_eq!((surprise.reason, surprise.decided_by), (Reason::DecisionBeside, Some(Asn(64710))));
    assert!(surprise.text.ends_with(
        "AS64811 was never offered a route to it, as AS64710 chose [AS64620 AS64500] over [AS64730 AS64500]: \
         local preference 100 > 50"
    ));
}

#[test]
fn a_route_kept_back_by_policy_is_named() {
    let mut routes = both_offered();
    routes.get_mut(&64811).unwrap().pop();
    // AS64710 has it from its provider and is AS64811's peer: no export.
    let links = [
        link(64620, 64811, Relation::Customer),
        link(64710, 64811, Relation::Peer),
        link(64730, 64710, Relation::Customer),
    ];
    let surprise = explain(&routes, &links, "sin", 61.0).unwrap();
    assert_eq!((surprise.reason, surprise.decided_by), (Reason::NotExported, Some(Asn(64710))));
    assert_eq!(surprise.step, "a route from a provider is not exported to a peer");
    assert_eq!(surprise.rejected, asns(&[64730, 64500]));
    assert!(surprise.text.contains("AS64710 uses [AS64730 AS64500] and did not tell AS64811"));
}

#[test]
fn a_site_nobody_uses_is_said_so() {
    let routes =
        BTreeMap::from([(64620, vec![from_site(1)]), (64811, vec![route(64620, 50, &[64620, 64500], true, None)])]);
    let links = [link(64620, 64811, Relation::Customer), link(64730, 64811, Relation::Customer)];
    let surprise = explain(&routes, &links, "sin", 61.0).unwrap();
    assert_eq!(surprise.reason, Reason::NotAnnounced);
    assert!(surprise.text.ends_with("no network around uses a route to bom"));
}

#[test]
fn the_nearest_site_or_one_nearly_as_fast_is_no_surprise() {
    assert_eq!(explain(&both_offered(), &[], "bom", 300.0), None);
    assert_eq!(explain(&both_offered(), &[], "sin", 4.0), None);
    assert_eq!(explain(&both_offered(), &[], "nowhere", 61.0), None);
}

#[test]
fn loops_and_missing_routes_end() {
    let routes = BTreeMap::from([
        (64811, vec![route(64812, 50, &[64812], true, None)]),
        (64812, vec![route(64811, 50, &[64811], true, None), route(64813, 50, &[64813], false, None)]),
    ]);
    let links = [link(64811, 64812, Relation::Peer), link(64812, 64813, Relation::Peer)];
    assert_eq!(explain(&routes, &links, "sin", 61.0).unwrap().reason, Reason::NotAnnounced);
    assert!(explain(&Routes::new(), &[], "sin", 61.0).is_some());
}

#[test]
fn the_way_and_the_path_of_a_network() {
    let (sites, site_links, routes) = (sites(), site_links(), both_offered());
    let mut asked = 0;
    let ask = |asn: Asn| {
        asked += 1;
        routes.get(&asn.0).cloned().unwrap_or_default()
    };
    let mut explainer = Explainer::new(&sites, &site_links, &[], ask);
    assert_eq!(explainer.way(Asn(64811)), (asns(&[64811, 64620]), Some("sin".into())));
    assert_eq!(explainer.way(Asn(64710)), (asns(&[64710, 64730]), Some("bom".into())));
    assert_eq!(explainer.best_path(Asn(64811)), asns(&[64620, 64500]));
    assert_eq!(explainer.best_path(Asn(1)), []);
    drop(explainer);
    assert_eq!(asked, 5, "each router is asked once");
}
