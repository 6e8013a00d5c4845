//! What a decision puts on record.
//!
//! Owns filling the content of admissions and refusals from an exchange and its judgement. Never a prompt, never a key.

use super::{
    Services,
    exchange::{Exchange, Judgement},
    refusal::Refusal,
};
use crate::{
    admission::{AdmissionContent, CredentialStatus, PolicyRecord, RefusalContent},
    domain::{ids::CredentialId, money::NanoUsd},
    policy::DEFAULT_RULE,
};

/// Content of an admission that reserves so much.
pub(super) fn admission_content<'a>(
    services: &'a Services,
    exchange: &'a Exchange,
    judgement: &'a Judgement,
    reserved_nano: NanoUsd,
) -> AdmissionContent<'a> {
    let (provider, _) = services.providers.of(&exchange.request.model);
    let credential = judgement.snapshot.config.credential(provider.name()).map(|stored| &stored.credential_id);
    let status = credential.map(|id| services.admission.checks.status(&judgement.snapshot.org, id));
    AdmissionContent {
        agent: exchange.caller.agent.as_str(),
        body_bytes: exchange.request.body.len() as u64,
        body_digest: exchange.body_digest,
        classification: judgement.classification,
        coverage: exchange.coverage(),
        credential: credential.map(CredentialId::as_str),
        credential_unverified: status == Some(CredentialStatus::Unverified),
        detections: &judgement.detections,
        flags_ignored: &judgement.flags.ignored,
        key: exchange.caller.key.as_str(),
        missing: &judgement.view.plan.missing,
        mode: mode_word(judgement),
        model: &exchange.request.model,
        policy: policy_record(judgement),
        project: exchange.caller.project.as_str(),
        provider: provider.name(),
        request: &exchange.names.request,
        reserved_nano,
        session: &exchange.names.session,
        stream: exchange.request.stream,
        task: &exchange.names.task,
    }
}

/// Content of a refusal.
pub(super) fn refusal_content<'a>(
    exchange: &'a Exchange,
    judgement: &'a Judgement,
    refusal: &'a Refusal,
) -> RefusalContent<'a> {
    let mut policy = policy_record(judgement);
    if let Some(rule) = &refusal.rule {
        policy = PolicyRecord { outcome: "block", rule };
    }
    RefusalContent {
        agent: exchange.caller.agent.as_str(),
        blocked_by: &refusal.blocked_by,
        body_bytes: exchange.request.body.len() as u64,
        body_digest: exchange.body_digest,
        classification: judgement.classification,
        coverage: exchange.coverage(),
        detections: &judgement.detections,
        flags_ignored: &judgement.flags.ignored,
        key: exchange.caller.key.as_str(),
        missing: &judgement.view.plan.missing,
        model: &exchange.request.model,
        policy,
        project: exchange.caller.project.as_str(),
        reason: &refusal.reason,
        request: &exchange.names.request,
        session: &exchange.names.session,
        status: refusal.status(),
        task: &exchange.names.task,
    }
}

fn policy_record(judgement: &Judgement) -> PolicyRecord<'_> {
    match &judgement.decision {
        Some(decision) if decision.is_block() => PolicyRecord { outcome: "block", rule: &decision.rule },
        Some(decision) => PolicyRecord { outcome: "allow", rule: &decision.rule },
        None => PolicyRecord { outcome: "allow", rule: DEFAULT_RULE },
    }
}

fn mode_word(judgement: &Judgement) -> &'static str {
    use crate::domain::plan::flags::Mode;
    match judgement.flags.effective.mode {
        Mode::Observe => "observe",
        Mode::Warn => "warn",
        Mode::Enforce => "enforce",
        Mode::Lockdown => "lockdown",
    }
}
