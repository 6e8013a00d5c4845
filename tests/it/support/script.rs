//! What the scripted provider is told to answer.
//!
//! Owns the moves of a script (pieces, waits, ends) and its gates. Never touches a socket: `upstream` plays it.

use std::sync::Arc;

use serde_json::Value;
use tokio::sync::watch;

use crate::support::wait::within;

/// A place in a script where it waits for the test.
#[derive(Clone)]
pub struct Gate(Arc<(watch::Sender<bool>, watch::Sender<bool>)>);

impl Gate {
    pub fn new() -> Self {
        Self(Arc::new((watch::channel(false).0, watch::channel(false).0)))
    }

    /// Lets the script go on.
    pub fn open(&self) {
        self.0.1.send_replace(true);
    }

    /// Waits until a script stands here.
    pub async fn reached(&self) {
        within("a script to reach its gate", async { self.0.0.subscribe().wait_for(|at| *at).await.map(|_| ()) })
            .await
            .unwrap();
    }

    /// Waits for the test to open it.
    pub async fn pass(&self) -> bool {
        self.0.0.send_replace(true);
        let mut opened = self.0.1.subscribe();
        // The sender lives as long as this gate does.
        opened.wait_for(|open| *open).await.is_ok()
    }
}

/// One move of a script.
#[derive(Clone)]
pub enum Act {
    Piece(Vec<u8>),
    Wait(Gate),
}

/// How an answer stops.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// As HTTP wants it; the connection stays open for the next request.
    Clean,
    /// The connection is closed without the end that the framing promised.
    Close,
    /// The connection is reset.
    Reset,
    /// Nothing more comes; the connection stays open until the peer leaves.
    Stall,
}

/// One scripted answer.
#[derive(Clone)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub before_head: Vec<Act>,
    pub headless: bool,
    pub body: Vec<Act>,
    pub chunked: bool,
    pub declared: Option<usize>,
    pub end: End,
}

impl Answer {
    /// A whole answer with a length.
    pub fn whole(status: u16, content_type: &str, body: impl Into<Vec<u8>>) -> Self {
        Self {
            status,
            headers: vec![("content-type".into(), content_type.into())],
            before_head: Vec::new(),
            headless: false,
            body: vec![Act::Piece(body.into())],
            chunked: false,
            declared: None,
            end: End::Clean,
        }
    }

    pub fn json(status: u16, body: &Value) -> Self {
        Self::whole(status, "application/json", body.to_string())
    }

    /// A chunked event stream of these pieces.
    pub fn stream<P: Into<Vec<u8>>>(pieces: impl IntoIterator<Item = P>) -> Self {
        let mut answer = Self::whole(200, "text/event-stream", Vec::new());
        answer.chunked = true;
        answer.body = pieces.into_iter().map(|piece| Act::Piece(piece.into())).collect();
        answer
    }

    /// A connection that ends before any byte of an answer.
    pub fn nothing(end: End) -> Self {
        let mut answer = Self::whole(200, "text/plain", Vec::new());
        answer.headless = true;
        answer.body.clear();
        answer.end(end)
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.retain(|(known, _)| !known.eq_ignore_ascii_case(name) || name.eq_ignore_ascii_case("set-cookie"));
        self.headers.push((name.into(), value.into()));
        self
    }

    pub fn piece(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.body.push(Act::Piece(bytes.into()));
        self
    }

    /// Waits before the next piece.
    pub fn pause(mut self, gate: &Gate) -> Self {
        self.body.push(Act::Wait(gate.clone()));
        self
    }

    /// Waits before the status line.
    pub fn hold_head(mut self, gate: &Gate) -> Self {
        self.before_head.push(Act::Wait(gate.clone()));
        self
    }

    /// Waits between the head and the first byte of the body.
    pub fn hold_body(mut self, gate: &Gate) -> Self {
        self.body.insert(0, Act::Wait(gate.clone()));
        self
    }

    /// Promises this many bytes, whatever comes.
    pub fn declare(mut self, length: usize) -> Self {
        self.declared = Some(length);
        self
    }

    pub fn end(mut self, end: End) -> Self {
        self.end = end;
        self
    }

    /// Status line and headers as they go out.
    pub fn head(&self) -> Vec<u8> {
        let mut head = format!("HTTP/1.1 {} Scripted\r\n", self.status);
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if self.chunked {
            head.push_str("transfer-encoding: chunked\r\n");
        } else {
            let total: usize =
                self.body.iter().map(|act| if let Act::Piece(bytes) = act { bytes.len() } else { 0 }).sum();
            head.push_str(&format!("content-length: {}\r\n", self.declared.unwrap_or(total)));
        }
        head.push_str("\r\n");
        head.into_bytes()
    }
}
