//! What instances share: the connection to Redis, and the limits and sessions over it.
//!
//! Owns how they are made. Settings that cannot be right stop the start with an error that never repeats the address; a
//! Redis that is away does not.

use std::{
    sync::{Arc, atomic::AtomicUsize},
    time::Duration,
};

use secrecy::{ExposeSecret as _, SecretString};
use tokio_util::task::TaskTracker;

use super::{ground::Ground, lifecycle::Lifecycle, wiring::AppError};
use crate::{
    config::{Config, Secrets},
    domain::clock::Clock,
    limits::{Limiter, QuotaStore, SharedQuotas},
    sessions::Sessions,
    storage::{Redis, RedisError, RedisSettings},
};

/// What limiters and sessions are made of.
pub(super) struct Shared {
    redis: Option<Redis>,
    instances: Arc<AtomicUsize>,
    pub(super) clock: Arc<dyn Clock>,
    tasks: TaskTracker,
    most: usize,
}

impl Shared {
    /// Connects to Redis if there is one. Limits in memory are divided by the number of gateways that live.
    pub(super) async fn start(ground: &Ground) -> Result<Self, AppError> {
        let Ground { config, clock, lifecycle, metrics, instances, .. } = ground;
        let redis = match &ground.redis {
            None => None,
            Some((source, settings)) => {
                let stop = lifecycle.end.child_token();
                let started = Redis::start(settings.clone(), Arc::clone(metrics), &lifecycle.jobs, stop).await;
                Some(started.map_err(|error: RedisError| AppError::Setting(source, error.to_string()))?)
            }
        };
        let (tasks, most) = (lifecycle.jobs.clone(), config.limits.max_tracked);
        Ok(Self { redis, instances: Arc::clone(instances), clock: Arc::clone(clock), tasks, most })
    }

    /// The limiter of agents, keys and organizations: it hears what they spend on other instances.
    pub(super) fn caller_limiter(&self, lifecycle: &Lifecycle) -> Limiter {
        let limiter = self.limiter();
        if self.redis.is_some() {
            self.tasks.spawn(limiter.clone().listen(lifecycle.end.child_token()));
        }
        limiter
    }

    /// A limiter with a memory of its own.
    pub(super) fn limiter(&self) -> Limiter {
        let shared = self.redis.clone().map(|redis| Arc::new(SharedQuotas::new(redis)) as Arc<dyn QuotaStore>);
        Limiter::new(self.most, shared, Arc::clone(&self.instances), Arc::clone(&self.clock), self.tasks.clone())
    }

    pub(super) fn sessions(&self) -> Sessions {
        Sessions::new(self.most, self.redis.clone(), Arc::clone(&self.clock), self.tasks.clone())
    }
}

/// Where the address stands, and how Redis is reached; `None`: there is none.
pub(super) fn settings(config: &Config, secrets: &Secrets) -> Result<Option<(&'static str, RedisSettings)>, AppError> {
    let section = &config.redis;
    let (source, url) = match &secrets.redis_url {
        Some(url) => ("REDIS_URL", url.clone()),
        None => ("redis.url", SecretString::from(section.url.clone())),
    };
    if url.expose_secret().is_empty() {
        return Ok(None);
    }
    let unreadable = |error| AppError::Setting("redis.ca_file", format!("cannot be read: {error}"));
    let ca = match section.ca_file.as_str() {
        "" => None,
        path => Some(std::fs::read(path).map_err(unreadable)?),
    };
    let millis = Duration::from_millis;
    let (timeout, connect_timeout) = (millis(section.timeout_ms), millis(section.connect_timeout_ms));
    Ok(Some((source, RedisSettings { url, ca, timeout, connect_timeout, prefix: section.prefix.clone() })))
}
