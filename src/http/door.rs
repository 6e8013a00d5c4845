//! The door: who answers a request, before and after the gateway is built.
//!
//! Owns the switch, asked per request, so that a connection which was kept alive through the start sees it too. A start
//! that goes well is not seen by callers: until it is known that it takes long, they wait for it a moment, as they would
//! in the listener's queue. From then on they are refused at once. Health never waits. Never closes again.

use std::{
    convert::Infallible,
    sync::{Arc, OnceLock},
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes, HttpBody},
    http::{Request, Response},
};
use tokio_util::sync::CancellationToken;
use tower::{BoxError, ServiceExt as _};

/// The longest that a caller waits for a start that may go well.
const PATIENCE: Duration = Duration::from_secs(1);

/// Who answers; clones are the same door.
#[derive(Clone)]
pub struct Door(Arc<Inner>);

struct Inner {
    starting: Router,
    gateway: OnceLock<Router>,
    /// Cancelled when nobody is to wait any more: the gateway is there, or will not be soon.
    decided: CancellationToken,
}

impl Door {
    /// Answers with this router until it is opened.
    pub fn new(starting: Router) -> Self {
        let (gateway, decided) = (OnceLock::new(), CancellationToken::new());
        Self(Arc::new(Inner { starting, gateway, decided }))
    }

    /// From the next request on the gateway answers.
    pub fn open(&self, gateway: Router) {
        if self.0.gateway.set(gateway).is_err() {
            tracing::error!("the door was opened twice");
        }
        self.0.decided.cancel();
    }

    /// The start takes long: whoever waits is refused, and who comes later too, until the door is opened.
    pub fn refuse(&self) {
        self.0.decided.cancel();
    }

    pub(super) async fn answer<B>(&self, request: Request<B>) -> Result<Response<Body>, Infallible>
    where
        B: HttpBody<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        let Inner { starting, gateway, decided } = &*self.0;
        if let Some(gateway) = gateway.get() {
            return gateway.clone().oneshot(request).await;
        }
        let path = request.uri().path();
        if path != "/health" && !path.starts_with("/health/") {
            // Over or not, whoever stands behind the door now answers.
            drop(tokio::time::timeout(PATIENCE, decided.cancelled()).await);
        }
        gateway.get().unwrap_or(starting).clone().oneshot(request).await
    }
}

#[cfg(test)]
mod tests {
    use axum::{http::StatusCode, routing::get};
    use futures_util::FutureExt as _;

    use super::*;

    fn door() -> Door {
        let starting = Router::new().fallback(async || (StatusCode::SERVICE_UNAVAILABLE, "starting"));
        Door::new(starting)
    }

    fn gateway() -> Router {
        Router::new().route("/v1/models", get(async || "models"))
    }

    async fn status(door: &Door, path: &str) -> u16 {
        let request = Request::builder().uri(path).body(Body::empty()).unwrap();
        door.answer(request).await.unwrap().status().as_u16()
    }

    #[tokio::test]
    async fn once_it_is_open_the_gateway_answers_whoever_asked_before() {
        let door = door();
        door.refuse();
        let kept = door.clone();
        assert_eq!(status(&kept, "/v1/models").await, 503);
        door.open(gateway());
        assert_eq!(status(&kept, "/v1/models").await, 200);
    }

    #[tokio::test]
    async fn who_comes_during_a_start_that_goes_well_is_answered_by_the_gateway() {
        let door = door();
        let mut early = Box::pin(status(&door, "/v1/models"));
        assert!((&mut early).now_or_never().is_none());
        door.open(gateway());
        assert_eq!(early.await, 200);
    }

    #[tokio::test]
    async fn who_waits_is_refused_when_the_start_takes_long_and_health_never_waits() {
        let door = door();
        let mut early = Box::pin(status(&door, "/v1/models"));
        assert!((&mut early).now_or_never().is_none());
        assert_eq!(status(&door, "/health/ready").now_or_never(), Some(503));
        door.refuse();
        assert_eq!(early.await, 503);
        assert_eq!(status(&door, "/v1/models").now_or_never(), Some(503));
    }
}
