//! Limits before and after authentication, and what an attacker meets.

use serde_json::json;

use crate::support::{
    client::{Call, Wire},
    gateway::Gateway,
    openai::{ask, completion},
    upstream::{Answer, Gate, Upstream},
};

#[tokio::test]
async fn each_agent_has_a_limit_of_its_own() {
    let upstream = Upstream::start();
    let gateway = Gateway::builder(&upstream).keep_limits().start().await;
    let limit = json!({"preset": "starter", "overrides": {"rate_limit": {"max_calls": 1, "window_seconds": 3600}}});
    gateway.admin("PUT", "/api/pipeline", limit).await.expect(200);
    let other = gateway.onboard("another").await;
    gateway.chat(&ask("hi")).await.expect(200);
    gateway.chat(&ask("hi")).await.expect(429);
    let call = Call::post("/v1/chat/completions").key(&other.key).json(&ask("hi"));
    call.send(gateway.address).await.expect(200);
    call.send(gateway.address).await.expect(429);
    assert_eq!(upstream.requests().len(), 2);
}

#[tokio::test]
async fn an_address_that_guesses_keys_is_slowed_down() {
    let upstream = Upstream::start();
    let gateway = Gateway::builder(&upstream).env("TAPPASS_LIMITS__ADDRESS_FAILURES_PER_MINUTE", "5").start().await;
    let mut statuses = Vec::new();
    for number in 0..12 {
        let reply = Call::get("/v1/models").key(&format!("tp_guess{number}")).send(gateway.address).await;
        statuses.push(reply.status);
        if reply.status == 429 {
            assert!(reply.header("retry-after").is_some());
        }
    }
    assert_eq!(statuses[0], 401);
    assert!(statuses.contains(&429), "{statuses:?}");
    gateway.get("/health").await.expect(200);
}

#[tokio::test]
async fn a_flood_of_nonsense_keys_writes_next_to_nothing() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream).await;
    let before = gateway.chain().entries.len();
    let mut wire = Wire::open(gateway.address).await;
    for number in 0..500 {
        wire.send(&Call::get("/v1/models").key(&format!("tp_guess{number}")).bytes()).await;
        wire.reply().await.expect(401);
    }
    assert_eq!(gateway.chain().entries.len(), before, "what is nobody's is counted, not recorded one by one");
}

#[tokio::test]
async fn beyond_its_bound_the_gateway_says_503_and_when_to_come_back() {
    let upstream = Upstream::start();
    let gate = Gate::new();
    upstream.always(Answer::json(200, &completion("late")).hold_head(&gate));
    let gateway = Gateway::builder(&upstream).env("TAPPASS_SERVER__MAX_REQUESTS", "8").start().await;
    let mut held = Vec::new();
    for _ in 0..8 {
        held.push(gateway.chat_begin(&ask("hi")).await);
    }
    upstream.request(7).await;
    let reply = gateway.chat(&ask("hi")).await.expect(503);
    assert!(reply.header("retry-after").is_some() && reply.json()["error"]["message"].is_string());
    gateway.get("/health").await.expect(200);
    gateway.get("/health/live").await.expect(200);
    gate.open();
    for mut wire in held {
        wire.reply().await.expect(200);
    }
    gateway.chat(&ask("hi")).await.expect(200);
}

#[tokio::test]
async fn headers_beyond_reason_are_refused() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream).await;
    let mut many = gateway.chat_call(&ask("hi"));
    for number in 0..1000 {
        many = many.header(&format!("x-{number}"), "x");
    }
    let large = gateway.chat_call(&ask("hi")).header("x-large", &"x".repeat(2 << 20));
    for call in [many, large] {
        let mut wire = Wire::open(gateway.address).await;
        wire.send(&call.bytes()).await;
        let status = wire.try_head().await.map_or(431, |head| head.status);
        assert!(matches!(status, 400 | 431), "{status}");
    }
    assert!(upstream.requests().is_empty());
    gateway.get("/health").await.expect(200);
}
