//! The lease: this instance's right to admit and to let calls run.
//!
//! Owns one deadline in running time, which a heartbeat moves on (admission.md rule 17). Past it, or once another instance
//! has closed this one (`fence`), nothing is admitted, no permit holds and what runs is cut. A lease that comes back is a
//! new term: what began under the last one stays lost, since recovery may have settled it meanwhile. Never asks a
//! database, never compares two machines' clocks.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use crate::domain::clock::{Clock, Running};

/// How long the deadline's own timer sleeps at most: timers stand still while the machine is suspended, running time goes
/// on, and a machine that wakes must not go on for long.
const LOOK: Duration = Duration::from_millis(200);

/// The deadline of a lease that needs no renewal.
const NEVER: Running = Running(u64::MAX);

/// The right to admit; clones are the same right.
#[derive(Clone)]
pub struct Lease {
    clock: Arc<dyn Clock>,
    term: Arc<Mutex<Term>>,
    /// The last heartbeat failed.
    missed: Arc<AtomicBool>,
}

/// One unbroken run of a lease.
#[derive(Clone)]
pub(super) struct Term {
    /// When it ends unless it is renewed.
    pub(super) until: Running,
    /// Since when every heartbeat was sent in time and answered.
    pub(super) since: Running,
    /// When the last one was sent that was.
    pub(super) beaten_at: Running,
    /// Cancelled when it has ended, for good.
    pub(super) lost: CancellationToken,
}

impl Lease {
    /// A lease that does not end: one process owns the data folder, so nobody else could close it.
    pub fn unlimited(clock: Arc<dyn Clock>) -> Self {
        let since = clock.running();
        let term = Term { until: NEVER, since, beaten_at: since, lost: CancellationToken::new() };
        Self { clock, term: Arc::new(Mutex::new(term)), missed: Arc::default() }
    }

    /// A lease that begins with its first renewal.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        let lost = CancellationToken::new();
        lost.cancel();
        let since = clock.running();
        let term = Term { until: Running(0), since, beaten_at: since, lost };
        Self { clock, term: Arc::new(Mutex::new(term)), missed: Arc::default() }
    }

    /// A heartbeat that was sent at `sent_at` succeeded; the lease holds for so long from then, the margin taken off.
    ///
    /// After the deadline or a fence this begins a new term: whoever calls it after a fence has registered a new boot.
    pub fn renewed(&self, sent_at: Running, holds: Duration) {
        self.missed.store(false, Ordering::Release);
        let now = self.clock.running();
        let mut term = self.lock();
        // A process that was frozen past its deadline may get here before the deadline's own timer rings.
        term.end_if_over(now);
        let until = sent_at.after(holds);
        if until <= now {
            return;
        }
        if term.lost.is_cancelled() {
            *term = Term { until, since: sent_at, beaten_at: sent_at, lost: CancellationToken::new() };
            return;
        }
        // Whatever held this one up for so long may hold others up still.
        if sent_at > term.beaten_at.after(holds / 2) {
            term.since = sent_at;
        }
        term.beaten_at = term.beaten_at.max(sent_at);
        term.until = term.until.max(until);
    }

    /// A heartbeat failed: the term goes on, but not without a break, and whoever can go elsewhere should.
    pub fn falters(&self) {
        self.missed.store(true, Ordering::Release);
        let now = self.clock.running();
        self.lock().since = now;
    }

    /// Whether it has held for so long without a break: no heartbeat failed or came late (admission.md rule 18).
    pub fn is_steady(&self, whole: Duration) -> bool {
        let term = self.lock();
        let now = self.clock.running();
        !term.lost.is_cancelled() && now < term.until && now >= term.since.after(whole)
    }

    /// Whether the last heartbeat failed.
    pub fn is_missed(&self) -> bool {
        self.missed.load(Ordering::Acquire)
    }

    /// Another instance has closed this one: everything under way is lost now.
    pub fn fence(&self) {
        self.lock().lost.cancel();
    }

    /// When it ends unless it is renewed; of a lease that is lost, when it would have.
    pub fn deadline(&self) -> Running {
        self.lock().until
    }

    /// Whether anything may be admitted.
    pub fn is_live(&self) -> bool {
        let term = self.lock();
        !term.lost.is_cancelled() && self.clock.running() < term.until
    }

    /// Ready once the present term is over; at once if it is. A later term does not bring it back.
    pub fn lost(&self) -> WaitForCancellationFutureOwned {
        self.term().lost.cancelled_owned()
    }

    /// Ends each term at its deadline, until stopped. Without it only what looks at the clock itself would notice.
    pub async fn run(&self, stop: CancellationToken) {
        if self.deadline() == NEVER {
            return;
        }
        loop {
            let wait = self.look();
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// The present term.
    pub(super) fn term(&self) -> Term {
        self.lock().clone()
    }

    /// The clock that it runs by.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    /// Ends the term if it is over; says when to look again.
    fn look(&self) -> Duration {
        let now = self.clock.running();
        let mut term = self.lock();
        let ended = term.end_if_over(now);
        let left = Duration::from_nanos(term.until.0.saturating_sub(now.0));
        drop(term);
        if ended {
            tracing::error!("the lease is over: nothing is admitted, and calls under way are cut");
        }
        if left.is_zero() { LOOK } else { left.min(LOOK) }
    }

    fn lock(&self) -> MutexGuard<'_, Term> {
        self.term.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Term {
    /// Whether this ended it.
    fn end_if_over(&mut self, now: Running) -> bool {
        let over = now >= self.until && !self.lost.is_cancelled();
        if over {
            self.lost.cancel();
        }
        over
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;
    use crate::domain::clock::ManualClock;

    const SECOND: Duration = Duration::from_secs(1);

    fn leased() -> (Arc<ManualClock>, Lease) {
        let clock = Arc::new(ManualClock::at(0));
        let lease = Lease::new(clock.clone());
        lease.renewed(clock.running(), 28 * SECOND);
        (clock, lease)
    }

    #[test]
    fn a_lease_that_was_never_renewed_admits_nothing() {
        let lease = Lease::new(Arc::new(ManualClock::at(0)));
        assert!(!lease.is_live());
        assert!(lease.lost().now_or_never().is_some());
    }

    #[test]
    fn an_unlimited_lease_outlives_every_deadline() {
        let clock = Arc::new(ManualClock::at(0));
        let lease = Lease::unlimited(clock.clone());
        clock.advance(Duration::from_hours(24 * 365));
        lease.look();
        assert!(lease.is_live() && lease.lost().now_or_never().is_none());
    }

    #[test]
    fn a_lease_counts_from_when_its_heartbeat_was_sent() {
        let (clock, lease) = leased();
        let sent_at = clock.running();
        clock.advance(10 * SECOND);
        lease.renewed(sent_at, 28 * SECOND);
        assert_eq!(lease.deadline(), sent_at.after(28 * SECOND));
        clock.advance(18 * SECOND);
        assert!(!lease.is_live(), "whether or not its timer has rung");
    }

    #[test]
    fn a_renewal_that_comes_in_time_cuts_nothing() {
        let (clock, lease) = leased();
        let mut lost = Box::pin(lease.lost());
        for _ in 0..10 {
            clock.advance(20 * SECOND);
            lease.renewed(clock.running(), 28 * SECOND);
            lease.look();
        }
        assert!((&mut lost).now_or_never().is_none());
        clock.advance(28 * SECOND);
        lease.look();
        assert!(lost.now_or_never().is_some());
    }

    #[test]
    fn what_began_before_the_deadline_stays_lost_after_a_late_renewal() {
        let (clock, lease) = leased();
        let before = lease.lost();
        // Frozen: the timer has not rung when the heartbeat's answer is read.
        clock.advance(60 * SECOND);
        lease.renewed(clock.running(), 28 * SECOND);
        assert!(before.now_or_never().is_some());
        assert!(lease.is_live() && lease.lost().now_or_never().is_none());
    }

    #[test]
    fn a_fenced_lease_is_lost_at_once_and_new_after_the_next_renewal() {
        let (clock, lease) = leased();
        let before = lease.lost();
        lease.fence();
        assert!(!lease.is_live() && before.now_or_never().is_some());
        clock.advance(SECOND);
        lease.renewed(clock.running(), 28 * SECOND);
        assert!(lease.is_live());
    }

    #[test]
    fn a_lease_is_steady_after_a_whole_one_without_a_late_or_failed_heartbeat() {
        let (clock, lease) = leased();
        let beat = |lease: &Lease| lease.renewed(clock.running(), 28 * SECOND);
        let pass = |seconds: u32| {
            (0..seconds).step_by(5).for_each(|_| {
                clock.advance(5 * SECOND);
                beat(&lease);
            });
        };
        pass(25);
        assert!(!lease.is_steady(30 * SECOND));
        pass(5);
        assert!(lease.is_steady(30 * SECOND));
        lease.falters();
        assert!(lease.is_live() && !lease.is_steady(30 * SECOND), "one failed");
        pass(30);
        assert!(lease.is_steady(30 * SECOND));
        clock.advance(20 * SECOND);
        beat(&lease);
        assert!(lease.is_live() && !lease.is_steady(30 * SECOND), "one came late");
        pass(30);
        lease.fence();
        beat(&lease);
        assert!(!lease.is_steady(30 * SECOND), "a new term has to last as well");
    }

    #[test]
    fn an_answer_that_is_older_than_the_lease_renews_nothing() {
        let (clock, lease) = leased();
        let sent_at = clock.running();
        clock.advance(40 * SECOND);
        lease.renewed(sent_at, 28 * SECOND);
        assert!(!lease.is_live());
    }

    #[tokio::test]
    async fn the_deadline_rings_by_itself() {
        let (clock, lease) = leased();
        let stop = CancellationToken::new();
        clock.advance(28 * SECOND);
        tokio::select! {
            () = lease.run(stop) => panic!("nobody stopped it"),
            () = lease.lost() => {}
        }
    }
}
