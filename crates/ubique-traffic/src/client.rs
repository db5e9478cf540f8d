//! The clients of all vantage points: one process, one thread, a task for each session.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout_at};
use ubique_model::scenario::{Exchange, SessionKind};
use ubique_model::traffic::{ClientsSpec, How, LaneSpec, LaneWindow, Loss, News, Order, PATIENCE};
use ubique_sys::clock::monotonic_ns;
use ubique_sys::netns::NetNs;

use crate::exchange::{self, how};
use crate::{TrafficError, quic, tls};

/// Most sessions at once: each has a descriptor.
pub const MAX_SESSIONS: u64 = 10_000;
/// After a session was lost its successor comes so much later: what refuses at once is not asked in a loop.
const RETRY: Duration = Duration::from_millis(200);
/// Sessions begin so far apart, so that they do not send all at once.
const PHASE: Duration = Duration::from_millis(3);

/// What a lane saw since the last mark.
#[derive(Debug, Default)]
struct Tally {
    window: LaneWindow,
    live: u64,
}

type Shared = Arc<Mutex<Tally>>;

fn lock(tally: &Shared) -> MutexGuard<'_, Tally> {
    tally.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a session waits for, and for how long it has.
pub struct Watch {
    tally: Shared,
    since: Instant,
    site: Option<String>,
    /// The first of those that are held after each other.
    first: Option<Arc<Beginning>>,
}

/// Sessions that are neither open nor lost yet, the first time.
struct Beginning {
    left: AtomicU64,
    news: UnboundedSender<News>,
}

impl Beginning {
    fn one_less(&self) {
        if self.left.fetch_sub(1, Ordering::Relaxed) == 1 {
            // Nobody hears it only when everything ends.
            let _ = self.news.send(News::Begun);
        }
    }
}

impl Watch {
    /// A session begins.
    fn begin(tally: &Shared, first: Option<Arc<Beginning>>) -> Watch {
        let mut seen = lock(tally);
        seen.window.begun += 1;
        seen.live += 1;
        Watch { tally: tally.clone(), since: Instant::now(), site: None, first }
    }

    /// When it is given up.
    pub fn deadline(&self) -> Instant {
        self.since + PATIENCE
    }

    /// What was waited for is there.
    pub fn progress(&mut self) {
        self.waited();
        self.since = Instant::now();
    }

    /// A site serves it.
    pub fn opened(&mut self, site: &str) {
        self.progress();
        *lock(&self.tally).window.sites.entry(site.to_owned()).or_default() += 1;
        self.site = Some(site.to_owned());
        self.first.take().inspect(|first| first.one_less());
    }

    /// Content came as it was sent.
    pub fn content(&mut self, octets: usize) {
        lock(&self.tally).window.content_bytes += octets as u64;
    }

    fn waited(&self) {
        let waited_ns = u64::try_from(self.since.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let longest = &mut lock(&self.tally).window.longest_wait_ns;
        *longest = waited_ns.max(*longest);
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        lock(&self.tally).live -= 1;
        self.first.take().inspect(|first| first.one_less());
    }
}

/// A lane at work.
struct Lane {
    index: usize,
    spec: LaneSpec,
    netns: NetNs,
    tally: Shared,
    news: UnboundedSender<News>,
    tls: tls::Client,
    quic: quic::Client,
}

/// Holds the sessions until `orders` end; what is found out goes to `output`, a line of JSON each.
///
/// # Errors
/// [`TrafficError`]: too many, or a namespace that is not there.
pub fn run_clients(
    spec: &ClientsSpec,
    orders: impl Read + Send + 'static,
    output: impl Write,
) -> Result<(), TrafficError> {
    let total = spec.lanes.iter().map(|lane| u64::from(lane.count)).sum();
    if total > MAX_SESSIONS {
        return Err(TrafficError::TooMany(total));
    }
    let (give, taken) = unbounded_channel();
    std::thread::Builder::new().name("orders".into()).spawn(move || take_orders(orders, &give))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(run(spec, taken, output))
}

/// Passes orders on until there are no more.
fn take_orders(orders: impl Read, give: &UnboundedSender<Order>) {
    let lines = BufReader::new(orders).lines().map_while(Result::ok);
    for order in lines.map_while(|line| serde_json::from_str(&line).ok()) {
        if give.send(order).is_err() {
            return;
        }
    }
}

async fn run(
    spec: &ClientsSpec,
    mut orders: UnboundedReceiver<Order>,
    mut output: impl Write,
) -> Result<(), TrafficError> {
    // Bounded by the rate of sessions; each is opened again only after RETRY.
    let (news, mut heard) = unbounded_channel();
    let (tls, quic) = (tls::Client::new()?, quic::Client::new()?);
    let total: u64 = spec.lanes.iter().map(|lane| u64::from(lane.count)).sum();
    let beginning = Arc::new(Beginning { left: AtomicU64::new(total), news: news.clone() });
    let mut tallies = Vec::new();
    let mut sessions = 0;
    for (index, lane) in spec.lanes.iter().enumerate() {
        let tally = Shared::default();
        tallies.push(tally.clone());
        let netns = NetNs::open(&lane.netns)?;
        let (news, tls, quic) = (news.clone(), tls.clone(), quic.clone());
        let lane = Arc::new(Lane { index, spec: lane.clone(), netns, tally, news, tls, quic });
        for _ in 0..lane.spec.count {
            tokio::spawn(hold(lane.clone(), PHASE * sessions, beginning.clone()));
            sessions += 1;
        }
    }
    let mut tell = |news: &News| -> io::Result<()> {
        serde_json::to_writer(&mut output, news)?;
        output.write_all(b"\n")?;
        output.flush()
    };
    loop {
        tokio::select! {
            order = orders.recv() => match order {
                Some(Order::Mark(mark)) => tell(&News::Window { mark, lanes: tallies.iter().map(take).collect() })?,
                None => return Ok(()),
            },
            Some(news) = heard.recv() => tell(&news)?,
        }
    }
}

/// What was seen; sessions that are open are those of the next window, too.
fn take(tally: &Shared) -> LaneWindow {
    let mut tally = lock(tally);
    let next = LaneWindow { live: tally.live, ..LaneWindow::default() };
    std::mem::replace(&mut tally.window, next)
}

/// Holds one session after the other.
async fn hold(lane: Arc<Lane>, phase: Duration, beginning: Arc<Beginning>) {
    sleep(phase).await;
    let mut first = Some(beginning);
    let pace = match (lane.spec.kind, lane.spec.exchange) {
        (SessionKind::TcpShort, Exchange::Messages { every }) => every,
        _ => Duration::from_millis(1),
    };
    let mut ticks = interval(pace);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        ticks.tick().await;
        let mut watch = Watch::begin(&lane.tally, first.take());
        match lane.session(&mut watch).await {
            Ok(()) => lock(&lane.tally).window.done += 1,
            Err(error) => {
                lane.lost(&watch, how(&error));
                drop(watch);
                sleep(RETRY).await;
            }
        }
    }
}

impl Lane {
    async fn session(&self, watch: &mut Watch) -> io::Result<()> {
        let what = (self.spec.kind, self.spec.exchange);
        match self.spec.kind {
            SessionKind::Quic => {
                let socket = self.inside(|| std::net::UdpSocket::bind((self.spec.from, 0)))?;
                self.quic.session(socket, self.spec.to, what, watch).await
            }
            SessionKind::Tls => {
                let stream = self.connect(watch).await?;
                let stream = within(watch, self.tls.connect(stream)).await?;
                exchange::client(stream, what, watch).await
            }
            _ => exchange::client(self.connect(watch).await?, what, watch).await,
        }
    }

    async fn connect(&self, watch: &Watch) -> io::Result<TcpStream> {
        let socket = self.inside(|| if self.spec.to.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() })?;
        socket.bind(SocketAddr::new(self.spec.from, 0))?;
        let stream = within(watch, socket.connect(self.spec.to)).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    /// Makes a socket in the vantage point's namespace: the thread is in one or another, and nothing else of it depends on which.
    fn inside<T>(&self, make: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        self.netns.enter()?;
        make()
    }

    fn lost(&self, watch: &Watch, how: How) {
        watch.waited();
        let silent = watch.since.elapsed();
        // Silence began when the first message, or piece, did not come that was due.
        let due = match self.spec.exchange {
            _ if watch.site.is_none() || self.spec.kind == SessionKind::TcpShort => Duration::ZERO,
            Exchange::Messages { every } => every,
            Exchange::Bulk { .. } => exchange::PACE,
        };
        let ago = if how == How::Timeout { silent.saturating_sub(due) } else { Duration::ZERO };
        let at_ns = monotonic_ns().saturating_sub(u64::try_from(ago.as_nanos()).unwrap_or(u64::MAX));
        let loss = Loss { lane: self.index, at_ns, how, site: watch.site.clone() };
        // Nobody hears it only when everything ends.
        let _ = self.news.send(News::Lost(loss));
    }
}

/// Does not wait longer than the session is given.
pub async fn within<T>(watch: &Watch, what: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout_at(watch.deadline(), what).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// Of a session that nobody counts.
    pub fn watch() -> Watch {
        Watch::begin(&Shared::default(), None)
    }

    /// What its lane has seen.
    pub fn seen(watch: &Watch) -> LaneWindow {
        lock(&watch.tally).window.clone()
    }

    #[test]
    fn a_session_is_in_each_window_it_is_open_in() {
        let tally = Shared::default();
        let (news, mut heard) = unbounded_channel();
        let beginning = Arc::new(Beginning { left: AtomicU64::new(2), news });
        let mut first = Watch::begin(&tally, Some(beginning.clone()));
        let second = Watch::begin(&tally, Some(beginning));
        first.opened("lon");
        first.opened("lon");
        assert!(heard.try_recv().is_err(), "one has neither begun nor ended");
        drop(second);
        assert_eq!(heard.try_recv(), Ok(News::Begun));
        let window = take(&tally);
        assert_eq!((window.live, window.begun), (0, 2));
        assert_eq!((take(&tally).live, take(&tally).begun), (1, 0));
        drop(first);
        assert_eq!(take(&tally).live, 1);
        assert_eq!(take(&tally).live, 0);
    }

    #[test]
    fn too_many_are_refused() {
        let lane = LaneSpec {
            netns: "/proc/self/ns/net".into(),
            from: [127, 0, 0, 1].into(),
            to: ([127, 0, 0, 1], 1).into(),
            kind: SessionKind::Tcp,
            exchange: Exchange::Messages { every: RETRY },
            count: 1000,
        };
        let spec = ClientsSpec { lanes: vec![lane; 11] };
        assert!(matches!(run_clients(&spec, io::empty(), io::sink()), Err(TrafficError::TooMany(11_000))));
    }
}
