//! Constructors: from a section of the settings to a service.
//!
//! Owns how each service is made. Never serves. What cannot be made stops the start with an error that says what to do.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::{Arc, atomic::AtomicUsize},
    time::Duration,
};

use serde_json::json;
use tokio::{
    net::{TcpListener, TcpSocket},
    sync::Semaphore,
};

use super::{bootstrap, lifecycle::Lifecycle, shared::Shared};
use crate::{
    admission::{Admission, ChangeError, Compiler, CredentialError, Records, WriterConfig},
    config::{Config, KeyNeed, PriceConfig, VERSION},
    crypto::{CryptoError, Jwks},
    detect::{DetectError, Scanner},
    domain::{clock::Clock, ids::OrgId, money::NanoUsd, plan::PipelineSpec, steps::Preset},
    http::{self, Readiness, State},
    net::{self, NetError},
    pipeline::{PerMinute, Pipeline, Services, Settings, has_step},
    policy::{Authz, PolicyError, Programs},
    providers::{Echo, HttpProvider, Providers, Timeouts},
    storage::{Sql, StorageError, sql::PostgresSettings},
    telemetry::Metrics,
    usage::{Price, Prices},
    vault::{
        DataKeyLimits, Vault,
        kms::local::{LocalKek, LocalKekError},
    },
};

/// Why the gateway does not start.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The data folder.
    #[error("the data folder cannot be used")]
    Folder(#[source] std::io::Error),
    /// Another process owns it.
    #[error("another tappass uses the data folder `{0}`; stop it, or choose another with --data-dir")]
    Locked(PathBuf),
    /// The database.
    #[error("the database cannot be used")]
    Storage(#[from] StorageError),
    /// The key-encryption key.
    #[error("the key-encryption key cannot be used")]
    Kek(#[from] LocalKekError),
    /// Keys.
    #[error("a key cannot be made or read")]
    Crypto(#[from] CryptoError),
    /// Public keys that the database has and the folder's anchor does not.
    #[error(
        "the database has signing keys that `anchors/jwks.json` does not: {0}; put the right file or the right database back"
    )]
    ForeignKeys(String),
    /// A row of the signing keys whose name is not its key's.
    #[error("the signing key `{0}` in the database is not the key that its name says")]
    MisnamedKey(String),
    /// The anchor has keys and the database has none.
    #[error("the database has none of the signing keys that `anchors/jwks.json` keeps: {0}; put the database back")]
    LostKeys(String),
    /// Sealed rows.
    #[error("a sealed key cannot be made or opened")]
    Credential(#[from] CredentialError),
    /// Policies.
    #[error("the policy packages do not load")]
    Policy(#[from] PolicyError),
    /// Detectors.
    #[error("the detectors do not compile")]
    Detect(#[from] DetectError),
    /// Outgoing HTTP.
    #[error("outgoing HTTP cannot be set up")]
    Net(#[from] NetError),
    /// The listener.
    #[error("cannot listen on {0}")]
    Listen(SocketAddr, #[source] std::io::Error),
    /// A setting that only shows to be wrong here.
    #[error("setting `{0}` {1}")]
    Setting(&'static str, String),
    /// The first organization, agent or key.
    #[error("the first organization cannot be set up")]
    Bootstrap(#[from] ChangeError),
    /// The system has no randomness.
    #[error("the system gives no random bytes")]
    Random(#[source] getrandom::Error),
    /// The record.
    #[error("the record cannot be written")]
    Record,
    /// A task that everything depends on ended.
    #[error("the gateway lost its writer or its jobs")]
    Lost,
    /// Signals.
    #[error("signals cannot be received")]
    Signal(#[source] std::io::Error),
}

/// The lock on the data folder; dropped with the process.
pub(super) struct DataLock {
    _file: std::fs::File,
}

/// Makes and locks the data folder: one process owns it, which is what lets it close every other boot.
pub(super) fn data_folder(config: &Config) -> Result<DataLock, AppError> {
    let dir = &config.data.dir;
    std::fs::create_dir_all(dir).map_err(AppError::Folder)?;
    let path = dir.join("lock");
    let file = std::fs::File::create(&path).map_err(AppError::Folder)?;
    match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(DataLock { _file: file }),
        Err(_) => Err(AppError::Locked(dir.clone())),
    }
}

/// Where the database of a data folder lies.
pub(super) fn database_file(dir: &std::path::Path) -> PathBuf {
    dir.join("tappass.db")
}

/// Opens the database; only its owner may read it.
pub(super) async fn database(config: &Config, postgres: Option<&PostgresSettings>) -> Result<Sql, AppError> {
    use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
    if let Some(settings) = postgres {
        return Ok(Sql::connect(settings).await?);
    }
    let path = database_file(&config.data.dir);
    // Made here and not by the driver, so that it never is readable for others.
    let mut options = std::fs::OpenOptions::new();
    let file = options.create(true).append(true).mode(0o600).open(&path).map_err(AppError::Folder)?;
    file.set_permissions(std::fs::Permissions::from_mode(0o600)).map_err(AppError::Folder)?;
    drop(file);
    Ok(Sql::open(&path).await?)
}

/// The vault under the local key-encryption key.
pub(super) async fn vault(config: &Config, sql: &Sql, clock: &Arc<dyn Clock>) -> Result<Vault, AppError> {
    let file = match config.vault.kek_file.as_str() {
        "" => config.data.dir.join("kek"),
        path => PathBuf::from(path),
    };
    let kek = LocalKek::load(&file, sql.has_data_keys().await?)?;
    let hard_age = Duration::from_secs(config.vault.data_key_seconds.max(1));
    let limits = DataKeyLimits { hard_age, refresh_age: hard_age / 2, ..DataKeyLimits::default() };
    Ok(Vault::new(Arc::new(kek), Arc::clone(clock), &config.audit.deployment, limits))
}

/// What the system's chain says about a start.
pub(super) fn boot_note() -> serde_json::Value {
    json!({ "version": VERSION })
}

/// Bounds of the writer.
pub(super) fn writer_config(config: &Config) -> WriterConfig {
    WriterConfig {
        max_batch: config.admission.max_batch,
        linger: Duration::from_millis(config.admission.linger_ms),
        max_backlog_bytes: config.admission.max_backlog_bytes,
    }
}

/// What compiles configurations.
pub(super) fn compiler(config: &Config, clock: &Arc<dyn Clock>) -> Result<Arc<Compiler>, AppError> {
    let preset = Preset::find(&config.pipeline.preset).ok_or_else(|| {
        let all: Vec<&str> = Preset::ALL.into_iter().map(Preset::as_str).collect();
        AppError::Setting("pipeline.preset", format!("must be one of {}", all.join(", ")))
    })?;
    Ok(Arc::new(Compiler {
        programs: Programs::load()?,
        has_step,
        default_pipeline: PipelineSpec { preset: Some(preset), ..PipelineSpec::default() },
        clock: Arc::clone(clock),
    }))
}

/// Binds the port.
pub(super) fn listen(config: &Config) -> Result<(TcpListener, SocketAddr), AppError> {
    let address = SocketAddr::new(config.server.host, config.server.port);
    let bind = || -> std::io::Result<TcpListener> {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(4_096)
    };
    let listener = bind().map_err(|error| AppError::Listen(address, error))?;
    let bound = listener.local_addr().map_err(|error| AppError::Listen(address, error))?;
    Ok((listener, bound))
}

/// Where callers find us.
pub(super) fn public_url(config: &Config, address: SocketAddr) -> String {
    if !config.server.public_url.is_empty() {
        return config.server.public_url.trim_end_matches('/').to_owned();
    }
    let host = if address.ip().is_unspecified() { IpAddr::V4(Ipv4Addr::LOCALHOST) } else { address.ip() };
    format!("http://{}", SocketAddr::new(host, address.port()))
}

/// The pipeline over its services.
pub(super) fn pipeline(
    config: &Config,
    admission: &Admission,
    shared: &Shared,
    metrics: &Arc<Metrics>,
    lifecycle: &Lifecycle,
    address: SocketAddr,
) -> Result<Pipeline, AppError> {
    let settings = Settings {
        scan_budget: config.pipeline.scan_budget_bytes,
        offload_bytes: config.pipeline.offload_bytes,
        default_max_tokens: config.providers.default_max_tokens,
        per_minute: per_minute(config),
        max_answer_bytes: config.providers.max_answer_bytes,
        heartbeat: Duration::from_millis(config.providers.heartbeat_ms),
        public_url: public_url(config, address),
    };
    Ok(Pipeline::new(Services {
        admission: admission.clone(),
        scanner: Scanner::new()?,
        limits: shared.caller_limiter(lifecycle),
        sessions: shared.sessions(),
        providers: providers(config)?,
        prices: prices(config),
        metrics: Arc::clone(metrics),
        clock: Arc::clone(&shared.clock),
        settings,
        halt: lifecycle.halt.clone(),
    }))
}

fn per_minute(config: &Config) -> PerMinute {
    let limits = &config.limits;
    PerMinute {
        key_calls: limits.key_calls_per_minute.into(),
        key_tokens: limits.key_tokens_per_minute.into(),
        org_calls: limits.org_calls_per_minute.into(),
        org_tokens: limits.org_tokens_per_minute.into(),
    }
}

fn providers(config: &Config) -> Result<Providers, AppError> {
    let own = &config.providers;
    let millis = Duration::from_millis;
    let timeouts = Timeouts {
        first_byte: millis(own.first_byte_timeout_ms),
        idle: millis(own.idle_timeout_ms),
        total: millis(own.total_timeout_ms),
    };
    let url = chat_url(config)?;
    let client = net::provider_client(millis(own.connect_timeout_ms))?;
    let needs_key = own.openai.key == KeyNeed::Required;
    let openai = HttpProvider::new("openai", url, needs_key, own.openai.models.clone(), client, timeouts);
    Ok(Providers::new(Arc::new(Echo::default()), Arc::new(openai)))
}

/// Where the provider's chat is; also asked before anything is served, so that a wrong setting is found then.
pub(super) fn chat_url(config: &Config) -> Result<reqwest::Url, AppError> {
    let base = config.providers.openai.base_url.trim_end_matches('/');
    reqwest::Url::parse(&format!("{base}/chat/completions"))
        .map_err(|error| AppError::Setting("providers.openai.base_url", format!("is not a URL: {error}")))
}

fn prices(config: &Config) -> Prices {
    let per_million = |dollars: f64| NanoUsd::from_dollars(dollars / 1e6).unwrap_or(NanoUsd::ZERO);
    let price = |row: &PriceConfig| Price {
        input: per_million(row.input),
        output: per_million(row.output),
        call: NanoUsd::from_dollars(row.call).unwrap_or(NanoUsd::ZERO),
    };
    let mut rows: BTreeMap<String, Price> =
        config.prices.iter().map(|(model, row)| (model.clone(), price(row))).collect();
    let zero = Price { input: NanoUsd::ZERO, output: NanoUsd::ZERO, call: NanoUsd::ZERO };
    let default = rows.remove("default").unwrap_or(zero);
    Prices::new(rows, default)
}

/// What the door is made of.
pub(super) struct Door<'a> {
    pub(super) config: &'a Arc<Config>,
    pub(super) admission: &'a Admission,
    pub(super) sql: &'a Sql,
    pub(super) shared: &'a Shared,
    pub(super) jwks: Jwks,
}

impl Door<'_> {
    #[expect(clippy::too_many_arguments, reason = "the assembly hands over every part once")]
    pub(super) fn state(
        self,
        pipeline: Pipeline,
        programs: &Arc<Programs>,
        metrics: Arc<Metrics>,
        clock: &Arc<dyn Clock>,
        readiness: Arc<Readiness>,
        bootstrap: &bootstrap::Plan,
        default_org: OrgId,
        address: SocketAddr,
    ) -> State {
        let config = Arc::clone(self.config);
        State::new(http::Parts {
            storage: self.sql.name(),
            records: Records::new(self.sql.clone()),
            authz: Authz::new(programs),
            admin_key: bootstrap.admin_key(),
            bootstrap_agent: bootstrap.agent_hash().map(|hash| (hash, default_org.clone())),
            names: http::NameSource::new(&self.admission.outbox.boot()),
            requests: Arc::new(Semaphore::new(config.server.max_requests)),
            body_bytes: Arc::new(AtomicUsize::new(0)),
            addresses: self.shared.limiter(),
            failures: self.shared.limiter(),
            public_url: public_url(&config, address),
            started: clock.running(),
            admission: self.admission.clone(),
            jwks: self.jwks,
            clock: Arc::clone(clock),
            pipeline,
            metrics,
            readiness,
            default_org,
            config,
        })
    }
}
