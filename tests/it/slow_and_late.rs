//! Slow readers, slow providers: every wait has its end and its own name (edge cases 30 and 31).

use std::collections::BTreeSet;

use crate::support::{
    client::Reply,
    gateway::{Builder, Gateway},
    openai::{self, ask, ask_stream, completion, event, text_chunk},
    sse::Sum,
    upstream::{Answer, End, Gate, Upstream},
};

fn code(reply: &Reply) -> String {
    assert!(matches!(reply.status, 502 | 504), "{} {}", reply.status, reply.text());
    reply.json()["error"]["code"].as_str().expect("a code").to_owned()
}

fn limited(upstream: &Upstream, limits: &[(&str, &str)]) -> Builder {
    let generous = [("CONNECT", "30000"), ("FIRST_BYTE", "30000"), ("IDLE", "30000"), ("TOTAL", "60000")];
    let builder = Gateway::builder(upstream);
    generous.iter().chain(limits).fold(builder, |builder, (name, milliseconds)| {
        builder.env(&format!("TAPPASS_PROVIDERS__{name}_TIMEOUT_MS"), milliseconds)
    })
}

#[tokio::test]
async fn each_timeout_has_a_code_of_its_own() {
    let mut codes = BTreeSet::new();

    let deaf = Upstream::deaf().await;
    let gateway = limited(&deaf, &[("CONNECT", "100")]).start().await;
    codes.insert(code(&gateway.chat(&ask("hi")).await));
    assert_eq!(gateway.settled().await.last_closing().unwrap().settled(), 0, "nothing was sent");

    let upstream = Upstream::start();
    let gateway = limited(&upstream, &[("FIRST_BYTE", "150"), ("IDLE", "150")]).start().await;
    upstream.always(Answer::nothing(End::Stall));
    let first_byte = code(&gateway.chat(&ask("hi")).await);
    assert_eq!(code(&gateway.chat(&ask_stream("hi")).await), first_byte);
    codes.insert(first_byte);
    // A head alone is not yet an answer's first byte to a caller who waits for text.
    upstream.always(Answer::stream([event(&text_chunk("so far"))]).end(End::Stall));
    let reply = gateway.chat(&ask_stream("hi")).await.expect(200);
    let sum = Sum::of(&reply.body);
    assert!(!sum.done && sum.first() == "so far" && !reply.whole);
    codes.insert(sum.errors.concat());
    let half = completion("x").to_string();
    let stalled = Answer::whole(200, "application/json", half.get(..20).unwrap()).declare(half.len()).end(End::Stall);
    upstream.always(stalled);
    let idle = code(&gateway.chat(&ask("hi")).await);
    assert!(codes.contains(&idle), "the same name in a plain answer: {idle}");

    let gateway = limited(&upstream, &[("TOTAL", "200")]).start().await;
    upstream.always(Answer::stream([event(&text_chunk("so far"))]).end(End::Stall));
    let reply = gateway.chat(&ask_stream("hi")).await.expect(200);
    codes.insert(Sum::of(&reply.body).errors.concat());

    assert_eq!(codes.len(), 4, "connect, first byte, idle, total: {codes:?}");
    gateway.settled().await;
}

#[tokio::test]
async fn a_provider_that_is_given_up_is_left() {
    let upstream = Upstream::start();
    let gateway = limited(&upstream, &[("FIRST_BYTE", "100"), ("IDLE", "100")]).start().await;
    upstream.always(Answer::nothing(End::Stall));
    gateway.chat(&ask("hi")).await;
    upstream.abandoned(0).await;
    let before = upstream.requests().len();
    upstream.always(Answer::stream([event(&text_chunk("x"))]).end(End::Stall));
    gateway.chat(&ask_stream("hi")).await;
    upstream.abandoned(before).await;
    gateway.settled().await;
}

#[tokio::test]
async fn comments_of_the_provider_keep_the_idle_timer_quiet_but_not_the_total() {
    let upstream = Upstream::start();
    let gate = Gate::new();
    let gateway = limited(&upstream, &[("IDLE", "2000")]).start().await;
    let start =
        Answer::stream([event(&text_chunk("a"))]).pause(&gate).piece(": ping\n\n").piece(event(&text_chunk("b")));
    upstream.always(start.piece(event(&openai::last_chunk("stop"))).piece(openai::DONE));
    let mut wire = gateway.chat_begin(&ask_stream("hi")).await;
    assert_eq!(wire.head().await.status, 200);
    wire.read_until("\"a\"").await;
    gate.open();
    let (rest, whole) = wire.rest().await;
    assert!(whole && rest.ends_with(openai::DONE.as_bytes()));
}

/// A stream far larger than all buffers on its way.
fn torrent() -> Answer {
    let piece = event(&text_chunk(&"word ".repeat(13_000)));
    let mut answer = Answer::stream(Vec::<String>::new());
    for _ in 0..1200 {
        answer = answer.piece(piece.clone());
    }
    answer.piece(event(&openai::last_chunk("stop"))).piece(openai::DONE)
}

const TORRENT_BYTES: usize = 1200 * 65_000;

#[tokio::test]
async fn a_reader_who_reads_nothing_holds_the_provider_back_and_is_cut_in_the_end() {
    let upstream = Upstream::start();
    upstream.always(torrent());
    let gateway = Gateway::builder(&upstream).env("TAPPASS_SERVER__WRITE_TIMEOUT_MS", "500").start().await;
    let wire = gateway.chat_begin(&ask_stream("hi")).await;
    let seen = upstream.abandoned(0).await;
    assert!(seen.sent < TORRENT_BYTES / 2, "{} bytes were taken for a reader who read none", seen.sent);
    let chain = gateway.settled().await;
    assert_eq!(chain.closings().count(), 1);
    drop(wire);
    gateway.get("/health").await.expect(200);
}

#[tokio::test]
async fn a_reader_who_reads_slowly_gets_everything() {
    let upstream = Upstream::start();
    let words: Vec<String> = (0..2000).map(|number| format!("{number} {}", "pad".repeat(500))).collect();
    let pieces: Vec<String> = words.iter().map(|word| event(&text_chunk(word))).collect();
    upstream.always(Answer::stream(pieces).piece(event(&openai::last_chunk("stop"))).piece(openai::DONE));
    let gateway = Gateway::start(&upstream).await;
    let mut wire = gateway.chat_begin(&ask_stream("hi")).await;
    assert_eq!(wire.head().await.status, 200);
    let mut body = Vec::new();
    while let Some(chunk) = wire.chunk().await {
        body.extend_from_slice(&chunk.expect("no cut"));
        tokio::task::yield_now().await;
    }
    let sum = Sum::of(&body);
    assert!(sum.done && sum.first() == words.concat());
}

#[tokio::test]
async fn what_a_reader_left_unread_delays_nobody_else() {
    let upstream = Upstream::start();
    upstream.then(torrent());
    let gateway = Gateway::builder(&upstream).env("TAPPASS_SERVER__WRITE_TIMEOUT_MS", "20000").start().await;
    let stuck = gateway.chat_begin(&ask_stream("hi")).await;
    upstream.request(0).await;
    for _ in 0..20 {
        gateway.chat(&ask("hi")).await.expect(200);
    }
    drop(stuck);
    upstream.abandoned(0).await;
    gateway.settled().await;
}
