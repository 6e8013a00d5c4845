//! The connection dies between a commit and its answer, again and again under load: nothing twice, nothing missing, nothing
//! left reserved, nothing called without a record.

use std::collections::HashSet;

use serde_json::{Value, json};

use super::{Rig, is_long};
use crate::support::{
    chain::Entry,
    chaos::Chaos,
    load::{Heard, Load, latency, tally},
    openai::ask,
    wait::until,
};

/// Two gateways that reach their database over one wire.
async fn over_a_wire() -> (Rig, Chaos) {
    let mut rig = Rig::prepare(|builder| builder).await;
    let chaos = Chaos::in_front_of_postgres(rig.postgres.port);
    let through_wire = chaos.instead_of(rig.cluster.url());
    for _ in 0..2 {
        rig.cluster.add_with(&[("DATABASE_URL", &through_wire)]).await;
    }
    rig.meet().await;
    (rig, chaos)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_of_commits_that_are_lost_under_load_cost_nobody_anything() {
    lost_under_load(5, 10).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_second_answer_that_is_lost_is_still_no_outage() {
    lost_under_load(2, 25).await;
}

/// Every so manieth answer is lost, and in the long form at most so many of a hundred calls are refused for it.
async fn lost_under_load(every: usize, most: usize) {
    let (rig, chaos) = over_a_wire().await;
    let wanted = if is_long() { 200 } else { 40 };
    chaos.lose_answers("tappass_append_v1", every, wanted);
    let load = Load::start(30, &rig.addresses(), &rig.cluster.chat_call(&ask("hi")));
    while chaos.lost() < wanted {
        let before = chaos.lost();
        until("another answer to be lost", async || (chaos.lost() > before).then_some(())).await;
    }
    let heard = load.stop().await;
    let (answered, refused): (Vec<Heard>, Vec<Heard>) = heard.iter().cloned().partition(|one| one.status == 200);
    let share = refused.len() * 100 / heard.len();
    let (slowest, nearly_all) = latency(&heard);
    let (matched, words) = (chaos.counts().matched, tally(&heard));
    println!("{wanted} of {matched} answers lost: {words}; p99 {nearly_all:?}, slowest {slowest:?}");
    assert!(refused.iter().all(|one| one.status == 503 && one.retry_after.is_some()), "{words}");
    assert!(!answered.is_empty(), "{words}");
    // A machine that runs all tests at once is slow enough for real outages; the long form runs alone.
    assert!(!is_long() || share <= most, "an answer that was lost is no outage: {words}");
    let chain = rig.books().await;
    let admitted: HashSet<String> = chain.admissions().map(Entry::name).collect();
    let named: HashSet<&String> = answered.iter().filter_map(|one| one.id.as_ref()).collect();
    assert_eq!(named.len(), answered.len(), "every answer names an admission of its own");
    assert!(named.iter().all(|name| admitted.contains(*name)));
    let called = rig.upstream.requests().len();
    assert!(called >= answered.len() && called <= admitted.len(), "{called} calls, {} admissions", admitted.len());
    rig.cluster.stop().await;
    rig.cluster.assert_verifies();
}

/// The budget's limit as one gateway tells it.
async fn limit(rig: &Rig, node: usize) -> Value {
    rig.cluster.admin(node, "GET", "/api/budget", Value::Null).await.expect(200).json()["limit_usd"].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_whose_answer_is_lost_is_made_once_or_said_to_be_unknown() {
    let (rig, chaos) = over_a_wire().await;
    let changes = async || {
        let chain = rig.cluster.chain();
        chain.entries.iter().filter(|entry| entry.kind().starts_with("budget")).count()
    };
    // One answer lost, then two, …: whoever asks often enough is told, and who gives up says so.
    let mut before = changes().await;
    for lost in 1..=6_usize {
        let all = chaos.lost() + lost;
        chaos.lose_answers("tappass_change_v1", 1, lost);
        let wanted = json!(1_000 + lost);
        let reply = rig.cluster.admin(lost % 2, "PUT", "/api/budget", json!({"limit_usd": wanted})).await;
        chaos.lose_no_more_answers();
        let code = reply.json()["error"]["code"].clone();
        assert!(chaos.lost() <= all);
        match reply.status {
            200 => assert!(reply.json()["receipt"]["entry"]["seq"].is_u64(), "{}", reply.text()),
            503 => assert_eq!(code, "outcome_unknown", "{}", reply.text()),
            _ => panic!("{} {}", reply.status, reply.text()),
        }
        let (one, other) = (limit(&rig, 0).await, limit(&rig, 1).await);
        let after = changes().await;
        println!("{lost} answers lost: {} {code}, the limit is {one}, entries {}", reply.status, after - before);
        // The first attempt was carried out, so the change is there, whoever knows it.
        assert_eq!((one.as_f64(), other.as_f64(), after), (wanted.as_f64(), wanted.as_f64(), before + 1));
        before = after;
    }
    rig.cluster.chat(0, &ask("hi")).await.expect(200);
    rig.books().await;
}
