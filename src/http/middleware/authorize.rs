//! May the caller do this? Asked per route and method, before any of its body is read.
//!
//! Owns the question to `tappass.authz`. A suspended agent's chat is refused on the record, by the pipeline; everything
//! else of it is refused here. A route without an action does not exist: `Guard::on` is the only way to make one.

use axum::{
    Extension,
    extract::{Request, State as Ask},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse, Response},
    routing::MethodRouter,
};

use super::Identified;
use crate::{
    auth::Principal,
    http::{error::ApiError, state::State},
    tenants::AgentStatus,
};

/// Makes routes that ask first.
pub(crate) struct Guard(pub(crate) State);

impl Guard {
    /// Methods of a route that need `action`.
    pub(crate) fn on(&self, action: &'static str, methods: MethodRouter<State>) -> MethodRouter<State> {
        methods.route_layer(from_fn_with_state((self.0.clone(), action), authorize))
    }
}

async fn authorize(
    Ask((state, action)): Ask<(State, &'static str)>,
    Extension(who): Extension<Identified>,
    request: Request,
    next: Next,
) -> Response {
    let decision = state.authz.decide(who.principal.role().as_str(), action, true);
    if decision.is_block() {
        return ApiError::forbidden(&decision.reason).into_response();
    }
    if is_suspended(&who) && action != "chat.create" {
        return ApiError::forbidden("the agent is suspended").into_response();
    }
    next.run(request).await
}

fn is_suspended(who: &Identified) -> bool {
    let (Principal::Agent { agent, .. }, Some(snapshot)) = (&who.principal, &who.snapshot) else { return false };
    snapshot.config.agents.get(agent).is_some_and(|agent| agent.status == AgentStatus::Suspended)
}
