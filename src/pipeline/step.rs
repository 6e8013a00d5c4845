//! A step, seen from the pipeline: a function bound to an id, and what it says.
//!
//! Owns the shapes of verdicts and reports. Never decides: a detector reports, the runner applies action and mode.

use std::borrow::Cow;

use serde::Serialize;

use super::{
    Services,
    exchange::{Exchange, Judgement},
    refusal::Refusal,
};
use crate::domain::{detection::Action, plan::PlannedStep};

/// How a step acts.
#[derive(Clone, Copy)]
pub(super) enum Run {
    /// On the prompt: pure computation over the exchange.
    Before(fn(&Services, &PlannedStep, &mut Exchange, &mut Judgement) -> Result<Verdict, StepError>),
    /// In the admission's own transaction, which has to see the sums of everybody; the function says what it limits.
    AtAdmission(fn(&PlannedStep, &Judgement) -> String),
    /// Around the call, by the call itself (`call/`).
    InCall,
    /// On the answer, by the answer's reader (`after/`).
    OnAnswer,
}

/// What a step says.
#[derive(Debug)]
pub(super) enum Verdict {
    /// Nothing to object to.
    Pass,
    /// It found something; the message is for people. The runner applies the action.
    Detected(String),
    /// A gate refuses.
    Refuse(Box<Refusal>),
}

/// A step that could not do its work.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct StepError(pub(super) Cow<'static, str>);

/// What the caller is told about a step.
#[derive(Clone, Debug, Serialize)]
pub struct StepReport {
    /// Its id.
    pub step: &'static str,
    /// `continue`, `log`, `notify`, `redact` or `block`.
    pub action: &'static str,
    /// Whether it found something.
    pub detected: bool,
    /// Words for a person; empty if it found nothing.
    pub message: String,
    /// Time it took.
    pub duration_ms: f64,
}

impl StepReport {
    /// A report; an action is named only where something was found.
    pub(super) fn new(step: &'static str, found: Option<(Action, String)>, took: std::time::Duration) -> Self {
        let duration_ms = (took.as_secs_f64() * 1e6).round() / 1e3;
        match found {
            None => Self { step, action: "continue", detected: false, message: String::new(), duration_ms },
            Some((action, message)) => Self { step, action: action.as_str(), detected: true, message, duration_ms },
        }
    }
}
