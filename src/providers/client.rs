//! A provider over HTTP.
//!
//! Owns the request's headers, built from nothing (no header of a caller goes upstream), and the list of answer headers
//! that come back. Never puts a key into a URL or a log. The body it sends asks for the right to start in its first poll,
//! which is the poll that would hand the head to the connection as well.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::TryStreamExt as _;
use http::{HeaderMap, HeaderValue, header};
use http_body::{Frame, SizeHint};
use tokio::time::Instant;
use tokio_util::io::StreamReader;

use super::{Call, KeyCheck, Limit, MayStart, Provider, ProviderError, Timeouts, UpstreamBody, UpstreamReply};
use crate::{net::Encoding, vault::SecretText};

/// Headers of an answer that a caller may see under their own names.
const PASSED: [&str; 10] = [
    "retry-after",
    "retry-after-ms",
    "x-should-retry",
    "x-ratelimit-limit-requests",
    "x-ratelimit-limit-tokens",
    "x-ratelimit-remaining-requests",
    "x-ratelimit-remaining-tokens",
    "x-ratelimit-reset-requests",
    "x-ratelimit-reset-tokens",
    "openai-processing-ms",
];

/// An OpenAI-compatible endpoint.
pub struct HttpProvider {
    name: &'static str,
    url: reqwest::Url,
    needs_key: bool,
    models: Vec<String>,
    client: reqwest::Client,
    timeouts: Timeouts,
}

impl HttpProvider {
    /// A provider whose chat endpoint is `<base_url>/chat/completions`.
    pub fn new(
        name: &'static str,
        url: reqwest::Url,
        needs_key: bool,
        models: Vec<String>,
        client: reqwest::Client,
        timeouts: Timeouts,
    ) -> Self {
        Self { name, url, needs_key, models, client, timeouts }
    }

    fn headers(key: Option<&SecretText>) -> Result<HeaderMap, ProviderError> {
        let mut headers = HeaderMap::with_capacity(4);
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        // What comes back is read, so it is asked for as it is.
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        headers.insert(header::USER_AGENT, HeaderValue::from_static("tappass"));
        if let Some(key) = key {
            let text = zeroize::Zeroizing::new(format!("Bearer {}", key.expose()));
            let mut value = HeaderValue::from_str(&text).map_err(|_| ProviderError::Key)?;
            value.set_sensitive(true);
            headers.insert(header::AUTHORIZATION, value);
        }
        Ok(headers)
    }
}

#[async_trait]
impl Provider for HttpProvider {
    fn name(&self) -> &'static str {
        self.name
    }

    fn needs_key(&self) -> bool {
        self.needs_key
    }

    fn models(&self) -> &[String] {
        &self.models
    }

    async fn chat(&self, call: Call) -> Result<UpstreamReply, ProviderError> {
        let ends = Instant::now() + self.timeouts.total;
        let headers = Self::headers(call.key.as_ref())?;
        let refused = Arc::new(AtomicBool::new(false));
        let body = GuardedBody { bytes: Some(call.body), may_start: call.may_start, refused: Arc::clone(&refused) };
        let request = self.client.post(self.url.clone()).headers(headers).body(reqwest::Body::wrap(body));
        let limit = self.timeouts.first_byte.min(self.timeouts.total);
        let sent = tokio::time::timeout(limit, request.send()).await;
        let response = match sent {
            Err(_) => return Err(ProviderError::Timeout(Limit::FirstByte)),
            Ok(Err(_)) if refused.load(Ordering::Acquire) => return Err(ProviderError::NotStarted),
            Ok(Err(error)) => return Err(cause(error)),
            Ok(Ok(response)) => response,
        };
        let status = response.status();
        let headers = passed(response.headers(), call.key.as_ref());
        let is_event_stream = is_event_stream(response.headers());
        let encoding =
            Encoding::read(response.headers().get(header::CONTENT_ENCODING)).ok_or(ProviderError::Encoding)?;
        let idle = self.timeouts.idle;
        let body = if encoding == Encoding::Identity {
            UpstreamBody::http(reqwest::Body::from(response), idle, ends)
        } else {
            let bytes = response.bytes_stream().map_err(std::io::Error::other);
            UpstreamBody::decoded(encoding.decoder(StreamReader::new(bytes)), idle, ends)
        };
        Ok(UpstreamReply { status, headers, is_event_stream, body })
    }

    async fn validate(&self, key: &SecretText) -> KeyCheck {
        // `<base_url>/models`: every compatible endpoint has it, it costs nothing, and it needs the key.
        let (Ok(url), Ok(headers)) = (self.url.join("../models"), Self::headers(Some(key))) else {
            return KeyCheck::Unknown;
        };
        let asked = tokio::time::timeout(VALIDATION, self.client.get(url).headers(headers).send()).await;
        match asked {
            Ok(Ok(answer)) if answer.status().is_success() => KeyCheck::Valid,
            // Not 403: a key that may only chat may not list models.
            Ok(Ok(answer)) if answer.status().as_u16() == 401 => KeyCheck::Invalid,
            Ok(Ok(answer)) => {
                tracing::debug!(provider.name = self.name, status = answer.status().as_u16(), "a key was not judged");
                KeyCheck::Unknown
            }
            Ok(Err(error)) => {
                let error = cause(error);
                tracing::debug!(
                    provider.name = self.name,
                    error = &error as &dyn std::error::Error,
                    "a key was not judged"
                );
                KeyCheck::Unknown
            }
            Err(_) => KeyCheck::Unknown,
        }
    }
}

/// How long a provider may take to say what it thinks of a key.
const VALIDATION: Duration = Duration::from_secs(10);

fn cause(error: reqwest::Error) -> ProviderError {
    if error.is_connect() {
        return if error.is_timeout() { ProviderError::Timeout(Limit::Connect) } else { ProviderError::Connect(error) };
    }
    // The URL names the provider, not a secret, but it is nobody's business in an error text.
    ProviderError::Broken(error.without_url())
}

fn is_event_stream(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    kind.is_some_and(|kind| kind.trim_start().to_ascii_lowercase().starts_with("text/event-stream"))
}

/// What of a provider's headers a caller may see; never one that repeats the key.
fn passed(headers: &HeaderMap, key: Option<&SecretText>) -> HeaderMap {
    let repeats = |value: &HeaderValue| {
        key.is_some_and(|key| memchr::memmem::find(value.as_bytes(), key.expose().as_bytes()).is_some())
    };
    let mut seen = HeaderMap::new();
    let ids = [("x-request-id", "x-provider-request-id"), ("request-id", "x-provider-request-id")];
    for (name, shown) in PASSED.into_iter().map(|name| (name, name)).chain(ids) {
        if let Some(value) = headers.get(name).filter(|value| !repeats(value)) {
            seen.insert(shown, value.clone());
        }
    }
    seen
}

/// A body that asks for the right to start when its first byte is wanted.
struct GuardedBody {
    bytes: Option<Bytes>,
    may_start: MayStart,
    refused: Arc<AtomicBool>,
}

impl http_body::Body for GuardedBody {
    type Data = Bytes;
    type Error = ProviderError;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ProviderError>>> {
        let Some(bytes) = self.bytes.take() else { return Poll::Ready(None) };
        if !(self.may_start)() {
            self.refused.store(true, Ordering::Release);
            return Poll::Ready(Some(Err(ProviderError::NotStarted)));
        }
        Poll::Ready(Some(Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.bytes.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
    }
}
