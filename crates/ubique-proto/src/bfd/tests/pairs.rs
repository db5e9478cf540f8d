//! Two sides on one virtual clock, with delay, loss, reordering, late drivers, link cuts.

use super::*;

/// Seeds played; a failure names its own.
const SEEDS: u64 = 10_000;

struct Side {
    bfd: Bfd,
    config: SessionConfig,
    /// Datagrams on their way to this side: arrival, content.
    queue: Vec<(Time, Vec<u8>)>,
    /// The driver does not run before.
    asleep_until: Time,
    state: State,
    /// When it first ceased to be Up since this was cleared, and why.
    down: Option<(Time, Cause)>,
    /// The other side's last packet that arrived.
    heard: Time,
}

struct World {
    seed: u64,
    rng: Rng,
    now: Time,
    sides: [Side; 2],
    /// Of 1000.
    loss: u64,
    delay: Duration,
    spread: Duration,
    cut: bool,
}

fn address(side: usize) -> Remote {
    Remote { address: Ipv4Addr::new(192, 0, 2, side as u8).into(), ..remote() }
}

impl World {
    fn new(seed: u64) -> World {
        let mut rng = Rng::new(seed);
        let start = Time(1_000_000_000_000);
        let mut side = |number: usize, passive: bool| {
            let config = SessionConfig {
                remote: address(1 - number),
                interval: MS * [10, 50, 100, 300][rng.below(4) as usize],
                receive: MS * [10, 50, 100, 300][rng.below(4) as usize],
                multiplier: 1 + rng.below(5) as u8,
                ttl_min: 255,
                role: if passive { Role::Passive } else { Role::Active },
            };
            let mut bfd = Bfd::new(rng.next_u64());
            bfd.handle_input(start, In::Add { session: S, config });
            Side { bfd, config, queue: Vec::new(), asleep_until: start, state: State::Down, down: None, heard: start }
        };
        let passive = seed % 7;
        let sides = [side(0, passive == 1), side(1, passive == 2)];
        World { seed, rng, now: start, sides, loss: 0, delay: MS, spread: Duration::ZERO, cut: false }
    }

    fn drain(&mut self, number: usize) {
        while let Some(out) = self.sides[number].bfd.poll_output() {
            match out {
                Out::Send { bytes, .. } => {
                    if self.cut || self.rng.below(1000) < self.loss {
                        continue;
                    }
                    let at = self.now + self.delay + self.spread.mul_f64(self.rng.next_f64());
                    self.sides[1 - number].queue.push((at, bytes));
                }
                Out::State { from, to, cause, .. } => {
                    let side = &mut self.sides[number];
                    side.state = to;
                    if from == State::Up {
                        side.down.get_or_insert((self.now, cause));
                    }
                }
                Out::Notice { notice, .. } => panic!("seed {}: {notice:?}", self.seed),
            }
        }
    }

    /// When a side has something to do.
    fn due(&self, number: usize) -> Option<Time> {
        let side = &self.sides[number];
        let arrival = side.queue.iter().map(|(at, _)| *at).min();
        [arrival, side.bfd.next_deadline()].into_iter().flatten().min().map(|at| at.max(side.asleep_until))
    }

    /// As a driver does: what waits in the socket first, by its time of arrival, then deadlines.
    fn step(&mut self, number: usize) {
        let (now, from) = (self.now, address(1 - number));
        let side = &mut self.sides[number];
        side.queue.sort_by_key(|(at, _)| *at);
        let waiting = side.queue.iter().take_while(|(at, _)| *at <= now).count();
        for (received, bytes) in side.queue.drain(..waiting) {
            side.heard = side.heard.max(received);
            side.bfd.handle_input(now, In::Datagram { from, ttl: Some(255), received, bytes });
        }
        if side.bfd.next_deadline().is_some_and(|at| at <= now) {
            side.bfd.handle_deadline(now);
        }
        self.drain(number);
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        self.drain(0);
        self.drain(1);
        while let Some((at, number)) =
            [0, 1].into_iter().filter_map(|n| Some((self.due(n)?, n))).min().filter(|(at, _)| *at <= end)
        {
            self.now = self.now.max(at);
            self.step(number);
        }
        self.now = end;
    }

    /// Until both are Up, or for so long.
    fn run_until_up(&mut self, limit: Duration) -> bool {
        let end = self.now + limit;
        while !self.both_up() && self.now < end {
            self.run(10 * MS);
        }
        self.both_up()
    }

    fn both_up(&self) -> bool {
        self.sides.iter().all(|s| s.state == State::Up)
    }

    /// The detection time of a side, as both configurations make it.
    fn detection(&self, number: usize) -> Duration {
        let (ours, theirs) = (&self.sides[number].config, &self.sides[1 - number].config);
        ours.receive.max(theirs.interval) * u32::from(theirs.multiplier)
    }
}

/// One life: up, quiet, a cut, back, an operator, a pause.
fn play(seed: u64) {
    let mut w = World::new(seed);
    // Bad weather while they find each other.
    w.loss = w.rng.below(300);
    w.spread = MS * w.rng.below(30) as u32;
    w.run(Duration::from_secs(3));
    // 10 ms x 1 bears a millisecond: 90 % of the interval, this, and a late driver.
    (w.loss, w.spread) = (0, Duration::from_micros(250 * w.rng.below(3)));
    assert!(w.run_until_up(Duration::from_secs(12)), "seed {seed}: not up in fair weather");
    // What was on its way in bad weather has arrived, and the intervals are agreed on.
    w.run(500 * MS);
    assert!(w.run_until_up(Duration::from_secs(12)), "seed {seed}: not up in fair weather");
    w.run(500 * MS);
    // Fair weather: drivers a little late, nothing lost, nobody goes down.
    w.sides.iter_mut().for_each(|s| s.down = None);
    for _ in 0..20 {
        let side = w.rng.below(2) as usize;
        let late = Duration::from_micros(w.rng.below(400));
        w.sides[side].asleep_until = w.now + late;
        let pause = 1 + w.rng.below(100) as u32;
        w.run(MS * pause);
    }
    assert!(w.sides.iter().all(|s| s.down.is_none()), "seed {seed}: a false down");
    // A silent cut: each side notices one detection time after the last packet it got, and not later.
    w.cut = true;
    w.run(Duration::from_secs(2));
    for number in [0, 1] {
        let side = &w.sides[number];
        let (at, cause) = side.down.unwrap_or_else(|| panic!("seed {seed}: side {number} never noticed"));
        assert_eq!(cause, Cause::DetectionTimeExpired, "seed {seed}");
        assert_eq!(at, side.heard + w.detection(number), "seed {seed}: side {number}");
    }
    w.cut = false;
    assert!(w.run_until_up(Duration::from_secs(8)), "seed {seed}: not back after the cut");
    w.run(200 * MS);
    // An operator takes one side down and up again: the other knows why.
    w.sides[1].down = None;
    let now = w.now;
    w.sides[0].bfd.handle_input(now, In::Disable { session: S });
    w.run(500 * MS);
    assert_eq!(w.sides[1].down.map(|(_, cause)| cause), Some(Cause::NeighbourAdminDown), "seed {seed}");
    let now = w.now;
    w.sides[0].bfd.handle_input(now, In::Enable { session: S });
    assert!(w.run_until_up(Duration::from_secs(9)), "seed {seed}: not back after the operator");
    w.run(200 * MS);
    // One side is paused for long; its socket keeps what comes. It must not think the other lost.
    w.sides[0].down = None;
    let pause = MS * (200 + w.rng.below(2000) as u32);
    w.sides[0].asleep_until = w.now + pause;
    w.run(pause + 500 * MS);
    let cause = w.sides[0].down.map(|(_, cause)| cause);
    assert!(!matches!(cause, Some(Cause::DetectionTimeExpired)), "seed {seed}: a pause looked like a loss");
    assert!(w.run_until_up(Duration::from_secs(12)), "seed {seed}: not back after the pause");
}

#[test]
fn two_sides_in_all_weathers() {
    (0..SEEDS).for_each(play);
}
