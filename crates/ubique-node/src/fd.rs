//! Kernel objects as tokio waits for them.

use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A kernel object that becomes readable.
pub(crate) struct Watched<T>(pub T);

impl<T: AsFd> AsRawFd for Watched<T> {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

/// Registers a non-blocking kernel object with the runtime.
pub(crate) fn watch<T: AsFd>(object: T) -> io::Result<AsyncFd<Watched<T>>> {
    #[expect(
        deprecated,
        reason = "its unsafe successor demands what `AsFd` says: the descriptor lives as long as its owner"
    )]
    AsyncFd::with_interest(Watched(object), Interest::READABLE)
}
