//! `detect_pii`, `detect_secrets`, `detect_unicode`, `detect_injection`, `classify_data`: each reads its own findings.
//!
//! Owns which family belongs to which step, and thresholds. Never scans again: the first of them scans for all. Never
//! decides: it reports how strong the strongest action is, and the runner refuses.

use crate::{
    detect::classify,
    domain::{
        detection::{Action, Family, Finding},
        plan::PlannedStep,
    },
    pipeline::{
        Services,
        exchange::{Exchange, Judgement},
        scan::scan_prompt,
        step::{StepError, Verdict},
    },
};

/// Any of the four detectors of one family.
#[expect(clippy::unnecessary_wraps, reason = "every step has the shape that the page of steps binds")]
pub(in crate::pipeline) fn detect(
    services: &Services,
    step: &PlannedStep,
    exchange: &mut Exchange,
    judgement: &mut Judgement,
) -> Result<Verdict, StepError> {
    let family = match step.spec.id {
        "detect_pii" => Family::PersonalData,
        "detect_secrets" => Family::Secrets,
        "detect_unicode" => Family::Unicode,
        _ => Family::Injection,
    };
    scan_once(services, exchange);
    let Some(scan) = &exchange.scan else { return Ok(Verdict::Pass) };
    let mut found: Vec<&'static str> = Vec::new();
    for text in &scan.texts {
        let own = text.findings.iter().filter(|finding| finding.family == family && counts(step, finding));
        let own: Vec<&Finding> = own.collect();
        if own.is_empty() {
            continue;
        }
        let value = exchange.request.value(text.value);
        let mut redacted = Vec::new();
        for finding in own {
            let action = match judgement.action(step, finding, false) {
                // A key cannot be replaced without changing what the request means.
                Action::Redact if text.is_key => Action::Block,
                action @ (Action::Log | Action::Notify | Action::Redact | Action::Block) => action,
            };
            let place = || value.map_or_else(String::new, crate::domain::json::Value::path);
            judgement.record(step, text, place, finding, action);
            if action == Action::Redact {
                redacted.push(finding.clone());
            }
            if !found.contains(&finding.category) {
                found.push(finding.category);
            }
            judgement.raise(action);
        }
        if !redacted.is_empty() {
            judgement.redactions.push((text.value, redacted));
        }
    }
    if found.is_empty() { Ok(Verdict::Pass) } else { Ok(Verdict::Detected(format!("found {}", found.join(", ")))) }
}

/// `classify_data`.
#[expect(clippy::unnecessary_wraps, reason = "every step has the shape that the page of steps binds")]
pub(in crate::pipeline) fn classify_data(
    services: &Services,
    _: &PlannedStep,
    exchange: &mut Exchange,
    judgement: &mut Judgement,
) -> Result<Verdict, StepError> {
    scan_once(services, exchange);
    classified(exchange, judgement);
    Ok(Verdict::Pass)
}

/// Classifies what was scanned, if it was.
pub(in crate::pipeline) fn classified(exchange: &Exchange, judgement: &mut Judgement) {
    let Some(scan) = &exchange.scan else { return };
    let findings: Vec<Finding> = scan.texts.iter().flat_map(|text| text.findings.iter().cloned()).collect();
    judgement.classification = classify(&findings);
}

fn scan_once(services: &Services, exchange: &mut Exchange) {
    if exchange.scan.is_none() {
        exchange.scan = Some(scan_prompt(services, &exchange.request));
    }
}

/// Whether a finding is certain enough for the step, and of a kind that it looks for.
fn counts(step: &PlannedStep, finding: &Finding) -> bool {
    let wanted = step.options.strings("entities").filter(|list| !list.is_empty()).is_none_or(|list| {
        let kind = finding.category.split_once('.').map_or(finding.category, |(_, kind)| kind);
        list.iter().any(|entity| entity == kind || entity == finding.category)
    });
    wanted && finding.score >= step.threshold.unwrap_or(0)
}
