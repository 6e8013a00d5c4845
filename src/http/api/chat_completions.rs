//! `POST /v1/chat/completions`.
//!
//! Owns the first and the last look at the bytes: the request is read here, and what becomes of it is rendered here, in
//! OpenAI's shapes with the fields that the published client reads.

use axum::{
    Extension,
    body::Body,
    extract::State as Ask,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

use crate::{
    auth::Principal,
    domain::plan::flags::Flags,
    http::{
        error::ApiError,
        extract::read_body,
        middleware::{Identified, RequestId},
        state::State,
    },
    pipeline::{AnswerHead, Caller, Exchange, GovernedStream, Names, Outcome, RefusalKind, Refused, WholeAnswer},
    providers::openai::{ChatRequest, InvalidRequest},
};

/// Answers a chat request.
pub(in crate::http) async fn create(
    Ask(state): Ask<State>,
    Extension(who): Extension<Identified>,
    Extension(RequestId(request_id)): Extension<RequestId>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let started = state.clock.running();
    let (caller, snapshot) = caller(&who)?;
    let flags = flags(&headers)?;
    let names = names(&state, request_id, &headers)?;
    let read = read_body(&state, &headers, body).await?;
    let (bytes, counted) = (read.bytes, read.counted);
    let large = bytes.len() > state.config.pipeline.offload_bytes;
    let begin = || {
        let request = ChatRequest::read(bytes)?;
        Ok(Exchange::new(caller, names, flags, request, started, Box::new(counted)))
    };
    let made = if large { tokio::task::block_in_place(begin) } else { begin() };
    let exchange = made.map_err(|error: InvalidRequest| {
        state.admission.aggregates.count_unowned("invalid_request");
        ApiError::invalid(error.message).with_param(error.param)
    })?;
    let outcome = state.pipeline.handle(exchange, snapshot).await;
    Ok(render(&state, outcome))
}

type Found = (Caller, std::sync::Arc<crate::admission::Snapshot>);

/// The agent that calls, with what the door knows of it.
fn caller(who: &Identified) -> Result<Found, ApiError> {
    let (Principal::Agent { org, agent, key }, Some(snapshot)) = (&who.principal, &who.snapshot) else {
        return Err(ApiError::forbidden("only an agent's key may call models"));
    };
    let found = snapshot.config.agents.get(agent).ok_or_else(ApiError::unauthenticated)?;
    let caller = Caller {
        org: org.clone(),
        agent: agent.clone(),
        project: found.project_id.clone(),
        key: key.clone(),
        key_hash: who.key_hash,
    };
    Ok((caller, std::sync::Arc::clone(snapshot)))
}

fn flags(headers: &HeaderMap) -> Result<Flags, ApiError> {
    let given = ["x-tappass-flags", "x-governance-flags"].into_iter().find_map(|name| headers.get(name));
    let Some(given) = given else { return Ok(Flags::default()) };
    let text = given.to_str().map_err(|_| ApiError::invalid("`X-TapPass-Flags` must be printable ASCII"))?;
    Flags::parse(text).map_err(|error| {
        ApiError::invalid(error.to_string()).with_code("invalid_flag").with_param(Some("X-TapPass-Flags".to_owned()))
    })
}

/// The session is the caller's to name; everything else is ours.
fn names(state: &State, request: String, headers: &HeaderMap) -> Result<Names, ApiError> {
    let given = ["x-tappass-session", "x-session-id"].into_iter().find_map(|name| headers.get(name));
    let session = match given {
        None => state.names.next("ses"),
        Some(value) => {
            let text = value.to_str().unwrap_or_default();
            let fits = (1..=128).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
            if !fits {
                let words = "`X-Session-Id` must have 1 to 128 printable ASCII characters without spaces";
                return Err(ApiError::invalid(words));
            }
            text.to_owned()
        }
    };
    Ok(Names { request, session, named: given.is_some(), task: state.names.next("task") })
}

fn render(state: &State, outcome: Outcome) -> Response {
    match outcome {
        Outcome::Whole(answer) => whole(answer),
        Outcome::Stream(stream, head) => streamed(*stream, &head),
        Outcome::Refused(refused, head) => refusal(state, &refused, &head),
        Outcome::Failed(failure, head) => {
            let mut response = ApiError::from(failure).into_response();
            quota_headers(response.headers_mut(), &head);
            response
        }
        Outcome::Unauthorized => {
            state.metrics.unauthenticated.inc();
            ApiError::unauthenticated().into_response()
        }
    }
}

const JSON: HeaderValue = HeaderValue::from_static("application/json");

fn whole(answer: WholeAnswer) -> Response {
    let mut response = Response::new(Body::from(answer.body));
    *response.status_mut() = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::BAD_GATEWAY);
    response.headers_mut().insert(header::CONTENT_TYPE, JSON);
    quota_headers(response.headers_mut(), &answer.head);
    if response.status() == StatusCode::TOO_MANY_REQUESTS || answer.status == 529 {
        response.headers_mut().insert("x-tappass-limit-source", HeaderValue::from_static("provider"));
    }
    response
}

fn streamed(stream: GovernedStream, head: &AnswerHead) -> Response {
    let mut response = Response::new(Body::new(stream));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    quota_headers(headers, head);
    response
}

/// The merged body that the SDK, OpenAI clients and plain HTTP all read.
fn refusal(state: &State, refused: &Refused, head: &AnswerHead) -> Response {
    let refusal = &refused.refusal;
    let body = match refusal.kind {
        RefusalKind::Policy => merged(refused, head),
        RefusalKind::Invalid => error_only(&refusal.reason, "invalid_request_error", &refusal.blocked_by),
        RefusalKind::RateLimited { .. } => error_only(&refusal.reason, "rate_limit_error", "rate_limit_exceeded"),
    };
    tracing::debug!(request.blocked_by = &*refusal.blocked_by, public_url = state.public_url, "refused");
    let mut response = Response::new(Body::from(body.to_string()));
    *response.status_mut() = StatusCode::from_u16(refusal.status()).unwrap_or(StatusCode::FORBIDDEN);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, JSON);
    quota_headers(headers, head);
    if let RefusalKind::RateLimited { retry_after } = refusal.kind {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(retry_after.div_ceil(1_000_000_000)));
        headers.insert("x-tappass-limit-source", HeaderValue::from_static("tappass"));
    }
    response
}

fn merged(refused: &Refused, head: &AnswerHead) -> Value {
    let refusal = &refused.refusal;
    let message = format!("blocked by {}: {}", refusal.blocked_by, refusal.reason);
    let links = &head.links;
    json!({
        "decision": "policy_block",
        "blocked_by": refusal.blocked_by,
        "reason": refusal.reason,
        "message": message,
        "classification": refused.classification.as_str(),
        "details": refusal.details,
        "session_id": links.session_id,
        "task_id": links.task_id,
        "agent_uuid": links.agent_uuid,
        "pipeline_uuid": links.pipeline_uuid,
        "audit_url": links.audit_url,
        "error": { "message": message, "type": "policy_block", "code": "policy_block", "param": null },
    })
}

fn error_only(message: &str, kind: &str, code: &str) -> Value {
    json!({
        "error": { "message": message, "type": kind, "code": code, "param": null },
        "message": message,
        "code": code,
    })
}

/// The provider's limits under its names if it told them, else our own under the same names; a header says whose.
fn quota_headers(headers: &mut HeaderMap, head: &AnswerHead) {
    for (name, value) in &head.headers {
        headers.insert(name, value.clone());
    }
    let providers = headers.keys().any(|name| name.as_str().starts_with("x-ratelimit-"));
    if providers {
        headers.insert("x-tappass-limit-source", HeaderValue::from_static("provider"));
        return;
    }
    for (quota, [limit, remaining, reset]) in [(head.quota, CALLS), (head.tokens, TOKENS)] {
        let Some(quota) = quota else { continue };
        headers.insert(limit, HeaderValue::from(quota.limit));
        headers.insert(remaining, HeaderValue::from(quota.remaining));
        let seconds = format!("{}s", quota.reset.div_ceil(1_000_000_000));
        if let Ok(value) = HeaderValue::from_str(&seconds) {
            headers.insert(reset, value);
        }
        headers.insert("x-tappass-limit-source", HeaderValue::from_static("tappass"));
    }
}

const CALLS: [&str; 3] = ["x-ratelimit-limit-requests", "x-ratelimit-remaining-requests", "x-ratelimit-reset-requests"];
const TOKENS: [&str; 3] = ["x-ratelimit-limit-tokens", "x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"];
