//! What can be typed.

mod operator;
mod sessions;

use std::io::IsTerminal;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub use operator::{
    ActionArguments, ActionsArguments, AttractArguments, BlackholeArguments, DrainArguments, FilterArguments, Until,
};

pub use sessions::{SessionsCommand, SessionsKeyArguments};

/// One IP address, everywhere: rehearse and run an anycast service.
#[derive(Debug, Parser)]
#[command(
    name = "ubique",
    version,
    before_help = "\
Examples:
  ubique rehearse                      six sites on this machine, killed and drained
  ubique check service.toml            every mistake in a service file, and its cure
  ubique run service.toml --site lon   the agent, on the site itself
  ubique drain service.toml --site lon --reason 'new disks'
",
    arg_required_else_help = true
)]
pub struct Arguments {
    /// How data is printed.
    #[arg(long, global = true, value_enum, default_value_t)]
    pub output: Output,
    /// When to use colours; the default follows the terminal and NO_COLOR.
    #[arg(long, global = true, value_enum, default_value_t)]
    color: When,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

impl Arguments {
    /// Whether to use colours on stderr and stdout.
    pub fn color(&self) -> Color {
        let allowed = |terminal: bool| match self.color {
            When::Always => true,
            When::Never => false,
            When::Auto => terminal && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty()),
        };
        Color { stdout: allowed(std::io::stdout().is_terminal()), stderr: allowed(std::io::stderr().is_terminal()) }
    }
}

/// Where colours are welcome.
#[derive(Clone, Copy, Debug)]
pub struct Color {
    /// On standard output.
    pub stdout: bool,
    /// On standard error.
    pub stderr: bool,
}

/// Format of data on stdout.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    #[default]
    Table,
    /// For machines; has `schema_version`.
    Json,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum When {
    #[default]
    Auto,
    Always,
    Never,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Find every mistake in a service file.
    Check(CheckArguments),
    /// Play a scenario on an emulated Internet: real BGP, real packets, real faults, on this machine.
    Rehearse(RehearseArguments),
    /// Run the agent of a site: addresses, health checks, BGP announcements.
    Run(RunArguments),
    /// Show what the agent of a site does, and why.
    Status(AgentArguments),
    /// The same, live in the terminal; it only looks.
    Top(AgentArguments),
    /// Move traffic away from a site, watch it go, and name who still sends; it stays away until `undrain`.
    Drain(DrainArguments),
    /// Let a drained site announce again.
    Undrain(UndrainArguments),
    /// Have an agent read its service file again: what differs is carried out, and only that.
    Reload(ChangeArguments),
    /// Have an agent replace its program in place, under graceful restart.
    Upgrade(ChangeArguments),
    /// Announce a more-specific for a while, so that its traffic comes to this site.
    Attract(AttractArguments),
    /// Have upstreams discard what goes to an address, for a while.
    Blackhole(BlackholeArguments),
    /// Have upstreams discard or limit what a FlowSpec rule matches, for a while.
    Filter(FilterArguments),
    /// Show the timed actions of an agent, or cancel one.
    Actions(ActionsArguments),
    /// Show the routes an agent has received and sent, and why each is chosen or not.
    Routes(RoutesArguments),
    /// Find what keeps a site from working: kernel settings, rights, clock, firewall, upstreams; or print an upstream's side.
    Doctor(DoctorArguments),
    /// Run an agent's journal through the cores again: to the same outputs, or to the record where they differ.
    Replay(ReplayArguments),
    /// The data plane of `[sessions]`: the key of a QUIC server, and how programs are taken off interfaces.
    #[command(subcommand)]
    Sessions(SessionsCommand),
    /// Print a completion script for a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Parts of a rehearsal that run as processes of their own.
    #[command(hide = true, subcommand)]
    Internal(InternalCommand),
}

/// `ubique check`.
#[derive(Debug, Args)]
#[command(before_help = "\
Examples:
  ubique check service.toml                 every mistake, for people
  ubique check service.toml --output json   the same for editors and pipelines
  ubique check service.toml --print         the file with every default in it
  ubique check --schema > ubique.json       JSON Schema for editors
  ubique check --explain E0301              what a code means
")]
pub struct CheckArguments {
    /// Files to check.
    #[arg(required_unless_present_any = ["schema", "explain"])]
    pub files: Vec<PathBuf>,
    /// What kind of files these are.
    #[arg(long, value_enum, default_value_t)]
    pub kind: FileKind,
    /// Print the file with all defaults written out; it parses to the same service.
    #[arg(long, conflicts_with = "schema")]
    pub print: bool,
    /// Also ask this machine's kernel whether it can do what a service file asks for.
    #[arg(long)]
    pub here: bool,
    /// Print the JSON Schema of the kind of file.
    #[arg(long)]
    pub schema: bool,
    /// Explain a diagnostic code.
    #[arg(long, value_name = "CODE", conflicts_with_all = ["schema", "print"])]
    pub explain: Option<String>,
}

/// Kinds of files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum FileKind {
    /// A service.
    #[default]
    Service,
    /// A scenario.
    Scenario,
    /// An emulated Internet.
    Internet,
}

/// `ubique rehearse`.
#[derive(Debug, Args)]
#[command(before_help = "\
Examples:
  ubique rehearse                              the quickstart: six sites
  ubique rehearse service.toml --report out/   your service; see out/index.html
  ubique rehearse --routers bird               BIRD 2 routes the Internet
  ubique rehearse service.toml --scenario drill.toml --output json
  ubique rehearse service.toml --scenario sessions.toml --control   and without the data plane
")]
pub struct RehearseArguments {
    /// Service file; without one the embedded quickstart is played.
    pub file: Option<PathBuf>,
    /// Scenario file; without one the default scenario is played.
    #[arg(long, value_name = "FILE")]
    pub scenario: Option<PathBuf>,
    /// What routes the emulated Internet.
    #[arg(long, value_enum, default_value_t)]
    pub routers: Routers,
    /// Write an HTML page and its JSON into this directory.
    #[arg(long, value_name = "DIR")]
    pub report: Option<PathBuf>,
    /// Play the scenario without the data plane of `[sessions]` first, and show what became of sessions beside it; a scenario that expects
    /// `control-lost` does so by itself.
    #[arg(long)]
    pub control: bool,
    /// Leave the lab up after the last step, until Ctrl-C.
    #[arg(long)]
    pub keep: bool,
    /// Seed of everything random; the same seed gives the same jitter and losses.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Show what would be built and played, then stop.
    #[arg(long)]
    pub dry_run: bool,
}

/// What routes the emulated Internet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Routers {
    /// The routers built into ubique.
    #[default]
    Embedded,
    /// BIRD 2, one process for each network.
    Bird,
    /// FRR: zebra and bgpd for each network.
    Frr,
}

/// `ubique run`.
#[derive(Debug, Args)]
#[command(before_help = "\
Examples:
  ubique run /etc/ubique/service.toml --site lon
  ubique run service.toml --site lon --dry-run      what it would announce, to whom
")]
pub struct RunArguments {
    /// Service file, the same on every site.
    pub file: PathBuf,
    /// Which of its sites this machine is.
    #[arg(long)]
    pub site: String,
    /// Say what would be announced to whom, and stop.
    #[arg(long)]
    pub dry_run: bool,
    /// Admin socket, instead of the service file's.
    #[arg(long)]
    pub socket: Option<PathBuf>,
    /// Log as JSON lines.
    #[arg(long)]
    pub log_json: bool,
    /// Record and export nothing, whatever the service file says.
    #[arg(long, hide = true)]
    pub rehearsal: bool,
    /// The secret of `[sessions]` in a rehearsal; without one it has no data plane.
    #[arg(long, hide = true, requires = "rehearsal", value_name = "FILE")]
    pub secret: Option<PathBuf>,
}

/// How to reach an agent.
#[derive(Debug, Args)]
pub struct AgentArguments {
    /// Service file: its admin socket is used. Not needed with --socket.
    #[arg(required_unless_present = "socket")]
    pub file: Option<PathBuf>,
    /// Which of its sites; not needed when it has only one.
    #[arg(long)]
    pub site: Option<String>,
    /// Admin socket of the agent.
    #[arg(long)]
    pub socket: Option<PathBuf>,
}

/// `ubique undrain`.
#[derive(Debug, Args)]
#[command(before_help = "\
Examples:
  ubique undrain service.toml --site lon --reason 'disks are in'
")]
pub struct UndrainArguments {
    /// Which agent.
    #[command(flatten)]
    pub agent: AgentArguments,
    /// Why; recorded with the event.
    #[arg(long, default_value = "by hand")]
    pub reason: String,
    /// Say what would happen, and stop.
    #[arg(long)]
    pub dry_run: bool,
}

/// `ubique reload` and `upgrade`.
#[derive(Debug, Args)]
#[command(before_help = "\
Examples:
  ubique reload service.toml --site lon --dry-run   what would change, like a plan
  ubique reload service.toml --site lon             carry it out; exit code 4: it needs --yes
  ubique upgrade service.toml --site lon            after a new version was installed
")]
pub struct ChangeArguments {
    /// Which agent.
    #[command(flatten)]
    pub agent: AgentArguments,
    /// Say what would happen, and stop.
    #[arg(long)]
    pub dry_run: bool,
    /// Also do what clients would notice: prefixes that come or go, sessions that drop our routes.
    #[arg(long)]
    pub yes: bool,
}

/// `ubique routes`.
#[derive(Debug, Args)]
#[command(before_help = "\
Examples:
  ubique routes service.toml --site lon                    all that was received and sent
  ubique routes service.toml --site lon 203.0.113.7        the longest match for an address
  ubique routes --socket agent.sock 203.0.113.0/24         one prefix, exactly
  ubique routes service.toml --site lon --sent --peer 192.0.2.1 --output json
")]
pub struct RoutesArguments {
    /// Service file (not with --socket), and a prefix or an address to look for.
    #[arg(value_names = ["FILE", "PREFIX"], num_args = 0..=2)]
    pub targets: Vec<String>,
    /// Which of its sites; not needed when it has only one.
    #[arg(long)]
    pub site: Option<String>,
    /// Admin socket of the agent.
    #[arg(long)]
    pub socket: Option<PathBuf>,
    /// Only routes from or to this neighbour.
    #[arg(long, value_name = "ADDRESS")]
    pub peer: Option<std::net::IpAddr>,
    /// Only routes received.
    #[arg(long, conflicts_with = "sent")]
    pub received: bool,
    /// Only routes sent.
    #[arg(long)]
    pub sent: bool,
    /// Stop after so many; 0: never.
    #[arg(long, default_value_t = 1000)]
    pub limit: u64,
}

/// `ubique doctor`.
#[derive(Debug, Args)]
#[command(before_help = "\
Examples:
  ubique doctor                                           this machine
  ubique doctor service.toml --site lon                   and the way to the site's upstreams
  ubique doctor service.toml --site lon --output json     for machines; exit code 1 with errors or warnings
  ubique doctor service.toml --site lon --upstream bird   what the upstreams are to configure
")]
pub struct DoctorArguments {
    /// Service file; without one only the machine itself is looked at.
    #[arg(required_if_eq_any = [("upstream", "bird"), ("upstream", "frr"), ("upstream", "junos"), ("upstream", "ios-xr")])]
    pub file: Option<PathBuf>,
    /// Which of its sites this machine is; not needed when it has only one.
    #[arg(long, requires = "file")]
    pub site: Option<String>,
    /// Admin socket of the agent, instead of the service file's.
    #[arg(long, requires = "file")]
    pub socket: Option<PathBuf>,
    /// Print the upstreams' side of the sessions, as the configuration of such routers.
    #[arg(long, value_enum)]
    pub upstream: Option<RouterKind>,
}

/// Routers of upstreams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RouterKind {
    /// BIRD 2.
    Bird,
    /// FRR.
    Frr,
    /// Junos OS.
    Junos,
    /// Cisco IOS XR.
    IosXr,
}

/// `ubique replay`.
#[derive(Debug, Args)]
#[command(before_help = "\
Examples:
  ubique replay /var/lib/ubique/resolver-lon.journal              what happened, and that it would happen again
  ubique replay resolver-lon.journal.1 --core bgp --from 12.5     one core, from 12.5 s on
  ubique replay resolver-lon.journal --quiet                      0: the same, 1: differs, 2: no journal
")]
pub struct ReplayArguments {
    /// A journal, or one of the files before it: each replays by itself.
    pub journal: PathBuf,
    /// Show only records of this core.
    #[arg(long, value_enum)]
    pub core: Option<CoreName>,
    /// Show only records from so many seconds after the first on.
    #[arg(long, value_name = "SECONDS")]
    pub from: Option<f64>,
    /// Show only records up to so many seconds after the first.
    #[arg(long, value_name = "SECONDS")]
    pub to: Option<f64>,
    /// Show only records that differ.
    #[arg(long)]
    pub differences: bool,
    /// Show no records.
    #[arg(long)]
    pub quiet: bool,
}

/// Cores of an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CoreName {
    /// BGP: sessions and routes.
    Bgp,
    /// Health checks.
    Health,
    /// The site.
    Site,
    /// BFD.
    Bfd,
    /// Timed actions of operators.
    Actions,
    /// The drain that watches traffic.
    Drain,
}

impl CoreName {
    /// As a journal spells it.
    pub fn name(self) -> &'static str {
        match self {
            CoreName::Bgp => "bgp",
            CoreName::Health => "health",
            CoreName::Site => "site",
            CoreName::Bfd => "bfd",
            CoreName::Actions => "actions",
            CoreName::Drain => "drain",
        }
    }
}

/// Processes of a rehearsal.
#[derive(Debug, Subcommand)]
pub enum InternalCommand {
    /// The wire.
    Wire {
        /// Specification.
        spec: PathBuf,
    },
    /// The embedded routers.
    Routers {
        /// Specification.
        spec: PathBuf,
    },
    /// The vantage points.
    Probe {
        /// Specification.
        spec: PathBuf,
    },
    /// Sessions at the vantage points.
    Clients {
        /// Specification.
        spec: PathBuf,
    },
    /// The stand-in service of a site that has sessions.
    Sessions {
        /// Specification.
        spec: PathBuf,
    },
    /// The built-in DNS responder.
    Dns {
        /// Name of the site, told as id.server and NSID.
        #[arg(long)]
        site: String,
        /// Zone served.
        #[arg(long)]
        zone: String,
        /// Addresses of the zone's A and AAAA records.
        #[arg(long)]
        address: Vec<std::net::IpAddr>,
        /// Where to listen, UDP and TCP.
        #[arg(long, required = true)]
        listen: Vec<std::net::SocketAddr>,
    },
    /// Write the manual pages into a directory.
    Man {
        /// Where.
        directory: PathBuf,
    },
    /// Delay error of the wire at 20,000 packets a second, as JSON rows.
    BenchWire,
    /// BFD sessions for so many minutes, as JSON.
    BenchBfd {
        /// How long.
        #[arg(long)]
        minutes: f64,
    },
}
