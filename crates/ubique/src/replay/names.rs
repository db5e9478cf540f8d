//! Addresses for the numbers of a journal: cores know neighbours and connections by number only.

use std::collections::BTreeMap;

use ubique_proto::bgp::speaker::{ConnId, In, PeerId, Speaker};
use ubique_proto::journal::{Event, Input};

/// Connections remembered: those of a journal's last hours suffice.
const CONNECTIONS: usize = 4096;

/// Who is behind which number.
#[derive(Default)]
pub(super) struct Names {
    peers: BTreeMap<PeerId, String>,
    connections: BTreeMap<ConnId, PeerId>,
}

impl Names {
    /// Learns from a record, and from the speaker it was replayed by.
    pub(super) fn learn(&mut self, event: &Event, speaker: Option<&Speaker>) {
        match event {
            Event::Anchor { .. } | Event::Input(Input::Bgp(In::AddPeer { .. })) => {
                let peers = speaker.into_iter().flat_map(Speaker::peers);
                self.peers.extend(peers.map(|p| (p.peer, p.config.address.to_string())));
            }
            Event::Input(Input::Bgp(In::Connected { peer, conn, .. } | In::Accepted { peer, conn, .. })) => {
                self.connections.insert(*conn, *peer);
                if self.connections.len() > CONNECTIONS {
                    self.connections.pop_first();
                }
            }
            _ => {}
        }
    }

    /// A text with names in place of the numbers that are known: `PeerId(0)` is an address, `ConnId(7)` the address and
    /// the connection's number.
    pub(super) fn put(&self, text: String) -> String {
        let text = replaced(text, "PeerId(", |number| self.peers.get(&PeerId(u32::try_from(number).ok()?)).cloned());
        replaced(text, "ConnId(", |number| {
            let peer = self.connections.get(&ConnId(number))?;
            Some(format!("{} #{number}", self.peers.get(peer)?))
        })
    }
}

/// Every `NAME(digits)` that has a name becomes it.
fn replaced(text: String, start: &str, name: impl Fn(u64) -> Option<String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text.as_str();
    while let Some((before, after)) = rest.split_once(start) {
        out.push_str(before);
        let known = after.split_once(')').and_then(|(number, tail)| Some((name(number.parse().ok()?)?, tail)));
        match known {
            Some((name, tail)) => {
                out.push_str(&name);
                rest = tail;
            }
            None => {
                out.push_str(start);
                rest = after;
            }
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_become_addresses_where_they_are_known() {
        let mut names = Names::default();
        names.peers.insert(PeerId(0), "192.0.2.1".into());
        names.connections.insert(ConnId(7), PeerId(0));
        let text = "Send on ConnId(7) to PeerId(0), PeerId(1), ConnId(8), PeerId(x";
        assert_eq!(names.put(text.into()), "Send on 192.0.2.1 #7 to 192.0.2.1, PeerId(1), ConnId(8), PeerId(x");
    }
}
