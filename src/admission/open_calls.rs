//! Which organizations have calls under way.
//!
//! Owns a count per organization: what the snapshots of running calls are kept and followed by (admission.md rule 22).
//! Never waits; entering and leaving are one short lock each, and whoever drops the guard has left.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::domain::ids::OrgId;

/// The organizations with calls under way; clones are the same list.
#[derive(Clone, Default)]
pub struct OpenCalls {
    counts: Arc<Mutex<HashMap<OrgId, usize>>>,
}

/// One call under way; dropped with the call.
pub struct OpenCall {
    org: OrgId,
    calls: OpenCalls,
}

impl OpenCalls {
    /// A call of this organization begins.
    pub fn enter(&self, org: &OrgId) -> OpenCall {
        let mut counts = self.lock();
        match counts.get_mut(org) {
            Some(count) => *count += 1,
            None => drop(counts.insert(org.clone(), 1)),
        }
        drop(counts);
        OpenCall { org: org.clone(), calls: self.clone() }
    }

    /// Those that have at least one.
    pub fn organizations(&self) -> Vec<OrgId> {
        self.lock().keys().cloned().collect()
    }

    /// Whether this one has any.
    pub fn has(&self, org: &OrgId) -> bool {
        self.lock().contains_key(org)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<OrgId, usize>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for OpenCall {
    fn drop(&mut self) {
        let mut counts = self.calls.lock();
        let left = counts.get_mut(&self.org).map(|count| {
            *count -= 1;
            *count
        });
        if left == Some(0) {
            counts.remove(&self.org);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_organization_is_listed_until_its_last_call_ends() {
        let calls = OpenCalls::default();
        let org = OrgId::parse("org_a").unwrap();
        let first = calls.enter(&org);
        let second = calls.enter(&org);
        drop(first);
        assert_eq!(calls.organizations(), std::slice::from_ref(&org));
        drop(second);
        assert!(calls.organizations().is_empty() && !calls.has(&org));
    }
}
