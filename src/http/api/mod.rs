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
use crate::{auth::Principal, tenants::AgentStatus};

/// Asks `tappass.authz` whether the caller may do this in the organization that it acts in.
fn authorize(state: &State, who: &Identified, action: &str) -> Result<(), ApiError> {
    let decision = state.authz.decide(who.principal.role().as_str(), action, true);
    if decision.is_block() {
        return Err(ApiError::forbidden(&decision.reason));
    }
    // A suspended agent's chat is refused on the record, by the pipeline; everything else is refused here.
    let suspended = match (&who.principal, &who.snapshot) {
        (Principal::Agent { agent, .. }, Some(snapshot)) => {
            snapshot.config.agents.get(agent).is_some_and(|agent| agent.status == AgentStatus::Suspended)
        }
        _ => false,
    };
    if suspended && action != "chat.create" { Err(ApiError::forbidden("the agent is suspended")) } else { Ok(()) }
}
