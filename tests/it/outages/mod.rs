//! What happens when a neighbour is down: one file per row of the table of failures, against real servers.
//!
//! Owns a cluster on servers of its own, which a test may stop, and the accounts afterwards. Never sleeps: what takes time
//! is asked for until it is there.

mod commit_unknown;
mod drain;
mod lease;
mod postgres_at_start;
mod postgres_stopped;
mod redis_away;
mod slow_org;

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::support::{
    chain::Chain,
    client::{Call, Reply},
    cluster::{Builder, Cluster},
    postgres::Postgres,
    upstream::Upstream,
    wait::until,
};

/// A decision may be made again for two seconds; the rest is a busy machine.
const DEADLINE: Duration = Duration::from_millis(3_500);

/// Whether the long forms are wanted, which take minutes.
fn is_long() -> bool {
    std::env::var_os("TAPPASS_LONG").is_some_and(|value| value == "1")
}

/// Gateways on a Postgres of their own, and the provider that they call.
struct Rig {
    cluster: Cluster,
    postgres: Postgres,
    database: String,
    upstream: Upstream,
}

impl Rig {
    /// So many gateways under a budget that nobody reaches, so that every call holds money.
    async fn start(count: usize) -> Self {
        Self::start_with(count, |builder| builder).await
    }

    async fn start_with(count: usize, settings: impl FnOnce(Builder) -> Builder) -> Self {
        let mut rig = Self::prepare(settings).await;
        for _ in 0..count {
            rig.cluster.add().await;
        }
        rig.meet().await;
        rig
    }

    /// Without a gateway yet.
    async fn prepare(settings: impl FnOnce(Builder) -> Builder) -> Self {
        let (upstream, postgres) = (Upstream::start(), Postgres::start().await);
        let url = postgres.database().await;
        let database = url.rsplit('/').next().unwrap().to_owned();
        let cluster = settings(Cluster::builder(&upstream)).prepare(&url);
        Self { cluster, postgres, database, upstream }
    }

    async fn meet(&mut self) {
        self.cluster.meet().await;
        self.cluster.budget(json!({"limit_usd": 100_000})).await;
    }

    fn address(&self, node: usize) -> SocketAddr {
        self.cluster.nodes[node].address
    }

    fn addresses(&self) -> Vec<SocketAddr> {
        self.cluster.nodes.iter().map(|node| node.address).collect()
    }

    async fn psql(&self, sql: &str) -> String {
        self.postgres.psql(&self.database, sql).await
    }

    /// Everything is on record once, the money is where the record says, and the product's own verifier is content.
    async fn books(&self) -> Chain {
        self.cluster.settled().await;
        let sums = "SELECT (SELECT count(*) FROM hold), sum(held_nano), sum(settled_nano) FROM spending";
        // An instance that was closed while it lived corrects what was settled for it, in its own time.
        let chain = until("no hold, nothing held, and the money where the record says", async || {
            let chain = self.cluster.chain();
            let settled = i64::try_from(chain.assert_whole()).unwrap() + chain.corrected();
            (self.psql(sums).await == format!("0|0|{settled}")).then_some(chain)
        })
        .await;
        chain.assert_fresh();
        self.cluster.assert_verifies();
        chain
    }
}

/// One call, and how long it took.
async fn timed(call: &Call, address: SocketAddr) -> (Reply, Duration) {
    let began = Instant::now();
    let reply = call.send(address).await;
    (reply, began.elapsed())
}

/// A refusal that says that it is not the caller's fault and when to ask again.
#[track_caller]
fn assert_unavailable((reply, took): &(Reply, Duration)) {
    assert_eq!(reply.status, 503, "{}", reply.text());
    let code = reply.json()["error"]["code"].as_str().unwrap_or_default().to_owned();
    let known = ["record_unavailable", "record_slow", "lease_lost", "database_unavailable", "starting"];
    assert!(known.contains(&code.as_str()), "{}", reply.text());
    assert!(reply.header("retry-after").is_some_and(|seconds| seconds.parse::<u32>().is_ok()), "{:?}", reply.headers);
    assert!(*took < DEADLINE, "{took:?} for {}", reply.text());
}

/// The reasons why a gateway is not ready, once it is not.
async fn not_ready(address: SocketAddr) -> Vec<Value> {
    until("a gateway to say that it is not ready", async || {
        let reply = Call::get("/health/ready").send(address).await;
        let reasons = reply.json()["reasons"].as_array().cloned().unwrap_or_default();
        (reply.status == 503 && !reasons.is_empty()).then_some(reasons)
    })
    .await
}

/// It lives, and says so at once whatever else hangs.
async fn assert_alive(address: SocketAddr) {
    for target in ["/health", "/health/live"] {
        let (reply, took) = timed(&Call::get(target), address).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        assert!(took < Duration::from_secs(1), "{target} took {took:?}");
    }
}
