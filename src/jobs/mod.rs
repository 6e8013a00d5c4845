//! What happens in the background: the timetable.
//!
//! Owns when each job runs. A job never runs beside itself, and one that fails says so and runs again at its next time.
//!
//! | job | period |
//! |---|---|
//! | heartbeat: the lease of this instance | a sixth of `database.lease_ms`, beside the others |
//! | changes of other instances, as hints | at once, beside the others |
//! | newer configurations of organizations with calls under way | 1 s, beside the others |
//! | the lease's own deadline | 200 ms look, beside the others |
//! | sums of rate-limited calls onto their chains | 1 s |
//! | checkpoints: every `checkpoint_entries` entries or `checkpoint_seconds` | 1 s look |
//! | sums of unauthenticated calls onto the system's chain | 60 s |
//! | data keys refreshed ahead of their age | 60 s |

mod checkpoint;
mod heartbeat;
mod hints;
mod open_calls;

use std::{
    sync::{Arc, atomic::AtomicUsize},
    time::Duration,
};

pub use checkpoint::Checkpoints;
pub use heartbeat::LEASE_MARGIN;
use tokio_util::sync::CancellationToken;

use crate::{admission::Admission, config::DatabaseConfig, storage::Sql};

/// What jobs work on.
pub struct Parts {
    /// The database.
    pub sql: Sql,
    /// Snapshots, the record, the lease.
    pub admission: Admission,
    /// What makes checkpoints.
    pub checkpoints: Checkpoints,
    /// Lease and hints.
    pub config: DatabaseConfig,
    /// How many instances live; kept up to date.
    pub instances: Arc<AtomicUsize>,
}

/// Runs everything until stopped. What ends calls runs beside the timetable: no job may make a revocation late.
pub async fn run(parts: Parts, stop: CancellationToken) {
    let Parts { sql, admission, checkpoints, config, instances } = parts;
    let follows = open_calls::follow(&admission.snapshots, stop.clone());
    let lease = admission.lease.run(stop.clone());
    let beats = heartbeat::beat(&sql, &admission, config.lease(), &instances, stop.clone());
    let hears = hints::hear(&sql, &admission.snapshots, config.notify, stop.clone());
    let tells = hints::tell(&sql, &admission, stop.clone());
    tokio::join!(follows, lease, beats, hears, tells, timetable(&admission, checkpoints, stop));
}

/// Runs the timetable until stopped; what is counted by then is recorded, and a last checkpoint is signed.
async fn timetable(admission: &Admission, mut checkpoints: Checkpoints, stop: CancellationToken) {
    let mut second = tokio::time::interval(Duration::from_secs(1));
    second.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut ticks: u64 = 0;
    loop {
        let ending = tokio::select! {
            () = stop.cancelled() => true,
            _ = second.tick() => false,
        };
        ticks += 1;
        admission.aggregates.flush_limited(&admission.outbox);
        if ending || ticks.is_multiple_of(60) {
            admission.aggregates.flush_unowned(&admission.outbox);
        }
        if ending {
            admission.outbox.flush().await;
        } else if ticks.is_multiple_of(60) {
            admission.credentials.warm().await;
        }
        checkpoints.look(ending).await;
        if ending {
            return;
        }
    }
}
