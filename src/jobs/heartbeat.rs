//! The heartbeat: this instance lives, says the database.
//!
//! Owns renewing the lease, and noticing that somebody closed this instance meanwhile. A heartbeat that fails is tried again
//! soon; the lease ends by itself if none succeeds. Never compares two machines' clocks: the database's decides when others may
//! take this one for dead, this machine's own when to stop.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use tokio_util::sync::CancellationToken;

use crate::{admission::Admission, storage::Sql};

/// So much earlier than the others may take it for dead does an instance stop by itself.
pub const LEASE_MARGIN: Duration = Duration::from_secs(2);

/// After a heartbeat that failed.
const AGAIN: Duration = Duration::from_millis(500);

/// Renews the lease until stopped: six times before it would end.
pub(super) async fn beat(
    sql: &Sql,
    admission: &Admission,
    holds: Duration,
    instances: &AtomicUsize,
    stop: CancellationToken,
) {
    if !sql.is_shared() {
        return;
    }
    count(sql, instances).await;
    let mut pause = holds / 6;
    while tokio::time::timeout(pause, stop.cancelled()).await.is_err() {
        let boot = admission.outbox.boot();
        let sent_at = admission.lease.clock().running();
        pause = holds / 6;
        match sql.renew_boot(&boot, holds).await {
            // Another boot has taken this one's place meanwhile: its lease is not this heartbeat's to renew or to end.
            Ok(_) if admission.outbox.boot() != boot => {}
            Ok(true) => {
                admission.lease.renewed(sent_at, holds.saturating_sub(LEASE_MARGIN));
                count(sql, instances).await;
            }
            Ok(false) => {
                tracing::error!(boot.id = %boot, "this instance was closed by another: it was not heard of for too long");
                admission.lease.fence();
                admission.outbox.was_closed(boot);
                pause = AGAIN;
            }
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "a heartbeat failed");
                admission.lease.falters();
                pause = AGAIN.min(pause);
            }
        }
    }
}

/// How many live, for limits that are divided while Redis is away.
async fn count(sql: &Sql, instances: &AtomicUsize) {
    match sql.live_boots().await {
        Ok(live) => instances.store(live.len().max(1), Ordering::Relaxed),
        Err(error) => tracing::debug!(error = &error as &dyn std::error::Error, "how many live is not known"),
    }
}
