//! What one of several instances does, and what all of them know of it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering},
    },
    time::Instant,
};

use serde_json::{Value, json};

use crate::support::{
    cluster::Cluster,
    gateway::Gateway,
    openai::{ask, well_behaved},
    postgres::Postgres,
    upstream::{Answer, Upstream},
    wait::until,
};

/// A provider that judges keys with this status, and answers calls.
fn judging(status: u16) -> (Upstream, Arc<AtomicU16>) {
    let (upstream, judgement) = (Upstream::start(), Arc::new(AtomicU16::new(status)));
    let theirs = Arc::clone(&judgement);
    upstream.script(move |seen| match (seen.method.as_str(), theirs.load(Ordering::Relaxed)) {
        ("GET", 200) | ("POST", _) => well_behaved(seen),
        (_, status) => Answer::json(status, &json!({"error": {"message": "no"}})),
    });
    (upstream, judgement)
}

fn asked(upstream: &Upstream, method: &str) -> usize {
    upstream.requests().iter().filter(|seen| seen.method == method).count()
}

/// What is said about the stored key.
async fn status(gateway: &Gateway) -> Value {
    let listed = gateway.admin("GET", "/api/admin/llm-keys", Value::Null).await.expect(200).json();
    listed["providers"][0].clone()
}

async fn becomes(gateway: &Gateway, wanted: &str) -> Value {
    until(wanted, async || Some(status(gateway).await).filter(|key| key["status"] == wanted)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_job_of_the_cluster_runs_once_in_its_period_on_three_gateways() {
    let (upstream, _) = judging(200);
    let began = Instant::now();
    let cluster = Cluster::builder(&upstream)
        .env("TAPPASS_DATABASE__LEASE_MS", "6000")
        .env("TAPPASS_JOBS__VALIDATE_IN_USE_SECONDS", "3")
        .env("TAPPASS_JOBS__VALIDATE_ALL_SECONDS", "3")
        .env("TAPPASS_JOBS__VERIFY_SECONDS", "3")
        .start(3)
        .await;
    let jobs = [("recovery", 1), ("checkpoints", 5), ("validate_in_use", 3), ("validate_all", 3), ("verify", 3)];
    for (job, period) in jobs {
        let name = format!("tappass_job_runs_total{{job=\"{job}\"}}");
        until(job, async || (cluster.sum(0..3, &name).await >= 3).then_some(())).await;
        let runs = cluster.sum(0..3, &name).await;
        let most = began.elapsed().as_secs() / period + 1;
        assert!(runs <= most, "{job}: {runs} runs in {most} periods");
        for end in ["overran", "failed"] {
            assert_eq!(cluster.sum(0..3, &format!("tappass_job_{end}_total{{job=\"{job}\"}}")).await, 0, "{job} {end}");
        }
        let age = format!("tappass_job_last_success_age_seconds{{job=\"{job}\"}}");
        for node in 0..3 {
            assert!(cluster.metric(node, &age).await <= 2 * period + 2, "every instance knows how old {job} is");
        }
    }
    let runs = cluster.sum(0..3, "tappass_job_runs_total{job=\"validate_all\"}").await;
    let asked = u64::try_from(asked(&upstream, "GET")).unwrap();
    assert!(asked <= runs + 1, "one key, one question a run: {asked} in {runs}");
    // Each instance anchors what one of them signed.
    for node in &cluster.nodes {
        let anchors = node.server.folder().join("data/anchors").join(&cluster.org_id);
        until("a note in every folder", async || {
            let mut files = std::fs::read_dir(&anchors).ok()?.map(|file| file.unwrap().path());
            files.any(|file| file.extension().is_some_and(|ext| ext == "note")).then_some(())
        })
        .await;
    }
    cluster.stop().await;
    cluster.assert_verifies();
}

#[tokio::test]
async fn a_key_that_the_provider_refuses_is_not_sent_again_and_a_new_one_is_not_judged_by_it() {
    let (upstream, judgement) = judging(401);
    let gateway = Gateway::builder(&upstream)
        .env("TAPPASS_JOBS__VALIDATE_IN_USE_SECONDS", "30")
        .env("TAPPASS_JOBS__VALIDATE_ALL_SECONDS", "2")
        .start()
        .await;
    let key = becomes(&gateway, "invalid").await;
    assert!(key["checked_at"].is_string() && key["verified_at"].is_null(), "{key}");
    let refused = gateway.chat(&ask("hi")).await.expect(424).json();
    assert_eq!(refused["error"]["code"], "provider_key_invalid", "{refused}");
    assert!(refused["error"]["message"].as_str().unwrap().contains("POST /api/admin/llm-keys"));
    let chain = gateway.settled().await;
    let (admission, closing) = (chain.admissions().last().unwrap(), chain.last_closing().unwrap());
    assert_eq!((closing.outcome(), closing.settled()), ("not_called", 0));
    assert!(!admission.mentions("credential_unverified"), "{}", admission.text);
    assert_eq!(asked(&upstream, "POST"), 0);

    judgement.store(503, Ordering::Relaxed);
    let new = json!({"provider": "openai", "api_key": "sk-another-key-of-the-same-provider"});
    gateway.admin("POST", "/api/admin/llm-keys", new).await.expect(200);
    gateway.chat(&ask("hi")).await.expect(200);
    assert_eq!(asked(&upstream, "POST"), 1);
    let chain = gateway.settled().await;
    assert_eq!(chain.admissions().last().unwrap().content()["credential_unverified"], true);
    let known = until("an answer that says nothing", async || {
        Some(status(&gateway).await).filter(|key| key["checked_at"].is_string())
    });
    assert_eq!(known.await["status"], "unverified", "a provider that is down refuses no key");

    judgement.store(200, Ordering::Relaxed);
    let key = becomes(&gateway, "valid").await;
    assert_eq!(key["verified_at"], key["checked_at"]);
    gateway.chat(&ask("hi")).await.expect(200);
    let chain = gateway.settled().await;
    assert!(!chain.admissions().last().unwrap().mentions("credential_unverified"));
}

#[tokio::test]
async fn a_key_is_asked_about_while_it_is_in_use_and_an_old_result_is_not_trusted() {
    let (upstream, _) = judging(200);
    let gateway = Gateway::builder(&upstream).env("TAPPASS_JOBS__VALIDATE_IN_USE_SECONDS", "3").start().await;
    assert_eq!(status(&gateway).await["status"], "unverified");
    gateway.chat(&ask("hi")).await.expect(200);
    becomes(&gateway, "valid").await;
    // No call uses it any more: what is known grows old, and nobody asks again.
    becomes(&gateway, "unverified").await;
    let before = asked(&upstream, "GET");
    assert!((1..=2).contains(&before), "{before} questions");
    gateway.chat(&ask("hi")).await.expect(200);
    becomes(&gateway, "valid").await;
    assert!(asked(&upstream, "GET") > before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_entry_edited_in_the_database_is_an_alarm_until_it_is_put_back() {
    let upstream = Upstream::start();
    let cluster = Cluster::builder(&upstream).env("TAPPASS_JOBS__VERIFY_SECONDS", "1").start(1).await;
    for _ in 0..3 {
        cluster.chat(0, &ask("hi")).await.expect(200);
    }
    let runs = "tappass_job_runs_total{job=\"verify\"}";
    let before = cluster.metric(0, runs).await;
    until("a run over all of it", async || (cluster.metric(0, runs).await > before + 1).then_some(())).await;
    assert_eq!(cluster.metric(0, "tappass_audit_findings").await, 0, "{}", cluster.logs());
    cluster.nodes[0].server.kill().await;
    let database = cluster.url().rsplit('/').next().unwrap();
    let edit = |from: &str, to: &str| {
        let org = &cluster.org_id;
        format!("UPDATE audit_entry SET body = replace(body, '{from}', '{to}') WHERE org_id = '{org}' AND seq = 2")
    };
    let server = Postgres::shared().await;
    server.psql(database, &edit("\"kind\":", "\"kinD\":")).await;
    cluster.nodes[0].start_again().await;
    let health = until("the alarm", async || {
        let health = cluster.admin(0, "GET", "/health", Value::Null).await.expect(200).json();
        (health["status"] == "degraded").then_some(health)
    })
    .await;
    assert!(health["reasons"][0].as_str().unwrap().contains("self-verification"), "{health}");
    assert_eq!(cluster.metric(0, "tappass_audit_findings").await, 1);
    assert!(cluster.logs().contains("alarm: the record does not verify"));
    server.psql(database, &edit("\"kinD\":", "\"kind\":")).await;
    until("the end of the alarm", async || (cluster.metric(0, "tappass_audit_findings").await == 0).then_some(()))
        .await;
    cluster.stop().await;
}
