//! Health: alive, ready, started.
//!
//! Owns the difference: `/health` and `/health/live` answer as long as the event loop turns and ask nobody; `/health/ready`
//! says whether new requests should come here, and why not.

use axum::{
    extract::State as Ask,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

use crate::{
    config::VERSION,
    http::{extract::Json, state::State},
};

/// The version handshake of the published client: always 200, with or without a key, right or wrong.
pub(in crate::http) async fn health(Ask(state): Ask<State>) -> Json<Value> {
    let up = state.clock.running().0.saturating_sub(state.started.0) / 1_000_000_000;
    let agents = state.admission.snapshots.current(&state.default_org).map_or(0, |s| s.config.agents.len());
    let mut reasons = Vec::new();
    if !state.admission.is_writable() {
        reasons.push("the record cannot be written");
    }
    if state.pipeline.services().limits.is_degraded() {
        reasons.push("Redis is away: limits and sessions are kept per instance");
    }
    if state.metrics.audit_findings.get() > 0 {
        reasons
            .push("self-verification found something wrong in the record: see the log, and run `tappass audit verify`");
    }
    let status = if reasons.is_empty() { "ok" } else { "degraded" };
    Json(json!({
        "status": status, "version": VERSION, "storage": state.storage, "agents": agents, "uptime_seconds": up,
        "reasons": reasons,
    }))
}

/// The event loop turns.
pub(in crate::http) async fn live() -> Json<Value> {
    Json(json!({ "status": "ok" }))
}

/// Whether new requests should come here, with the reasons if not.
pub(in crate::http) async fn ready(Ask(state): Ask<State>) -> Response {
    let mut reasons = state.readiness.reasons();
    if !state.admission.lease.is_live() {
        reasons.push("this instance has no lease: the database is out of reach".to_owned());
    } else if !state.admission.is_writable() {
        reasons.push("the record cannot be written".to_owned());
    } else if state.admission.lease.is_missed() {
        // Nobody may have called since the database went away.
        reasons.push("the database did not answer the last heartbeat".to_owned());
    }
    if reasons.is_empty() {
        let first = state.admission.snapshots.get(&state.default_org);
        match first.await {
            Ok(Some(_)) => {}
            Ok(None) => reasons.push("there is no organization".to_owned()),
            Err(error) if state.admission.snapshots.any_loaded() => {
                tracing::warn!(error = &error as &dyn std::error::Error, "the first organization cannot be served");
            }
            Err(error) => reasons.push(error.to_string()),
        }
    }
    let ready = reasons.is_empty();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = json!({ "status": if ready { "ready" } else { "not_ready" }, "reasons": reasons });
    (status, Json(body)).into_response()
}
