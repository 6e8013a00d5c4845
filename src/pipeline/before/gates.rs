//! `validate_input` and `rate_limit`.
//!
//! Owns the bounds of a request and the place where a limit without room refuses; it was counted before (`quota`). The
//! structure itself was read at the door, since a body without one has no model to route by; here stand the limits that an
//! organization sets.

use std::borrow::Cow;

use serde_json::json;

use crate::{
    domain::plan::PlannedStep,
    pipeline::{
        Services,
        exchange::{Exchange, Judgement},
        quota,
        refusal::{Refusal, RefusalKind},
        step::{StepError, Verdict},
    },
};

/// `validate_input`.
#[expect(clippy::unnecessary_wraps, reason = "every step has the shape that the page of steps binds")]
pub(in crate::pipeline) fn validate_input(
    _: &Services,
    step: &PlannedStep,
    exchange: &mut Exchange,
    _: &mut Judgement,
) -> Result<Verdict, StepError> {
    let request = &exchange.request;
    let checks = [("max_messages", request.messages, "messages"), ("max_bytes", request.body.len(), "bytes")];
    for (option, has, what) in checks {
        let most = step.options.integer(option).and_then(|most| usize::try_from(most).ok());
        if let Some(most) = most.filter(|most| has > *most) {
            return Ok(invalid(format!("the request has {has} {what}; at most {most} are allowed")));
        }
    }
    Ok(Verdict::Pass)
}

fn invalid(reason: String) -> Verdict {
    Verdict::Refuse(Box::new(Refusal {
        blocked_by: Cow::Borrowed("validate_input"),
        rule: None,
        reason,
        kind: RefusalKind::Invalid,
        details: json!({}),
    }))
}

/// `rate_limit`.
#[expect(clippy::unnecessary_wraps, reason = "every step has the shape that the page of steps binds")]
pub(in crate::pipeline) fn rate_limit(
    _: &Services,
    _: &PlannedStep,
    exchange: &mut Exchange,
    _: &mut Judgement,
) -> Result<Verdict, StepError> {
    Ok(quota::refusal(exchange).map_or(Verdict::Pass, |refusal| Verdict::Refuse(Box::new(refusal))))
}
