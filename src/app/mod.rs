//! The assembly: builds everything in order, runs it, takes it apart.
//!
//! Owns the one straight function from settings to a listening gateway, readable from top to bottom. Never decides
//! anything that a service could.

mod bootstrap;
mod cli;
mod dev;
mod lifecycle;
mod records;
mod shared;
mod signing;
mod wiring;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

pub use bootstrap::Started;
pub use cli::main;
pub use lifecycle::Lifecycle;
use tokio::net::TcpListener;

use crate::{
    admission::{self, Admission},
    config::{Config, Secrets},
    domain::clock::Clock,
    http::{self, Readiness, State},
    jobs::{self, Checkpoints},
    storage::Sql,
};
pub use wiring::AppError;

/// What comes from outside the process, besides the settings.
#[derive(Clone)]
pub struct Outside {
    /// Time.
    pub clock: Arc<dyn Clock>,
}

/// A gateway that is built and not yet running.
pub struct App {
    /// Where it listens.
    pub address: SocketAddr,
    listener: TcpListener,
    state: State,
    admission: Admission,
    sql: Sql,
    readiness: Arc<Readiness>,
    lifecycle: Lifecycle,
    config: Arc<Config>,
    writer: admission::Writer,
    checkpoints: Checkpoints,
    _lock: wiring::DataLock,
    bootstrap: bootstrap::Plan,
    default_org: crate::domain::ids::OrgId,
}

impl App {
    /// Builds everything, in order; nothing is served yet.
    #[expect(clippy::too_many_lines, reason = "the assembly is read from top to bottom")]
    pub async fn build(config: Config, secrets: Secrets, outside: Outside) -> Result<Self, AppError> {
        let config = Arc::new(config);
        let clock = outside.clock;
        let lifecycle = Lifecycle::default();
        let lock = wiring::data_folder(&config)?;
        let sql = wiring::database(&config).await?;
        let vault = wiring::vault(&config, &sql, &clock).await?;
        let credentials = Arc::new(admission::Credentials::new(vault, sql.clone()));
        let keys = signing::keys(&config, &sql, &credentials, &clock).await?;
        let boot = wiring::boot_id()?;
        wiring::register_boot(&sql, &boot, &clock).await?;
        let writer_config = wiring::writer_config(&config);
        let (writer, outbox) = admission::Writer::new(
            sql.clone(),
            boot.clone(),
            Arc::clone(&clock),
            keys.writer,
            writer_config,
            lifecycle.end.clone(),
        );
        let compiler = wiring::compiler(&config, &clock)?;
        let programs = Arc::clone(&compiler.programs);
        let snapshots = admission::Snapshots::new(sql.clone(), compiler, config.data.snapshot_cache_bytes);
        let admission = Admission {
            outbox,
            snapshots: Arc::new(snapshots),
            credentials,
            aggregates: Arc::default(),
            deadline: Duration::from_millis(config.admission.deadline_ms),
            permit: config.admission.permit(),
        };
        let (listener, address) = wiring::listen(&config)?;
        let metrics = Arc::new(crate::telemetry::Metrics::default());
        // One process owns the data folder, so it is the only instance.
        let instances = Arc::new(AtomicUsize::new(1));
        let shared = shared::Shared::start(&config, &secrets, &metrics, &clock, &lifecycle, instances).await?;
        let bootstrap = bootstrap::Plan::new(&config, secrets);
        let pipeline = wiring::pipeline(&config, &admission, &shared, &metrics, &lifecycle, address)?;
        let readiness = Arc::new(Readiness::default());
        let default_org = bootstrap.organization(&sql).await?;
        let parts = wiring::Door {
            config: &config,
            admission: &admission,
            sql: &sql,
            shared: &shared,
            jwks: keys.jwks.clone(),
        };
        let ready = Arc::clone(&readiness);
        let org = default_org.clone();
        let state = parts.state(pipeline, &programs, metrics, &clock, ready, &bootstrap, org, address);
        let anchors = crate::storage::Anchors::below(&config.data.dir);
        let checkpoints = Checkpoints::new(sql.clone(), anchors, keys.checkpoints, Arc::clone(&clock), &config.audit);
        Ok(Self {
            address,
            listener,
            state,
            admission,
            sql,
            readiness,
            lifecycle,
            config,
            writer,
            checkpoints,
            _lock: lock,
            bootstrap,
            default_org,
        })
    }

    /// Development also makes an agent with a key, and lifts the preset's rate limit.
    #[must_use]
    pub fn for_development(mut self) -> Self {
        self.bootstrap.for_development();
        self
    }

    /// A handle to stop it with.
    pub fn lifecycle(&self) -> Lifecycle {
        self.lifecycle.clone()
    }

    /// Runs until stopped. `started` is called once requests are answered. Answers whether everything was recorded.
    pub async fn run(self, started: impl FnOnce(&Started) -> Result<(), AppError>) -> Result<bool, AppError> {
        let Lifecycle { stop, cut, end, connections, jobs: tracker, .. } = self.lifecycle.clone();
        let mut signals = lifecycle::Signals::take().map_err(AppError::Signal)?;
        let boot = self.admission.outbox.boot().clone();
        let writing = tracker.spawn(self.writer.run());
        let outbox = &self.admission.outbox;
        let begun = outbox.note(&admission::system_org(), crate::audit::kind::BOOT_STARTED, &wiring::boot_note());
        begun.map_err(|_| AppError::Record)?;
        admission::close_dead_boots(&self.sql, outbox).await?;
        let recovered = admission::recover(&self.sql, outbox).await?;
        if recovered > 0 {
            tracing::warn!(admissions = recovered, "admissions of an earlier run were closed as unknown");
            self.state.0.metrics.recovered.inc_by(recovered);
        }
        let made = self.bootstrap.run(&self.admission, &self.default_org, self.address).await?;
        let jobs_stop = end.child_token();
        let jobs = tracker.spawn(jobs::run(self.admission.clone(), self.checkpoints, jobs_stop.clone()));
        // The socket listens already: whoever reads what `started` writes is answered, if only in a moment.
        self.readiness.started.store(true, Ordering::Release);
        started(&made)?;
        let router = http::router(self.state.clone());
        let server = self.config.server.clone();
        let ends = http::server::Ends { stop, cut };
        let serving = connections.spawn(http::server::serve(self.listener, router, server, ends, connections.clone()));
        tracing::info!(address = %self.address, version = crate::config::VERSION, "listening");
        let mut writing = writing;
        let mut jobs = jobs;
        // A gateway without its writer or its jobs is not one: it ends, and whoever watches it starts another.
        let lost = tokio::select! {
            () = self.lifecycle.signalled(&mut signals) => false,
            _ = &mut writing => true,
            _ = &mut jobs => true,
        };
        if lost {
            tracing::error!("the writer or the jobs ended: shutting down");
        }
        let limit = Duration::from_millis(self.config.server.drain_timeout_ms);
        self.lifecycle.drain(&self.readiness, limit).await;
        serving.abort();
        jobs_stop.cancel();
        if lost {
            return Err(AppError::Lost);
        }
        if tokio::time::timeout(Duration::from_secs(1), jobs).await.is_err() {
            tracing::warn!("a job did not end in time");
        }
        end.cancel();
        let written = tokio::time::timeout(Duration::from_secs(2), writing).await;
        let written = matches!(written, Ok(Ok(true)));
        wiring::close_boot(&self.sql, &boot).await;
        self.sql.close().await;
        tracing::info!(written, "stopped");
        Ok(written)
    }
}
