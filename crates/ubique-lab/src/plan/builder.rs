//! The making of a plan, step by step.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use ubique_model::internet::{Internet, Link};
use ubique_model::location::Location;
use ubique_model::service::{NextHop, Service, Site, Upstream};
use ubique_model::{Asn, Family, Prefix, Relation};

use super::addresses::{self, Pools};
use super::{
    EndPlan, FAR_VANTAGE_KM, LinkPlan, MAX_LINKS, MAX_NETWORKS, MAX_VANTAGES_PER_NETWORK, NETWORK_HOLD_TIME,
    NetworkPlan, Plan, PlanError, SessionPlan, SitePlan, TRANSITS_OF_ADDED_NETWORK, VantagePlan, cable_delay,
};

/// BGP's port (RFC 4271 §8.2.1).
const BGP_PORT: u16 = 179;

/// Plans an Internet with the sites of a service.
pub(super) fn build(internet: &Internet, service: &Service) -> Result<Plan, PlanError> {
    let mut builder = Builder::new(internet, service)?;
    builder.add_networks()?;
    builder.add_missing_upstreams()?;
    builder.add_vantages()?;
    let links = builder.internet_links.clone();
    for link in &links {
        builder.add_network_link(link)?;
    }
    for site in &service.sites {
        builder.add_site(site)?;
    }
    builder.finish()
}

struct Builder<'a> {
    internet: &'a Internet,
    service: &'a Service,
    pools: Pools,
    networks: BTreeMap<Asn, NetworkPlan>,
    /// Links of the Internet file and of added networks.
    internet_links: Vec<Link>,
    links: Vec<LinkPlan>,
    sites: Vec<SitePlan>,
    vantages: Vec<VantagePlan>,
    /// Addresses the service file states for routers; never given to anything else.
    stated: BTreeSet<IpAddr>,
    /// Local addresses of sites found by us.
    found: BTreeSet<IpAddr>,
    notes: Vec<String>,
}

impl<'a> Builder<'a> {
    fn new(internet: &'a Internet, service: &'a Service) -> Result<Builder<'a>, PlanError> {
        let upstreams = || service.sites.iter().flat_map(|s| &s.upstreams);
        let stated: BTreeSet<IpAddr> = upstreams().flat_map(|u| [Some(u.address), u.local_address]).flatten().collect();
        let mut reserved: Vec<Prefix> = service.prefixes.clone();
        for &address in &stated {
            // The whole /30 or /126: a local address may be chosen beside a stated one.
            let length = if address.is_ipv4() { 30 } else { 126 };
            reserved.extend(Prefix::new(address, length).map(|p| p.trunc()));
        }
        reserved.extend(service.sites.iter().flat_map(|s| s.unicast.addresses()).map(Prefix::from));
        too_many("networks", internet.networks.len(), MAX_NETWORKS)?;
        Ok(Builder {
            internet,
            service,
            pools: Pools::new(&reserved),
            networks: BTreeMap::new(),
            internet_links: internet.links.clone(),
            links: Vec::new(),
            sites: Vec::new(),
            vantages: Vec::new(),
            stated,
            found: BTreeSet::new(),
            notes: Vec::new(),
        })
    }

    fn add_networks(&mut self) -> Result<(), PlanError> {
        for network in &self.internet.networks {
            if network.asn == self.service.asn {
                return Err(PlanError::ServiceAsInInternet(network.asn));
            }
            let plan = network_plan(network.asn, network.name.clone(), network.location.clone());
            if self.networks.insert(network.asn, plan).is_some() {
                return Err(PlanError::DuplicateNetwork(network.asn));
            }
        }
        Ok(())
    }

    /// Adds each upstream that only the service file knows, at the city of the first site that names it.
    fn add_missing_upstreams(&mut self) -> Result<(), PlanError> {
        let service = self.service;
        for site in &service.sites {
            for upstream in &site.upstreams {
                if self.networks.contains_key(&upstream.asn) {
                    continue;
                }
                self.add_missing_upstream(site, upstream.asn)?;
            }
        }
        too_many("networks", self.networks.len(), MAX_NETWORKS)
    }

    fn add_missing_upstream(&mut self, site: &Site, asn: Asn) -> Result<(), PlanError> {
        let transits = self.nearest_transits(&site.location);
        if transits.is_empty() {
            return Err(PlanError::NowhereToConnect { asn, site: site.name.clone() });
        }
        let mut network = network_plan(asn, format!("AS{asn}"), site.location.clone());
        network.added = true;
        self.networks.insert(asn, network);
        let from = transits.iter().map(|t| format!("AS{t} {}", self.networks[t].name)).collect::<Vec<_>>();
        self.notes.push(format!(
            "AS{asn}, an upstream of site {}, is not in the Internet: added at {} with transit from {}",
            site.name,
            site.location.name,
            from.join(" and "),
        ));
        for transit in transits {
            self.internet_links.push(Link {
                a: transit,
                b: asn,
                relation: Relation::Customer,
                delay: None,
                loss: 0.0,
                rate_bits_per_s: None,
                ixp: None,
            });
        }
        Ok(())
    }

    /// The nearest networks that sell transit, or the nearest of all when none does.
    fn nearest_transits(&self, to: &Location) -> Vec<Asn> {
        let sellers: BTreeSet<Asn> = self
            .internet
            .links
            .iter()
            .filter_map(|l| match l.relation {
                Relation::Customer => Some(l.a),
                Relation::Transit => Some(l.b),
                _ => None,
            })
            .collect();
        let mut near: Vec<(f64, Asn)> = self
            .networks
            .values()
            .filter(|n| !n.added && (sellers.is_empty() || sellers.contains(&n.asn)))
            .map(|n| (n.location.distance_km(to), n.asn))
            .collect();
        near.sort_by(|x, y| x.0.total_cmp(&y.0).then(x.1.cmp(&y.1)));
        near.into_iter().take(TRANSITS_OF_ADDED_NETWORK).map(|(_, asn)| asn).collect()
    }

    /// Gives each network with vantage points its two prefixes and each vantage point its addresses.
    fn add_vantages(&mut self) -> Result<(), PlanError> {
        let internet = self.internet;
        for vantage in &internet.vantages {
            let network = self.networks.get_mut(&vantage.asn).ok_or_else(|| PlanError::UnknownNetwork {
                what: format!("vantage point {}", vantage.name),
                asn: vantage.asn,
            })?;
            if network.originate.is_empty() {
                let v4 = self.pools.clients_v4.take().ok_or(PlanError::NoAddressSpace("clients"))?;
                let v6 = self.pools.clients_v6.take().ok_or(PlanError::NoAddressSpace("clients"))?;
                network.originate = vec![v4, v6];
            }
            let nth = network.loopback.len() / 2 + 1;
            too_many("vantage points in one network", nth, MAX_VANTAGES_PER_NETWORK)?;
            let host = |p: &Prefix| addresses::address(addresses::number(p.network()) + nth as u128, is_v4(p));
            let hosts: Vec<IpAddr> = network.originate.iter().map(host).collect();
            network.loopback.extend(&hosts);
            let (Some(&IpAddr::V4(ipv4)), Some(&IpAddr::V6(ipv6))) = (hosts.first(), hosts.get(1)) else {
                return Err(PlanError::NoAddressSpace("clients"));
            };
            let km = network.location.distance_km(&vantage.location);
            if km > FAR_VANTAGE_KM {
                self.notes.push(format!(
                    "vantage point {} is {km:.0} km from the router of AS{} at {}; its delay counts from the router",
                    vantage.name, vantage.asn, network.location.name
                ));
            }
            self.vantages.push(VantagePlan {
                name: vantage.name.clone(),
                asn: vantage.asn,
                location: vantage.location.clone(),
                netns: network.netns.clone(),
                ipv4,
                ipv6,
            });
        }
        Ok(())
    }

    fn location(&self, asn: Asn, what: impl FnOnce() -> String) -> Result<&Location, PlanError> {
        let network = self.networks.get(&asn);
        network.map(|n| &n.location).ok_or_else(|| PlanError::UnknownNetwork { what: what(), asn })
    }

    /// What the link states, or what follows from where its ends and its exchange point are.
    fn delay(&self, link: &Link, a: &Location, b: &Location) -> Result<Duration, PlanError> {
        Ok(match (&link.delay, &link.ixp) {
            (Some(delay), _) => *delay,
            (None, None) => cable_delay(&[a, b]),
            (None, Some(name)) => {
                let ixp = self.internet.ixps.iter().find(|x| x.name == *name).ok_or_else(|| PlanError::UnknownIxp {
                    a: link.a,
                    b: link.b,
                    ixp: name.clone(),
                })?;
                cable_delay(&[a, &ixp.location, b])
            }
        })
    }

    /// A link between two networks with a session for each family; the lower AS number connects.
    fn add_network_link(&mut self, link: &Link) -> Result<(), PlanError> {
        if link.a == link.b {
            return Err(PlanError::SelfLink(link.a));
        }
        let what = || format!("the link between AS{} and AS{}", link.a, link.b);
        let a = self.location(link.a, what)?;
        let b = self.location(link.b, what)?;
        let delay = self.delay(link, a, b)?;
        let v4 = self.pools.links_v4.take().ok_or(PlanError::NoAddressSpace("links"))?;
        let v6 = self.pools.links_v6.take().ok_or(PlanError::NoAddressSpace("links"))?;
        let pairs: Vec<(IpAddr, IpAddr)> = [v4, v6].iter().map(|p| (p.network(), p.broadcast())).collect();
        let index = self.links.len();
        for &(left, right) in &pairs {
            let session = |local, remote, asn, relation, passive| SessionPlan {
                link: index,
                local,
                remote,
                asn,
                relation,
                hold_time: NETWORK_HOLD_TIME,
                passive,
                site: None,
                password_file: None,
                bfd: None,
                multihop: None,
            };
            let at_a = session(left, right, link.b, link.relation, link.a > link.b);
            let at_b = session(right, left, link.a, reverse(link.relation), link.b > link.a);
            self.add_session(link.a, at_a);
            self.add_session(link.b, at_b);
        }
        self.links.push(LinkPlan {
            a: end(index, 'a', as_netns(link.a), pairs.clone()),
            b: end(index, 'b', as_netns(link.b), pairs.iter().map(|&(l, r)| (r, l)).collect()),
            delay,
            loss: link.loss,
            rate_bits_per_s: link.rate_bits_per_s,
        });
        Ok(())
    }

    fn add_session(&mut self, asn: Asn, session: SessionPlan) {
        if let Some(network) = self.networks.get_mut(&asn) {
            network.sessions.push(session);
        }
    }

    /// A site with a link to each of its upstreams; an IPv4 and an IPv6 session to the same AS share one.
    fn add_site(&mut self, site: &Site) -> Result<(), PlanError> {
        let mut plan = SitePlan {
            name: site.name.clone(),
            location: site.location.clone(),
            netns: format!("site-{}", site.name),
            links: Vec::new(),
            defaults: Vec::new(),
            unicast: Vec::new(),
            data_plane: self.service.sessions.is_some(),
        };
        let mut groups: Vec<Vec<&Upstream>> = Vec::new();
        let refused = |upstream: String, key| PlanError::NotInLab { site: site.name.clone(), upstream, key };
        if let Some(dynamic) = site.dynamic.first() {
            return Err(refused(dynamic.range.to_string(), "dynamic"));
        }
        for upstream in &site.upstreams {
            if let Some(key) = beyond_the_lab(upstream) {
                return Err(refused(upstream.address.to_string(), key));
            }
            if upstream.port != BGP_PORT {
                return Err(PlanError::Port {
                    site: site.name.clone(),
                    upstream: upstream.address,
                    port: upstream.port,
                });
            }
            let family = Family::of_address(upstream.address);
            let fits = |g: &Vec<&Upstream>| {
                g[0].asn == upstream.asn && g.iter().all(|u| Family::of_address(u.address) != family)
            };
            match groups.iter_mut().find(|g| fits(g)) {
                Some(group) => group.push(upstream),
                None => groups.push(vec![upstream]),
            }
        }
        for group in &groups {
            let index = self.add_site_link(site, group)?;
            plan.links.push(index);
            for upstream in group {
                let family = upstream.address.is_ipv4();
                if plan.defaults.iter().all(|(hop, _)| hop.is_ipv4() != family) {
                    plan.defaults.push((upstream.address, index));
                }
            }
        }
        if plan.data_plane {
            self.add_unicast(site, &mut plan);
        }
        self.sites.push(plan);
        Ok(())
    }

    /// Has the first upstream of its family route each unicast address of the site.
    fn add_unicast(&mut self, site: &Site, plan: &mut SitePlan) {
        for address in site.unicast.addresses() {
            let Some(&(_, index)) = plan.defaults.iter().find(|(hop, _)| hop.is_ipv4() == address.is_ipv4()) else {
                let note = format!("site {} has no upstream of the family of {address}: nobody reaches it", site.name);
                self.notes.push(note);
                continue;
            };
            let link = &self.links[index];
            let on_link = link.a.addresses.iter().any(|(local, _)| *local == address);
            let prefix = Prefix::from(address);
            let netns = link.b.netns.clone();
            if let Some(network) = self.networks.values_mut().find(|network| network.netns == netns) {
                network.originate.push(prefix);
                if !on_link {
                    network.routed.push((prefix, index));
                    plan.unicast.push(address);
                }
            }
        }
    }

    fn add_site_link(&mut self, site: &Site, group: &[&Upstream]) -> Result<usize, PlanError> {
        let asn = group[0].asn;
        let index = self.links.len();
        let delay = cable_delay(&[&site.location, self.location(asn, || format!("site {}", site.name))?]);
        let mut pairs = Vec::with_capacity(group.len());
        for upstream in group {
            let local = self.local_address(site, upstream)?;
            pairs.push((local, upstream.address));
            self.add_session(
                asn,
                SessionPlan {
                    link: index,
                    local: upstream.address,
                    remote: local,
                    asn: self.service.asn,
                    relation: reverse(upstream.relation),
                    hold_time: upstream.hold_time,
                    passive: true,
                    site: Some(site.name.clone()),
                    password_file: upstream.password_file.clone(),
                    bfd: upstream.bfd,
                    multihop: upstream.multihop,
                },
            );
        }
        self.links.push(LinkPlan {
            a: end(index, 'a', format!("site-{}", site.name), pairs.clone()),
            b: end(index, 'b', as_netns(asn), pairs.iter().map(|&(l, r)| (r, l)).collect()),
            delay,
            loss: 0.0,
            rate_bits_per_s: None,
        });
        Ok(index)
    }

    /// The site's address on the session: the stated one, or a free one next to the upstream's.
    fn local_address(&mut self, site: &Site, upstream: &Upstream) -> Result<IpAddr, PlanError> {
        if let Some(address) = upstream.local_address {
            return Ok(address);
        }
        let free = |a: &IpAddr| !self.stated.contains(a) && !self.found.contains(a) && !a.is_unspecified();
        let local = addresses::other_hosts(upstream.address)
            .into_iter()
            .find(free)
            .ok_or_else(|| PlanError::NoLocalAddress { site: site.name.clone(), upstream: upstream.address })?;
        self.found.insert(local);
        Ok(local)
    }

    fn finish(mut self) -> Result<Plan, PlanError> {
        too_many("links", self.links.len(), MAX_LINKS)?;
        for network in self.networks.values_mut() {
            network.sessions.sort_by_key(|s| (s.link, s.local.is_ipv6()));
        }
        check_neighbors(&self.links)?;
        Ok(Plan {
            networks: self.networks.into_values().collect(),
            sites: self.sites,
            links: self.links,
            vantages: self.vantages,
            notes: self.notes,
        })
    }
}

/// The first key of an upstream that the emulated routers cannot honour: without it the session would not come up, or
/// other routes would be announced than the site really does. What is negotiated down or ours alone is no matter.
fn beyond_the_lab(upstream: &Upstream) -> Option<&'static str> {
    let own = [Family::of_address(upstream.address).into()];
    let keys = [
        ("interface", upstream.interface.is_some()),
        ("passive", upstream.passive),
        ("ttl-security", upstream.ttl_security.is_some()),
        ("tcp-ao", upstream.tcp_ao.is_some()),
        ("strict-role", upstream.strict_role),
        ("families", upstream.families != own),
        ("next-hop", upstream.next_hop != NextHop::default()),
    ];
    keys.into_iter().find_map(|(key, used)| used.then_some(key))
}

/// In each namespace, every neighbour has its own address, and none has one of ours.
fn check_neighbors(links: &[LinkPlan]) -> Result<(), PlanError> {
    let mut own: BTreeSet<(&str, IpAddr)> = BTreeSet::new();
    let mut neighbors: BTreeSet<(&str, IpAddr)> = BTreeSet::new();
    let holder = |netns: &str| match netns.strip_prefix("site-") {
        Some(site) => format!("site {site}"),
        None => netns.to_uppercase(),
    };
    for end in links.iter().flat_map(|l| [&l.a, &l.b]) {
        for &(local, remote) in &end.addresses {
            own.insert((&end.netns, local));
            if !neighbors.insert((&end.netns, remote)) {
                return Err(PlanError::SameNeighbor { holder: holder(&end.netns), address: remote });
            }
        }
    }
    match own.intersection(&neighbors).next() {
        Some(&(netns, address)) => Err(PlanError::OwnNeighbor { holder: holder(netns), address }),
        None => Ok(()),
    }
}

fn too_many(what: &'static str, count: usize, most: usize) -> Result<(), PlanError> {
    if count > most { Err(PlanError::TooMany { what, count, most }) } else { Ok(()) }
}

fn is_v4(prefix: &Prefix) -> bool {
    matches!(prefix, Prefix::V4(_))
}

fn as_netns(asn: Asn) -> String {
    format!("as{asn}")
}

fn network_plan(asn: Asn, name: String, location: Location) -> NetworkPlan {
    NetworkPlan {
        asn,
        name,
        location,
        netns: as_netns(asn),
        router_id: Ipv4Addr::from_bits(asn.0),
        originate: Vec::new(),
        loopback: Vec::new(),
        sessions: Vec::new(),
        routed: Vec::new(),
        added: false,
    }
}

fn end(index: usize, side: char, netns: String, addresses: Vec<(IpAddr, IpAddr)>) -> EndPlan {
    let host = if side == 'a' { 1 } else { 2 };
    EndPlan {
        netns,
        interface: format!("l{index}"),
        wire_interface: format!("w{index}{side}"),
        addresses,
        link_local: Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, host),
    }
}

/// What we are to a neighbour that is `relation` to us. A site of our own organisation is carried like a customer:
/// its routes must reach everyone.
fn reverse(relation: Relation) -> Relation {
    match relation {
        Relation::Transit | Relation::Internal => Relation::Customer,
        Relation::Customer => Relation::Transit,
        Relation::Peer | Relation::RouteServer => Relation::Peer,
    }
}
