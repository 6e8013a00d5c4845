//! Handlers: thin. Each authorizes, reads, asks one service, renders.
//!
//! Owns the shapes of requests and replies. Never decides beyond authorization.

pub(super) mod admin;
pub(super) mod chat_completions;
pub(super) mod health;
pub(super) mod jwks;
pub(super) mod me;
pub(super) mod metrics;
pub(super) mod models;

use super::{error::ApiError, middleware::Identified, state::State};

/// Asks `tappass.authz` whether the caller may do this in the organization that it acts in.
fn authorize(state: &State, who: &Identified, action: &str) -> Result<(), ApiError> {
    let decision = state.authz.decide(who.principal.role().as_str(), action, true);
    if decision.is_block() { Err(ApiError::forbidden(&decision.reason)) } else { Ok(()) }
}
