//! Log lines on standard error, written by a thread of their own.
//!
//! Owns format and filter. Never blocks a request: when the pipe is full, lines are dropped and counted by the writer.

use tracing_subscriber::{EnvFilter, fmt, prelude::*};

/// Keeps the writing thread alive; dropped at the end, it writes what is left.
pub struct LogGuard {
    _guard: tracing_appender::non_blocking::WorkerGuard,
}

/// Starts logging; a filter that does not parse becomes `info`. A second start changes nothing.
pub fn start_logs(level: &str, json: bool) -> LogGuard {
    let (writer, guard) = tracing_appender::non_blocking(std::io::stderr());
    let filter = EnvFilter::try_new(level).unwrap_or_else(|_| EnvFilter::new("info"));
    let registry = tracing_subscriber::registry().with(filter);
    let started = if json {
        let layer = fmt::layer().json().flatten_event(true).with_current_span(false).with_span_list(false);
        registry.with(layer.with_writer(writer)).try_init()
    } else {
        registry.with(fmt::layer().with_ansi(false).with_writer(writer)).try_init()
    };
    // Only tests start twice in one process; the first stays.
    drop(started);
    LogGuard { _guard: guard }
}
