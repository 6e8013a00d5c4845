//! Sessions in this process's memory.
//!
//! Owns a bounded map: all there is without Redis, a shadow of what Redis said beside it. When it is full of sessions that
//! are not over, new ones are not remembered: evicting others would let one agent wash the taint off another's.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use super::{Glance, LIFE, Labels, Session, SessionKey, decayed, told};
use crate::domain::{
    clock::{Clock, Micros},
    digest::Digest,
};

/// A full map is swept at most once in so many nanoseconds.
const SWEEP: u64 = 1_000_000_000;

pub(super) struct LocalSessions {
    map: Mutex<Map>,
    most: usize,
}

#[derive(Default)]
struct Map {
    kept: HashMap<SessionKey, Kept>,
    swept: u64,
}

#[derive(Clone, Copy)]
struct Kept {
    labels: Labels,
    risk: f64,
    tools: Option<Digest>,
    seen: Micros,
    /// Running time, for its age.
    at: u64,
    /// The link to Redis over which this was learned; 0: Redis has not been told.
    link: u64,
}

impl LocalSessions {
    pub(super) fn new(most: usize) -> Self {
        Self { map: Mutex::default(), most: most.max(1) }
    }

    pub(super) fn merge(&self, key: SessionKey, glance: &Glance, clock: &dyn Clock) -> Session {
        let now = clock.running().0;
        let mut map = self.lock();
        let old = map.alive(key, now);
        let kept = Kept {
            labels: Labels(old.map_or(0, |old| old.labels.0) | glance.labels.0),
            risk: old.map_or(0.0, |old| decayed(old.risk, now - old.at)) + f64::from(glance.risk),
            tools: old.and_then(|old| old.tools).or(glance.tools),
            seen: clock.now(),
            at: now,
            link: 0,
        };
        map.put(key, kept, self.most);
        kept.session(now)
    }

    pub(super) fn find(&self, key: SessionKey, clock: &dyn Clock) -> Option<Session> {
        let now = clock.running().0;
        self.lock().alive(key, now).map(|kept| kept.session(now))
    }

    /// What Redis has not been told over this link.
    pub(super) fn untold(&self, key: SessionKey, link: u64, clock: &dyn Clock) -> Option<Session> {
        let now = clock.running().0;
        let map = self.lock();
        map.alive(key, now).filter(|kept| kept.link != link).map(|kept| kept.session(now))
    }

    /// Remembers what Redis said.
    pub(super) fn learn(&self, key: SessionKey, session: Session, link: u64, clock: &dyn Clock) {
        let Session { labels, risk, tools, seen } = session;
        let kept = Kept { labels, risk: f64::from(risk), tools, seen, at: clock.running().0, link };
        self.lock().put(key, kept, self.most);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Map> {
        self.map.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Map {
    fn alive(&self, key: SessionKey, now: u64) -> Option<Kept> {
        self.kept.get(&key).filter(|kept| now.saturating_sub(kept.at) < LIFE).copied()
    }

    fn put(&mut self, key: SessionKey, kept: Kept, most: usize) {
        let now = kept.at;
        if self.kept.len() >= most && !self.kept.contains_key(&key) {
            if now < self.swept.saturating_add(SWEEP) {
                return;
            }
            self.swept = now;
            self.kept.retain(|_, kept| now.saturating_sub(kept.at) < LIFE);
            if self.kept.len() >= most {
                return;
            }
        }
        self.kept.insert(key, kept);
    }
}

impl Kept {
    fn session(self, now: u64) -> Session {
        let risk = told(decayed(self.risk, now.saturating_sub(self.at)));
        Session { labels: self.labels, risk, tools: self.tools, seen: self.seen }
    }
}
