//! Quotas in this process's memory.
//!
//! Owns a bounded map from caller to arrival time. Never blocks for longer than one look-up. When full it forgets those
//! whose window has passed; if nobody's has, a new caller is treated like one who has spent everything, since an attacker
//! who fills the map must not thereby lift the limit.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Mutex, PoisonError},
};

use super::gcra::{Quota, Rate};

/// Quotas by caller.
pub struct LocalQuotas<K> {
    arrivals: Mutex<HashMap<K, u64>>,
    most: usize,
}

impl<K: Eq + Hash + Clone> LocalQuotas<K> {
    /// Remembers at most `most` callers.
    pub fn new(most: usize) -> Self {
        Self { arrivals: Mutex::new(HashMap::new()), most: most.max(1) }
    }

    /// Counts one call of `caller` at `now` (running nanoseconds) against `rate`.
    pub fn check(&self, caller: &K, rate: Rate, now: u64) -> Quota {
        let mut arrivals = self.arrivals.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(tat) = arrivals.get_mut(caller) {
            let (next, quota) = rate.check(*tat, now);
            *tat = next;
            return quota;
        }
        if arrivals.len() >= self.most {
            arrivals.retain(|_, tat| *tat > now);
        }
        let full = arrivals.len() >= self.most;
        let (next, quota) = rate.check(if full { now.saturating_add(rate.window) } else { 0 }, now);
        if !full {
            arrivals.insert(caller.clone(), next);
        }
        quota
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_map_refuses_newcomers_until_someones_window_has_passed() {
        let quotas = LocalQuotas::new(2);
        let rate = Rate::per_seconds(1, 1);
        assert!(quotas.check(&1, rate, 10).allowed);
        assert!(quotas.check(&2, rate, 10).allowed);
        assert!(!quotas.check(&3, rate, 10).allowed);
        assert!(quotas.check(&3, rate, 2_000_000_000).allowed);
    }

    #[test]
    fn callers_do_not_share_an_allowance() {
        let quotas = LocalQuotas::new(10);
        let rate = Rate::per_seconds(1, 60);
        assert!(quotas.check(&"a", rate, 5).allowed);
        assert!(!quotas.check(&"a", rate, 6).allowed);
        assert!(quotas.check(&"b", rate, 6).allowed);
    }
}
