//! A refusal, and the other ways in which a request ends without an answer.
//!
//! Owns what is refused by whom and why, with the status that clients understand. Never renders: `http` does, in the
//! caller's protocol. Reasons name categories and rules, never the values that were found.

use std::borrow::Cow;

use serde_json::{Value, json};

use crate::domain::detection::Classification;

/// Why a governed request is refused.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// The step, or `policy`.
    pub blocked_by: Cow<'static, str>,
    /// The rule, if one decided.
    pub rule: Option<std::sync::Arc<str>>,
    /// Words for the caller.
    pub reason: String,
    /// What kind of refusal it is; decides status and code.
    pub kind: RefusalKind,
    /// Particulars, for programs.
    pub details: Value,
}

/// Kinds of refusal. A decision is never 409, 429 or 5xx (clients would ask again), except for a rate limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalKind {
    /// 403: policy, a step, a budget.
    Policy,
    /// 400: the request is malformed.
    Invalid,
    /// 429: too fast; nanoseconds until the next call is allowed.
    RateLimited {
        /// Nanoseconds.
        retry_after: u64,
    },
}

/// Longest reason, in characters.
const MOST_REASON: usize = 600;

impl Refusal {
    /// A step refuses.
    pub(super) fn by_step(step: &'static str, reason: impl Into<String>) -> Self {
        Self {
            blocked_by: Cow::Borrowed(step),
            rule: None,
            // Names of tools and the like are the caller's or the model's own, of any length.
            reason: reason.into().chars().take(MOST_REASON).collect(),
            kind: RefusalKind::Policy,
            details: json!({}),
        }
    }

    /// The HTTP status.
    pub fn status(&self) -> u16 {
        match self.kind {
            RefusalKind::Policy => 403,
            RefusalKind::Invalid => 400,
            RefusalKind::RateLimited { .. } => 429,
        }
    }
}

/// A request that was not decided, or whose call failed: not a decision of policy.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The HTTP status.
    pub status: u16,
    /// A word for programs.
    pub code: &'static str,
    /// A sentence for people.
    pub message: String,
    /// Seconds after which asking again makes sense.
    pub retry_after: Option<u64>,
}

impl Failure {
    pub(super) fn new(status: u16, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), retry_after: None }
    }

    /// This instance may neither admit nor go on.
    pub(super) fn lease_lost() -> Self {
        let words = "the record's database is out of reach, so this gateway may not go on; ask again";
        Self::unavailable("lease_lost", words)
    }

    pub(super) fn unavailable(code: &'static str, message: impl Into<String>) -> Self {
        Self { status: 503, code, message: message.into(), retry_after: Some(1) }
    }
}

/// A refusal with what the caller's body names beside it.
#[derive(Clone, Debug)]
pub struct Refused {
    /// The refusal.
    pub refusal: Refusal,
    /// How confidential the prompt is.
    pub classification: Classification,
}
