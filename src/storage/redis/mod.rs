//! Redis: one shared connection, atomic scripts, and the knowledge whether it can be asked at all.
//!
//! Owns the address with its password, the connection and its supervisor. Decides nothing about limits or sessions: it
//! runs their scripts. A call waits for one time limit at most and never for a connection to be made. The first call
//! that fails or is late breaks the link for all: those that wait are released at once, later ones are told `Down`
//! without waiting, and the supervisor makes a new link in the background. So a Redis that hangs costs each caller at
//! most one short wait, once.

mod link;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwapOption;
use deadpool_redis::redis;
use secrecy::SecretString;
use tokio::time::Instant;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::telemetry::Metrics;
use link::Link;

/// An idle link is asked for a sign of life after so long, so that health is right also while nobody calls.
const BEAT: Duration = Duration::from_secs(1);
/// The pause before the first attempt to make a new link; it doubles up to `LONGEST`.
const FIRST: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_secs(1);
/// A link that lived shorter than this is not taken for a recovery: pauses stay long and log lines few.
const STEADY: Duration = Duration::from_secs(10);
/// While Redis is away one line a minute says so.
const REMIND: Duration = Duration::from_mins(1);

/// How Redis is reached.
#[derive(Clone)]
pub struct RedisSettings {
    /// The address, with its password.
    pub url: SecretString,
    /// PEM of a private CA.
    pub ca: Option<Vec<u8>>,
    /// The longest that a call waits.
    pub timeout: Duration,
    /// The longest that making a link may take.
    pub connect_timeout: Duration,
    /// What our keys begin with.
    pub prefix: String,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum RedisError {
    /// The settings cannot be right.
    #[error("{0}")]
    Settings(String),
    /// There is no link now.
    #[error("there is no connection to Redis now")]
    Down,
    /// Too late.
    #[error("Redis did not answer within {0:?}")]
    Late(Duration),
    /// Refused, cut, or an error of the server.
    #[error("Redis failed: {0}")]
    Failed(#[from] redis::RedisError),
}

/// A Lua script; run by its digest, sent only where the server does not know it.
pub struct Script(redis::Script);

impl Script {
    /// From its text. A script answers a list of texts.
    pub fn new(code: &str) -> Self {
        Self(redis::Script::new(code))
    }
}

/// The shared connection.
#[derive(Clone)]
pub struct Redis(Arc<Inner>);

struct Inner {
    client: redis::Client,
    timeout: Duration,
    connect_timeout: Duration,
    prefix: String,
    link: ArcSwapOption<Link>,
    links: AtomicU64,
    /// Whether the log's newest line says that Redis is away.
    told: AtomicBool,
    metrics: Arc<Metrics>,
}

impl Redis {
    /// Tries to connect once and goes on trying in the background. `Err` only where the settings cannot be right: a
    /// server that is away does not stop the start.
    pub async fn start(
        settings: RedisSettings,
        metrics: Arc<Metrics>,
        tasks: &TaskTracker,
        stop: CancellationToken,
    ) -> Result<Self, RedisError> {
        let redis = Self(Arc::new(Inner {
            client: link::client(&settings)?,
            timeout: settings.timeout,
            connect_timeout: settings.connect_timeout,
            prefix: settings.prefix,
            link: ArcSwapOption::empty(),
            links: AtomicU64::new(0),
            told: AtomicBool::new(false),
            metrics,
        }));
        if let Err(error) = redis.connect().await {
            redis.0.metrics.redis_degraded.set(1);
            redis.0.told.store(true, Ordering::Release);
            tracing::warn!(error = %error, "Redis is away: limits and sessions are kept per instance");
        }
        tasks.spawn(redis.clone().supervise(stop));
        Ok(redis)
    }

    /// What keys begin with.
    pub fn prefix(&self) -> &str {
        &self.0.prefix
    }

    /// The number of the link that is up, if one is. A new link may lead to a server that has forgotten everything.
    pub fn link(&self) -> Option<u64> {
        self.0.link.load().as_ref().map(|link| link.number)
    }

    /// Runs a script; all of it happens at once or not at all.
    pub async fn run(&self, script: &Script, keys: &[String], arguments: &[String]) -> Result<Vec<String>, RedisError> {
        let link = self.0.link.load_full().ok_or(RedisError::Down)?;
        let answer = link.run(script, keys, arguments, self.0.timeout).await;
        if let Err(error) = &answer {
            self.lose(&link, error);
        }
        answer
    }

    /// Breaks a link; only the first to notice does anything.
    fn lose(&self, link: &Arc<Link>, error: &RedisError) {
        if !link.sever() {
            return;
        }
        let old = self.0.link.compare_and_swap(link, None);
        if !old.as_ref().is_some_and(|old| Arc::ptr_eq(old, link)) {
            return;
        }
        self.0.metrics.redis_degraded.set(1);
        // A link that comes and goes would fill the log: what was lost again so soon is a line for those who look closer.
        if link.since.elapsed() >= STEADY || link.number == 1 {
            self.0.told.store(true, Ordering::Release);
            tracing::warn!(error = %error, "Redis is lost: limits and sessions are kept per instance");
        } else {
            tracing::debug!(error = %error, "Redis is lost again");
        }
    }

    async fn connect(&self) -> Result<(), RedisError> {
        let number = self.0.links.load(Ordering::Acquire) + 1;
        let link = Link::open(&self.0.client, self.0.connect_timeout, &self.0.prefix, number).await?;
        self.0.links.store(number, Ordering::Release);
        self.0.link.store(Some(Arc::new(link)));
        self.0.metrics.redis_degraded.set(0);
        Ok(())
    }

    /// Keeps one link: asks it for signs of life, makes another when it is lost. One task, so that there is never more
    /// than one attempt at a time.
    async fn supervise(self, stop: CancellationToken) {
        let mut pause = FIRST;
        let mut said = Instant::now();
        loop {
            if let Some(link) = self.0.link.load_full() {
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = link.severed() => {}
                    () = tokio::time::sleep(BEAT) => {
                        if let Err(error) = link.probe(&self.0.prefix, self.0.timeout).await {
                            self.lose(&link, &error);
                        }
                    }
                }
                if link.since.elapsed() >= STEADY {
                    pause = FIRST;
                }
                continue;
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
            pause = (pause * 2).min(LONGEST);
            match self.connect().await {
                Ok(()) if self.0.told.swap(false, Ordering::AcqRel) => {
                    tracing::info!("Redis is back: limits and sessions are shared");
                }
                Ok(()) => tracing::debug!("Redis is back again"),
                Err(error) if said.elapsed() >= REMIND => {
                    said = Instant::now();
                    self.0.told.store(true, Ordering::Release);
                    tracing::warn!(error = %error, "Redis is still away: limits and sessions are kept per instance");
                }
                Err(_) => {}
            }
        }
    }
}
