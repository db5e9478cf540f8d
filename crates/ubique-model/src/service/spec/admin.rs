//! The keys of `[agent.api]`.

use super::{field, plain};
use crate::read::formats::*;
use crate::read::spec::{Need, Spec, Type};

/// Most names of clients that may act.
pub const MAX_CLIENTS: usize = 64;

pub(super) static API: Spec = plain(
    "The requests of the admin socket over HTTPS; both sides show certificates (mutual TLS).",
    &[
        field("listen", Type::Text(&ENDPOINT), Need::Required, "Address and port, of this machine alone."),
        field(
            "certificate",
            Type::Text(&PEM),
            Need::Required,
            "Our certificate with its chain, PEM; read again when it changes.",
        ),
        field("key-file", Type::Text(&PEM), Need::Required, "Its private key, PEM."),
        field(
            "client-ca",
            Type::Text(&PEM),
            Need::Required,
            "Authorities whose clients may read, PEM. Best one of your own, for nothing else.",
        ),
        field(
            "clients",
            Type::List { item: &Type::Text(&FREE), min: 1, max: MAX_CLIENTS },
            Need::Optional,
            "Clients that may act, by common name or alternative name; absent: all of `client-ca`.",
        ),
    ],
);
