//! The wire: moves frames between veth ends with delay, loss and rate.
