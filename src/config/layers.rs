//! How settings are laid over one another: defaults, file, environment.
//!
//! Owns the only look at the process environment. Never guesses: a name that is not known is refused with the nearest
//! one that is.

use std::{collections::BTreeMap, path::PathBuf};

use secrecy::SecretString;
use toml::{Table, Value};

use super::Secrets;
use crate::domain::nearest::nearest;

/// The defaults, as a person reads them.
pub const DEFAULTS: &str = include_str!("../../config/default.toml");

/// Names beginning with `TAPPASS_` that are not settings of a section.
const KNOWN: [&str; 9] = [
    "TAPPASS_CONFIG",
    "TAPPASS_ADMIN_KEY",
    "TAPPASS_BOOTSTRAP_AGENT_KEY",
    // Read by the published client and by the project's own tools, which may share an environment with us.
    "TAPPASS_URL",
    "TAPPASS_API_KEY",
    "TAPPASS_TOKEN",
    "TAPPASS_DISABLE_TELEMETRY",
    "TAPPASS_FAIL_OPEN",
    "TAPPASS_BIN",
];

/// Why the settings are not usable.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration file `{path}`")]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not TOML.
    #[error("`{path}` is not valid TOML: {message}")]
    Syntax {
        /// Which file.
        path: PathBuf,
        /// Where and why.
        message: String,
    },
    /// A key that nobody knows.
    #[error("unknown setting `{key}` ({source_name}){hint}")]
    Unknown {
        /// The key.
        key: String,
        /// Where it was found.
        source_name: String,
        /// The nearest known key, as a sentence.
        hint: String,
    },
    /// A value that cannot be.
    #[error("setting `{key}` {right}")]
    Invalid {
        /// The key.
        key: String,
        /// What would be right.
        right: String,
    },
    /// A switch of the original that has no meaning here.
    #[error("`TAPPASS_ALLOW_EPHEMERAL` is not supported: nothing here is ephemeral; for development run `tappass dev`")]
    Ephemeral,
}

impl ConfigError {
    pub(super) fn invalid(key: &str, right: &str) -> Self {
        Self::Invalid { key: key.to_owned(), right: right.to_owned() }
    }
}

/// The environment as it was at start.
#[derive(Clone, Default)]
pub struct Environment {
    vars: BTreeMap<String, String>,
}

impl Environment {
    /// The process's own. Values that are not text are left out.
    pub fn of_process() -> Self {
        let vars = std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)));
        Self { vars: vars.collect() }
    }

    /// Given pairs, for tests and for `tappass dev`.
    pub fn from_pairs<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        Self { vars: pairs.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect() }
    }

    /// Adds or replaces one variable.
    pub fn set(&mut self, name: &str, value: &str) {
        self.vars.insert(name.to_owned(), value.to_owned());
    }

    /// One variable; an empty one counts as absent.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.vars.get(name).map(String::as_str).filter(|v| !v.is_empty())
    }

    /// The secrets that stand in the environment only.
    pub fn secrets(&self) -> Secrets {
        let secret = |name| self.get(name).map(SecretString::from);
        Secrets {
            admin_key: secret("TAPPASS_ADMIN_KEY"),
            agent_key: secret("TAPPASS_BOOTSTRAP_AGENT_KEY"),
            database_url: secret("DATABASE_URL"),
            openai_key: secret("OPENAI_API_KEY"),
            redis_url: secret("REDIS_URL"),
        }
    }
}

/// Defaults, file and environment as one table with known keys only.
pub(super) fn merged(file: Option<&PathBuf>, environment: &Environment) -> Result<Table, ConfigError> {
    let mut table: Table = DEFAULTS.parse().map_err(|e| syntax(&PathBuf::from("config/default.toml"), &e))?;
    if let Some(path) = file {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.clone(), source })?;
        let over: Table = text.parse().map_err(|e| syntax(path, &e))?;
        let known = known_keys(&table);
        lay_over(&mut table, over, "", &format!("in `{}`", path.display()), &known)?;
    }
    if environment.get("TAPPASS_ALLOW_EPHEMERAL").is_some() {
        return Err(ConfigError::Ephemeral);
    }
    let known = known_keys(&table);
    for (name, value) in &environment.vars {
        if let Some(rest) = name.strip_prefix("TAPPASS_") {
            from_environment(&mut table, name, rest, value, &known)?;
        }
    }
    if let Some(port) = environment.get("PORT") {
        set(&mut table, "server.port", port)?;
    }
    Ok(table)
}

fn syntax(path: &std::path::Path, error: &toml::de::Error) -> ConfigError {
    ConfigError::Syntax { path: path.to_owned(), message: error.to_string() }
}

fn from_environment(
    table: &mut Table,
    name: &str,
    rest: &str,
    value: &str,
    known: &[String],
) -> Result<(), ConfigError> {
    if rest.contains("__") {
        let key = rest.replace("__", ".").to_ascii_lowercase();
        if !known.contains(&key) {
            return Err(unknown(&key, &format!("from `{name}`"), known.iter().map(String::as_str)));
        }
        return set(table, &key, value);
    }
    if KNOWN.contains(&name) { Ok(()) } else { Err(unknown(name, "environment", KNOWN)) }
}

fn unknown<'a>(key: &str, source_name: &str, known: impl IntoIterator<Item = &'a str>) -> ConfigError {
    let hint = nearest(key, known).map_or_else(String::new, |n| format!("; did you mean `{n}`?"));
    ConfigError::Unknown { key: key.to_owned(), source_name: source_name.to_owned(), hint }
}

/// Dotted names of every leaf.
fn known_keys(table: &Table) -> Vec<String> {
    let mut keys = Vec::new();
    for (section, value) in table {
        let Value::Table(inner) = value else { continue };
        for (key, value) in inner {
            match value {
                Value::Table(deep) => keys.extend(deep.keys().map(|k| format!("{section}.{key}.{k}"))),
                Value::String(_)
                | Value::Integer(_)
                | Value::Float(_)
                | Value::Boolean(_)
                | Value::Datetime(_)
                | Value::Array(_) => keys.push(format!("{section}.{key}")),
            }
        }
    }
    keys
}

/// Lays `over` on `table`. Only `prices` may gain rows; everything else must be known.
fn lay_over(table: &mut Table, over: Table, at: &str, source: &str, known: &[String]) -> Result<(), ConfigError> {
    for (key, value) in over {
        let path = if at.is_empty() { key.clone() } else { format!("{at}.{key}") };
        match (table.get_mut(&key), value) {
            (Some(Value::Table(inner)), Value::Table(more)) => lay_over(inner, more, &path, source, known)?,
            (Some(Value::Table(_)), _) => return Err(ConfigError::invalid(&path, "must be a table")),
            (Some(slot), value) => *slot = same_type(slot, value, &path)?,
            (None, value) if at == "prices" => {
                table.insert(key, value);
            }
            (None, _) => {
                let sections = known.iter().filter_map(|k| k.split('.').next());
                let names = known.iter().map(String::as_str).chain(sections);
                return Err(unknown(&path, source, names));
            }
        }
    }
    Ok(())
}

/// A value of the type that the default has; a whole number will do for a fraction.
fn same_type(like: &Value, value: Value, key: &str) -> Result<Value, ConfigError> {
    if let (Value::Float(_), Value::Integer(whole)) = (like, &value) {
        #[expect(clippy::cast_precision_loss, reason = "a person's round number of dollars")]
        return Ok(Value::Float(*whole as f64));
    }
    if like.same_type(&value) {
        return Ok(value);
    }
    let right = match like.type_str() {
        "integer" => "an integer",
        "float" => "a number",
        "boolean" => "`true` or `false`",
        "array" => "a list",
        _ => "a text",
    };
    Err(ConfigError::invalid(key, &format!("must be {right}, not `{value}`")))
}

/// Sets a known leaf from text, in the type that its default has.
fn set(table: &mut Table, key: &str, text: &str) -> Result<(), ConfigError> {
    let mut parts = key.split('.').peekable();
    let mut here = table;
    while let Some(part) = parts.next() {
        let Some(slot) = here.get_mut(part) else { break };
        if parts.peek().is_none() {
            *slot = typed(slot, key, text)?;
            return Ok(());
        }
        let Value::Table(inner) = slot else { break };
        here = inner;
    }
    Err(ConfigError::invalid(key, "is not a setting"))
}

fn typed(like: &Value, key: &str, text: &str) -> Result<Value, ConfigError> {
    let wrong = |right: &str| ConfigError::invalid(key, &format!("must be {right}, not `{text}`"));
    Ok(match like {
        Value::Integer(_) => Value::Integer(text.parse().map_err(|_| wrong("an integer"))?),
        Value::Float(_) => Value::Float(text.parse().map_err(|_| wrong("a number"))?),
        Value::Boolean(_) => Value::Boolean(text.parse().map_err(|_| wrong("`true` or `false`"))?),
        Value::Array(_) => Value::Array(text.split(',').map(|t| Value::String(t.trim().to_owned())).collect()),
        Value::String(_) | Value::Datetime(_) | Value::Table(_) => Value::String(text.to_owned()),
    })
}

/// A type error of serde, in our words.
pub(super) fn explain(error: &toml::de::Error) -> ConfigError {
    ConfigError::invalid("(configuration)", &format!("is not valid: {}", error.message()))
}
