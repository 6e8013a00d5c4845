//! Reading a request's body.
//!
//! Owns its bounds: bytes as sent, bytes as decompressed, bytes of all bodies in memory, and time. Copies nothing where the
//! body came in one piece.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{body::Body, http::HeaderMap, http::header};
use bytes::{Bytes, BytesMut};
use futures_util::TryStreamExt;
use http_body_util::BodyExt as _;
use tokio::io::AsyncReadExt as _;
use tokio_util::io::StreamReader;

use crate::{
    http::{error::ApiError, state::State},
    net::Encoding,
};

/// A body in memory, counted while it lives.
pub(crate) struct ReadBody {
    pub(crate) bytes: Bytes,
    pub(crate) counted: Counted,
}

/// Bytes that are counted against the bound on all bodies.
pub(crate) struct Counted {
    total: Arc<AtomicUsize>,
    own: usize,
}

impl Counted {
    fn add(&mut self, more: usize, most: usize) -> Result<(), ApiError> {
        let before = self.total.fetch_add(more, Ordering::Relaxed);
        self.own += more;
        if before + more > most {
            return Err(ApiError::unavailable("overloaded", "too many bytes of requests are in memory; ask again"));
        }
        Ok(())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.total.fetch_sub(self.own, Ordering::Relaxed);
    }
}

/// Reads a JSON body within all bounds.
pub(crate) async fn read_body(state: &State, headers: &HeaderMap, body: Body) -> Result<ReadBody, ApiError> {
    let kind = headers.get(header::CONTENT_TYPE).map(|kind| kind.to_str().unwrap_or_default());
    if let Some(kind) = kind.filter(|kind| !is_json(kind)) {
        let kind: String = kind.chars().take(100).collect();
        return Err(ApiError::unsupported(format!("send `Content-Type: application/json`, not `{kind}`")));
    }
    let Some(encoding) = Encoding::read(headers.get(header::CONTENT_ENCODING)) else {
        return Err(ApiError::unsupported("`Content-Encoding` may be gzip, br, zstd or identity"));
    };
    let limit = Duration::from_millis(state.config.server.body_timeout_ms);
    match tokio::time::timeout(limit, read(state, encoding, headers, body)).await {
        Ok(read) => read,
        Err(_) => Err(ApiError::body_timeout()),
    }
}

fn is_json(kind: &str) -> bool {
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    kind.is_empty() || kind == "application/json" || (kind.starts_with("application/") && kind.ends_with("+json"))
}

async fn read(state: &State, encoding: Encoding, headers: &HeaderMap, body: Body) -> Result<ReadBody, ApiError> {
    let most = state.config.server.max_body_bytes;
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    if announced.is_some_and(|length| length > most) {
        state.admission.aggregates.count_unowned("too_large");
        return Err(ApiError::too_large(most));
    }
    let counted = Counted { total: Arc::clone(&state.body_bytes), own: 0 };
    let read = match encoding {
        Encoding::Identity => plain(state, body, counted, announced).await,
        Encoding::Gzip | Encoding::Brotli | Encoding::Zstd => decoded(state, encoding, body, counted).await,
    };
    if matches!(&read, Err(error) if error.is_too_large()) {
        state.admission.aggregates.count_unowned("too_large");
    }
    read
}

async fn plain(
    state: &State,
    mut body: Body,
    mut counted: Counted,
    announced: Option<usize>,
) -> Result<ReadBody, ApiError> {
    let (most, all) = (state.config.server.max_body_bytes, state.config.server.max_inflight_bytes);
    let mut first: Option<Bytes> = None;
    let mut joined = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { return Err(ApiError::invalid("the body broke off")) };
        let Ok(data) = frame.into_data() else { continue };
        counted.add(data.len(), all)?;
        if counted.own > most {
            return Err(ApiError::too_large(most));
        }
        if first.is_none() && joined.is_empty() {
            first = Some(data);
            continue;
        }
        if let Some(begun) = first.take() {
            // Room for what was announced, but not for what was only claimed.
            joined.reserve(announced.unwrap_or(0).min(1 << 20).max(begun.len() + data.len()));
            joined.extend_from_slice(&begun);
        }
        joined.extend_from_slice(&data);
    }
    Ok(ReadBody { bytes: first.unwrap_or_else(|| joined.freeze()), counted })
}

async fn decoded(state: &State, encoding: Encoding, body: Body, mut counted: Counted) -> Result<ReadBody, ApiError> {
    let (most, all) = (state.config.server.max_body_bytes, state.config.server.max_inflight_bytes);
    let pieces = TryStreamExt::map_err(body.into_data_stream(), std::io::Error::other);
    let mut reader = encoding.decoder(StreamReader::new(Box::pin(pieces)));
    let mut out = BytesMut::new();
    loop {
        out.reserve(16 * 1024);
        let read = reader.read_buf(&mut out).await;
        let read = read.map_err(|_| ApiError::invalid("the body does not decode as its `Content-Encoding` says"))?;
        if read == 0 {
            return Ok(ReadBody { bytes: out.freeze(), counted });
        }
        counted.add(read, all)?;
        if out.len() > most {
            return Err(ApiError::too_large(most));
        }
    }
}
