//! The process dies in mid-work: what was answered is on record, once, and nothing is re-signed.

use std::collections::BTreeSet;

use tokio::io::AsyncWriteExt as _;

use crate::support::{
    client::{Call, call_until_it_ends},
    database::Database,
    gateway::Gateway,
    openai::ask,
    upstream::Upstream,
};

#[tokio::test]
async fn after_ten_kills_under_load_every_answer_has_its_admission_and_one_closing_entry() {
    let upstream = Upstream::start();
    let mut gateway = Gateway::start(&upstream).await;
    let mut answered = Vec::new();
    let mut stored = BTreeSet::new();
    for round in 1..=10 {
        let call = gateway.chat_call(&ask("hi")).bytes();
        let callers: Vec<_> =
            (0..16).map(|_| tokio::spawn(call_until_it_ends(gateway.address, call.clone()))).collect();
        upstream.request(round * 60).await;
        gateway.kill();
        for caller in callers {
            answered.extend(caller.await.unwrap());
        }
        let mut database = Database::open(&gateway.database()).await;
        let sql = "SELECT hex(message) || hex(signature) FROM audit_batch ORDER BY org_id, boot, number";
        let now: BTreeSet<String> = database.texts(sql).await.into_iter().collect();
        assert!(now.is_superset(&stored), "round {round}: a batch was signed again or lost");
        stored = now;
        database.close().await;
        gateway.restart().await;
    }
    gateway.chat(&ask("still here")).await.expect(200);
    let chain = gateway.settled().await;
    for admission in chain.admissions() {
        assert_eq!(chain.closings_of(admission).len(), 1, "{}", admission.text);
    }
    assert!(chain.admissions().count() >= upstream.requests().len(), "no call without its admission");
    assert!(answered.len() > 100, "{} answers", answered.len());
    for task in &answered {
        let decisions = chain.admissions().filter(|entry| entry.mentions(task)).count();
        assert_eq!(decisions, 1, "an answer and its admission: {task}");
    }
    let unknown = chain.closings().filter(|closing| closing.outcome() == "unknown");
    for closing in unknown {
        let admission = chain.admissions().find(|admission| Some(admission.id()) == closing.closes()).unwrap();
        assert_eq!(closing.settled(), admission.reserved(), "what nobody knows is settled at what was reserved");
    }
    gateway.stop();
    Database::open(&gateway.database()).await.assert_nothing_held().await;
    gateway.assert_verifies();
}

#[tokio::test]
async fn a_killed_gateway_starts_again_with_its_keys_and_its_policies() {
    let upstream = Upstream::start();
    let mut gateway = Gateway::start(&upstream).await;
    gateway.enforce("kept", serde_json::json!([crate::support::control::block_pii()])).await;
    let (agent, admin) = (gateway.agent_key.clone(), gateway.admin_key.clone());
    gateway.kill();
    gateway.restart().await;
    assert_eq!((&gateway.agent_key, &gateway.admin_key), (&agent, &admin));
    gateway.chat(&ask("my social security number is 536-22-8145")).await.expect(403);
    gateway.chat(&ask("hi")).await.expect(200);
    gateway.stop();
    gateway.assert_verifies();
}

#[tokio::test]
async fn a_request_cut_off_by_a_kill_is_closed_as_unknown_at_its_reservation() {
    let upstream = Upstream::start();
    let gate = crate::support::upstream::Gate::new();
    let answer = crate::support::upstream::Answer::json(200, &crate::support::openai::completion("never"));
    upstream.then(answer.hold_head(&gate));
    let mut gateway = Gateway::start(&upstream).await;
    gateway.budget(1.0).await;
    let waiting = gateway.chat_begin(&ask("hi")).await;
    gate.reached().await;
    gateway.kill();
    drop(waiting);
    gateway.restart().await;
    let chain = gateway.settled().await;
    let closing = chain.last_closing().unwrap();
    assert_eq!(closing.outcome(), "unknown");
    assert!(closing.is_estimated(), "{}", closing.text);
    assert!(closing.settled() > 0);
    assert_eq!(closing.settled(), chain.admissions().last().unwrap().reserved());
}

#[tokio::test]
async fn a_torn_write_ahead_log_loses_nothing_that_was_acknowledged() {
    let upstream = Upstream::start();
    let mut gateway = Gateway::start(&upstream).await;
    gateway.chat(&ask("hi")).await.expect(200);
    gateway.settled().await;
    gateway.kill();
    let log = gateway.data_dir().join("tappass.db-wal");
    // Bytes that a power cut left behind its last good frame.
    let mut file = tokio::fs::OpenOptions::new().append(true).create(true).open(&log).await.unwrap();
    file.write_all(&[0x5a; 777]).await.unwrap();
    file.sync_all().await.unwrap();
    gateway.restart().await;
    assert_eq!(gateway.settled().await.closings().count(), 1);
    Call::get("/health/ready").send(gateway.address).await.expect(200);
    gateway.stop();
    gateway.assert_verifies();
}
