//! A key that is revoked on one instance is worth nothing on any.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{
    client::{Call, Wire},
    cluster::Cluster,
    control::Agent,
    gateway::Gateway,
    openai::{self, ask_stream, event, text_chunk},
    sse::Sum,
    upstream::{Answer, Gate, Upstream},
};

/// Revokes an agent's only key at one gateway.
async fn revoke(cluster: &Cluster, node: usize, slug: &str) {
    let keys = cluster.admin(node, "GET", &format!("/api/agents/{slug}/keys"), Value::Null).await.expect(200).json();
    let key = keys["data"][0]["key_id"].as_str().unwrap_or_else(|| panic!("a key in {keys}"));
    cluster.admin(node, "DELETE", &format!("/api/agents/{slug}/keys/{key}"), Value::Null).await.expect(200);
}

fn echo(agent: &Agent) -> Vec<u8> {
    Call::post("/v1/chat/completions").key(&agent.key).json(&Gateway::echo("hi")).bytes()
}

/// Calls a thousand times; answers how many passed.
async fn thousand(mut wire: Wire, call: Vec<u8>) -> usize {
    let mut passed = 0;
    for _ in 0..1_000 {
        wire.send(&call).await;
        let status = wire.reply().await.status;
        assert!(matches!(status, 200 | 401), "{status}");
        passed += usize::from(status == 200);
    }
    passed
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_thousand_calls_on_each_instance_after_a_revocation_none_passes() {
    let upstream = Upstream::start();
    for notify in ["true", "false"] {
        let cluster = Cluster::builder(&upstream).env("TAPPASS_DATABASE__NOTIFY", notify).start(3).await;
        let agent = cluster.onboard(1, "leaver").await;
        let call = echo(&agent);
        let mut wires = Vec::new();
        for node in &cluster.nodes {
            let mut wire = Wire::open(node.address).await;
            wire.send(&call).await;
            wire.reply().await.expect(200);
            wires.push(wire);
        }
        revoke(&cluster, 2, "leaver").await;
        let calls = wires.into_iter().map(|wire| tokio::spawn(thousand(wire, call.clone())));
        for passed in calls.collect::<Vec<_>>() {
            assert_eq!(passed.await.unwrap(), 0, "with notifications {notify}");
        }
        cluster.settled().await.assert_fresh();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn running_streams_of_a_revoked_key_are_cut_on_every_instance_within_two_seconds() {
    let upstream = Upstream::start();
    for notify in ["true", "false"] {
        let cluster = Cluster::builder(&upstream).env("TAPPASS_DATABASE__NOTIFY", notify).start(3).await;
        let agent = cluster.onboard(0, "leaver").await;
        let call = Call::post("/v1/chat/completions").key(&agent.key).json(&ask_stream("hi"));
        let gate = Gate::new();
        let mut streams = Vec::new();
        for node in &cluster.nodes {
            upstream.then(Answer::stream([event(&text_chunk("so far"))]).pause(&gate).piece(openai::DONE));
            let mut wire = call.begin(node.address).await;
            assert_eq!(wire.head().await.status, 200);
            let start = wire.read_until("so far").await;
            streams.push((wire, start));
        }
        revoke(&cluster, 1, "leaver").await;
        for (mut wire, start) in streams {
            let rest = tokio::time::timeout(Duration::from_secs(2), wire.rest()).await;
            let (rest, whole) = rest.unwrap_or_else(|_| panic!("notifications {notify}: not cut within two seconds"));
            let sum = Sum::of(&[start, rest].concat());
            assert!(!whole && !sum.done, "{sum:?}");
            assert_eq!(sum.errors, ["revoked"]);
        }
        let chain = cluster.settled().await;
        assert_eq!(chain.closings().filter(|closing| closing.outcome() == "revoked").count(), 3);
        cluster.stop().await;
        cluster.assert_verifies();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_made_on_one_instance_is_known_on_the_others_at_once() {
    let upstream = Upstream::start();
    let cluster = Cluster::builder(&upstream).env("TAPPASS_DATABASE__NOTIFY", "false").start(3).await;
    for number in 0..10 {
        let agent = cluster.onboard(number % 3, &format!("newcomer-{number}")).await;
        let call = Call::post("/v1/chat/completions").key(&agent.key).json(&Gateway::echo("hi"));
        for node in &cluster.nodes {
            call.send(node.address).await.expect(200);
        }
    }
    let listed = cluster.admin(1, "GET", "/api/agents", json!(null)).await.expect(200).json();
    assert_eq!(listed["data"].as_array().unwrap().len(), 11);
}
