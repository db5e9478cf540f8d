//! The BGP routers of the emulated Internet.
