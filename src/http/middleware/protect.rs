//! A panic becomes a 500, and too much becomes a 503.
//!
//! Owns the bound on requests at once. Health answers beyond it. The bound holds until the answer's last byte.

use std::panic::AssertUnwindSafe;

use axum::{
    body::Body,
    extract::{Request, State as Ask},
    middleware::Next,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::FutureExt as _;

use crate::http::{PUBLIC, error::ApiError, state::State};

pub(super) async fn protect(Ask(state): Ask<State>, request: Request, next: Next) -> Response {
    if PUBLIC.contains(&request.uri().path()) {
        return next.run(request).await;
    }
    let Ok(permit) = std::sync::Arc::clone(&state.requests).try_acquire_owned() else {
        return ApiError::unavailable("overloaded", "too many requests are being answered; ask again").into_response();
    };
    let running = Running::new(&state);
    let answered = AssertUnwindSafe(next.run(request)).catch_unwind().await;
    let response = answered.unwrap_or_else(|_| {
        tracing::error!("a handler panicked");
        ApiError::internal().into_response()
    });
    if response.headers().get("content-type").is_some_and(|kind| kind == "text/event-stream") {
        return response.map(|body| Body::new(Held { body, _while: (permit, running) }));
    }
    response
}

/// Counts a request as running while it lives.
struct Running {
    state: State,
}

impl Running {
    fn new(state: &State) -> Self {
        state.metrics.running.inc();
        Self { state: state.clone() }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.state.metrics.running.dec();
    }
}

/// A body that keeps something until it ends or is dropped.
struct Held<T> {
    body: Body,
    _while: T,
}

impl<T: Unpin> http_body::Body for Held<T> {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, axum::Error>>> {
        std::pin::Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}
