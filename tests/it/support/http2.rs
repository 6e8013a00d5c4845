//! An HTTP/2 client with prior knowledge (h2c), as a load balancer would speak to us.
//!
//! Owns one connection. Never negotiates: the gateway must tell HTTP/2 from HTTP/1.1 by the first bytes.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, client::conn::http2::SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;
use tokio::net::TcpStream;

use crate::support::wait::within;

/// One connection; requests may run side by side.
#[derive(Clone)]
pub struct Http2 {
    sender: SendRequest<Full<Bytes>>,
    address: SocketAddr,
}

impl Http2 {
    pub async fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
        let (sender, connection) = within("the HTTP/2 handshake", handshake).await.unwrap();
        // The connection ends when the last sender is dropped; its error then is the test's to notice.
        tokio::spawn(async { connection.await.ok() });
        Self { sender, address }
    }

    fn request(&self, method: &str, target: &str, key: &str, body: &Value) -> Request<Full<Bytes>> {
        let body = if body.is_null() { Bytes::new() } else { Bytes::from(body.to_string()) };
        let builder = Request::builder().method(method).uri(format!("http://{}{target}", self.address));
        let builder =
            builder.header("authorization", format!("Bearer {key}")).header("content-type", "application/json");
        builder.body(Full::new(body)).unwrap()
    }

    /// Sends a call; the answer comes with its body unread.
    pub async fn send(&mut self, method: &str, target: &str, key: &str, body: &Value) -> Response<Incoming> {
        let request = self.request(method, target, key, body);
        within("an answer over HTTP/2", self.sender.send_request(request)).await.unwrap()
    }

    /// The call as a future that can be dropped, which resets its stream.
    pub fn begin(
        &mut self,
        method: &str,
        target: &str,
        key: &str,
        body: &Value,
    ) -> impl Future<Output = hyper::Result<Response<Incoming>>> + use<> {
        let request = self.request(method, target, key, body);
        self.sender.send_request(request)
    }

    /// Waits until the connection takes another stream.
    pub async fn ready(&mut self) -> bool {
        within("the HTTP/2 connection", self.sender.ready()).await.is_ok()
    }
}

/// The whole body, or what came before it broke off.
pub async fn read(body: Incoming) -> (Vec<u8>, bool) {
    let mut body = body;
    let mut bytes = Vec::new();
    while let Some(frame) = within("a frame", body.frame()).await {
        match frame {
            Ok(frame) => bytes.extend_from_slice(&frame.into_data().unwrap_or_default()),
            Err(_) => return (bytes, false),
        }
    }
    (bytes, true)
}
