//! BIRD as the upstream.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use ubique_sys::netns::NetNs;

use crate::lab::{PREFIX_V4, PREFIX_V6, Process, ROUTER_ASN, ROUTER_V4, ROUTER_V6, SITE_ASN, SITE_V4, SITE_V6};
use crate::lab::{start, until};

pub const BIRD: &str = "/usr/sbin/bird";

/// A running BIRD and its control connection.
pub struct Bird {
    _process: Process,
    control: BufReader<UnixStream>,
}

impl Bird {
    /// One session for each family with the site; `extra` goes into both, e.g. a password.
    pub fn start(ns: &NetNs, extra: &str) -> Bird {
        let session = |name: &str, family: &str, ours: &str, theirs: &str| {
            format!(
                "protocol bgp {name} {{\n local {ours} as {ROUTER_ASN};\n neighbor {theirs} as {SITE_ASN};\n \
                 hold time 9;\n {extra}\n {family} {{ import all; export none; }};\n}}\n"
            )
        };
        let config = format!(
            "router id {ROUTER_V4};\nlog \"/run/bird-messages.log\" all;\ndebug protocols {{ states, events }};\n\
             protocol device {{}}\n{}{}",
            session("site4", "ipv4", ROUTER_V4, SITE_V4),
            session("site6", "ipv6", ROUTER_V6, SITE_V6),
        );
        fs::write("/run/bird.conf", config).unwrap();
        let arguments = ["-f", "-c", "/run/bird.conf", "-s", "/run/bird.ctl", "-P", "/run/bird.pid"];
        let process = start(ns, "bird", Path::new(BIRD), &arguments);
        let (stream, _) = until("BIRD answers", || UnixStream::connect("/run/bird.ctl").ok());
        let mut bird = Bird { _process: process, control: BufReader::new(stream) };
        bird.reply();
        bird
    }

    /// Lines until one whose code is followed by a space: the last of a reply.
    fn reply(&mut self) -> String {
        let mut text = String::new();
        loop {
            let mut line = String::new();
            assert!(self.control.read_line(&mut line).unwrap() > 0, "BIRD closed its control connection");
            text.push_str(&line);
            let code = line.get(..4).is_some_and(|c| c.bytes().all(|b| b.is_ascii_digit()));
            if code && line.as_bytes().get(4) == Some(&b' ') {
                return text;
            }
        }
    }

    pub fn ask(&mut self, command: &str) -> String {
        self.control.get_mut().write_all(format!("{command}\n").as_bytes()).unwrap();
        self.reply()
    }

    pub fn route(&mut self, prefix: &str) -> Option<String> {
        let reply = self.ask(&format!("show route {prefix} all"));
        reply.contains("BGP.as_path").then_some(reply)
    }

    pub fn has_both(&mut self) -> bool {
        self.route(PREFIX_V4).is_some() && self.route(PREFIX_V6).is_some()
    }

    pub fn has_none(&mut self) -> bool {
        self.route(PREFIX_V4).is_none() && self.route(PREFIX_V6).is_none()
    }

    pub fn log(&self) -> String {
        fs::read_to_string("/run/bird-messages.log").unwrap_or_default()
    }
}
