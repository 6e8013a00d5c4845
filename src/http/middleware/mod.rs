//! The page of layers, outermost first.
//!
//! Owns their order. A request passes: request id, security headers, access log and metrics (`observe`) · panic and load
//! bound (`protect`) · per-address limit and principal (`identify`) · the route, which asks whether the caller may
//! (`authorize`) before its extractor reads, and bounds, the body.
//! Each is a function. A layer that refuses answers in the same error shape as a route.

mod authorize;
mod identify;
mod observe;
mod protect;

pub(super) use authorize::Guard;
use axum::{Router, middleware::from_fn_with_state};
pub(super) use identify::Identified;
pub(super) use observe::{Remote, RequestId, dress};

use super::{error::ApiError, state::State};

/// Wraps the routes; the last layer added is the outermost.
pub(super) fn wrap(routes: Router<State>, state: &State) -> Router<State> {
    routes
        .fallback(|| async { ApiError::not_found("this path") })
        .method_not_allowed_fallback(|| async { ApiError::method_not_allowed() })
        .layer(from_fn_with_state(state.clone(), identify::identify))
        .layer(from_fn_with_state(state.clone(), protect::protect))
        .layer(from_fn_with_state(state.clone(), observe::observe))
}
