//! Every kind of window refuses at its limit and nowhere else, opens anew with a reset, and its books add up at every look
//! (edge cases 2 and 19, promise 4).

use serde_json::{Value, json};

use crate::support::{
    client::{Call, Reply},
    database::Database,
    gateway::Gateway,
    openai::{ask, completion, with},
    upstream::{Answer, Gate, Upstream},
};

/// One call reserves 16,000 answer tokens, $0.0096, and a little for its prompt.
const LARGE: u64 = 16_000;
/// Of these each call really uses 10,000, $0.006: a second one does not fit beside it under this limit.
const FOR_ONE: f64 = 0.015;

fn costly() -> Answer {
    let usage = json!({"prompt_tokens": 0, "completion_tokens": 10_000, "total_tokens": 10_000});
    Answer::json(200, &with(completion("long"), "usage", usage))
}

/// Somebody who calls.
#[derive(Clone)]
struct Who {
    key: String,
    session: &'static str,
    flags: &'static str,
}

impl Who {
    fn call(&self, tokens: u64) -> Call {
        let call = Call::post("/v1/chat/completions").key(&self.key);
        let call = call.header("x-session-id", self.session).header("x-tappass-flags", self.flags);
        call.json(&with(ask("hi"), "max_tokens", json!(tokens)))
    }

    async fn ask(&self, gateway: &Gateway, tokens: u64) -> Reply {
        let reply = self.call(tokens).send(gateway.address).await;
        gateway.settled().await;
        reply
    }
}

/// How a limit is set.
enum By {
    Budget(&'static str),
    Plan(&'static str, Value),
    Flag(&'static str),
}

/// A kind of window, how its limit is set, and whether another session and another agent are under the same one.
fn kinds() -> Vec<(&'static str, By, bool, bool)> {
    let monthly = json!({"max_cost_usd": FOR_ONE, "window": "monthly"});
    vec![
        ("total", By::Budget("limit_usd"), true, true),
        ("day", By::Budget("day_usd"), true, true),
        ("month", By::Budget("month_usd"), true, true),
        ("session", By::Budget("session_usd"), false, false),
        ("agent_day", By::Plan("budget", json!({"max_cost_usd": FOR_ONE})), true, false),
        ("agent_month", By::Plan("budget", monthly), true, false),
        ("agent_session", By::Plan("session_budget", json!({"max_cost_usd": FOR_ONE})), false, false),
        ("agent_session", By::Flag("budget=custom:1:0.015"), false, false),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_kind_of_window_refuses_at_its_limit_and_only_there_and_opens_anew_with_a_reset() {
    for (kind, by, whole_agent, whole_org) in kinds() {
        let upstream = Upstream::start();
        upstream.always(costly());
        let gateway = Gateway::start(&upstream).await;
        let mut who = Who { key: gateway.agent_key.clone(), session: "first", flags: "" };
        match by {
            By::Budget(field) => {
                gateway.admin("PUT", "/api/budget", json!({ field: FOR_ONE })).await.expect(200);
            }
            By::Plan(step, options) => gateway.raise_limits(&[(step, options)]).await,
            By::Flag(flags) => who.flags = flags,
        }
        let other_session = Who { session: "second", ..who.clone() };
        let other_agent = Who { key: gateway.onboard("other").await.key, ..who.clone() };
        who.ask(&gateway, LARGE).await.expect(200);
        let refused = who.ask(&gateway, LARGE).await.expect(403).json();
        let limited = &refused["details"]["window"];
        assert!(refused["blocked_by"] == "budget" && *limited == kind, "{kind}: {refused}");
        let left = refused["details"]["remaining_usd"].as_f64().unwrap();
        assert!((left - (FOR_ONE - 0.006)).abs() < 1e-9, "{kind}: {refused}");
        who.ask(&gateway, 1_000).await.expect(200);
        for (other, same) in [(&other_session, whole_agent), (&other_agent, whole_org)] {
            let reply = other.ask(&gateway, LARGE).await;
            assert_eq!(reply.status, if same { 403 } else { 200 }, "{kind}: {}", reply.text());
        }
        who.ask(&gateway, LARGE).await.expect(403);
        gateway.admin("POST", "/api/budget/reset", Value::Null).await.expect(200);
        who.ask(&gateway, LARGE).await.expect(200);
        gateway.settled().await.assert_fresh();
    }
}

#[tokio::test]
async fn a_call_beyond_the_limit_of_one_call_is_refused_by_its_name() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream).await;
    let mut who = Who { key: gateway.agent_key.clone(), session: "s", flags: "" };
    gateway.admin("PUT", "/api/budget", json!({"call_usd": 0.005})).await.expect(200);
    let refused = who.ask(&gateway, LARGE).await.expect(403).json();
    assert_eq!(
        (&refused["blocked_by"], &refused["details"]["window"]),
        (&json!("budget"), &json!("call")),
        "{refused}"
    );
    assert_eq!(refused["details"]["remaining_usd"], json!(0.005), "{refused}");
    assert!(
        refused["reason"].as_str().unwrap().contains("the organization's limit of $0.005000 per call"),
        "{refused}"
    );
    for _ in 0..5 {
        who.ask(&gateway, 8_000).await.expect(200);
    }
    // A flag only tightens.
    who.flags = "budget=custom:0.001:1";
    let refused = who.ask(&gateway, 8_000).await.expect(403).json();
    assert!(refused["reason"].as_str().unwrap().contains("the flag's limit of $0.001000 per call"), "{refused}");
    who.ask(&gateway, 1_000).await.expect(200);
    who.flags = "budget=custom:1:1";
    who.ask(&gateway, LARGE).await.expect(403);
    assert_eq!(upstream.requests().len(), 6);
}

#[tokio::test]
async fn where_several_windows_have_limits_the_refusal_names_them_all() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream).await;
    gateway.admin("PUT", "/api/budget", json!({"limit_usd": 1, "day_usd": 0.001})).await.expect(200);
    let who = Who { key: gateway.agent_key.clone(), session: "s", flags: "budget=dev" };
    let refused = who.ask(&gateway, LARGE).await.expect(403).json();
    let windows = json!(["total", "day", "agent_day", "agent_session"]);
    assert_eq!(refused["details"]["limited_windows"], windows, "{refused}");
    assert!(refused["details"].get("window").is_none() && refused["details"]["remaining_usd"] == 0.001, "{refused}");
}

#[tokio::test]
async fn the_presets_run_both_steps_and_each_says_what_it_limits() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream).await;
    gateway.admin("PUT", "/api/pipeline", json!({"preset": "standard"})).await.expect(200);
    let reply = gateway.chat(&ask("hi")).await.expect(200).json();
    let missing = reply["tappass"]["missing_steps"].to_string();
    assert!(!missing.contains("\"budget\"") && !missing.contains("session_budget"), "{missing}");
    let said = |reply: &Value, step: &str| {
        let steps = reply["tappass"]["steps"].as_array().unwrap();
        let report = steps.iter().find(|report| report["step"] == step).unwrap_or_else(|| panic!("{step}: {reply}"));
        assert_eq!((&report["action"], &report["detected"]), (&json!("continue"), &json!(false)));
        report["message"].as_str().unwrap().to_owned()
    };
    assert_eq!(said(&reply, "budget"), "at most $100.000000 a day");
    assert_eq!(said(&reply, "session_budget"), "limits nothing: `max_cost_usd` is not set");
    assert_eq!(upstream.last().json()["max_tokens"], 4096, "under a limit of the plan the answer is bounded too");
    assert!(reply["tappass"]["notes"].to_string().contains("bounded"), "{reply}");
    let flagged = gateway.chat_call(&ask("hi")).header("x-tappass-flags", "budget=standard");
    let reply = flagged.send(gateway.address).await.expect(200).json();
    assert_eq!(said(&reply, "budget"), "at most $50.000000 a day");
    assert_eq!(said(&reply, "session_budget"), "at most $10.000000 a session");
}

#[tokio::test]
async fn an_unlocked_flag_lifts_the_limit_of_the_plan_from_one_call_which_still_counts() {
    let upstream = Upstream::start();
    upstream.always(costly());
    let gateway = Gateway::start(&upstream).await;
    gateway.raise_limits(&[("budget", json!({"max_cost_usd": FOR_ONE}))]).await;
    let who = Who { key: gateway.agent_key.clone(), session: "s", flags: "" };
    let free = Who { flags: "budget=unlimited", ..who.clone() };
    free.ask(&gateway, LARGE).await.expect(200);
    let refused = free.ask(&gateway, LARGE).await.expect(403);
    assert_eq!(refused.json()["blocked_by"], "budget", "locked is the default");
    gateway.admin("PUT", "/api/pipeline/unlocked-flags", json!({"flags": ["budget"]})).await.expect(200);
    free.ask(&gateway, LARGE).await.expect(200);
    who.ask(&gateway, LARGE).await.expect(403);
    // $0.012 of the $0.015 are spent, the free call's half among them.
    let refused = who.ask(&gateway, LARGE).await.expect(403).json();
    assert!((refused["details"]["remaining_usd"].as_f64().unwrap() - 0.003).abs() < 1e-9, "{refused}");
    // What the organization itself may spend is nobody's to lift.
    gateway.budget(0.001).await;
    free.ask(&gateway, LARGE).await.expect(403);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_parallel_calls_against_a_day_for_ten_let_ten_through() {
    let upstream = Upstream::start();
    let gate = Gate::new();
    upstream.always(Answer::json(200, &completion("late")).hold_head(&gate));
    let mut gateway = Gateway::start(&upstream).await;
    gateway.admin("PUT", "/api/budget", json!({"day_usd": 0.1})).await.expect(200);
    let call = gateway.chat_call(&with(ask("hi"), "max_tokens", json!(LARGE)));
    let calls: Vec<_> = (0..200)
        .map(|_| {
            let (call, address) = (call.clone(), gateway.address);
            tokio::spawn(async move { call.send(address).await })
        })
        .collect();
    upstream.request(9).await;
    gateway.chain_until("the refusals", |chain| (chain.refusals().count() >= 190).then_some(())).await;
    assert_eq!(upstream.requests().len(), 10);
    gate.open();
    let mut passed = 0;
    for call in calls {
        let reply = call.await.unwrap();
        passed += usize::from(reply.status == 200);
        assert!(reply.status == 200 || reply.json()["details"]["window"] == "day", "{}", reply.text());
    }
    assert_eq!(passed, 10);
    gateway.settled().await;
    gateway.stop();
    Database::open(&gateway.database()).await.assert_nothing_held().await;
}

#[tokio::test]
async fn a_call_under_way_at_a_reset_is_settled_in_the_windows_that_it_was_admitted_in() {
    let upstream = Upstream::start();
    upstream.always(costly());
    let gate = Gate::new();
    let mut gateway = Gateway::start(&upstream).await;
    gateway.admin("PUT", "/api/budget", json!({"limit_usd": FOR_ONE, "day_usd": FOR_ONE})).await.expect(200);
    gateway.raise_limits(&[("budget", json!({"max_cost_usd": FOR_ONE}))]).await;
    let who = Who { key: gateway.agent_key.clone(), session: "s", flags: "budget=custom:1:0.015" };
    upstream.then(costly().hold_head(&gate));
    let mut under_way = who.call(LARGE).begin(gateway.address).await;
    gate.reached().await;
    who.call(LARGE).send(gateway.address).await.expect(403);
    gateway.admin("POST", "/api/budget/reset", Value::Null).await.expect(200);
    who.call(LARGE).send(gateway.address).await.expect(200);
    gate.open();
    under_way.reply().await.expect(200);
    gateway.settled().await;
    let shown = gateway.admin("GET", "/api/budget", Value::Null).await.expect(200).json();
    assert_eq!((&shown["window"], &shown["settled_nano"]), (&json!(1), &json!(6_000_000)), "{shown}");
    assert_eq!(shown["day"]["settled_nano"], 6_000_000, "{shown}");
    gateway.stop();
    let mut database = Database::open(&gateway.database()).await;
    database.assert_nothing_held().await;
    for number in [0, 1] {
        for window in [
            format!("total:{number}"),
            format!("day:{number}:%"),
            format!("agent:{}:day:{number}:%", gateway.agent_id),
            format!("agent-session:{number}:{}:%", gateway.agent_id),
        ] {
            let sql = format!("SELECT sum(settled_nano) FROM spending WHERE spending_window LIKE '{window}'");
            assert_eq!(database.number(&sql).await, 6_000_000, "{window}");
        }
    }
    let others = "SELECT count(*) FROM spending WHERE settled_nano <> 6000000";
    assert_eq!(database.number(others).await, 0, "one call in each window");
}
