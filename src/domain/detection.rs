//! What detectors and steps say about a text.
//!
//! Owns the vocabulary: severity, action, classification, finding, detection. Never holds the matched value itself:
//! a detection says where, not what.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::nearest::nearest;

/// How bad a detection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth a note.
    Low,
    /// Worth a look.
    Medium,
    /// Worth a refusal in most places.
    High,
    /// Worth a refusal everywhere.
    Critical,
}

/// What a step does with a detection. Ordered: `block` > `redact` > `notify` > `log`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Record it.
    Log,
    /// Record it and tell the organization's event stream.
    Notify,
    /// Replace it.
    Redact,
    /// Refuse.
    Block,
}

impl Action {
    /// Reads an action; `continue` is an alias of `log`. The error names the nearest valid word.
    pub fn parse(text: &str) -> Result<Self, String> {
        const WORDS: [&str; 5] = ["log", "notify", "redact", "block", "continue"];
        Ok(match text {
            "log" | "continue" => Self::Log,
            "notify" => Self::Notify,
            "redact" => Self::Redact,
            "block" => Self::Block,
            other => {
                let hint = nearest(other, WORDS).unwrap_or("log");
                return Err(format!("unknown action `{other}`; did you mean `{hint}`?"));
            }
        })
    }

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Log => "log",
            Self::Notify => "notify",
            Self::Redact => "redact",
            Self::Block => "block",
        }
    }
}

/// How confidential a text is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Classification {
    /// Nothing speaks against publication.
    #[default]
    Public,
    /// For people inside.
    Internal,
    /// For some people inside.
    Confidential,
    /// For few.
    Restricted,
    /// For named persons.
    TopSecret,
}

impl Classification {
    /// The word for it, as clients read it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Public => "PUBLIC",
            Self::Internal => "INTERNAL",
            Self::Confidential => "CONFIDENTIAL",
            Self::Restricted => "RESTRICTED",
            Self::TopSecret => "TOP_SECRET",
        }
    }
}

/// Which detectors a finding comes from; a step reads its own families.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Family {
    /// `pii.*`
    PersonalData,
    /// `secret.*`
    Secrets,
    /// `unicode.*`
    Unicode,
    /// `injection.*`
    Injection,
    /// `classification.*`: markings such as "confidential"
    Classification,
}

/// One hit of one detector in one text. Offsets are bytes of that text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Whose it is.
    pub family: Family,
    /// Dotted, e.g. `pii.email`, `secret.aws_access_key`, `injection.role_hijack`.
    pub category: &'static str,
    /// How bad.
    pub severity: Severity,
    /// Words for a person; never contains the value.
    pub label: &'static str,
    /// Certainty in basis points, 0 to 10,000.
    pub score: u16,
    /// First byte.
    pub start: usize,
    /// One past the last byte.
    pub end: usize,
}

/// A finding where it was found and by whom: what records and answers carry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Detection {
    /// Dotted category.
    pub category: &'static str,
    /// How bad.
    pub severity: Severity,
    /// Words for a person.
    pub label: &'static str,
    /// Certainty in basis points.
    pub score: u16,
    /// Which step reported it.
    pub step: &'static str,
    /// Which text: `messages[2].content[0].text`, `tools[1].function.description`, …
    pub place: Cow<'static, str>,
    /// First byte within the place.
    pub offset: usize,
    /// Bytes.
    pub length: usize,
    /// What stands there now, if it was replaced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replacement: Option<Cow<'static, str>>,
}
