//! What is remembered of a session: what it has been tainted with, how risky it has become, which tools it began with.
//!
//! Owns the record, its half-life and its end, in Redis where there is one and in memory where there is not or while it is
//! away. Only sessions that their caller named are remembered, under organization and agent, so that nobody reads or
//! taints another's. Never decides. What cannot be kept is lost, not refused: a step that needs a session says itself what
//! it does without one.

mod local;
mod shared;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use tokio_util::task::TaskTracker;

use crate::{
    crypto::sha256,
    domain::{
        clock::{Clock, Micros},
        detection::{Family, Severity},
        digest::Digest,
        ids::{AgentId, OrgId},
    },
    storage::Redis,
};
use local::LocalSessions;
use shared::SharedSessions;

/// A session that has not been seen for so long is over, in nanoseconds.
const LIFE: u64 = 30 * 60 * 1_000_000_000;
/// Half of its risk is forgotten in so long, in nanoseconds.
const HALF_LIFE: u64 = 30 * 60 * 1_000_000_000;
/// The most that one call adds, so that no single text decides about a session for hours.
const MOST_RISK: u32 = 1_000;

/// Names one session for ever: a digest over organization, agent and the caller's name for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SessionKey(Digest);

impl SessionKey {
    /// The session that an agent calls so.
    pub fn new(org: &OrgId, agent: &AgentId, session: &str) -> Self {
        // Lengths first: otherwise one agent's end could be another session's beginning.
        let length = |text: &str| (text.len() as u64).to_be_bytes();
        let (org, agent) = (org.as_str(), agent.as_str());
        let parts = [&length(org), org.as_bytes(), &length(agent), agent.as_bytes(), session.as_bytes()];
        Self(sha256(&parts))
    }
}

/// Families of detections, as a set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Labels(u8);

impl Labels {
    const ALL: [(Family, &'static str); 5] = [
        (Family::PersonalData, "pii"),
        (Family::Secrets, "secret"),
        (Family::Unicode, "unicode"),
        (Family::Injection, "injection"),
        (Family::Classification, "classification"),
    ];

    /// With one more family.
    #[must_use]
    pub fn with(self, family: Family) -> Self {
        Self(self.0 | Self::bit(family))
    }

    /// The family of a dotted category; what belongs to none adds nothing.
    #[must_use]
    pub fn with_category(self, category: &str) -> Self {
        let first = category.split('.').next().unwrap_or_default();
        let family = Self::ALL.iter().find(|(_, word)| *word == first);
        family.map_or(self, |(family, _)| self.with(*family))
    }

    /// Whether a family was seen.
    pub fn has(self, family: Family) -> bool {
        self.0 & Self::bit(family) != 0
    }

    fn bit(family: Family) -> u8 {
        let place = Self::ALL.iter().position(|(known, _)| *known == family).unwrap_or_default();
        1 << place
    }
}

/// What one call shows.
#[derive(Clone, Copy, Debug, Default)]
pub struct Glance {
    /// What was found in it.
    pub labels: Labels,
    /// How risky that is.
    pub risk: u32,
    /// Digest of the tool definitions that it offers, if it offers any.
    pub tools: Option<Digest>,
}

impl Glance {
    /// A finding makes it riskier.
    pub fn add(&mut self, severity: Severity) {
        let weight = match severity {
            Severity::Low => 1,
            Severity::Medium => 5,
            Severity::High => 20,
            Severity::Critical => 50,
        };
        self.risk = (self.risk + weight).min(MOST_RISK);
    }
}

/// What is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Session {
    /// Everything that was ever found in it.
    pub labels: Labels,
    /// What is left of its risk.
    pub risk: u32,
    /// Digest of the tool definitions that it began with.
    pub tools: Option<Digest>,
    /// When it was last seen, by the clock of whoever keeps it.
    pub seen: Micros,
}

/// The sessions. A handle.
#[derive(Clone)]
pub struct Sessions(Arc<Parts>);

struct Parts {
    local: LocalSessions,
    shared: Option<SharedSessions>,
    clock: Arc<dyn Clock>,
    tasks: TaskTracker,
}

impl Sessions {
    /// Remembers at most `most` in memory.
    pub fn new(most: usize, redis: Option<Redis>, clock: Arc<dyn Clock>, tasks: TaskTracker) -> Self {
        let shared = redis.map(SharedSessions::new);
        Self(Arc::new(Parts { local: LocalSessions::new(most), shared, clock, tasks }))
    }

    /// Adds what a call showed, without waiting for it to be kept.
    pub fn note(&self, key: SessionKey, glance: Glance) {
        let Parts { local, shared, clock, tasks } = &*self.0;
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        if shared.as_ref().is_none_or(|shared| shared.link().is_none()) {
            local.merge(key, &glance, clock.as_ref());
            return;
        }
        let sessions = self.clone();
        let noting = async move {
            sessions.merge(key, &glance).await;
        };
        drop(tasks.spawn_on(noting, &runtime));
    }

    /// Adds what a call showed and answers what is then remembered: one round trip.
    pub async fn merge(&self, key: SessionKey, glance: &Glance) -> Session {
        let Parts { local, shared, clock, .. } = &*self.0;
        if let Some(shared) = shared
            && let Some(link) = shared.link()
        {
            let untold = local.untold(key, link, clock.as_ref());
            if let Some(session) = shared.merge(key, glance, untold.as_ref()).await {
                local.learn(key, session, link, clock.as_ref());
                return session;
            }
        }
        local.merge(key, glance, clock.as_ref())
    }

    /// What is remembered, without adding to it.
    pub async fn find(&self, key: SessionKey) -> Option<Session> {
        let Parts { local, shared, clock, .. } = &*self.0;
        if let Some(shared) = shared
            && let Some(link) = shared.link()
            && local.untold(key, link, clock.as_ref()).is_none()
            && let Some(found) = shared.find(key).await
        {
            return found;
        }
        local.find(key, clock.as_ref())
    }
}

/// What is left of a risk after so many nanoseconds.
#[expect(clippy::cast_precision_loss, reason = "an age in nanoseconds; a risk is no exact thing")]
fn decayed(risk: f64, age: u64) -> f64 {
    risk * (-(age as f64) / HALF_LIFE as f64).exp2()
}

/// A risk as it is told.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to what fits before")]
fn told(risk: f64) -> u32 {
    risk.clamp(0.0, f64::from(u32::MAX)).round() as u32
}
