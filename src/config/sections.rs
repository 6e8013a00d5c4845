//! The sections of the settings, one type each.
//!
//! Owns shapes and ranges; the meaning of each key stands beside its default in `config/default.toml`. Never reads a
//! file or the environment.

use std::time::Duration;

use serde::Deserialize;

use super::layers::ConfigError;
use crate::domain::steps::Preset;

/// The listener.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "each key is described beside its default in config/default.toml")]
pub struct ServerConfig {
    pub host: std::net::IpAddr,
    pub port: u16,
    pub public_url: String,
    pub threads: usize,
    pub max_body_bytes: usize,
    pub max_connections: usize,
    pub max_requests: usize,
    pub max_inflight_bytes: usize,
    pub max_streams_per_connection: u32,
    pub header_timeout_ms: u64,
    pub body_timeout_ms: u64,
    pub write_timeout_ms: u64,
    pub drain_timeout_ms: u64,
}

impl ServerConfig {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        if self.max_body_bytes == 0 || self.max_body_bytes > self.max_inflight_bytes {
            return Err(ConfigError::invalid("server.max_body_bytes", "must be between 1 and `max_inflight_bytes`"));
        }
        if self.max_connections == 0 || self.max_requests == 0 || self.max_streams_per_connection == 0 {
            return Err(ConfigError::invalid("server.max_connections", "and its neighbours must be at least 1"));
        }
        Ok(())
    }
}

/// Where data lies.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "each key is described beside its default in config/default.toml")]
pub struct DataConfig {
    pub dir: std::path::PathBuf,
    pub snapshot_cache_bytes: usize,
}

/// The database.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "each key is described beside its default in config/default.toml")]
pub struct DatabaseConfig {
    pub url: String,
    pub append_connections: usize,
    pub read_connections: usize,
    pub admin_connections: usize,
    pub lock_timeout_ms: u64,
    pub statement_timeout_ms: u64,
    pub migrate: bool,
    pub notify: bool,
    pub lease_ms: u64,
}

impl DatabaseConfig {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        if !self.url.is_empty() && !is_postgres(&self.url) {
            return Err(ConfigError::invalid("database.url", "must be empty or begin with postgres://"));
        }
        if self.append_connections == 0 || self.read_connections == 0 || self.admin_connections == 0 {
            return Err(ConfigError::invalid("database.append_connections", "and its neighbours must be at least 1"));
        }
        if !(1..=60_000).contains(&self.lock_timeout_ms) || self.statement_timeout_ms <= self.lock_timeout_ms {
            let right = "must be at least 1 and less than `statement_timeout_ms`";
            return Err(ConfigError::invalid("database.lock_timeout_ms", right));
        }
        // A lease is renewed six times before it ends, and its holder stops two seconds early.
        if !(6_000..=600_000).contains(&self.lease_ms) {
            return Err(ConfigError::invalid("database.lease_ms", "must be between 6000 and 600000"));
        }
        Ok(())
    }

    /// How long an instance counts as alive after a heartbeat.
    pub fn lease(&self) -> Duration {
        Duration::from_millis(self.lease_ms)
    }
}

/// Whether a text is the address of a Postgres.
pub(super) fn is_postgres(url: &str) -> bool {
    url.starts_with("postgres://") || url.starts_with("postgresql://")
}

/// Permits and batches.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "each key is described beside its default in config/default.toml")]
pub struct AdmissionConfig {
    pub permit_ms: u64,
    pub deadline_ms: u64,
    pub max_batch: usize,
    pub linger_ms: u64,
    pub max_backlog_bytes: usize,
}

impl AdmissionConfig {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        if !(1..=1024).contains(&self.max_batch) {
            return Err(ConfigError::invalid("admission.max_batch", "must be between 1 and 1024"));
        }
        Ok(())
    }

    /// How long a permit holds.
    pub fn permit(&self) -> Duration {
        Duration::from_millis(self.permit_ms)
    }
}

/// Checkpoints.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "each key is described beside its default in config/default.toml")]
pub struct AuditConfig {
    pub deployment: String,
    pub checkpoint_entries: u64,
    pub checkpoint_seconds: u64,
}

/// Jobs of the whole cluster.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "each key is described beside its default in config/default.toml")]
pub struct JobsConfig {
    pub validate_in_use_seconds: u64,
    pub validate_all_seconds: u64,
    pub verify_seconds: u64,
}

/// Of results where keys in use are not validated, and of the default.
const IN_USE: u64 = 1_800;

impl JobsConfig {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        // Beyond a month a job is as good as switched off, and a number that large is a mistake of units.
        let longest = 31 * 86_400;
        for (name, seconds) in [
            ("jobs.validate_in_use_seconds", self.validate_in_use_seconds),
            ("jobs.validate_all_seconds", self.validate_all_seconds),
            ("jobs.verify_seconds", self.verify_seconds),
        ] {
            if seconds > longest {
                return Err(ConfigError::invalid(name, &format!("must be between 0 (off) and {longest}")));
            }
        }
        Ok(())
    }

    /// How long a call trusts what was found out about a key: 35 minutes where the job runs every 30, so that calls never
    /// run ahead of it.
    pub fn trust(&self) -> Duration {
        let every = if self.validate_in_use_seconds == 0 { IN_USE } else { self.validate_in_use_seconds };
        Duration::from_secs(every) * 7 / 6
    }
}

/// The vault.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "each key is described beside its default in config/default.toml")]
pub struct VaultConfig {
    pub kek_file: String,
    pub data_key_seconds: u64,
}

/// Limits by address, key and organization.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "each key is described beside its default in config/default.toml")]
pub struct LimitsConfig {
    pub address_calls_per_minute: u32,
    pub address_failures_per_minute: u32,
    pub max_tracked: usize,
    pub key_calls_per_minute: u32,
    pub key_tokens_per_minute: u32,
    pub org_calls_per_minute: u32,
    pub org_tokens_per_minute: u32,
}

impl LimitsConfig {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        if self.max_tracked == 0 {
            return Err(ConfigError::invalid("limits.max_tracked", "must be at least 1: nobody could be counted"));
        }
        Ok(())
    }
}

/// What instances share their limits and sessions in.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "each key is described beside its default in config/default.toml")]
pub struct RedisConfig {
    pub url: String,
    pub ca_file: String,
    pub timeout_ms: u64,
    pub connect_timeout_ms: u64,
    pub prefix: String,
}

impl RedisConfig {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let wrong = |key, right: &str| Err(ConfigError::invalid(key, right));
        // The address itself is never repeated: a wrong one may hold a password all the same.
        if self.url.contains('@') {
            let right = "must not hold a user or password; put the whole URL into the environment variable REDIS_URL";
            return wrong("redis.url", right);
        }
        let known = ["redis://", "rediss://"].iter().any(|scheme| self.url.starts_with(scheme));
        if !self.url.is_empty() && !known {
            return wrong("redis.url", "must be redis://host:port or rediss://host:port, or empty for none");
        }
        if !(1..=10_000).contains(&self.timeout_ms) || !(1..=10_000).contains(&self.connect_timeout_ms) {
            return wrong("redis.timeout_ms", "and `connect_timeout_ms` must be between 1 and 10000");
        }
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b':');
        if !(1..=64).contains(&self.prefix.len()) || !self.prefix.bytes().all(plain) {
            return wrong("redis.prefix", "must have 1 to 64 letters, digits or `_-.:`");
        }
        Ok(())
    }
}

/// The pipeline.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "each key is described beside its default in config/default.toml")]
pub struct PipelineConfig {
    pub preset: String,
    pub scan_budget_bytes: u64,
    pub offload_bytes: usize,
}

impl PipelineConfig {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        if Preset::find(&self.preset).is_some() {
            return Ok(());
        }
        let all: Vec<&str> = Preset::ALL.into_iter().map(Preset::as_str).collect();
        Err(ConfigError::invalid("pipeline.preset", &format!("must be one of {}", all.join(", "))))
    }
}

/// Model providers.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "each key is described beside its default in config/default.toml")]
pub struct ProvidersConfig {
    pub connect_timeout_ms: u64,
    pub first_byte_timeout_ms: u64,
    pub idle_timeout_ms: u64,
    pub total_timeout_ms: u64,
    pub max_answer_bytes: usize,
    pub heartbeat_ms: u64,
    pub default_max_tokens: u64,
    pub openai: OpenAiConfig,
}

impl ProvidersConfig {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let url = &self.openai.base_url;
        if !(url.starts_with("https://") || url.starts_with("http://")) || url.contains(['?', '#', '@']) {
            let right = "must be an http or https URL without user, query or fragment";
            return Err(ConfigError::invalid("providers.openai.base_url", right));
        }
        if self.heartbeat_ms == 0 || self.default_max_tokens == 0 {
            return Err(ConfigError::invalid("providers.heartbeat_ms", "and `default_max_tokens` must be at least 1"));
        }
        Ok(())
    }
}

/// An OpenAI-compatible provider.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "each key is described beside its default in config/default.toml")]
pub struct OpenAiConfig {
    pub base_url: String,
    pub key: KeyNeed,
    pub models: Vec<String>,
}

/// Whether a provider is called without a stored key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyNeed {
    /// No key, no call.
    Required,
    /// A key is sent if there is one.
    Optional,
}

/// Logging.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "each key is described beside its default in config/default.toml")]
pub struct LogConfig {
    pub level: String,
    pub format: LogFormat,
    pub access: bool,
}

impl LogConfig {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        if self.level.split(',').all(|part| is_directive(part.trim())) {
            return Ok(());
        }
        let right = "must be error, warn, info, debug, trace or off, or a list such as `warn,tappass=debug`";
        Err(ConfigError::invalid("log.level", right))
    }
}

/// `level` or `target=level`.
fn is_directive(text: &str) -> bool {
    const LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "off"];
    let (target, level) = text.split_once('=').unwrap_or(("any", text));
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b':' | b'-' | b'.');
    !target.is_empty() && target.bytes().all(plain) && LEVELS.iter().any(|known| known.eq_ignore_ascii_case(level))
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One JSON object per line.
    Json,
    /// For people.
    Text,
}

/// Price of one model, in US dollars per million tokens and per call.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "each key is described beside its default in config/default.toml")]
pub struct PriceConfig {
    #[serde(default)]
    pub input: f64,
    #[serde(default)]
    pub output: f64,
    #[serde(default)]
    pub call: f64,
}

impl PriceConfig {
    pub(super) fn check(&self, model: &str) -> Result<(), ConfigError> {
        let fits = |price: f64| (0.0..1e6).contains(&price);
        if fits(self.input) && fits(self.output) && fits(self.call) {
            return Ok(());
        }
        Err(ConfigError::invalid(&format!("prices.{model}"), "must be dollars between 0 and 1,000,000"))
    }
}
