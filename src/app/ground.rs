//! What needs the database: built in order, once it answers.
//!
//! Owns the second half of the assembly; the first (`Ground`) is what is ours before anybody is served and stays over all
//! attempts. An attempt that fails leaves nothing running. Never serves.

use std::{
    net::SocketAddr,
    sync::{Arc, atomic::AtomicUsize},
    time::Duration,
};

use super::{AppError, Lifecycle, Started, bootstrap, instance, shared::Shared, signing, wiring};
use crate::{
    admission::{self, Admission, Compiler},
    config::Config,
    domain::{
        clock::{Clock, Running},
        ids::OrgId,
    },
    http::{self, Readiness, State},
    jobs::{self, Checkpoints},
    storage::{
        Anchors, RedisSettings, Sql,
        sql::{Lock, PostgresSettings},
    },
    telemetry::Metrics,
};

/// What is there before the database is asked.
pub(super) struct Ground {
    pub(super) config: Arc<Config>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) began: Running,
    pub(super) lifecycle: Lifecycle,
    pub(super) readiness: Arc<Readiness>,
    pub(super) metrics: Arc<Metrics>,
    /// How many gateways live, as far as this one knows.
    pub(super) instances: Arc<AtomicUsize>,
    pub(super) compiler: Arc<Compiler>,
    pub(super) bootstrap: bootstrap::Plan,
    pub(super) address: SocketAddr,
    /// Where the Postgres is; without one the database is a file.
    pub(super) postgres: Option<PostgresSettings>,
    /// Where Redis is, and which setting says so; without one limits and sessions are this process's own.
    pub(super) redis: Option<(&'static str, RedisSettings)>,
}

/// A gateway as it is while it runs.
pub(super) struct Core {
    pub(super) state: State,
    pub(super) admission: Admission,
    pub(super) sql: Sql,
    pub(super) default_org: OrgId,
    /// Held until everything that a first start makes is there, so that two instances do not make it twice.
    start: Option<Lock>,
}

impl Core {
    /// Says on the system's chain that this run began.
    pub(super) fn begins(&self) -> Result<(), AppError> {
        let (system, kind) = (admission::system_org(), crate::audit::kind::BOOT_STARTED);
        self.admission.outbox.note(&system, kind, &wiring::boot_note()).map_err(|_| AppError::Record)
    }
}

/// What has to run beside it.
pub(super) struct Tasks {
    pub(super) writer: admission::Writer,
    pub(super) jobs: jobs::Parts,
}

impl Core {
    /// What a first start makes is there: another instance may start.
    pub(super) async fn lets_others_start(&mut self) {
        if let Some(start) = self.start.take() {
            start.release().await;
        }
    }
}

impl Ground {
    /// What answers until the gateway is built.
    pub(super) fn door(&self) -> Result<http::Door, AppError> {
        Ok(http::Door::new(http::starting(http::Starting {
            began: self.began,
            clock: Arc::clone(&self.clock),
            names: http::NameSource::new(&instance::boot_id()?),
            readiness: Arc::clone(&self.readiness),
            storage: if self.postgres.is_some() { "postgres" } else { "sqlite" },
        })))
    }

    /// One attempt to build the rest, from the database up. Each is a boot of its own.
    pub(super) async fn core(&self, shared: &Shared) -> Result<(Core, Tasks), AppError> {
        let Self { config, clock, lifecycle, bootstrap, metrics, .. } = self;
        let sql = wiring::database(config, self.postgres.as_ref()).await?;
        let start = sql.lock("start").await?;
        let vault = wiring::vault(config, &sql, clock).await?;
        let credentials = Arc::new(admission::Credentials::new(vault, sql.clone()));
        let keys = signing::keys(config, &sql, &credentials, clock).await?;
        let default_org = bootstrap.organization(&sql).await?;
        let boot = instance::boot_id()?;
        let lease = instance::lease(&sql, clock);
        instance::register_boot(&sql, &boot, &lease, config.database.lease()).await?;
        let bounds = (wiring::writer_config(config), instance::reborn(&sql, &lease, config));
        let (key, end) = (Arc::new(keys.writer), lifecycle.end.clone());
        let (writer, outbox) =
            admission::Writer::new(sql.clone(), boot, Arc::clone(clock), Arc::clone(&key), bounds, end);
        let changes = admission::Changes::new(sql.clone(), outbox.clone(), key, lifecycle.jobs.clone());
        let open_calls = admission::OpenCalls::default();
        let (compiler, most_bytes) = (Arc::clone(&self.compiler), config.data.snapshot_cache_bytes);
        let snapshots = {
            let (sql, calls, tasks) = (sql.clone(), open_calls.clone(), lifecycle.jobs.clone());
            admission::Snapshots::new(sql, compiler, calls, most_bytes, tasks)
        };
        let admission = Admission {
            outbox,
            changes: Arc::new(changes),
            lease,
            open_calls,
            snapshots,
            credentials,
            checks: Arc::new(admission::CredentialChecks::new(Arc::clone(clock), config.jobs.trust())),
            aggregates: Arc::default(),
            deadline: Duration::from_millis(config.admission.deadline_ms),
            permit: config.admission.permit(),
        };
        let pipeline = wiring::pipeline(config, &admission, shared, metrics, lifecycle, self.address)?;
        let parts = wiring::Door { config, admission: &admission, sql: &sql, shared, jwks: keys.jwks.clone() };
        let (programs, ready, org) = (&self.compiler.programs, Arc::clone(&self.readiness), default_org.clone());
        let state = parts.state(pipeline, programs, Arc::clone(metrics), clock, ready, bootstrap, org, self.address);
        let anchors = Anchors::below(&config.data.dir);
        let checkpoints = Checkpoints::new(sql.clone(), anchors, keys.checkpoints, &config.audit);
        let jobs = jobs::Parts {
            sql: sql.clone(),
            admission: admission.clone(),
            checkpoints,
            database: config.database.clone(),
            config: config.jobs.clone(),
            instances: Arc::clone(&self.instances),
            metrics: Arc::clone(metrics),
            providers: state.0.pipeline.services().providers.clone(),
            keys: keys.jwks,
        };
        Ok((Core { state, admission, sql, default_org, start }, Tasks { writer, jobs }))
    }

    /// Puts the record and the first organization in order; the writer runs already. What is there already stays as it is,
    /// so that it may be tried again.
    pub(super) async fn found(&self, core: &Core) -> Result<Started, AppError> {
        let Core { admission, sql, default_org, .. } = core;
        let outbox = &admission.outbox;
        // Where others may live, who is dead is a job's to find out.
        if !sql.is_shared() {
            admission::close_dead_boots(sql, outbox, &mut admission::DeadBoots::default()).await?;
            let recovered = admission::recover(sql, outbox).await?;
            if recovered > 0 {
                tracing::warn!(admissions = recovered, "admissions of an earlier run were closed as unknown");
                core.state.0.metrics.recovered.inc_by(recovered);
            }
        }
        self.bootstrap.run(admission, default_org, self.address).await
    }
}
