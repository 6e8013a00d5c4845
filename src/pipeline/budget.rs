//! What a call may cost: the limits of its organization, its agent's plan and its caller's flag together.
//!
//! Owns the steps `budget` and `session_budget`, the worst case of a call, the limit on a single call, and the refusals
//! where a limit has no room. Pure: it neither reserves nor settles. The reservation is part of the admission's
//! transaction, and a stream that outruns it asks there for more (`streaming/purse`).

use serde_json::json;

use super::{
    Services,
    exchange::{Exchange, Judgement},
    refusal::Refusal,
};
use crate::{
    domain::{
        money::NanoUsd,
        plan::{PlannedStep, flags::BudgetBounds},
    },
    tenants::Budget,
};

/// Tokens that one picture, sound or file may cost, whatever its bytes.
const MEDIA_TOKENS: u64 = 16_384;
/// Answer tokens that no model reaches: what is held for an answer without a bound where nothing is limited.
const UNBOUNDED: u64 = 1_000_000;
/// The most that one call reserves: a million dollars. Sums of holds stay far from the end of their type.
const MOST_RESERVED: NanoUsd = NanoUsd(1_000_000_000_000_000);

/// The limits that one call is under.
pub(super) struct Limits {
    org: Budget,
    /// What the agent's plan limits.
    pub(super) plan: BudgetBounds,
    /// What limits this call: the plan's bounds with the flag's.
    pub(super) bounds: BudgetBounds,
}

impl Limits {
    /// Those of a decision.
    pub(super) fn of(judgement: &Judgement) -> Self {
        Self {
            org: judgement.snapshot.budget(),
            plan: BudgetBounds::of(&judgement.view.plan),
            bounds: judgement.flags.effective.budget,
        }
    }

    /// Whether anything is limited.
    pub(super) fn are_any(&self) -> bool {
        self.org.is_limited() || self.bounds.is_limited()
    }

    /// The most that the call alone may cost, and who says so. Under any limit there is one, since what is sent to the
    /// provider as a bound must be held in full (admission.md rule 21).
    pub(super) fn per_call(&self) -> Option<(NanoUsd, &'static str)> {
        let named = [(self.org.call_nano, "the organization's"), (self.bounds.per_call, "the flag's")];
        let named = named.into_iter().filter_map(|(limit, whose)| Some((limit?, whose)));
        let ours = self.are_any().then_some((MOST_RESERVED, "the gateway's"));
        named.chain(ours).min_by_key(|(limit, _)| *limit)
    }

    /// The kinds of windows that have a limit.
    fn windows(&self) -> Vec<&'static str> {
        let all = [
            ("total", self.org.limit_nano),
            ("day", self.org.day_nano),
            ("month", self.org.month_nano),
            ("session", self.org.session_nano),
            ("agent_day", self.bounds.per_day),
            ("agent_month", self.bounds.per_month),
            ("agent_session", self.bounds.per_session),
        ];
        all.into_iter().filter(|(_, limit)| limit.is_some()).map(|(kind, _)| kind).collect()
    }
}

/// The most that a call can cost under these limits. Without one nothing is short, so an answer without a bound is held
/// at a length that no model reaches.
pub(super) fn worst_case(services: &Services, exchange: &Exchange, limits: &Limits) -> NanoUsd {
    let request = &exchange.request;
    let limited = limits.are_any();
    let most = request.max_tokens.unwrap_or(if limited { services.settings.default_max_tokens } else { UNBOUNDED });
    let prompt = (request.body.len() as u64).saturating_add(request.media.saturating_mul(MEDIA_TOKENS));
    let amount = services.prices.of(&request.model).worst_case(prompt, most, request.choices);
    // Under a limit it is refused instead: see `Limits::per_call`.
    if limited { amount } else { amount.min(MOST_RESERVED) }
}

/// The refusal of a call that could cost more than one call may.
pub(super) fn beyond_one_call(services: &Services, exchange: &Exchange, judgement: &Judgement) -> Option<Refusal> {
    let limits = Limits::of(judgement);
    let (limit, whose) = limits.per_call()?;
    let needed = worst_case(services, exchange, &limits);
    if needed <= limit {
        return None;
    }
    let reason = format!(
        "this call may cost {needed}, which is more than {whose} limit of {limit} per call; a lower `max_tokens` costs less"
    );
    let details = json!({
        "remaining_usd": limit.dollars(), "limit_usd": limit.dollars(), "needed_usd": needed.dollars(), "window": "call",
    });
    Some(Refusal { details, ..Refusal::by_step("budget", reason) })
}

/// The refusal of a call for which some window has only so much room. The record says how much there is and not where,
/// so a window is named where only one has a limit; else those that it can be.
pub(super) fn short(services: &Services, exchange: &Exchange, judgement: &Judgement, room: NanoUsd) -> Refusal {
    let limits = Limits::of(judgement);
    let needed = worst_case(services, exchange, &limits);
    let kinds = limits.windows();
    let mut details =
        json!({ "remaining_usd": room.dollars(), "needed_usd": needed.dollars(), "limited_windows": &kinds });
    let which = match kinds.as_slice() {
        [kind] => {
            details["window"] = json!(kind);
            format!("the budget ({})", kind.replace('_', " "))
        }
        kinds => format!("the tightest of the budgets ({})", kinds.join(", ").replace('_', " ")),
    };
    let reason = format!("{which} has {room} left, which is less than the {needed} that this call may cost");
    Refusal { details, ..Refusal::by_step("budget", reason) }
}

/// `budget`: what of it limits this call.
pub(super) fn budget(step: &PlannedStep, judgement: &Judgement) -> String {
    let bounds = judgement.flags.effective.budget;
    let limits = [(bounds.per_day, "a day"), (bounds.per_month, "a month")];
    limiting(step, &limits)
}

/// `session_budget`: likewise.
pub(super) fn session_budget(step: &PlannedStep, judgement: &Judgement) -> String {
    limiting(step, &[(judgement.flags.effective.budget.per_session, "a session")])
}

/// What a step says of its limits; one that limits nothing says so.
fn limiting(step: &PlannedStep, limits: &[(Option<NanoUsd>, &str)]) -> String {
    let limits = limits.iter().filter_map(|(limit, per)| Some(format!("at most {} {per}", (*limit)?)));
    let limits: Vec<String> = limits.collect();
    if !limits.is_empty() {
        return limits.join(", ");
    }
    match step.options.money("max_cost_usd") {
        Some(_) => "the flag `budget` takes the limit away".to_owned(),
        None => "limits nothing: `max_cost_usd` is not set".to_owned(),
    }
}
