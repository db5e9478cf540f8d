//! Four rungs: every state × every input, named cases, random lives under the invariants, a driver on a clock.

mod cascade;
mod flapping;
mod guards;
mod simulation;

use super::*;
use crate::rng::Rng;

const DRAIN: Duration = Duration::from_secs(5);
const GRACE: Duration = Duration::from_secs(2);

/// Zero: the drain of the table withdraws at once; the graceful one has its own rows.
const AT_ONCE: Duration = Duration::ZERO;

fn site() -> Site {
    Site::new(SiteConfig::new(DRAIN, AT_ONCE))
}

fn graceful_site() -> Site {
    Site::new(SiteConfig::new(DRAIN, GRACE))
}

fn verdict(healthy: bool) -> In {
    let cause = if healthy { "all well" } else { "check answers: refused" };
    let level = if healthy { Level::Healthy } else { Level::Failed };
    In::Verdict { level, answers: healthy, cause: cause.into() }
}

fn drain() -> In {
    In::Drain { reason: "maintenance".into() }
}

fn undrain() -> In {
    In::Undrain { reason: "done".into() }
}

fn stop() -> In {
    In::Stop { reason: "SIGTERM".into() }
}

fn drained_outputs(site: &mut Site) -> Vec<Out> {
    std::iter::from_fn(|| site.poll_output()).collect()
}

/// Outputs without their causes.
fn brief(outputs: &[Out]) -> String {
    let words = outputs.iter().map(|out| match out {
        Out::AddAddresses => "add".into(),
        Out::Announce { stance, .. } if stance.last_resort => "resort".into(),
        Out::Announce { stance, .. } if stance.leaving => "graceful".into(),
        Out::Announce { stance, .. } if stance.shed > 0 => format!("shed{}", stance.shed),
        Out::Announce { stance, .. } if stance.level != Level::Healthy => stance.level.word().into(),
        Out::Announce { .. } => "announce".into(),
        Out::Verify => "verify".into(),
        Out::LastSite { .. } => "alarm".into(),
        Out::Probe { upstream, .. } => format!("probe-{upstream}"),
        Out::Withdraw { .. } => "withdraw".into(),
        Out::RemoveAddresses => "remove".into(),
        Out::State { state, .. } => state.word().into(),
        Out::Exit => "exit".into(),
    });
    words.collect::<Vec<String>>().join(" ")
}

/// How each row of the table is reached: inputs at time 0.
fn reach(name: &str) -> Vec<In> {
    use In::*;
    match name {
        "new" => vec![],
        "starting" => vec![Start],
        "starting, healthy" => vec![Start, verdict(true)],
        "starting, drain" => vec![Start, verdict(true), drain()],
        "unhealthy" => vec![Start, AddressesAdded],
        "announced" => vec![Start, AddressesAdded, verdict(true)],
        "drained" => vec![Start, AddressesAdded, drain()],
        "drained, healthy" => vec![Start, AddressesAdded, verdict(true), drain()],
        "just withdrawn" => vec![Start, AddressesAdded, verdict(true), verdict(false)],
        "stopping" => vec![Start, AddressesAdded, verdict(true), stop()],
        "removing" => vec![Start, AddressesAdded, stop()],
        "stopped" => vec![Start, AddressesAdded, stop(), AddressesRemoved],
        _ => panic!("unknown row {name}"),
    }
}

/// Columns of the table; the last one is the deadline, [`DRAIN`] after the start.
fn columns() -> [Option<In>; 9] {
    [
        Some(In::Start),
        Some(In::AddressesAdded),
        Some(In::AddressesRemoved),
        Some(verdict(true)),
        Some(verdict(false)),
        Some(drain()),
        Some(undrain()),
        Some(stop()),
        None,
    ]
}

#[test]
fn every_state_and_every_input() {
    let up = "announce announced";
    let again = "add starting";
    let gone = "withdraw add starting";
    let down = "withdraw unhealthy";
    let leave = "remove removing";
    let wait = "withdraw stopping";
    let end = "stopped exit";
    #[rustfmt::skip]
    let table: [(&str, [&str; 9]); 12] = [
        //                     start    added        removed  well  ill   drain               undrain      stop        deadline
        ("new",               [again,  "",          "",      "",   "",   "",                 "",          end,        ""]),
        ("starting",          ["",     "unhealthy", "",      "",   "",   "",                 "",          leave,      ""]),
        ("starting, healthy", ["",     up,          "",      "",   "",   "",                 "",          leave,      ""]),
        ("starting, drain",   ["",     "drained",   "",      "",   "",   "",                 "",          leave,      ""]),
        ("unhealthy",         ["",     "",          again,   up,   "",   "drained",          "",          leave,      ""]),
        ("announced",         ["",     "",          gone,    "",   down, "withdraw drained", "",          wait,       ""]),
        ("drained",           ["",     "",          again,   "",   "",   "",                 "unhealthy", leave,      ""]),
        ("drained, healthy",  ["",     "",          again,   "",   "",   "",                 up,          "stopping", ""]),
        ("just withdrawn",    ["",     "",          again,   up,   "",   "drained",          "",          "stopping", ""]),
        ("stopping",          ["",     "",          end,     "",   "",   "",                 "",          leave,      leave]),
        ("removing",          ["",     "",          end,     "",   "",   "",                 "",          "",         ""]),
        ("stopped",           ["",     "",          "",      "",   "",   "",                 "",          "",         ""]),
    ];
    for (row, expected) in table {
        for (column, (input, expected)) in columns().into_iter().zip(expected).enumerate() {
            let mut site = site();
            for input in reach(row) {
                site.handle_input(Time::ZERO, input);
            }
            drained_outputs(&mut site);
            match &input {
                Some(input) => site.handle_input(Time::ZERO, input.clone()),
                None => site.handle_deadline(Time::ZERO + DRAIN),
            }
            let outputs = drained_outputs(&mut site);
            assert_eq!(brief(&outputs), expected, "row {row:?}, column {column}: {input:?}");

            // The same input again changes nothing, except that a second stop ends the wait.
            if let Some(input) = input.filter(|i| !matches!(i, In::Stop { .. })) {
                let repeats_removal = input == In::AddressesRemoved && row == "stopping";
                site.handle_input(Time::ZERO, input);
                let again = brief(&drained_outputs(&mut site));
                assert!(again.is_empty() || repeats_removal, "row {row:?}, column {column}: {again}");
            }
        }
    }
}

#[test]
fn a_graceful_drain_and_every_input() {
    #[rustfmt::skip]
    let expected = [
        (Some(In::Start),            ""),
        (Some(In::AddressesAdded),   ""),
        (Some(In::AddressesRemoved), "withdraw add starting"),
        (Some(verdict(true)),        ""),
        (Some(verdict(false)),       "withdraw drained"),
        (Some(drain()),              ""),
        (Some(undrain()),            "announce announced"),
        (Some(stop()),               "withdraw stopping"),
        (None,                       "withdraw drained"),
    ];
    for (input, expected) in expected {
        let mut site = graceful_site();
        for input in [In::Start, In::AddressesAdded, verdict(true)] {
            site.handle_input(Time::ZERO, input);
        }
        drained_outputs(&mut site);
        site.handle_input(Time::ZERO, drain());
        assert_eq!(brief(&drained_outputs(&mut site)), "graceful draining");
        assert_eq!(site.next_deadline(), Some(Time::ZERO + GRACE));
        match &input {
            Some(input) => site.handle_input(Time::ZERO, input.clone()),
            None => site.handle_deadline(Time::ZERO + GRACE),
        }
        assert_eq!(brief(&drained_outputs(&mut site)), expected, "{input:?}");
    }
}

#[test]
fn a_drain_of_a_site_that_is_not_announced_has_nothing_to_be_graceful_about() {
    let mut site = graceful_site();
    for input in [In::Start, In::AddressesAdded, drain(), verdict(true)] {
        site.handle_input(Time::ZERO, input);
    }
    assert_eq!(brief(&drained_outputs(&mut site)), "add starting unhealthy drained");
}

#[test]
fn a_site_that_leaves_withdraws_when_it_is_empty_or_its_time_is_over() {
    for (empty_at, withdrawn_at) in [(Some(7), 7), (None, 60)] {
        // Its own time, though the service file says: at once.
        let mut site = site();
        for input in [In::Start, In::AddressesAdded, verdict(true)] {
            site.handle_input(Time::ZERO, input);
        }
        drained_outputs(&mut site);
        site.handle_input(Time::ZERO, In::Leave { reason: "disks".into(), within: Duration::from_secs(60) });
        site.handle_input(Time::ZERO, In::Leave { reason: "again".into(), within: Duration::ZERO });
        assert_eq!(brief(&drained_outputs(&mut site)), "graceful draining");
        match empty_at {
            Some(s) => site.handle_input(Time::ZERO + Duration::from_secs(s), In::Emptied),
            None => site.handle_deadline(site.next_deadline().expect("it ends")),
        }
        assert_eq!(brief(&drained_outputs(&mut site)), "withdraw drained");
        assert_eq!(site.status(Time::ZERO).since, Time::ZERO + Duration::from_secs(withdrawn_at));
        // The next drain is an ordinary one.
        let later = Time::ZERO + Duration::from_secs(100);
        site.handle_input(later, undrain());
        assert_eq!(brief(&drained_outputs(&mut site)), "announce announced");
        site.handle_input(later, In::Emptied);
        assert_eq!(brief(&drained_outputs(&mut site)), "");
        site.handle_input(later, drain());
        assert_eq!(brief(&drained_outputs(&mut site)), "withdraw drained");
    }
}

#[test]
fn causes_say_why() {
    let mut site = site();
    for (at, input, cause) in [
        (0, In::Start, "started"),
        (1, In::AddressesAdded, "no verdict yet"),
        (2, verdict(true), "all well"),
        (3, verdict(false), "check answers: refused"),
        (4, drain(), "drained: maintenance"),
        (5, undrain(), "check answers: refused"),
        (6, verdict(true), "all well"),
        (7, drain(), "drained: maintenance"),
        (8, undrain(), "undrained: done"),
        (9, stop(), "SIGTERM"),
        (10, stop(), "told to stop again: SIGTERM"),
        (11, In::AddressesRemoved, "addresses are removed"),
    ] {
        site.handle_input(Time(at), input.clone());
        let status = site.status(Time(at));
        assert_eq!((status.since, status.cause), (Time(at), cause), "{input:?}");
    }
    let withdrawals: Vec<String> = drained_outputs(&mut site)
        .into_iter()
        .filter_map(|out| match out {
            Out::Withdraw { cause } => Some(cause),
            _ => None,
        })
        .collect();
    assert_eq!(withdrawals, ["check answers: refused", "drained: maintenance", "SIGTERM"]);
}

#[test]
fn a_stop_waits_only_for_what_is_left_of_the_drain_time() {
    let at = |s: u64| Time::ZERO + Duration::from_secs(s);
    let mut site = site();
    for input in [In::Start, In::AddressesAdded, verdict(true)] {
        site.handle_input(at(0), input);
    }
    site.handle_input(at(10), drain());
    site.handle_input(at(13), stop());
    assert_eq!(site.next_deadline(), Some(at(15)));
    site.handle_deadline(at(14));
    assert_eq!(site.state(), State::Stopping);
    site.handle_deadline(at(15));
    assert_eq!(site.state(), State::Removing);
    assert_eq!(site.next_deadline(), None);
}

#[test]
fn without_a_drain_time_a_stop_removes_at_once() {
    let mut site = Site::new(SiteConfig::new(Duration::ZERO, AT_ONCE));
    for input in [In::Start, In::AddressesAdded, verdict(true), stop()] {
        site.handle_input(Time(1), input);
    }
    let outputs = brief(&drained_outputs(&mut site));
    assert!(outputs.ends_with("withdraw remove removing"), "{outputs}");
}

/// The world of one site: carries out the outputs and judges them.
struct World {
    now: Time,
    addresses: bool,
    adding: bool,
    removing: bool,
    announced: bool,
    healthy: bool,
    drain: bool,
    stops: u32,
    withdrawn: Option<Time>,
    /// Since when it is announced with GRACEFUL_SHUTDOWN.
    graceful: Option<Time>,
    exited: bool,
}

impl World {
    fn new() -> World {
        World {
            now: Time::ZERO,
            addresses: false,
            adding: false,
            removing: false,
            announced: false,
            healthy: false,
            drain: false,
            stops: 0,
            withdrawn: None,
            graceful: None,
            exited: false,
        }
    }

    fn wants_announcement(&self) -> bool {
        self.addresses && self.healthy && !self.drain && self.stops == 0
    }

    /// A drain may keep the announcement for the grace time, while the site is as fit as for an announcement.
    fn may_be_graceful(&self) -> bool {
        let in_time = self.graceful.is_some_and(|since| self.now < since + GRACE);
        self.addresses && self.healthy && self.drain && self.stops == 0 && in_time
    }

    /// What may happen now, chosen at random: the driver's reports and everything from outside.
    fn random_input(&mut self, rng: &mut Rng) -> In {
        let outside = |rng: &mut Rng| match rng.below(16) {
            0 => In::Start,
            1..=5 => verdict(true),
            6..=9 => verdict(false),
            10..=11 => drain(),
            12..=14 => undrain(),
            _ => stop(),
        };
        let input = match rng.below(3) {
            0 if self.adding => In::AddressesAdded,
            0 if self.removing => In::AddressesRemoved,
            0 if self.addresses && rng.below(4) == 0 => In::AddressesRemoved,
            _ => outside(rng),
        };
        match &input {
            In::AddressesAdded => (self.adding, self.addresses) = (false, true),
            In::AddressesRemoved => (self.removing, self.addresses) = (false, false),
            In::Verdict { level, .. } => self.healthy = *level == Level::Healthy,
            In::Drain { .. } | In::Leave { .. } => self.drain = true,
            In::Undrain { .. } => self.drain = false,
            In::Stop { .. } => self.stops += 1,
            _ => {}
        }
        input
    }

    fn carry_out(&mut self, out: &Out) {
        assert!(!self.exited, "{out:?} after the exit");
        match out {
            Out::AddAddresses => {
                assert!(!self.addresses && self.stops == 0);
                self.adding = true;
            }
            Out::Announce { stance, .. } if stance.leaving => {
                assert!(self.announced && self.graceful.is_none());
                self.graceful = Some(self.now);
                assert!(self.may_be_graceful());
            }
            Out::Announce { .. } => {
                assert!((!self.announced || self.graceful.is_some()) && self.wants_announcement());
                (self.announced, self.graceful) = (true, None);
            }
            Out::Withdraw { .. } => {
                assert!(self.announced && !self.may_be_graceful());
                (self.announced, self.graceful) = (false, None);
                self.withdrawn = Some(self.now);
            }
            Out::RemoveAddresses => {
                assert!(!self.announced && self.stops > 0);
                let waited = self.withdrawn.is_none_or(|at| self.now >= at + DRAIN);
                assert!(waited || self.stops >= 2, "addresses go before the drain time is over");
                self.removing = true;
                self.adding = false;
            }
            Out::State { .. } | Out::Verify | Out::LastSite { .. } | Out::Probe { .. } => {}
            Out::Exit => {
                assert!(!self.announced && self.stops > 0 && !self.addresses);
                self.exited = true;
            }
        }
    }
}

/// Plays a random life; returns all inputs and outputs.
fn random_life(seed: u64) -> String {
    let mut rng = Rng::new(seed);
    let mut world = World::new();
    let mut site = if seed.is_multiple_of(2) { site() } else { graceful_site() };
    let mut log = String::new();
    site.handle_input(Time::ZERO, In::Start);
    for _ in 0..60 {
        for out in drained_outputs(&mut site) {
            world.carry_out(&out);
            log += &serde_json::to_string(&out).unwrap();
        }
        let wanted = world.wants_announcement() || world.may_be_graceful();
        assert_eq!(world.announced, wanted, "seed {seed}: {log}");
        let state = site.state();
        assert_eq!(world.announced, state.is_announced(), "seed {seed}: {log}");
        assert_eq!(world.graceful.is_some(), state == State::Draining, "seed {seed}: {log}");
        let step = Duration::from_millis(rng.below(2500));
        if let Some(deadline) = site.next_deadline().filter(|d| *d <= world.now + step) {
            world.now = deadline;
            site.handle_deadline(deadline);
        } else {
            world.now = world.now + step;
            let input = world.random_input(&mut rng);
            log += &serde_json::to_string(&input).unwrap();
            site.handle_input(world.now, input);
        }
    }
    log
}

#[test]
fn random_lives_keep_the_order_that_is_safety() {
    for seed in 0..3000 {
        let log = random_life(seed);
        if seed % 100 == 0 {
            assert_eq!(log, random_life(seed), "seed {seed} is not deterministic");
        }
    }
}

#[test]
fn a_stop_always_ends_in_an_exit() {
    for seed in 0..500 {
        let mut rng = Rng::new(seed);
        let mut world = World::new();
        let mut site = if seed.is_multiple_of(2) { site() } else { graceful_site() };
        site.handle_input(Time::ZERO, In::Start);
        for _ in 0..rng.below(40) {
            drained_outputs(&mut site).iter().for_each(|out| world.carry_out(out));
            let input = world.random_input(&mut rng);
            site.handle_input(world.now, input);
        }
        drained_outputs(&mut site).iter().for_each(|out| world.carry_out(out));
        site.handle_input(world.now, stop());
        world.stops += 1;
        for _ in 0..4 {
            drained_outputs(&mut site).iter().for_each(|out| world.carry_out(out));
            if let Some(deadline) = site.next_deadline() {
                world.now = deadline;
                site.handle_deadline(deadline);
            } else if world.removing {
                (world.removing, world.addresses) = (false, false);
                site.handle_input(world.now, In::AddressesRemoved);
            }
        }
        assert!(world.exited, "seed {seed}");
    }
}

#[test]
fn inputs_and_outputs_survive_a_recording() {
    for input in columns().into_iter().flatten() {
        let json = serde_json::to_string(&input).unwrap();
        assert_eq!(serde_json::from_str::<In>(&json).unwrap(), input, "{json}");
    }
    let mut site = site();
    for input in reach("stopped").into_iter().chain(reach("stopping")) {
        site.handle_input(Time::ZERO, input);
    }
    let mut draining = graceful_site();
    for input in reach("drained, healthy") {
        draining.handle_input(Time::ZERO, input);
    }
    for out in drained_outputs(&mut site).into_iter().chain(drained_outputs(&mut draining)) {
        let json = serde_json::to_string(&out).unwrap();
        assert_eq!(serde_json::from_str::<Out>(&json).unwrap(), out, "{json}");
    }
}
