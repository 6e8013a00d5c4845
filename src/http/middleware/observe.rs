//! Request id, security headers, access log.
//!
//! Owns what stands on every reply, also on a 401 and a 404. The client's own request id is data: it is logged, never
//! used as an identity. Never logs a query, a body or a key.

use std::{net::SocketAddr, time::Instant};

use axum::{
    extract::{MatchedPath, Request, State as Ask},
    http::{HeaderMap, HeaderName, HeaderValue, header},
    middleware::Next,
    response::Response,
};

use super::Identified;
use crate::http::state::State;

/// Where the connection comes from; set by the server.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Remote(pub(crate) SocketAddr);

/// Our own id of the request.
#[derive(Clone, Debug)]
pub(crate) struct RequestId(pub(crate) String);

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

const FIXED: [(HeaderName, HeaderValue); 5] = [
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
    (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'")),
    (header::STRICT_TRANSPORT_SECURITY, HeaderValue::from_static("max-age=31536000; includeSubDomains")),
];

pub(super) async fn observe(Ask(state): Ask<State>, mut request: Request, next: Next) -> Response {
    let began = Instant::now();
    let id = state.names.next("req");
    request.extensions_mut().insert(RequestId(id.clone()));
    let logs = state.config.log.access && tracing::enabled!(tracing::Level::INFO);
    let seen = logs.then(|| Seen::of(&request));
    let mut response = next.run(request).await;
    let identified = response.extensions_mut().remove::<Identified>();
    dress(&mut response, &id);
    if let Some(seen) = seen {
        seen.log(&id, response.status().as_u16(), began, identified.as_ref());
    }
    response
}

/// Puts on a reply what stands on every one.
pub(in crate::http) fn dress(response: &mut Response, id: &str) {
    let headers = response.headers_mut();
    for (name, value) in FIXED {
        headers.insert(name, value);
    }
    if !headers.contains_key(header::CACHE_CONTROL) {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    if let Ok(value) = HeaderValue::from_str(id) {
        headers.insert(REQUEST_ID, value);
    }
}

/// What the access log says of a request.
struct Seen {
    method: axum::http::Method,
    route: String,
    cf_ray: Option<String>,
    client_request_id: Option<String>,
}

impl Seen {
    fn of(request: &Request) -> Self {
        let matched = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
        Self {
            method: request.method().clone(),
            // A path that no route knows could hold anything.
            route: matched.unwrap_or_else(|| "(unknown)".to_owned()),
            cf_ray: short(request.headers(), "cf-ray"),
            client_request_id: short(request.headers(), "x-request-id"),
        }
    }

    fn log(self, id: &str, status: u16, began: Instant, who: Option<&Identified>) {
        let duration_ms = began.elapsed().as_secs_f64() * 1e3;
        tracing::info!(
            request.id = id,
            method = self.method.as_str(),
            route = self.route,
            status,
            duration_ms,
            principal = who.map(|who| tracing::field::display(who.principal.name())),
            org.id = who.map(|who| tracing::field::display(who.principal.org())),
            cf.ray = self.cf_ray,
            client.request_id = self.client_request_id,
            "answered"
        );
    }
}

/// A header of the caller for the log: short, printable.
fn short(headers: &HeaderMap, name: &str) -> Option<String> {
    let text = headers.get(name)?.to_str().ok()?;
    let fits = text.len() <= 128 && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    fits.then(|| text.to_owned())
}
