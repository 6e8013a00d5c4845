//! The body of a provider's answer.
//!
//! Owns the limits between and over its pieces. Never buffers: each piece is handed on as it came. Dropping it closes the
//! connection to the provider, which is how a caller who leaves cancels the call.

use std::{
    collections::VecDeque,
    future::Future as _,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body::Body as _;
use tokio::time::{Instant, Sleep};

use super::{Limit, ProviderError};

/// Pieces of an answer.
pub struct UpstreamBody {
    source: Source,
    idle: Duration,
    ends: Instant,
    /// When the last piece came.
    last: Instant,
    /// Armed for the earliest moment at which a limit could be over, and armed anew only when it rings too early: moving a
    /// timer with every piece would cost more than the piece.
    timer: Pin<Box<Sleep>>,
}

enum Source {
    Http(Box<reqwest::Body>),
    Decoded(Pin<Box<dyn tokio::io::AsyncRead + Send>>),
    Made(VecDeque<Bytes>),
}

impl UpstreamBody {
    /// The body of an HTTP answer.
    pub(super) fn http(body: reqwest::Body, idle: Duration, ends: Instant) -> Self {
        Self::new(Source::Http(Box::new(body)), idle, ends)
    }

    /// The same behind a decoder.
    pub(super) fn decoded(reader: Pin<Box<dyn tokio::io::AsyncRead + Send>>, idle: Duration, ends: Instant) -> Self {
        Self::new(Source::Decoded(reader), idle, ends)
    }

    /// Pieces that are there already.
    pub(super) fn made(pieces: impl IntoIterator<Item = Bytes>) -> Self {
        let hour = Duration::from_hours(1);
        Self::new(Source::Made(pieces.into_iter().collect()), hour, Instant::now() + hour)
    }

    fn new(source: Source, idle: Duration, ends: Instant) -> Self {
        let last = Instant::now();
        let timer = Box::pin(tokio::time::sleep_until(ends.min(last + idle)));
        Self { source, idle, ends, last, timer }
    }

    /// The next piece; `None` at the end.
    pub fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, ProviderError>>> {
        match self.poll_source(cx) {
            Poll::Ready(piece) => {
                self.last = Instant::now();
                Poll::Ready(piece)
            }
            Poll::Pending => loop {
                if self.timer.as_mut().poll(cx).is_pending() {
                    return Poll::Pending;
                }
                let over = self.ends.min(self.last + self.idle);
                let now = Instant::now();
                if now >= over {
                    let limit = if now >= self.ends { Limit::Total } else { Limit::Idle };
                    return Poll::Ready(Some(Err(ProviderError::Timeout(limit))));
                }
                self.timer.as_mut().reset(over);
            },
        }
    }

    fn poll_source(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, ProviderError>>> {
        match &mut self.source {
            Source::Made(pieces) => Poll::Ready(pieces.pop_front().map(Ok)),
            Source::Http(body) => loop {
                let frame = match Pin::new(&mut **body).poll_frame(cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(None) => return Poll::Ready(None),
                    Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(ProviderError::Broken(error)))),
                    Poll::Ready(Some(Ok(frame))) => frame,
                };
                // Trailers carry nothing that anybody reads.
                if let Ok(data) = frame.into_data()
                    && !data.is_empty()
                {
                    return Poll::Ready(Some(Ok(data)));
                }
            },
            Source::Decoded(reader) => {
                let mut buffer = vec![0; 16 * 1024];
                let mut into = tokio::io::ReadBuf::new(&mut buffer);
                match reader.as_mut().poll_read(cx, &mut into) {
                    Poll::Pending => Poll::Pending,
                    Poll::Ready(Err(_)) => Poll::Ready(Some(Err(ProviderError::Encoding))),
                    Poll::Ready(Ok(())) => {
                        let filled = into.filled().len();
                        buffer.truncate(filled);
                        Poll::Ready((filled > 0).then(|| Ok(Bytes::from(buffer))))
                    }
                }
            }
        }
    }

    /// The next piece.
    pub async fn piece(&mut self) -> Option<Result<Bytes, ProviderError>> {
        std::future::poll_fn(|cx| self.poll_piece(cx)).await
    }

    /// All of it, up to `most` bytes.
    pub async fn collect(mut self, most: usize) -> Result<Bytes, ProviderError> {
        let mut whole: Option<Bytes> = None;
        let mut joined = Vec::new();
        while let Some(piece) = self.piece().await {
            let piece = piece?;
            if whole.is_none() && joined.is_empty() {
                whole = Some(piece);
                continue;
            }
            // More than one piece: from here on they are joined.
            if let Some(first) = whole.take() {
                joined.extend_from_slice(&first);
            }
            joined.extend_from_slice(&piece);
            if joined.len() > most {
                return Err(ProviderError::TooLarge(most));
            }
        }
        match whole {
            Some(one) if one.len() > most => Err(ProviderError::TooLarge(most)),
            Some(one) => Ok(one),
            None => Ok(Bytes::from(joined)),
        }
    }
}
