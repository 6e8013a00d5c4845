//! The fakes do what they are told: what the other tests rest on.

use crate::support::{
    client::Call,
    openai::{self, ask, ask_stream},
    sse::Sum,
    upstream::{Answer, End, Gate, Upstream},
};

fn address(upstream: &Upstream) -> std::net::SocketAddr {
    upstream.base_url().trim_start_matches("http://").trim_end_matches("/v1").parse().unwrap()
}

#[tokio::test]
async fn the_provider_answers_whole_and_streamed_and_keeps_connections() {
    let upstream = Upstream::start();
    let call = |body: serde_json::Value| Call::post("/v1/chat/completions").json(&body);
    let mut wire = call(ask("hi")).begin(address(&upstream)).await;
    assert_eq!(wire.reply().await.expect(200).content(), "hello world");
    wire.send(&call(ask_stream("hi")).chunked().bytes()).await;
    let reply = wire.reply().await.expect(200);
    let sum = Sum::of(&reply.body);
    assert!(reply.whole && sum.done && sum.first() == "hello world" && sum.usage.is_none());
    assert_eq!((upstream.requests().len(), upstream.connections()), (2, 1));
    assert_eq!(upstream.last().json(), ask_stream("hi"));
}

#[tokio::test]
async fn the_provider_waits_cuts_resets_and_notices_who_leaves() {
    let upstream = Upstream::start();
    let gate = Gate::new();
    upstream.then(Answer::stream(["a"]).pause(&gate).piece("b").end(End::Close));
    let mut wire = Call::post("/").begin(address(&upstream)).await;
    assert_eq!(wire.head().await.status, 200);
    assert_eq!(wire.chunk().await, Some(Ok(b"a".to_vec())));
    gate.reached().await;
    gate.open();
    assert_eq!(wire.rest().await, (b"b".to_vec(), false));

    upstream.then(Answer::nothing(End::Reset));
    let mut wire = Call::post("/").begin(address(&upstream)).await;
    assert!(wire.try_head().await.is_none());

    let never = Gate::new();
    upstream.then(Answer::json(200, &openai::completion("x")).hold_head(&never));
    let wire = Call::post("/").begin(address(&upstream)).await;
    never.reached().await;
    wire.reset();
    assert!(!upstream.abandoned(2).await.finished);

    upstream.then(Answer::stream(["a"]).end(End::Stall));
    let mut wire = Call::post("/").begin(address(&upstream)).await;
    wire.head().await;
    wire.chunk().await;
    drop(wire);
    upstream.abandoned(3).await;
}

#[tokio::test]
async fn a_deaf_provider_takes_no_connection() {
    let upstream = Upstream::deaf().await;
    let attempt = tokio::net::TcpStream::connect(address(&upstream));
    assert!(tokio::time::timeout(std::time::Duration::from_millis(300), attempt).await.is_err());
}
