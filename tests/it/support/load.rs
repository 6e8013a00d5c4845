//! Callers who never stop: what a busy gateway has to do with.
//!
//! Owns one connection per caller, kept alive, and what each heard. A caller whose connection ends opens another; one whom
//! nobody lets in any more goes home. Never waits between two calls, never judges: tests do.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use serde_json::Value;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::support::client::{Call, Reply, Wire};

/// One answer.
#[derive(Clone, Debug)]
pub struct Heard {
    pub address: SocketAddr,
    pub began: Instant,
    pub took: Duration,
    /// 0: the connection ended before an answer.
    pub status: u16,
    /// The word of an error.
    pub code: String,
    /// The admission that an answer names.
    pub id: Option<String>,
    pub retry_after: Option<String>,
}

/// Callers at work.
pub struct Load {
    heard: Arc<Mutex<Vec<Heard>>>,
    stop: CancellationToken,
    callers: Vec<JoinHandle<()>>,
}

impl Load {
    /// So many callers, each at one of the addresses.
    pub fn start(callers: usize, addresses: &[SocketAddr], call: &Call) -> Self {
        let (heard, stop) = (Arc::default(), CancellationToken::new());
        let caller = |number: usize| {
            let address = addresses[number % addresses.len()];
            tokio::spawn(calls(address, call.bytes(), Arc::clone(&heard), stop.clone()))
        };
        let callers = (0..callers).map(caller).collect();
        Self { heard, stop, callers }
    }

    pub fn count(&self) -> usize {
        self.heard.lock().unwrap().len()
    }

    /// Every caller hears the answer to its last call, and goes home.
    pub async fn stop(self) -> Vec<Heard> {
        self.stop.cancel();
        for caller in self.callers {
            caller.await.unwrap();
        }
        std::mem::take(&mut *self.heard.lock().unwrap())
    }
}

async fn calls(address: SocketAddr, call: Vec<u8>, heard: Arc<Mutex<Vec<Heard>>>, stop: CancellationToken) {
    while !stop.is_cancelled() {
        let Some(mut wire) = Wire::try_open(address).await else { return };
        while !stop.is_cancelled() {
            let began = Instant::now();
            wire.send(&call).await;
            let reply = wire.try_reply_to("POST").await;
            let ended = reply.as_ref().is_none_or(|reply| !reply.whole || reply.header("connection") == Some("close"));
            heard.lock().unwrap().push(Heard::new(address, began, reply));
            if ended {
                break;
            }
        }
    }
}

impl Heard {
    fn new(address: SocketAddr, began: Instant, reply: Option<Reply>) -> Self {
        let took = began.elapsed();
        let Some(reply) = reply.filter(|reply| reply.whole) else {
            let (code, id, retry_after) = (String::new(), None, None);
            return Self { address, began, took, status: 0, code, id, retry_after };
        };
        let body: Value = serde_json::from_slice(&reply.body).unwrap_or_default();
        let id = body["tappass"]["pipeline_uuid"].as_str().map(str::to_owned);
        let code = body["error"]["code"].as_str().unwrap_or_default().to_owned();
        let retry_after = reply.header("retry-after").map(str::to_owned);
        Self { address, began, took, status: reply.status, code, id, retry_after }
    }
}

/// How many answers had each status and code, for the eye.
pub fn tally(heard: &[Heard]) -> String {
    let mut counts = std::collections::BTreeMap::new();
    for one in heard {
        *counts.entry(format!("{} {}", one.status, one.code)).or_insert(0) += 1;
    }
    format!("{counts:?}")
}

/// The slowest answer, and the one that a hundredth is slower than.
pub fn latency(heard: &[Heard]) -> (Duration, Duration) {
    let mut all: Vec<Duration> = heard.iter().map(|one| one.took).collect();
    all.sort_unstable();
    let at = |share: usize| all.get(all.len() * share / 100).or(all.last()).copied().unwrap_or_default();
    (all.last().copied().unwrap_or_default(), at(99))
}
