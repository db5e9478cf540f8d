//! TCP by iperf3, over each network in turn, both ways.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use ubique_sys::netns::NetNs;
use ubique_sys::process;

use crate::labs::{Kind, Lab, Labs};
use crate::latency::median;
use crate::net::Family;

const IPERF: &str = "/usr/bin/iperf3";
const REPEAT: usize = 7;
const SECONDS: &str = "1";
/// What may be lost, %.
const GOAL: f64 = 3.0;

fn iperf(ns: &NetNs, arguments: &[&str]) -> Command {
    let mut command = process::command_in(Path::new(IPERF), Some(ns));
    command.args(arguments).stdout(Stdio::piped());
    command
}

/// Killed with its value.
struct Server(Child, #[allow(dead_code, reason = "it ends when nobody reads what it says")] BufReader<ChildStdout>);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Server {
    /// Once it listens.
    fn start(lab: &Lab, family: Family) -> Server {
        let address = family.service().ip().to_string();
        let mut server = iperf(&lab.net.sites[0], &["-s", "-B", &address, "--forceflush"]).spawn().unwrap();
        let mut said = BufReader::new(server.stdout.take().unwrap());
        assert!(
            said.by_ref().lines().map_while(Result::ok).any(|line| line.contains("listening")),
            "iperf3 does not listen"
        );
        Server(server, said)
    }
}

/// Bits a second that arrived.
fn throughput(lab: &Lab, family: Family, download: bool) -> f64 {
    let address = family.service().ip().to_string();
    let mut arguments = vec!["-c", &address, "-t", SECONDS, "-J"];
    arguments.extend(download.then_some("-R"));
    let output = iperf(&lab.net.clients[0], &arguments).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let of = |key: &str, text: &str| text.split_once(key).map(|(_, rest)| rest.to_owned());
    let figure = of("\"sum_received\"", &text).and_then(|rest| of("\"bits_per_second\":", &rest));
    let figure = figure.and_then(|rest| rest.split(',').next()?.trim().parse().ok());
    figure.unwrap_or_else(|| panic!("iperf3 says: {text}"))
}

/// Of each family, direction and tier: how much less gets through than with programs that do nothing. A veth with any XDP program copies each
/// packet into a page first, which drivers of hardware do not.
pub fn rows(labs: &Labs) {
    if !Path::new(IPERF).exists() {
        return eprintln!("iperf3 is not installed: cargo xtask setup; no rows of throughput");
    }
    for family in Family::BOTH {
        let _servers: Vec<_> = labs.0.iter().map(|lab| Server::start(lab, family)).collect();
        for (download, way) in [(false, "to the service"), (true, "from the service")] {
            let mut rates = vec![Vec::new(); labs.0.len()];
            for round in 0..REPEAT {
                for at in 0..labs.0.len() {
                    let lab = (at + round) % labs.0.len();
                    rates[lab].push(throughput(&labs.0[lab], family, download));
                }
            }
            let ratio = |lab: usize, to: usize| {
                median(rates[lab].iter().zip(&rates[to]).map(|(with, without)| with / without).collect())
            };
            eprintln!("{family:?} {way}: {:.2} Gbit/s without programs", median(rates[0].clone()) / 1e9);
            let lost = |lab, to| (1.0 - ratio(lab, to)) * 100.0;
            println!("TCP throughput {way} that XDP on veths costs: {family:?}\t{:.1}\t\t\t%", lost(1, 0));
            for (lab, kind) in Kind::ALL.into_iter().enumerate().skip(2) {
                let (tier, lost) = (kind.word(), lost(lab, 1));
                println!("TCP throughput {way} that our programs cost: {tier}, {family:?}\t{lost:.1}\t{GOAL}\t\t%");
            }
        }
    }
}
