//! Governance flags: what an agent's developer asks for, call by call, in `X-TapPass-Flags`.
//!
//! Owns their names, values and types. Never decides what a flag may do: that is [`Flags::apply`], which knows the
//! plan and what the organization has unlocked. An unknown flag or value is an error that names it and the nearest
//! valid one.

mod effects;

pub use effects::{Applied, BudgetBounds, FlagEffects, ToolsEffect};

use crate::domain::{
    detection::Action,
    money::NanoUsd,
    plan::error::{hint, shown},
};

/// Longest header, in bytes.
const MAX_BYTES: usize = 4_096;
/// Most tools in a list.
const MAX_TOOLS: usize = 64;

/// Every flag with the forms of its values; the first column is what an organization unlocks.
pub const FLAGS: [(&str, &[&str]); 8] = [
    ("mode", &["observe", "warn", "enforce", "lockdown"]),
    ("pii", &["mask", "block", "flag", "off"]),
    ("secrets", &["redact", "block", "flag"]),
    ("budget", &["dev", "standard", "custom:<per call>:<per session>", "unlimited"]),
    ("tools", &["allowlist:<tool>:<tool>", "denylist:<tool>:<tool>", "log", "block"]),
    ("files", &["read_only", "project", "block", "allow"]),
    ("db", &["read_only", "safe_write", "block"]),
    ("email", &["mirror:<address>", "internal:<domain>", "block", "allow"]),
];

/// Why a header was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FlagError {
    /// There is no such flag.
    #[error("unknown flag `{flag}`; {hint}")]
    UnknownFlag {
        /// What was written, bounded.
        flag: String,
        /// The nearest valid one, or all.
        hint: String,
    },
    /// The flag has no such value.
    #[error("unknown value `{value}` of the flag `{flag}`; {hint}")]
    UnknownValue {
        /// Which flag.
        flag: &'static str,
        /// What was written, bounded.
        value: String,
        /// The nearest valid one, or all.
        hint: String,
    },
    /// Two values for one flag.
    #[error("the flag `{0}` is given twice")]
    Twice(&'static str),
    /// Not `flag=value`.
    #[error("`{0}` is not a flag; write `flag=value, flag=value`")]
    NotAPair(String),
    /// More than anybody needs.
    #[error("the flags are longer than {MAX_BYTES} bytes")]
    TooLong,
}

/// What is done about detections. Ordered from loose to tight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mode {
    /// Runs everything, refuses nothing.
    Observe,
    /// Marks and lets through.
    Warn,
    /// As the plan says.
    #[default]
    Enforce,
    /// Any detection refuses.
    Lockdown,
}

/// What is done about personal data in answers. Ordered from loose to tight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PiiAnswer {
    /// Nothing.
    Off,
    /// A mark.
    Flag,
    /// `[MASKED_EMAIL]` and the like in its place.
    Mask,
    /// No answer.
    Block,
}

/// What is done about secrets in answers. Ordered from loose to tight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SecretsAnswer {
    /// A mark.
    Flag,
    /// `[REDACTED]` in its place.
    Redact,
    /// No answer.
    Block,
}

/// How much may be spent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BudgetFlag {
    /// $1 a session, $5 a day.
    Dev,
    /// $10 a session, $50 a day.
    Standard,
    /// As said.
    Custom {
        /// Most for one call.
        per_call: NanoUsd,
        /// Most for one session.
        per_session: NanoUsd,
    },
    /// No bound.
    Unlimited,
}

/// Which tools may be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToolsFlag {
    /// Only these; globs.
    Allow(Vec<String>),
    /// Not these; globs.
    Deny(Vec<String>),
    /// All; what the plan would refuse is recorded.
    Log,
    /// None.
    Block,
}

/// What tools may do to files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FilesFlag {
    /// Read them.
    ReadOnly,
    /// Read and write inside the project; `sandbox` is another word for it.
    Project,
    /// Nothing.
    Block,
    /// Everything.
    Allow,
}

/// What tools may do to databases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DbFlag {
    /// Read.
    ReadOnly,
    /// Write, but no DELETE, DROP or TRUNCATE.
    SafeWrite,
    /// Nothing.
    Block,
}

/// Whom tools may write to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EmailFlag {
    /// Everything goes to this address.
    Mirror(String),
    /// Only addresses of this domain.
    Internal(String),
    /// Nobody.
    Block,
    /// Anybody.
    Allow,
}

impl PiiAnswer {
    /// What it means for a finding; `None` is that nobody looks.
    pub fn action(self) -> Option<Action> {
        match self {
            Self::Off => None,
            Self::Flag => Some(Action::Log),
            Self::Mask => Some(Action::Redact),
            Self::Block => Some(Action::Block),
        }
    }
}

impl SecretsAnswer {
    /// What it means for a finding.
    pub fn action(self) -> Action {
        match self {
            Self::Flag => Action::Log,
            Self::Redact => Action::Redact,
            Self::Block => Action::Block,
        }
    }
}

/// One header, read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// `mode`
    pub mode: Option<Mode>,
    /// `pii`
    pub pii: Option<PiiAnswer>,
    /// `secrets`
    pub secrets: Option<SecretsAnswer>,
    /// `budget`
    pub budget: Option<BudgetFlag>,
    /// `tools`
    pub tools: Option<ToolsFlag>,
    /// `files`
    pub files: Option<FilesFlag>,
    /// `db`, also written `database`
    pub db: Option<DbFlag>,
    /// `email`
    pub email: Option<EmailFlag>,
}

impl Flags {
    /// Reads `flag=value, flag=value`; an empty header is no flags.
    pub fn parse(header: &str) -> Result<Self, FlagError> {
        if header.len() > MAX_BYTES {
            return Err(FlagError::TooLong);
        }
        let mut flags = Self::default();
        for item in header.split(',').map(str::trim).filter(|item| !item.is_empty()) {
            let (name, value) = item.split_once('=').ok_or_else(|| FlagError::NotAPair(shown(item)))?;
            flags.read(name.trim_end(), value.trim_start())?;
        }
        Ok(flags)
    }

    fn read(&mut self, name: &str, value: &str) -> Result<(), FlagError> {
        let known = if name == "database" { "db" } else { name };
        let Some((flag, forms)) = FLAGS.into_iter().find(|(flag, _)| *flag == known) else {
            let names = FLAGS.into_iter().map(|(flag, _)| flag).chain(["database"]);
            return Err(FlagError::UnknownFlag { flag: shown(name), hint: hint(name, names) });
        };
        let unknown = || FlagError::UnknownValue { flag, value: shown(value), hint: form_hint(value, forms) };
        let is_second = match flag {
            "mode" => self.mode.replace(read_mode(value).ok_or_else(unknown)?).is_some(),
            "pii" => self.pii.replace(read_pii(value).ok_or_else(unknown)?).is_some(),
            "secrets" => self.secrets.replace(read_secrets(value).ok_or_else(unknown)?).is_some(),
            "budget" => self.budget.replace(read_budget(value).ok_or_else(unknown)?).is_some(),
            "tools" => self.tools.replace(read_tools(value).ok_or_else(unknown)?).is_some(),
            "files" => self.files.replace(read_files(value).ok_or_else(unknown)?).is_some(),
            "db" => self.db.replace(read_db(value).ok_or_else(unknown)?).is_some(),
            _ => self.email.replace(read_email(value).ok_or_else(unknown)?).is_some(),
        };
        if is_second { Err(FlagError::Twice(flag)) } else { Ok(()) }
    }
}

/// The form whose first word is nearest, or all forms.
fn form_hint(value: &str, forms: &'static [&'static str]) -> String {
    let head = |text| str::split(text, ':').next().unwrap_or_default();
    let word = crate::domain::nearest::nearest(head(value), forms.iter().map(|form| head(form)));
    match forms.iter().find(|form| Some(head(form)) == word) {
        Some(form) => format!("did you mean `{form}`?"),
        None => format!("valid are `{}`", forms.join("`, `")),
    }
}

fn read_mode(value: &str) -> Option<Mode> {
    Some(match value {
        "observe" => Mode::Observe,
        "warn" => Mode::Warn,
        "enforce" => Mode::Enforce,
        "lockdown" => Mode::Lockdown,
        _ => return None,
    })
}

fn read_pii(value: &str) -> Option<PiiAnswer> {
    Some(match value {
        "mask" => PiiAnswer::Mask,
        "block" => PiiAnswer::Block,
        "flag" => PiiAnswer::Flag,
        "off" => PiiAnswer::Off,
        _ => return None,
    })
}

fn read_secrets(value: &str) -> Option<SecretsAnswer> {
    Some(match value {
        "redact" => SecretsAnswer::Redact,
        "block" => SecretsAnswer::Block,
        "flag" => SecretsAnswer::Flag,
        _ => return None,
    })
}

fn read_budget(value: &str) -> Option<BudgetFlag> {
    let dollars = |text: &str| {
        let is_plain = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
        text.parse().ok().filter(|_| is_plain).and_then(NanoUsd::from_dollars)
    };
    Some(match value {
        "dev" => BudgetFlag::Dev,
        "standard" => BudgetFlag::Standard,
        "unlimited" => BudgetFlag::Unlimited,
        _ => {
            let (call, session) = value.strip_prefix("custom:")?.split_once(':')?;
            BudgetFlag::Custom { per_call: dollars(call)?, per_session: dollars(session)? }
        }
    })
}

fn read_tools(value: &str) -> Option<ToolsFlag> {
    let list = |text: &str| {
        let tools: Vec<String> = text.split(':').map(str::to_owned).collect();
        let fits = |tool: &String| (1..=128).contains(&tool.len()) && tool.bytes().all(|byte| byte.is_ascii_graphic());
        (tools.len() <= MAX_TOOLS && tools.iter().all(fits)).then_some(tools)
    };
    match value {
        "log" => Some(ToolsFlag::Log),
        "block" => Some(ToolsFlag::Block),
        _ => match value.split_once(':')? {
            ("allowlist", tools) => list(tools).map(ToolsFlag::Allow),
            ("denylist", tools) => list(tools).map(ToolsFlag::Deny),
            _ => None,
        },
    }
}

fn read_files(value: &str) -> Option<FilesFlag> {
    Some(match value {
        "read_only" => FilesFlag::ReadOnly,
        "project" | "sandbox" => FilesFlag::Project,
        "block" => FilesFlag::Block,
        "allow" => FilesFlag::Allow,
        _ => return None,
    })
}

fn read_db(value: &str) -> Option<DbFlag> {
    Some(match value {
        "read_only" => DbFlag::ReadOnly,
        "safe_write" => DbFlag::SafeWrite,
        "block" => DbFlag::Block,
        _ => return None,
    })
}

fn read_email(value: &str) -> Option<EmailFlag> {
    let is_domain = |text: &str| {
        let is_label = |label: &str| !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        text.len() <= 253 && text.split('.').all(is_label)
    };
    let is_address = |text: &str| {
        let parts = text.split_once('@');
        let is_local = |part: &str| {
            (1..=64).contains(&part.len())
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~.".contains(&b))
        };
        parts.is_some_and(|(local, domain)| is_local(local) && is_domain(domain))
    };
    match value {
        "block" => Some(EmailFlag::Block),
        "allow" => Some(EmailFlag::Allow),
        _ => match value.split_once(':')? {
            ("mirror", address) if is_address(address) => Some(EmailFlag::Mirror(address.to_owned())),
            ("internal", domain) if is_domain(domain) => Some(EmailFlag::Internal(domain.to_ascii_lowercase())),
            _ => None,
        },
    }
}

#[cfg(test)]
mod tests;
