//! The ring in which the program notes connections that other sites ask for and that are here (`struct found`).

use std::cell::RefCell;
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;

use libbpf_rs::{MapCore, RingBuffer, RingBufferBuilder};
use ubique_proto::sessions::Flow;

use crate::loader::kernel;
use crate::{Error, Found};

/// What the program notes.
pub struct Notes {
    ring: RingBuffer<'static>,
    taken: Rc<RefCell<Vec<Found>>>,
}

impl Notes {
    pub(crate) fn new(map: &dyn MapCore) -> Result<Notes, Error> {
        let taken = Rc::new(RefCell::new(Vec::new()));
        let into = taken.clone();
        let mut builder = RingBufferBuilder::new();
        let take = move |octets: &[u8]| {
            into.borrow_mut().extend(parse(octets));
            0
        };
        let opened = builder.add(map, take).map(|_| ()).and_then(|()| builder.build());
        let ring = opened.map_err(|error| kernel("opening the ring of what is asked for", &error))?;
        Ok(Notes { ring, taken })
    }

    /// What waits, at most `limit`.
    pub fn take(&mut self, limit: usize) -> Vec<Found> {
        // An error leaves the rest for the next time.
        let _ = self.ring.consume_raw_n(limit);
        self.taken.take()
    }
}

impl AsFd for Notes {
    /// Readable when something waits.
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor is the ring's, which lives as long as the borrow.
        unsafe { BorrowedFd::borrow_raw(self.ring.epoll_fd()) }
    }
}

/// `struct found`
fn parse(octets: &[u8]) -> Option<Found> {
    let flow = Flow::of_octets(octets.first_chunk()?)?;
    let origin = ubique_proto::sessions::Site::new(*octets.get(size_of::<[u8; 40]>())?)?;
    Some(Found { flow, origin })
}
