//! Limits and sessions in Redis, and what callers notice when it is slow, gone or somebody else's: next to nothing.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::support::{
    client::Call,
    gateway::{Builder, Gateway},
    openai::{ask, with},
    redis::Redis,
    upstream::Upstream,
    wait::until,
};

/// The password of servers that ask for one. Whoever finds it in a log has found a leak.
const PASSWORD: &str = "CANARY-redis-7Gh2kQ9w";

/// A server with TLS under a private CA, and a password.
async fn with_tls() -> Redis {
    Redis::builder().password(PASSWORD).tls().start().await
}

/// A machine that runs all tests at once is slower than the defaults allow for.
fn builder(upstream: &Upstream, redis: &Redis) -> Builder {
    let builder = Gateway::builder(upstream).env("REDIS_URL", &redis.url());
    builder.env("TAPPASS_REDIS__TIMEOUT_MS", "1000").env("TAPPASS_REDIS__CONNECT_TIMEOUT_MS", "2000")
}

async fn limit(gateway: &Gateway, options: Value) {
    let spec = json!({"preset": "starter", "overrides": {"rate_limit": options}});
    gateway.admin("PUT", "/api/pipeline", spec).await.expect(200);
}

async fn status(gateway: &Gateway) -> String {
    gateway.get("/health").await.expect(200).json()["status"].as_str().unwrap().to_owned()
}

async fn becomes(gateway: &Gateway, wanted: &str) {
    until(&format!("the gateway to be {wanted}"), async || (status(gateway).await == wanted).then_some(())).await;
}

async fn gauge(gateway: &Gateway) -> String {
    let text = gateway.admin("GET", "/metrics", Value::Null).await.expect(200).text();
    let line = text.lines().find(|line| line.starts_with("tappass_redis_degraded")).expect("the gauge");
    line.rsplit(' ').next().unwrap().to_owned()
}

#[tokio::test]
async fn what_one_address_does_is_counted_over_two_gateways() {
    let upstream = Upstream::start();
    let redis = Redis::start().await;
    let few = |builder: Builder| builder.env("TAPPASS_LIMITS__ADDRESS_FAILURES_PER_MINUTE", "6");
    let both = [few(builder(&upstream, &redis)).start().await, few(builder(&upstream, &redis)).start().await];
    let mut statuses = Vec::new();
    for number in 0..12 {
        let call = Call::get("/v1/models").key(&format!("tp_guess{number}"));
        statuses.push(call.send(both[number % 2].address).await.status);
    }
    assert_eq!(statuses[..6], [401; 6]);
    assert!(statuses.iter().filter(|status| **status == 401).count() <= 7, "{statuses:?}");
    assert_eq!(statuses.last(), Some(&429));
}

#[tokio::test]
async fn a_redis_that_hangs_costs_callers_one_short_wait_and_is_shown_until_it_goes_on() {
    let upstream = Upstream::start();
    let redis = Redis::start().await;
    let gateway = builder(&upstream, &redis).env("TAPPASS_LOG__LEVEL", "info").start().await;
    assert_eq!((status(&gateway).await.as_str(), gauge(&gateway).await.as_str()), ("ok", "0"));
    redis.pause();
    let body = Gateway::echo("hi");
    let began = Instant::now();
    let replies = join_all((0..40).map(|_| gateway.chat(&body))).await;
    let took = began.elapsed();
    assert!(replies.iter().all(|reply| reply.status == 200));
    assert!(took < Duration::from_secs(5), "forty callers waited {took:?}, which is not one second each");
    let health = gateway.get("/health").await.expect(200).json();
    assert_eq!(health["status"], "degraded");
    assert!(health["reasons"].to_string().contains("Redis"), "{health}");
    gateway.get("/health/ready").await.expect(200);
    assert_eq!(gauge(&gateway).await, "1");
    let began = Instant::now();
    gateway.chat(&body).await.expect(200);
    assert!(began.elapsed() < Duration::from_secs(1), "nobody waits for what is known to be away");
    redis.resume();
    becomes(&gateway, "ok").await;
    gateway.chat(&body).await.expect(200);
    assert_eq!(gauge(&gateway).await, "0");
    let output = gateway.output();
    for line in ["Redis is lost", "Redis is back"] {
        assert_eq!(output.matches(line).count(), 1, "{line}: {output}");
    }
}

#[tokio::test]
async fn a_redis_that_dies_and_comes_back_empty_hands_out_no_second_allowance() {
    let upstream = Upstream::start();
    let redis = Redis::start().await;
    let gateway = builder(&upstream, &redis).keep_limits().start().await;
    limit(&gateway, json!({"max_calls": 5, "window_seconds": 3600})).await;
    let body = Gateway::echo("hi");
    for left in ["4", "3", "2"] {
        let reply = gateway.chat(&body).await.expect(200);
        assert_eq!(reply.header("x-ratelimit-remaining-requests"), Some(left));
        assert_eq!(reply.header("x-ratelimit-limit-requests"), Some("5"));
    }
    assert!(redis.command(&["KEYS", "tappass:quota:agent:calls:*"]).await.contains(&gateway.agent_id));
    redis.kill().await;
    let reply = gateway.chat(&body).await.expect(200);
    assert_eq!(reply.header("x-ratelimit-remaining-requests"), Some("1"));
    becomes(&gateway, "degraded").await;
    redis.start_again().await;
    becomes(&gateway, "ok").await;
    let reply = gateway.chat(&body).await.expect(200);
    assert_eq!(reply.header("x-ratelimit-remaining-requests"), Some("0"));
    let reply = gateway.chat(&body).await.expect(429);
    let seconds: u64 = reply.header("retry-after").unwrap().parse().unwrap();
    assert!((600..=720).contains(&seconds), "a fifth of an hour less what has passed: {seconds}");
    assert!(reply.text().contains("more than 5 calls in 3600 seconds"), "{}", reply.text());
}

#[tokio::test]
async fn a_redis_that_is_away_at_the_start_stops_nothing() {
    let upstream = Upstream::start();
    let redis = Redis::start().await;
    redis.kill().await;
    let gateway = builder(&upstream, &redis).start().await;
    gateway.chat(&Gateway::echo("hi")).await.expect(200);
    assert_eq!(status(&gateway).await, "degraded");
    redis.start_again().await;
    becomes(&gateway, "ok").await;
}

#[tokio::test]
async fn a_private_ca_and_a_password_are_enough_and_the_wrong_ca_is_told_without_the_password() {
    let upstream = Upstream::start();
    let (redis, other) = (with_tls().await, with_tls().await);
    let ca = |redis: &Redis| redis.authority().unwrap().to_str().unwrap().to_owned();
    let right = builder(&upstream, &redis).env("TAPPASS_REDIS__CA_FILE", &ca(&redis)).start().await;
    becomes(&right, "ok").await;
    right.chat(&ask("hi")).await.expect(200);
    assert_eq!(gauge(&right).await, "0");
    let wrong = builder(&upstream, &redis).env("TAPPASS_REDIS__CA_FILE", &ca(&other)).start().await;
    wrong.chat(&ask("hi")).await.expect(200);
    assert_eq!((status(&wrong).await.as_str(), gauge(&wrong).await.as_str()), ("degraded", "1"));
    let output = wrong.output();
    assert!(output.contains("certificate"), "{output}");
    for said in [output, right.output()] {
        assert!(!said.contains(PASSWORD), "{said}");
    }
}

#[tokio::test]
async fn tokens_beyond_the_limit_are_refused_and_what_was_not_used_is_given_back() {
    let upstream = Upstream::start();
    let redis = Redis::start().await;
    let shared = builder(&upstream, &redis).keep_limits().start().await;
    let alone = Gateway::builder(&upstream).keep_limits().start().await;
    for gateway in [&shared, &alone] {
        limit(gateway, json!({"max_tokens": 10_000, "window_seconds": 3600})).await;
        let large = with(ask("hi"), "max_tokens", json!(9_000));
        // The fake provider uses a few tokens only, so nearly all of each call comes back.
        for _ in 0..3 {
            let reply = until("the tokens of the call before", async || {
                let reply = gateway.chat(&large).await;
                (reply.status == 200).then_some(reply)
            })
            .await;
            assert_eq!(reply.header("x-ratelimit-limit-tokens"), Some("10000"));
            let left: u64 = reply.header("x-ratelimit-remaining-tokens").unwrap().parse().unwrap();
            assert!(left < 1_000, "{left}");
        }
        // A refused prompt is no call, so it takes no tokens.
        let secret = with(ask(crate::support::openai::AWS_KEY), "max_tokens", json!(9_000));
        until("a refusal", async || (gateway.chat(&secret).await.status == 403).then_some(())).await;
        until("its tokens", async || (gateway.chat(&large).await.status == 200).then_some(())).await;
        limit(gateway, json!({"max_tokens": 20, "window_seconds": 3600})).await;
        let last = until("the limit to be reached", async || {
            let reply = gateway.chat(&ask("hi")).await;
            (reply.status == 429).then_some(reply)
        })
        .await;
        assert!(last.text().contains("more than 20 tokens in 3600 seconds"), "{}", last.text());
        assert!(last.header("retry-after").is_some() && last.json()["error"]["code"] == "rate_limit_exceeded");
    }
}

#[tokio::test]
async fn a_key_and_an_organization_have_limits_beside_the_agents() {
    let upstream = Upstream::start();
    for (setting, whose) in [("KEY_CALLS", "key"), ("ORG_CALLS", "organization"), ("ORG_TOKENS", "organization")] {
        let gateway = Gateway::builder(&upstream).env(&format!("TAPPASS_LIMITS__{setting}_PER_MINUTE"), "2").start();
        let gateway = gateway.await;
        let other = gateway.onboard("another").await;
        let body = Gateway::echo("hi");
        let mut refused = None;
        for _ in 0..40 {
            let reply = gateway.chat(&body).await;
            if reply.status == 429 {
                refused = Some(reply);
                break;
            }
        }
        let refused = refused.unwrap_or_else(|| panic!("{setting} refuses nobody"));
        assert!(refused.text().contains(&format!("of the {whose}")), "{setting}: {}", refused.text());
        let call = Call::post("/v1/chat/completions").key(&other.key).json(&body).send(gateway.address).await;
        assert_eq!(call.status == 429, whose == "organization", "{setting}: {}", call.text());
    }
}

#[tokio::test]
async fn a_session_that_its_caller_named_is_remembered_and_no_other() {
    let upstream = Upstream::start();
    let redis = Redis::start().await;
    let gateway = builder(&upstream, &redis).start().await;
    let keys = async || redis.command(&["KEYS", "tappass:session:*"]).await;
    gateway.chat(&ask("hi")).await.expect(200);
    let named = |text: &str| gateway.chat_call(&ask(text)).header("x-session-id", "refund-42");
    named("write to jane.doe@example.com").send(gateway.address).await.expect(200);
    named(crate::support::openai::AWS_KEY).send(gateway.address).await.expect(403);
    let key = until("the session in Redis", async || {
        let keys = keys().await;
        keys.lines().find(|line| line.starts_with("tappass:session:")).map(str::to_owned)
    })
    .await;
    let all = keys().await;
    assert_eq!(all.lines().filter(|line| !line.is_empty()).count(), 1, "{all}");
    assert!(!key.contains("refund"), "names of sessions are the callers' own");
    // Personal data and secrets, as a set of two.
    until("both labels", async || (redis.command(&["HGET", &key, "labels"]).await.trim() == "3").then_some(())).await;
    let left: u64 = redis.command(&["PTTL", &key]).await.trim().parse().unwrap();
    assert!((1_000_000..=1_800_000).contains(&left), "half an hour, in milliseconds: {left}");
}

#[tokio::test]
async fn a_redis_setting_that_cannot_be_right_stops_the_start_and_says_what_would_be() {
    for (name, value, right) in [
        ("REDIS_URL", "http://:hunter2@localhost", "redis://"),
        ("TAPPASS_REDIS__URL", "redis://:hunter2@localhost", "REDIS_URL"),
        ("TAPPASS_REDIS__CA_FILE", "/nowhere/ca.pem", "redis.ca_file"),
    ] {
        let variables =
            [(name, value), ("TAPPASS_REDIS__TIMEOUT_MS", "100"), ("TAPPASS_ADMIN_KEY", "admin-key-of-the-test-0001")];
        let variables: Vec<_> = match name {
            "TAPPASS_REDIS__CA_FILE" => variables.into_iter().chain([("REDIS_URL", "rediss://localhost:1")]).collect(),
            _ => variables.to_vec(),
        };
        let output = crate::support::gateway::tappass(&["dev", "--port", "0"], &variables);
        let said = crate::support::gateway::said(&output);
        assert!(!output.status.success() && said.contains(right) && !said.contains("hunter2"), "{name}: {said}");
    }
}
