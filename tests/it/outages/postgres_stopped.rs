//! The database goes away under running gateways: callers are told, nothing is called, nothing is lost, all heals.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};

use super::{DEADLINE, Rig, assert_alive, assert_unavailable, not_ready, timed};
use crate::support::{
    chaos::Chaos,
    client::{Call, Wire},
    control::Agent,
    load::{Load, latency, tally},
    openai::{ask, completion},
    postgres::Postgres,
    upstream::{Answer, Gate},
    wait::until,
};

/// A call that the provider keeps waiting.
async fn call_under_way(rig: &Rig, node: usize) -> (Wire, Gate) {
    let gate = Gate::new();
    rig.upstream.then(Answer::json(200, &completion("late")).hold_head(&gate));
    let wire = rig.cluster.chat_call(&ask("hi")).begin(rig.address(node)).await;
    gate.reached().await;
    (wire, gate)
}

/// What every caller of a gateway hears that cannot reach its database.
async fn all_are_refused(rig: &Rig, node: usize, stranger: Option<&Agent>) {
    let address = rig.address(node);
    let call = rig.cluster.chat_call(&ask("hi"));
    join_all((0..10).map(async |_| assert_unavailable(&timed(&call, address).await))).await;
    if let Some(stranger) = stranger {
        // A key that was made elsewhere a moment ago may be good, so it is not refused as a wrong one.
        let call = Call::post("/v1/chat/completions").key(&stranger.key).json(&ask("hi"));
        assert_unavailable(&timed(&call, address).await);
    }
    let reasons = not_ready(address).await;
    assert!(reasons.iter().all(Value::is_string), "{reasons:?}");
    assert_alive(address).await;
    let health = Call::get("/health").send(address).await.json();
    assert!(health["status"] == "degraded" && health["reasons"][0].is_string(), "{health}");
    let known: Vec<_> = join_all((0..20).map(|_| timed(&call, address))).await;
    for answer in &known {
        assert_unavailable(answer);
        assert!(answer.1 < Duration::from_secs(1), "what is known takes no waiting: {:?}", answer.1);
    }
    let began = std::time::Instant::now();
    let read = rig.cluster.admin(node, "GET", "/api/agents", Value::Null).await;
    let write = rig.cluster.admin(node, "PUT", "/api/budget", json!({"limit_usd": 7})).await;
    assert_eq!((read.status, write.status), (503, 503), "{} {}", read.text(), write.text());
    assert!(began.elapsed() < 4 * DEADLINE, "administrators wait no longer than {:?}", began.elapsed());
}

/// The answer came while there was no database; afterwards it stands on record once, and everybody is served again.
async fn all_is_well(rig: &Rig, mut under_way: Wire, id: &str) {
    let same_connection = rig.cluster.chat_call(&ask("again"));
    for node in &rig.cluster.nodes {
        node.ready().await;
    }
    under_way.send(&same_connection.bytes()).await;
    under_way.reply_to("POST").await.expect(200);
    for node in 0..rig.cluster.nodes.len() {
        rig.cluster.chat(node, &ask("hi")).await.expect(200);
    }
    let chain = rig.books().await;
    let admission = chain.admission(id).expect("what was answered was admitted");
    let closings = chain.closings_of(admission);
    assert_eq!((closings.len(), closings[0].outcome()), (1, "completed"), "{}", closings[0].text);
    assert!(closings[0].settled() > 0);
    rig.cluster.stop().await;
    rig.cluster.assert_verifies();
}

async fn delivered(under_way: &mut Wire, gate: &Gate) -> String {
    gate.open();
    let reply = under_way.reply_to("POST").await.expect(200);
    assert!(reply.whole && reply.content() == "late");
    reply.json()["tappass"]["pipeline_uuid"].as_str().unwrap().to_owned()
}

async fn an_outage(begin: impl AsyncFnOnce(&Postgres), end: impl AsyncFnOnce(&Postgres)) {
    let rig = Rig::start_with(2, |builder| builder.env("TAPPASS_DATABASE__NOTIFY", "false")).await;
    for node in 0..2 {
        rig.cluster.chat(node, &ask("hi")).await.expect(200);
    }
    // Held at the second gateway, so that the first has no call under way for which it would look at the database.
    let (mut under_way, gate) = call_under_way(&rig, 1).await;
    let stranger = rig.cluster.onboard(1, "stranger").await;
    let sent = rig.upstream.requests().len();
    begin(&rig.postgres).await;
    tokio::join!(all_are_refused(&rig, 0, Some(&stranger)), all_are_refused(&rig, 1, None));
    let id = delivered(&mut under_way, &gate).await;
    assert_eq!(rig.upstream.requests().len(), sent, "nothing is called without a record");
    end(&rig.postgres).await;
    all_is_well(&rig, under_way, &id).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_postgres_that_is_shut_down_refuses_new_calls_and_loses_none_that_run() {
    an_outage(Postgres::stop, Postgres::start_again).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_postgres_that_is_killed_refuses_new_calls_and_loses_none_that_run() {
    an_outage(Postgres::kill, Postgres::start_again).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_postgres_that_hangs_refuses_new_calls_in_time_and_loses_none_that_run() {
    an_outage(async |postgres| postgres.pause(), async |postgres| postgres.resume()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_nobody_calls_finds_out_by_itself_that_its_database_is_gone() {
    let rig = Rig::start(1).await;
    rig.postgres.stop().await;
    let began = std::time::Instant::now();
    let reasons = not_ready(rig.address(0)).await;
    assert!(reasons[0].as_str().unwrap().contains("heartbeat"), "{reasons:?}");
    assert!(began.elapsed() < Duration::from_secs(10), "long before its lease ends: {:?}", began.elapsed());
    rig.postgres.start_again().await;
    rig.cluster.nodes[0].ready().await;
    rig.cluster.chat(0, &ask("hi")).await.expect(200);
    rig.books().await;
}

/// The wire of one of two gateways is cut; the other one goes on.
async fn one_is_cut_off(begin: impl AsyncFnOnce(&Chaos)) {
    let mut rig = Rig::prepare(|builder| builder).await;
    let chaos = Chaos::in_front_of_postgres(rig.postgres.port);
    rig.cluster.add().await;
    let through_wire = chaos.instead_of(rig.cluster.url());
    rig.cluster.add_with(&[("DATABASE_URL", &through_wire)]).await;
    rig.meet().await;
    let (mut under_way, gate) = call_under_way(&rig, 1).await;
    let elsewhere = Load::start(4, &[rig.address(0)], &rig.cluster.chat_call(&ask("hi")));
    begin(&chaos).await;
    all_are_refused(&rig, 1, None).await;
    let id = delivered(&mut under_way, &gate).await;
    let before = elsewhere.count();
    until("the other gateway to go on", async || (elsewhere.count() >= before + 20).then_some(())).await;
    let heard = elsewhere.stop().await;
    assert!(heard.iter().all(|one| one.status == 200), "{}", tally(&heard));
    let (slowest, _) = latency(&heard);
    assert!(slowest < Duration::from_secs(2), "the other gateway is not held up: {slowest:?}");
    chaos.mend().await;
    all_is_well(&rig, under_way, &id).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_whose_database_is_in_a_black_hole_refuses_alone_and_heals() {
    one_is_cut_off(async |chaos| chaos.black_hole()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_whose_connections_are_cut_refuses_alone_and_heals() {
    one_is_cut_off(Chaos::cut).await;
}
