//! One budget, spent on three instances at once.

use serde_json::{Value, json};

use crate::support::{
    chain::Entry,
    cluster::Cluster,
    openai::{ask, completion, with},
    postgres::Postgres,
    upstream::{Answer, Gate, Upstream},
    wait::until,
};

/// Each reserves 16,000 answer tokens, $0.0096, and a little for the prompt.
fn priced() -> Value {
    with(ask("hi"), "max_tokens", json!(16_000))
}

async fn psql(cluster: &Cluster, sql: &str) -> String {
    let database = cluster.url().rsplit('/').next().unwrap();
    Postgres::shared().await.psql(database, sql).await.trim().to_owned()
}

/// settled + held is the counter, and never beyond the limit; what is held is what open admissions hold.
async fn look(cluster: &Cluster, limit: u64) {
    let sql = "SELECT coalesce(max(s.settled_nano + s.held_nano), 0), coalesce(sum(s.held_nano), 0), \
               coalesce((SELECT sum(h.amount_nano) FROM hold h), 0) FROM spending s WHERE s.spending_window LIKE 'total:%'";
    let row = psql(cluster, sql).await;
    let numbers: Vec<u64> = row.split('|').map(|number| number.parse().unwrap_or_else(|_| panic!("{row}"))).collect();
    assert!(numbers[0] <= limit, "settled and held {} of {limit}", numbers[0]);
    assert_eq!(numbers[1], numbers[2], "what is held is what open admissions hold");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_three_hundred_parallel_calls_over_three_instances_exactly_the_ten_that_fit_pass() {
    let upstream = Upstream::start();
    let gate = Gate::new();
    upstream.always(Answer::json(200, &completion("late")).hold_head(&gate));
    let cluster = Cluster::start(&upstream, 3).await;
    cluster.budget(json!({"limit_usd": 0.1})).await;
    let call = cluster.chat_call(&priced());
    let calls: Vec<_> = (0..300)
        .map(|number| {
            let (call, address) = (call.clone(), cluster.nodes[number % 3].address);
            tokio::spawn(async move { call.send(address).await.status })
        })
        .collect();
    // All that fit have reached the provider before anything is settled.
    upstream.request(9).await;
    until("all others to be refused", async || {
        look(&cluster, 100_000_000).await;
        let refused = psql(&cluster, "SELECT count(*) FROM audit_entry WHERE kind = 'refusal'").await;
        (refused == "290").then_some(())
    })
    .await;
    assert_eq!(upstream.requests().len(), 10);
    gate.open();
    let mut passed = 0;
    for call in calls {
        let status = call.await.unwrap();
        assert!(matches!(status, 200 | 403), "{status}");
        passed += usize::from(status == 200);
    }
    assert_eq!(passed, 10);
    let chain = cluster.settled().await;
    look(&cluster, 100_000_000).await;
    let settled: u64 = chain.closings().map(Entry::settled).sum();
    let counted = psql(&cluster, "SELECT sum(settled_nano), sum(held_nano) FROM spending").await;
    assert_eq!(counted, format!("{settled}|0"));
    cluster.stop().await;
    cluster.assert_verifies();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_who_leave_give_back_what_was_not_used() {
    let upstream = Upstream::start();
    let gate = Gate::new();
    upstream.always(Answer::json(200, &completion("never")).hold_head(&gate));
    let cluster = Cluster::start(&upstream, 3).await;
    cluster.budget(json!({"limit_usd": 0.1})).await;
    for round in 0..3 {
        let mut held = Vec::new();
        for number in 0..10 {
            held.push(cluster.chat_call(&priced()).begin(cluster.nodes[number % 3].address).await);
        }
        upstream.request(round * 10 + 9).await;
        look(&cluster, 100_000_000).await;
        drop(held);
        until("all of it to be given back", async || {
            look(&cluster, 100_000_000).await;
            (psql(&cluster, "SELECT count(*) FROM hold").await == "0").then_some(())
        })
        .await;
    }
    assert_eq!(psql(&cluster, "SELECT sum(held_nano) FROM spending").await, "0");
    let chain = cluster.settled().await;
    assert_eq!(chain.closings().filter(|closing| closing.outcome() == "client_closed").count(), 30);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reset_on_one_instance_lets_the_next_call_on_every_other_pass() {
    let upstream = Upstream::start();
    let cluster = Cluster::builder(&upstream).env("TAPPASS_DATABASE__NOTIFY", "false").start(3).await;
    let usage = json!({"prompt_tokens": 10, "completion_tokens": 16_000, "total_tokens": 16_010});
    upstream.always(Answer::json(200, &with(completion("long"), "usage", usage)));
    cluster.budget(json!({"limit_usd": 0.0097, "day_usd": 5})).await;
    for round in 0..6 {
        cluster.chat(round % 3, &priced()).await.expect(200);
        for node in 0..3 {
            cluster.chat(node, &priced()).await.expect(403);
        }
        cluster.admin(round % 3, "POST", "/api/budget/reset", Value::Null).await.expect(200);
    }
    cluster.settled().await.assert_fresh();
}
