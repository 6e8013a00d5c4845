//! The answer's texts through the same detectors, and its tool calls through the same rules.
//!
//! Owns what `scan_output` and `tool_permissions` do to an answer that is there as a whole. Never releases anything itself.

use std::{borrow::Cow, sync::Arc, time::Instant};

use bytes::Bytes;

use crate::{
    admission::{CoverageRecord, DetectionRecord},
    detect::{Families, Work, redact},
    domain::{
        detection::{Action, Detection, Finding},
        json::{Limits, Tape, Value},
        plan::flags::{PiiAnswer, SecretsAnswer},
        steps,
    },
    pipeline::{
        Services,
        before::tools,
        call_placeholder,
        exchange::MOST_DETECTIONS,
        live::{Live, Rules},
        refusal::Refusal,
        runner::signals,
        step::StepReport,
    },
    providers::openai::ToolCall,
};

/// What the scan of an answer leads to.
#[derive(Debug, Default)]
pub(in crate::pipeline) struct Found {
    /// The answer may not be given.
    pub(in crate::pipeline) refusal: Option<Refusal>,
    /// Texts that are given differently, by their key.
    pub(in crate::pipeline) replaced: Vec<(usize, String)>,
}

/// `scan_output` over texts, each with a key of the caller's own; `place` turns a key into a place for the record.
pub(in crate::pipeline) fn scan(
    services: &Services,
    rules: &mut Rules,
    live: &mut Live,
    texts: &[(usize, Cow<'_, str>)],
    place: impl Fn(usize) -> String,
) -> Found {
    let view = Arc::clone(&rules.judgement.view);
    let Some(step) = view.plan.step("scan_output") else { return Found::default() };
    let began = Instant::now();
    let mut work = Work::new(services.settings.scan_budget);
    let mut coverage = live.coverage.unwrap_or_default();
    let mut result = Found::default();
    let mut strongest: Option<Action> = None;
    let mut categories: Vec<&'static str> = Vec::new();
    for (key, text) in texts {
        let mut findings: Vec<Finding> = Vec::new();
        let seen = services.scanner.scan(text, ANSWER, &mut work, &mut findings);
        coverage = add(coverage, seen);
        let mut redacted = Vec::new();
        for finding in findings {
            if rules.judgement.flags.effective.answer_action(step, finding.family).is_none() {
                continue;
            }
            let action = rules.judgement.action(step, &finding, true);
            strongest = strongest.max(Some(action));
            if !categories.contains(&finding.category) {
                categories.push(finding.category);
            }
            if live.detections.len() < MOST_DETECTIONS {
                live.detections.push(record(&finding, place(*key), action));
            }
            if action == Action::Redact {
                redacted.push(finding);
            }
        }
        if !redacted.is_empty() {
            let text = redact(text, &redacted, |finding| Cow::Owned(call_placeholder(finding.category)));
            result.replaced.push((*key, text));
        }
    }
    live.coverage = Some(coverage);
    let message = format!("found {} in the answer", categories.join(", "));
    if strongest == Some(Action::Block) {
        result.refusal = Some(Refusal::by_step("scan_output", message.clone()));
    }
    let took = began.elapsed();
    services.metrics.observe_step(step.spec, took);
    rules.judgement.reports.push(StepReport::new("scan_output", strongest.map(|action| (action, message)), took));
    result
}

/// An answer is not an attack on the model that wrote it; everything else is looked for.
const ANSWER: Families = Families::NONE
    .with(crate::domain::detection::Family::PersonalData)
    .with(crate::domain::detection::Family::Secrets)
    .with(crate::domain::detection::Family::Unicode);

fn add(sum: CoverageRecord, more: crate::detect::Coverage) -> CoverageRecord {
    CoverageRecord { seen: sum.seen + more.seen as u64, uncovered: sum.uncovered + more.unseen as u64 }
}

fn record(finding: &Finding, place: String, action: Action) -> DetectionRecord {
    let detection = Detection {
        category: finding.category,
        severity: finding.severity,
        label: finding.label,
        score: finding.score,
        step: "scan_output",
        place: place.into(),
        offset: finding.start,
        length: finding.end.saturating_sub(finding.start),
        replacement: None,
    };
    DetectionRecord::new(&detection, action.as_str())
}

/// `tool_permissions`: whether some call in the answer may not be made.
pub(in crate::pipeline) fn refused_tool(services: &Services, rules: &mut Rules, calls: &[ToolCall]) -> Option<Refusal> {
    if !judges_tools(rules) {
        return None;
    }
    let spec = steps::get("tool_permissions")?;
    let began = Instant::now();
    let mut refusal = None;
    let signals = signals(services, &rules.exchange, &rules.judgement);
    for call in calls {
        let arguments = arguments(&call.arguments);
        if let Some((rule, reason)) = tools::refused(&rules.judgement, &call.name, Some(&arguments), &signals) {
            let words = format!("blocked_tool:{}: {reason}", call.name);
            refusal = Some(Refusal { rule: Some(rule), ..Refusal::by_step("tool_permissions", words) });
            break;
        }
    }
    let took = began.elapsed();
    services.metrics.observe_step(spec, took);
    let found = refusal.as_ref().map(|refusal| (Action::Block, refusal.reason.clone()));
    rules.judgement.reports.push(StepReport::new("tool_permissions", found, took));
    refusal
}

/// Whether tool calls in the answer are judged: by the plan, or because the caller forbade itself some.
pub(in crate::pipeline) fn judges_tools(rules: &Rules) -> bool {
    let judgement = &rules.judgement;
    judgement.view.plan.step("tool_permissions").is_some() || judgement.flags.effective.tools.is_some()
}

/// The arguments as rules see them. What does not parse has no shape to be judged, which rules on arguments refuse.
fn arguments(text: &str) -> serde_json::Value {
    match serde_json::from_str(text) {
        Ok(arguments) => arguments,
        Err(_) if text.trim().is_empty() => serde_json::Value::Null,
        Err(_) => serde_json::Value::String(text.to_owned()),
    }
}

/// `cost_tracking`: what the call used, among the steps that the caller sees. It fails open, and cannot fail.
pub(in crate::pipeline) fn track_cost(services: &Services, rules: &mut Rules, live: &Live) {
    let view = Arc::clone(&rules.judgement.view);
    let Some(step) = view.plan.step("cost_tracking") else { return };
    let began = Instant::now();
    let (usage, cost) = live.bill();
    let message = format!("{} + {} tokens, {cost}", usage.prompt_tokens, usage.completion_tokens);
    let took = began.elapsed();
    services.metrics.observe_step(step.spec, took);
    let mut report = StepReport::new("cost_tracking", None, took);
    report.message = message;
    rules.judgement.reports.push(report);
}

/// Whether this call's answer has to be held as a whole before it may be released.
pub(in crate::pipeline) fn must_hold(rules: &Rules) -> bool {
    let judgement = &rules.judgement;
    let effective = &judgement.flags.effective;
    if effective.holds_stream(&judgement.view.plan) {
        return true;
    }
    // Rules about some findings only are not part of the plan's actions.
    let by_rule = judgement.view.policy.switches().iter();
    let mut by_rule = by_rule.filter(|switch| switch.step == "scan_output" && switch.action >= Action::Redact);
    let enforced = effective.mode >= crate::domain::plan::flags::Mode::Enforce;
    let by_flag = effective.pii.is_some_and(|pii| pii >= PiiAnswer::Mask)
        || effective.secrets.is_some_and(|secrets| secrets >= SecretsAnswer::Redact);
    enforced && (by_rule.next().is_some() || by_flag)
}

/// A provider's error body in which every secret is replaced; what is not JSON becomes a sentence of ours.
pub(in crate::pipeline) fn clean_error(services: &Services, body: &[u8]) -> Bytes {
    const OURS: &[u8] =
        br#"{"error":{"message":"the provider answered with an error","type":"provider_error","code":"provider_error","param":null}}"#;
    let Ok(tape) = Tape::parse(body, &Limits::default()) else { return Bytes::from_static(OURS) };
    let mut edits = crate::domain::json::Edits::default();
    let secrets = Families::NONE.with(crate::domain::detection::Family::Secrets);
    for value in tape.root(body).strings() {
        let Some(text) = value.as_str() else { continue };
        let mut findings = Vec::new();
        services.scanner.scan(&text, secrets, &mut Work::new(services.settings.scan_budget), &mut findings);
        if !findings.is_empty() {
            let clean = redact(&text, &findings, |_| Cow::Borrowed("[REDACTED]"));
            let mut quoted = Vec::new();
            crate::domain::json::escape_into(&mut quoted, &clean);
            edits.replace(value.span(), quoted);
        }
    }
    if tape.root(body).get("error").and_then(|error| error.get("message")).and_then(Value::as_str).is_none() {
        return Bytes::from_static(OURS);
    }
    if edits.is_empty() { Bytes::copy_from_slice(body) } else { Bytes::from(edits.apply(body)) }
}
