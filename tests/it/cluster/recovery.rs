//! What an instance leaves open when it dies is closed by the others, once; who lives is closed by nobody.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::{
    chain::{Chain, Entry},
    client::Wire,
    cluster::{Builder, Cluster},
    openai::{ask, completion},
    postgres::Postgres,
    upstream::{Answer, Gate, Upstream},
    wait::until,
};

/// The smallest lease that is allowed.
const LEASE: Duration = Duration::from_secs(6);

fn builder(upstream: &Upstream) -> Builder {
    Cluster::builder(upstream).env("TAPPASS_DATABASE__LEASE_MS", "6000")
}

async fn psql(server: &Postgres, cluster: &Cluster, sql: &str) -> String {
    let database = cluster.url().rsplit('/').next().unwrap();
    server.psql(database, sql).await.trim().to_owned()
}

/// Nothing is held any more, and the books say what the chain says.
async fn money_adds_up(cluster: &Cluster, chain: &Chain) {
    let sql = "SELECT (SELECT count(*) FROM hold), coalesce(sum(held_nano), 0), coalesce(sum(settled_nano), 0) \
               FROM spending WHERE spending_window LIKE 'total:%'";
    let settled: u64 = chain.closings().map(Entry::settled).sum();
    let settled = i64::try_from(settled).unwrap() + chain.corrected();
    assert_eq!(psql(Postgres::shared().await, cluster, sql).await, format!("0|0|{settled}"));
}

fn sole_closing<'a>(chain: &'a Chain, admission: &Entry) -> &'a Entry {
    let closings = chain.closings_of(admission);
    assert_eq!(closings.len(), 1, "{}", admission.text);
    closings[0]
}

/// Sends a call to a gateway and waits until its admission is on record.
async fn admitted(cluster: &Cluster, node: usize) -> (Wire, Entry) {
    let waiting = cluster.chat_call(&ask("hi")).begin(cluster.nodes[node].address).await;
    let admission = until("an open admission", async || cluster.chain().open().first().map(|open| (*open).clone()));
    (waiting, admission.await)
}

/// Waits for the one correction.
async fn late(cluster: &Cluster) -> (Chain, Entry) {
    until("a late end", async || {
        let chain = cluster.chain();
        let late = chain.entries.iter().find(|entry| entry.kind() == "late").cloned()?;
        Some((chain, late))
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_killed_instance_left_open_is_closed_by_the_others_once_and_in_full() {
    let upstream = Upstream::start();
    let cluster = builder(&upstream).start(3).await;
    cluster.budget(json!({"limit_usd": 10})).await;
    let gate = Gate::new();
    upstream.always(Answer::json(200, &completion("never")).hold_head(&gate));
    let mut waiting = Vec::new();
    for _ in 0..5 {
        waiting.push(cluster.chat_call(&ask("hi")).begin(cluster.nodes[0].address).await);
    }
    upstream.request(4).await;
    cluster.nodes[0].server.kill().await;
    drop(waiting);
    let chain = cluster.settled().await;
    assert_eq!(chain.admissions().count(), 5);
    for admission in chain.admissions() {
        let closing = sole_closing(&chain, admission);
        assert_eq!((closing.outcome(), closing.settled()), ("unknown", admission.reserved()));
        assert!(closing.is_estimated() && closing.id().0 != admission.id().0);
    }
    money_adds_up(&cluster, &chain).await;
    assert_eq!(cluster.sum([1, 2], "tappass_recovered_admissions_total").await, 5);
    let logs = cluster.logs();
    assert!(!logs.contains("came for an admission that is closed"), "two closed one admission");
    upstream.always(Answer::json(200, &completion("still here")));
    for node in [1, 2] {
        cluster.chat(node, &ask("hi")).await.expect(200);
    }
    cluster.verifies().await;
    cluster.stop().await;
    cluster.assert_verifies();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_frozen_after_its_commit_calls_nobody_on_waking_and_goes_on_under_a_new_boot() {
    let mut upstream = Upstream::deaf().await;
    let patient = builder(&upstream).env("TAPPASS_PROVIDERS__CONNECT_TIMEOUT_MS", "60000");
    let cluster = patient.start(3).await;
    cluster.budget(json!({"limit_usd": 10})).await;
    let (mut waiting, admission) = admitted(&cluster, 0).await;
    cluster.nodes[0].server.pause();
    let chain = cluster.settled().await;
    let closing = sole_closing(&chain, &admission);
    assert_eq!((closing.outcome(), closing.settled()), ("unknown", admission.reserved()));
    // The connection that the call waits for comes about while its gateway is frozen.
    let fillers = upstream.hears();
    until("the call's connection", async || (upstream.connections() > fillers).then_some(())).await;
    cluster.nodes[0].server.resume();
    let reply = waiting.reply().await;
    assert_eq!(reply.status, 503, "{}", reply.text());
    let (_, late) = late(&cluster).await;
    assert_eq!(late.closes(), Some(admission.id()));
    assert_ne!(late.id().0, admission.id().0, "under a new boot");
    let by = late.content()["by_nano"].as_i64().unwrap();
    assert_eq!(by, -i64::try_from(admission.reserved()).unwrap(), "nothing was sent, so nothing is owed");
    assert!(upstream.requests().is_empty(), "{:?}", upstream.requests());
    cluster.nodes[0].ready().await;
    cluster.chat(0, &ask("hi")).await.expect(200);
    assert_eq!(upstream.requests().len(), 1);
    let chain = cluster.settled().await;
    let closed_at = chain.entries.iter().position(|entry| entry.id() == closing.id()).unwrap();
    let after = &chain.entries[closed_at..];
    assert!(after.iter().all(|entry| entry.id().0 != admission.id().0), "the old boot appends nothing any more");
    assert_eq!(chain.admissions().last().unwrap().id().0, late.id().0);
    sole_closing(&chain, &admission);
    money_adds_up(&cluster, &chain).await;
    cluster.verifies().await;
    cluster.stop().await;
    cluster.assert_verifies();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_was_sent_before_its_instance_froze_corrects_what_recovery_settled() {
    let upstream = Upstream::start();
    let cluster = builder(&upstream).start(3).await;
    cluster.budget(json!({"limit_usd": 10})).await;
    let gate = Gate::new();
    upstream.then(Answer::json(200, &completion("late")).hold_head(&gate));
    let (waiting, admission) = admitted(&cluster, 1).await;
    gate.reached().await;
    cluster.nodes[1].server.pause();
    let chain = cluster.settled().await;
    assert_eq!(sole_closing(&chain, &admission).outcome(), "unknown");
    gate.open();
    cluster.nodes[1].server.resume();
    let (chain, late) = late(&cluster).await;
    assert_eq!(late.closes(), Some(admission.id()));
    let (by, settled) = (late.content()["by_nano"].as_i64().unwrap(), late.settled());
    assert!(settled > 0 && settled < admission.reserved(), "the prompt was sent: {}", late.text);
    assert_eq!(by, i64::try_from(settled).unwrap() - i64::try_from(admission.reserved()).unwrap());
    sole_closing(&chain, &admission);
    money_adds_up(&cluster, &chain).await;
    drop(waiting);
    cluster.nodes[1].ready().await;
    cluster.chat(1, &ask("hi")).await.expect(200);
    cluster.verifies().await;
    cluster.stop().await;
    cluster.assert_verifies();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_an_outage_longer_than_the_lease_nobody_alive_is_closed() {
    let upstream = Upstream::start();
    let server = Postgres::start().await;
    let url = server.database().await;
    let cluster = builder(&upstream).start_on(&url, 3).await;
    let recoveries = "tappass_job_runs_total{job=\"recovery\"}";
    until("a first recovery", async || (cluster.sum(0..3, recoveries).await > 0).then_some(())).await;
    server.stop().await;
    let began = Instant::now();
    until("every lease to be over", async || {
        (began.elapsed() > LEASE + Duration::from_secs(1) && cluster.ready().await.is_empty()).then_some(())
    })
    .await;
    let before = cluster.sum(0..3, recoveries).await;
    server.start_again().await;
    for node in &cluster.nodes {
        node.ready().await;
    }
    for node in 0..3 {
        cluster.chat(node, &ask("hi")).await.expect(200);
    }
    until("recovery to go on", async || (cluster.sum(0..3, recoveries).await > before + 1).then_some(())).await;
    assert_eq!(psql(&server, &cluster, "SELECT count(*), sum(closed) FROM boot").await, "3|0");
    assert!(!cluster.logs().contains("taken for dead"));
    cluster.settled().await;
    cluster.stop().await;
    cluster.assert_verifies();
}
