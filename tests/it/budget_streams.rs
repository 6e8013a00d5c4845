//! Streams that outrun what is held for them: extended while there is room, cut where there is none, and never released
//! beyond what is held (edge case 11, promise 4).

use serde_json::{Value, json};

use crate::support::{
    chain::{Chain, Entry},
    client::Wire,
    database::Database,
    gateway::Gateway,
    openai::{self, ask_stream, event, text_chunk, with},
    sse::Sum,
    upstream::{Answer, End, Gate, Upstream},
};

/// Answer tokens that each call asks for; with its prompt it reserves a little more than $0.0006.
const BOUND: u64 = 1_000;
/// Nano-dollars for one answer token of the model.
const TOKEN: u64 = 600;

/// An event of so many answer tokens, by the gateway's count of four bytes each.
fn tokens(count: usize) -> String {
    event(&text_chunk(&"word".repeat(count)))
}

fn usage(completion: u64) -> String {
    let mut chunk = openai::usage_chunk();
    chunk["usage"] = json!({"prompt_tokens": 20, "completion_tokens": completion, "total_tokens": completion + 20});
    event(&chunk)
}

fn call() -> Value {
    with(ask_stream("hi"), "max_tokens", json!(BOUND))
}

/// A stream of so many events of five hundred tokens with a proper end.
fn long(events: usize) -> Answer {
    let mut pieces = vec![tokens(500); events];
    pieces.extend([event(&openai::last_chunk("stop")), usage(500 * events as u64), openai::DONE.to_owned()]);
    Answer::stream(pieces)
}

fn extensions(chain: &Chain) -> Vec<&Entry> {
    chain.entries.iter().filter(|entry| entry.kind() == "extension").collect()
}

/// What an admission and its extensions hold together.
fn held(chain: &Chain) -> u64 {
    let admission = chain.admissions().last().unwrap();
    let more = extensions(chain).into_iter().filter(|entry| entry.closes().as_ref() == Some(&admission.id()));
    admission.reserved() + more.map(Entry::reserved).sum::<u64>()
}

async fn nothing_is_held(mut gateway: Gateway) {
    gateway.settled().await;
    gateway.stop();
    Database::open(&gateway.database()).await.assert_nothing_held().await;
}

#[tokio::test]
async fn a_stream_that_overruns_is_extended_and_settled_at_what_it_cost() {
    for limit in [Some(1.0), None] {
        let upstream = Upstream::start();
        upstream.then(long(12));
        let gateway = Gateway::start(&upstream).await;
        if let Some(limit) = limit {
            gateway.budget(limit).await;
        }
        let reply = gateway.chat(&call()).await.expect(200);
        let sum = Sum::of(&reply.body);
        assert!(sum.done && sum.errors.is_empty() && sum.first().len() == 24_000, "{:?}", sum.errors);
        let chain = gateway.settled().await;
        let extended = extensions(&chain).len();
        assert!((2..=8).contains(&extended), "in chunks, not event by event: {extended}");
        let closing = chain.last_closing().unwrap();
        assert_eq!((closing.outcome(), closing.settled()), ("completed", 20 * 150 + 6_000 * TOKEN));
        assert!(held(&chain) >= closing.settled());
        nothing_is_held(gateway).await;
    }
}

#[tokio::test]
async fn a_stream_within_its_reservation_asks_for_nothing() {
    let upstream = Upstream::start();
    upstream.then(long(2));
    let gateway = Gateway::start(&upstream).await;
    gateway.budget(0.001).await;
    assert!(Sum::of(&gateway.chat(&call()).await.expect(200).body).done);
    assert_eq!(extensions(&gateway.settled().await).len(), 0);
}

#[tokio::test]
async fn a_stream_without_room_left_is_cut_with_an_error_and_the_provider_is_left() {
    let upstream = Upstream::start();
    upstream.then(Answer::stream(vec![tokens(500); 3]).end(End::Stall));
    let gateway = Gateway::start(&upstream).await;
    gateway.budget(0.0007).await;
    let reply = gateway.chat(&call()).await.expect(200);
    let sum = Sum::of(&reply.body);
    assert_eq!((sum.errors.as_slice(), sum.done, reply.whole), (["budget".to_owned()].as_slice(), false, false));
    assert_eq!(sum.first().len(), 4_000, "what was paid for came through");
    upstream.abandoned(0).await;
    let chain = gateway.settled().await;
    let closing = chain.last_closing().unwrap();
    assert_eq!((closing.outcome(), closing.settled()), ("budget", chain.admissions().last().unwrap().reserved()));
    assert!(closing.is_estimated() && extensions(&chain).is_empty(), "{}", closing.text);
    nothing_is_held(gateway).await;
}

#[tokio::test]
async fn the_last_of_a_budget_is_used_before_a_stream_is_cut() {
    let upstream = Upstream::start();
    upstream.then(Answer::stream(vec![tokens(50); 40]).end(End::Stall));
    let gateway = Gateway::start(&upstream).await;
    gateway.budget(0.0007).await;
    let sum = Sum::of(&gateway.chat(&call()).await.expect(200).body);
    assert_eq!(sum.errors, ["budget"]);
    let chain = gateway.settled().await;
    assert_eq!((extensions(&chain).len(), held(&chain)), (1, 700_000), "exactly what was left");
    let closing = chain.last_closing().unwrap();
    assert_eq!((closing.outcome(), closing.settled()), ("budget", 700_000));
    let words = sum.first().len() as u64 / 4;
    assert!(words * TOKEN <= 700_000 && (words + 50) * TOKEN > 680_000, "{words}");
    nothing_is_held(gateway).await;
}

#[tokio::test]
async fn a_provider_that_ignores_its_bound_spends_no_more_than_the_budget_and_one_event() {
    let upstream = Upstream::start();
    upstream.always(Answer::stream(vec![tokens(500); 200]).end(End::Stall));
    let gateway = Gateway::start(&upstream).await;
    gateway.budget(0.005).await;
    let mut released = 0;
    for _ in 0..3 {
        let reply = gateway.chat(&with(call(), "max_tokens", json!(100))).await;
        if reply.status == 200 {
            let sum = Sum::of(&reply.body);
            assert!(!sum.done && sum.errors == ["budget"], "{:?}", sum.errors);
            released += sum.first().len() as u64 / 4 * TOKEN;
        } else {
            // Either the reservation did not fit any more, or the first event.
            let refused = reply.expect(403).json();
            assert!(refused["blocked_by"] == "budget" || refused["error"]["code"] == "budget", "{refused}");
        }
        gateway.settled().await;
    }
    assert!(released <= 5_000_000, "{released}");
    let chain = gateway.settled().await;
    assert!(chain.closings().map(Entry::settled).sum::<u64>() <= 5_000_000);
    // What the provider sent and nobody was given stands in the cost, one event for each stream.
    for closing in chain.closings() {
        let cost = closing.content()["cost_nano"].as_u64().unwrap();
        assert!(cost <= closing.settled() + 500 * TOKEN, "{}", closing.text);
    }
    nothing_is_held(gateway).await;
}

#[tokio::test]
async fn an_answer_is_extended_up_to_the_limit_of_one_call_and_its_cut_names_that_limit() {
    let upstream = Upstream::start();
    upstream.then(Answer::stream(vec![tokens(500); 9]).end(End::Stall));
    let gateway = Gateway::start(&upstream).await;
    gateway.admin("PUT", "/api/budget", json!({"call_usd": 0.001})).await.expect(200);
    let reply = gateway.chat(&call()).await.expect(200);
    let sum = Sum::of(&reply.body);
    assert_eq!((sum.errors.as_slice(), sum.first().len()), (["budget".to_owned()].as_slice(), 6_000));
    assert!(reply.text().contains("the organization's limit of $0.001000 per call"), "{}", reply.text());
    let chain = gateway.settled().await;
    assert_eq!((held(&chain), chain.last_closing().unwrap().settled()), (1_000_000, 1_000_000));
}

#[tokio::test]
async fn a_first_event_or_a_held_answer_beyond_the_budget_is_an_ordinary_error() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream).await;
    gateway.budget(0.0007).await;
    upstream.then(Answer::stream([tokens(3_000)]).end(End::Stall));
    let reply = gateway.chat(&call()).await.expect(403);
    assert_eq!(reply.json()["error"]["code"], "budget", "{}", reply.text());
    gateway.admin("POST", "/api/budget/reset", Value::Null).await.expect(200);
    gateway.raise_limits(&[("scan_output", json!({"on_detection": "redact"}))]).await;
    upstream.then(Answer::stream(vec![tokens(500); 3]).end(End::Stall));
    let reply = gateway.chat(&call()).await.expect(403);
    assert_eq!(reply.json()["error"]["code"], "budget", "{}", reply.text());
    upstream.abandoned(1).await;
    for closing in gateway.settled().await.closings() {
        assert_eq!((closing.outcome(), &closing.content()["bytes_released"]), ("budget", &json!(0)));
    }
    nothing_is_held(gateway).await;
}

#[tokio::test]
async fn a_whole_answer_beyond_its_reservation_is_settled_there_and_its_cost_is_told() {
    let upstream = Upstream::start();
    let spent = json!({"prompt_tokens": 0, "completion_tokens": 5_000, "total_tokens": 5_000});
    upstream.then(Answer::json(200, &with(openai::completion("long"), "usage", spent)));
    let gateway = Gateway::start(&upstream).await;
    gateway.budget(0.001).await;
    gateway.chat(&with(call(), "stream", json!(false))).await.expect(200);
    let chain = gateway.settled().await;
    let closing = chain.last_closing().unwrap();
    assert_eq!(closing.settled(), chain.admissions().last().unwrap().reserved());
    assert_eq!(closing.content()["cost_nano"], 5_000 * TOKEN);
}

/// A gateway whose stream has outrun its reservation while somebody else holds the database's lock.
struct Waiting {
    upstream: Upstream,
    gateway: Gateway,
    wire: Wire,
    lock: Database,
}

impl Waiting {
    async fn begin(limit: Option<f64>) -> Self {
        let (beyond, end) = (Gate::new(), Gate::new());
        let upstream = Upstream::start();
        let answer = Answer::stream([tokens(900)]).pause(&beyond).piece(tokens(600)).pause(&end);
        upstream.then(answer.piece(usage(1_500)).piece(openai::DONE));
        let builder = Gateway::builder(&upstream).env("TAPPASS_PROVIDERS__HEARTBEAT_MS", "50");
        let gateway = builder.start().await;
        if let Some(limit) = limit {
            gateway.budget(limit).await;
        }
        let mut wire = gateway.chat_begin(&call()).await;
        assert_eq!(wire.head().await.status, 200);
        wire.read_until("word").await;
        let mut lock = Database::open(&gateway.database()).await;
        lock.run("BEGIN IMMEDIATE").await;
        beyond.open();
        end.reached().await;
        // The event has left the provider and is not passed on, while comments are.
        for _ in 0..3 {
            let seen = wire.read_until("keepalive").await;
            assert!(!String::from_utf8_lossy(&seen).contains("word"));
        }
        end.open();
        Self { upstream, gateway, wire, lock }
    }
}

#[tokio::test]
async fn while_an_extension_is_asked_for_nothing_is_released_and_comments_go_on() {
    let Waiting { upstream, gateway, mut wire, mut lock } = Waiting::begin(Some(1.0)).await;
    lock.run("ROLLBACK").await;
    let (rest, whole) = wire.rest().await;
    let sum = Sum::of(&rest);
    assert!(whole && sum.done && sum.first().len() == 2_400, "{sum:?}");
    upstream.finished(0).await;
    let chain = gateway.settled().await;
    assert_eq!((extensions(&chain).len(), chain.last_closing().unwrap().settled()), (1, 20 * 150 + 1_500 * TOKEN));
    nothing_is_held(gateway).await;
}

#[tokio::test]
async fn a_caller_killed_while_an_extension_is_asked_for_leaves_nothing_held() {
    let Waiting { upstream: _upstream, gateway, wire, mut lock } = Waiting::begin(Some(1.0)).await;
    wire.reset();
    gateway.get("/health").await.expect(200);
    lock.run("ROLLBACK").await;
    let chain = gateway.settled().await;
    assert_eq!(chain.last_closing().unwrap().outcome(), "client_closed");
    assert!(chain.last_closing().unwrap().settled() <= held(&chain));
    nothing_is_held(gateway).await;
}

#[tokio::test]
async fn a_record_that_does_not_answer_cuts_a_limited_stream_and_no_other() {
    for limit in [Some(1.0), None] {
        let Waiting { upstream: _upstream, gateway, mut wire, mut lock } = Waiting::begin(limit).await;
        let (rest, _) = wire.rest().await;
        let sum = Sum::of(&rest);
        let errors: &[&str] = if limit.is_some() { &["record_unavailable"] } else { &[] };
        assert_eq!(
            (sum.errors.as_slice(), sum.done),
            (errors.iter().map(|e| (*e).to_owned()).collect::<Vec<_>>().as_slice(), limit.is_none())
        );
        lock.run("ROLLBACK").await;
        let chain = gateway.settled().await;
        let closing = chain.last_closing().unwrap();
        assert_eq!(closing.outcome(), if limit.is_some() { "record_unavailable" } else { "completed" });
        nothing_is_held(gateway).await;
    }
}
