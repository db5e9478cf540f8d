//! A running emulated Internet with its sites.
