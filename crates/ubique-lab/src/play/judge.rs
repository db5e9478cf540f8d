//! Expectations of a step against what came out: pure.

use std::collections::BTreeMap;
use std::time::Duration;

use ubique_model::scenario::Expect;

use crate::report::{Expectation, SessionFigures};

/// What came out of a step.
#[derive(Clone, Debug, Default)]
pub(super) struct Outcome<'a> {
    /// Label of the step.
    pub label: &'a str,
    /// Site of the step.
    pub site: Option<&'a str>,
    /// Median outage of the vantage points that were on the site, ms.
    pub median_ms: Option<f64>,
    /// Worst outage of any vantage point, ms.
    pub worst_ms: Option<f64>,
    /// Vantage points of the site that were not answered again.
    pub unrecovered: usize,
    /// Vantage points anywhere that were not answered again.
    pub open: usize,
    /// Queries lost by all vantage points.
    pub lost: u64,
    /// Sessions, where there are some.
    pub sessions: Option<&'a SessionFigures>,
    /// Those of the control run, where it was played.
    pub control: Option<&'a SessionFigures>,
    /// Vantage point → its site, for each service address, at the end of the step.
    pub landings: Vec<BTreeMap<&'a str, Option<&'a str>>>,
}

/// Every expectation of the step, fulfilled or not.
pub(super) fn judge(expect: &Expect, outcome: &Outcome) -> Vec<Expectation> {
    let mut verdicts = Verdicts { step: outcome.label, list: Vec::new() };
    let outages = [
        ("outage-median", expect.outage_median, outcome.median_ms, outcome.unrecovered),
        ("outage-worst", expect.outage_worst, outcome.worst_ms, outcome.open),
    ];
    for (what, limit, actual, open) in outages {
        if let Some(limit) = limit {
            verdicts.outage(what, limit, actual, open);
        }
    }
    if let Some(limit) = expect.lost {
        let ok = outcome.lost <= limit;
        verdicts.push("lost", format!("at most {limit}"), outcome.lost.to_string(), ok);
    }
    verdicts.sessions(expect, outcome);
    if let Some(wanted) = expect.answered {
        verdicts.answered(wanted, outcome);
    }
    if let (Some(wanted), Some(site)) = (expect.evacuated, outcome.site) {
        verdicts.evacuated(wanted, site, outcome);
    }
    for (vantage, wanted) in &expect.lands {
        let lands =
            |map: &BTreeMap<&str, Option<&str>>| map.get(vantage.as_str()).copied().flatten().map(str::to_string);
        let actual: Vec<Option<String>> = outcome.landings.iter().map(lands).collect();
        let ok = !actual.is_empty() && actual.iter().all(|site| site.as_deref() == Some(wanted));
        let actual: Vec<String> = actual.into_iter().map(|site| site.unwrap_or_else(|| "nowhere".into())).collect();
        verdicts.push(&format!("lands.{vantage}"), wanted.clone(), actual.join(", "), ok);
    }
    verdicts.list
}

struct Verdicts<'a> {
    step: &'a str,
    list: Vec<Expectation>,
}

impl Verdicts<'_> {
    fn push(&mut self, what: &str, expected: String, actual: String, ok: bool) {
        self.list.push(Expectation { step: self.step.to_string(), what: what.to_string(), expected, actual, ok });
    }

    fn outage(&mut self, what: &str, limit: Duration, actual_ms: Option<f64>, unrecovered: usize) {
        let limit_ms = limit.as_secs_f64() * 1000.0;
        let (actual, ok) = match (actual_ms, unrecovered) {
            (Some(ms), 0) => (format!("{ms:.0} ms"), ms <= limit_ms),
            (Some(ms), n) => (format!("{ms:.0} ms, {n} vantage points not answered again"), false),
            (None, _) => ("nobody landed there".to_string(), false),
        };
        self.push(what, format!("at most {limit_ms:.0} ms"), actual, ok);
    }

    /// Sessions that were not measured are what nobody expects.
    fn sessions(&mut self, expect: &Expect, outcome: &Outcome) {
        let lost = |of: Option<&SessionFigures>| match of {
            Some(figures) if figures.lost > 0 => format!("{} ({})", figures.lost, figures.ways()),
            Some(_) => "0".to_owned(),
            None => "not measured".to_owned(),
        };
        let (sessions, control) = (outcome.sessions, outcome.control);
        if let Some(limit) = expect.sessions_lost {
            let ok = sessions.is_some_and(|s| s.sessions > 0 && s.lost <= limit);
            self.push("sessions-lost", format!("at most {limit}"), lost(sessions), ok);
        }
        if let Some(limit) = expect.sessions_stall {
            let limit_ms = limit.as_secs_f64() * 1000.0;
            let longest = sessions.map(|s| s.longest_wait_ms);
            let actual = longest.map_or("not measured".to_owned(), |ms| format!("{ms:.0} ms"));
            let ok = longest.is_some_and(|ms| ms <= limit_ms);
            self.push("sessions-stall", format!("at most {limit_ms:.0} ms"), actual, ok);
        }
        if let Some(least) = expect.control_lost {
            let ok = control.is_some_and(|s| s.lost >= least);
            self.push("control-lost", format!("at least {least}"), lost(control), ok);
        }
    }

    fn answered(&mut self, wanted: bool, outcome: &Outcome) {
        let mut silent: Vec<&str> =
            outcome.landings.iter().flatten().filter(|(_, site)| site.is_none()).map(|(vantage, _)| *vantage).collect();
        silent.sort_unstable();
        silent.dedup();
        let actual = match silent.len() {
            0 => "everybody".to_string(),
            _ => format!("not {}", silent.join(", ")),
        };
        let expected = if wanted { "everybody is answered" } else { "somebody is not answered" };
        self.push("answered", expected.to_string(), actual, silent.is_empty() == wanted);
    }

    fn evacuated(&mut self, wanted: bool, site: &str, outcome: &Outcome) {
        let on_site = outcome.landings.iter().flatten().filter(|(_, landed)| **landed == Some(site)).count();
        let expected = if wanted { format!("nobody on {site}") } else { format!("somebody on {site}") };
        let actual = match on_site {
            0 => "nobody".to_string(),
            n => format!("{n} landings"),
        };
        self.push("evacuated", expected, actual, (on_site == 0) == wanted);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ubique_model::traffic::How;

    fn outcome() -> Outcome<'static> {
        Outcome {
            label: "kill",
            site: Some("sin"),
            median_ms: Some(20.0),
            worst_ms: Some(60.0),
            unrecovered: 0,
            open: 0,
            lost: 7,
            sessions: None,
            control: None,
            landings: vec![BTreeMap::from([("Tokyo", Some("tyo")), ("Sydney", None)])],
        }
    }

    fn one(expect: Expect, outcome: &Outcome) -> bool {
        let verdicts = judge(&expect, outcome);
        assert_eq!(verdicts.len(), 1, "{verdicts:?}");
        verdicts[0].ok
    }

    #[test]
    fn limits_are_inclusive() {
        let ms = |n| Some(Duration::from_millis(n));
        assert!(one(Expect { outage_median: ms(20), ..Expect::default() }, &outcome()));
        assert!(!one(Expect { outage_median: ms(19), ..Expect::default() }, &outcome()));
        assert!(one(Expect { outage_worst: ms(60), ..Expect::default() }, &outcome()));
        assert!(!one(Expect { outage_worst: ms(59), ..Expect::default() }, &outcome()));
        assert!(one(Expect { lost: Some(7), ..Expect::default() }, &outcome()));
        assert!(!one(Expect { lost: Some(6), ..Expect::default() }, &outcome()));
    }

    #[test]
    fn sessions_that_were_not_measured_meet_nothing() {
        let ms = |n| Some(Duration::from_millis(n));
        let mut figures = SessionFigures { sessions: 9, longest_wait_ms: 80.0, ..SessionFigures::default() };
        figures.lose(How::Reset);
        let lost = |limit| Expect { sessions_lost: Some(limit), ..Expect::default() };
        let stall = |n| Expect { sessions_stall: ms(n), ..Expect::default() };
        let control = |least| Expect { control_lost: Some(least), ..Expect::default() };
        for expect in [lost(u64::MAX), stall(1_000_000), control(1)] {
            assert!(!one(expect, &outcome()));
        }
        let none = SessionFigures::default();
        assert!(!one(lost(0), &Outcome { sessions: Some(&none), ..outcome() }), "nobody held any");
        let held = Outcome { sessions: Some(&figures), control: Some(&figures), ..outcome() };
        for (expect, ok) in [
            (lost(1), true),
            (lost(0), false),
            (stall(80), true),
            (stall(79), false),
            (control(1), true),
            (control(2), false),
        ] {
            assert_eq!(one(expect.clone(), &held), ok, "{expect:?}");
        }
    }

    #[test]
    fn an_outage_that_never_ended_fails_every_limit() {
        let expect = Expect { outage_worst: Some(Duration::from_secs(3600)), ..Expect::default() };
        assert!(!one(expect.clone(), &Outcome { open: 1, ..outcome() }));
        assert!(!one(expect, &Outcome { worst_ms: None, ..outcome() }));
    }

    #[test]
    fn landings() {
        assert!(!one(Expect { answered: Some(true), ..Expect::default() }, &outcome()));
        assert!(one(Expect { answered: Some(false), ..Expect::default() }, &outcome()));
        assert!(one(Expect { evacuated: Some(true), ..Expect::default() }, &outcome()));
        assert!(!one(Expect { evacuated: Some(false), ..Expect::default() }, &outcome()));
        let lands = |vantage: &str, site: &str| Expect {
            lands: BTreeMap::from([(vantage.to_string(), site.to_string())]),
            ..Expect::default()
        };
        assert!(one(lands("Tokyo", "tyo"), &outcome()));
        assert!(!one(lands("Tokyo", "sin"), &outcome()));
        assert!(!one(lands("Sydney", "sin"), &outcome()));
        assert!(!one(lands("Atlantis", "sin"), &outcome()));
    }
}
