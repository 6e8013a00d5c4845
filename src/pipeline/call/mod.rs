//! `call_llm` and `call_tool`: from the permit to the answer.
//!
//! Owns the provider's key for the call, the right to start, the one retry that costs nothing, what becomes of the
//! provider's status, and that a call which may not go on is cut wherever it waits. Nothing is sent before the permit is checked in the poll that writes the first byte. `call_tool`
//! runs server-side tools where tool servers are configured; this build configures none, so it has none to run.

mod upstream;

pub(super) use upstream::placeholder;

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use super::{
    AnswerHead, Outcome, Services, WholeAnswer, after,
    exchange::{Exchange, Judgement},
    live::{Live, Rules},
    outcome::head,
    refusal::Failure,
    step::StepReport,
    streaming::{Early, GovernedStream},
    watch::{Cut, Watch},
};
use crate::{
    admission::{CredentialError, CredentialStatus, OpenAdmission, Permit},
    detect::{Families, Work},
    domain::detection::Family,
    providers::{Call, Limit, MayStart, Provider, ProviderError, UpstreamReply},
    vault::SecretText,
};

/// Calls the provider and answers.
pub(super) async fn call(
    services: &Arc<Services>,
    mut exchange: Exchange,
    judgement: Judgement,
    open: OpenAdmission,
    permit: Permit,
) -> Outcome {
    let mut live = Live::new(services, &mut exchange, open);
    let mut head = head(services, &exchange, Some(&live.id()));
    let began = Instant::now();
    let mut watch = Watch::over(services, &exchange.caller, &permit);
    let sent = watch.unless_cut(send(services, &exchange, &judgement, &permit, &mut live)).await;
    let sent = sent.unwrap_or_else(|cut| Err(cut_short(cut, &mut live)));
    let mut rules = Rules { exchange, judgement };
    let took = began.elapsed();
    for step in ["call_llm", "call_tool"].into_iter().filter_map(|id| rules.judgement.view.plan.step(id)) {
        let took = if step.spec.id == "call_llm" { took } else { Duration::ZERO };
        services.metrics.observe_step(step.spec, took);
        rules.judgement.reports.push(StepReport::new(step.spec.id, None, took));
    }
    let reply = match sent {
        Ok(reply) => reply,
        Err(failure) => return Outcome::Failed(failure, head),
    };
    live.provider_status = Some(reply.status.as_u16());
    head.headers = reply
        .headers
        .iter()
        .filter(|(_, value)| is_clean(services, value))
        .map(|(n, v)| (n.clone(), v.clone()))
        .collect();
    let id = head.headers.get("x-provider-request-id").and_then(|id| id.to_str().ok());
    live.provider_request = id.map(|id| id.chars().take(200).collect());
    if !reply.status.is_success() {
        return refused_by_provider(services, reply, live, watch, head).await;
    }
    match (rules.exchange.request.stream, reply.is_event_stream) {
        (true, true) => stream(services, reply, live, rules, watch, head).await,
        (false, false) => whole(services, reply, live, rules, watch, head).await,
        (asked, _) => {
            live.fails("provider_error", "the answer is not of the kind that was asked for");
            let words = if asked { "no event stream" } else { "an event stream that nobody asked for" };
            let failure = Failure::new(502, "provider_malformed", format!("the provider sent {words}"));
            Outcome::Failed(failure, head)
        }
    }
}

/// The call may not go on: what was waited for has been dropped, and the completion says why.
fn cut_short(cut: Cut, live: &mut Live) -> Failure {
    live.fails(cut.outcome, cut.failure.code);
    cut.failure
}

/// Whether a header of the provider may be shown: it holds nothing that looks like a secret.
fn is_clean(services: &Services, value: &http::HeaderValue) -> bool {
    let Ok(text) = value.to_str() else { return false };
    let secrets = Families::NONE.with(Family::Secrets);
    let mut found = Vec::new();
    services.scanner.scan(text, secrets, &mut Work::new(64 * 1024), &mut found);
    found.is_empty()
}

/// Sends the call; a connection that never came about is tried once more, since nothing can have been billed.
async fn send(
    services: &Arc<Services>,
    exchange: &Exchange,
    judgement: &Judgement,
    permit: &Permit,
    live: &mut Live,
) -> Result<UpstreamReply, Failure> {
    let (provider, model) = services.providers.of(&exchange.request.model);
    let retries = judgement.view.plan.step("call_llm").and_then(|step| step.options.integer("retries")).unwrap_or(1);
    let body = upstream::body(services, exchange, judgement, model);
    let mut attempt = 0;
    loop {
        let key = match provider_key(services, judgement, provider.as_ref()).await {
            Ok(key) => key,
            Err(failure) => {
                live.fails("not_called", failure.message.clone());
                return Err(failure);
            }
        };
        let sent = Arc::clone(&live.sent);
        let permit = permit.clone();
        let may_start: MayStart = Arc::new(move || {
            let may = permit.check().is_ok();
            sent.fetch_or(may, Ordering::AcqRel);
            may
        });
        let error = match provider.chat(Call { body: body.clone(), key, may_start }).await {
            Ok(reply) => return Ok(reply),
            Err(error) => error,
        };
        tracing::warn!(provider.name = provider.name(), error = &error as &dyn std::error::Error, "a call failed");
        let unsent = error.is_surely_unsent();
        if unsent {
            live.sent.store(false, Ordering::Release);
        }
        let again = unsent && attempt < retries && matches!(error, ProviderError::Connect(_));
        if !again {
            let outcome = if unsent { "not_called" } else { "provider_error" };
            live.fails(outcome, error.code());
            return Err(failure(&error));
        }
        attempt += 1;
    }
}

/// Opens the organization's key for this call.
async fn provider_key(
    services: &Services,
    judgement: &Judgement,
    provider: &dyn Provider,
) -> Result<Option<SecretText>, Failure> {
    let Some(credential) = judgement.snapshot.config.credential(provider.name()) else {
        if !provider.needs_key() {
            return Ok(None);
        }
        let words = format!(
            "no key is stored for the provider `{0}`; store one with POST /api/admin/llm-keys {{\"provider\":\"{0}\",…}}",
            provider.name()
        );
        return Err(Failure::new(424, "provider_key_missing", words));
    };
    let (org, checks) = (&judgement.snapshot.org, &services.admission.checks);
    checks.uses(org, &credential.credential_id);
    if checks.status(org, &credential.credential_id) == CredentialStatus::Invalid {
        let words = format!(
            "the provider `{0}` refuses the stored key; store a new one with POST /api/admin/llm-keys \
             {{\"provider\":\"{0}\",…}}",
            provider.name()
        );
        return Err(Failure::new(424, "provider_key_invalid", words));
    }
    let opened = services.admission.credentials.open(&judgement.snapshot.org, credential).await;
    opened.map(Some).map_err(|error| {
        tracing::error!(org.id = %judgement.snapshot.org, error = &error as &dyn std::error::Error, "a provider key does not open");
        match error {
            CredentialError::Kms(_) => Failure::unavailable("vault_unavailable", error.to_string()),
            CredentialError::Storage(_) => Failure::unavailable("database_unavailable", error.to_string()),
            CredentialError::Vault(_) | CredentialError::Inconsistent => {
                Failure::new(500, "credential_unusable", "the stored provider key does not open; store it again")
            }
        }
    })
}

/// A failure of the call, for the caller.
pub(super) fn failure(error: &ProviderError) -> Failure {
    let status = match error {
        ProviderError::NotStarted => {
            return Failure::unavailable(error.code(), "the call was not started in time; nothing was sent");
        }
        ProviderError::Timeout(Limit::Connect | Limit::FirstByte | Limit::Idle | Limit::Total) => 504,
        ProviderError::Connect(_)
        | ProviderError::Broken(_)
        | ProviderError::TooLarge(_)
        | ProviderError::Encoding
        | ProviderError::Key => 502,
    };
    Failure::new(status, error.code(), error.to_string())
}

/// Most bytes of a provider's error that are passed on.
const MOST_ERROR_BYTES: usize = 64 * 1024;

/// The provider answered with an error status.
async fn refused_by_provider(
    services: &Arc<Services>,
    reply: UpstreamReply,
    mut live: Live,
    mut watch: Watch,
    head: AnswerHead,
) -> Outcome {
    let status = reply.status.as_u16();
    live.fails("provider_error", format!("the provider answered {status}"));
    // What it says about our key is not for the caller, and its 401 is not ours.
    if matches!(status, 401 | 403 | 407) || status < 400 {
        let words = match status {
            401 | 403 | 407 => "the provider refused the stored key; check it with GET /api/admin/llm-keys",
            _ => "the provider answered with a redirect, which is not followed",
        };
        return Outcome::Failed(Failure::new(502, "provider_refused", words), head);
    }
    let body = match watch.unless_cut(reply.body.collect(MOST_ERROR_BYTES)).await {
        Ok(body) => body.unwrap_or_default(),
        Err(cut) => return Outcome::Failed(cut_short(cut, &mut live), head),
    };
    let body = after::clean_error(services, &body);
    live.bytes_released = body.len() as u64;
    Outcome::Whole(WholeAnswer { status, body, head })
}

/// A whole answer: read, scanned, completed.
async fn whole(
    services: &Arc<Services>,
    reply: UpstreamReply,
    mut live: Live,
    rules: Rules,
    mut watch: Watch,
    head: AnswerHead,
) -> Outcome {
    let body = match watch.unless_cut(reply.body.collect(services.settings.max_answer_bytes)).await {
        Ok(Ok(body)) => body,
        Err(cut) => return Outcome::Failed(cut_short(cut, &mut live), head),
        Ok(Err(error)) => {
            live.fails("provider_cut", error.code());
            return Outcome::Failed(failure(&error), head);
        }
    };
    let large = body.len() > services.settings.offload_bytes;
    let finish = || after::finish_whole(services, body, live, rules, head);
    if large { tokio::task::block_in_place(finish) } else { finish() }
}

/// A stream: nothing is answered before its first event, so that an error in it can still be an error.
async fn stream(
    services: &Arc<Services>,
    reply: UpstreamReply,
    live: Live,
    rules: Rules,
    watch: Watch,
    head: AnswerHead,
) -> Outcome {
    let mut stream = Box::new(GovernedStream::new(services, reply.body, live, rules, watch, &head.links));
    match stream.prime().await {
        Ok(()) => Outcome::Stream(stream, head),
        Err(Early::Failed(failure)) => Outcome::Failed(failure, head),
        Err(Early::Refused(refused)) => Outcome::Refused(refused, head),
    }
}
