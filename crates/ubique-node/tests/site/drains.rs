//! A site with a thousand connections is drained while hundreds begin each second, and its agent is killed, upgraded and restarted in
//! the middle: nobody notices.
//!
//! Two agents announce the prefixes to BIRD, which is the router: what clients send goes where its routes say.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Instant;

use ubique_model::AddressFamily;
use ubique_model::check::CheckKind;
use ubique_model::service::{Service, Sessions, TcpMethod, Upstream};
use ubique_node::admin::{self, DrainRequest, DrainView, ReloadRequest, Reply, Request};
use ubique_proto::actions::drain::Stage;
use ubique_sys::process::Signal;

use crate::daemons::{BIRD, Bird};
use crate::flows::{New, Old, Seen};
use crate::lab::{self, PREFIX_V4, PREFIX_V6, Process, SERVICE_V4, SERVICE_V6, until, until_true};
use crate::runner::Test;
use crate::sessions::{CALLS, restarting};
use crate::survive::{IPV4, LINKS, Net, PORT, SITES, bare, program_on, ready, service, sessions, try_status_of};

pub const TESTS: &[Test] = &[
    Test { name: "a_drain_whose_agent_is_killed_loses_nothing", needs: &[BIRD], run: killed },
    Test { name: "a_drain_whose_agent_is_upgraded_loses_nothing", needs: &[BIRD], run: upgraded },
    Test { name: "without_sessions_a_drain_loses_what_is_open", needs: &[BIRD], run: control },
];

/// Connections that are open when the drain begins.
const OLD: usize = 1000;
/// Connections that begin each second.
const NEW_PER_S: u32 = 200;
/// Of those that begin, so many are waited for where something is to be seen.
const SOME: u64 = 200;
const AMS: usize = 0;
const FRA: usize = 1;

/// The router: to `ams` while that is announced, whatever it says of leaving, else to `fra`.
fn bird(net: &Net) -> Bird {
    let session = |site: usize, preference: u32| {
        let channel = format!("import filter {{ bgp_local_pref = {preference}; accept; }}; export none;");
        format!(
            "protocol bgp {} {{\n local {} as {}; neighbor {} as 64500; hold time 9; error wait time 1, 2; {CALLS} \
             graceful restart aware;\n ipv4 {{ {channel} }}; ipv6 {{ {channel} }};\n}}\n",
            SITES[site],
            bare(LINKS[site][0]),
            lab::ROUTER_ASN,
            bare(LINKS[site][1]),
        )
    };
    let kernel = |family: &str| format!("protocol kernel {{ {family} {{ export where source = RTS_BGP; }}; }}\n");
    Bird::with(&net.router, &[session(AMS, 200), session(FRA, 100), kernel("ipv4"), kernel("ipv6")].concat())
}

fn announcing(tcp: TcpMethod) -> Service {
    let mut service = service(IPV4);
    service.sessions = Some(Sessions { tcp, ..sessions() });
    let check = |name: &str, address: &str| {
        let target: SocketAddr = format!("{address}:{PORT}").parse().unwrap();
        lab::check(name, CheckKind::Tcp { target: target.into() })
    };
    service.checks = vec![check("v4", SERVICE_V4), check("v6", &format!("[{SERVICE_V6}]"))];
    for site in &mut service.sites {
        for upstream in &mut site.upstreams {
            let families = vec![AddressFamily::Ipv4Unicast, AddressFamily::Ipv6Unicast];
            *upstream = Upstream { families, graceful_restart: restarting(60).graceful_restart, ..upstream.clone() };
        }
    }
    lab::patient(service)
}

/// Where BIRD sends what goes to the service.
fn is_routed_to(bird: &mut Bird, site: usize) -> bool {
    let via = |bird: &mut Bird, prefix: &str, router: &str| {
        bird.ask(&format!("show route primary {prefix}")).contains(&format!("via {router} "))
    };
    via(bird, PREFIX_V4, bare(LINKS[site][1])) && via(bird, PREFIX_V6, bare(LINKS[site][3]))
}

fn ask(request: &Request) -> Option<Reply> {
    admin::request(Path::new("/run/ubique/resolver-ams.sock"), request).ok()
}

/// How far the drain is, as soon as an agent tells.
fn progress() -> DrainView {
    until("an agent that tells of the drain", || match ask(&Request::DrainProgress) {
        Some(Reply::Drain(view)) => Some(*view),
        _ => None,
    })
    .0
}

fn open(view: &DrainView) -> Option<u64> {
    view.now.as_ref()?.connections
}

/// Everything of one drain.
struct Drained {
    net: Net,
    service: Service,
    agents: [Process; 2],
    bird: Bird,
    old: Old,
    new: New,
}

impl Drained {
    /// Both sites announced, old connections at `ams`, new ones on their way. `None`: no data plane here.
    fn new(tcp: TcpMethod) -> Option<Drained> {
        let net = Net::new()?;
        let service = announcing(tcp);
        std::fs::write(lab::FILE, service.to_toml()).unwrap();
        net.route_by_another();
        let mut bird = bird(&net);
        net.serve();
        let agents = [AMS, FRA].map(|site| net.agent(&service, site));
        let word = if tcp == TcpMethod::Cookie { "cookie" } else { "timestamp" };
        for site in [AMS, FRA] {
            assert_eq!(ready(site).tcp, word);
        }
        until_true("both sites announce", || {
            let all = bird.ask("show route all");
            SITES.iter().all(|name| [PREFIX_V4, PREFIX_V6].iter().all(|prefix| has(&all, name, prefix)))
        });
        until_true("routed to the first", || is_routed_to(&mut bird, AMS));
        let addresses = [SERVICE_V4.to_owned(), format!("[{SERVICE_V6}]")]
            .map(|address| format!("{address}:{PORT}").parse().unwrap());
        let old = Old::open(&net.clients, &addresses, OLD);
        let new = New::begin(&net.clients, &addresses, NEW_PER_S);
        new.more(SOME);
        assert_eq!((old.seen().at, new.seen().at[FRA]), ([OLD, 0], 0), "all at the first");
        Some(Drained { net, service, agents, bird, old, new })
    }

    /// The drain begins, and new connections are handed over while everything still goes to the first site.
    fn begin(&mut self) {
        let drain = DrainRequest {
            reason: "disks".into(),
            within_s: Some(600.0),
            to: Some(SITES[FRA].into()),
            ..DrainRequest::default()
        };
        assert!(matches!(ask(&Request::DrainWatched(drain)), Some(Reply::Drain(_))));
        let what = "new ones are handed over, at the pace they begin, and old ones are there";
        let (view, took) = until(what, || {
            let view = progress();
            let sessions = view.sessions.as_ref()?;
            (sessions.handed_over_per_s > f64::from(NEW_PER_S) * 0.75 && view.stage == Stage::Leaving).then_some(view)
        });
        println!("handed over at full pace after {took:?}: {view:?}");
        let sessions = view.sessions.unwrap();
        assert_eq!((sessions.to.as_deref(), sessions.wanted.as_deref()), (Some(SITES[FRA]), Some(SITES[FRA])));
        assert!(view.before.unwrap().connections.unwrap() >= OLD as u64);
        let here = self.new.seen().at[AMS];
        self.new.more(SOME);
        assert_eq!(self.new.seen().at[AMS], here, "none of them begins here any more");
        assert!(is_routed_to(&mut self.bird, AMS), "announced still");
        self.look("handed over");
    }

    /// Everybody goes on.
    fn look(&self, when: &str) {
        let began = Instant::now();
        self.old.go_round();
        self.new.more(SOME);
        let (old, new) = (self.old.seen(), self.new.seen());
        println!("{when}: all go on after {:?}; old {}; new {}", began.elapsed(), words(&old), words(&new));
        if !new.failed.is_empty() {
            std::thread::sleep(std::time::Duration::from_secs(2));
            for site in [AMS, FRA] {
                println!("{site} {:?}", try_status_of(site).unwrap().sessions.unwrap().decisions);
                self.net.sites[site]
                    .run(|| println!("{}", std::fs::read_to_string("/proc/net/netstat").unwrap()))
                    .unwrap();
            }
        }
        assert!(old.failed.is_empty() && new.failed.is_empty(), "{when}: {:?} {:?}", old.failed, new.failed);
    }

    fn goes_on(&self, site: usize, when: &str) {
        assert!(ready(site).adopted, "{when}: in the place of its predecessor");
        self.look(when);
    }

    fn killed(&mut self, site: usize) {
        self.agents[site].kill();
        self.look(&format!("no agent at {}", SITES[site]));
        self.agents[site] = self.net.agent(&self.service, site);
        self.goes_on(site, &format!("the next agent of {}", SITES[site]));
    }

    fn stopped(&mut self) {
        self.agents[AMS].signal(Signal::Term);
        assert_eq!(self.agents[AMS].wait(), 0);
        self.agents[AMS] = self.net.agent(&self.service, AMS);
        self.goes_on(AMS, "after an orderly stop");
    }

    fn upgraded(&mut self) {
        let before = program_on(&self.net, AMS);
        match ask(&Request::Upgrade(ReloadRequest::default())) {
            Some(Reply::Upgrade(reply)) => assert!(reply.accepted, "{reply:?}"),
            other => panic!("{other:?}"),
        }
        until_true("the next program took over", || program_on(&self.net, AMS) != before);
        self.goes_on(AMS, "after an upgrade");
    }

    /// The next agent goes on with the drain: withdrawn, to the same site, for the same connections.
    fn is_resumed(&mut self) {
        let view = until("the drain goes on", || Some(progress()).filter(|view| open(view).is_some())).0;
        assert_eq!((view.stage, view.reason.as_str(), open(&view)), (Stage::Withdrawn, "disks", Some(OLD as u64)));
        let sessions = try_status_of(AMS).unwrap().sessions.unwrap();
        assert_eq!(sessions.hands_over_wanted.as_deref(), Some(SITES[FRA]));
        assert_eq!(sessions.troubles, [], "what counts is not in the way of cookies");
        until_true("the route follows", || is_routed_to(&mut self.bird, FRA));
        self.look("withdrawn");
    }

    /// Clients end their connections; the drain ends with the last.
    fn end(self) {
        let view = progress();
        assert_eq!((view.stage, open(&view)), (Stage::Withdrawn, Some(OLD as u64)));
        let client =
            |view: &DrainView| view.sessions.as_ref().unwrap().clients.iter().map(|c| c.connections).sum::<u64>();
        assert_eq!(client(&view), OLD as u64, "whose they are: {view:?}");
        assert!(view.sessions.as_ref().unwrap().forwarded > 0, "{view:?}");
        until_true("nothing new is handed over: it goes to the other site by itself", || {
            progress().sessions.unwrap().handed_over_per_s == 0.0
        });
        for left in [OLD / 2, OLD / 10] {
            self.old.keep(left);
            until_true("the drain sees them end", || open(&progress()) == Some(left as u64));
            assert_eq!(progress().stage, Stage::Withdrawn);
        }
        let old = self.old.seen();
        drop(self.old);
        let (view, took) = until("the drain is over", || Some(progress()).filter(DrainView::is_over));
        println!("over {took:?} after the last connection: {view:?}");
        assert_eq!((view.stage, view.gone, open(&view)), (Stage::Over, Some(true), Some(0)));
        let new = self.new.end();
        println!("in all: old {}; new {}", words(&old), words(&new));
        assert!(old.failed.is_empty() && new.failed.is_empty(), "{:?} {:?}", old.failed, new.failed);
        assert_eq!((old.at, new.begun as u64), ([OLD, 0], new.answered));
    }
}

fn has(all: &str, site: &str, prefix: &str) -> bool {
    let mut lines = all.lines().skip_while(|line| !line.contains(prefix));
    let of_prefix =
        lines.by_ref().take_while(|line| line.contains(prefix) || !line.contains('/') || line.starts_with('\t'));
    of_prefix.into_iter().any(|line| line.contains(&format!("[{site} ")))
}

fn words(seen: &Seen) -> String {
    let Seen { begun, answered, at, failed, longest } = seen;
    format!("{begun} begun, {answered} answered, {at:?} at each site, {} failed, longest {longest:?}", failed.len())
}

/// While the site is announced and hands over, its agent dies.
fn killed() {
    let Some(mut drained) = Drained::new(TcpMethod::Timestamp) else { return };
    drained.begin();
    drained.killed(AMS);
    drained.is_resumed();
    drained.upgraded();
    drained.stopped();
    drained.killed(FRA);
    drained.end();
}

/// The same with an upgrade first, and with cookies.
fn upgraded() {
    let Some(mut drained) = Drained::new(TcpMethod::Cookie) else { return };
    drained.begin();
    drained.upgraded();
    drained.is_resumed();
    drained.killed(AMS);
    drained.killed(FRA);
    drained.stopped();
    drained.end();
}

fn control() {
    const FEW: usize = 100;
    let Some(net) = Net::new() else { return };
    let service = Service { sessions: None, ..announcing(TcpMethod::Auto) };
    net.route_by_another();
    let mut bird = bird(&net);
    net.serve();
    let _agents = [AMS, FRA].map(|site| net.agent(&service, site));
    until_true("routed to the first", || is_routed_to(&mut bird, AMS));
    let address: SocketAddr = format!("{SERVICE_V4}:{PORT}").parse().unwrap();
    let old = Old::open(&net.clients, &[address], FEW);
    assert!(ask(&Request::Drain { reason: "disks".into() }).is_some());
    until_true("all that were open are lost", || old.seen().failed.len() == FEW);
    assert!(old.seen().failed.iter().all(|why| why.contains("reset")), "{:?}", old.seen());
}
