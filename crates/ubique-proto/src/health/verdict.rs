//! From the states of all checks to the level of the site, and to overload.

use ubique_model::policy::Level;

use super::check::Check;
use super::{GroupConfig, GroupStatus, Health, Out, Role};
use crate::Time;

impl GroupConfig {
    fn level(&self, up: u32) -> Level {
        if up >= self.healthy {
            Level::Healthy
        } else if up >= self.degraded {
            Level::Degraded
        } else {
            Level::Failed
        }
    }
}

impl GroupStatus<'_> {
    /// In words: what counts and what would be needed.
    fn words(&self) -> String {
        let GroupConfig { name, healthy, degraded } = self.config;
        let needed = match self.level {
            Level::Failed if degraded < healthy => format!("{degraded} needed for degraded"),
            _ => format!("{healthy} needed"),
        };
        format!("group {name}: {} of {} up, {needed}", self.up, self.weight)
    }
}

impl Health {
    /// The best level the site can reach before a check that was never up has failed `fall` times: [`Level::Failed`]
    /// when no poll to come can change it soon.
    pub fn best_case(&self) -> Level {
        self.worst(|c| c.up || c.is_undecided())
    }

    /// A group as it would be if these checks were up.
    pub(super) fn group_status(&self, index: usize, up: impl Fn(&Check) -> bool) -> GroupStatus<'_> {
        let config = &self.groups[index];
        let (mut total, mut sum) = (0u32, 0u32);
        for check in &self.checks {
            if let Role::Member { group, weight } = &check.config.role
                && *group == config.name
            {
                total = total.saturating_add(*weight);
                sum = sum.saturating_add(if up(check) { *weight } else { 0 });
            }
        }
        GroupStatus { config, level: config.level(sum), up: sum, weight: total }
    }

    /// The level of a check by itself: what counts in a group says nothing alone.
    fn level_of(&self, check: &Check, up: bool) -> Level {
        match &check.config.role {
            _ if up => Level::Healthy,
            Role::Alone(level) => *level,
            Role::Member { group, .. } if self.groups.iter().any(|g| g.name == *group) => Level::Healthy,
            Role::Member { .. } => Level::Failed,
            Role::Load { .. } => Level::Healthy,
        }
    }

    fn worst(&self, up: impl Fn(&Check) -> bool) -> Level {
        let checks = self.checks.iter().map(|c| self.level_of(c, up(c)));
        let groups = (0..self.groups.len()).map(|index| self.group_status(index, &up).level);
        checks.chain(groups).max().unwrap_or(Level::Healthy)
    }

    /// Why the site is at this level, which is not healthy: the check or group that decides.
    fn decided_by(&self, level: Level) -> String {
        if let Some(check) = self.checks.iter().find(|c| self.level_of(c, c.up) == level) {
            return check.cause.clone();
        }
        let groups = (0..self.groups.len()).map(|index| self.group_status(index, |c| c.up));
        let Some(group) = groups.into_iter().find(|g| g.level == level) else {
            return String::new();
        };
        let down = self
            .checks
            .iter()
            .filter(|c| !c.up)
            .filter(|c| matches!(&c.config.role, Role::Member { group: of, .. } if *of == group.config.name));
        // The last one to go down is the news.
        match down.max_by_key(|c| c.since) {
            Some(check) => format!("{}; {}", group.words(), check.cause),
            None => group.words(),
        }
    }

    /// Whether all that is down and speaks for this level was answered.
    fn is_answered(&self, level: Level) -> bool {
        let groups: Vec<_> = (0..self.groups.len()).map(|index| self.group_status(index, |c| c.up)).collect();
        let speaks = |c: &&Check| match &c.config.role {
            _ if c.up => false,
            Role::Member { group, .. } if self.groups.iter().any(|g| g.name == *group) => {
                groups.iter().any(|g| g.level == level && g.config.name == *group)
            }
            _ => self.level_of(c, false) == level,
        };
        let mut speaking = self.checks.iter().filter(speaks).peekable();
        speaking.peek().is_some() && speaking.all(|c| c.answered)
    }

    pub(super) fn judge(&mut self, now: Time, news: &str) {
        let level = self.worst(|c| c.up);
        let answers = level == Level::Failed && self.is_answered(level);
        if level == self.level && answers == self.answers {
            return;
        }
        self.answers = answers;
        if level == self.level {
            self.outputs.push_back(Out::Verdict { level, answers, cause: self.cause.clone() });
            return;
        }
        let counting = self.checks.iter().filter(|c| !c.is_load()).count();
        let all_up = self.checks.iter().all(|c| c.up || c.is_load());
        self.cause = match level {
            Level::Healthy if !all_up => format!("enough of {counting} checks are up; {news}"),
            Level::Healthy if counting > 1 => format!("all {counting} checks are up; {news}"),
            Level::Healthy => news.to_owned(),
            level => self.decided_by(level),
        };
        self.level = level;
        self.since = now;
        self.outputs.push_back(Out::Verdict { level, answers, cause: self.cause.clone() });
        if level == Level::Failed {
            self.end_presumptions(now);
        }
    }

    /// The way back is by polls that succeed, not by checks that were new when the site failed.
    fn end_presumptions(&mut self, now: Time) {
        for (index, check) in self.checks.iter_mut().enumerate().filter(|(_, c)| c.is_presumed()) {
            let cause = format!("check {}: no poll has succeeded yet", check.config.name);
            check.turn(now, false, &cause);
            self.outputs.push_back(Out::Check { check: index, up: false, cause });
        }
    }

    pub(super) fn judge_load(&mut self, news: &str) {
        let overloaded = self.checks.iter().filter(|c| c.is_load()).find(|c| !c.up);
        let on = overloaded.is_some();
        if on == self.overload {
            return;
        }
        self.overload = on;
        self.overload_cause = overloaded.map_or_else(|| news.to_owned(), |c| c.cause.clone());
        self.outputs.push_back(Out::Overload { on, cause: self.overload_cause.clone() });
    }
}
