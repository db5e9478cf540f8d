//! The embedded routers of the lab: every network of an emulated Internet in one process.
//!
//! Each router is a [`Driver`] with Gao-Rexford policy whose sockets live in the network namespace of its AS, and
//! a netlink socket there that installs its best routes (`kernel`). Each is one task, so a router costs nothing
//! while nothing happens to it. The control socket (`control`) answers the lab's questions.

mod control;
mod kernel;

use std::cell::RefCell;
use std::io::{self, Write};
use std::path::PathBuf;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::task::LocalSet;
use ubique_model::Asn;
use ubique_model::router::{NeighborSpec, RouterSpec, RoutersSpec};
use ubique_proto::bgp::speaker::{Export, Import, In, PeerConfig, SpeakerConfig};
use ubique_sys::netns::NetNs;

use crate::admin::{self, Access, SocketError};
use crate::bgp::{BGP_PORT, Driver, DriverConfig, DriverError, Endpoint, Notice, Place};
use crate::limits;
use kernel::Kernel;

/// ConnectRetryTimer of an embedded router: all of them start within a second.
const CONNECT_RETRY: Duration = Duration::from_millis(500);

/// TTL of sessions: every neighbour is at the other end of a link.
const TTL: u8 = 1;

/// Why the routers cannot run.
#[derive(Debug, thiserror::Error)]
pub enum RoutersError {
    /// The namespace of a router cannot be used.
    #[error("AS{asn}: cannot use the network namespace {}", path.display())]
    Namespace {
        /// Whose.
        asn: Asn,
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// BGP cannot be spoken there.
    #[error("AS{asn}: BGP cannot be spoken")]
    Bgp {
        /// Whose.
        asn: Asn,
        /// Why.
        #[source]
        source: DriverError,
    },
    /// The control socket cannot be opened.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// The system refused something else.
    #[error("cannot run the routers")]
    System(#[from] io::Error),
}

/// One router.
struct Router {
    spec: RouterSpec,
    bgp: Driver,
    kernel: Kernel,
}

/// A task polls it and the control socket looks at it, never at the same time: both are on one thread.
type Shared = Rc<RefCell<Router>>;

impl Router {
    fn new(spec: RouterSpec, seed: u64, home: &Rc<NetNs>) -> Result<Router, RoutersError> {
        let namespace = |source| RoutersError::Namespace { asn: spec.asn, path: spec.netns.clone(), source };
        let place = Place::open(&spec.netns, home.clone()).map_err(namespace)?;
        let kernel = Kernel::open(place.namespace()).map_err(namespace)?;
        let speaker = SpeakerConfig {
            peers: spec.neighbors.iter().map(peer).collect(),
            ..SpeakerConfig::new(spec.asn, spec.router_id, seed ^ u64::from(spec.asn.0))
        };
        let endpoints = spec.neighbors.iter().map(endpoint).collect();
        let config = DriverConfig {
            speaker,
            endpoints,
            ranges: vec![],
            place: Some(place),
            listen: Some(BGP_PORT),
            must_listen: true,
            journal: None,
            tap: None,
        };
        let bgp = Driver::new(config).map_err(|source| RoutersError::Bgp { asn: spec.asn, source })?;
        Ok(Router { spec, bgp, kernel })
    }

    fn start(&mut self) {
        for &prefix in &self.spec.originate {
            self.bgp.handle(In::Originate { prefix });
        }
        self.bgp.handle(In::Start);
    }

    /// Everything the sockets have, then the routes that changed by it in one go.
    fn poll(&mut self, cx: &mut Context<'_>) {
        while let Poll::Ready(notice) = self.bgp.poll(cx) {
            match notice {
                Notice::Best { prefix, next_hop } => {
                    self.kernel.set(prefix, next_hop.map(|(next_hop, _)| next_hop.address()));
                }
                Notice::Session { peer, event } => {
                    tracing::debug!(asn = %self.spec.asn, peer = peer.0, ?event, "session");
                }
                Notice::Scope { .. } | Notice::Acknowledged { .. } | Notice::Joined { .. } | Notice::Left { .. } => {}
            }
        }
        if let Err(error) = self.kernel.apply() {
            tracing::warn!(asn = %self.spec.asn, %error, "a route cannot be installed");
        }
    }
}

fn peer(neighbor: &NeighborSpec) -> PeerConfig {
    PeerConfig {
        passive: neighbor.passive,
        hold_time: neighbor.hold_time,
        connect_retry: CONNECT_RETRY,
        import: Import::GaoRexford,
        export: Export::GaoRexford,
        ..PeerConfig::new(neighbor.address, neighbor.asn, neighbor.relation)
    }
}

fn endpoint(neighbor: &NeighborSpec) -> Endpoint {
    Endpoint {
        local: Some(neighbor.local_address),
        ttl: TTL,
        user_timeout: neighbor.hold_time,
        ..Endpoint::new(neighbor.address)
    }
}

/// Runs all routers until SIGTERM or SIGINT. Writes the line `ready` to stdout once all listeners are up.
pub fn run(spec: RoutersSpec) -> Result<(), RoutersError> {
    // Each router has some ten descriptors; the usual soft limit of 1,024 would end at a hundred of them.
    limits::raise_descriptors(u64::MAX);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, serve(spec))
}

async fn serve(spec: RoutersSpec) -> Result<(), RoutersError> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let home = Rc::new(NetNs::current()?);
    let routers: Vec<Shared> = spec
        .routers
        .into_iter()
        .map(|router| Ok(Rc::new(RefCell::new(Router::new(router, spec.seed, &home)?))))
        .collect::<Result<_, RoutersError>>()?;
    let socket = admin::bind(&spec.socket, Access::default())?;
    for router in &routers {
        router.borrow_mut().start();
        let router = router.clone();
        tokio::task::spawn_local(std::future::poll_fn(move |cx| {
            router.borrow_mut().poll(cx);
            Poll::<()>::Pending
        }));
    }
    let routers: Rc<[Shared]> = routers.into();
    tokio::task::spawn_local(admin::serve(socket, move |line, _| {
        let routers = routers.clone();
        async move { control::answer(&routers, &line) }
    }));
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "ready").and_then(|()| stdout.flush())?;
    drop(stdout);
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}
