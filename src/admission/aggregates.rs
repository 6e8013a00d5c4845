//! Refusals that are counted instead of recorded one by one.
//!
//! Owns two sums: 401 and 413 and their like per minute on the system's chain, and calls beyond a caller's rate limit per
//! second on its organization's. A durable write for each would make refusing the attack. Bounded in callers; those
//! beyond the bound share one row.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use serde_json::json;

use super::outbox::Outbox;
use crate::domain::ids::{AgentId, OrgId};

const MOST: usize = 10_000;

/// Counts until the next flush. While the record cannot be written they go on counting.
#[derive(Default)]
pub struct Aggregates {
    unowned: Mutex<HashMap<&'static str, u64>>,
    limited: Mutex<HashMap<(OrgId, Option<AgentId>), u64>>,
}

impl Aggregates {
    /// Counts a refusal that is nobody's yet, by its word (`unauthenticated`, `too_large`, …).
    pub fn count_unowned(&self, word: &'static str) {
        *self.unowned.lock().unwrap_or_else(PoisonError::into_inner).entry(word).or_insert(0) += 1;
    }

    /// Counts a call beyond an agent's rate limit.
    pub fn count_limited(&self, org: &OrgId, agent: &AgentId) {
        let mut limited = self.limited.lock().unwrap_or_else(PoisonError::into_inner);
        let known = limited.len() < MOST || limited.contains_key(&(org.clone(), Some(agent.clone())));
        let agent = known.then(|| agent.clone());
        *limited.entry((org.clone(), agent)).or_insert(0) += 1;
    }

    /// Records the sums of the unowned, if there are any.
    pub fn flush_unowned(&self, outbox: &Outbox) {
        if !outbox.is_writable() {
            return;
        }
        let counts = std::mem::take(&mut *self.unowned.lock().unwrap_or_else(PoisonError::into_inner));
        if !counts.is_empty() {
            note(outbox, &super::system_org(), "aggregate.unauthenticated", &json!({ "counts": counts }));
        }
    }

    /// Records the sums of the limited, if there are any.
    pub fn flush_limited(&self, outbox: &Outbox) {
        if !outbox.is_writable() {
            return;
        }
        let counts = std::mem::take(&mut *self.limited.lock().unwrap_or_else(PoisonError::into_inner));
        for ((org, agent), calls) in counts {
            let content = json!({ "agent": agent, "calls": calls, "blocked_by": "rate_limit" });
            note(outbox, &org, "aggregate.rate_limited", &content);
        }
    }
}

fn note(outbox: &Outbox, org: &OrgId, kind: &'static str, content: &serde_json::Value) {
    if let Err(error) = outbox.note(org, kind, content) {
        tracing::warn!(error = &error as &dyn std::error::Error, kind, "a sum was not recorded");
    }
}
