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
    AdmissionConfig, AuditConfig, DataConfig, DatabaseConfig, KeyNeed, LimitsConfig, LogConfig, LogFormat,
    OpenAiConfig, PipelineConfig, PriceConfig, ProvidersConfig, ServerConfig, VaultConfig,
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
    /// The key-encryption key and the age of data keys.
    pub vault: VaultConfig,
    /// Limits before authentication.
    pub limits: LimitsConfig,
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
    fn a_wrong_type_names_the_key_and_what_would_be_right() {
        let error = load(&[("TAPPASS_SERVER__PORT", "many")]).unwrap_err().to_string();
        assert!(error.contains("server.port") && error.contains("integer"), "{error}");
    }
}
