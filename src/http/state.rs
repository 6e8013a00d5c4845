//! What handlers may reach.
//!
//! Owns nothing: it is a bundle of handles, made by `app`. Services never see it.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use tokio::sync::Semaphore;

use crate::{
    admission::{Admission, Records},
    auth::AdminKey,
    config::Config,
    crypto::Jwks,
    domain::{clock::Clock, digest::Digest, ids::OrgId},
    limits::Limiter,
    pipeline::Pipeline,
    policy::Authz,
    telemetry::Metrics,
};

/// Everything that a handler may ask.
#[derive(Clone)]
pub struct State(pub(crate) Arc<Parts>);

/// What a [`State`] is made of.
#[expect(missing_docs, reason = "each is described where it is defined")]
pub struct Parts {
    pub config: Arc<Config>,
    pub pipeline: Pipeline,
    pub admission: Admission,
    pub records: Records,
    pub authz: Authz,
    pub metrics: Arc<Metrics>,
    pub clock: Arc<dyn Clock>,
    pub jwks: Jwks,
    pub admin_key: AdminKey,
    /// A key from the environment that need not have our form: its hash and organization.
    pub bootstrap_agent: Option<(Digest, OrgId)>,
    /// The organization that an administrator acts in without saying so.
    pub default_org: OrgId,
    /// Which database, in a word.
    pub storage: &'static str,
    pub readiness: Arc<Readiness>,
    /// Requests that may be answered at once.
    pub requests: Arc<Semaphore>,
    /// Bytes of bodies in memory.
    pub body_bytes: Arc<AtomicUsize>,
    /// Calls and failures by address: apart from each other and from agents, so that none fills another's memory.
    pub addresses: Limiter,
    pub failures: Limiter,
    pub names: NameSource,
    pub public_url: String,
    pub started: crate::domain::clock::Running,
}

impl State {
    /// A handle on the parts.
    pub fn new(parts: Parts) -> Self {
        Self(Arc::new(parts))
    }
}

impl std::ops::Deref for State {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

/// Whether new requests should come here.
#[derive(Debug, Default)]
pub struct Readiness {
    /// Everything was built.
    pub started: AtomicBool,
    /// The start waits for a database that is out of reach.
    pub waiting: AtomicBool,
    /// The process is going away.
    pub draining: AtomicBool,
}

impl Readiness {
    /// Why new requests should go elsewhere, as far as the process's own state says.
    pub(crate) fn reasons(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        if !self.started.load(Ordering::Acquire) {
            let waits = self.waiting.load(Ordering::Acquire);
            reasons.push(if waits { "the database does not answer" } else { "starting" }.to_owned());
        }
        if self.draining.load(Ordering::Acquire) {
            reasons.push("shutting down".to_owned());
        }
        reasons
    }
}

/// Names for requests, sessions and tasks: unique, without a system call each.
pub struct NameSource {
    boot: String,
    next: std::sync::atomic::AtomicU64,
}

impl NameSource {
    /// Names of one run.
    pub fn new(boot: &crate::domain::ids::BootId) -> Self {
        let tail = boot.as_str().rsplit('_').next().unwrap_or_default();
        Self { boot: tail.chars().take(12).collect(), next: std::sync::atomic::AtomicU64::new(1) }
    }

    /// The next name with this prefix.
    pub fn next(&self, prefix: &str) -> String {
        let number = self.next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        format!("{prefix}_{}{number:08x}", self.boot)
    }
}
