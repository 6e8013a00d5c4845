//! JSON bodies of the control plane.
//!
//! Owns the error for a body that does not fit, which names the field. Replies with the same type.

use axum::{
    body::Body,
    extract::{FromRequest, OptionalFromRequest, Request},
    http::{HeaderValue, Response, header},
    response::IntoResponse,
};
use serde::{Serialize, de::DeserializeOwned};

use super::read_body;
use crate::http::{error::ApiError, state::State};

/// A JSON body, in either direction.
pub(crate) struct Json<T>(pub(crate) T);

impl<T: DeserializeOwned> FromRequest<State> for Json<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &State) -> Result<Self, ApiError> {
        let (parts, body) = request.into_parts();
        let read = read_body(state, &parts.headers, body).await?;
        if read.bytes.is_empty() {
            return Err(ApiError::invalid("a JSON body is required"));
        }
        parse(&read.bytes)
    }
}

/// An action without particulars may come without a body.
impl<T: DeserializeOwned> OptionalFromRequest<State> for Json<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &State) -> Result<Option<Self>, ApiError> {
        let (parts, body) = request.into_parts();
        let read = read_body(state, &parts.headers, body).await?;
        if read.bytes.is_empty() { Ok(None) } else { parse(&read.bytes).map(Some) }
    }
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<Json<T>, ApiError> {
    crate::domain::json::Tape::parse(bytes, &crate::domain::json::Limits::default())
        .map_err(|error| ApiError::invalid(format!("invalid JSON: {error}")))?;
    serde_json::from_slice(bytes).map(Json).map_err(|error| ApiError::invalid(format!("invalid body: {error}")))
}

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response<Body> {
        match serde_json::to_vec(&self.0) {
            Ok(bytes) => {
                let mut response = Response::new(Body::from(bytes));
                response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
                response
            }
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "a reply cannot be written as JSON");
                ApiError::internal().into_response()
            }
        }
    }
}
