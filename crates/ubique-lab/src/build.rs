//! Makes a plan real: namespaces, veth pairs, addresses, kernel settings.
