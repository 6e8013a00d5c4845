//! `GET /.well-known/jwks.json`: the public keys that the record is signed with.

use axum::extract::State as Ask;
use serde_json::Value;

use crate::http::{extract::Json, state::State};

/// Public keys, held in memory: cheap for verifiers that ask each time.
pub(in crate::http) async fn jwks(Ask(state): Ask<State>) -> Json<Value> {
    Json(state.jwks.to_json())
}
