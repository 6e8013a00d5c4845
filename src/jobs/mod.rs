//! What happens in the background: the timetable.
//!
//! Owns when each job runs. A job never runs beside itself, and one that fails says so and runs again at its next time.
//!
//! | job of this instance | period |
//! |---|---|
//! | heartbeat: its lease | a sixth of `database.lease_ms`, beside the others |
//! | changes of other instances, as hints | at once, beside the others |
//! | newer configurations of organizations with calls under way | 1 s, beside the others |
//! | the lease's own deadline | 200 ms look, beside the others |
//! | sums of rate-limited calls onto their chains | 1 s |
//! | sums of unauthenticated calls onto the system's chain | 60 s |
//! | data keys refreshed ahead of their age | 60 s |
//! | results about provider keys, and which were used | 60 s |
//! | notes of checkpoints into its own folder | 1 s look |
//!
//! | job of the whole cluster (`lease`) | period | at most |
//! |---|---|---|
//! | checkpoints: every `checkpoint_entries` entries or `checkpoint_seconds` | 5 s (embedded: 1 s look, no lease) | 4 s |
//! | recovery of dead instances (embedded: at the start) | a sixth of the lease, 5 s | 4 s |
//! | provider keys in use | `jobs.validate_in_use_seconds` | 25 min |
//! | all provider keys | `jobs.validate_all_seconds` | 25 min |
//! | self-verification of every chain | `jobs.verify_seconds` | 5/6 of it |

mod checkpoint;
mod credentials;
mod heartbeat;
mod hints;
mod lease;
mod open_calls;
mod recovery;
#[cfg(test)]
mod tests;
mod verify;

use std::{
    sync::{Arc, atomic::AtomicUsize},
    time::Duration,
};

pub use checkpoint::Checkpoints;
pub use heartbeat::LEASE_MARGIN;
use tokio_util::sync::CancellationToken;

use crate::{
    admission::Admission,
    config::{DatabaseConfig, JobsConfig},
    crypto::Jwks,
    providers::Providers,
    storage::Sql,
    telemetry::Metrics,
};
use lease::Cluster;
use verify::Verification;

/// What jobs work on.
pub struct Parts {
    /// The database.
    pub sql: Sql,
    /// Snapshots, the record, the lease.
    pub admission: Admission,
    /// What makes checkpoints.
    pub checkpoints: Checkpoints,
    /// Lease and hints.
    pub database: DatabaseConfig,
    /// Periods.
    pub config: JobsConfig,
    /// How many instances live; kept up to date.
    pub instances: Arc<AtomicUsize>,
    /// Numbers for operators.
    pub metrics: Arc<Metrics>,
    /// Who judges provider keys.
    pub providers: Providers,
    /// The public keys that sign the record.
    pub keys: Jwks,
}

/// Runs everything until stopped; what is counted by then is recorded, and a last checkpoint is signed. What ends calls runs
/// beside the timetable: no job may make a revocation late. Those of the whole cluster run beside one another.
pub async fn run(parts: Parts, stop: CancellationToken) {
    let Parts { sql, admission, mut checkpoints, database, config, instances, metrics, providers, keys } = parts;
    let follows = open_calls::follow(&admission.snapshots, stop.clone());
    let lease = admission.lease.run(stop.clone());
    let beats = heartbeat::beat(&sql, &admission, database.lease(), &instances, stop.clone());
    let hears = hints::hear(&sql, &admission.snapshots, database.notify, stop.clone());
    let tells = hints::tell(&sql, &admission, stop.clone());
    let own = async {
        let refreshes = credentials::refresh(&sql, &admission, config.trust(), stop.clone());
        tokio::join!(follows, lease, beats, hears, tells, refreshes, timetable(&admission, stop.clone()));
    };
    let (lease, holder) = (admission.lease.clone(), admission.outbox.boot().to_string());
    let cluster = Cluster { sql: sql.clone(), lease, metrics, holder };
    let mut verification = Verification::new(keys);
    let shared = async {
        tokio::join!(
            recovery::look(&cluster, &admission, database.lease(), stop.clone()),
            checkpoints.look(&cluster, stop.clone()),
            credentials::validate(&cluster, &admission, &providers, &config, stop.clone()),
            verification.look(&cluster, config.verify_seconds, stop.clone()),
        );
    };
    tokio::join!(Box::pin(own), Box::pin(shared));
    admission.aggregates.flush_limited(&admission.outbox);
    admission.aggregates.flush_unowned(&admission.outbox);
    admission.outbox.flush().await;
    checkpoints.end().await;
}

/// Runs what has a period of its own, until stopped.
async fn timetable(admission: &Admission, stop: CancellationToken) {
    let mut second = tokio::time::interval(Duration::from_secs(1));
    second.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut ticks: u64 = 0;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = second.tick() => {}
        }
        ticks += 1;
        admission.aggregates.flush_limited(&admission.outbox);
        if ticks.is_multiple_of(60) {
            admission.aggregates.flush_unowned(&admission.outbox);
            admission.credentials.warm().await;
        }
    }
}
