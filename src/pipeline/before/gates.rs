//! `validate_input` and `rate_limit`.
//!
//! Owns the bounds of a request and the count of calls. The structure itself was read at the door, since a body without
//! one has no model to route by; here stand the limits that an organization sets.

use std::borrow::Cow;

use serde_json::json;

use crate::{
    domain::plan::PlannedStep,
    limits::Rate,
    pipeline::{
        Services,
        exchange::{Exchange, Judgement},
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
    services: &Services,
    step: &PlannedStep,
    exchange: &mut Exchange,
    _: &mut Judgement,
) -> Result<Verdict, StepError> {
    let number = |option| step.options.integer(option).and_then(|n| u64::try_from(n).ok());
    let Some(calls) = number("max_calls") else { return Ok(Verdict::Pass) };
    let rate = Rate::per_seconds(calls, number("window_seconds").unwrap_or(3_600));
    let now = services.clock.running().0;
    let agent = &exchange.caller.agent;
    let quota = *exchange.quota.get_or_insert_with(|| services.quotas.check(agent, rate, now));
    if quota.allowed {
        return Ok(Verdict::Pass);
    }
    let seconds = quota.retry_after.div_ceil(1_000_000_000);
    let window = rate.window / 1_000_000_000;
    Ok(Verdict::Refuse(Box::new(Refusal {
        blocked_by: Cow::Borrowed("rate_limit"),
        rule: None,
        reason: format!("more than {calls} calls in {window} seconds; the next one is allowed in {seconds} seconds"),
        kind: RefusalKind::RateLimited { retry_after: quota.retry_after },
        details: json!({ "limit": calls, "window_seconds": window, "retry_after_seconds": seconds }),
    })))
}
