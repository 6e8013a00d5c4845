//! Settings: read once, checked before anything starts.
//!
//! Owns every key, its default (`config/default.toml`, embedded) and the environment. Never builds a service. A key that
//! is unknown, of the wrong type or out of range is a `ConfigError` that names it and what would be right.

mod layers;
mod sections;

use std::{collections::BTreeMap, path::PathBuf};

pub use layers::{ConfigError, DEFAULTS, Environment};
use secrecy::SecretString;
pub use sections::{
    AdmissionConfig, AuditConfig, DataConfig, DatabaseConfig, JobsConfig, KeyNeed, LimitsConfig, LogConfig, LogFormat,
    OpenAiConfig, PipelineConfig, PriceConfig, ProvidersConfig, RedisConfig, ServerConfig, VaultConfig,
};
use serde::Deserialize;

/// The version this binary reports; inside the range that the published client expects (0.12.x).
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// All settings.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The listener and its bounds.
    pub server: ServerConfig,
    /// Where data lies.
    pub data: DataConfig,
    /// Which database, and how much of it.
    pub database: DatabaseConfig,
    /// Permits, batches, deadlines.
    pub admission: AdmissionConfig,
    /// Checkpoints.
    pub audit: AuditConfig,
    /// What one of all instances does now and then.
    pub jobs: JobsConfig,
    /// The key-encryption key and the age of data keys.
    pub vault: VaultConfig,
    /// Limits by address, key and organization.
    pub limits: LimitsConfig,
    /// What instances share their limits and sessions in.
    pub redis: RedisConfig,
    /// Preset and scan budget.
    pub pipeline: PipelineConfig,
    /// Model providers.
    pub providers: ProvidersConfig,
    /// Logging.
    pub log: LogConfig,
    /// Price per model.
    pub prices: BTreeMap<String, PriceConfig>,
}

/// What comes from the environment and never stands in a file.
#[derive(Clone, Default)]
pub struct Secrets {
    /// `TAPPASS_ADMIN_KEY`: the bootstrap administrator.
    pub admin_key: Option<SecretString>,
    /// `TAPPASS_BOOTSTRAP_AGENT_KEY`: a first agent's key.
    pub agent_key: Option<SecretString>,
    /// `DATABASE_URL`: a Postgres; it may carry a password. Wins over `database.url`.
    pub database_url: Option<SecretString>,
    /// `OPENAI_API_KEY`: stored in the vault for the first organization.
    pub openai_key: Option<SecretString>,
    /// `REDIS_URL`: it may hold a password, so it never stands in a file or in a message.
    pub redis_url: Option<SecretString>,
}

impl Config {
    /// Defaults, then the file (if any), then the environment; checked.
    pub fn load(file: Option<&PathBuf>, environment: &Environment) -> Result<Self, ConfigError> {
        let table = layers::merged(file, environment)?;
        let config: Self = table.try_into().map_err(|error| layers::explain(&error))?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), ConfigError> {
        self.server.check()?;
        self.database.check()?;
        self.admission.check()?;
        self.jobs.check()?;
        self.limits.check()?;
        self.redis.check()?;
        self.pipeline.check()?;
        self.providers.check()?;
        self.log.check()?;
        for (model, price) in &self.prices {
            price.check(model)?;
        }
        if self.prices.contains_key("default") {
            Ok(())
        } else {
            Err(ConfigError::invalid("prices.default", "must exist: it prices models without a row of their own"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(vars: &[(&str, &str)]) -> Result<Config, ConfigError> {
        Config::load(None, &Environment::from_pairs(vars.iter().copied()))
    }

    #[test]
    fn the_defaults_are_valid() {
        let config = load(&[]).unwrap();
        assert_eq!(config.server.port, 9620);
        assert_eq!(config.server.max_body_bytes, 32 << 20);
    }

    #[test]
    fn the_settings_for_production_are_valid() {
        let file = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/config/production.toml"));
        let config = Config::load(Some(&file), &Environment::default()).unwrap();
        assert!(!config.database.migrate && config.server.host.is_unspecified());
    }

    #[test]
    fn the_environment_wins_and_keeps_the_types_of_the_file() {
        let vars = [("TAPPASS_SERVER__HEADER_TIMEOUT_MS", "5"), ("PORT", "8080"), ("TAPPASS_LOG__ACCESS", "false")];
        let config = load(&vars).unwrap();
        assert_eq!((config.server.header_timeout_ms, config.server.port, config.log.access), (5, 8080, false));
    }

    #[test]
    fn an_unknown_key_names_itself_and_its_nearest() {
        let error = load(&[("TAPPASS_SERVER__PROT", "1")]).unwrap_err().to_string();
        assert!(error.contains("server.prot") && error.contains("server.port"), "{error}");
        let error = load(&[("TAPPASS_SEVER__PORT", "1")]).unwrap_err().to_string();
        assert!(error.contains("sever.port") && error.contains("server.port"), "{error}");
        let error = load(&[("TAPPASS_ADMIN_KEE", "1")]).unwrap_err().to_string();
        assert!(error.contains("TAPPASS_ADMIN_KEE") && error.contains("TAPPASS_ADMIN_KEY"), "{error}");
    }

    #[test]
    fn the_originals_ephemeral_switch_is_refused_by_name() {
        let error = load(&[("TAPPASS_ALLOW_EPHEMERAL", "1")]).unwrap_err().to_string();
        assert!(error.contains("TAPPASS_ALLOW_EPHEMERAL") && error.contains("tappass dev"), "{error}");
    }

    #[test]
    fn a_preset_or_log_level_that_does_not_exist_names_what_would_be_right() {
        let error = load(&[("TAPPASS_PIPELINE__PRESET", "startr")]).unwrap_err().to_string();
        assert!(error.contains("pipeline.preset") && error.contains("regulated"), "{error}");
        for wrong in ["loud", "", "tappass=loud", "=debug", "info,", "tappass debug"] {
            let error = load(&[("TAPPASS_LOG__LEVEL", wrong)]).unwrap_err().to_string();
            assert!(error.contains("log.level") && error.contains("debug"), "`{wrong}`: {error}");
        }
        for right in ["off", "INFO", "warn,tappass::http=debug", "info, hyper=off"] {
            assert!(load(&[("TAPPASS_LOG__LEVEL", right)]).is_ok(), "`{right}`");
        }
    }

    #[test]
    fn a_redis_setting_that_cannot_be_names_what_would_be_right_and_never_a_password() {
        let error = load(&[("TAPPASS_REDIS__URL", "redis://:hunter2@localhost")]).unwrap_err().to_string();
        assert!(error.contains("REDIS_URL") && !error.contains("hunter2"), "{error}");
        for (name, value, right) in [
            ("TAPPASS_REDIS__URL", "localhost:6379", "rediss://host:port"),
            ("TAPPASS_REDIS__TIMEOUT_MS", "0", "between 1 and 10000"),
            ("TAPPASS_REDIS__PREFIX", "a b", "letters"),
            ("TAPPASS_LIMITS__MAX_TRACKED", "0", "at least 1"),
        ] {
            let error = load(&[(name, value)]).unwrap_err().to_string();
            assert!(error.contains(right), "{name}: {error}");
        }
        let secrets = Environment::from_pairs([("REDIS_URL", "rediss://:hunter2@redis:6378")]).secrets();
        assert!(!format!("{:?}", secrets.redis_url).contains("hunter2"));
    }

    #[test]
    fn a_job_may_be_switched_off_and_results_are_trusted_a_little_longer_than_its_period() {
        let config = load(&[("TAPPASS_JOBS__VERIFY_SECONDS", "0")]).unwrap();
        assert_eq!(config.jobs.trust().as_secs(), 35 * 60);
        let error = load(&[("TAPPASS_JOBS__VALIDATE_ALL_SECONDS", "86400000")]).unwrap_err().to_string();
        assert!(error.contains("jobs.validate_all_seconds") && error.contains("(off)"), "{error}");
    }

    #[test]
    fn a_wrong_type_names_the_key_and_what_would_be_right() {
        let error = load(&[("TAPPASS_SERVER__PORT", "many")]).unwrap_err().to_string();
        assert!(error.contains("server.port") && error.contains("integer"), "{error}");
    }
}
