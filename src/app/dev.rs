//! `tappass dev`: a gateway for development, from one command.
//!
//! Owns its defaults, `dev.json` and what it prints. Refuses to start in a place that looks like production. Started again
//! it keeps its data and its keys.

use std::{
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

use super::{App, AppError, Outside, Started, wiring};
use crate::{
    config::{Config, Environment},
    domain::{clock::SystemClock, ids::base32},
};

/// What `tappass dev` is told.
pub(super) struct Options {
    pub(super) data_dir: PathBuf,
    pub(super) port: Option<u16>,
    pub(super) upstream: Option<String>,
    pub(super) config: Option<PathBuf>,
}

/// What a script needs to use the gateway.
#[derive(Serialize, Deserialize)]
struct DevFile {
    base_url: String,
    agent_key: String,
    admin_key: String,
    org_id: String,
    agent_id: String,
}

/// Why `tappass dev` does not start.
#[derive(Debug, thiserror::Error)]
pub(super) enum DevError {
    /// It looks like production.
    #[error("`tappass dev` does not run on Cloud Run (`K_SERVICE` is set); use `tappass serve`")]
    Production,
    /// Settings.
    #[error(transparent)]
    Config(#[from] crate::config::ConfigError),
    /// The gateway.
    #[error(transparent)]
    App(#[from] AppError),
}

/// The settings of a development gateway.
pub(super) fn settings(options: &Options, environment: &Environment) -> Result<Config, DevError> {
    if environment.get("K_SERVICE").is_some() {
        return Err(DevError::Production);
    }
    let mut environment = environment.clone();
    environment.set("TAPPASS_DATA__DIR", &options.data_dir.display().to_string());
    if let Some(port) = options.port {
        environment.set("PORT", &port.to_string());
    }
    if let Some(upstream) = &options.upstream {
        environment.set("TAPPASS_PROVIDERS__OPENAI__BASE_URL", upstream);
        let said = environment.get("TAPPASS_PROVIDERS__OPENAI__KEY").is_some();
        if !said && environment.get("OPENAI_API_KEY").is_none() {
            // A local model server takes no key.
            environment.set("TAPPASS_PROVIDERS__OPENAI__KEY", "optional");
        }
    }
    for (name, value) in [("TAPPASS_LOG__FORMAT", "text"), ("TAPPASS_LOG__LEVEL", "warn")] {
        if environment.get(name).is_none() {
            environment.set(name, value);
        }
    }
    Ok(Config::load(options.config.as_ref(), &environment)?)
}

/// Runs it.
pub(super) async fn run(config: Config, environment: &Environment) -> Result<bool, DevError> {
    let dir = config.data.dir.clone();
    let before = read(&dir);
    let mut secrets = environment.secrets();
    if secrets.admin_key.is_none() {
        secrets.admin_key = Some(match &before {
            Some(file) => SecretString::from(file.admin_key.clone()),
            None => admin_key()?,
        });
    }
    if secrets.agent_key.is_none()
        && let Some(file) = &before
    {
        secrets.agent_key = Some(SecretString::from(file.agent_key.clone()));
    }
    let (admin_key, agent_key) = (secrets.admin_key.clone(), secrets.agent_key.clone());
    let outside = Outside { clock: Arc::new(SystemClock) };
    let app = App::build(config, secrets, outside)?.for_development();
    let tell = move |started: &Started| {
        let made = started.agent_key.as_ref().map(|key| key.reveal().to_owned());
        let agent = made.or_else(|| agent_key.map(|key| key.expose_secret().to_owned())).unwrap_or_default();
        let file = DevFile {
            base_url: format!("http://{}", started.address),
            agent_key: agent,
            admin_key: admin_key.map(|key| key.expose_secret().to_owned()).unwrap_or_default(),
            org_id: started.org_id.as_str().to_owned(),
            agent_id: started.agent_id.as_ref().map(|id| id.as_str().to_owned()).unwrap_or_default(),
        };
        write(&dir, &file).map_err(AppError::Folder)?;
        super::cli::say(&greeting(&dir, &file));
        Ok(())
    };
    Ok(app.run(tell).await?)
}

fn admin_key() -> Result<SecretString, AppError> {
    let mut bytes = [0; 25];
    getrandom::fill(&mut bytes).map_err(AppError::Random)?;
    Ok(SecretString::from(format!("tp_admin_{}", base32(&bytes))))
}

fn read(dir: &Path) -> Option<DevFile> {
    serde_json::from_str(&std::fs::read_to_string(dir.join("dev.json")).ok()?).ok()
}

/// Written beside and renamed, readable for its owner only.
fn write(dir: &Path, file: &DevFile) -> std::io::Result<()> {
    let beside = dir.join("dev.json.part");
    let mut options = std::fs::OpenOptions::new();
    let mut out = options.create(true).write(true).truncate(true).mode(0o600).open(&beside)?;
    serde_json::to_writer_pretty(&mut out, file)?;
    out.write_all(b"\n")?;
    out.sync_all()?;
    std::fs::rename(&beside, dir.join("dev.json"))
}

fn greeting(dir: &Path, file: &DevFile) -> String {
    let DevFile { base_url, agent_key, admin_key, .. } = file;
    let path = dir.join("dev.json");
    format!(
        "tappass {version} — development gateway on {base_url}\n\
         \n\
         agent key   {agent_key}\n\
         admin key   {admin_key}\n\
         data        {path}\n\
         plan        starter, with the hourly rate limit lifted\n\
         \n\
         Try it:\n\
         \n\
         curl {base_url}/v1/chat/completions -H 'Authorization: Bearer {agent_key}' \\\n\
         \x20 -H 'Content-Type: application/json' \\\n\
         \x20 -d '{{\"model\":\"tappass/echo\",\"messages\":[{{\"role\":\"user\",\"content\":\"hello\"}}]}}'\n",
        version = crate::config::VERSION,
        path = path.display(),
    )
}

/// The database of a data folder exists.
pub(super) fn has_data(dir: &Path) -> bool {
    wiring::database_file(dir).exists()
}
