//! Six sites under one wave of load: what shedding does, and what withdrawing for load does.
//!
//! Clients have a distance to each site and follow the shortest path, prepends included. A flash crowd doubles the load of
//! one site's neighbourhood. The same crowd, clients and capacities are played under two policies: ours, in which load
//! moves steps of shedding, and the one of many scripts, in which an overloaded site fails its check.

use super::*;

const SITES: usize = 6;
/// Clients in a ring around the sites.
const CLIENTS: usize = 600;
/// Queries/s a site can answer; together they have room for half as much again as the crowd brings.
const CAPACITY: u64 = 190;
/// How long it is played.
const LENGTH: Duration = Duration::from_secs(600);
/// A check that failed passes again after so long without load: `rise` polls.
const RISE: Duration = Duration::from_secs(10);
/// Load is looked at so often.
const TICK: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Policy {
    /// Load climbs the steps of `[[shed]]`.
    Shed,
    /// Load fails the check.
    Withdraw,
}

/// What came of it.
#[derive(Debug)]
struct Outcome {
    /// Most sites that were silent at a time.
    silent: usize,
    /// Client-seconds without any site.
    unserved: u64,
    /// Load at the end, by site.
    load: Vec<u64>,
}

/// Where a client is served: path length plus prepends; the nearest wins.
fn landing(client: usize, told: &[Option<Stance>]) -> Option<usize> {
    let distance = |site: usize| {
        let (at, home) = (client * SITES, site * CLIENTS);
        let around = (CLIENTS * SITES).abs_diff(at.abs_diff(home)).min(at.abs_diff(home));
        around / (CLIENTS / 4)
    };
    let open = (0..SITES).filter_map(|site| Some((site, told[site]?)));
    // Each step prepends once.
    open.min_by_key(|(site, stance)| (distance(*site) + usize::from(stance.shed), *site)).map(|(site, _)| site)
}

/// The crowd is in the sixth of the ring around the first site.
fn queries(client: usize) -> u64 {
    if (CLIENTS / 12..CLIENTS - CLIENTS / 12).contains(&client) { 1 } else { 2 }
}

fn play(policy: Policy) -> Outcome {
    let config = SiteConfig { shed_steps: 4, ..SiteConfig::new(DRAIN, AT_ONCE) };
    let mut sites: Vec<Site> = (0..SITES).map(|_| Site::new(config.clone())).collect();
    for site in &mut sites {
        for input in [In::Start, In::AddressesAdded, verdict(true)] {
            site.handle_input(Time::ZERO, input);
        }
    }
    let mut outcome = Outcome { silent: 0, unserved: 0, load: vec![] };
    // A check that failed for load takes so long to be believed again.
    let mut failed_until = [Time::ZERO; SITES];
    let mut now = Time::ZERO;
    while now < Time::ZERO + LENGTH {
        now = now + TICK;
        let told: Vec<Option<Stance>> = sites.iter().map(|site| site.status(now).stance).collect();
        let mut load = vec![0; SITES];
        for client in 0..CLIENTS {
            match landing(client, &told) {
                Some(site) => load[site] += queries(client),
                None => outcome.unserved += 1,
            }
        }
        outcome.silent = outcome.silent.max(told.iter().filter(|stance| stance.is_none()).count());
        for ((site, &load), until) in sites.iter_mut().zip(&load).zip(&mut failed_until) {
            let over = load > CAPACITY;
            if over {
                *until = now + RISE;
            }
            let input = match policy {
                Policy::Shed => In::Overload { on: over, cause: format!("{load} queries/s") },
                Policy::Withdraw => verdict(*until < now),
            };
            if site.next_deadline().is_some_and(|at| at <= now) {
                site.handle_deadline(now);
            }
            site.handle_input(now, input);
            drained_outputs(site);
        }
        outcome.load = load;
    }
    outcome
}

#[test]
fn overload_of_one_site_cascades_nowhere() {
    let total: u64 = (0..CLIENTS).map(queries).sum();
    assert!(total < CAPACITY * SITES as u64 * 3 / 4, "there is room for everybody");
    let shed = play(Policy::Shed);
    println!("shedding: {shed:?}");
    assert_eq!((shed.silent, shed.unserved), (0, 0), "nobody is withdrawn, everybody served");
    assert!(shed.load.iter().all(|load| *load <= CAPACITY), "and the load has spread: {:?}", shed.load);
    let withdraw = play(Policy::Withdraw);
    println!("withdrawing: {withdraw:?}");
    assert_eq!(withdraw.silent, SITES, "the clients of the one that withdraws overload the next: {withdraw:?}");
    assert!(withdraw.unserved > 0, "{withdraw:?}");
}
