//! The door: every route on one page, every layer on another (`middleware`). Until the gateway is built, `starting`
//! answers instead.
//!
//! Owns HTTP: paths, headers, bodies, statuses. Never decides what a request may do (that is `pipeline` and
//! `tappass.authz`) and never touches storage. Everything but the routes marked public is authenticated before it is
//! routed, so an unknown path without a key is 401 and not 404.

mod api;
mod door;
mod error;
mod extract;
mod middleware;
pub mod server;
mod starting;
mod state;

use axum::{
    Router,
    routing::{delete, get, post, put},
};
pub use door::Door;
pub use starting::{Starting, starting};
pub use state::{NameSource, Parts, Readiness, State};

use middleware::Guard;

use api::{
    admin::{agents, audit, budget, llm_keys, organizations, pipeline, policies},
    chat_completions, health, jwks, me, metrics, models,
};

/// Paths that need no key. Each says nothing that is not public, and costs no read of the database.
pub(crate) const PUBLIC: [&str; 5] =
    ["/health", "/health/live", "/health/ready", "/health/startup", "/.well-known/jwks.json"];

/// The page of routes, each with the action that `tappass.authz` is asked about.
pub fn router(state: State) -> Router {
    let may = Guard(state.clone());
    let routes = Router::new()
        // Public.
        .route("/health", get(health::health))
        .route("/health/live", get(health::live))
        .route("/health/ready", get(health::ready))
        .route("/health/startup", get(health::ready))
        .route("/.well-known/jwks.json", get(jwks::jwks))
        // Data plane: agents.
        .route("/v1/chat/completions", may.on("chat.create", post(chat_completions::create)))
        .route("/v1/models", may.on("models.read", get(models::list)))
        .route("/api/me", may.on("me.read", get(me::me)))
        // Control plane: administrators.
        .route("/metrics", may.on("metrics.read", get(metrics::metrics)))
        .route("/auth/orgs", may.on("orgs.read", get(organizations::list)))
        .route("/auth/orgs", may.on("orgs.write", post(organizations::create)))
        .route("/api/agents", may.on("agents.read", get(agents::list)))
        .route("/api/agents/onboard", may.on("agents.write", post(agents::onboard)))
        .route("/api/agents/{id}", may.on("agents.read", get(agents::get)))
        .route("/api/agents/{id}/suspend", may.on("agents.write", post(agents::suspend)))
        .route("/api/agents/{id}/activate", may.on("agents.write", post(agents::activate)))
        .route("/api/agents/{id}/keys", may.on("agents.read", get(agents::list_keys)))
        .route("/api/agents/{id}/keys", may.on("agents.write", post(agents::create_key)))
        .route("/api/agents/{id}/keys/{key}", may.on("agents.write", delete(agents::revoke_key)))
        .route("/api/agents/{id}/pipeline", may.on("pipeline.read", get(pipeline::get_of_agent)))
        .route("/api/agents/{id}/pipeline", may.on("pipeline.write", put(pipeline::put_of_agent)))
        .route("/api/admin/llm-keys", may.on("credentials.read", get(llm_keys::list)))
        .route("/api/admin/llm-keys", may.on("credentials.write", post(llm_keys::store)))
        .route("/api/admin/llm-keys/{provider}", may.on("credentials.write", delete(llm_keys::remove)))
        .route("/api/pipeline", may.on("pipeline.read", get(pipeline::get)))
        .route("/api/pipeline", may.on("pipeline.write", put(pipeline::put)))
        .route("/api/pipeline/steps", may.on("pipeline.read", get(pipeline::steps)))
        .route("/api/pipeline/unlocked-flags", may.on("pipeline.write", put(pipeline::put_unlocked)))
        .route("/api/budget", may.on("budget.read", get(budget::get)))
        .route("/api/budget", may.on("budget.write", put(budget::put)))
        .route("/api/budget/reset", may.on("budget.write", post(budget::reset)))
        .route("/api/audit/event/{id}", may.on("audit.read", get(audit::event)))
        .nest("/api/policies", policies::routes(&may))
        .nest("/api/v2/policies", policies::routes(&may));
    middleware::wrap(routes, &state).with_state(state)
}
