//! Redis away under three gateways: one short wait, then limits in memory that hold all the same, and a quiet log.

use std::{net::SocketAddr, time::Duration};

use serde_json::{Value, json};

use super::is_long;
use crate::support::{
    chaos::Chaos,
    client::{Call, Reply},
    cluster::Cluster,
    load::{Load, latency, tally},
    openai::ask,
    postgres::Postgres,
    redis::Redis,
    round_robin::RoundRobin,
    upstream::Upstream,
    wait::until,
};

/// A machine that runs all tests at once is slower than the default of 50 ms allows for.
const TIMEOUT: Duration = Duration::from_secs(1);

struct Three {
    cluster: Cluster,
    chaos: Chaos,
    redis: Redis,
    _upstream: Upstream,
}

/// Three gateways, a Redis, and a wire between them.
async fn three() -> Three {
    let (upstream, redis) = (Upstream::start(), Redis::start().await);
    let chaos = Chaos::in_front_of(([127, 0, 0, 1], redis.port).into());
    let database = Postgres::shared().await.database().await;
    let builder = Cluster::builder(&upstream).database_url(&database).env("REDIS_URL", &chaos.instead_of(&redis.url()));
    // How many live is counted with each heartbeat, six in a lease.
    let builder = builder.env("TAPPASS_DATABASE__LEASE_MS", "6000").env("TAPPASS_REDIS__TIMEOUT_MS", "1000");
    let cluster = builder.env("TAPPASS_REDIS__CONNECT_TIMEOUT_MS", "2000").start(3).await;
    let three = Three { cluster, chaos, redis, _upstream: upstream };
    three.all_are("ok").await;
    three
}

impl Three {
    fn addresses(&self) -> Vec<SocketAddr> {
        self.cluster.nodes.iter().map(|node| node.address).collect()
    }

    async fn all_are(&self, wanted: &str) {
        for address in self.addresses() {
            until(&format!("a gateway to be {wanted}"), async || {
                let health = Call::get("/health").send(address).await.expect(200).json();
                let named = health["reasons"].to_string().contains("Redis");
                assert_eq!(named, health["status"] == "degraded", "{health}");
                (health["status"] == wanted).then_some(())
            })
            .await;
        }
    }

    async fn gauges(&self) -> Vec<String> {
        let mut gauges = Vec::new();
        for node in 0..3 {
            let text = self.cluster.admin(node, "GET", "/metrics", Value::Null).await.expect(200).text();
            let line = text.lines().find(|line| line.starts_with("tappass_redis_degraded")).expect("the gauge");
            gauges.push(line.rsplit(' ').next().unwrap().to_owned());
        }
        gauges
    }

    /// How often the gateways' logs speak of Redis.
    fn lines(&self) -> usize {
        self.cluster.logs().lines().filter(|line| line.contains("Redis")).count()
    }

    async fn limit(&self, calls: u64) {
        let overrides = json!({"rate_limit": {"max_calls": calls, "window_seconds": 3600}});
        let spec = json!({"preset": "starter", "overrides": overrides});
        self.cluster.admin(0, "PUT", "/api/pipeline", spec).await.expect(200);
    }

    async fn call(&self, address: SocketAddr) -> Reply {
        self.cluster.chat_call(&ask("hi")).send(address).await
    }

    /// Every gateway has counted all three of them.
    async fn have_met(&self) {
        let postgres = Postgres::shared().await;
        let database = self.cluster.url().rsplit('/').next().unwrap();
        let micros = async |sql: &str| postgres.psql(database, sql).await.parse::<i64>().unwrap();
        let now = micros("SELECT tappass_now()").await;
        until("two heartbeats of everybody", async || {
            let least = micros("SELECT min(lease_until) FROM boot WHERE closed = 0").await;
            (least > now + 6_000_000 + 1_500_000).then_some(())
        })
        .await;
    }

    /// So many calls at each gateway; how many were let through.
    async fn burst(&self, each: usize) -> usize {
        let mut passed = 0;
        for _ in 0..each {
            for address in self.addresses() {
                let reply = self.call(address).await;
                if reply.status == 200 {
                    passed += 1;
                    continue;
                }
                assert_eq!(reply.status, 429, "{}", reply.text());
                let seconds: u64 = reply.header("retry-after").expect("when to ask again").parse().unwrap();
                assert!((1..=3_600).contains(&seconds), "{seconds}");
                assert_eq!(reply.header("x-tappass-limit-source"), Some("tappass"));
            }
        }
        passed
    }
}

/// One caller per gateway meets the outage; nobody waits twice, and nobody is refused.
async fn costs_one_wait(begin: impl AsyncFnOnce(&Three), end: impl AsyncFnOnce(&Three)) {
    let three = three().await;
    assert_eq!(three.gauges().await, ["0", "0", "0"]);
    let load = Load::start(3, &three.addresses(), &three.cluster.chat_call(&ask("hi")));
    until("some load", async || (load.count() >= 60).then_some(())).await;
    begin(&three).await;
    three.all_are("degraded").await;
    assert_eq!(three.gauges().await, ["1", "1", "1"]);
    for node in &three.cluster.nodes {
        assert!(node.is_ready().await, "a gateway without Redis serves");
    }
    // Long enough for some attempts to reach it again.
    let most = load.count() + if is_long() { 3_000 } else { 300 };
    until("more load", async || (load.count() >= most).then_some(())).await;
    let heard = load.stop().await;
    let (slowest, nearly_all) = latency(&heard);
    println!("{}; p99 {nearly_all:?}, slowest {slowest:?}", tally(&heard));
    assert!(heard.iter().all(|one| one.status == 200), "{}", tally(&heard));
    for address in three.addresses() {
        let waited = heard.iter().filter(|one| one.address == address && one.took > TIMEOUT * 8 / 10).count();
        assert!(waited <= 1, "{waited} calls in a row waited for what was known to be away");
    }
    assert!(slowest < TIMEOUT + Duration::from_millis(1_500), "{slowest:?}");
    end(&three).await;
    three.all_are("ok").await;
    assert_eq!(three.gauges().await, ["0", "0", "0"]);
    assert_eq!(three.lines(), 6, "each gateway says once that it is lost and once that it is back");
    let reply = three.call(three.addresses()[0]).await.expect(200);
    assert!(reply.header("x-ratelimit-remaining-requests").is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_in_a_black_hole_costs_each_gateway_one_short_wait() {
    costs_one_wait(async |three| three.chaos.black_hole(), async |three| three.chaos.mend().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_is_killed_costs_nobody_a_wait() {
    costs_one_wait(async |three| three.redis.kill().await, async |three| three.redis.start_again().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_hangs_costs_each_gateway_one_short_wait() {
    costs_one_wait(async |three| three.redis.pause(), async |three| three.redis.resume()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_comes_and_goes_does_not_fill_the_log() {
    let three = three().await;
    for _ in 0..if is_long() { 20 } else { 4 } {
        three.chaos.cut().await;
        three.all_are("degraded").await;
        three.chaos.mend().await;
        three.all_are("ok").await;
    }
    let lines = three.lines();
    assert!((6..=9).contains(&lines), "{lines} lines about one Redis:\n{}", three.cluster.logs());
}

/// A limit of sixty is a limit of sixty before, during and after.
async fn keeps_the_limit(begin: impl AsyncFnOnce(&Three), end: impl AsyncFnOnce(&Three)) {
    let three = three().await;
    three.have_met().await;
    three.limit(60).await;
    let before = three.burst(10).await;
    assert_eq!(before, 30);
    begin(&three).await;
    let during = three.burst(25).await;
    three.all_are("degraded").await;
    end(&three).await;
    three.all_are("ok").await;
    let after = three.burst(10).await;
    println!("of 60: {before} before, {during} without Redis, {after} after");
    let all = before + during + after;
    assert!(all <= 72, "{before} + {during} + {after} of 60");
    assert!(during >= 15, "three gateways share what is left, and do not refuse it: {during} of 30");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_in_a_black_hole_hands_out_no_second_allowance_over_three_gateways() {
    keeps_the_limit(async |three| three.chaos.black_hole(), async |three| three.chaos.mend().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_comes_back_empty_hands_out_no_second_allowance_over_three_gateways() {
    keeps_the_limit(async |three| three.redis.kill().await, async |three| three.redis.start_again().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_are_told_what_is_left_of_one_limit_whichever_gateway_they_meet() {
    let three = three().await;
    three.limit(7).await;
    let balancer = RoundRobin::over(&three.addresses());
    for left in (0..7).rev() {
        let reply = three.call(balancer.address()).await.expect(200);
        assert_eq!(reply.header("x-ratelimit-remaining-requests"), Some(left.to_string().as_str()));
        assert_eq!(reply.header("x-ratelimit-limit-requests"), Some("7"));
    }
    for _ in 0..6 {
        let reply = three.call(balancer.address()).await.expect(429);
        let seconds: u64 = reply.header("retry-after").unwrap().parse().unwrap();
        // A seventh of an hour, less what the calls took.
        assert!((480..=515).contains(&seconds), "{seconds}");
        assert_eq!(reply.header("x-ratelimit-remaining-requests"), Some("0"));
    }
}
