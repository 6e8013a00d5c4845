//! What one instance does, the others do at once.

use serde_json::json;

use crate::support::{
    cluster::Cluster,
    control::block_pii,
    openai::{self, ask, ask_stream, event, text_chunk},
    upstream::{Answer, Gate, Upstream},
};

const PERSONAL: &str = "my social security number is 536-22-8145";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_policy_published_on_one_instance_decides_the_next_call_on_every_other() {
    let upstream = Upstream::start();
    let cluster = Cluster::start(&upstream, 3).await;
    let policy = cluster.policy(0, "personal data", json!([block_pii()])).await;
    for round in 0..6 {
        for node in 0..3 {
            cluster.chat(node, &ask(PERSONAL)).await.expect(200);
        }
        let (assignment, _) = cluster.assign(round % 3, &policy).await;
        for node in 0..3 {
            cluster.chat(node, &ask(PERSONAL)).await.expect(403);
        }
        cluster.lift((round + 1) % 3, &assignment).await;
    }
    cluster.settled().await.assert_fresh();
    cluster.stop().await;
    cluster.assert_verifies();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_that_waits_is_answered_when_no_call_runs_that_was_admitted_before_it() {
    let upstream = Upstream::start();
    let cluster = Cluster::start(&upstream, 2).await;
    let policy = cluster.policy(0, "personal data", json!([block_pii()])).await;
    let gate = Gate::new();
    upstream.then(Answer::stream([event(&text_chunk("so far"))]).pause(&gate).piece(openai::DONE));
    let mut stream = cluster.chat_call(&ask_stream("hi")).begin(cluster.nodes[1].address).await;
    assert_eq!(stream.head().await.status, 200);
    stream.read_until("so far").await;
    let (lifted, receipt) = cluster.assign(0, &policy).await;
    assert_eq!(receipt["receipt"]["older_calls"], 1, "{receipt}");
    cluster.lift(0, &lifted).await;

    let assignments = format!("/api/policies/{policy}/assignments");
    let scope = json!({"scope_type": "org", "scope_id": cluster.org_id});
    let nonsense = cluster.admin(0, "POST", &format!("{assignments}?wait=forever"), scope.clone()).await;
    assert_eq!(nonsense.expect(400).json()["error"]["param"], "wait");
    let nonsense = cluster.admin(0, "POST", "/auth/orgs?wait=forever", json!({"name": "another"})).await;
    assert_eq!(nonsense.expect(400).json()["error"]["param"], "wait");
    cluster.chat(1, &ask(PERSONAL)).await.expect(200);

    let drained = format!("{assignments}?wait=drained");
    let mut change = std::pin::pin!(cluster.admin(0, "POST", &drained, scope));
    // Long after it is in force, as calls go, it is not answered yet.
    let in_force = async {
        while cluster.chat(1, &ask(PERSONAL)).await.status != 403 {}
        for _ in 0..50 {
            cluster.chat(1, &ask(PERSONAL)).await.expect(403);
        }
    };
    tokio::select! {
        biased;
        reply = &mut change => panic!("answered while the stream runs: {}", reply.text()),
        () = in_force => gate.open(),
    }
    assert!(stream.rest().await.1, "the stream came to its end");
    let receipt = change.await.json();
    assert_eq!(receipt["receipt"]["older_calls"], 0, "{receipt}");
    cluster.settled().await.assert_fresh();
}
