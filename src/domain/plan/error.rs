//! What can be wrong with a pipeline.
//!
//! Owns the error type and the wording of its hints. Never shows a caller's text without bounding it.

use crate::domain::nearest::nearest;

/// Why a pipeline was refused. Paths are those of the text that was given, such as `overrides.detect_pii.threshold`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// A key, id or word that does not exist.
    #[error("`{path}`: unknown {what} `{given}`; {hint}")]
    Unknown {
        /// Where.
        path: String,
        /// `key`, `step`, `preset`, …
        what: &'static str,
        /// What was written, bounded.
        given: String,
        /// The nearest valid word, or all of them.
        hint: String,
    },
    /// A value that the place cannot have.
    #[error("`{path}`: {why}")]
    Impossible {
        /// Where.
        path: String,
        /// What would be possible.
        why: String,
    },
    /// The same thing said twice, e.g. by id and by alias.
    #[error("`{path}` is given twice")]
    Twice {
        /// Where.
        path: String,
    },
    /// A lower level asks for less than a higher one holds.
    #[error("`{path}`: the {level} asks for {asked}, which is not as tight as {holds} of the {owner}")]
    Relaxed {
        /// Where.
        path: String,
        /// Which step.
        step: &'static str,
        /// Who asks.
        level: &'static str,
        /// For what.
        asked: String,
        /// What stands.
        holds: String,
        /// Who set it.
        owner: String,
    },
    /// A step that is in the registry but not in this build.
    #[error("`{path}`: the {level} names the step `{step}`, which this build does not have yet")]
    NotBuilt {
        /// Where.
        path: String,
        /// Which step.
        step: &'static str,
        /// Who names it.
        level: &'static str,
    },
    /// Not YAML, or more of it than is read.
    #[error("the pipeline cannot be read: {0}")]
    Unreadable(String),
}

impl PlanError {
    pub(super) fn impossible(path: &str, why: impl Into<String>) -> Self {
        Self::Impossible { path: path.to_owned(), why: why.into() }
    }
}

/// The nearest valid word, or all of them.
pub(super) fn hint<'a>(given: &str, valid: impl IntoIterator<Item = &'a str>) -> String {
    let valid: Vec<&str> = valid.into_iter().collect();
    match nearest(given, valid.iter().copied()) {
        Some(word) => format!("did you mean `{word}`?"),
        None if valid.is_empty() => "there are none".to_owned(),
        None => format!("valid are `{}`", valid.join("`, `")),
    }
}

/// A caller's text for a message: at most 64 characters, none of them a control character.
pub(super) fn shown(text: &str) -> String {
    let mut shown: String = text.chars().take(64).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    if text.chars().nth(64).is_some() {
        shown.push('…');
    }
    shown
}
