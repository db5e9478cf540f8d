//! `socket-mode`, `admin-group` and `[agent.api]`.

use std::net::{IpAddr, SocketAddr};

use super::values;
use crate::diagnostic as code;
use crate::read::sink::{At, Finding};
use crate::read::table::TableReader;
use crate::read::text;
use crate::service::{AdminSettings, ApiSettings};

pub(super) fn read_admin(table: &TableReader<'_>, addresses: &[At<IpAddr>]) -> Option<AdminSettings> {
    let mode = table.choice("socket-mode");
    let group = table.text("admin-group", text::free).map(|at| at.value);
    let api = if table.has("api") { Some(table.table("api").and_then(|t| read_api(&t, addresses))) } else { None };
    Some(AdminSettings {
        mode: u32::from_str_radix(mode?.value, 8).ok()?,
        group,
        api: api.map_or(Some(None), |api| api.map(Some))?,
    })
}

fn read_api(table: &TableReader<'_>, addresses: &[At<IpAddr>]) -> Option<ApiSettings> {
    let listen = table.text("listen", text::endpoint);
    check_listen(table, listen.as_ref(), addresses);
    let certificate = table.text("certificate", text::path);
    let key_file = table.text("key-file", text::path);
    let client_ca = table.text("client-ca", text::path);
    let clients = values(table.texts("clients", text::free));
    Some(ApiSettings {
        listen: listen?.value,
        certificate: certificate?.value,
        key_file: key_file?.value,
        client_ca: client_ca?.value,
        clients,
    })
}

fn check_listen(table: &TableReader<'_>, listen: Option<&At<SocketAddr>>, addresses: &[At<IpAddr>]) {
    let Some(listen) = listen else { return };
    if addresses.iter().any(|a| a.value == listen.value.ip()) {
        let message = format!("{} is a service address", listen.value.ip());
        let finding = Finding::new(code::API_ON_SERVICE_ADDRESS, message)
            .cause("a request would reach the nearest site, whichever that is, and none while this site is stopped");
        table.sink().report(&listen.span, finding.fix("listen on an address that belongs to this machine alone"));
    }
}
