//! The assembly: builds everything in order, runs it, takes it apart.
//!
//! Owns the one straight function from settings to a gateway that answers, readable from top to bottom: what is wrong
//! with the settings, the folder or the port ends the start before anybody is served; then the door opens and says that
//! the gateway starts; then everything that needs the database is built (`ground`), which may have to be waited for. Never
//! decides anything that a service could.

mod bootstrap;
mod cli;
mod dev;
mod ground;
mod instance;
mod lifecycle;
mod records;
mod shared;
mod signing;
mod tools;
mod waiting;
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
use tokio::{net::TcpListener, task::JoinHandle};

use crate::{
    config::{Config, Secrets},
    domain::clock::Clock,
    http::{self, Readiness},
    jobs,
};
use ground::{Core, Ground, Tasks};
pub use wiring::AppError;

/// What comes from outside the process, besides the settings.
#[derive(Clone)]
pub struct Outside {
    /// Time.
    pub clock: Arc<dyn Clock>,
}

/// A gateway that has its place and does not run yet.
pub struct App {
    /// Where it listens.
    pub address: SocketAddr,
    listener: TcpListener,
    ground: Ground,
    lock: wiring::DataLock,
}

impl App {
    /// Takes what has to be ours and checks what was set; nothing is served yet, and no database asked.
    pub fn build(config: Config, secrets: Secrets, outside: Outside) -> Result<Self, AppError> {
        let config = Arc::new(config);
        let clock = outside.clock;
        let began = clock.running();
        let lock = wiring::data_folder(&config)?;
        let postgres = instance::postgres(&config, &secrets)?;
        let redis = shared::settings(&config, &secrets)?;
        let bootstrap = bootstrap::Plan::new(&config, secrets)?;
        wiring::chat_url(&config)?;
        let compiler = wiring::compiler(&config, &clock)?;
        let (listener, address) = wiring::listen(&config)?;
        let (lifecycle, readiness) = (Lifecycle::default(), Arc::new(Readiness::default()));
        let (metrics, instances) = (Arc::default(), Arc::new(AtomicUsize::new(1)));
        let ground = Ground {
            config,
            clock,
            began,
            lifecycle,
            readiness,
            metrics,
            instances,
            compiler,
            bootstrap,
            address,
            postgres,
            redis,
        };
        Ok(Self { address, listener, ground, lock })
    }

    /// Development also makes an agent with a key, and lifts the preset's rate limit.
    #[must_use]
    pub fn for_development(mut self) -> Self {
        self.ground.bootstrap.for_development();
        self
    }

    /// A handle to stop it with.
    pub fn lifecycle(&self) -> Lifecycle {
        self.ground.lifecycle.clone()
    }

    /// Runs until stopped. `started` is called once requests are answered. Answers whether everything was recorded.
    pub async fn run(self, started: impl FnOnce(&Started) -> Result<(), AppError>) -> Result<bool, AppError> {
        let Self { listener, ground, lock: _lock, .. } = self;
        let Lifecycle { stop, cut, end, connections, jobs: tracker, .. } = ground.lifecycle.clone();
        let mut signals = lifecycle::Signals::take().map_err(AppError::Signal)?;
        let shared = shared::Shared::start(&ground).await?;
        let door = ground.door()?;
        let ends = http::server::Ends { stop, cut };
        let server = ground.config.server.clone();
        let drain_limit = Duration::from_millis(server.drain_timeout_ms);
        let serving = http::server::serve(listener, door.clone(), server, ends, connections.clone());
        let serving = connections.spawn(serving);
        let built = tokio::select! {
            built = waiting::while_out_of_reach(async || ground.core(&shared).await, &ground.readiness, &door) => Some(built?),
            () = ground.lifecycle.signalled(&mut signals) => None,
        };
        let Some((mut core, Tasks { writer, jobs })) = built else {
            // Nothing was admitted, so nothing is left to record.
            door.refuse();
            ground.lifecycle.drain(&ground.readiness, drain_limit).await;
            return Ok(true);
        };
        let mut writing = tracker.spawn(writer.run());
        core.begins()?;
        let made = tokio::select! {
            made = waiting::while_out_of_reach(async || ground.found(&core).await, &ground.readiness, &door) => Some(made?),
            () = ground.lifecycle.signalled(&mut signals) => None,
        };
        let Some(made) = made else {
            door.refuse();
            ground.lifecycle.drain(&ground.readiness, drain_limit).await;
            end.cancel();
            return Ok(close(&core, writing).await);
        };
        core.lets_others_start().await;
        let jobs_stop = end.child_token();
        let mut jobs = tracker.spawn(jobs::run(jobs, jobs_stop.clone()));
        ground.readiness.started.store(true, Ordering::Release);
        door.open(http::router(core.state.clone()));
        // Whoever reads what `started` writes is answered by the gateway.
        started(&made)?;
        tracing::info!(address = %ground.address, version = crate::config::VERSION, "listening");
        // A gateway without its writer or its jobs is not one: it ends, and whoever watches it starts another.
        let lost = tokio::select! {
            () = ground.lifecycle.signalled(&mut signals) => false,
            _ = &mut writing => true,
            _ = &mut jobs => true,
        };
        if lost {
            tracing::error!("the writer or the jobs ended: shutting down");
        }
        ground.lifecycle.drain(&ground.readiness, drain_limit).await;
        serving.abort();
        jobs_stop.cancel();
        if lost {
            return Err(AppError::Lost);
        }
        if tokio::time::timeout(Duration::from_secs(1), jobs).await.is_err() {
            tracing::warn!("a job did not end in time");
        }
        end.cancel();
        Ok(close(&core, writing).await)
    }
}

/// The writer has been told to end: what waits is written, this boot is closed.
async fn close(core: &Core, writing: JoinHandle<bool>) -> bool {
    let written = tokio::time::timeout(Duration::from_secs(2), writing).await;
    let written = matches!(written, Ok(Ok(true)));
    instance::close_boot(&core.sql, &core.admission.outbox.boot()).await;
    core.sql.close().await;
    tracing::info!(written, "stopped");
    written
}
