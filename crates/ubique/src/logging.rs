//! Logs: one line for each transition, on stderr, through a bounded and lossy queue so that a stuck
//! pipe or terminal can never stall BGP.

use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;

/// Lines that wait for a slow reader before new ones are dropped.
const QUEUE_LINES: usize = 1024;

/// Starts logging; keep the guard until the end, it flushes. `RUST_LOG` selects levels, default `info`.
pub fn start(json: bool, color: bool) -> WorkerGuard {
    let (writer, guard) = NonBlockingBuilder::default()
        .buffered_lines_limit(QUEUE_LINES)
        .lossy(true)
        .thread_name("ubique-log")
        .finish(std::io::stderr());
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer).with_target(false);
    if json {
        builder.json().init();
    } else {
        builder.with_ansi(color).init();
    }
    guard
}
