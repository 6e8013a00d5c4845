//! What is answered before the gateway is built.
//!
//! Owns the answers of a start that waits for its database: alive, not ready and why, and 503 for everything else. Never
//! 401 or 404: nobody's key can be judged yet, and a client that is told so would throw a good key away. Asks nobody.

use std::sync::Arc;

use axum::{
    Router,
    extract::{Request, State as Ask},
    http::StatusCode,
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse, Response},
    routing::get,
};
use serde_json::{Value, json};

use super::{NameSource, Readiness, error::ApiError, extract::Json, middleware::dress};
use crate::{
    config::VERSION,
    domain::clock::{Clock, Running},
};

/// What the answers are made of.
pub struct Starting {
    /// Since when the process runs.
    pub began: Running,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Names for requests.
    pub names: NameSource,
    /// Why it is not ready.
    pub readiness: Arc<Readiness>,
    /// Which kind of database it will have.
    pub storage: &'static str,
}

/// The routes until the gateway is built.
pub fn starting(parts: Starting) -> Router {
    let parts = Arc::new(parts);
    Router::new()
        .route("/health", get(health))
        .route("/health/live", get(live))
        .route("/health/ready", get(ready))
        .route("/health/startup", get(ready))
        .fallback(not_yet)
        .method_not_allowed_fallback(not_yet)
        .layer(from_fn_with_state(Arc::clone(&parts), name_and_dress))
        .with_state(parts)
}

async fn health(Ask(parts): Ask<Arc<Starting>>) -> Json<Value> {
    let up = parts.clock.running().0.saturating_sub(parts.began.0) / 1_000_000_000;
    Json(json!({
        "status": "starting", "version": VERSION, "storage": parts.storage, "agents": 0, "uptime_seconds": up,
    }))
}

async fn live() -> Json<Value> {
    Json(json!({ "status": "starting" }))
}

async fn ready(Ask(parts): Ask<Arc<Starting>>) -> Response {
    let body = json!({ "status": "not_ready", "reasons": parts.readiness.reasons() });
    (StatusCode::SERVICE_UNAVAILABLE, Json(body)).into_response()
}

async fn not_yet(Ask(parts): Ask<Arc<Starting>>) -> Response {
    let why = parts.readiness.reasons().join(", ");
    ApiError::unavailable("starting", format!("the gateway is not ready ({why}); ask again")).into_response()
}

async fn name_and_dress(Ask(parts): Ask<Arc<Starting>>, request: Request, next: Next) -> Response {
    let id = parts.names.next("req");
    let mut response = next.run(request).await;
    dress(&mut response, &id);
    response
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use axum::body::Body;
    use http_body_util::BodyExt as _;
    use tower::ServiceExt as _;

    use super::*;
    use crate::domain::{clock::ManualClock, ids::BootId};

    fn router(waiting: bool) -> Router {
        let clock = Arc::new(ManualClock::at(0));
        let readiness = Readiness::default();
        readiness.waiting.store(waiting, Ordering::Release);
        let names = NameSource::new(&BootId::parse("boot_abc").unwrap());
        starting(Starting { began: clock.running(), clock, names, readiness: Arc::new(readiness), storage: "sqlite" })
    }

    async fn ask(router: &Router, method: &str, path: &str) -> (http::response::Parts, Value) {
        let request = Request::builder().method(method).uri(path).header("authorization", "Bearer tp_nonsense");
        let response = router.clone().oneshot(request.body(Body::from("{}")).unwrap()).await.unwrap();
        let (head, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        (head, serde_json::from_slice(&body).unwrap())
    }

    #[tokio::test]
    async fn it_is_alive_and_says_that_it_starts() {
        for path in ["/health", "/health/live"] {
            let (head, body) = ask(&router(true), "GET", path).await;
            assert_eq!((head.status.as_u16(), body["status"].as_str()), (200, Some("starting")), "{path}");
        }
        let (_, body) = ask(&router(true), "GET", "/health").await;
        assert!(body["version"].is_string() && body["uptime_seconds"].is_u64() && body["agents"] == 0, "{body}");
    }

    #[tokio::test]
    async fn it_is_not_ready_and_says_why() {
        for (waiting, why) in [(false, "starting"), (true, "the database does not answer")] {
            for path in ["/health/ready", "/health/startup"] {
                let (head, body) = ask(&router(waiting), "GET", path).await;
                assert_eq!((head.status.as_u16(), &body["reasons"]), (503, &json!([why])), "{path}");
            }
        }
    }

    #[tokio::test]
    async fn everything_else_is_503_and_never_401_whatever_the_key_path_or_method() {
        let router = router(true);
        for (method, path) in [
            ("GET", "/.well-known/jwks.json"),
            ("POST", "/v1/chat/completions"),
            ("GET", "/v1/models"),
            ("PUT", "/api/pipeline"),
            ("GET", "/metrics"),
            ("GET", "/no/such/path"),
            ("POST", "/health"),
        ] {
            let (head, body) = ask(&router, method, path).await;
            assert_eq!((head.status.as_u16(), body["error"]["code"].as_str()), (503, Some("starting")), "{path}");
            assert!(body["error"]["message"].as_str().unwrap().contains("the database does not answer"), "{body}");
            assert_eq!(head.headers["retry-after"], "1", "{path}");
            assert_eq!(head.headers["x-content-type-options"], "nosniff", "{path}");
            assert!(head.headers.contains_key("x-request-id"), "{path}");
        }
    }
}
