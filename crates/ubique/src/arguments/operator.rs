//! What can be typed for operators' actions: `drain`, `attract`, `blackhole`, `filter`, `actions`.

use std::time::Duration;

use clap::Args;
use ubique_model::quantity::parse_duration;

use super::AgentArguments;

/// `ubique drain`.
#[derive(Debug, Args)]
#[command(before_help = "\
Examples:
  ubique drain service.toml --site lon --reason 'new disks'                 others preferred, then withdrawn; who still sends
  ubique drain service.toml --site lon --reason 'new disks' --until gone    withdraws when the traffic is gone, not before
  ubique drain service.toml --site lon --until 10m --prepend 3              for upstreams without RFC 8326; at most 10 minutes
  ubique drain service.toml --site lon --dry-run                            what each upstream would be told
")]
pub struct DrainArguments {
    /// Which agent.
    #[command(flatten)]
    pub agent: AgentArguments,
    /// Why; recorded with the event.
    #[arg(long, default_value = "by hand")]
    pub reason: String,
    /// Withdraw when the traffic is `gone` (after an hour at the latest), or when it is gone but after a DURATION (10m) or at
    /// a TIME (2026-11-21T03:00:00Z) at the latest; without it after `agent.graceful-shutdown` at the latest.
    #[arg(long, value_name = "gone|DURATION|TIME", value_parser = until)]
    pub until: Option<Until>,
    /// Prepend so often in addition before the withdrawal, for upstreams that ignore GRACEFUL_SHUTDOWN.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub prepend: u8,
    /// Do not run `agent.drain-hook`.
    #[arg(long)]
    pub no_hook: bool,
    /// How long to watch for senders after the withdrawal; ends sooner when there is none. By default 10s; with `[sessions]`, where
    /// open connections live on, until none is left, an hour at most.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub watch: Option<Duration>,
    /// With `[sessions]`: the site that new connections are handed to while this one still announces; without it the
    /// nearest that is up.
    #[arg(long, value_name = "SITE")]
    pub to: Option<String>,
    /// Do not wait for the end; `ubique status` shows it.
    #[arg(long)]
    pub detach: bool,
    /// Do not ask, whatever share of the traffic moves.
    #[arg(long)]
    pub yes: bool,
    /// Say what would happen, and stop.
    #[arg(long)]
    pub dry_run: bool,
}

/// `--until`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// The traffic is gone.
    Gone,
    /// So long after now.
    After(Duration),
    /// At this time, s since 1970.
    At(u64),
}

/// Of all that begin an action.
#[derive(Debug, Args)]
pub struct ActionArguments {
    /// How long it lasts: 30m, 1h; nothing lasts until somebody remembers it.
    #[arg(long = "for", value_name = "DURATION", value_parser = duration)]
    pub lasts: Duration,
    /// Why; recorded with the event.
    #[arg(long, default_value = "by hand")]
    pub reason: String,
    /// Which of the service file's sites; not needed when it has only one.
    #[arg(long)]
    pub site: Option<String>,
    /// Admin socket of the agent, instead of a service file.
    #[arg(long)]
    pub socket: Option<std::path::PathBuf>,
    /// Do not ask, whatever share of the service is concerned.
    #[arg(long)]
    pub yes: bool,
    /// Say what each upstream would be told, and stop.
    #[arg(long)]
    pub dry_run: bool,
}

/// `ubique attract`.
#[derive(Debug, Args)]
#[command(before_help = "\
Examples:
  ubique attract service.toml 198.51.100.0/24 --for 1h --site lon --reason 'ams is flooded'    a more-specific, for an hour
  ubique attract service.toml 198.51.100.0/24 --for 1h --site lon --dry-run                    what each upstream would be told
  ubique attract --socket agent.sock 2001:db8:53::/48 --for 20m --yes
")]
pub struct AttractArguments {
    /// Service file (not with --socket), and a more-specific of one of its prefixes.
    #[arg(value_names = ["FILE", "PREFIX"], num_args = 1..=2, required = true)]
    pub targets: Vec<String>,
    /// The rest.
    #[command(flatten)]
    pub action: ActionArguments,
}

/// `ubique blackhole`.
#[derive(Debug, Args)]
#[command(before_help = "\
Examples:
  ubique blackhole service.toml 198.51.100.53 --for 30m --site lon --reason 'attack'    upstreams discard what goes there
  ubique blackhole service.toml 198.51.100.53 --for 30m --site lon --dry-run            with which communities, to whom
  ubique actions service.toml --site lon --cancel 1                                     the attack is over
")]
pub struct BlackholeArguments {
    /// Service file (not with --socket), and an address or prefix of the service.
    #[arg(value_names = ["FILE", "PREFIX"], num_args = 1..=2, required = true)]
    pub targets: Vec<String>,
    /// The rest.
    #[command(flatten)]
    pub action: ActionArguments,
}

/// `ubique filter`.
#[derive(Debug, Args)]
#[command(before_help = "\
Examples:
  ubique filter service.toml 'dst 198.51.100.53/32 proto =udp sport =53 length >512' --for 30m --site lon
  ubique filter service.toml 'dst 198.51.100.53/32 proto =udp' --then 'rate-bytes 1000000' --for 30m --site lon
  ubique filter service.toml 'dst 198.51.100.53/32 src 203.0.113.0/24' --for 1h --site lon --dry-run

Conditions: dst src proto port dport sport icmp-type icmp-code tcp-flags length dscp fragment flow-label.
")]
pub struct FilterArguments {
    /// Service file (not with --socket), and a FlowSpec rule whose destination is the service's.
    #[arg(value_names = ["FILE", "RULE"], num_args = 1..=2, required = true)]
    pub targets: Vec<String>,
    /// What upstreams do with packets that match: discard, rate-bytes N, rate-packets N, mark DSCP, redirect …
    #[arg(long, value_name = "ACTION", default_value = "discard")]
    pub then: String,
    /// The rest.
    #[command(flatten)]
    pub action: ActionArguments,
}

/// `ubique actions`.
#[derive(Debug, Args)]
#[command(before_help = "\
Examples:
  ubique actions service.toml --site lon               what lasts, for how much longer, who wanted it and why
  ubique actions service.toml --site lon --cancel 3    end one now
")]
pub struct ActionsArguments {
    /// Which agent.
    #[command(flatten)]
    pub agent: AgentArguments,
    /// End the action of this number.
    #[arg(long, value_name = "NUMBER")]
    pub cancel: Option<u32>,
    /// Why it is cancelled; recorded with the event.
    #[arg(long, default_value = "by hand")]
    pub reason: String,
}

fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text).map_err(|error| match &error.fix {
        Some(fix) => format!("{error}: {fix}"),
        None => error.to_string(),
    })
}

fn until(text: &str) -> Result<Until, String> {
    if text == "gone" {
        return Ok(Until::Gone);
    }
    match time(text) {
        Some(at) => Ok(Until::At(at)),
        None => duration(text)
            .map(Until::After)
            .map_err(|error| format!("{error}; write gone, a duration like 10m, or a time like 2026-11-21T03:00:00Z")),
    }
}

/// RFC 3339, UTC, seconds since 1970; seconds may be absent.
fn time(text: &str) -> Option<u64> {
    let (date, clock) = text.strip_suffix('Z')?.split_once(['T', ' '])?;
    let numbers = |text: &str, between: char| -> Option<Vec<u64>> {
        text.split(between).map(|part| part.parse().ok().filter(|_| part.len() >= 2)).collect()
    };
    let (date, clock) = (numbers(date, '-')?, numbers(clock, ':')?);
    let [year, month @ 1..=12, day @ 1..=31] = date[..] else { return None };
    let (hour, minute, second) = match clock[..] {
        [hour, minute] => (hour, minute, 0),
        [hour, minute, second] => (hour, minute, second),
        _ => return None,
    };
    if !(1970..=9999).contains(&year) || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    // Years from 1 March, so that the leap day is the last of its year.
    let (year, month) = if month < 3 { (year - 1, month + 9) } else { (year, month - 3) };
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1;
    Some((days - 719_468) * 86_400 + hour * 3600 + minute * 60 + second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_durations_and_gone() {
        assert_eq!(until("gone"), Ok(Until::Gone));
        assert_eq!(until("10m"), Ok(Until::After(Duration::from_secs(600))));
        assert_eq!(until("1970-01-01T00:00:00Z"), Ok(Until::At(0)));
        assert_eq!(until("2000-02-29T00:00Z"), Ok(Until::At(951_782_400)));
        assert_eq!(until("2026-11-21T08:15:30Z"), Ok(Until::At(1_795_248_930)));
        for bad in ["", "ten", "2026-13-01T00:00Z", "2026-11-21T24:00Z", "2026-11-21", "-5m", "1-1-1T1:1Z"] {
            assert!(until(bad).is_err(), "{bad}");
        }
    }
}
