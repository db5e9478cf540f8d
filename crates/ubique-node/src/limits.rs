//! Limits of the process, and lines of the log that others can cause.

use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use ubique_proto::Time;

/// Descriptors an agent wants: several for each of the most neighbours it may have, and plenty beside. The usual soft limit
/// of 1,024 is for programs that use `select`.
pub(crate) const DESCRIPTORS: u64 = 16 << 10;

/// Raises the soft limit of open files, as far as the hard one lets it; never lowers it.
pub(crate) fn raise_descriptors(wanted: u64) {
    let limit = getrlimit(Resource::Nofile);
    let current = limit.maximum.map_or(wanted, |most| most.min(wanted));
    if limit.current.is_some_and(|soft| soft < current) {
        // Without the right to it we go as far as the limit goes.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(current), maximum: limit.maximum });
    }
}

/// Files that may be open.
pub(crate) fn descriptors() -> usize {
    getrlimit(Resource::Nofile).current.and_then(|soft| usize::try_from(soft).ok()).unwrap_or(usize::MAX)
}

/// Lines of one kind in [`EVERY`].
const LINES: u32 = 10;

/// Time in which so many lines are written.
const EVERY: Duration = Duration::from_secs(10);

/// Lines that somebody else can cause as often as he likes: some are written, the others counted.
#[derive(Debug, Default)]
pub(crate) struct Throttle {
    began: Option<Time>,
    written: u32,
    unwritten: u64,
}

impl Throttle {
    /// Whether a line is written now: with the number of those that were not since the last one.
    pub(crate) fn admit(&mut self, now: Time) -> Option<u64> {
        if self.began.is_none_or(|at| now.since(at) >= EVERY) {
            self.began = Some(now);
            self.written = 0;
        }
        if self.written == LINES {
            self.unwritten += 1;
            return None;
        }
        self.written += 1;
        Some(std::mem::take(&mut self.unwritten))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_lines_is_some_lines_and_a_number() {
        let mut throttle = Throttle::default();
        let at = |ms: u64| Time(1) + Duration::from_millis(ms);
        let written = (0..1000).filter(|ms| throttle.admit(at(*ms)) == Some(0)).count();
        assert_eq!(written, LINES as usize);
        assert_eq!(throttle.admit(at(10_000)), Some(990));
        assert_eq!(throttle.admit(at(10_001)), Some(0));
    }

    #[test]
    fn the_limit_of_files_is_only_raised() {
        let before = getrlimit(Resource::Nofile);
        raise_descriptors(1);
        assert_eq!(getrlimit(Resource::Nofile), before);
        raise_descriptors(u64::MAX);
        assert_eq!(getrlimit(Resource::Nofile).current, before.maximum.or(before.current));
    }
}
