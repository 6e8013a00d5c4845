//! The permit: how long an admitted request may still start its call.
//!
//! Owns one deadline in running time, taken before the admission was handed to the writer (admission.md rule 15). Never
//! extended. Checked in the poll that would hand the first byte to the provider's connection.

use std::{sync::Arc, time::Duration};

use crate::domain::clock::{Clock, Running};

/// The right to start one call.
#[derive(Clone)]
pub struct Permit {
    clock: Arc<dyn Clock>,
    until: Running,
}

/// The permit ran out before the first byte was sent.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the permit ran out before the call began")]
pub struct PermitExpired;

impl Permit {
    /// A permit that runs from now.
    pub fn from_now(clock: Arc<dyn Clock>, holds: Duration) -> Self {
        let until = clock.running().after(holds);
        Self { clock, until }
    }

    /// Whether the call may still begin.
    pub fn check(&self) -> Result<(), PermitExpired> {
        if self.clock.running() < self.until { Ok(()) } else { Err(PermitExpired) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::clock::ManualClock;

    #[test]
    fn a_permit_ends_at_its_deadline_and_never_comes_back() {
        let clock = Arc::new(ManualClock::at(0));
        let permit = Permit::from_now(clock.clone(), Duration::from_secs(5));
        clock.advance(Duration::from_millis(4_999));
        assert!(permit.check().is_ok());
        clock.advance(Duration::from_millis(1));
        assert!(permit.check().is_err());
    }
}
