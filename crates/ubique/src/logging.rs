//! Logs: one line for each transition, on stderr, through a bounded and lossy queue so that a stuck
//! pipe or terminal can never stall BGP.

use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::prelude::*;

/// Lines that wait for a slow reader before new ones are dropped.
const QUEUE_LINES: usize = 1024;

/// Which lines are wanted: a level, or levels by module, as `info,ubique_node::bgp=debug`.
const LEVELS: &str = "RUST_LOG";

/// Starts logging; keep the guard until the end, it flushes. `RUST_LOG` selects levels, default `info`.
pub fn start(json: bool, color: bool) -> WorkerGuard {
    let (writer, guard) = NonBlockingBuilder::default()
        .buffered_lines_limit(QUEUE_LINES)
        .lossy(true)
        .thread_name("ubique-log")
        .finish(std::io::stderr());
    let wanted = std::env::var(LEVELS).unwrap_or_default();
    let levels: Result<Targets, _> = wanted.parse();
    let refused = levels.as_ref().err().map(ToString::to_string);
    let levels = levels.ok().filter(|_| !wanted.is_empty());
    let registry =
        tracing_subscriber::registry().with(levels.unwrap_or_else(|| Targets::new().with_default(LevelFilter::INFO)));
    let lines = tracing_subscriber::fmt::layer().with_writer(writer).with_target(false);
    if json {
        registry.with(lines.json()).init();
    } else {
        registry.with(lines.with_ansi(color)).init();
    }
    if let Some(why) = refused {
        tracing::warn!(%why, "{LEVELS} is not understood: info it is");
    }
    guard
}
