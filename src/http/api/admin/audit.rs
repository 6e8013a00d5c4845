//! One entry of the record, as it is stored.

use axum::{
    Extension,
    extract::{Path, State as Ask},
};
use serde_json::{Value, json};

use crate::{
    domain::ids::{BootId, EntryId},
    http::{error::ApiError, extract::Json, middleware::Identified, state::State},
};

/// The entry that an answer's `audit_url` names: `<boot>-<counter>`.
pub(in crate::http) async fn event(
    Ask(state): Ask<State>,
    Extension(who): Extension<Identified>,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let missing = || ApiError::not_found("the entry");
    let (boot, counter) = id.rsplit_once('-').ok_or_else(missing)?;
    let id = EntryId {
        org: who.principal.org().clone(),
        boot: BootId::parse(boot).map_err(|_| missing())?,
        counter: counter.parse().map_err(|_| missing())?,
    };
    let found = state.records.entry(&id).await.map_err(|error| {
        tracing::error!(error = &error as &dyn std::error::Error, "an entry cannot be read");
        ApiError::database()
    })?;
    let found = found.ok_or_else(missing)?;
    let body: Value = serde_json::from_str(&found.body).map_err(|_| ApiError::internal())?;
    Ok(Json(json!({ "seq": found.seq, "link": found.link, "digest": found.digest, "entry": body })))
}
