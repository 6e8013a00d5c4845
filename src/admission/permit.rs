//! The permit: how long an admitted request may still start its call.
//!
//! Owns one deadline in running time, taken before the admission was handed to the writer and never past the lease that
//! held then (admission.md rule 15). Never extended. Checked in the poll that would hand the first byte to the provider's
//! connection.

use std::{sync::Arc, time::Duration};

use tokio_util::sync::WaitForCancellationFutureOwned;

use super::lease::{Lease, Term};
use crate::domain::clock::{Clock, Running};

/// The right to start one call.
#[derive(Clone)]
pub struct Permit {
    clock: Arc<dyn Clock>,
    until: Running,
    term: Term,
}

/// The permit ran out before the first byte was sent.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the permit ran out before the call began")]
pub struct PermitExpired;

impl Permit {
    /// A permit that runs from now, at most to the end of the lease.
    pub fn from_now(lease: &Lease, holds: Duration) -> Self {
        let clock = Arc::clone(lease.clock());
        let term = lease.term();
        let until = clock.running().after(holds).min(term.until);
        Self { clock, until, term }
    }

    /// Whether the call may still begin.
    pub fn check(&self) -> Result<(), PermitExpired> {
        let holds = self.clock.running() < self.until && !self.term.lost.is_cancelled();
        if holds { Ok(()) } else { Err(PermitExpired) }
    }

    /// Ready once the lease under which it was given is lost, which ends the call as well.
    pub fn lost(&self) -> WaitForCancellationFutureOwned {
        self.term.lost.clone().cancelled_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::clock::ManualClock;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_permit_ends_at_its_deadline_and_never_comes_back() {
        let clock = Arc::new(ManualClock::at(0));
        let permit = Permit::from_now(&Lease::unlimited(clock.clone()), 5 * SECOND);
        clock.advance(Duration::from_millis(4_999));
        assert!(permit.check().is_ok());
        clock.advance(Duration::from_millis(1));
        assert!(permit.check().is_err());
    }

    #[test]
    fn a_permit_ends_with_the_lease_that_it_was_given_under() {
        let clock = Arc::new(ManualClock::at(0));
        let lease = Lease::new(clock.clone());
        lease.renewed(clock.running(), 2 * SECOND);
        let permit = Permit::from_now(&lease, 5 * SECOND);
        lease.renewed(clock.running(), 20 * SECOND);
        clock.advance(2 * SECOND);
        assert!(permit.check().is_err(), "a renewal extends no permit");
    }

    #[test]
    fn a_fenced_instance_starts_nothing_also_after_it_came_back() {
        let clock = Arc::new(ManualClock::at(0));
        let lease = Lease::new(clock.clone());
        assert!(Permit::from_now(&lease, SECOND).check().is_err(), "no lease yet");
        lease.renewed(clock.running(), 20 * SECOND);
        let permit = Permit::from_now(&lease, 5 * SECOND);
        lease.fence();
        assert!(permit.check().is_err());
        lease.renewed(clock.running(), 20 * SECOND);
        assert!(permit.check().is_err());
        assert!(Permit::from_now(&lease, 5 * SECOND).check().is_ok());
    }
}
