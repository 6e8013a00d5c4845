//! Organizations: list and make. For the platform's administrator.

use axum::{Extension, extract::State as Ask};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{text, waits, with_receipt};
use crate::{
    admission::found_organization,
    domain::ids::OrgId,
    http::{error::ApiError, extract::Json, middleware::Identified, state::State},
};

/// Every organization.
pub(in crate::http) async fn list(Ask(state): Ask<State>) -> Result<Json<Value>, ApiError> {
    let ids = state.records.organizations().await.map_err(|error| {
        tracing::error!(error = &error as &dyn std::error::Error, "organizations cannot be read");
        ApiError::database()
    })?;
    let mut data = Vec::with_capacity(ids.len());
    for id in ids {
        if let Some(snapshot) = state.admission.snapshots.get(&id).await? {
            data.push(json!({ "id": id, "org_id": id, "name": snapshot.config.organization.name }));
        }
    }
    Ok(Json(json!({ "data": data, "page": { "cursor_next": null, "total": data.len() } })))
}

/// A new organization.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct NewOrganization {
    name: String,
}

/// Makes an organization with a project named `default`.
pub(in crate::http) async fn create(
    Ask(state): Ask<State>,
    Extension(who): Extension<Identified>,
    Json(asked): Json<NewOrganization>,
) -> Result<Json<Value>, ApiError> {
    // Nothing calls in what does not exist yet, so there is nothing to wait for.
    waits(&who)?;
    let name = text("name", &asked.name, 120)?;
    let id = OrgId::parse(&super::random_id("org")?).map_err(|_| ApiError::internal())?;
    let made = state.admission.change(&id, found_organization(id.clone(), name.clone(), state.clock.now())).await?;
    Ok(Json(with_receipt(json!({ "id": id, "org_id": id, "name": name }), &made)))
}
