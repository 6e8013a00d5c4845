//! A caller who goes away, in every phase: the provider is left, the record says so, the money comes back (edge case 29).

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{
    chain::Entry,
    client::{Call, Wire},
    database::Database,
    gateway::Gateway,
    http2::Http2,
    openai::{self, ask, ask_stream, text_chunk, with},
    upstream::{Answer, Gate, Upstream},
};

/// Prices of the default table: 16,000 answer tokens of this model reserve a little less than a cent.
const BUDGET_FOR_ONE: f64 = 0.015;

fn large(body: Value) -> Value {
    with(body, "max_tokens", json!(16_000))
}

#[derive(Clone, Copy)]
enum Leave {
    Close,
    Reset,
}

fn leave(wire: Wire, how: Leave) {
    match how {
        Leave::Close => drop(wire),
        Leave::Reset => wire.reset(),
    }
}

/// The one call of this gateway was given up by its caller: its closing entry, checked against books and budget.
async fn given_up(gateway: &mut Gateway, upstream: &Upstream) -> Entry {
    let chain = gateway.settled().await;
    let closing = chain.last_closing().expect("a closing entry").clone();
    assert_eq!(closing.outcome(), "client_closed", "{}", closing.text);
    let admission = chain.admissions().last().unwrap();
    assert!(closing.settled() < admission.reserved(), "what was not used is given back");
    // The reservation is free again: another call of the same size fits.
    upstream.always(Answer::json(200, &openai::completion("after")));
    gateway.chat(&large(ask("again"))).await.expect(200);
    gateway.settled().await;
    gateway.stop();
    let mut database = Database::open(&gateway.database()).await;
    database.assert_nothing_held().await;
    closing
}

async fn while_open_no_second_fits(gateway: &Gateway) {
    let refusal = gateway.chat(&large(ask("too much"))).await.expect(403).json();
    assert!(refusal["blocked_by"].as_str().unwrap().contains("budget"), "{refusal}");
}

#[tokio::test]
async fn a_caller_who_leaves_before_the_providers_head_is_noticed_at_once() {
    for how in [Leave::Close, Leave::Reset] {
        for body in [ask("hi"), ask_stream("hi")] {
            let upstream = Upstream::start();
            let gate = Gate::new();
            upstream.then(Answer::json(200, &openai::completion("never")).hold_head(&gate));
            let mut gateway = Gateway::start(&upstream).await;
            gateway.budget(BUDGET_FOR_ONE).await;
            let wire = gateway.chat_begin(&large(body)).await;
            gate.reached().await;
            while_open_no_second_fits(&gateway).await;
            let left = Instant::now();
            leave(wire, how);
            upstream.abandoned(0).await;
            assert!(left.elapsed() < Duration::from_secs(2), "{:?}", left.elapsed());
            given_up(&mut gateway, &upstream).await;
        }
    }
}

#[tokio::test]
async fn a_caller_who_leaves_before_the_first_byte_of_a_stream_is_noticed() {
    let upstream = Upstream::start();
    let gate = Gate::new();
    upstream.then(Answer::stream(openai::events(&["never"])).hold_body(&gate));
    let mut gateway = Gateway::start(&upstream).await;
    gateway.budget(BUDGET_FOR_ONE).await;
    let wire = gateway.chat_begin(&large(ask_stream("hi"))).await;
    gate.reached().await;
    drop(wire);
    upstream.abandoned(0).await;
    given_up(&mut gateway, &upstream).await;
}

#[tokio::test]
async fn a_caller_who_leaves_in_mid_stream_pays_for_what_was_streamed() {
    for how in [Leave::Close, Leave::Reset] {
        let upstream = Upstream::start();
        let gate = Gate::new();
        let words = openai::event(&text_chunk("some forty words of an answer that nobody will hear to its end"));
        upstream.then(Answer::stream([words]).pause(&gate).piece(openai::DONE));
        let mut gateway = Gateway::start(&upstream).await;
        gateway.budget(BUDGET_FOR_ONE).await;
        let mut wire = gateway.chat_begin(&large(ask_stream("hi"))).await;
        assert_eq!(wire.head().await.status, 200);
        wire.read_until("some forty words").await;
        gate.reached().await;
        leave(wire, how);
        upstream.abandoned(0).await;
        let closing = given_up(&mut gateway, &upstream).await;
        assert!(closing.settled() > 0 && closing.is_estimated(), "{}", closing.text);
    }
}

#[tokio::test]
async fn a_caller_who_leaves_while_a_plain_answer_arrives_is_noticed() {
    let upstream = Upstream::start();
    let gate = Gate::new();
    let answer = openai::completion("a long story").to_string();
    let (first, second) = answer.split_at(40);
    upstream.then(Answer::whole(200, "application/json", first).pause(&gate).piece(second));
    let mut gateway = Gateway::start(&upstream).await;
    gateway.budget(BUDGET_FOR_ONE).await;
    let wire = gateway.chat_begin(&large(ask("hi"))).await;
    gate.reached().await;
    drop(wire);
    upstream.abandoned(0).await;
    given_up(&mut gateway, &upstream).await;
}

#[tokio::test]
async fn a_caller_who_leaves_while_the_connection_is_made_is_noticed() {
    let upstream = Upstream::deaf().await;
    let mut gateway = Gateway::start(&upstream).await;
    let wire = gateway.chat_begin(&ask("hi")).await;
    gateway.chain_until("the admission", |chain| chain.admissions().next().map(|_| ())).await;
    drop(wire);
    let chain = gateway.settled().await;
    let closing = chain.last_closing().unwrap();
    assert_eq!((closing.outcome(), closing.settled()), ("client_closed", 0), "{}", closing.text);
    assert!(upstream.requests().is_empty());
    gateway.stop();
    Database::open(&gateway.database()).await.assert_nothing_held().await;
}

#[tokio::test]
async fn a_stream_that_http2_resets_is_left_in_every_phase() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream).await;
    let mut client = Http2::open(gateway.address).await;

    let before_head = Gate::new();
    upstream.then(Answer::json(200, &openai::completion("never")).hold_head(&before_head));
    let call = client.begin("POST", "/v1/chat/completions", &gateway.agent_key, &ask("hi"));
    let call = tokio::spawn(call);
    before_head.reached().await;
    call.abort();
    upstream.abandoned(0).await;

    let mid_stream = Gate::new();
    upstream.then(Answer::stream([openai::event(&text_chunk("one"))]).pause(&mid_stream).piece(openai::DONE));
    let answer = client.send("POST", "/v1/chat/completions", &gateway.agent_key, &ask_stream("hi")).await;
    assert_eq!(answer.status(), 200);
    mid_stream.reached().await;
    drop(answer);
    upstream.abandoned(1).await;

    let chain = gateway.settled().await;
    assert!(chain.closings().all(|closing| closing.outcome() == "client_closed"), "{chain:?}");
    // The connection itself has survived both.
    let answer = client.send("GET", "/health", &gateway.agent_key, &Value::Null).await;
    assert_eq!(answer.status(), 200);
}

#[tokio::test]
async fn half_a_request_is_nobodys_call() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream).await;
    let call = gateway.chat_call(&ask("hi"));
    let whole = call.bytes();
    let head = call.head_bytes().len();
    for cut in [1, 20, head - 3, head, head + 1, whole.len() - 1] {
        for how in [Leave::Close, Leave::Reset] {
            let mut wire = Wire::open(gateway.address).await;
            wire.send(&whole[..cut]).await;
            leave(wire, how);
        }
        let mut wire = Wire::open(gateway.address).await;
        wire.send(&whole[..cut]).await;
        wire.half_close().await;
        let said = wire.closed().await;
        assert!(!said.starts_with(b"HTTP/1.1 200"), "cut at {cut}");
    }
    assert_eq!(gateway.chat(&ask("whole")).await.expect(200).content(), "hello world");
    assert_eq!(upstream.requests().len(), 1);
    assert_eq!(gateway.settled().await.admissions().count(), 1);
}

#[tokio::test]
async fn a_caller_who_only_closes_its_sending_half_may_still_be_answered_and_is_recorded_once() {
    let upstream = Upstream::start();
    let gate = Gate::new();
    upstream.then(Answer::json(200, &openai::completion("late")).hold_head(&gate));
    let gateway = Gateway::start(&upstream).await;
    let mut wire = gateway.chat_begin(&ask("hi")).await;
    gate.reached().await;
    wire.half_close().await;
    gate.open();
    let said = wire.closed().await;
    let closings: Vec<String> = gateway.settled().await.closings().map(|entry| entry.outcome().to_owned()).collect();
    assert_eq!(closings.len(), 1);
    assert_eq!(said.starts_with(b"HTTP/1.1 200"), closings != ["client_closed"], "{closings:?}");
}

#[tokio::test]
async fn many_callers_who_leave_leave_nothing_behind() {
    let upstream = Upstream::start();
    let gate = Gate::new();
    upstream.always(Answer::stream([openai::event(&text_chunk("one"))]).pause(&gate).piece(openai::DONE));
    let mut gateway = Gateway::start(&upstream).await;
    let mut wires = Vec::new();
    for _ in 0..64 {
        wires.push(gateway.chat_begin(&ask_stream("hi")).await);
    }
    upstream.request(63).await;
    for (number, wire) in wires.into_iter().enumerate() {
        leave(wire, if number % 2 == 0 { Leave::Close } else { Leave::Reset });
    }
    for number in 0..64 {
        upstream.abandoned(number).await;
    }
    let chain = gateway.settled().await;
    assert_eq!((chain.admissions().count(), chain.closings().count()), (64, 64));
    let pipelined = [gateway.chat_call(&ask("1")).bytes(), Call::get("/health").bytes()].concat();
    upstream.always(Answer::json(200, &openai::completion("fine")));
    let mut wire = Wire::open(gateway.address).await;
    wire.send(&pipelined).await;
    wire.reply().await.expect(200);
    wire.reply().await.expect(200);
    gateway.settled().await;
    gateway.stop();
    Database::open(&gateway.database()).await.assert_nothing_held().await;
}
