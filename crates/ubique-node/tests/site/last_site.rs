//! The last-site guard behind an upstream that shows no other sites: a ping through it tells.

use std::time::Duration;

use ubique_proto::site::State;
use ubique_sys::netlink::Netlink;
use ubique_sys::netns::NetNs;

use crate::daemons::{BIRD, Bird};
use crate::lab::{self, PREFIX_V4, SERVICE_V4, status, until_true};
use crate::runner::Test;
use crate::two_sites::{KERNEL, TwoSites, on_loopback};

pub const TESTS: &[Test] = &[Test {
    name: "a_ping_through_an_upstream_without_full_view_finds_the_other_site_or_nobody",
    needs: &[BIRD],
    run: pinged,
}];

/// How long a ping looks for another site, and how long after one the next is sent.
const LAST_SITE: Duration = Duration::from_secs(1);
const RETRY: Duration = Duration::from_secs(1);

fn off_loopback(ns: &NetNs, address: &str) {
    let mut netlink = Netlink::open_in(ns).unwrap();
    let lo = netlink.link_index("lo").unwrap();
    netlink.delete_address(lo, address.parse().unwrap()).unwrap();
}

/// The site stays silent, since somebody else answers.
fn until_found(bird: &mut Bird, what: &str) {
    let found = |guard: &str| guard.contains("another site answers through");
    until_true(what, || status().guard.as_deref().is_some_and(found));
    assert_eq!((status().state, bird.route(PREFIX_V4)), (State::Unhealthy, None), "{what}");
}

fn pinged() {
    let mut service = lab::service();
    service.guard.last_site = LAST_SITE;
    service.guard.retry = RETRY;
    service.checks.truncate(1);
    service.sites[0].upstreams[0].full_view = Some(false);
    let mut two = TwoSites::new(service, &format!("{KERNEL}{}", Bird::session_v4("")));
    two.dns.kill();
    until_found(&mut two.bird, "the other site answers: this one stays withdrawn");

    // The other site is no more, and was never seen in BGP.
    let other = format!("{SERVICE_V4}/32");
    off_loopback(&two.other, &other);
    until_true("nobody answers: announced again", || two.bird.route(PREFIX_V4).is_some());
    let route = two.bird.route(PREFIX_V4).unwrap();
    for degraded in ["(65535,0)", "(64500, 0, 911)"] {
        assert!(route.contains(degraded), "{degraded} not in\n{route}");
    }
    let now = status();
    assert_eq!(now.state, State::LastResort, "{now:?}");
    assert!(now.events.iter().any(|event| event.what == "last site not withdrawn"), "{:?}", now.events);
    assert!(two.agent.log().contains("the last site is not withdrawn"), "an error in the log");

    // It looks again now and then, which takes a withdrawal here, and gives way to whom it finds.
    on_loopback(&two.other, &other);
    until_found(&mut two.bird, "the other site is back: this one gives way");
}
