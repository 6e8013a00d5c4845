//! The `tappass` object of an answer, and what the caller is told beside it.
//!
//! Owns its fields, which published clients read. Never holds a null where they expect an object or a list.

use serde::Serialize;

use crate::pipeline::{
    Links,
    budget::Limits,
    live::{Live, Rules},
    step::StepReport,
};

#[derive(Serialize)]
struct Object<'a> {
    session_id: &'a str,
    task_id: &'a str,
    agent_uuid: &'a str,
    pipeline_uuid: &'a str,
    audit_url: &'a str,
    pipeline_id: &'a str,
    blocked: bool,
    blocked_by: &'a str,
    classification: &'a str,
    steps_run: usize,
    total_duration_ms: f64,
    steps: &'a [StepReport],
    shadow_mode: bool,
    degraded: bool,
    degraded_reason: &'a str,
    model: &'a str,
    total_tokens: u64,
    estimated_cost_usd: f64,
    missing_steps: &'a [&'static str],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    notes: Vec<String>,
}

/// The object as JSON.
pub(super) fn answer_object(rules: &Rules, live: &Live, links: &Links) -> Vec<u8> {
    let judgement = &rules.judgement;
    let (usage, cost) = live.bill();
    let total: f64 = judgement.reports.iter().map(|report| report.duration_ms).sum();
    let object = Object {
        session_id: &links.session_id,
        task_id: &links.task_id,
        agent_uuid: &links.agent_uuid,
        pipeline_uuid: &links.pipeline_uuid,
        audit_url: &links.audit_url,
        pipeline_id: &links.pipeline_uuid,
        blocked: false,
        blocked_by: "",
        classification: judgement.classification.as_str(),
        steps_run: judgement.reports.len(),
        total_duration_ms: (total * 1e3).round() / 1e3,
        steps: &judgement.reports,
        shadow_mode: judgement.flags.effective.mode < crate::domain::plan::flags::Mode::Enforce,
        degraded: false,
        degraded_reason: "",
        model: &rules.exchange.request.model,
        total_tokens: usage.prompt_tokens + usage.completion_tokens,
        estimated_cost_usd: cost.dollars(),
        missing_steps: &judgement.view.plan.missing,
        notes: told(rules),
    };
    let mut out = Vec::with_capacity(2_048);
    // It holds nothing that cannot be written; an empty object is still one that clients can read.
    if serde_json::to_writer(&mut out, &object).is_err() {
        out = b"{}".to_vec();
    }
    out
}

/// What the caller has to be told: flags that were locked, rules in shadow, bounds that we set.
fn told(rules: &Rules) -> Vec<String> {
    let judgement = &rules.judgement;
    let mut notes = Vec::new();
    for flag in &judgement.flags.ignored {
        notes.push(format!(
            "the flag `{flag}` was ignored: it is locked for this agent, or this build does not act on it"
        ));
    }
    if let Some(decision) = &judgement.decision {
        for shadow in decision.shadow.iter() {
            notes.push(format!("rule `{}` in shadow mode: {}", shadow.rule, shadow.reason));
        }
    }
    if Limits::of(judgement).are_any() && rules.exchange.request.max_tokens.is_none() {
        notes.push("a budget applies, so the answer was bounded".to_owned());
    }
    notes
}
