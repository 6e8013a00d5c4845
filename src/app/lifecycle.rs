//! Starting and stopping: signals, draining, the tracker of tasks.
//!
//! Owns the order of the end: stop accepting, let requests finish up to the drain limit, end streams with an error frame,
//! record what is under way, sign a last checkpoint, close this boot. Never waits for ever: each part has its bound.

use std::{sync::Arc, time::Duration};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// How long ended streams have to say so.
const HALT: Duration = Duration::from_millis(800);

/// The signals that end a run. From here on they no longer kill the process.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Takes them; before anybody is told that the gateway runs.
    pub fn take() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }
}

/// Tokens and trackers of one run.
#[derive(Clone, Default)]
pub struct Lifecycle {
    /// No new work: the listener closes, requests finish.
    pub stop: CancellationToken,
    /// Streams end now.
    pub halt: CancellationToken,
    /// Connections are dropped, whatever they are doing.
    pub cut: CancellationToken,
    /// The writer and the jobs end.
    pub end: CancellationToken,
    /// Connections.
    pub connections: TaskTracker,
    /// Jobs.
    pub jobs: TaskTracker,
}

impl Lifecycle {
    /// Waits for SIGTERM or SIGINT, or until somebody else cancels `stop`.
    pub async fn signalled(&self, signals: &mut Signals) {
        tokio::select! {
            _ = signals.terminate.recv() => tracing::info!("SIGTERM: draining"),
            _ = signals.interrupt.recv() => tracing::info!("SIGINT: draining"),
            () = self.stop.cancelled() => {}
        }
    }

    /// Drains: requests finish, then streams are ended.
    pub async fn drain(&self, readiness: &Arc<crate::http::Readiness>, limit: Duration) {
        readiness.draining.store(true, std::sync::atomic::Ordering::Release);
        self.stop.cancel();
        self.connections.close();
        if tokio::time::timeout(limit, self.connections.wait()).await.is_ok() {
            return;
        }
        tracing::warn!(connections = self.connections.len(), "the drain limit is over: streams are ended");
        self.halt.cancel();
        if tokio::time::timeout(HALT, self.connections.wait()).await.is_err() {
            tracing::warn!(connections = self.connections.len(), "connections are cut");
            self.cut.cancel();
            // Dropping a connection completes its calls; that takes no waiting.
            if tokio::time::timeout(HALT, self.connections.wait()).await.is_err() {
                tracing::error!("some connections did not end");
            }
        }
    }
}
