//! The command line.
//!
//! Owns its words, its help and its exit codes: 0 done, 1 failed or found something wrong, 2 not understood. The only place
//! that prints.

use std::{io::Write as _, path::PathBuf, process::ExitCode, sync::Arc};

use clap::{Args, Parser, Subcommand};

use super::{App, Outside, dev, records, tools};
use crate::{
    config::{Config, Environment, LogFormat, Secrets},
    domain::clock::SystemClock,
    storage::{Sql, sql::PostgresSettings},
    telemetry,
};

/// A gateway between AI agents and model providers that makes every call governed: authenticated, decided by policy,
/// inspected, paid for, and recorded in a signed, hash-chained log before a byte leaves.
#[derive(Parser)]
#[command(name = "tappass", version, max_term_width = 100, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "Examples:
  tappass dev                                    a gateway on port 9620 with data in ./data and the model tappass/echo
  OPENAI_API_KEY=sk-… tappass dev                the same, with OpenAI behind it
  tappass dev --upstream http://127.0.0.1:11434/v1   the same, with a local model server
  TAPPASS_ADMIN_KEY=… tappass serve              a gateway for production, set up from the environment
  tappass audit verify --data-dir data           check the record: integrity, completeness, freshness, budget
  tappass policy check rules.json                find what is wrong with rules before publishing them

Settings: a TOML file named by --config or TAPPASS_CONFIG, and TAPPASS_<SECTION>__<KEY> from the environment;
`tappass config check` tells what is wrong with them, `tappass config show` prints every key with its meaning.";

#[derive(Subcommand)]
enum Command {
    /// Run the gateway
    Serve(ConfigFile),
    /// Run a development gateway: makes what it needs, prints a key and a curl line that works
    Dev {
        /// Where data lies; kept between starts
        #[arg(long, default_value = "data")]
        data_dir: PathBuf,
        /// Port to listen on; 0 takes a free one [default: 9620]
        #[arg(long)]
        port: Option<u16>,
        /// Base URL of any OpenAI-compatible endpoint, e.g. `http://127.0.0.1:11434/v1`
        #[arg(long, overrides_with = "upstream")]
        upstream: Option<String>,
        #[command(flatten)]
        config: ConfigFile,
    },
    /// Bring the database's schema up to date and exit
    Migrate {
        /// Stop at this version of a Postgres schema: gateways with `database.migrate = false` run on the newest or the one before
        #[arg(long, value_name = "VERSION")]
        to: Option<i64>,
        #[command(flatten)]
        config: ConfigFile,
    },
    /// Export and verify the record
    #[command(subcommand)]
    Audit(Audit),
    /// Check and test policies
    #[command(subcommand)]
    Policy(Policy),
    /// Ask a running gateway whether it is ready; exit 0 if so (for containers without curl)
    Healthcheck {
        /// Its base URL; without it `http://127.0.0.1:<port>`
        #[arg(long)]
        url: Option<String>,
        #[command(flatten)]
        config: ConfigFile,
    },
    /// Check or show the settings
    #[command(subcommand)]
    Config(ConfigCommand),
}

#[derive(Args)]
struct ConfigFile {
    /// Settings laid over the defaults (TOML)
    #[arg(long, env = "TAPPASS_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Audit {
    /// Verify the record and name the first bad entry; exit 1 if there is one
    Verify {
        /// A data folder: verifies every chain in it, and the configuration rows
        #[arg(long, conflicts_with_all = ["export", "jwks", "checkpoint"])]
        data_dir: Option<PathBuf>,
        /// An export: verified offline, with nothing but the next two
        #[arg(long, requires = "jwks")]
        export: Option<PathBuf>,
        /// The public keys, as GET /.well-known/jwks.json gives them
        #[arg(long)]
        jwks: Option<PathBuf>,
        /// A checkpoint note that was kept outside (may be given several times)
        #[arg(long)]
        checkpoint: Vec<PathBuf>,
        /// Only this chain of the data folder
        #[arg(long)]
        org: Option<String>,
        #[command(flatten)]
        config: ConfigFile,
    },
    /// Write one organization's chain to a file that verifies without a database; works beside a running gateway
    Export {
        /// The data folder; without it `data.dir` of the settings
        #[arg(long)]
        data_dir: Option<PathBuf>,
        /// Which organization; may be left out if there is one
        #[arg(long)]
        org: Option<String>,
        /// The file to write
        #[arg(long)]
        out: PathBuf,
        #[command(flatten)]
        config: ConfigFile,
    },
}

#[derive(Subcommand)]
enum Policy {
    /// List everything that is wrong with files of rules (JSON or YAML) or Rego modules, or folders of them
    Check {
        /// The files
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Run the tests of the built-in policies, or of a folder of .rego files, in the engine that serves
    Test {
        /// The folder
        dir: Option<PathBuf>,
    },
}

#[derive(Subcommand)]
enum ConfigCommand {
    /// Check the settings; exit 1 and name what is wrong
    Check(ConfigFile),
    /// Print every key with its default and meaning
    Show,
}

/// Runs the command line; `main` calls it.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // clap prints help to standard output and mistakes to standard error, with the code that belongs to each.
            let code = error.exit_code();
            return match error.print() {
                Ok(()) => ExitCode::from(u8::try_from(code).unwrap_or(2)),
                Err(_) => ExitCode::FAILURE,
            };
        }
    };
    match run(cli) {
        Ok(code) => code,
        Err(error) => {
            complain(&chain(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

pub(super) type Failed = Box<dyn std::error::Error>;

fn run(cli: Cli) -> Result<ExitCode, Failed> {
    let environment = Environment::of_process();
    match cli.command {
        Command::Serve(file) => serve(&file, &environment),
        Command::Dev { data_dir, port, upstream, config } => {
            let options = dev::Options { data_dir, port, upstream, config: config.config };
            let config = dev::settings(&options, &environment)?;
            let _logs = telemetry::start_logs(&config.log.level, config.log.format == LogFormat::Json);
            let runtime = runtime(&config)?;
            Ok(ended(runtime.block_on(dev::run(config, &environment))?))
        }
        Command::Migrate { to, config } => {
            let config = Config::load(config.config.as_ref(), &environment)?;
            migrate(&config, &environment.secrets(), to)
        }
        Command::Audit(command) => audit(command, &environment),
        Command::Policy(Policy::Check { files }) => tools::policy_check(&files),
        Command::Policy(Policy::Test { dir }) => tools::policy_test(dir.as_deref()),
        Command::Healthcheck { url, config } => {
            let config = Config::load(config.config.as_ref(), &environment)?;
            let url = url.unwrap_or_else(|| format!("http://127.0.0.1:{}", config.server.port));
            tools::healthcheck(&url)
        }
        Command::Config(ConfigCommand::Check(file)) => {
            Config::load(file.config.as_ref(), &environment)?;
            say("the settings are valid\n");
            Ok(ExitCode::SUCCESS)
        }
        Command::Config(ConfigCommand::Show) => {
            say(crate::config::DEFAULTS);
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn runtime(config: &Config) -> std::io::Result<tokio::runtime::Runtime> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if config.server.threads > 0 {
        builder.worker_threads(config.server.threads);
    }
    builder.enable_all().build()
}

fn serve(file: &ConfigFile, environment: &Environment) -> Result<ExitCode, Failed> {
    let mut environment = environment.clone();
    if environment.get("K_SERVICE").is_some() && environment.get("TAPPASS_SERVER__HOST").is_none() {
        // The container contract: not on loopback.
        environment.set("TAPPASS_SERVER__HOST", "0.0.0.0");
    }
    let config = Config::load(file.config.as_ref(), &environment)?;
    let _logs = telemetry::start_logs(&config.log.level, config.log.format == LogFormat::Json);
    let secrets = environment.secrets();
    if secrets.admin_key.is_none() {
        tracing::warn!("`TAPPASS_ADMIN_KEY` is not set: nobody can administer this gateway");
    }
    let runtime = runtime(&config)?;
    let written = runtime.block_on(async {
        let app = App::build(config, secrets, Outside { clock: Arc::new(SystemClock) })?;
        app.run(|_| Ok(())).await
    })?;
    Ok(ended(written))
}

/// Non-zero if completions could not be written; recovery closes them at the next start.
fn ended(written: bool) -> ExitCode {
    if written { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn migrate(config: &Config, secrets: &Secrets, to: Option<i64>) -> Result<ExitCode, Failed> {
    let runtime = runtime(config)?;
    if let Some(settings) = super::instance::postgres(config, secrets)? {
        let settings = PostgresSettings { migrate: true, target: to, ..settings };
        let sql = runtime.block_on(Sql::connect(&settings))?;
        say(&format!("the database's schema is at version {}\n", sql.schema()));
        return Ok(ExitCode::SUCCESS);
    }
    if to.is_some() {
        return Err("`--to` is for Postgres: set `DATABASE_URL`".into());
    }
    let _lock = super::wiring::data_folder(config)?;
    runtime.block_on(async {
        let sql = super::wiring::database(config, None).await?;
        sql.close().await;
        Ok::<(), super::AppError>(())
    })?;
    say("the database's schema is up to date\n");
    Ok(ExitCode::SUCCESS)
}

fn audit(command: Audit, environment: &Environment) -> Result<ExitCode, Failed> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match command {
        Audit::Export { data_dir, org, out, config } => {
            let config = Config::load(config.config.as_ref(), environment)?;
            let exported = async {
                let (sql, _) = record(data_dir, &config, environment).await?;
                Ok::<_, Failed>(records::export(&sql, &config.audit.deployment, org.as_deref(), &out).await?)
            };
            let (org, entries) = runtime.block_on(exported)?;
            say(&format!("{entries} entries of {org} written to {}\n", out.display()));
            Ok(ExitCode::SUCCESS)
        }
        Audit::Verify { export: Some(export), jwks: Some(jwks), checkpoint, .. } => {
            let report = records::verify_export(&export, &jwks, &checkpoint)?;
            say(&format!("{report}\n"));
            Ok(if report.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Audit::Verify { data_dir, org, config, .. } => {
            let config = Config::load(config.config.as_ref(), environment)?;
            let verified = async {
                let (sql, dir) = record(data_dir, &config, environment).await?;
                Ok::<_, Failed>(records::verify_database(&sql, &dir, &config.audit.deployment, org.as_deref()).await?)
            };
            let reports = runtime.block_on(verified)?;
            let mut ok = true;
            for (report, edited) in reports {
                say(&format!("{report}\n"));
                if let Some(edited) = &edited {
                    say(&format!("also: {edited}\n"));
                }
                ok &= report.is_ok() && edited.is_none();
            }
            Ok(if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
    }
}

/// The database of a record, to be read, and the folder of its anchors: a data folder that was named, else the Postgres of
/// the settings, else the data folder of the settings.
async fn record(named: Option<PathBuf>, config: &Config, environment: &Environment) -> Result<(Sql, PathBuf), Failed> {
    let is_named = named.is_some();
    let dir = named.unwrap_or_else(|| config.data.dir.clone());
    if (!is_named || !dev::has_data(&dir))
        && let Some(settings) = super::instance::postgres(config, &environment.secrets())?
    {
        return Ok((Sql::connect(&PostgresSettings { migrate: false, ..settings }).await?, dir));
    }
    if !dev::has_data(&dir) {
        return Err(format!("there is no database in `{}`, and `DATABASE_URL` is not set", dir.display()).into());
    }
    Ok((Sql::open_to_read(&super::wiring::database_file(&dir)).await?, dir))
}

/// An error with all its causes on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let text = inner.to_string();
        if !words.contains(&text) {
            words.push_str(": ");
            words.push_str(&text);
        }
        cause = inner.source();
    }
    words
}

/// Standard output; a reader that went away is no error of ours.
pub(super) fn say(text: &str) {
    let mut out = std::io::stdout();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    if let Err(error) = written {
        tracing::debug!(error = &error as &dyn std::error::Error, "nobody reads the output");
    }
}

fn complain(text: &str) {
    if let Err(error) = writeln!(std::io::stderr(), "tappass: {text}") {
        tracing::debug!(error = &error as &dyn std::error::Error, "nobody reads the errors");
    }
}
