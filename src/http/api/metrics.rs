//! `GET /metrics`: numbers for Prometheus. Not public.

use axum::{
    extract::State as Ask,
    http::header,
    response::{IntoResponse, Response},
};

use crate::http::state::State;

/// The text that Prometheus reads.
pub(in crate::http) async fn metrics(Ask(state): Ask<State>) -> Response {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], state.metrics.render()).into_response()
}
