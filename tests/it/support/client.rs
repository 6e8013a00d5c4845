//! A raw HTTP/1.1 client: what goes out is exactly what the test wrote.
//!
//! Owns sockets, the reading of answers and the usual call as JSON. Never follows a redirect, never retries, never
//! decompresses: the tests judge what came over the wire. An answer that stops before its framing says so is kept, with
//! `whole == false`.

use std::net::SocketAddr;

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::support::{
    sse::{self, Event},
    upstream::find,
    wait::within,
};

/// A request that may still be changed before it goes out.
#[derive(Clone)]
pub struct Call {
    method: String,
    target: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    chunked: bool,
}

impl Call {
    pub fn new(method: &str, target: &str) -> Self {
        let headers = vec![("host".into(), "gateway.test".into())];
        Self { method: method.into(), target: target.into(), headers, body: Vec::new(), chunked: false }
    }

    pub fn get(target: &str) -> Self {
        Self::new("GET", target)
    }

    pub fn post(target: &str) -> Self {
        Self::new("POST", target)
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    pub fn key(self, key: &str) -> Self {
        self.header("authorization", &format!("Bearer {key}"))
    }

    pub fn json(self, body: &Value) -> Self {
        self.header("content-type", "application/json").body(body.to_string())
    }

    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// Sends the body in chunks of seven bytes, without a length.
    pub fn chunked(mut self) -> Self {
        self.chunked = true;
        self
    }

    pub fn head_bytes(&self) -> Vec<u8> {
        let mut head = format!("{} {} HTTP/1.1\r\n", self.method, self.target);
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if self.chunked {
            head.push_str("transfer-encoding: chunked\r\n");
        } else if !self.body.is_empty() || self.method == "POST" || self.method == "PUT" {
            head.push_str(&format!("content-length: {}\r\n", self.body.len()));
        }
        head.push_str("\r\n");
        head.into_bytes()
    }

    pub fn body_bytes(&self) -> Vec<u8> {
        if !self.chunked {
            return self.body.clone();
        }
        let mut framed = Vec::new();
        for part in self.body.chunks(7) {
            framed.extend_from_slice(format!("{:x}\r\n", part.len()).as_bytes());
            framed.extend_from_slice(part);
            framed.extend_from_slice(b"\r\n");
        }
        framed.extend_from_slice(b"0\r\n\r\n");
        framed
    }

    pub fn bytes(&self) -> Vec<u8> {
        [self.head_bytes(), self.body_bytes()].concat()
    }

    /// One call on a connection of its own.
    pub async fn send(&self, address: SocketAddr) -> Reply {
        let mut wire = Wire::open(address).await;
        wire.send(&self.bytes()).await;
        wire.reply_to(&self.method).await
    }

    /// Sends the call and leaves the connection to the test.
    pub async fn begin(&self, address: SocketAddr) -> Wire {
        let mut wire = Wire::open(address).await;
        wire.send(&self.bytes()).await;
        wire
    }
}

/// Status line and headers of an answer.
#[derive(Clone, Debug)]
pub struct Head {
    pub status: u16,
    pub headers: Vec<(String, String)>,
}

impl Head {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}

/// An answer, as far as it came.
#[derive(Clone, Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// The framing's own end was seen.
    pub whole: bool,
}

impl Reply {
    pub fn text(&self) -> String {
        String::from_utf8(self.body.clone()).expect("answers are UTF-8")
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("not JSON ({error}), status {}: {}", self.status, self.text()))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    pub fn events(&self) -> Vec<Event> {
        sse::events(&self.body)
    }

    /// Demands a status, and shows the body when it is another.
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", String::from_utf8_lossy(&self.body));
        self
    }

    /// The text of the answer's first choice.
    pub fn content(&self) -> String {
        self.json()["choices"][0]["message"]["content"].as_str().expect("the answer has content").to_owned()
    }
}

enum Framing {
    None,
    Length(usize),
    Chunked,
    UntilClose,
}

/// One connection.
pub struct Wire {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Wire {
    pub async fn open(address: SocketAddr) -> Self {
        Self::try_open(address).await.expect("somebody listens")
    }

    /// A connection, unless nobody listens.
    pub async fn try_open(address: SocketAddr) -> Option<Self> {
        let stream = within("a connection to the gateway", TcpStream::connect(address)).await.ok()?;
        stream.set_nodelay(true).unwrap();
        Some(Self { stream, buffer: Vec::new() })
    }

    /// Sends bytes; a gateway that has answered and closed already is no error.
    pub async fn send(&mut self, bytes: &[u8]) {
        // The answer to a refused body may come before all of it was sent: reading will tell.
        drop(within("the gateway to take bytes", self.stream.write_all(bytes)).await);
    }

    /// Closes the sending half, as clients that have said everything may.
    pub async fn half_close(&mut self) {
        self.stream.shutdown().await.unwrap();
    }

    /// Goes away with a reset instead of a close.
    pub fn reset(self) {
        self.stream.set_zero_linger().unwrap();
    }

    async fn more(&mut self) -> bool {
        let read = self.stream.read_buf(&mut self.buffer);
        matches!(within("bytes from the gateway", read).await, Ok(1..))
    }

    async fn line(&mut self) -> Option<String> {
        loop {
            if let Some(at) = find(&self.buffer, b"\r\n") {
                let line = String::from_utf8_lossy(&self.buffer[..at]).into_owned();
                self.buffer.drain(..at + 2);
                return Some(line);
            }
            if !self.more().await {
                return None;
            }
        }
    }

    async fn exactly(&mut self, length: usize) -> Option<Vec<u8>> {
        while self.buffer.len() < length {
            if !self.more().await {
                return None;
            }
        }
        Some(self.buffer.drain(..length).collect())
    }

    /// The next head, an interim one (1xx) included; `None` if the connection ends first.
    pub async fn try_head(&mut self) -> Option<Head> {
        let status_line = self.line().await?;
        let status = status_line.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status line");
        let mut headers = Vec::new();
        loop {
            let line = self.line().await?;
            if line.is_empty() {
                return Some(Head { status, headers });
            }
            let (name, value) = line.split_once(':').expect("a header line");
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
    }

    pub async fn head(&mut self) -> Head {
        self.try_head().await.expect("an answer before the connection ends")
    }

    fn framing(head: &Head, method: &str) -> Framing {
        if method == "HEAD" || head.status == 204 || head.status == 304 || head.status < 200 {
            Framing::None
        } else if head.header("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked")) {
            Framing::Chunked
        } else if let Some(length) = head.header("content-length") {
            Framing::Length(length.parse().unwrap())
        } else {
            Framing::UntilClose
        }
    }

    /// The next chunk of a chunked body: `Some(Ok)` bytes, `Some(Err)` cut off, `None` the proper end.
    pub async fn chunk(&mut self) -> Option<Result<Vec<u8>, ()>> {
        let Some(size) = self.line().await else { return Some(Err(())) };
        let size = usize::from_str_radix(size.trim(), 16).expect("a chunk size");
        let Some(mut bytes) = self.exactly(size + 2).await else { return Some(Err(())) };
        bytes.truncate(size);
        if size == 0 { None } else { Some(Ok(bytes)) }
    }

    /// Reads chunks until their text contains `needle`.
    pub async fn read_until(&mut self, needle: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        while find(&bytes, needle.as_bytes()).is_none() {
            match self.chunk().await {
                Some(Ok(part)) => bytes.extend_from_slice(&part),
                _ => panic!("the stream ended before {needle:?}: {}", String::from_utf8_lossy(&bytes)),
            }
        }
        bytes
    }

    /// All chunks that are left, and whether the end was a proper one.
    pub async fn rest(&mut self) -> (Vec<u8>, bool) {
        let mut bytes = Vec::new();
        loop {
            match self.chunk().await {
                Some(Ok(part)) => bytes.extend_from_slice(&part),
                Some(Err(())) => return (bytes, false),
                None => return (bytes, true),
            }
        }
    }

    /// The final answer; interim ones are skipped.
    pub async fn reply(&mut self) -> Reply {
        self.reply_to("GET").await
    }

    pub async fn reply_to(&mut self, method: &str) -> Reply {
        self.try_reply_to(method).await.expect("an answer before the connection ends")
    }

    /// The final answer; `None` if the connection ends before its head.
    pub async fn try_reply_to(&mut self, method: &str) -> Option<Reply> {
        let head = loop {
            let head = self.try_head().await?;
            if head.status >= 200 {
                break head;
            }
        };
        let (body, whole) = match Self::framing(&head, method) {
            Framing::None => (Vec::new(), true),
            Framing::Chunked => self.rest().await,
            Framing::Length(length) => match self.exactly(length).await {
                Some(body) => (body, true),
                None => (std::mem::take(&mut self.buffer), false),
            },
            Framing::UntilClose => {
                while self.more().await {}
                (std::mem::take(&mut self.buffer), true)
            }
        };
        Some(Reply { status: head.status, headers: head.headers, body, whole })
    }

    /// Waits until the gateway closes; what it still sent is given back.
    pub async fn closed(&mut self) -> Vec<u8> {
        while self.more().await {}
        std::mem::take(&mut self.buffer)
    }
}

/// The same call again and again on one connection until the gateway is gone: task ids of the answers that came whole.
pub async fn call_until_it_ends(address: SocketAddr, call: Vec<u8>) -> Vec<String> {
    let mut answered = Vec::new();
    // A caller that comes too late finds nobody, which is no failure of this test.
    let Ok(stream) = TcpStream::connect(address).await else { return answered };
    let mut wire = Wire { stream, buffer: Vec::new() };
    loop {
        wire.send(&call).await;
        let Some(head) = wire.try_head().await else { return answered };
        let length = head.header("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
        let Some(body) = wire.exactly(length).await else { return answered };
        if head.status == 200 {
            let body: Value = serde_json::from_slice(&body).unwrap();
            answered.push(body["tappass"]["task_id"].as_str().unwrap().to_owned());
        }
    }
}
