//! `GET /api/me`: who the key belongs to.

use axum::{Extension, extract::State as Ask};
use serde_json::{Value, json};

use crate::{
    auth::Principal,
    http::{error::ApiError, extract::Json, middleware::Identified, state::State},
};

/// The caller's own identity.
pub(in crate::http) async fn me(
    Ask(state): Ask<State>,
    Extension(who): Extension<Identified>,
) -> Result<Json<Value>, ApiError> {
    let org = who.principal.org();
    let snapshot = state.admission.snapshots.get(org).await?;
    let name = snapshot.as_ref().map_or("", |s| s.config.organization.name.as_str());
    let role = who.principal.role().as_str();
    let agent = match &who.principal {
        Principal::Agent { agent, .. } => snapshot.as_ref().and_then(|s| s.config.agents.get(agent)),
        Principal::Admin { .. } => None,
    };
    let (id, own) = match agent {
        Some(agent) => (agent.agent_id.as_str().to_owned(), agent.slug.clone()),
        None => (who.principal.name(), who.principal.name()),
    };
    Ok(Json(json!({
        "id": id, "name": own, "email": agent.map_or("", |a| a.owner_email.as_str()),
        "role": role, "account_role": role, "org_id": org, "org_name": name, "company": name,
    })))
}
