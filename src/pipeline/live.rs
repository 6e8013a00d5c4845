//! A call under way: everything that its completion has to say, kept where it cannot be lost.
//!
//! Owns the open admission from the permit to the end. Whoever drops it (an answer that is done, a handler whose caller
//! left, a stream that was cut) thereby completes it; nothing else settles money. Never waits.

use std::{borrow::Cow, sync::Arc};

use tokio::sync::oneshot;

use super::{
    Services,
    exchange::{Exchange, Judgement},
};
use crate::{
    admission::{
        CompletionContent, CoverageRecord, DetectionRecord, Extended, OpenAdmission, OpenCall, Refused, UsageRecord,
    },
    domain::{clock::Running, money::NanoUsd},
    limits::Hold,
    usage::{Price, Usage, estimate_bytes, estimate_tokens},
};

/// A call under way.
pub(super) struct Live {
    open: OpenAdmission,
    services: Arc<Services>,
    /// While it is here, the organization's configuration is followed.
    _listed: OpenCall,
    started: Running,
    price: Price,
    prompt_bytes: u64,
    /// The tokens that it was charged, to be corrected.
    hold: Option<Hold>,
    /// Whether the provider can have seen the call.
    pub(super) sent: Arc<std::sync::atomic::AtomicBool>,
    /// How it ended, once that is known.
    pub(super) outcome: &'static str,
    /// Why, where that needs words.
    pub(super) reason: Option<Cow<'static, str>>,
    /// What the provider says that it used.
    pub(super) usage: Option<Usage>,
    /// How much of the answer's text had come when it said so.
    usage_at: u64,
    /// Bytes of answer text that came, to count with if the provider does not.
    pub(super) answer_bytes: u64,
    /// Bytes that the caller was given.
    pub(super) bytes_released: u64,
    /// What the answer's steps found.
    pub(super) detections: Vec<DetectionRecord>,
    /// What of the answer they saw.
    pub(super) coverage: Option<CoverageRecord>,
    /// Tracking steps that failed open.
    pub(super) step_errors: Vec<Cow<'static, str>>,
    /// The provider's status.
    pub(super) provider_status: Option<u16>,
    /// The provider's own id of the request.
    pub(super) provider_request: Option<String>,
}

impl Live {
    pub(super) fn new(services: &Arc<Services>, exchange: &mut Exchange, open: OpenAdmission) -> Self {
        Self {
            open,
            services: Arc::clone(services),
            _listed: services.admission.open_calls.enter(&exchange.caller.org),
            started: exchange.started,
            price: services.prices.of(&exchange.request.model),
            prompt_bytes: exchange.request.body.len() as u64,
            hold: exchange.hold.take(),
            sent: Arc::default(),
            // Until something else is known, what ends a call is its caller's leaving.
            outcome: "client_closed",
            reason: None,
            usage: None,
            usage_at: 0,
            answer_bytes: 0,
            bytes_released: 0,
            detections: Vec::new(),
            coverage: None,
            step_errors: Vec::new(),
            provider_status: None,
            provider_request: None,
        }
    }

    /// The admission's id, as answers name it.
    pub(super) fn id(&self) -> String {
        format!("{}-{}", self.open.id().boot, self.open.id().counter)
    }

    /// How the call ended.
    pub(super) fn ends(&mut self, outcome: &'static str) {
        self.outcome = outcome;
    }

    /// How the call failed.
    pub(super) fn fails(&mut self, outcome: &'static str, reason: impl Into<Cow<'static, str>>) {
        self.outcome = outcome;
        self.reason = Some(reason.into());
    }

    /// The provider says in mid-stream what it has used so far.
    pub(super) fn used(&mut self, usage: Usage) {
        (self.usage, self.usage_at) = (Some(usage), self.answer_bytes);
    }

    /// What is held for it, extensions included.
    pub(super) fn reserved(&self) -> NanoUsd {
        self.open.reserved()
    }

    /// What the call costs so far: what the provider said last, and our own count of what came after that.
    pub(super) fn cost_so_far(&self) -> NanoUsd {
        let tokens = estimate_tokens(self.answer_bytes.saturating_sub(self.usage_at));
        self.said_cost().plus(self.price.output.times(tokens))
    }

    /// How many bytes of answer text `money` pays for, by the same count.
    pub(super) fn bytes_for(&self, money: NanoUsd) -> u64 {
        let left = u64::try_from(money.0.saturating_sub(self.said_cost().0)).unwrap_or(0);
        let price = u64::try_from(self.price.output.0).unwrap_or(0);
        left.checked_div(price).map_or(u64::MAX, |tokens| self.usage_at.saturating_add(estimate_bytes(tokens)))
    }

    /// What so many answer tokens cost.
    pub(super) fn price_of(&self, tokens: u64) -> NanoUsd {
        self.price.output.times(tokens)
    }

    fn said_cost(&self) -> NanoUsd {
        let prompt_tokens = estimate_tokens(self.prompt_bytes);
        self.price.cost(self.usage.unwrap_or(Usage { prompt_tokens, ..Usage::default() }))
    }

    /// Asks for more money.
    pub(super) fn ask_more(&self, by: NanoUsd) -> Result<oneshot::Receiver<Extended>, Refused> {
        self.open.ask_more(by)
    }

    /// More is held.
    pub(super) fn extended(&mut self, by: NanoUsd) {
        self.open.extended(by);
    }

    /// Counts that a step refused the answer.
    pub(super) fn count_refusal(&self, step: &str) {
        self.services.metrics.count_refusal(step);
    }

    /// What the call used, as far as is known, and what that costs.
    pub(super) fn bill(&self) -> (Usage, NanoUsd) {
        let sent = self.sent.load(std::sync::atomic::Ordering::Acquire);
        // An error answer of the provider is not billed by any that we know.
        let failed = self.provider_status.is_some_and(|status| status >= 400);
        if !sent || failed {
            return (Usage::default(), NanoUsd::ZERO);
        }
        let usage = self.usage.unwrap_or_else(|| Usage {
            prompt_tokens: estimate_tokens(self.prompt_bytes),
            completion_tokens: estimate_tokens(self.answer_bytes),
            estimated: true,
        });
        (usage, self.price.cost(usage))
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        let (usage, cost) = self.bill();
        if let Some(hold) = self.hold.take() {
            hold.settle(usage.prompt_tokens.saturating_add(usage.completion_tokens));
        }
        let elapsed = self.services.clock.running().0.saturating_sub(self.started.0);
        let outcome = match self.outcome {
            "client_closed" if self.services.halt.is_cancelled() => "shutdown",
            outcome => outcome,
        };
        self.services.metrics.count_outcome(outcome);
        let content = CompletionContent {
            admission: self.open.reference(),
            bytes_released: self.bytes_released,
            cost_nano: cost,
            coverage: self.coverage,
            detections: &self.detections,
            duration_us: elapsed / 1_000,
            outcome,
            provider_request: self.provider_request.as_deref(),
            provider_status: self.provider_status,
            reason: self.reason.as_deref(),
            // A hold is all that was promised; what a provider reports beyond it stands in `cost_nano`.
            settled_nano: cost.min(self.open.reserved()),
            step_errors: &self.step_errors,
            usage: UsageRecord {
                completion_tokens: usage.completion_tokens,
                estimated: usage.estimated,
                prompt_tokens: usage.prompt_tokens,
            },
        };
        self.open.end(&content);
    }
}

/// What the answer's steps need of the decision, once the exchange itself is done with.
pub(super) struct Rules {
    pub(super) exchange: Exchange,
    pub(super) judgement: Judgement,
}
