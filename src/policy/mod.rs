//! Policy: may this agent do this, under these rules?
//!
//! Owns the Rego packages of `policies/` and everything between an admin's rules and a decision: parsing (`parse`, `rules`,
//! `signals`), the cascade (`cascade`), compilation (`compile`), decisions and their memo (`decide`, `memo`), roles
//! (`authz`) and the checks of the command line (`check`). The only module that knows the Rego engine.
//!
//! Never does I/O on the request path, never reads a caller's JSON into the evaluator as it came, and never keeps a
//! decision longer than its snapshot. Two defaults are kept apart: no matching rule is an allow; an error, an undefined or
//! malformed answer is a refusal with the rule `policy.error`.

pub mod authz;
pub mod cascade;
pub mod check;
mod compile;
mod conditions;
mod decide;
mod glob;
mod memo;
mod parse;
mod programs;
pub mod rules;
pub mod signals;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use serde::Serialize;

pub use self::{
    authz::Authz,
    cascade::{AssignedPolicy, Level, LevelPolicies, Merged, ModelLists, Relaxation, check_relaxation, merge},
    compile::{Place, Switch},
    decide::AgentPolicy,
    glob::{check as check_pattern, matches as pattern_matches},
    parse::parse_rules,
    programs::Programs,
    rules::{Rule, RuleBody, RuleFinding, publishable, unknown_entities},
    signals::{Signal, Signals, signal_names},
};

/// The rule id of a refusal because no decision could be made.
pub const ERROR_RULE: &str = "policy.error";
/// The rule id of an allow because no rule applies.
pub const DEFAULT_RULE: &str = "policy.default";
/// The step that refusals by conditional rules name.
pub const GUARDRAILS_STEP: &str = "guardrails";

/// The answer of a decision; there is no third.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// Go on.
    Allow,
    /// Refuse.
    Block,
}

/// What the policy says, and on whose behalf. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Decision {
    /// The answer.
    pub outcome: Outcome,
    /// Which rule decided: `<policy_id>@<version>#<ordinal>`, `policy.default`, `policy.error`, …
    pub rule: Arc<str>,
    /// The version of that rule's policy, where the rule is of a policy.
    pub policy_version: Option<u32>,
    /// Words for the caller.
    pub reason: Arc<str>,
    /// The step that acts on it.
    pub step: &'static str,
    /// What rules in shadow mode would have decided.
    pub shadow: Arc<[Shadow]>,
}

/// What one shadow rule would have decided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Shadow {
    /// The rule.
    pub rule: Arc<str>,
    /// Its answer.
    pub outcome: Outcome,
    /// Its reason.
    pub reason: Arc<str>,
}

impl Decision {
    /// Does it refuse?
    pub fn is_block(&self) -> bool {
        self.outcome == Outcome::Block
    }

    /// Does it refuse because no decision could be made?
    pub fn is_error(&self) -> bool {
        &*self.rule == ERROR_RULE
    }

    /// The refusal that stands in for every failure to decide.
    fn refused_by_error(step: &'static str) -> Self {
        Self {
            outcome: Outcome::Block,
            rule: Arc::from(ERROR_RULE),
            policy_version: None,
            reason: Arc::from("the policy could not be evaluated"),
            step,
            shadow: Arc::default(),
        }
    }
}

/// Why a policy cannot be loaded, compiled or evaluated.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// An embedded package does not parse or analyse.
    #[error("package `{package}` does not load: {message}")]
    Load {
        /// Which package.
        package: &'static str,
        /// The engine's words, with a position.
        message: String,
    },
    /// The engine reported an error, or the answer was undefined.
    #[error("`{entry}` does not evaluate: {message}")]
    Evaluate {
        /// Which entry point.
        entry: &'static str,
        /// The engine's words.
        message: String,
    },
    /// The answer is not one complete object with a known outcome and rule.
    #[error("`{entry}` gave a malformed answer: `{field}`")]
    Malformed {
        /// Which entry point.
        entry: &'static str,
        /// What is missing or unknown.
        field: &'static str,
    },
    /// A rule that this build cannot carry out reached compilation.
    #[error("rule `{rule}` is not available in this build")]
    Unavailable {
        /// Its id.
        rule: String,
    },
}
