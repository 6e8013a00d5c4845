//! The mock provider seen from here: its words and its counters.
//! Never starts it; an answer that is not 200 is an error.

use crate::{http::Endpoint, load};

pub struct Mock {
    port: u16,
}

/// What the mock has seen so far.
pub struct Stats {
    pub in_flight: i64,
    pub started: i64,
    pub cancelled: i64,
    /// The clock of `load::monotonic_ns` at the last cancellation.
    pub cancelled_at_ns: u64,
}

impl Mock {
    pub fn new(port: u16) -> Self {
        Mock { port }
    }

    /// Sets the behaviour of all requests from now on.
    pub fn set(&self, words: &str) -> Result<(), String> {
        let to = Endpoint::local(self.port, &format!("/control?{words}"), None);
        self.ask(&to, &to.post("")).map(drop)
    }

    pub fn stats(&self) -> Result<Stats, String> {
        let to = Endpoint::local(self.port, "/stats", None);
        let body = self.ask(&to, &to.get())?;
        let json: serde_json::Value = serde_json::from_slice(&body).map_err(|e| format!("the mock's stats: {e}"))?;
        let number = |name: &str| json[name].as_i64().ok_or_else(|| format!("the mock's stats have no `{name}`"));
        Ok(Stats {
            in_flight: number("in_flight")?,
            started: number("started")?,
            cancelled: number("cancelled")?,
            cancelled_at_ns: number("cancelled_at_ns")? as u64,
        })
    }

    fn ask(&self, to: &Endpoint, request: &[u8]) -> Result<Vec<u8>, String> {
        match load::ask(to, request) {
            Ok((200, body)) => Ok(body),
            other => Err(format!("the mock at {}: {other:?}", to.path)),
        }
    }
}
