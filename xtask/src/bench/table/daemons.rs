//! The feeder and those that are fed: configurations, and how each is asked.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Running, Site, wait};

/// Address of the feeder (AS 64501).
pub const FEEDER: &str = "192.0.2.1";
/// Address of the receiver (AS 64500).
pub const RECEIVER: &str = "192.0.2.2";
/// Address of a neighbour that gives [`FEW`] routes (AS 64502).
pub const OTHER: &str = "192.0.2.3";
/// The receiver's address towards it: BIRD tells incoming connections apart by the remote address.
pub const SECOND: &str = "192.0.2.4";
/// Routes of the other neighbour, that must all stay.
pub const FEW: usize = 5;

/// Its log, in the site's directory.
pub const LOG: &str = "bird.log";

const METRICS: &str = "127.0.0.1:9179";

/// A configuration of BIRD with `routes` static routes that have `sets` different sets of attributes: paths of three to
/// seven ASes, none to five communities, a MED.
/// It logs to `log`, with times.
pub fn feed(log: &Path, seed: u64, routes: usize, sets: usize) -> String {
    let mut state = seed;
    let mut random = |bound: u64| {
        // SplitMix64.
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % bound
    };
    let attributes: Vec<String> = (0..sets)
        .map(|set| {
            let mut text = format!("bgp_med = {set};");
            for _ in 0..2 + random(5) {
                let _ = write!(text, "bgp_path.prepend({});", 1 + random(400_000));
            }
            for _ in 0..random(6) {
                let _ = write!(text, "bgp_community.add(({},{}));", 1 + random(60_000), random(60_000));
            }
            text
        })
        .collect();
    let mut text = format!(
        "log \"{}\" all;\ntimeformat log \"%s %f\";\nrouter id {FEEDER};\nprotocol device {{}}\nipv4 table few;\n\
         protocol static table4 {{\nipv4 {{}};\n",
        log.display()
    );
    for i in 0..routes as u32 {
        let [a, b, c, _] = ((i + (1 << 16)) << 8).to_be_bytes();
        let set = &attributes[random(sets as u64) as usize];
        let _ = writeln!(text, "route {a}.{b}.{c}.0/24 blackhole {{ {set} }};");
    }
    text.push_str("}\nprotocol static {\nipv4 { table few; };\n");
    for i in 0..FEW {
        let _ = writeln!(text, "route 203.0.113.{i}/32 blackhole;");
    }
    text.push_str("}\n");
    let sessions = [("feed", FEEDER, 64501, RECEIVER, "master4"), ("beside", OTHER, 64502, SECOND, "few")];
    for (name, local, asn, remote, table) in sessions {
        let _ = writeln!(
            text,
            "protocol bgp {name} {{ disabled; local {local} as {asn}; neighbor {remote} as 64500; hold time 90;\n\
             connect delay time 1; connect retry time 1; error wait time 60, 60; debug {{ states }};\n\
             ipv4 {{ table {table}; import none; export all; }}; }}"
        );
    }
    text
}

/// The feeder.
pub struct Bird {
    _process: Running,
    socket: PathBuf,
    log: PathBuf,
}

impl Bird {
    /// Starts it, its sessions disabled.
    pub fn start(site: &Site, feed: &Path) -> Result<Bird, String> {
        let (socket, log) = (site.directory.join("bird.ctl"), site.directory.join(LOG));
        let _ = fs::remove_file(&socket);
        let _ = fs::remove_file(&log);
        let arguments = ["bird", "-f", "-c", &feed.display().to_string(), "-s", &socket.display().to_string()];
        let process = site.start("bird", &arguments.map(str::to_owned))?;
        let bird = Bird { _process: process, socket, log };
        wait("BIRD to have read its routes", || bird.birdc("show status").contains("up and running"))?;
        Ok(bird)
    }

    fn birdc(&self, words: &str) -> String {
        let output = Command::new("birdc").arg("-s").arg(&self.socket).args(words.split(' ')).output();
        output.map_or_else(|_| String::new(), |o| String::from_utf8_lossy(&o.stdout).into_owned())
    }

    fn enable_protocol(&self, name: &str) -> Result<(), String> {
        let said = self.birdc(&format!("enable {name}"));
        if said.contains(": enabled") { Ok(()) } else { Err(format!("BIRD: {said}")) }
    }

    /// Lets the feed begin.
    pub fn enable(&self) -> Result<(), String> {
        self.enable_protocol("feed")
    }

    /// Brings up the session with few routes.
    pub fn enable_other(&self) -> Result<(), String> {
        self.enable_protocol("beside")
    }

    /// What it logged that contains `words`, each with its time in seconds.
    pub fn logged(&self, words: &str) -> Vec<(f64, String)> {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let timed = |line: &str| {
            let mut fields = line.splitn(3, ' ');
            let seconds = fields.next()?.parse::<f64>().ok()?;
            Some((seconds + fields.next()?.parse::<f64>().ok()? / 1e6, fields.next()?.to_owned()))
        };
        log.lines().filter(|line| line.contains(words)).filter_map(timed).collect()
    }
}

/// One that is fed.
pub trait Daemon {
    /// Its name.
    fn name(&self) -> &'static str;
    /// Program and arguments; its configuration is written to the directory.
    fn command(&self, directory: &Path) -> Result<Vec<String>, String>;
    /// Routes it has; `None`: it does not answer.
    fn received(&self, site: &Site) -> Option<usize>;
}

fn write(path: &Path, text: &str) -> Result<String, String> {
    fs::write(path, text).map_err(|e| format!("{}: {e}", path.display()))?;
    Ok(path.display().to_string())
}

/// The agent, that keeps what it is told.
pub struct Ubique {
    binary: PathBuf,
    max_prefix: Option<u32>,
}

impl Ubique {
    pub fn new(binary: PathBuf, max_prefix: Option<u32>) -> Ubique {
        Ubique { binary, max_prefix }
    }

    fn metrics(site: &Site) -> String {
        let (host, port) = METRICS.split_once(':').unwrap_or_default();
        let script = format!("exec 3<>/dev/tcp/{host}/{port}; printf 'GET /metrics HTTP/1.0\\r\\n\\r\\n' >&3; cat <&3");
        site.ask(&["bash", "-c", &script])
    }

    /// Routes it has from a neighbour; `None`: it does not answer.
    pub fn received_from(&self, site: &Site, address: &str) -> Option<usize> {
        let metrics = Ubique::metrics(site);
        let is = |line: &&str| {
            line.starts_with("ubique_bgp_prefixes{") && line.contains("\"received\"") && line.contains(address)
        };
        metrics.lines().find(is)?.rsplit(' ').next()?.parse().ok()
    }
}

impl Daemon for Ubique {
    fn name(&self) -> &'static str {
        "ubique"
    }

    fn command(&self, directory: &Path) -> Result<Vec<String>, String> {
        let limit = self.max_prefix.map_or(String::new(), |limit| format!("max-prefix = {limit}\n"));
        let upstream = |asn: u32, address: &str, local: &str| {
            format!(
                "[[site.upstream]]\nasn = {asn}\naddress = \"{address}\"\nlocal-address = \"{local}\"\nrelation = \"transit\"\nhold-time = \"90s\"\n\
                 keep-routes = 2000000\n{limit}"
            )
        };
        let service = format!(
            "[service]\nname = \"table\"\nasn = 64500\nprefixes = [\"198.51.100.0/24\"]\naddresses = [\"198.51.100.53\"]\n\
             [agent]\nstate = \"/run/bench.state\"\nmetrics = \"{METRICS}\"\n\
             [[check]]\nname = \"none\"\nkind = \"tcp\"\ntarget = \"127.0.0.1:1\"\nevery = \"10s\"\ntimeout = \"1s\"\n\
             [[site]]\nname = \"one\"\nlocation = \"London, GB\"\n{}{}",
            upstream(64501, FEEDER, RECEIVER),
            upstream(64502, OTHER, SECOND)
        );
        let file = write(&directory.join("ubique.toml"), &service)?;
        let socket = directory.join("ubique.sock").display().to_string();
        let binary = self.binary.display().to_string();
        Ok(vec![binary, "run".into(), file, "--site".into(), "one".into(), "--socket".into(), socket])
    }

    fn received(&self, site: &Site) -> Option<usize> {
        self.received_from(site, FEEDER)
    }
}

/// GoBGP.
pub struct Gobgp;

impl Daemon for Gobgp {
    fn name(&self) -> &'static str {
        "GoBGP"
    }

    fn command(&self, directory: &Path) -> Result<Vec<String>, String> {
        let text = format!(
            "[global.config]\nas = 64500\nrouter-id = \"{RECEIVER}\"\n[[neighbors]]\n[neighbors.config]\n\
             neighbor-address = \"{FEEDER}\"\npeer-as = 64501\n[neighbors.timers.config]\nhold-time = 90\n\
             [neighbors.transport.config]\npassive-mode = true\n"
        );
        let file = write(&directory.join("gobgpd.toml"), &text)?;
        Ok(["gobgpd", "-t", "toml", "-f", &file, "--pprof-disable", "-l", "warn"].map(str::to_owned).to_vec())
    }

    fn received(&self, site: &Site) -> Option<usize> {
        let neighbors: serde_json::Value = serde_json::from_str(&site.ask(&["gobgp", "-j", "neighbor"])).ok()?;
        let families = neighbors[0]["afi_safis"].as_array()?;
        Some(families.iter().filter_map(|f| f["state"]["received"].as_u64()).sum::<u64>() as usize)
    }
}

/// FRR's bgpd, without zebra.
pub struct Frr;

impl Daemon for Frr {
    fn name(&self) -> &'static str {
        "FRR"
    }

    fn command(&self, directory: &Path) -> Result<Vec<String>, String> {
        let text = format!(
            "frr defaults datacenter\nrouter bgp 64500\n bgp router-id {RECEIVER}\n no bgp ebgp-requires-policy\n\
             neighbor {FEEDER} remote-as 64501\n neighbor {FEEDER} timers 30 90\n neighbor {FEEDER} passive\n"
        );
        let file = write(&directory.join("bgpd.conf"), &text)?;
        let sockets = directory.display().to_string();
        let pid = directory.join("bgpd.pid").display().to_string();
        let files =
            ["-f", &file, "-i", &pid, "--vty_socket", &sockets, "-z", &format!("{sockets}/zserv")].map(str::to_owned);
        let rest = ["-n", "-Z", "-S", "-u", "root", "-g", "root", "-P", "0"].map(str::to_owned);
        Ok(["/usr/lib/frr/bgpd".to_owned()].into_iter().chain(files).chain(rest).collect())
    }

    fn received(&self, site: &Site) -> Option<usize> {
        let command = "show bgp ipv4 unicast summary json";
        let text = site.ask(&["vtysh", "--vty_socket", &site.directory.display().to_string(), "-c", command]);
        let summary: serde_json::Value = serde_json::from_str(&text).ok()?;
        Some(summary["peers"][FEEDER]["pfxRcd"].as_u64().unwrap_or(0) as usize)
    }
}
