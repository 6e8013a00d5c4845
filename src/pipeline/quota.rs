//! What a call is charged before it is decided, and the refusal where a limit has no room.
//!
//! Owns which limits a call counts against: the agent's from its plan, those of its key and organization from the
//! settings. Asks once per exchange, before the decision and outside of it, since the count may be shared over a network
//! and a decision is pure and may be made again. Tokens are charged at their worst case; whatever ends the call settles
//! them, and what never was a call gives them back.

use std::borrow::Cow;

use serde_json::json;

use super::{
    Services,
    exchange::Exchange,
    refusal::{Refusal, RefusalKind},
};
use crate::{
    admission::Snapshot,
    domain::plan::PlannedStep,
    limits::{Charges, Exceeded, Rate, Subject, Unit},
    tenants::AgentStatus,
    usage::estimate_tokens,
};

/// Limits per minute of every key and every organization; 0: none.
#[derive(Clone, Copy, Debug, Default)]
#[expect(missing_docs, reason = "each is described beside its default in config/default.toml")]
pub struct PerMinute {
    pub key_calls: u64,
    pub key_tokens: u64,
    pub org_calls: u64,
    pub org_tokens: u64,
}

/// Charges an exchange, unless it has been charged already. What cannot be decided anyway is not charged.
pub(super) async fn charge(services: &Services, exchange: &mut Exchange, snapshot: &Snapshot) {
    if exchange.quota.is_some() {
        return;
    }
    let Some((_, agent)) = snapshot.key(&exchange.caller.key_hash, services.clock.now()) else { return };
    if agent.status == AgentStatus::Suspended {
        return;
    }
    let Ok(view) = snapshot.view(agent) else { return };
    let charges = charges(services, exchange, view.plan.step("rate_limit"));
    if charges.is_empty() {
        return;
    }
    let (verdict, hold) = services.limits.hold(&charges).await;
    exchange.quota = Some(verdict);
    exchange.hold = hold;
}

fn charges(services: &Services, exchange: &Exchange, step: Option<&PlannedStep>) -> Charges {
    let caller = &exchange.caller;
    let request = &exchange.request;
    let answer = request.max_tokens.unwrap_or(services.settings.default_max_tokens);
    let tokens =
        estimate_tokens(request.body.len() as u64).saturating_add(answer.saturating_mul(request.choices.max(1)));
    let mut charges = Charges::default();
    let mut charge = |subject: &dyn Fn() -> Subject, unit, limit: u64, seconds| {
        if limit > 0 {
            let cost = if unit == Unit::Calls { 1 } else { tokens };
            charges.push(subject(), unit, Rate::per_seconds(limit, seconds), cost);
        }
    };
    if let Some(step) = step {
        let number = |option| step.options.integer(option).and_then(|n| u64::try_from(n).ok());
        let window = number("window_seconds").unwrap_or(3_600);
        let agent = || Subject::Agent(caller.agent.clone());
        charge(&agent, Unit::Calls, number("max_calls").unwrap_or(0), window);
        charge(&agent, Unit::Tokens, number("max_tokens").unwrap_or(0), window);
    }
    let PerMinute { key_calls, key_tokens, org_calls, org_tokens } = services.settings.per_minute;
    let key = || Subject::Key(caller.key.clone());
    let org = || Subject::Org(caller.org.clone());
    charge(&key, Unit::Calls, key_calls, 60);
    charge(&key, Unit::Tokens, key_tokens, 60);
    charge(&org, Unit::Calls, org_calls, 60);
    charge(&org, Unit::Tokens, org_tokens, 60);
    charges
}

/// The refusal of a call that some limit has no room for.
pub(super) fn refusal(exchange: &Exchange) -> Option<Refusal> {
    let Exceeded { whose, unit, rate, cost, retry_after } = exchange.quota.as_ref()?.refused.as_ref()?;
    let seconds = retry_after.div_ceil(1_000_000_000);
    let window = rate.window / 1_000_000_000;
    let limit = rate.limit;
    let next = match unit {
        Unit::Tokens => format!("a call that may take {cost} is allowed in {seconds} seconds"),
        Unit::Calls => format!("the next one is allowed in {seconds} seconds"),
    };
    let unit = unit.as_str();
    let who = if *whose == "agent" { String::new() } else { format!(" of the {whose}") };
    Some(Refusal {
        blocked_by: Cow::Borrowed("rate_limit"),
        rule: None,
        reason: format!("more than {limit} {unit}{who} in {window} seconds; {next}"),
        kind: RefusalKind::RateLimited { retry_after: *retry_after },
        details: json!({
            "limit": limit, "unit": unit, "of": whose, "window_seconds": window, "retry_after_seconds": seconds,
        }),
    })
}
