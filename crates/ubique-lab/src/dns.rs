//! The built-in service of a site: a small authoritative DNS responder.
