//! `GET /v1/models`: what the providers of this gateway list. Asks no provider.

use axum::extract::State as Ask;
use serde_json::{Value, json};

use crate::http::{extract::Json, state::State};

/// Lists models in OpenAI's shape.
pub(in crate::http) async fn list(Ask(state): Ask<State>) -> Json<Value> {
    let providers = state.pipeline.services().providers.all();
    let models = providers.into_iter().flat_map(|provider| {
        let owner = provider.name();
        provider.models().iter().map(move |id| json!({"id": id, "object": "model", "created": 0, "owned_by": owner}))
    });
    Json(json!({ "object": "list", "data": models.collect::<Vec<_>>() }))
}
