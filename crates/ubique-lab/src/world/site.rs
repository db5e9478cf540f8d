//! The processes of a site, and what a scenario does to them.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use ubique_model::IpNet;
use ubique_sys::netlink::Netlink;
use ubique_sys::netns::NetNs;
use ubique_sys::process::{self, Cost, PidFd, Signal};

use super::{ADDRESS_TIMEOUT, CONTROL_TIMEOUT, Moment, SECRET, World, WorldError, system, timed_out};
use crate::child::{self, Exit, Process};
use crate::control;

/// The port of the built-in service.
const DNS_PORT: u16 = 53;
/// `lo` is the first interface of every namespace.
const LOOPBACK: u32 = 1;
/// How long the stand-in service may take until it listens.
const LISTEN_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a killed process may take to be gone.
const END_TIMEOUT: Duration = Duration::from_secs(5);
/// Rounds of looking for processes that were made while others were being stopped.
const FREEZE_ROUNDS: usize = 16;

/// The processes of one site.
pub(super) struct SiteState {
    name: String,
    agent: Option<Process>,
    services: Vec<Process>,
}

impl SiteState {
    pub(super) fn new(name: &str) -> SiteState {
        SiteState { name: name.to_owned(), agent: None, services: Vec::new() }
    }

    pub(super) fn processes(&mut self) -> impl Iterator<Item = &mut Process> {
        self.agent.iter_mut().chain(&mut self.services)
    }
}

impl World {
    fn site_index(&self, site: &str) -> Result<usize, WorldError> {
        self.sites.iter().position(|s| s.name == site).ok_or_else(|| WorldError::NoSite(site.into()))
    }

    fn site_namespace(&self, site: &str) -> Result<&NetNs, WorldError> {
        let plan = self.plan.site(site).ok_or_else(|| WorldError::NoSite(site.into()))?;
        self.built.namespace(&plan.netns).ok_or_else(|| WorldError::NoSite(site.into()))
    }

    /// Starts the agent of a site; one that still runs is killed first.
    ///
    /// # Errors
    /// [`WorldError`] when there is no such site or the program cannot be started.
    pub fn start_agent(&mut self, site: &str) -> Result<Moment, WorldError> {
        let index = self.site_index(site)?;
        self.end_agent(index);
        let (program, arguments) = self.agent_command(site)?;
        let namespace = self.site_namespace(site)?;
        let name = format!("agent of site {site}");
        let log = self.log(&format!("agent-{site}"));
        let moment = Moment::now();
        let command = (program.as_path(), arguments.as_slice());
        let agent = Process::start_on(site, name.clone(), command, namespace, log).map_err(system(name))?;
        self.sites[index].agent = Some(agent);
        Ok(moment)
    }

    /// `ubique run`, or the other agent that the service file wants to be compared; that one finds the service
    /// addresses on the loopback.
    fn agent_command(&self, site: &str) -> Result<(PathBuf, Vec<String>), WorldError> {
        let Some((program, rest)) = self.service.rehearse.agent.split_first() else {
            let file = self.options.service_file.display().to_string();
            let socket = self.agent_socket(site).display().to_string();
            // What a rehearsal plays is no news for collectors, and its files are not the machine's.
            let mut arguments: Vec<String> = ["run", &file, "--site", site, "--socket", &socket].map(Into::into).into();
            arguments.push("--rehearsal".into());
            arguments.extend(self.secret(site).into_iter().flat_map(|secret| ["--secret".into(), secret]));
            return Ok((self.options.executable.clone(), arguments));
        };
        let mut netlink = Netlink::open_in(self.site_namespace(site)?).map_err(system("netlink"))?;
        for &address in &self.service.addresses {
            netlink.add_address(LOOPBACK, IpNet::from(address)).map_err(system(address.to_string()))?;
        }
        let sessions =
            self.plan.networks.iter().flat_map(|network| network.sessions.iter().map(move |s| (network.asn, s)));
        let session = sessions.into_iter().find(|(_, session)| session.site.as_deref() == Some(site));
        let (upstream_asn, session) = session.ok_or_else(|| WorldError::NoSite(site.into()))?;
        let address = self.service.addresses.first().map(ToString::to_string).unwrap_or_default();
        let values = [
            ("{site}", site.to_owned()),
            ("{asn}", self.service.asn.to_string()),
            ("{address}", address),
            ("{upstream}", session.local.to_string()),
            ("{upstream-asn}", upstream_asn.to_string()),
            ("{local}", session.remote.to_string()),
        ];
        let fill = |word: &String| values.iter().fold(word.clone(), |word, (name, value)| word.replace(name, value));
        Ok((PathBuf::from(fill(program)), rest.iter().map(fill).collect()))
    }

    fn end_agent(&mut self, index: usize) {
        // Dropped: killed with its group and waited for.
        self.sites[index].agent = None;
    }

    /// SIGKILL to the agent and to nothing else: its watchdog ends with it.
    ///
    /// # Errors
    /// [`WorldError`] when there is no such site or the signal cannot be sent.
    pub fn kill_agent(&mut self, site: &str) -> Result<Moment, WorldError> {
        self.signal_agent(site, Signal::Kill)
    }

    /// SIGTERM to the agent: it withdraws, drains and leaves in its own time.
    ///
    /// # Errors
    /// As [`World::kill_agent`].
    pub fn stop_agent(&mut self, site: &str) -> Result<Moment, WorldError> {
        self.signal_agent(site, Signal::Term)
    }

    fn signal_agent(&mut self, site: &str, signal: Signal) -> Result<Moment, WorldError> {
        let index = self.site_index(site)?;
        let moment = Moment::now();
        if let Some(agent) = &mut self.sites[index].agent {
            agent.expect_end();
            if agent.status().is_none() {
                let sent = PidFd::open(agent.pid()).and_then(|fd| fd.signal(signal));
                sent.map_err(system(format!("signal to the agent of site {site}")))?;
            }
        }
        Ok(moment)
    }

    /// Starts the service of a site, once its addresses are on the loopback.
    ///
    /// # Errors
    /// [`WorldError`] when the addresses do not come or a program cannot be started.
    pub fn start_service(&mut self, site: &str) -> Result<Moment, WorldError> {
        let index = self.site_index(site)?;
        self.wait_for_addresses(index)?;
        self.end_service(index)?;
        let run = self.site_directory(site)?;
        let commands = self.service_commands(site, &run);
        let moment = Moment::now();
        let mut services = Vec::with_capacity(commands.len());
        for (program, arguments) in commands {
            let name = format!("service of site {site}");
            let log = self.log(&format!("service-{site}"));
            let namespace = self.site_namespace(site)?;
            let started = Process::start_on(site, name.clone(), (&program, &arguments), namespace, log);
            services.push(started.map_err(system(name))?);
        }
        services.extend(self.start_sessions(site)?);
        self.sites[index].services = services;
        Ok(moment)
    }

    /// The secret of the data plane, where the site has one.
    fn secret(&self, site: &str) -> Option<String> {
        let has = self.plan.site(site).is_some_and(|site| site.data_plane);
        has.then(|| self.options.directory.join(SECRET).display().to_string())
    }

    /// Starts the stand-in service for sessions, when anybody holds some, and waits until it listens.
    fn start_sessions(&self, site: &str) -> Result<Option<Process>, WorldError> {
        let holding = &self.options.holding;
        let Some(of_file) = self.service.site(site).filter(|_| !holding.is_empty()) else { return Ok(None) };
        let file = |suffix: &str| self.options.directory.join(format!("sessions-{site}.{suffix}"));
        let (spec, ready) = (file("json"), file("ready"));
        match fs::remove_file(&ready) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(system(ready.display().to_string())(error));
            }
            _ => {}
        }
        let secret = self.secret(site).map(PathBuf::from);
        let told = holding.server(of_file, &self.service.addresses, secret.as_deref(), &ready);
        let written = serde_json::to_vec(&told).map_err(io::Error::from).and_then(|json| fs::write(&spec, json));
        written.map_err(system(spec.display().to_string()))?;
        let name = format!("sessions of site {site}");
        let arguments = ["internal".into(), "sessions".into(), spec.display().to_string()];
        let log = self.log(&format!("sessions-{site}"));
        let command = (self.options.executable.as_path(), &arguments[..]);
        let started = Process::start_on(site, name.clone(), command, self.site_namespace(site)?, log.clone());
        let mut process = started.map_err(system(name.clone()))?;
        if !child::wait_until(LISTEN_TIMEOUT, || ready.exists() || process.status().is_some()) {
            return Err(timed_out(format!("{name} do not listen"), LISTEN_TIMEOUT, &log));
        }
        match process.unexpected_exit() {
            Some(exit) => Err(WorldError::Ended(exit)),
            None => Ok(Some(process)),
        }
    }

    /// The old service must be gone before the new one can have its sockets, also when it hangs.
    fn end_service(&mut self, index: usize) -> Result<(), WorldError> {
        self.sites[index].services.iter_mut().for_each(Process::expect_end);
        self.sites[index].services.clear();
        let site = self.sites[index].name.clone();
        signal_all(&self.service_pids(&site)?, Signal::Kill);
        Ok(())
    }

    /// What the service of a site is: the built-in responder, or the user's command, once, or once for each address
    /// when it has a place for one.
    fn service_commands(&self, site: &str, run: &Path) -> Vec<(PathBuf, Vec<String>)> {
        let addresses = &self.service.addresses;
        let Some((program, rest)) = self.service.rehearse.command.split_first() else {
            let mut arguments: Vec<String> =
                ["internal", "dns", "--site", site, "--zone", &self.options.zone].map(str::to_owned).into();
            for &address in addresses {
                arguments.extend(["--listen".into(), SocketAddr::new(address, DNS_PORT).to_string()]);
            }
            return vec![(self.options.executable.clone(), arguments)];
        };
        let (directory, run) = (self.options.service_directory.display().to_string(), run.display().to_string());
        let values = [("{site}", site), ("{directory}", &directory), ("{run}", &run)];
        let fill = |text: &str, address: &str| {
            values.iter().fold(text.replace("{address}", address), |text, (name, value)| text.replace(name, value))
        };
        let command =
            |address: &str| (PathBuf::from(fill(program, address)), rest.iter().map(|a| fill(a, address)).collect());
        if self.service.rehearse.command.iter().any(|a| a.contains("{address}")) {
            addresses.iter().map(|a| command(&a.to_string())).collect()
        } else {
            vec![command("")]
        }
    }

    /// A directory that is the site's own, as `/run` is a machine's: empty whenever its service starts. Its daemons may
    /// have changed their users.
    fn site_directory(&self, site: &str) -> Result<PathBuf, WorldError> {
        let directory = self.options.directory.join("site").join(site);
        let made = match fs::remove_dir_all(&directory) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => fs::create_dir_all(&directory),
        };
        made.map_err(system(directory.display().to_string()))?;
        Ok(directory)
    }

    fn wait_for_addresses(&mut self, index: usize) -> Result<(), WorldError> {
        let site = self.sites[index].name.clone();
        let wanted: Vec<IpAddr> = self.service.addresses.clone();
        let mut netlink = Netlink::open_in(self.site_namespace(&site)?).map_err(system("netlink"))?;
        let agent = &mut self.sites[index].agent;
        let mut there = false;
        let mut ready = || {
            let present = netlink.addresses(LOOPBACK).unwrap_or_default();
            there = wanted.iter().all(|w| present.iter().any(|p| p.addr() == *w));
            there || agent.as_mut().is_some_and(|a| a.status().is_some())
        };
        child::wait_until(ADDRESS_TIMEOUT, &mut ready);
        if there {
            return Ok(());
        }
        if let Some(exit) = agent.as_mut().and_then(Process::unexpected_exit) {
            return Err(WorldError::Ended(exit));
        }
        let log = self.log(&format!("agent-{site}"));
        Err(timed_out(format!("site {site}: the service addresses are not on the loopback"), ADDRESS_TIMEOUT, &log))
    }

    /// SIGKILL to every process of the service.
    ///
    /// # Errors
    /// [`WorldError`] when there is no such site or processes cannot be listed.
    pub fn kill_service(&mut self, site: &str) -> Result<Moment, WorldError> {
        let moment = self.signal_service(site, Signal::Kill)?;
        let index = self.site_index(site)?;
        for service in &mut self.sites[index].services {
            if !service.wait(END_TIMEOUT) {
                let log = self.options.directory.join("log").join(format!("service-{site}.log"));
                return Err(timed_out(format!("the service of site {site} does not end"), END_TIMEOUT, &log));
            }
        }
        Ok(moment)
    }

    /// SIGSTOP to every process of the service: it hangs.
    ///
    /// # Errors
    /// As [`World::kill_service`].
    pub fn hang_service(&mut self, site: &str) -> Result<Moment, WorldError> {
        self.signal_service(site, Signal::Stop)
    }

    /// SIGCONT to every process of the service.
    ///
    /// # Errors
    /// As [`World::kill_service`].
    pub fn resume_service(&mut self, site: &str) -> Result<Moment, WorldError> {
        self.signal_service(site, Signal::Cont)
    }

    /// A file says that the service of the site is bad, or no longer: for `exec` checks that are wrong.
    ///
    /// # Errors
    /// There is no such site, or the file cannot be written.
    pub fn fail_check(&mut self, site: &str, failing: bool) -> Result<Moment, WorldError> {
        self.site_index(site)?;
        let directory = self.options.directory.join("failing");
        let file = directory.join(site);
        let moment = Moment::now();
        let done = match failing {
            true => fs::create_dir_all(&directory).and_then(|()| fs::write(&file, "")),
            false => fs::remove_file(&file),
        };
        done.map_err(system(file.display().to_string()))?;
        Ok(moment)
    }

    fn signal_service(&mut self, site: &str, signal: Signal) -> Result<Moment, WorldError> {
        let index = self.site_index(site)?;
        let pids = self.service_pids(site)?;
        if signal == Signal::Kill {
            self.sites[index].services.iter_mut().for_each(Process::expect_end);
        }
        let moment = Moment::now();
        signal_all(&pids, signal);
        Ok(moment)
    }

    /// Processes in the site's namespace that neither are the agent nor come from it: a service that goes into the
    /// background has left its process group.
    fn service_pids(&self, site: &str) -> Result<Vec<u32>, WorldError> {
        let agent = self.sites[self.site_index(site)?].agent.as_ref().map(Process::pid);
        let members = self.site_pids(site)?;
        let mut of_agent: BTreeSet<u32> = agent.into_iter().collect();
        let mut before = 0;
        while before != of_agent.len() {
            before = of_agent.len();
            for &pid in &members {
                if parent(pid).is_some_and(|p| of_agent.contains(&p)) {
                    of_agent.insert(pid);
                }
            }
        }
        if let Some(group) = agent {
            of_agent.extend(process::members_of_group(group).map_err(system("processes"))?);
        }
        Ok(members.into_iter().filter(|pid| !of_agent.contains(pid)).collect())
    }

    fn site_pids(&self, site: &str) -> Result<Vec<u32>, WorldError> {
        let namespace = self.site_namespace(site)?;
        process::members_of_netns(namespace).map_err(system(format!("processes of site {site}")))
    }

    /// SIGSTOP to every process of the site, its watchdog included: a machine that hangs.
    ///
    /// # Errors
    /// As [`World::kill_service`].
    pub fn freeze_site(&mut self, site: &str) -> Result<Moment, WorldError> {
        let mut stopped = BTreeSet::new();
        let mut moment = Moment::now();
        for _ in 0..FREEZE_ROUNDS {
            let new: Vec<u32> = self.site_pids(site)?.into_iter().filter(|p| !stopped.contains(p)).collect();
            if new.is_empty() {
                break;
            }
            if stopped.is_empty() {
                moment = Moment::now();
            }
            signal_all(&new, Signal::Stop);
            stopped.extend(new);
        }
        Ok(moment)
    }

    /// SIGCONT to every process of the site.
    ///
    /// # Errors
    /// As [`World::kill_service`].
    pub fn thaw_site(&mut self, site: &str) -> Result<Moment, WorldError> {
        let pids = self.site_pids(site)?;
        let moment = Moment::now();
        signal_all(&pids, Signal::Cont);
        Ok(moment)
    }

    /// `ubique drain`.
    ///
    /// # Errors
    /// [`WorldError::Control`] when the agent does not answer or refuses.
    pub fn drain(&mut self, site: &str, reason: &str) -> Result<Moment, WorldError> {
        let moment = Moment::now();
        self.ask_agent(site, &json!({"query": "drain", "reason": reason}))?;
        Ok(moment)
    }

    /// `ubique undrain`.
    ///
    /// # Errors
    /// As [`World::drain`].
    pub fn undrain(&mut self, site: &str, reason: &str) -> Result<Moment, WorldError> {
        let moment = Moment::now();
        self.ask_agent(site, &json!({"query": "undrain", "reason": reason}))?;
        Ok(moment)
    }

    /// The agent's own account of itself.
    ///
    /// # Errors
    /// As [`World::drain`].
    pub fn agent_status(&self, site: &str) -> Result<Value, WorldError> {
        self.ask_agent(site, &json!({"query": "status"}))
    }

    fn ask_agent(&self, site: &str, question: &Value) -> Result<Value, WorldError> {
        self.site_index(site)?;
        control::request(&self.agent_socket(site), question, CONTROL_TIMEOUT)
            .map_err(|source| WorldError::Control { name: format!("agent of site {site}"), source })
    }

    /// What a site's agent costs, its watchdog included; `None` when it does not run.
    pub fn agent_cost(&self, site: &str) -> Option<Cost> {
        let agent = self.sites.iter().find(|s| s.name == site)?.agent.as_ref()?;
        process::cost_of_group(agent.pid()).ok().filter(|cost| cost.resident_bytes > 0)
    }

    /// The admin socket of a site's agent: in the lab's own directory, whatever the service file says.
    pub fn agent_socket(&self, site: &str) -> PathBuf {
        self.options.directory.join(format!("agent-{site}.sock"))
    }

    /// A service that left its starter, as daemons do, has not ended.
    pub(super) fn site_exits(&mut self, index: usize) -> Vec<Exit> {
        let site = self.sites[index].name.clone();
        let mut exits: Vec<Exit> = self.sites[index].agent.iter_mut().filter_map(Process::unexpected_exit).collect();
        let went_well = |s: &mut Process| s.status().is_some_and(|status| status.success());
        let daemons = self.sites[index].services.iter_mut().any(went_well)
            && self.service_pids(&site).is_ok_and(|pids| !pids.is_empty());
        for service in &mut self.sites[index].services {
            if daemons && went_well(service) {
                service.expect_end();
            }
            exits.extend(service.unexpected_exit());
        }
        exits
    }
}

/// Signals processes one by one; those that have ended meanwhile are no error.
fn signal_all(pids: &[u32], signal: Signal) {
    for &pid in pids {
        if let Ok(fd) = PidFd::open(pid) {
            let _ = fd.signal(signal);
        }
    }
}

/// The parent of a process, where `/proc` is that of our own PID namespace.
fn parent(pid: u32) -> Option<u32> {
    let own = fs::read_link("/proc/self").ok()?;
    if own != Path::new(&std::process::id().to_string()) {
        return None;
    }
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|l| l.strip_prefix("PPid:"))?.trim().parse().ok()
}
