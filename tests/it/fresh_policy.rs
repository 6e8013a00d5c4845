//! No stale decision: what is published decides every call that begins afterwards.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::support::{
    client::{Call, Wire},
    control::{block_pii, block_tool},
    gateway::Gateway,
    openai::{self, AWS_KEY, ask, ask_stream, event, text_chunk},
    sse::Sum,
    upstream::{Answer, Gate, Upstream},
    wait::until,
};

const PERSONAL: &str = "my social security number is 536-22-8145";

/// One call: when it began and ended, and whether it was let through.
struct Called {
    begun: Instant,
    ended: Instant,
    allowed: bool,
}

/// Fifty callers on connections of their own, until told to stop.
fn callers(gateway: &Gateway, stop: &Arc<AtomicBool>) -> Vec<tokio::task::JoinHandle<Vec<Called>>> {
    let call = gateway.chat_call(&ask(PERSONAL)).bytes();
    let caller = |_| {
        let (address, call, stop) = (gateway.address, call.clone(), Arc::clone(stop));
        tokio::spawn(async move {
            let mut wire = Wire::open(address).await;
            let mut calls = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                let begun = Instant::now();
                wire.send(&call).await;
                let reply = wire.reply().await;
                assert!(matches!(reply.status, 200 | 403), "{}", reply.text());
                calls.push(Called { begun, ended: Instant::now(), allowed: reply.status == 200 });
            }
            calls
        })
    };
    (0..50).map(caller).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_fifty_callers_no_call_begun_after_a_publish_is_decided_by_the_old_policy() {
    let upstream = Upstream::start();
    let mut gateway = Gateway::start(&upstream).await;
    let policy = gateway.policy("personal data", json!([block_tool("unused")])).await;
    gateway.publish(&policy, 1).await;
    gateway.assign(&policy, "agent", &gateway.agent_id).await;
    let stop = Arc::new(AtomicBool::new(false));
    let callers = callers(&gateway, &stop);
    // (from when, whether personal data is allowed from then on)
    let mut answered: Vec<(Instant, bool)> = Vec::new();
    let mut asked: Vec<Instant> = Vec::new();
    for version in 2..=7_u64 {
        let allow = version % 2 == 1;
        let refused = gateway.chain().refusals().count();
        if !allow {
            upstream.request(upstream.requests().len() + 20).await;
        }
        let rules = if allow { json!([block_tool("unused")]) } else { json!([block_pii()]) };
        let body = json!({"rules": rules, "change_note": "back and forth"});
        let draft = gateway.admin("POST", &format!("/api/policies/{policy}/versions"), body).await;
        assert!(matches!(draft.status, 200 | 201), "{}", draft.text());
        assert_eq!(draft.json()["version_no"], version);
        asked.push(Instant::now());
        gateway.publish(&policy, version).await;
        answered.push((Instant::now(), allow));
        if allow {
            continue;
        }
        gateway.chat(&ask(PERSONAL)).await.expect(403);
        // Let the callers run into the closed policy before it opens again.
        until("refusals to be recorded", async || (gateway.chain().refusals().count() > refused + 40).then_some(()))
            .await;
    }
    stop.store(true, Ordering::Relaxed);
    let mut stale = 0;
    let mut judged = 0;
    for caller in callers {
        for call in caller.await.unwrap() {
            let Some(round) = answered.iter().rposition(|(when, _)| call.begun > *when) else { continue };
            // A call that was still under way when the next publish was asked for may rightly be decided by that one.
            let overlaps = asked.get(round + 1).is_some_and(|next| call.ended >= *next);
            if !overlaps {
                judged += 1;
                stale += usize::from(call.allowed && !answered[round].1);
            }
        }
    }
    assert!(judged > 100, "{judged} calls could be judged");
    assert_eq!(stale, 0, "of {judged} calls");
    let chain = gateway.settled().await;
    chain.assert_fresh();
    assert!(chain.admissions().count() > 50 && chain.refusals().count() > 40);
    gateway.stop();
    gateway.assert_verifies();
}

#[tokio::test]
async fn a_suspended_agent_is_refused_at_once_and_an_activated_one_allowed_at_once() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream).await;
    for _ in 0..10 {
        gateway.admin("POST", &format!("/api/agents/{}/suspend", gateway.agent_id), json!({})).await.expect(200);
        let refused = gateway.chat(&ask("hi")).await;
        assert!(matches!(refused.status, 401 | 403), "{}", refused.text());
        gateway.admin("POST", &format!("/api/agents/{}/activate", gateway.agent_id), json!({})).await.expect(200);
        gateway.chat(&ask("hi")).await.expect(200);
    }
    assert_eq!(upstream.requests().len(), 10);
    gateway.settled().await.assert_fresh();
}

#[tokio::test]
async fn a_change_answers_with_a_receipt_of_version_digest_and_entry() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream).await;
    let policy = gateway.policy("receipts", json!([block_pii()])).await;
    let receipt = gateway.publish(&policy, 1).await.to_string();
    for name in ["config_version", "config_digest"] {
        assert!(receipt.contains(name), "{name} in {receipt}");
    }
}

#[tokio::test]
async fn taking_an_assignment_away_or_rolling_back_takes_effect_at_once() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream).await;
    let policy = gateway.policy("short-lived", json!([block_pii()])).await;
    gateway.publish(&policy, 1).await;
    gateway.chat(&ask(PERSONAL)).await.expect(200);
    let assignment = gateway.assign(&policy, "org", &gateway.org_id).await;
    gateway.chat(&ask(PERSONAL)).await.expect(403);
    gateway.admin("DELETE", &format!("/api/policies/assignments/{assignment}"), json!(null)).await.expect(200);
    gateway.chat(&ask(PERSONAL)).await.expect(200);
    gateway.chat(&ask(AWS_KEY)).await.expect(403);
}

#[tokio::test]
async fn a_running_stream_of_a_revoked_key_or_a_suspended_agent_is_cut() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream).await;
    let gate = Gate::new();
    for (number, how) in ["revoked", "suspended"].into_iter().enumerate() {
        let agent = gateway.onboard(how).await;
        let keys = gateway.admin("GET", &format!("/api/agents/{how}/keys"), Value::Null).await.expect(200).json();
        let key = keys["data"][0]["key_id"].as_str().unwrap().to_owned();
        upstream.then(Answer::stream([event(&text_chunk("so far"))]).pause(&gate).piece(openai::DONE));
        let call = Call::post("/v1/chat/completions").key(&agent.key).json(&ask_stream("hi"));
        let mut wire = call.begin(gateway.address).await;
        assert_eq!(wire.head().await.status, 200);
        let start = wire.read_until("so far").await;
        let (method, target) = match how {
            "revoked" => ("DELETE", format!("/api/agents/{how}/keys/{key}")),
            _ => ("POST", format!("/api/agents/{how}/suspend")),
        };
        gateway.admin(method, &target, Value::Null).await.expect(200);
        let rest = tokio::time::timeout(Duration::from_secs(2), wire.rest()).await;
        let (rest, whole) = rest.unwrap_or_else(|_| panic!("{how}: not cut within two seconds"));
        let sum = Sum::of(&[start, rest].concat());
        assert!(!whole && !sum.done, "{how}: {sum:?}");
        assert_eq!(sum.errors, ["revoked"], "{how}");
        upstream.abandoned(number).await;
        let chain = gateway.settled().await;
        assert_eq!((chain.closings().count(), chain.last_closing().unwrap().outcome()), (number + 1, "revoked"));
    }
}

/// An agent with one key, and that key's id.
async fn agent_with_key(gateway: &Gateway, slug: &str) -> (String, String) {
    let agent = gateway.onboard(slug).await;
    let keys = gateway.admin("GET", &format!("/api/agents/{slug}/keys"), Value::Null).await.expect(200).json();
    (agent.key, keys["data"][0]["key_id"].as_str().unwrap().to_owned())
}

async fn revoke(gateway: &Gateway, slug: &str, key_id: &str) {
    gateway.admin("DELETE", &format!("/api/agents/{slug}/keys/{key_id}"), Value::Null).await.expect(200);
}

#[tokio::test]
async fn every_stream_of_a_revoked_key_is_cut_at_once_and_no_other() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream).await;
    let gate = Gate::new();
    let (key, key_id) = agent_with_key(&gateway, "revoked").await;
    upstream.always(Answer::stream([event(&text_chunk("so far"))]).pause(&gate).piece(openai::DONE));
    let mut wires = Vec::new();
    for number in 0..9 {
        let key = if number == 8 { &gateway.agent_key } else { &key };
        let call = Call::post("/v1/chat/completions").key(key).json(&ask_stream("hi"));
        let mut wire = call.begin(gateway.address).await;
        assert_eq!(wire.head().await.status, 200);
        let start = wire.read_until("so far").await;
        wires.push((wire, start));
    }
    let (mut other, other_start) = wires.pop().unwrap();
    // A change that takes nothing from anybody cuts nobody, and does not make the streams deaf to the next one.
    gateway.onboard("bystander").await;
    revoke(&gateway, "revoked", &key_id).await;
    let acknowledged = Instant::now();
    for (mut wire, start) in wires {
        let (rest, whole) = wire.rest().await;
        let sum = Sum::of(&[start, rest].concat());
        assert!(!whole && sum.errors == ["revoked"], "{sum:?}");
    }
    let took = acknowledged.elapsed();
    assert!(took < Duration::from_millis(700), "cut {took:?} after the revocation was acknowledged");
    gate.open();
    let (rest, whole) = other.rest().await;
    assert!(whole && Sum::of(&[other_start, rest].concat()).done);
    let chain = gateway.settled().await;
    assert_eq!(chain.closings().filter(|closing| closing.outcome() == "revoked").count(), 8);
}

#[tokio::test]
async fn a_call_that_waits_for_its_provider_is_cut_when_its_key_is_revoked() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream).await;
    let never = Gate::new();
    let body = openai::completion("half of this").to_string();
    let half = body.get(..body.len() / 2).unwrap();
    let waits = [
        ("head", ask("hi"), Answer::json(200, &openai::completion("never")).hold_head(&never)),
        ("stream-head", ask_stream("hi"), Answer::stream([openai::DONE]).hold_head(&never)),
        ("first-event", ask_stream("hi"), Answer::stream([""]).pause(&never).piece(openai::DONE)),
        ("rest", ask("hi"), Answer::whole(200, "application/json", half).declare(body.len()).pause(&never).piece("}")),
    ];
    for (number, (slug, question, answer)) in waits.into_iter().enumerate() {
        let (key, key_id) = agent_with_key(&gateway, slug).await;
        upstream.then(answer);
        let call = Call::post("/v1/chat/completions").key(&key).json(&question);
        let mut wire = call.begin(gateway.address).await;
        upstream.request(number).await;
        revoke(&gateway, slug, &key_id).await;
        let acknowledged = Instant::now();
        let reply = wire.reply().await.expect(403);
        let took = acknowledged.elapsed();
        assert!(took < Duration::from_millis(700), "{slug}: cut after {took:?}");
        assert_eq!(reply.json()["error"]["code"], "revoked", "{slug}");
        upstream.abandoned(number).await;
        let chain = gateway.settled().await;
        assert_eq!((chain.closings().count(), chain.last_closing().unwrap().outcome()), (number + 1, "revoked"));
    }
}
