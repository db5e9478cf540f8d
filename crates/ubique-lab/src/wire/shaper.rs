//! The pure core of the wire: which frame leaves when. No sockets, no clock.
//!
//! Each direction of each link is a queue in order of departure: its delay is constant, so frames leave as they came,
//! and a heap holds only the head of each queue. Frames lie in the slots of one pool that grows up to a limit and is
//! used again; nothing is allocated for a frame once the pool and queues have their size.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use serde::{Deserialize, Serialize};
use ubique_proto::rng::Rng;

/// Largest frame: an Ethernet header and an MTU of 1500, with room to spare.
pub const FRAME_BYTES: usize = 2048;
/// Most frames under way on all links together: 64 MiB.
pub const MAX_FRAMES: usize = 32_768;
/// Most frames under way in one direction of one link, so that a flood there leaves room for the others.
pub const MAX_FRAMES_PER_DIRECTION: usize = 8_192;
/// Longest queue before a link of limited rate, as time: what a router's buffer holds.
pub const RATE_QUEUE_NS: u64 = 100_000_000;
/// Frames handed over for sending at once.
pub const SEND_BATCH: usize = 64;
/// A frame that leaves so much after its time counts as late.
pub const LATE_NS: u64 = 1_000_000;
/// Slots added to the pool at a time.
const CHUNK_SLOTS: usize = 256;

/// What one direction does to frames.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub struct Shape {
    /// One-way delay.
    pub delay_ns: u64,
    /// Probability of loss.
    pub loss: f64,
    /// Bits per second; `None`: unlimited.
    pub rate_bits_per_s: Option<u64>,
    /// Nothing passes.
    pub cut: bool,
}

/// What happened to frames so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Counters {
    /// Frames that came in.
    pub received: u64,
    /// Frames that left.
    pub delivered: u64,
    /// Dropped by the loss of their link.
    pub lost: u64,
    /// Dropped because their link was cut.
    pub cut: u64,
    /// Dropped because a queue or the pool was full, or a frame too long.
    pub overflow: u64,
    /// Dropped because the kernel did not take them.
    pub refused: u64,
    /// Delivered more than [`LATE_NS`] after their time: the machine is too busy for exact delays.
    pub late: u64,
}

struct Queued {
    at_ns: u64,
    slot: u32,
    length: u16,
}

struct Direction {
    shape: Shape,
    rng: Rng,
    /// Until when the transmitter is busy with earlier frames.
    busy_until_ns: u64,
    /// Departure of the latest frame: a shorter delay must not reorder.
    latest_ns: u64,
    queue: VecDeque<Queued>,
}

/// All directions of all links.
pub struct Shaper {
    directions: Vec<Direction>,
    pool: Pool,
    /// Departure of the head of each queue that is not empty.
    heads: BinaryHeap<Reverse<(u64, u32)>>,
    /// What happened so far.
    pub counters: Counters,
}

impl Shaper {
    /// Directions with these shapes; losses follow from the seed.
    pub fn new(shapes: impl IntoIterator<Item = Shape>, seed: u64) -> Shaper {
        let direction = |(i, shape): (u64, Shape)| Direction {
            shape,
            rng: Rng::new(seed ^ Rng::new(i).next_u64()),
            busy_until_ns: 0,
            latest_ns: 0,
            queue: VecDeque::new(),
        };
        let directions: Vec<Direction> = (0..).zip(shapes).map(direction).collect();
        let heads = BinaryHeap::with_capacity(directions.len());
        Shaper { directions, pool: Pool::default(), heads, counters: Counters::default() }
    }

    /// The shape of a direction.
    pub fn shape_mut(&mut self, direction: usize) -> Option<&mut Shape> {
        self.directions.get_mut(direction).map(|d| &mut d.shape)
    }

    /// A frame enters a direction.
    pub fn offer(&mut self, direction: usize, now_ns: u64, frame: &[u8]) {
        let Some(d) = self.directions.get_mut(direction) else {
            return;
        };
        self.counters.received += 1;
        if d.shape.cut {
            self.counters.cut += 1;
            return;
        }
        if d.shape.loss > 0.0 && d.rng.next_f64() < d.shape.loss {
            self.counters.lost += 1;
            return;
        }
        let Some(sent_ns) = d.transmit(now_ns, frame.len()) else {
            self.counters.overflow += 1;
            return;
        };
        let stored = if d.queue.len() < MAX_FRAMES_PER_DIRECTION { self.pool.store(frame) } else { None };
        let Some((slot, length)) = stored else {
            self.counters.overflow += 1;
            return;
        };
        let at_ns = sent_ns.saturating_add(d.shape.delay_ns).max(d.latest_ns);
        d.latest_ns = at_ns;
        if d.queue.is_empty() {
            self.heads.push(Reverse((at_ns, direction as u32)));
        }
        d.queue.push_back(Queued { at_ns, slot, length });
    }

    /// When the next frame leaves.
    pub fn next_deadline_ns(&self) -> Option<u64> {
        self.heads.peek().map(|Reverse((at, _))| *at)
    }

    /// Hands every frame that is due to `send` in batches, earliest direction first; `send` returns how many it took.
    pub fn deliver_due(&mut self, now_ns: u64, mut send: impl FnMut(usize, &[&[u8]]) -> usize) {
        while let Some(&Reverse((at, direction))) = self.heads.peek() {
            if at > now_ns {
                return;
            }
            self.heads.pop();
            self.deliver(direction as usize, now_ns, &mut send);
            if let Some(head) = self.directions[direction as usize].queue.front() {
                self.heads.push(Reverse((head.at_ns, direction)));
            }
        }
    }

    fn deliver(&mut self, direction: usize, now_ns: u64, send: &mut impl FnMut(usize, &[&[u8]]) -> usize) {
        let d = &mut self.directions[direction];
        let mut frames: [&[u8]; SEND_BATCH] = [&[]; SEND_BATCH];
        let mut count = 0;
        for queued in d.queue.iter().take(SEND_BATCH).take_while(|q| q.at_ns <= now_ns) {
            frames[count] = self.pool.frame(queued.slot, queued.length);
            count += 1;
            self.counters.late += u64::from(now_ns - queued.at_ns > LATE_NS);
        }
        if d.shape.cut {
            self.counters.cut += count as u64;
        } else {
            let taken = send(direction, &frames[..count]).min(count);
            self.counters.delivered += taken as u64;
            self.counters.refused += (count - taken) as u64;
        }
        for queued in d.queue.drain(..count) {
            self.pool.free.push(queued.slot);
        }
    }
}

impl Direction {
    /// When the last bit has left, at the link's rate; `None`: the queue before it is full.
    fn transmit(&mut self, now_ns: u64, bytes: usize) -> Option<u64> {
        let Some(rate) = self.shape.rate_bits_per_s else {
            return Some(now_ns);
        };
        let start = self.busy_until_ns.max(now_ns);
        if start - now_ns > RATE_QUEUE_NS {
            return None;
        }
        let time = u128::from(bytes as u64) * 8 * 1_000_000_000 / u128::from(rate.max(1));
        self.busy_until_ns = start.saturating_add(u64::try_from(time).unwrap_or(u64::MAX));
        Some(self.busy_until_ns)
    }
}

/// Slots for frames, in chunks; a free list says which are unused.
#[derive(Default)]
struct Pool {
    chunks: Vec<Box<[u8]>>,
    free: Vec<u32>,
}

impl Pool {
    /// Copies a frame into a free slot; `None`: too long, or every slot is used.
    fn store(&mut self, frame: &[u8]) -> Option<(u32, u16)> {
        if frame.len() > FRAME_BYTES {
            return None;
        }
        if self.free.is_empty() {
            let first = self.chunks.len() * CHUNK_SLOTS;
            if first >= MAX_FRAMES {
                return None;
            }
            self.chunks.push(vec![0; CHUNK_SLOTS * FRAME_BYTES].into_boxed_slice());
            self.free.reserve(first + CHUNK_SLOTS);
            self.free.extend((first as u32..(first + CHUNK_SLOTS) as u32).rev());
        }
        let slot = self.free.pop()?;
        let start = (slot as usize % CHUNK_SLOTS) * FRAME_BYTES;
        self.chunks[slot as usize / CHUNK_SLOTS][start..start + frame.len()].copy_from_slice(frame);
        Some((slot, frame.len() as u16))
    }

    fn frame(&self, slot: u32, length: u16) -> &[u8] {
        let start = (slot as usize % CHUNK_SLOTS) * FRAME_BYTES;
        &self.chunks[slot as usize / CHUNK_SLOTS][start..start + usize::from(length)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn delayed(delay_ms: u64) -> Shape {
        Shape { delay_ns: delay_ms * MS, ..Shape::default() }
    }

    /// Frames that leave at `now`, as (direction, bytes).
    fn due(shaper: &mut Shaper, now_ns: u64) -> Vec<(usize, Vec<u8>)> {
        let mut out = Vec::new();
        shaper.deliver_due(now_ns, |d, frames| {
            out.extend(frames.iter().map(|f| (d, f.to_vec())));
            frames.len()
        });
        out
    }

    #[test]
    fn frames_leave_at_their_time_and_in_order() {
        let mut s = Shaper::new([delayed(10), delayed(3)], 1);
        s.offer(0, 0, b"a");
        s.offer(0, MS, b"b");
        s.offer(1, MS, b"c");
        assert_eq!(s.next_deadline_ns(), Some(4 * MS));
        assert!(due(&mut s, 4 * MS - 1).is_empty());
        assert_eq!(due(&mut s, 4 * MS), [(1, b"c".to_vec())]);
        assert_eq!(due(&mut s, 10 * MS), [(0, b"a".to_vec())]);
        assert_eq!(due(&mut s, 50 * MS), [(0, b"b".to_vec())]);
        assert_eq!((s.next_deadline_ns(), s.counters.delivered, s.counters.late), (None, 3, 1));
    }

    #[test]
    fn a_shorter_delay_does_not_reorder() {
        let mut s = Shaper::new([delayed(10)], 1);
        s.offer(0, 0, b"a");
        s.shape_mut(0).unwrap().delay_ns = MS;
        s.offer(0, MS, b"b");
        assert!(due(&mut s, 9 * MS).is_empty());
        assert_eq!(due(&mut s, 10 * MS), [(0, b"a".to_vec()), (0, b"b".to_vec())]);
    }

    #[test]
    fn loss_follows_the_seed_and_the_probability() {
        let run = |seed| {
            let mut s = Shaper::new([Shape { loss: 0.2, ..Shape::default() }], seed);
            for i in 0..10_000u32 {
                s.offer(0, u64::from(i), &i.to_be_bytes());
                s.deliver_due(u64::from(i), |_, f| f.len());
            }
            s.counters
        };
        assert_eq!(run(7), run(7));
        assert_ne!(run(7).lost, run(8).lost);
        // Four standard deviations of a binomial distribution: 160.
        assert!((1840..=2160).contains(&run(7).lost), "{}", run(7).lost);
    }

    #[test]
    fn a_cut_drops_what_comes_and_what_is_under_way() {
        let mut s = Shaper::new([delayed(10)], 1);
        s.offer(0, 0, b"under way");
        s.shape_mut(0).unwrap().cut = true;
        s.offer(0, MS, b"new");
        assert!(due(&mut s, 20 * MS).is_empty());
        assert_eq!(s.counters.cut, 2);
        s.shape_mut(0).unwrap().cut = false;
        s.offer(0, 30 * MS, b"after");
        assert_eq!(due(&mut s, 40 * MS).len(), 1);
    }

    #[test]
    fn a_rate_spaces_frames_and_bounds_the_queue() {
        // 1000 bytes at 8 Mbit/s take 1 ms.
        let mut s = Shaper::new([Shape { rate_bits_per_s: Some(8_000_000), ..delayed(5) }], 1);
        for _ in 0..150 {
            s.offer(0, 0, &[0; 1000]);
        }
        assert_eq!(s.counters.overflow, 49, "100 ms of queue and the frame in transmission are kept");
        assert_eq!(s.next_deadline_ns(), Some(6 * MS));
        assert_eq!(due(&mut s, 6 * MS).len(), 1);
        assert_eq!(due(&mut s, 8 * MS).len(), 2);
    }

    #[test]
    fn memory_is_bounded_and_used_again() {
        let mut s = Shaper::new([delayed(1), delayed(1), delayed(1), delayed(1), delayed(1)], 1);
        for round in 0..3 {
            for i in 0..5 * MAX_FRAMES_PER_DIRECTION {
                s.offer(i % 5, round * 10 * MS, &[0; 100]);
            }
            let kept: usize = due(&mut s, round * 10 * MS + MS).len();
            assert_eq!(kept, MAX_FRAMES);
        }
        assert_eq!(s.pool.chunks.len(), MAX_FRAMES / CHUNK_SLOTS);
        s.offer(0, 0, &[0; FRAME_BYTES + 1]);
        assert_eq!(s.counters.overflow, 3 * MAX_FRAMES_PER_DIRECTION as u64 + 1);
    }

    #[test]
    fn what_the_kernel_refuses_is_counted() {
        let mut s = Shaper::new([delayed(0)], 1);
        for _ in 0..4 {
            s.offer(0, 0, b"x");
        }
        s.deliver_due(0, |_, _| 1);
        assert_eq!((s.counters.delivered, s.counters.refused), (1, 3));
    }
}
