//! The door: every route on one page, every layer on another (`middleware`).
//!
//! Owns HTTP: paths, headers, bodies, statuses. Never decides what a request may do (that is `pipeline` and
//! `tappass.authz`) and never touches storage. Everything but the routes marked public is authenticated before it is
//! routed, so an unknown path without a key is 401 and not 404.

mod api;
mod error;
mod extract;
mod middleware;
pub mod server;
mod state;

use axum::{
    Router,
    routing::{delete, get, post, put},
};
pub use state::{NameSource, Parts, Readiness, State};

use api::{
    admin::{agents, audit, budget, llm_keys, organizations, pipeline, policies},
    chat_completions, health, jwks, me, metrics, models,
};

/// Paths that need no key. Each says nothing that is not public, and costs no read of the database.
pub(crate) const PUBLIC: [&str; 5] =
    ["/health", "/health/live", "/health/ready", "/health/startup", "/.well-known/jwks.json"];

/// The page of routes. The action that `tappass.authz` is asked about stands in each handler's first line.
pub fn router(state: State) -> Router {
    let routes = Router::new()
        // Public.
        .route("/health", get(health::health))
        .route("/health/live", get(health::live))
        .route("/health/ready", get(health::ready))
        .route("/health/startup", get(health::ready))
        .route("/.well-known/jwks.json", get(jwks::jwks))
        // Data plane: agents.
        .route("/v1/chat/completions", post(chat_completions::create))
        .route("/v1/models", get(models::list))
        .route("/api/me", get(me::me))
        // Control plane: administrators.
        .route("/metrics", get(metrics::metrics))
        .route("/auth/orgs", get(organizations::list).post(organizations::create))
        .route("/api/agents", get(agents::list))
        .route("/api/agents/onboard", post(agents::onboard))
        .route("/api/agents/{id}", get(agents::get))
        .route("/api/agents/{id}/suspend", post(agents::suspend))
        .route("/api/agents/{id}/activate", post(agents::activate))
        .route("/api/agents/{id}/keys", get(agents::list_keys).post(agents::create_key))
        .route("/api/agents/{id}/keys/{key}", delete(agents::revoke_key))
        .route("/api/agents/{id}/pipeline", get(pipeline::get_of_agent).put(pipeline::put_of_agent))
        .route("/api/admin/llm-keys", get(llm_keys::list).post(llm_keys::store))
        .route("/api/admin/llm-keys/{provider}", delete(llm_keys::remove))
        .route("/api/pipeline", get(pipeline::get).put(pipeline::put))
        .route("/api/pipeline/steps", get(pipeline::steps))
        .route("/api/pipeline/unlocked-flags", put(pipeline::put_unlocked))
        .route("/api/budget", get(budget::get).put(budget::put))
        .route("/api/budget/reset", post(budget::reset))
        .route("/api/audit/event/{id}", get(audit::event))
        .nest("/api/policies", policies::routes())
        .nest("/api/v2/policies", policies::routes());
    middleware::wrap(routes, &state).with_state(state)
}
