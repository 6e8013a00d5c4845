//! Whether a call may go on, asked as long as it runs.
//!
//! Owns the three reasons to cut a call that was rightly admitted: its key no longer holds (revoked, expired, its agent
//! suspended), this instance lost its lease, the gateway is going away. Hears of each when it happens and keeps no timer,
//! except for a key that expires. Follows the newest snapshot, never the one that the call was decided under.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::stream::{FuturesUnordered, StreamExt as _};

use super::{Services, exchange::Caller, refusal::Failure};
use crate::{
    admission::{Permit, SnapshotError},
    domain::clock::Micros,
    tenants::AgentStatus,
};

/// How long the watch waits before it asks a database again that did not answer; the lease bounds how often.
const RETRY: Duration = Duration::from_secs(1);

/// The longest that the end of a key is slept towards before the clock is looked at again: wall time may be set.
const LOOK: Duration = Duration::from_mins(1);

/// Why a call is cut.
#[derive(Debug)]
pub(super) struct Cut {
    /// For the record.
    pub(super) outcome: &'static str,
    /// For the caller.
    pub(super) failure: Failure,
}

impl Cut {
    fn revoked(words: &'static str) -> Self {
        Self { outcome: "revoked", failure: Failure::new(403, "revoked", words) }
    }

    fn lease_lost() -> Self {
        Self { outcome: "lease_lost", failure: Failure::lease_lost() }
    }

    fn shutdown() -> Self {
        let words = "the gateway is shutting down; ask again";
        Self { outcome: "shutdown", failure: Failure::unavailable("shutting_down", words) }
    }
}

type Waiting = Pin<Box<dyn Future<Output = Cut> + Send>>;

/// Watches over one call.
pub(super) struct Watch {
    /// One future, in a set since that polls it only when it was woken: a stream asks with every event, and asking the
    /// tokens themselves would take a lock each that all streams share.
    waiting: FuturesUnordered<Waiting>,
}

impl Watch {
    /// From now on; the call stands in the list of open calls already, so that its snapshot is kept and followed.
    pub(super) fn over(services: &Arc<Services>, caller: &Caller, permit: &Permit) -> Self {
        let (services, caller, lost) = (Arc::clone(services), caller.clone(), permit.lost());
        let waiting: Waiting = Box::pin(async move {
            tokio::select! {
                biased;
                () = services.halt.cancelled() => Cut::shutdown(),
                () = lost => Cut::lease_lost(),
                cut = revoked(&services, &caller) => cut,
            }
        });
        Self { waiting: FuturesUnordered::from_iter([waiting]) }
    }

    /// Ready when the call has to be cut; once.
    pub(super) fn poll_cut(&mut self, cx: &mut Context<'_>) -> Poll<Cut> {
        match self.waiting.poll_next_unpin(cx) {
            Poll::Ready(Some(cut)) => Poll::Ready(cut),
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }

    /// Does the work, unless the call has to be cut before it is done; the work is dropped then, and with it what it waits
    /// for.
    pub(super) async fn unless_cut<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Cut> {
        tokio::select! {
            biased;
            cut = std::future::poll_fn(|cx| self.poll_cut(cx)) => Err(cut),
            done = work => Ok(done),
        }
    }
}

/// Comes back when the newest configuration no longer lets the key call.
async fn revoked(services: &Services, caller: &Caller) -> Cut {
    loop {
        let snapshot = match services.admission.snapshots.get(&caller.org).await {
            Ok(Some(snapshot)) => snapshot,
            Err(SnapshotError::Storage(_)) => {
                tokio::time::sleep(RETRY).await;
                continue;
            }
            // Edited outside of tappass, or gone: nothing is left that says that the key may call.
            Ok(None) | Err(_) => return Cut::revoked("the organization's configuration cannot be used any more"),
        };
        let now = services.clock.now();
        let key = snapshot.key(&caller.key_hash, now).filter(|(_, agent)| agent.status == AgentStatus::Active);
        let Some((key, _)) = key else {
            return Cut::revoked("the key was revoked or has expired, or its agent was suspended");
        };
        let superseded = snapshot.superseded.cancelled();
        match key.expires_at {
            None => superseded.await,
            // Whichever comes first, it is looked at again.
            Some(end) => drop(tokio::time::timeout(until(now, end).min(LOOK), superseded).await),
        }
    }
}

fn until(now: Micros, end: Micros) -> Duration {
    Duration::from_micros(u64::try_from(end.saturating_sub(now)).unwrap_or(0))
}
