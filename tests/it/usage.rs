//! Usage: who asked for it, who sent it, what is recorded when nobody did (edge cases 13, 14, 16, 39).

use serde_json::{Value, json};

use crate::support::{
    chain::Entry,
    gateway::Gateway,
    openai::{self, ask, ask_stream, completion, event, last_chunk, text_chunk, with},
    sse::{Event, Sum},
    upstream::{Answer, End, Upstream},
};

async fn closing(gateway: &Gateway) -> Entry {
    gateway.settled().await.last_closing().unwrap().clone()
}

/// What `gpt-4o-mini` costs by the default table: 150 and 600 nano-dollars a token.
fn cost(input: u64, output: u64) -> u64 {
    150 * input + 600 * output
}

#[tokio::test]
async fn whoever_asks_for_usage_gets_it_and_nobody_else_does() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream).await;
    for client_asks in [true, false] {
        for provider_sends in [true, false] {
            let mut events = openai::events(&["hello"]);
            if !provider_sends {
                events.remove(events.len() - 2);
            }
            upstream.then(Answer::stream(events));
            let options = json!({"include_usage": true});
            let body = if client_asks { with(ask_stream("hi"), "stream_options", options) } else { ask_stream("hi") };
            let reply = gateway.chat(&body).await.expect(200);
            let sum = Sum::of(&reply.body);
            let what = format!("client asks: {client_asks}, provider sends: {provider_sends}");
            assert!(sum.done && sum.first() == "hello", "{what}");
            assert_eq!(sum.usage.is_some(), client_asks && provider_sends, "{what}");
            let empty = reply.events().iter().filter_map(Event::json).any(|chunk| chunk["choices"] == json!([]));
            assert_eq!(empty, client_asks && provider_sends, "no chunk without choices for {what}");
            let entry = closing(&gateway).await;
            assert_eq!(entry.is_estimated(), !provider_sends, "{what}: {}", entry.text);
            if provider_sends {
                assert_eq!(entry.settled(), cost(7, 5), "{what}: {}", entry.text);
            }
        }
    }
    let sent = upstream.requests();
    assert!(sent.iter().all(|seen| seen.json()["stream_options"]["include_usage"] == json!(true)), "we always ask");
}

#[tokio::test]
async fn other_stream_options_survive_when_we_ask_for_usage() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream).await;
    let options = json!({"include_usage": false, "include_obfuscation": false, "later": [1.0]});
    gateway.chat(&with(ask_stream("hi"), "stream_options", options)).await.expect(200);
    let sent = upstream.last().json();
    assert_eq!(sent["stream_options"]["include_obfuscation"], json!(false));
    assert_eq!(sent["stream_options"]["later"], json!([1.0]));
}

#[tokio::test]
async fn usage_in_every_chunk_is_tolerated_and_the_last_one_counts() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream).await;
    let mut first = text_chunk("a");
    first["usage"] = Value::Null;
    let mut second = text_chunk("b");
    second["usage"] = json!({"prompt_tokens": 7, "completion_tokens": 1, "total_tokens": 8});
    let mut last = last_chunk("stop");
    last["usage"] = openai::usage();
    upstream.then(Answer::stream([event(&first), event(&second), event(&last), openai::DONE.to_owned()]));
    gateway.chat(&ask_stream("hi")).await.expect(200);
    assert_eq!(closing(&gateway).await.settled(), cost(7, 5));
}

#[tokio::test]
async fn an_answer_without_usage_is_counted_by_us_and_marked_as_estimated() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream).await;
    for usage in
        [None, Some(Value::Null), Some(json!({})), Some(json!({"prompt_tokens": -1, "completion_tokens": "many"}))]
    {
        let mut answer = completion("hello world, this is an answer");
        match &usage {
            None => drop(answer.as_object_mut().unwrap().remove("usage")),
            Some(usage) => answer["usage"] = usage.clone(),
        }
        upstream.then(Answer::json(200, &answer));
        gateway.chat(&ask("hi")).await.expect(200);
        let entry = closing(&gateway).await;
        assert!(entry.is_estimated() && entry.settled() > 0, "{usage:?}: {}", entry.text);
    }
}

#[tokio::test]
async fn an_interrupted_stream_is_counted_by_us_and_marked_as_estimated() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream).await;
    upstream.then(Answer::stream([event(&text_chunk("some words that were streamed"))]).end(End::Close));
    gateway.chat(&ask_stream("hi")).await.expect(200);
    let entry = closing(&gateway).await;
    assert!(entry.is_estimated() && entry.settled() > 0, "{}", entry.text);
}

#[tokio::test]
async fn details_of_usage_reach_the_caller_as_they_came() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream).await;
    let usage = json!({"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12,
        "prompt_tokens_details": {"cached_tokens": 3, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 4, "audio_tokens": 0, "accepted_prediction_tokens": 1,
            "rejected_prediction_tokens": 0}, "cost_in_the_future": 0.25});
    upstream.then(Answer::json(200, &with(completion("hm"), "usage", usage.clone())));
    let body = gateway.chat(&ask("hi")).await.expect(200).json();
    assert_eq!(body["usage"], usage);
    assert!(!closing(&gateway).await.is_estimated());
}

#[tokio::test]
async fn repeated_or_missing_provider_ids_do_not_merge_two_calls() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream).await;
    let mut without = completion("x");
    without["id"] = Value::Null;
    for answer in [completion("x"), completion("x"), without.clone(), without] {
        upstream.then(Answer::json(200, &answer));
        gateway.chat(&ask("hi")).await.expect(200);
    }
    let chain = gateway.settled().await;
    assert_eq!((chain.admissions().count(), chain.closings().count()), (4, 4));
    assert_eq!(chain.closings().map(Entry::settled).sum::<u64>(), 4 * cost(7, 5));
}

#[tokio::test]
async fn a_request_id_from_the_caller_is_data_and_not_identity() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream).await;
    let mut tasks = Vec::new();
    for _ in 0..2 {
        let call = gateway.chat_call(&ask("hi")).header("x-request-id", "always-the-same");
        let call = call.header("x-stainless-retry-count", "1").header("idempotency-key", "k");
        let reply = call.send(gateway.address).await.expect(200);
        tasks.push((reply.header("x-request-id").unwrap().to_owned(), reply.json()["tappass"]["task_id"].clone()));
    }
    assert_ne!(tasks[0], tasks[1], "each call has an id of ours");
    assert_ne!(tasks[0].1, tasks[1].1);
    assert_eq!(gateway.settled().await.closings().count(), 2);
    for strange in ["", "a b", "%0d%0aset-cookie: x", "\u{e4}", &"x".repeat(5000)] {
        let reply = gateway.chat_call(&ask("hi")).header("x-request-id", strange).send(gateway.address).await;
        assert!(matches!(reply.status, 200 | 400 | 431), "{strange:?}");
        assert_eq!(reply.header("set-cookie"), None);
    }
}
