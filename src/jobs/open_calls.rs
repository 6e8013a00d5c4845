//! Follows the configuration of the organizations with calls under way.
//!
//! Owns how often the database is asked for what other instances changed (admission.md rule 22), so that a revoked key's
//! streams end here as well. A database that does not answer changes nothing here: the lease ends what runs too long.

use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use crate::admission::Snapshots;

/// Between two questions.
const PERIOD: Duration = Duration::from_secs(1);

/// The longest that one may take: a connection that died silently must not be the last one that was asked.
const LIMIT: Duration = Duration::from_secs(5);

/// Asks until stopped.
pub(super) async fn follow(snapshots: &Snapshots, stop: CancellationToken) {
    let mut tick = interval(PERIOD);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let asked = async {
            tick.tick().await;
            timeout(LIMIT, snapshots.refresh_open()).await
        };
        let asked = tokio::select! {
            () = stop.cancelled() => return,
            asked = asked => asked,
        };
        match asked {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "the configuration of open calls is not known"
                );
            }
            Err(_) => tracing::warn!("the configuration of open calls is not known: the database does not answer"),
        }
    }
}
