//! Exact money: what is reserved, what is settled, what does not fit (edge case 18, promise 4).

use serde_json::{Value, json};

use crate::support::{
    chain::Entry,
    database::Database,
    gateway::Gateway,
    openai::{self, ask, ask_stream, completion, with},
    upstream::{Answer, Gate, Upstream},
};

fn large(body: Value) -> Value {
    with(body, "max_tokens", json!(16_000))
}

fn is_short(body: &Value) -> bool {
    body["blocked_by"].as_str().is_some_and(|step| step.contains("budget"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_parallel_calls_never_outrun_a_budget_for_ten() {
    let upstream = Upstream::start();
    let gate = Gate::new();
    upstream.always(Answer::json(200, &completion("late")).hold_head(&gate));
    let mut gateway = Gateway::start(&upstream).await;
    // One call reserves 16,000 answer tokens, $0.0096, and a little for the prompt.
    gateway.budget(0.1).await;
    let call = gateway.chat_call(&large(ask("hi")));
    let calls: Vec<_> = (0..200)
        .map(|_| {
            let (call, address) = (call.clone(), gateway.address);
            tokio::spawn(async move { call.send(address).await })
        })
        .collect();
    // All that fit have reached the provider when all others have been refused: nothing is settled before.
    let fitting = 10;
    upstream.request(fitting - 1).await;
    gateway
        .chain_until("the refusals", |chain| {
            (chain.refusals().count() + chain.admissions().count() >= 200).then_some(())
        })
        .await;
    assert_eq!(upstream.requests().len(), fitting);
    gate.open();
    let mut passed = 0;
    for call in calls {
        let reply = call.await.unwrap();
        passed += usize::from(reply.status == 200);
        assert!(reply.status == 200 || (reply.status == 403 && is_short(&reply.json())), "{}", reply.text());
    }
    assert_eq!(passed, fitting);
    let chain = gateway.settled().await;
    let settled: u64 = chain.closings().map(Entry::settled).sum();
    gateway.stop();
    let mut database = Database::open(&gateway.database()).await;
    database.assert_nothing_held().await;
    assert_eq!(database.number("SELECT sum(settled_nano) FROM spending").await, i64::try_from(settled).unwrap());
}

#[tokio::test]
async fn several_choices_are_reserved_several_times() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream).await;
    gateway.budget(0.015).await;
    let four = with(large(ask("hi")), "n", json!(4));
    assert!(is_short(&gateway.chat(&four).await.expect(403).json()));
    gateway.chat(&with(large(ask("hi")), "n", json!(1))).await.expect(200);
    assert_eq!(upstream.requests().len(), 1);
}

#[tokio::test]
async fn a_request_without_a_bound_gets_one_under_a_budget_and_none_without() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream).await;
    gateway.chat(&ask("hi")).await.expect(200);
    let sent = upstream.last().json();
    assert!(sent.get("max_tokens").is_none() && sent.get("max_completion_tokens").is_none(), "{sent}");
    gateway.budget(1.0).await;
    for body in [ask("hi"), ask_stream("hi")] {
        gateway.chat(&body).await.expect(200);
        let sent = upstream.last().json();
        let bound = sent["max_completion_tokens"].as_u64().or(sent["max_tokens"].as_u64());
        assert_eq!(bound, Some(4096), "{sent}");
    }
    for name in ["max_tokens", "max_completion_tokens"] {
        gateway.chat(&with(ask("hi"), name, json!(50))).await.expect(200);
        assert_eq!(upstream.last().json()[name], json!(50), "a bound of the caller's own is kept");
    }
    assert_eq!(gateway.settled().await.closings().count(), 5);
}

#[tokio::test]
async fn a_new_limit_decides_the_next_call() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream).await;
    for _ in 0..5 {
        gateway.budget(0.000_001).await;
        assert!(is_short(&gateway.chat(&large(ask("hi"))).await.expect(403).json()));
        gateway.budget(10.0).await;
        gateway.chat(&large(ask("hi"))).await.expect(200);
    }
    gateway.settled().await.assert_fresh();
}

#[tokio::test]
async fn what_was_settled_counts_against_the_limit_also_after_a_restart() {
    let upstream = Upstream::start();
    let usage = json!({"prompt_tokens": 10, "completion_tokens": 10_000, "total_tokens": 10_010});
    upstream.always(Answer::json(200, &with(completion("long"), "usage", usage)));
    let mut gateway = Gateway::start(&upstream).await;
    gateway.budget(0.015).await;
    gateway.chat(&large(ask("hi"))).await.expect(200);
    assert_eq!(gateway.settled().await.last_closing().unwrap().settled(), 10 * 150 + 10_000 * 600);
    // $0.006 of $0.015 is spent: another $0.0096 does not fit.
    assert!(is_short(&gateway.chat(&large(ask("hi"))).await.expect(403).json()));
    gateway.restart().await;
    assert!(is_short(&gateway.chat(&large(ask("hi"))).await.expect(403).json()));
    gateway.chat(&with(ask("hi"), "max_tokens", json!(100))).await.expect(200);
}

#[tokio::test]
async fn every_failure_of_the_provider_gives_the_reservation_back() {
    let upstream = Upstream::start();
    let mut gateway = Gateway::start(&upstream).await;
    gateway.budget(0.015).await;
    let failures = [
        Answer::nothing(crate::support::upstream::End::Close),
        Answer::json(500, &json!({"error": {"message": "broken"}})),
        Answer::json(400, &json!({"error": {"message": "no such thing"}})),
        Answer::json(401, &json!({"error": {"message": "bad key"}})),
        Answer::json(429, &json!({"error": {"message": "slow down"}})).header("retry-after", "600"),
        Answer::json(302, &json!({})).header("location", "http://127.0.0.1:9/"),
        Answer::whole(200, "application/json", "not json"),
        Answer::stream([openai::event(&json!({"error": {"message": "busy"}}))]),
    ];
    for failure in failures {
        upstream.always(failure);
        let reply = gateway.chat(&large(ask("hi"))).await;
        assert!(reply.status >= 400 && reply.json().get("blocked_by").is_none(), "{} {}", reply.status, reply.text());
        gateway.settled().await;
    }
    upstream.always(Answer::json(200, &completion("fine")));
    gateway.chat(&with(ask("hi"), "max_tokens", json!(1000))).await.expect(200);
    gateway.settled().await;
    gateway.stop();
    Database::open(&gateway.database()).await.assert_nothing_held().await;
}

#[tokio::test]
async fn only_an_explicit_null_takes_the_limit_away() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream).await;
    gateway.budget(0.000_001).await;
    gateway.admin("POST", "/api/budget/reset", Value::Null).await.expect(200);
    for body in [Value::Null, json!({})] {
        let reply = gateway.admin("PUT", "/api/budget", body).await.expect(400);
        assert!(reply.text().contains("limit_usd") || reply.text().contains("body"), "{}", reply.text());
    }
    assert!(is_short(&gateway.chat(&large(ask("hi"))).await.expect(403).json()));
    gateway.admin("PUT", "/api/budget", json!({"limit_usd": null})).await.expect(200);
    let shown = gateway.admin("GET", "/api/budget", Value::Null).await.expect(200).json();
    assert!(shown["limit_usd"].is_null() && shown["limit_nano"].is_null(), "{shown}");
    assert_eq!(shown["window"], 1, "the window stays open: {shown}");
    gateway.chat(&ask("hi")).await.expect(200);
    assert!(upstream.last().json().get("max_tokens").is_none(), "without a limit there is no bound");
}
