//! Recovery: what dead instances left open is closed by one that lives.
//!
//! Owns when: only after this instance's own heartbeats have succeeded for a whole lease without a break, since after an
//! outage of the database every lease looks expired (admission.md rule 18). Closes first, in a transaction of its own, then
//! settles; and goes on looking at boots that are closed. Whoever is cut off in the middle leaves the rest to the next look.

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use super::lease::{Cluster, Job};
use crate::{
    admission::{Admission, DeadBoots, close_dead_boots, recover},
    storage::{Sql, StorageError},
    telemetry::Metrics,
};

/// Looks until stopped.
pub(super) async fn look(cluster: &Cluster, admission: &Admission, whole: Duration, stop: CancellationToken) {
    if !cluster.sql.is_shared() {
        // One process owns the database: what others left is closed at its start.
        return;
    }
    let every = (whole / 6).min(Duration::from_secs(5));
    let job = Job { name: "recovery", every, hold: every * 4 / 5 };
    let mut dead = DeadBoots::default();
    let looks = async {
        loop {
            tokio::time::sleep(every / 4).await;
            if admission.lease.is_steady(whole) {
                let metrics = &cluster.metrics;
                cluster.try_run(job, async |_| close(&cluster.sql, admission, metrics, &mut dead).await).await;
            }
        }
    };
    tokio::select! {
        () = looks => {}
        () = stop.cancelled() => {}
    }
}

async fn close(
    sql: &Sql,
    admission: &Admission,
    metrics: &Arc<Metrics>,
    dead: &mut DeadBoots,
) -> Result<(), StorageError> {
    let closed = sql.close_expired_boots().await?;
    if !closed.is_empty() {
        tracing::warn!(boots = ?closed, "instances were not heard of for too long and are taken for dead");
    }
    // Money first: the other may take longer than a run for a boot that lived long, and goes on where it was.
    let recovered = recover(sql, &admission.outbox).await?;
    if recovered > 0 {
        tracing::warn!(admissions = recovered, "admissions of dead instances were closed as unknown");
        metrics.recovered.inc_by(recovered);
    }
    close_dead_boots(sql, &admission.outbox, dead).await
}
