use std::time::Duration;

use ubique_model::scenario::Exchange;
use ubique_model::traffic::How;

use super::*;

const INTERNET: &[u8] = include_bytes!("../../../../examples/sessions/internet.toml");
const SERVICE: &[u8] = include_bytes!("../../../../examples/sessions/service.toml");

fn service() -> Service {
    Service::parse("service.toml", SERVICE).value.unwrap()
}

/// What is held with these `[[session]]`.
fn holding(sessions: &str, service: &Service) -> Holding {
    let text = format!("name = \"s\"\n{sessions}\n[[step]]\naction = \"wait\"\n");
    let scenario = Scenario::parse("s.toml", text.as_bytes()).value.unwrap();
    let internet = ubique_model::internet::Internet::parse("i.toml", INTERNET).value.unwrap();
    let plan = Plan::new(&internet, service).unwrap();
    Holding::new(&scenario, service, &plan, Path::new("/ns"))
}

#[test]
fn lanes_lead_from_each_vantage_point_to_each_address() {
    let service = service();
    let held = holding("[[session]]\nkind = \"tcp\"\ncount = 3", &service);
    assert_eq!(held.vantages, [0, 0, 1, 1, 2, 2]);
    assert!(held.lanes.iter().all(|lane| lane.from.is_ipv4() == lane.to.is_ipv4() && lane.count == 3));
    assert_eq!(held.lanes[0].netns, Path::new("/ns/as64701"));
    assert_eq!(held.lanes[0].exchange, Exchange::Messages { every: Duration::from_millis(20) });
    let some = holding("[[session]]\nkind = \"tcp\"\nvantages = [\"Boston\"]", &service);
    assert_eq!(some.vantages, [2, 2]);
    assert!(holding("", &service).is_empty());
}

#[test]
fn ports_are_the_scenarios_then_the_services() {
    let both = "[[session]]\nkind = \"tls\"\n[[session]]\nkind = \"quic\"\n[[session]]\nkind = \"tcp\"\nport = 7000";
    let ports = |service: &Service| {
        let held = holding(both, service);
        let lanes = held.lanes.iter().map(|lane| (lane.kind, lane.to.port()));
        let of: BTreeMap<SessionKind, u16> = lanes.collect();
        [of[&SessionKind::Tls], of[&SessionKind::Quic], of[&SessionKind::Tcp]]
    };
    let mut service = service();
    let sessions = service.sessions.as_mut().unwrap();
    (sessions.tcp_ports, sessions.quic_ports) = (vec![443, 853], vec![4433]);
    assert_eq!(ports(&service), [443, 4433, 7000]);
    let site = service.sites[0].clone();
    let (secret, ready) = (Path::new("secret"), Path::new("ready"));
    let told = holding(both, &service).server(&site, &service.addresses, Some(secret), ready);
    let ends = |of: &[SocketAddr]| of.iter().map(SocketAddr::port).collect::<Vec<_>>();
    assert_eq!((ends(&told.tcp), ends(&told.quic)), (vec![443, 443, 7000, 7000], vec![4433, 4433]));
    assert_eq!(told.identifiers, Some((site.number, secret.to_owned())));
    assert!(holding(both, &service).unknown_quic(&service).is_empty());
    assert_eq!(holding("[[session]]\nkind = \"quic\"\nport = 1", &service).unknown_quic(&service), [1]);
    service.sessions = None;
    assert_eq!(ports(&service), [DEFAULT_PORT, DEFAULT_PORT, 7000]);
}

fn seen(live: u64, begun: u64, site: &str, longest_wait_ns: u64) -> LaneWindow {
    let sites = BTreeMap::from([(site.to_owned(), begun)]);
    LaneWindow { live, begun, done: 0, longest_wait_ns, content_bytes: 8, sites }
}

#[test]
fn what_was_lost_belongs_to_the_step_it_was_lost_in() {
    let service = service();
    let held = holding("[[session]]\nkind = \"tcp\"\nvantages = [\"Boston\"]", &service);
    let mut log = Log::default();
    let loss = |lane, at_ns, how| News::Lost(Loss { lane, at_ns, how, site: Some("lon".into()) });
    // The first mark ends what was before the second step, with which they began; its own window ends with the next one.
    let lanes = |windows: [LaneWindow; 2]| windows.to_vec();
    log.take(News::Begun);
    log.take(News::Window { mark: 1, lanes: lanes([seen(0, 1, "lon", 9_000_000), seen(0, 1, "lon", 5_000_000)]) });
    log.take(News::Window { mark: 2, lanes: lanes([seen(1, 1, "nyc", 80_000_000), seen(1, 0, "nyc", 20_000_000)]) });
    assert!(log.begun && log.has(2) && !log.has(3));
    log.take(News::Window { mark: 3, lanes: lanes([seen(1, 0, "nyc", 1_000_000), seen(1, 0, "nyc", 1_000_000)]) });
    log.take(loss(0, 150, How::Reset));
    // Told late: it was known only when patience ended.
    log.take(loss(1, 190, How::Timeout));
    log.take(loss(1, 210, How::Reset));
    let marks = [0, 100, 200, 300];
    let flip = log.window(1, &marks);
    assert_eq!((flip.sessions, flip.lost, flip.longest_wait_ms), (3, 2, 80.0));
    assert_eq!(flip.ways(), "1 reset, 1 timeout");
    let after = log.window(2, &marks);
    assert_eq!((after.sessions, after.lost), (2, 1));
    let names = ["Dublin", "Prague", "Boston"].map(str::to_owned);
    let (rows, total) = log.totals(&held, &names);
    assert_eq!(rows.len(), 1);
    assert_eq!((rows[0].vantage.as_str(), rows[0].kind.as_str()), ("Boston", "tcp"));
    assert_eq!(rows[0].figures, total);
    assert_eq!((total.sessions, total.lost, total.content_bytes, total.longest_wait_ms), (3, 3, 48, 80.0));
    assert_eq!(total.sites, BTreeMap::from([("lon".to_owned(), 2), ("nyc".to_owned(), 1)]));
}
