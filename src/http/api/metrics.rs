//! `GET /metrics`: numbers for Prometheus. Not public.

use axum::{
    Extension,
    extract::State as Ask,
    http::header,
    response::{IntoResponse, Response},
};

use super::authorize;
use crate::http::{error::ApiError, middleware::Identified, state::State};

/// The text that Prometheus reads.
pub(in crate::http) async fn metrics(
    Ask(state): Ask<State>,
    Extension(who): Extension<Identified>,
) -> Result<Response, ApiError> {
    authorize(&state, &who, "metrics.read")?;
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, kind)], state.metrics.render()).into_response())
}
