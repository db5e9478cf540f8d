//! What listens: a socket for each family and interface that somebody may call at, each on its own.
//!
//! One that cannot be opened takes no other with it and is tried again: its interface may come later, another program may
//! leave the port. One whose interface went and came back is opened anew, since the kernel binds to the number of an
//! interface, and the new one has another.
//!
//! Both are looked at every [`LOOK_EVERY`] rather than at events of interfaces: a port has none, and whoever was refused
//! calls again after longer than that.

use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::task::{Context, Poll};
use std::time::Duration;

use rustix::net::netdevice::name_to_index;
use tokio::net::TcpStream;
use ubique_model::{Family, Prefix};
use ubique_proto::Time;

use super::callers::Callers;
use super::driver::DriverError;
use super::socket::{self, Endpoint, Key, Listener, ListenerSpec, Place};

/// Between two looks at interfaces and at what could not be opened.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// All of them.
pub(super) struct Listeners {
    port: u16,
    slots: Vec<Slot>,
    /// When to look again; `None`: there is nothing that could change.
    look_at: Option<Time>,
}

/// One of them, open or not.
struct Slot {
    family: Family,
    /// `None`: for whoever has no interface of its own.
    interface: Option<String>,
    /// Others listen on the same port, on other interfaces.
    shared: bool,
    open: Option<Open>,
    /// Why it is not open.
    error: Option<String>,
    /// Who may call, with keys and distances, when it was opened.
    admits: Vec<Admitted>,
}

/// A caller, his key, and the TTL his packets need.
type Admitted = (Prefix, Option<Key>, u8);

struct Open {
    listener: Listener,
    /// Number of the interface then.
    index: Option<u32>,
}

impl Slot {
    fn open(&mut self, place: Option<&Place>, port: u16, callers: &Callers) -> io::Result<()> {
        self.admits = self.admitted(callers);
        let who = self.callers(callers).collect();
        let interface = self.interface.as_deref();
        let spec = ListenerSpec { family: self.family, interface, port, shared: self.shared, callers: who };
        let listener = socket::listen(place, &spec)?;
        let index = interface.map(|name| name_to_index(listener.as_fd(), name)).transpose()?;
        self.open = Some(Open { listener, index });
        Ok(())
    }

    fn callers<'c>(&self, callers: &'c Callers) -> impl Iterator<Item = (Prefix, &'c Endpoint)> + use<'c> {
        let (family, interface) = (self.family, self.interface.clone());
        let here = move |e: &Endpoint| e.interface.is_none() || e.interface == interface;
        callers.configured().filter(move |(_, e)| e.family() == family && here(e))
    }

    fn admitted(&self, callers: &Callers) -> Vec<Admitted> {
        self.callers(callers).map(|(prefix, e)| (prefix, e.key.clone(), e.min_ttl)).collect()
    }

    /// Whether its interface is another one than it was bound to, or gone.
    fn is_deaf(&self) -> bool {
        let (Some(open), Some(name)) = (&self.open, &self.interface) else {
            return false;
        };
        name_to_index(open.listener.as_fd(), name).ok() != open.index
    }

    /// Opens it, or says once why that cannot be.
    fn try_open(&mut self, place: Option<&Place>, port: u16, callers: &Callers) {
        let (family, interface) = (self.family, self.interface.clone());
        let interface = interface.map(tracing::field::display);
        match self.open(place, port, callers) {
            Ok(()) => {
                if self.error.take().is_some() {
                    tracing::info!(port, %family, interface, "listening for BGP connections");
                }
            }
            Err(error) => {
                let error = error.to_string();
                if self.error.as_ref() != Some(&error) {
                    tracing::warn!(port, %family, interface, error, "cannot listen for BGP connections: trying again");
                    self.error = Some(error);
                }
            }
        }
    }
}

impl Listeners {
    /// Nothing listens.
    pub(super) fn none() -> Listeners {
        Listeners { port: 0, slots: Vec::new(), look_at: None }
    }

    /// Opens one for each family and interface that somebody may call at. Fails only when they `must` be there, and then not
    /// for an interface that is not there yet.
    pub(super) fn open(
        now: Time,
        place: Option<&Place>,
        port: u16,
        callers: &Callers,
        must: bool,
    ) -> Result<Listeners, DriverError> {
        let mut wanted: Vec<(Family, Option<String>)> =
            callers.configured().map(|(_, e)| (e.family(), e.interface.clone())).collect();
        wanted.sort_unstable();
        wanted.dedup();
        let shared = |family| wanted.iter().filter(|(f, _)| *f == family).count() > 1;
        let mut slots = Vec::new();
        for (family, interface) in &wanted {
            let (family, interface, shared) = (*family, interface.clone(), shared(*family));
            let mut slot = Slot { family, interface, shared, open: None, error: None, admits: Vec::new() };
            if !must {
                slot.try_open(place, port, callers);
            } else if let Err(source) = slot.open(place, port, callers) {
                if source.kind() != io::ErrorKind::NotFound {
                    return Err(DriverError::Listen { port, family, interface: slot.interface, source });
                }
                slot.try_open(place, port, callers);
            }
            slots.push(slot);
        }
        let mut listeners = Listeners { port, slots, look_at: None };
        listeners.rest(now);
        Ok(listeners)
    }

    /// Makes them fit other callers. One whose callers have the keys they had stays open.
    pub(super) fn adapt(&mut self, now: Time, place: Option<&Place>, callers: &Callers) {
        if self.port == 0 {
            return;
        }
        let mut wanted: Vec<(Family, Option<String>)> =
            callers.configured().map(|(_, e)| (e.family(), e.interface.clone())).collect();
        wanted.sort_unstable();
        wanted.dedup();
        self.slots.retain(|slot| wanted.contains(&(slot.family, slot.interface.clone())));
        for (family, interface) in &wanted {
            let shared = wanted.iter().filter(|(f, _)| f == family).count() > 1;
            let known = self.slots.iter_mut().find(|s| (s.family, &s.interface) == (*family, interface));
            let slot = match known {
                Some(slot) => slot,
                None => {
                    let (family, interface) = (*family, interface.clone());
                    let slot = Slot { family, interface, shared, open: None, error: None, admits: Vec::new() };
                    self.slots.push(slot);
                    let Some(slot) = self.slots.last_mut() else { continue };
                    slot
                }
            };
            if slot.open.is_none() || slot.shared != shared || slot.admits != slot.admitted(callers) {
                slot.shared = shared;
                slot.open = None;
                slot.try_open(place, self.port, callers);
            }
        }
        self.rest(now);
    }

    /// Opens what can be opened by now.
    pub(super) fn look(&mut self, now: Time, place: Option<&Place>, callers: &Callers) {
        if self.look_at.is_none_or(|at| at > now) {
            return;
        }
        for slot in &mut self.slots {
            if slot.is_deaf() {
                slot.open = None;
            }
            if slot.open.is_none() {
                slot.try_open(place, self.port, callers);
            }
        }
        self.rest(now);
    }

    fn rest(&mut self, now: Time) {
        let open_for_good = |slot: &Slot| slot.open.is_some() && slot.interface.is_none();
        self.look_at = (!self.slots.iter().all(open_for_good)).then(|| now + LOOK_EVERY);
    }

    /// When [`Listeners::look`] wants to be called.
    pub(super) fn next_deadline(&self) -> Option<Time> {
        self.look_at
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// The interface of one of them.
    pub(super) fn interface(&self, index: usize) -> Option<&str> {
        self.slots.get(index)?.interface.as_deref()
    }

    /// The next call at one of them.
    pub(super) fn poll_accept(&self, cx: &mut Context<'_>, index: usize) -> Poll<(TcpStream, IpAddr)> {
        let Some(open) = self.slots.get(index).and_then(|slot| slot.open.as_ref()) else {
            return Poll::Pending;
        };
        match open.listener.poll_accept(cx) {
            Poll::Ready(Ok((stream, from))) => Poll::Ready((stream, from.ip())),
            // An error concerns one connection that is gone, or too many open files: that passes.
            _ => Poll::Pending,
        }
    }

    #[cfg(test)]
    pub(super) fn local_addr(&self, index: usize) -> io::Result<std::net::SocketAddr> {
        let open = self.slots.get(index).and_then(|slot| slot.open.as_ref());
        open.ok_or(io::ErrorKind::NotConnected)?.listener.local_addr()
    }
}
