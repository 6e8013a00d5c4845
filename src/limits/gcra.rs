//! The generic cell rate algorithm: one number per caller.
//!
//! Owns the decision; pure. What is stored is the theoretical arrival time; how far it lies ahead of now is what the
//! caller has spent, as a share of the window. So an arrival time means the same under a limit that was divided, and one
//! instance can tell another how far ahead a caller is without comparing clocks. Source: ITU-T I.371, annex A, in the
//! form with a burst of the whole window.

/// `limit` per `window`; a caller may spend it at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// How much; at least 1.
    pub limit: u64,
    /// Nanoseconds; at least 1.
    pub window: u64,
}

/// What a check answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Whether this call may go on, as far as this limit is concerned.
    pub allowed: bool,
    /// The limit.
    pub limit: u64,
    /// What is left now.
    pub remaining: u64,
    /// Nanoseconds until the caller has its whole limit again.
    pub reset: u64,
    /// Nanoseconds until the call is allowed; 0 if this one was.
    pub retry_after: u64,
}

impl Rate {
    /// `limit` per `seconds`.
    pub fn per_seconds(limit: u64, seconds: u64) -> Self {
        Self { limit: limit.max(1), window: seconds.max(1).saturating_mul(1_000_000_000) }
    }

    /// One instance's share where `by` of them count for themselves. It never falls to nothing, so a limit smaller than
    /// the number of instances is exceeded rather than lost.
    #[must_use]
    pub fn divided(self, by: usize) -> Self {
        Self { limit: (self.limit / (by.max(1) as u64)).max(1), ..self }
    }

    /// The part of the window that `cost` takes. What costs more than the limit takes all of it: it must wait for a
    /// full allowance, but it is not refused for ever.
    pub fn span(self, cost: u64) -> u64 {
        let share = u128::from(cost.min(self.limit)) * u128::from(self.window) / u128::from(self.limit);
        u64::try_from(share).unwrap_or(self.window).max(u64::from(cost > 0))
    }

    /// How far a stored arrival time lies ahead; never more than the window, which may have been longer when it was
    /// stored.
    pub fn ahead(self, tat: u64, now: u64) -> u64 {
        tat.saturating_sub(now).min(self.window)
    }

    /// How long a caller that is so far ahead has to wait for a span; 0: it need not.
    pub fn wait(self, ahead: u64, span: u64) -> u64 {
        ahead.saturating_add(span).saturating_sub(self.window)
    }

    /// What is told to a caller that is so far ahead after the check.
    pub fn quota(self, ahead: u64, wait: u64) -> Quota {
        let left = u128::from(self.window.saturating_sub(ahead)) * u128::from(self.limit) / u128::from(self.window);
        let remaining = u64::try_from(left).unwrap_or(self.limit).min(self.limit);
        Quota { allowed: wait == 0, limit: self.limit, remaining, reset: ahead, retry_after: wait }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(rate: Rate, tat: &mut u64, now: u64, cost: u64) -> Quota {
        let (ahead, span) = (rate.ahead(*tat, now), rate.span(cost));
        let wait = rate.wait(ahead, span);
        let ahead = if wait == 0 { ahead + span } else { ahead };
        *tat = now + ahead;
        rate.quota(ahead, wait)
    }

    #[test]
    fn a_window_allows_exactly_its_calls_at_once() {
        let rate = Rate::per_seconds(5, 10);
        let mut tat = 0;
        let quotas: Vec<Quota> = (0..20).map(|_| check(rate, &mut tat, 1_000, 1)).collect();
        assert_eq!(quotas.iter().filter(|quota| quota.allowed).count(), 5);
        assert_eq!(quotas.iter().map(|quota| quota.remaining).take(5).collect::<Vec<_>>(), [4, 3, 2, 1, 0]);
        assert_eq!(quotas[19].retry_after, 2_000_000_000);
    }

    #[test]
    fn what_costs_more_than_the_limit_waits_for_all_of_it() {
        let rate = Rate::per_seconds(100, 10);
        let mut tat = 0;
        assert!(check(rate, &mut tat, 1, 5_000).allowed);
        let quota = check(rate, &mut tat, 1, 1);
        assert_eq!((quota.allowed, quota.remaining, quota.retry_after), (false, 0, 100_000_000));
    }

    #[test]
    fn a_window_that_was_shortened_is_waited_for_once() {
        let mut tat = 0;
        let hour = Rate::per_seconds(1, 3_600);
        assert!(check(hour, &mut tat, 1, 1).allowed);
        let quota = check(Rate::per_seconds(1, 60), &mut tat, 2, 1);
        assert_eq!(quota.retry_after, 60_000_000_000);
    }

    proptest! {
        #[test]
        fn no_window_ever_sees_more_than_twice_its_limit(
            limit in 1_u64..5_000,
            calls in prop::collection::vec((0_u64..2_000_000_000, 1_u64..300), 1..200),
        ) {
            let rate = Rate::per_seconds(limit, 5);
            let (mut tat, mut now) = (0, 1);
            let mut passed: Vec<(u64, u64)> = Vec::new();
            for (gap, cost) in calls {
                now += gap;
                let cost = cost.min(limit);
                if check(rate, &mut tat, now, cost).allowed {
                    passed.push((now, cost));
                    let within: u64 = passed.iter().filter(|(at, _)| now - at < rate.window).map(|(_, c)| c).sum();
                    prop_assert!(within <= 2 * limit, "{within} of {limit}");
                }
            }
        }
    }
}
