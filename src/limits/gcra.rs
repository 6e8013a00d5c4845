//! The generic cell rate algorithm: one number per caller.
//!
//! Owns the decision; pure. `tat` is the theoretical arrival time in nanoseconds of running time. Source: ITU-T I.371,
//! annex A, in the form with a burst of the whole window's calls.

/// `calls` per `window`; a caller may spend them at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// How many; at least 1.
    pub calls: u64,
    /// Nanoseconds; at least 1.
    pub window: u64,
}

/// What a check answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Whether this call may go on.
    pub allowed: bool,
    /// The limit.
    pub limit: u64,
    /// Calls left now.
    pub remaining: u64,
    /// Nanoseconds until the caller has its whole limit again.
    pub reset: u64,
    /// Nanoseconds until the next call is allowed; 0 if this one was.
    pub retry_after: u64,
}

impl Rate {
    /// `calls` per `seconds`.
    pub fn per_seconds(calls: u64, seconds: u64) -> Self {
        Self { calls: calls.max(1), window: seconds.max(1).saturating_mul(1_000_000_000) }
    }

    /// Decides one call at `now` for a caller whose theoretical arrival time is `tat`; answers the new one.
    pub fn check(self, tat: u64, now: u64) -> (u64, Quota) {
        let interval = (self.window / self.calls).max(1);
        let base = tat.max(now);
        let next = base.saturating_add(interval);
        let allowed = next - now <= self.window.max(interval);
        let after = if allowed { next } else { base };
        let ahead = after - now;
        let remaining = self.window.saturating_sub(ahead) / interval;
        let retry_after = if allowed { 0 } else { (next - now) - self.window };
        (after, Quota { allowed, limit: self.calls, remaining, reset: ahead, retry_after })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_window_allows_exactly_its_calls_at_once() {
        let rate = Rate::per_seconds(5, 10);
        let mut tat = 0;
        let mut allowed = 0;
        for _ in 0..20 {
            let (next, quota) = rate.check(tat, 1_000);
            tat = next;
            allowed += u32::from(quota.allowed);
        }
        assert_eq!(allowed, 5);
        let (_, quota) = rate.check(tat, 1_000);
        assert_eq!(quota.retry_after, 2_000_000_000);
    }

    proptest! {
        #[test]
        fn no_window_ever_sees_more_than_twice_its_calls_less_one(
            calls in 1_u64..50,
            gaps in prop::collection::vec(0_u64..2_000_000_000, 1..200),
        ) {
            let rate = Rate::per_seconds(calls, 5);
            let (mut tat, mut now) = (0, 1);
            let mut passed: Vec<u64> = Vec::new();
            for gap in gaps {
                now += gap;
                let (next, quota) = rate.check(tat, now);
                tat = next;
                if quota.allowed {
                    passed.push(now);
                    let within = passed.iter().filter(|at| now - **at < rate.window).count() as u64;
                    prop_assert!(within <= 2 * calls, "{within} of {calls}");
                }
            }
        }
    }
}
