//! The listener: connections, protocols, time limits.
//!
//! Owns the accept loop. HTTP/1 and HTTP/2 without TLS (h2c, by prior knowledge) come in on one port and are told apart by
//! their first bytes, which must arrive within the header time limit, so that a silent socket does not stay. `TCP_NODELAY`
//! everywhere. A caller that does not read is cut after the write time limit. On shutdown idle connections close at once
//! and busy ones after their request.

use std::{
    future::Future,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Buf, Bytes};
use hyper::{Request, body::Incoming, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{Instant, Sleep},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{door::Door, middleware::Remote};
use crate::config::ServerConfig;

/// The first bytes of HTTP/2 by prior knowledge; no method of HTTP/1 begins so.
const HTTP2: &[u8] = b"PRI ";

/// When connections end.
#[derive(Clone)]
pub struct Ends {
    /// After what they are doing.
    pub stop: CancellationToken,
    /// At once.
    pub cut: CancellationToken,
}

/// Serves until `stop`; connections run under the tracker.
pub async fn serve(listener: TcpListener, door: Door, config: ServerConfig, ends: Ends, tracker: TaskTracker) {
    let connections = Arc::new(Semaphore::new(config.max_connections));
    let config = Arc::new(config);
    loop {
        let accepted = tokio::select! {
            () = ends.stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let (stream, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, most likely: do not spin.
                tracing::warn!(error = &error as &dyn std::error::Error, "a connection was not accepted");
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            }
        };
        let Ok(permit) = Arc::clone(&connections).try_acquire_owned() else {
            // Closing says the same as an answer would, and costs nothing.
            drop(stream);
            continue;
        };
        let (door, config, ends) = (door.clone(), Arc::clone(&config), ends.clone());
        tracker.spawn(async move {
            let cut = ends.cut.clone();
            tokio::select! {
                () = connection(stream, address, door, &config, ends.stop) => {}
                () = cut.cancelled() => {}
            }
            drop(permit);
        });
    }
}

async fn connection(
    mut stream: TcpStream,
    address: SocketAddr,
    door: Door,
    config: &ServerConfig,
    stop: CancellationToken,
) {
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let header_timeout = Duration::from_millis(config.header_timeout_ms);
    let first = tokio::select! {
        () = stop.cancelled() => return,
        first = tokio::time::timeout(header_timeout, first_bytes(&mut stream)) => first,
    };
    let Ok(Ok(first)) = first else { return };
    if first.is_empty() {
        return;
    }
    let is_http2 = first.starts_with(HTTP2);
    let io = TokioIo::new(Timed::new(stream, first, Duration::from_millis(config.write_timeout_ms)));
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(Remote(address));
        let door = door.clone();
        async move { door.answer(request).await }
    });
    if is_http2 {
        let mut http = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        http.timer(TokioTimer::new())
            .max_concurrent_streams(config.max_streams_per_connection)
            .max_pending_accept_reset_streams(32)
            .max_header_list_size(64 * 1024)
            .keep_alive_interval(Duration::from_secs(20))
            .keep_alive_timeout(Duration::from_secs(20));
        let served = http.serve_connection(io, service);
        drive(served, stop, hyper::server::conn::http2::Connection::graceful_shutdown).await;
    } else {
        let mut http = hyper::server::conn::http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(header_timeout).max_buf_size(128 * 1024);
        let served = http.serve_connection(io, service);
        drive(served, stop, hyper::server::conn::http1::Connection::graceful_shutdown).await;
    }
}

/// Runs a connection to its end; on `stop` it finishes what it is doing.
async fn drive<C>(served: C, stop: CancellationToken, shut: impl FnOnce(Pin<&mut C>))
where
    C: Future<Output = Result<(), hyper::Error>>,
{
    let mut served = std::pin::pin!(served);
    let ended = tokio::select! {
        ended = served.as_mut() => ended,
        () = stop.cancelled() => {
            shut(served.as_mut());
            served.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(error = &error as &dyn std::error::Error, "a connection ended");
    }
}

/// Enough of the first bytes to tell the protocol; fewer only if the peer closed.
async fn first_bytes(stream: &mut TcpStream) -> io::Result<Bytes> {
    let mut bytes = Vec::with_capacity(4_096);
    while bytes.len() < HTTP2.len() && HTTP2.starts_with(&bytes) {
        if stream.read_buf(&mut bytes).await? == 0 {
            break;
        }
    }
    Ok(Bytes::from(bytes))
}

/// A socket whose first bytes were read already, and which may not leave writes pending for ever.
struct Timed {
    stream: TcpStream,
    first: Bytes,
    limit: Duration,
    blocked: Option<Pin<Box<Sleep>>>,
}

impl Timed {
    fn new(stream: TcpStream, first: Bytes, limit: Duration) -> Self {
        Self { stream, first, limit, blocked: None }
    }

    /// Passes a write's outcome on; one that stays pending beyond the limit is an error.
    fn watch<T>(&mut self, cx: &mut Context<'_>, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.blocked = None;
            return polled;
        }
        let limit = self.limit;
        let timer = self.blocked.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(Instant::now() + limit)));
        if timer.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the peer does not read")));
        }
        Poll::Pending
    }
}

impl AsyncRead for Timed {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.first.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, into);
        }
        let length = self.first.len().min(into.remaining());
        into.put_slice(self.first.get(..length).unwrap_or_default());
        self.first.advance(length);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Timed {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.watch(cx, polled)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.watch(cx, polled)
    }
}
