//! The programs, loaded: on which interfaces they are, and what they were told.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ubique_edge::{Config, Counter, Edge, Error, Former, Keys, Mode, Notes, Peer, Tier, attached, is_ours};
use ubique_proto::sessions::Site;

use super::Setup;
use super::life::Life;

/// Packets a second whose owner is asked for, site by site.
const PROBES_PER_S: u32 = 10_000;

/// Former programs that are remembered: an agent that fails again and again adds one each time.
const FORMER_MAX: usize = 16;

/// Programs and maps in the kernel.
pub(super) struct Plane {
    edge: Edge,
    pub notes: Notes,
    pub tier: Tier,
    pub clock_base_ms: u64,
    /// Programs of a former agent were on an interface when this one began.
    pub adopted: bool,
    /// Its counters went on.
    pub counts_on: bool,
    /// Interfaces that have our program.
    pub on: BTreeMap<u32, (String, Mode)>,
    number: u32,
    life: Life,
    told: BTreeMap<Site, Peer>,
    wall_base_ms: Option<u64>,
    hands_over_to: Option<Site>,
    answers_syns: bool,
}

/// A clock that was set by more is written down for a successor, ms.
const REMEMBER_MS: u64 = 1000;

/// What is on interfaces before anything is done.
pub(super) struct Found {
    /// What the former agent left; `None`: nothing, or nothing of it is there any more.
    pub life: Option<Life>,
    programs: Vec<u32>,
}

impl Found {
    /// Looks at these interfaces.
    pub fn look(setup: &Setup, interfaces: &[(u32, String)]) -> Found {
        let programs: Vec<u32> =
            interfaces.iter().filter_map(|(index, _)| attached(*index).ok()).filter(|id| *id != 0).collect();
        let there = |life: &Life| life.programs.iter().any(|program| programs.contains(program));
        Found { life: Life::read(&setup.life).filter(there), programs }
    }

    /// Whether programs of ours are at work.
    pub fn is_running(&self) -> bool {
        self.life.is_some()
    }
}

fn config(setup: &Setup, keys: &Keys, tier: Tier, clock_base_ms: u64) -> Config {
    let sessions = &setup.sessions;
    Config {
        site: setup.site,
        keys: keys.clone(),
        prefixes: setup.prefixes.clone(),
        unicast: setup.unicast.clone(),
        port: sessions.port,
        mtu: sessions.mtu_bytes,
        tier,
        tcp_ports: sessions.tcp_ports.clone(),
        quic_ports: sessions.quic_ports.clone(),
        clock_base_ms,
        budget_per_s: u32::try_from(sessions.budget_per_s).unwrap_or(u32::MAX),
        probes_per_s: PROBES_PER_S,
        reply_through: sessions.return_path == ubique_model::service::ReturnPath::Through,
    }
}

impl Plane {
    /// Loads the programs; nothing happens to any packet yet. What is running is gone on with.
    pub fn load(setup: &Setup, keys: &Keys, tier: Tier, found: Found, wall_base_ms: u64) -> Result<Plane, Error> {
        let adopted = found.is_running();
        let life = found.life.unwrap_or_else(|| Life::new(wall_base_ms));
        let clock_base_ms = life.clock_base_ms;
        let config = config(setup, keys, tier, clock_base_ms);
        let ours = found.programs.into_iter().filter(|program| life.programs.contains(program));
        let after = |former| Edge::load_after(&config, &former).ok();
        let former = ours.filter_map(Former::of).next().and_then(after);
        let counts_on = former.is_some();
        let mut edge = former.map_or_else(|| Edge::load(&config), Ok)?;
        edge.follow(life.programs.clone());
        let (notes, number) = (edge.found()?, edge.program_number()?);
        Ok(Plane {
            edge,
            notes,
            tier,
            clock_base_ms,
            adopted,
            counts_on,
            on: BTreeMap::new(),
            number,
            life,
            told: BTreeMap::new(),
            wall_base_ms: None,
            hands_over_to: None,
            answers_syns: true,
        })
    }

    /// Puts the programs onto an interface, unless they are there.
    ///
    /// # Errors
    /// In words: why they are not there.
    pub fn attach(&mut self, setup: &Setup, index: u32, name: &str) -> Result<Option<Mode>, String> {
        let there = attached(index).map_err(|error| error.to_string())?;
        if self.on.contains_key(&index) && there == self.number {
            return Ok(None);
        }
        let was_on = self.on.remove(&index).is_some();
        let foreign = there != 0 && !self.life.programs.contains(&there);
        if was_on && foreign {
            return Err(format!("another program, number {there}, took the place of ours: leaving it there"));
        }
        if foreign && is_ours(there) == Some(true) {
            return Err(format!(
                "programs of another agent of ubique are there (number {there}): `ubique sessions off` takes them off"
            ));
        }
        self.leave(setup, name)?;
        let attachment = self.edge.attach(index, None).map_err(|error| words(&error))?;
        self.on.insert(index, (name.to_owned(), attachment.mode()));
        Ok(Some(attachment.mode()))
    }

    /// Has a successor know of our program, before it is anywhere.
    fn leave(&mut self, setup: &Setup, interface: &str) -> Result<(), String> {
        let mut life = self.life.clone();
        life.tcp = super::tier_word(self.tier).to_owned();
        life.wall_base_ms = self.wall_base_ms;
        if !life.programs.contains(&self.number) {
            let surplus = (life.programs.len() + 1).saturating_sub(FORMER_MAX);
            life.programs.drain(..surplus);
            life.programs.push(self.number);
        }
        if !life.interfaces.iter().any(|known| known == interface) {
            life.interfaces.push(interface.to_owned());
        }
        self.become_life(setup, life)
    }

    fn become_life(&mut self, setup: &Setup, life: Life) -> Result<(), String> {
        if life != self.life {
            life.write(&setup.life).map_err(|error| format!("cannot write {}: {error}", setup.life.display()))?;
            self.life = life;
        }
        Ok(())
    }

    /// Forgets interfaces that are gone.
    pub fn retain(&mut self, present: &[(u32, String)]) {
        self.on.retain(|index, (name, _)| present.iter().any(|(i, n)| i == index && n == name));
    }

    /// What is known of a site, when that is not what was told last.
    pub fn tell(&mut self, site: Site, peer: Peer) -> Result<(), Error> {
        if self.told.get(&site) != Some(&peer) {
            self.edge.set_peer(site, Some(&peer))?;
            self.told.insert(site, peer);
        }
        Ok(())
    }

    /// The wall clock at 0 of the monotonic one, as it is now.
    pub fn set_clock(&mut self, setup: &Setup, wall_base_ms: u64) -> Result<(), Error> {
        if self.wall_base_ms != Some(wall_base_ms) {
            self.edge.set_wall_base(wall_base_ms)?;
            self.wall_base_ms = Some(wall_base_ms);
        }
        let was_set = self.life.wall_base_ms.is_some_and(|left| left.abs_diff(wall_base_ms) > REMEMBER_MS);
        if was_set {
            // Of what cannot be written a successor knows an older one, and asks the other sites.
            let mut life = self.life.clone();
            life.wall_base_ms = Some(wall_base_ms);
            let _ = self.become_life(setup, life);
        }
        Ok(())
    }

    /// Who takes new connections.
    pub fn hand_over(&mut self, to: Option<Site>) -> Result<(), Error> {
        if self.hands_over_to != to {
            self.edge.drain_to(to)?;
            self.hands_over_to = to;
        }
        Ok(())
    }

    /// Whether SYNs are answered by cookies, where there are any.
    pub fn answer_syns(&mut self, answers: bool) -> Result<(), Error> {
        if self.answers_syns != answers {
            self.edge.answer_syns(answers)?;
            self.answers_syns = answers;
        }
        Ok(())
    }

    /// Every decision.
    pub fn counters(&self) -> Vec<(Counter, u64)> {
        let read = self.edge.counters();
        read.map(|counters| Counter::ALL.iter().map(|counter| (*counter, counters[*counter])).collect())
            .unwrap_or_default()
    }
}

/// A peer whose way is not known is told as one that is there.
pub(super) fn peer(address: IpAddr, up: bool, next_hop: Option<ubique_edge::NextHop>) -> Peer {
    Peer { address, up, next_hop }
}

pub(super) fn words(error: &Error) -> String {
    // Its own prefix is said by whoever tells of the trouble.
    let text = error.to_string();
    text.strip_prefix("data plane: ").map_or(text.clone(), str::to_owned)
}
