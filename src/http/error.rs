//! One error for replies: what the caller is told.
//!
//! Owns statuses and the one error body that OpenAI clients, the command line and plain HTTP all read. Never carries a
//! cause: that was logged where it happened.

use axum::{
    body::Body,
    http::{HeaderValue, Response, StatusCode, header},
    response::IntoResponse,
};
use serde_json::{Value, json};

use crate::{
    admission::{ChangeError, ChangeRefused, SnapshotError},
    pipeline::Failure,
};

/// An error reply.
#[derive(Clone, Debug)]
pub(crate) struct ApiError(Box<Parts>);

#[derive(Clone, Debug)]
struct Parts {
    status: StatusCode,
    kind: &'static str,
    code: String,
    message: String,
    param: Option<String>,
    detail: Option<Value>,
    retry_after: Option<u64>,
}

impl ApiError {
    fn new(status: StatusCode, kind: &'static str, code: &str, message: impl Into<String>) -> Self {
        let (code, message) = (code.to_owned(), message.into());
        let (param, detail, retry_after) = (None, None, None);
        Self(Box::new(Parts { status, kind, code, message, param, detail, retry_after }))
    }

    pub(crate) fn unauthenticated() -> Self {
        let words = "a valid key is required: `Authorization: Bearer tp_…`";
        Self::new(StatusCode::UNAUTHORIZED, "authentication_error", "invalid_api_key", words)
    }

    pub(crate) fn forbidden(reason: &str) -> Self {
        Self::new(StatusCode::FORBIDDEN, "permission_error", "forbidden", reason)
    }

    pub(crate) fn not_found(what: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found_error", "not_found", format!("{what} does not exist"))
    }

    pub(crate) fn method_not_allowed() -> Self {
        let words = "this path does not answer to this method";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "invalid_request_error", "method_not_allowed", words)
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", "invalid_request", message)
    }

    pub(crate) fn too_large(most: usize) -> Self {
        let words = format!("the request body is larger than {most} bytes");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "invalid_request_error", "request_too_large", words)
    }

    pub(crate) fn unsupported(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "invalid_request_error", "unsupported_media_type", message)
    }

    pub(crate) fn body_timeout() -> Self {
        let words = "the request body did not arrive in time";
        Self::new(StatusCode::REQUEST_TIMEOUT, "invalid_request_error", "request_timeout", words)
    }

    pub(crate) fn too_many(retry_after: u64) -> Self {
        let words = "too many requests from this address";
        let error = Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", "address_rate_limited", words);
        error.after(Some(retry_after))
    }

    pub(crate) fn unavailable(code: &str, message: impl Into<String>) -> Self {
        let error = Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", code, message);
        error.after(Some(1))
    }

    pub(crate) fn database() -> Self {
        Self::unavailable("database_unavailable", "the database does not answer")
    }

    pub(crate) fn internal() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal_error", "internal", "something went wrong on our side")
    }

    pub(crate) fn is_too_large(&self) -> bool {
        self.0.status == StatusCode::PAYLOAD_TOO_LARGE
    }

    fn after(mut self, seconds: Option<u64>) -> Self {
        self.0.retry_after = seconds;
        self
    }

    pub(crate) fn with_param(mut self, param: Option<String>) -> Self {
        self.0.param = param;
        self
    }

    pub(crate) fn with_code(mut self, code: &str) -> Self {
        code.clone_into(&mut self.0.code);
        self
    }

    pub(crate) fn with_detail(mut self, detail: Value) -> Self {
        self.0.detail = Some(detail);
        self
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response<Body> {
        let Parts { status, kind, code, message, param, detail, retry_after } = *self.0;
        let mut body = json!({
            "error": { "message": message, "type": kind, "code": code, "param": param },
            "message": message,
            "code": code,
        });
        if let (Some(detail), Some(fields)) = (detail, body.as_object_mut()) {
            fields.insert("detail".to_owned(), detail);
        }
        let mut response = Response::new(Body::from(body.to_string()));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(seconds) = retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if status == StatusCode::TOO_MANY_REQUESTS {
            headers.insert("x-tappass-limit-source", HeaderValue::from_static("tappass"));
        }
        response
    }
}

impl From<Failure> for ApiError {
    fn from(failure: Failure) -> Self {
        let status = StatusCode::from_u16(failure.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let kind = match failure.status {
            403 => "permission_error",
            424 => "provider_key_missing",
            502 | 504 => "upstream_error",
            503 => "unavailable",
            _ => "internal_error",
        };
        let error = Self::new(status, kind, failure.code, failure.message);
        error.after(failure.retry_after)
    }
}

impl From<SnapshotError> for ApiError {
    fn from(error: SnapshotError) -> Self {
        tracing::error!(error = &error as &dyn std::error::Error, "configuration cannot be used");
        match error {
            SnapshotError::Storage(_) => Self::database(),
            SnapshotError::Tampered { .. } => Self::unavailable("configuration_tampered", error.to_string()),
            SnapshotError::Missing => Self::not_found("the organization"),
            SnapshotError::Tenants(_) | SnapshotError::Compile(_) => {
                Self::unavailable("configuration_unusable", error.to_string())
            }
        }
    }
}

impl From<ChangeError> for ApiError {
    fn from(error: ChangeError) -> Self {
        let ChangeError::Refused(refused) = error else {
            tracing::error!(error = &error as &dyn std::error::Error, "a change was not made");
            return match error {
                ChangeError::Tampered => Self::unavailable("configuration_tampered", error.to_string()),
                ChangeError::Unknown(_) => Self::unavailable("outcome_unknown", error.to_string()),
                ChangeError::Contended => Self::unavailable("configuration_changing", error.to_string()),
                ChangeError::HistoryLost => Self::unavailable("history_lost", error.to_string()),
                ChangeError::Stopped => Self::unavailable("shutting_down", error.to_string()),
                ChangeError::Refused(_)
                | ChangeError::Tenants(_)
                | ChangeError::Storage(_)
                | ChangeError::Withdrawn => {
                    Self::unavailable("database_unavailable", "the change was not made: the database does not answer")
                }
            };
        };
        match refused {
            ChangeRefused::NotFound(what) => Self::not_found(&what),
            ChangeRefused::Conflict { code, message } => {
                let detail = json!({ "code": code, "detail": message });
                Self::new(StatusCode::CONFLICT, "conflict", code, message).with_detail(detail)
            }
            ChangeRefused::Invalid { message, details } => {
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_request_error", "invalid", message)
                    .with_detail(details)
            }
            ChangeRefused::Internal => Self::internal(),
        }
    }
}
