//! `[sessions]`, and the keys of `[[site]]` that belong to it, as they are written.

use std::net::IpAddr;

use super::{narrow, values};
use crate::read::sink::At;
use crate::read::table::{TableReader, report_duplicates};
use crate::read::text;
use crate::service::rules;
use crate::service::sessions::{ReturnPath, Sessions, TcpMethod, Unicast, site_number};

/// `unicast` and `number` of a site as far as they were readable.
pub(in crate::service) struct OwnerDraft {
    pub unicast: Vec<At<IpAddr>>,
    /// `unicast` is absent, or every element was readable.
    pub unicast_known: bool,
    pub number: Option<At<u8>>,
    /// `number` is absent, or was readable.
    pub number_known: bool,
}

/// The outer `None`: it is written, and not readable.
pub(super) fn read_sessions(root: &TableReader<'_>) -> Option<Option<Sessions>> {
    if !root.has("sessions") {
        return Some(None);
    }
    root.table("sessions").and_then(|table| read_table(&table)).map(Some)
}

fn read_table(table: &TableReader<'_>) -> Option<Sessions> {
    let secret_file = table.text("secret-file", text::path);
    let word = table.choice("tcp");
    let tcp = word.and_then(|word| TcpMethod::ALL.into_iter().find(|(_, tcp)| *tcp == word.value));
    let word = table.choice("return");
    let path = word.and_then(|word| ReturnPath::ALL.into_iter().find(|(_, path)| *path == word.value));
    let (tcp_ports, quic_ports) = (read_ports(table, "tcp-ports"), read_ports(table, "quic-ports"));
    let port = narrow(table.integer("port"));
    let budget = table.text("budget", text::packet_rate);
    let mtu = narrow(table.integer("mtu"));
    let mptcp = table.boolean("mptcp").is_some_and(|at| at.value);
    let interfaces = table.texts("interfaces", text::interface);
    report_duplicates(table.sink(), "interface", &interfaces);
    let (tcp, _) = tcp?;
    rules::check_carriers(table, tcp, mptcp);
    Some(Sessions {
        secret_file: secret_file?.value,
        tcp,
        tcp_ports,
        quic_ports,
        port: port?.value,
        budget_per_s: budget?.value,
        return_path: path?.0,
        mtu_bytes: mtu?.value,
        mptcp,
        interfaces: values(interfaces),
    })
}

fn read_ports(table: &TableReader<'_>, key: &str) -> Vec<u16> {
    let ports: Vec<At<u16>> = table.integers(key).into_iter().filter_map(|port| narrow(Some(port))).collect();
    report_duplicates(table.sink(), "port", &ports);
    values(ports)
}

pub(super) fn read_owner(table: &TableReader<'_>) -> OwnerDraft {
    let unicast = table.texts("unicast", text::address);
    let number = narrow(table.integer("number"));
    OwnerDraft {
        unicast_known: !table.has("unicast") || (!unicast.is_empty() && unicast.len() == table.written("unicast")),
        unicast,
        number_known: number.is_some() || !table.has("number"),
        number,
    }
}

impl OwnerDraft {
    /// The addresses, when they are certain.
    pub(in crate::service) fn known(&self) -> Option<Unicast> {
        self.unicast_known.then(|| self.addresses())
    }

    pub(super) fn addresses(&self) -> Unicast {
        Unicast::of(self.unicast.iter().map(|at| at.value))
    }

    /// The number, when it is certain.
    pub(in crate::service) fn known_number(&self, name: Option<&At<String>>) -> Option<u8> {
        match &self.number {
            Some(number) => Some(number.value),
            None => name.filter(|_| self.number_known).map(|name| site_number(&name.value)),
        }
    }
}
