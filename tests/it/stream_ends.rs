//! How a stream ends: normally only if the provider ended it so (edge cases 8 and 10, promise 7).

use serde_json::json;

use crate::support::{
    gateway::Gateway,
    openai::{self, ask, ask_stream, completion, event, last_chunk, text_chunk},
    sse::Sum,
    upstream::{Answer, End, Gate, Upstream},
};

/// A stream that breaks off after `count` of its events, in this way.
fn broken(count: usize, end: End) -> Answer {
    let events = openai::events(&["one", " two", " three"]);
    Answer::stream(events.into_iter().take(count)).end(end)
}

#[tokio::test]
async fn a_provider_cut_anywhere_never_ends_in_a_clean_done() {
    let upstream = Upstream::start();
    let gateway = Gateway::builder(&upstream).env("TAPPASS_PROVIDERS__IDLE_TIMEOUT_MS", "100").start().await;
    // Of the seven events the last is [DONE]: whatever stops before it was cut.
    for end in [End::Close, End::Reset, End::Stall, End::Clean] {
        for count in 1..=6 {
            upstream.then(broken(count, end));
            let reply = gateway.chat(&ask_stream("hi")).await;
            if reply.status != 200 {
                assert!(matches!(reply.status, 502 | 504), "{}", reply.text());
                continue;
            }
            let sum = Sum::of(&reply.body);
            assert!(!sum.done, "cut after {count} events");
            assert!(!sum.errors.is_empty(), "an error is said after {count} events: {}", reply.text());
            assert!(!reply.whole, "the connection is cut as well: clients take a clean close for success");
        }
    }
    let chain = gateway.settled().await;
    assert!(chain.closings().all(|closing| closing.outcome() != "ok" && closing.outcome() != "completed"), "{chain:?}");
}

#[tokio::test]
async fn a_stream_cut_within_an_event_does_not_pass_on_half_of_it() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream).await;
    let whole = event(&text_chunk("complete")) + &event(&text_chunk("incomplete"));
    for missing in [1, 2, 3, 20] {
        let cut = whole.get(..whole.len() - missing).unwrap().to_owned();
        upstream.then(Answer::stream([cut]).end(End::Close));
        let reply = gateway.chat(&ask_stream("hi")).await.expect(200);
        // Every event that came out is whole JSON, which `Sum` demands.
        let sum = Sum::of(&reply.body);
        assert!(!sum.done && !sum.errors.is_empty());
        assert!(sum.first().starts_with("complete"));
    }
    gateway.settled().await;
}

#[tokio::test]
async fn a_provider_that_dies_before_its_first_byte_is_an_ordinary_error() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream).await;
    for body in [ask("hi"), ask_stream("hi")] {
        for end in [End::Close, End::Reset] {
            upstream.always(Answer::nothing(end));
            let reply = gateway.chat(&body).await.expect(502);
            assert_eq!(reply.header("content-type"), Some("application/json"));
            assert!(reply.json()["error"]["message"].is_string() && reply.json()["error"]["code"].is_string());
            assert!(reply.json().get("decision").is_none(), "no policy refused this");
        }
    }
    for closing in gateway.settled().await.closings() {
        assert!(closing.outcome().contains("provider"), "{}", closing.text);
    }
}

#[tokio::test]
async fn a_plain_answer_that_breaks_off_is_an_error() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream).await;
    let body = completion("half").to_string();
    let half = body.get(..body.len() / 2).unwrap();
    for end in [End::Close, End::Reset] {
        upstream.always(Answer::whole(200, "application/json", half).declare(body.len()).end(end));
        gateway.chat(&ask("hi")).await.expect(502);
    }
    for nonsense in ["", "null", "[]", "<html>busy</html>", half] {
        upstream.always(Answer::whole(200, "application/json", nonsense));
        let reply = gateway.chat(&ask("hi")).await.expect(502);
        assert!(reply.json()["error"]["message"].is_string());
    }
    assert!(gateway.settled().await.closings().count() >= 7);
}

#[tokio::test]
async fn an_error_that_the_provider_streams_is_passed_on_as_one() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream).await;
    let error =
        event(&json!({"error": {"message": "the model is overloaded", "type": "server_error", "code": "overloaded"}}));
    // In mid-stream.
    upstream.then(Answer::stream([event(&text_chunk("so far")), error.clone()]).end(End::Close));
    let reply = gateway.chat(&ask_stream("hi")).await.expect(200);
    let sum = Sum::of(&reply.body);
    assert!(!sum.done && sum.first() == "so far" && !sum.errors.is_empty(), "{}", reply.text());
    // As the first event: either an error answer or an error event, never a success.
    upstream.always(Answer::stream([error.clone(), openai::DONE.to_owned()]));
    let reply = gateway.chat(&ask_stream("hi")).await;
    if reply.status == 200 {
        assert!(!Sum::of(&reply.body).errors.is_empty(), "{}", reply.text());
    } else {
        assert!(reply.status >= 500 && reply.json()["error"]["message"].is_string());
    }
    for closing in gateway.settled().await.closings() {
        assert!(closing.outcome().contains("provider") || closing.outcome().contains("error"), "{}", closing.text);
    }
}

#[tokio::test]
async fn nothing_is_sent_twice_once_a_byte_has_been_passed_on() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream).await;
    upstream.then(broken(2, End::Reset));
    gateway.chat(&ask_stream("hi")).await.expect(200);
    assert_eq!(upstream.requests().len(), 1);
    gateway.settled().await;
    assert_eq!(upstream.requests().len(), 1);
}

#[tokio::test]
async fn a_second_attempt_is_one_call_with_one_admission() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream).await;
    upstream.then(Answer::nothing(End::Close));
    let reply = gateway.chat(&ask("hi")).await;
    // Whether this failure is tried again is the gateway's to decide; the caller and the record must agree with it.
    assert_eq!(reply.status == 200, upstream.requests().len() == 2, "{}", reply.text());
    assert!(matches!(reply.status, 200 | 502));
    let chain = gateway.settled().await;
    assert_eq!((chain.admissions().count(), chain.closings().count()), (1, 1));
}

#[tokio::test]
async fn a_pooled_connection_that_the_provider_closed_meanwhile_costs_no_caller() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream).await;
    // The answer is whole, then the connection closes without notice.
    upstream.then(Answer::json(200, &completion("one")).end(End::Close));
    gateway.chat(&ask("hi")).await.expect(200);
    upstream.finished(0).await;
    assert_eq!(gateway.chat(&ask("hi")).await.expect(200).content(), "hello world");
}

#[tokio::test]
async fn an_event_stream_where_json_was_asked_and_the_reverse_are_errors() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream).await;
    upstream.always(Answer::stream(openai::events(&["hi"])));
    let reply = gateway.chat(&ask("hi")).await;
    assert_eq!(reply.status, 502, "{}", reply.text());
    upstream.always(Answer::json(200, &completion("whole")));
    let reply = gateway.chat(&ask_stream("hi")).await;
    // A provider that cannot stream may answer whole: an error, or the same answer as a stream.
    if reply.status == 200 {
        assert!(reply.header("content-type").unwrap().starts_with("text/event-stream"), "{}", reply.text());
        assert_eq!(Sum::of(&reply.body).first(), "whole");
    } else {
        assert_eq!(reply.status, 502);
    }
    gateway.settled().await;
}

#[tokio::test]
async fn a_done_that_is_followed_by_silence_ends_the_answer() {
    let upstream = Upstream::start();
    let gate = Gate::new();
    let events = openai::events(&["hi"]);
    upstream.then(Answer::stream(events).pause(&gate).end(End::Clean));
    let gateway = Gateway::start(&upstream).await;
    let reply = gateway.chat(&ask_stream("hi")).await.expect(200);
    assert!(reply.whole && Sum::of(&reply.body).done);
    gate.open();
    let chain = gateway.settled().await;
    assert_ne!(chain.last_closing().unwrap().outcome(), "client_closed");
}

#[tokio::test]
async fn the_last_finish_reason_is_the_providers() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream).await;
    for reason in ["stop", "length", "tool_calls", "content_filter", "something_new"] {
        upstream.then(Answer::stream([event(&text_chunk("x")), event(&last_chunk(reason)), openai::DONE.to_owned()]));
        let sum = Sum::of(&gateway.chat(&ask_stream("hi")).await.expect(200).body);
        assert_eq!((sum.finish[&0].as_str(), sum.done), (reason, true));
    }
}
