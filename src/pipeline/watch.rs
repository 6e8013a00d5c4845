//! Whether a call may go on, asked as long as it runs.
//!
//! Owns the three reasons to cut a call that was rightly admitted: its key no longer holds (revoked, expired, its agent
//! suspended), this instance lost its lease, the gateway is going away. Hears of each when it happens and keeps no timer,
//! except for a key that expires. Follows the newest snapshot, never the one that the call was decided under.

use std::{
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::{Services, exchange::Caller, refusal::Failure};
use crate::{
    admission::{Permit, SnapshotError, Snapshots},
    domain::clock::{Clock, Micros},
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
    /// Polled only when it was woken: a stream asks with every event, and asking the tokens themselves would take a lock each
    /// that all streams share. `None`: it has answered.
    waiting: Option<Waiting>,
    bell: Arc<Bell>,
    /// The same bell, as what waits knows it.
    ring: Waker,
    /// Who hears the bell now; a copy, so that asking who it is takes no lock.
    heard_by: Waker,
}

/// Rings for whoever asked last.
struct Bell {
    rang: AtomicBool,
    hears: Mutex<Waker>,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.rang.store(true, Ordering::Release);
        self.hears.lock().unwrap_or_else(PoisonError::into_inner).wake_by_ref();
    }
}

impl Watch {
    /// From now on; the call stands in the list of open calls already, so that its snapshot is kept and followed.
    pub(super) fn over(services: &Arc<Services>, caller: &Caller, permit: &Permit) -> Self {
        let (snapshots, clock) = (Arc::clone(&services.admission.snapshots), Arc::clone(&services.clock));
        Self::until(services.halt.clone(), permit.lost(), revoked(snapshots, clock, caller.clone()))
    }

    fn until(
        halt: CancellationToken,
        lost: WaitForCancellationFutureOwned,
        revoked: impl Future<Output = Cut> + Send + 'static,
    ) -> Self {
        let waiting: Waiting = Box::pin(async move {
            tokio::select! {
                biased;
                () = halt.cancelled() => Cut::shutdown(),
                () = lost => Cut::lease_lost(),
                cut = revoked => cut,
            }
        });
        // It has rung once: what waits is asked a first time.
        let bell = Arc::new(Bell { rang: AtomicBool::new(true), hears: Mutex::new(Waker::noop().clone()) });
        let ring = Waker::from(Arc::clone(&bell));
        Self { waiting: Some(waiting), bell, ring, heard_by: Waker::noop().clone() }
    }

    /// Ready when the call has to be cut; once.
    pub(super) fn poll_cut(&mut self, cx: &mut Context<'_>) -> Poll<Cut> {
        // In this order: a ring after the question finds who asked.
        if !self.heard_by.will_wake(cx.waker()) {
            self.heard_by.clone_from(cx.waker());
            self.bell.hears.lock().unwrap_or_else(PoisonError::into_inner).clone_from(cx.waker());
        }
        if !self.bell.rang.swap(false, Ordering::AcqRel) {
            return Poll::Pending;
        }
        let Some(waiting) = &mut self.waiting else { return Poll::Pending };
        let cut = std::task::ready!(waiting.as_mut().poll(&mut Context::from_waker(&self.ring)));
        self.waiting = None;
        Poll::Ready(cut)
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
async fn revoked(snapshots: Arc<Snapshots>, clock: Arc<dyn Clock>, caller: Caller) -> Cut {
    loop {
        let snapshot = match snapshots.get(&caller.org).await {
            Ok(Some(snapshot)) => snapshot,
            Err(SnapshotError::Storage(_)) => {
                tokio::time::sleep(RETRY).await;
                continue;
            }
            // Edited outside of tappass, or gone: nothing is left that says that the key may call.
            Ok(None) | Err(_) => return Cut::revoked("the organization's configuration cannot be used any more"),
        };
        let now = clock.now();
        let key = snapshot.key(&caller.key_hash, now).filter(|(_, agent)| agent.status == AgentStatus::Active);
        let Some((key, _)) = key else {
            return Cut::revoked("the key was revoked or has expired, or its agent was suspended");
        };
        let superseded = snapshot.superseded.cancelled();
        match key.expires_at {
            None => superseded.await,
            // Whichever comes first, it is looked at again.
            Some(end) => drop(tokio::time::timeout(between(now, end).min(LOOK), superseded).await),
        }
    }
}

fn between(now: Micros, end: Micros) -> Duration {
    Duration::from_micros(u64::try_from(end.saturating_sub(now)).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use serde_json::json;

    use super::*;
    use crate::{
        admission::{Lease, rig::Rig},
        domain::{
            clock::ManualClock,
            digest::Digest,
            ids::{AgentId, KeyId, OrgId, ProjectId},
            rows::{Table, Write},
        },
    };

    const KEY: Digest = Digest([7; 32]);

    fn org() -> OrgId {
        OrgId::parse("org_a").unwrap()
    }

    fn caller() -> Caller {
        Caller {
            org: org(),
            agent: AgentId::parse("agt_a").unwrap(),
            project: ProjectId::parse("default").unwrap(),
            key: KeyId::parse("key_a").unwrap(),
            key_hash: KEY,
        }
    }

    /// An organization with one agent and its key, which may end.
    async fn with_key(rig: &Rig, expires_at: Option<Micros>) {
        let agent = json!({
            "agent_id": "agt_a", "slug": "a", "project_id": "default", "owner_email": "", "description": "",
            "framework": "", "status": "active", "created_at": 0, "public_key": "",
        });
        let key = json!({
            "key_id": "key_a", "agent_id": "agt_a", "hash": KEY, "prefix": "tp_", "created_at": 0,
            "expires_at": expires_at,
        });
        rig.found(&org()).await;
        let writes = vec![
            Write::put(Table::Agent, "agt_a", &agent).unwrap(),
            Write::put(Table::AgentKey, "key_a", &key).unwrap(),
        ];
        rig.change(&org(), writes).await;
    }

    /// What became of work that never ends by itself.
    async fn cut(watch: &mut Watch) -> Cut {
        let work = watch.unless_cut(std::future::pending::<()>());
        let ended = tokio::time::timeout(Duration::from_secs(30), work).await;
        ended.expect("the call is cut").expect_err("the work never ends")
    }

    fn watch(snapshots: &Arc<Snapshots>, clock: &Arc<ManualClock>) -> Watch {
        let lease = Lease::unlimited(clock.clone());
        let revoked = revoked(Arc::clone(snapshots), clock.clone(), caller());
        Watch::until(CancellationToken::new(), lease.lost(), revoked)
    }

    #[tokio::test]
    async fn a_key_revoked_by_another_instance_ends_its_calls_here() {
        Rig::run(async |elsewhere| {
            with_key(elsewhere, None).await;
            let clock = Arc::new(ManualClock::at(0));
            let (here, calls) = elsewhere.instance(clock.clone(), usize::MAX);
            let _call = calls.enter(&org());
            let mut watch = watch(&here, &clock);
            let work = watch.unless_cut(here.get(&org())).await;
            assert_eq!(work.unwrap().unwrap().unwrap().stamp.version, 2);
            elsewhere.change(&org(), vec![Write::delete(Table::AgentKey, "key_a")]).await;
            let (cut, refreshed) = tokio::join!(cut(&mut watch), here.refresh_open());
            refreshed.unwrap();
            assert_eq!((cut.outcome, cut.failure.code, cut.failure.status), ("revoked", "revoked", 403));
        })
        .await;
    }

    #[tokio::test]
    async fn a_change_that_leaves_the_key_alone_lets_its_calls_run_and_the_next_one_is_heard() {
        Rig::run(async |elsewhere| {
            with_key(elsewhere, None).await;
            let clock = Arc::new(ManualClock::at(0));
            let (here, calls) = elsewhere.instance(clock.clone(), usize::MAX);
            let _call = calls.enter(&org());
            let mut watch = watch(&here, &clock);
            for _ in 0..3 {
                elsewhere.change(&org(), vec![Write::delete(Table::Budget, "none")]).await;
                watch.unless_cut(here.refresh_open()).await.unwrap().unwrap();
            }
            let still = watch.unless_cut(std::future::pending::<()>()).now_or_never();
            assert!(still.is_none(), "it runs on");
            elsewhere.change(&org(), vec![Write::delete(Table::AgentKey, "key_a")]).await;
            let (cut, _) = tokio::join!(cut(&mut watch), here.refresh_open());
            assert_eq!(cut.outcome, "revoked");
        })
        .await;
    }

    #[tokio::test]
    async fn a_key_that_ends_ends_its_calls() {
        Rig::run(async |elsewhere| {
            with_key(elsewhere, Some(50_000)).await;
            let clock = Arc::new(ManualClock::at(0));
            let (here, _) = elsewhere.instance(clock.clone(), usize::MAX);
            let mut watch = watch(&here, &clock);
            here.get(&org()).await.unwrap();
            assert!(watch.unless_cut(std::future::pending::<()>()).now_or_never().is_none());
            clock.advance(Duration::from_millis(50));
            assert_eq!(cut(&mut watch).await.outcome, "revoked");
        })
        .await;
    }

    #[tokio::test]
    async fn a_lost_lease_ends_calls_that_began_under_it_whatever_comes_after() {
        let clock = Arc::new(ManualClock::at(0));
        let lease = Lease::new(clock.clone());
        lease.renewed(clock.running(), Duration::from_secs(28));
        let permit = Permit::from_now(&lease, Duration::from_secs(5));
        let mut watch = Watch::until(CancellationToken::new(), permit.lost(), std::future::pending());
        lease.fence();
        lease.renewed(clock.running(), Duration::from_secs(28));
        let cut = cut(&mut watch).await;
        assert_eq!((cut.outcome, cut.failure.code, cut.failure.status), ("lease_lost", "lease_lost", 503));
        assert!(cut.failure.retry_after.is_some());
    }
}
