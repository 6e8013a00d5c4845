//! Output is enforced on every channel, whole and streamed (edge cases 11, 21, 24; promise 6).

use serde_json::{Value, json};

use crate::support::{
    gateway::Gateway,
    openai::{self, AWS_KEY, ask, ask_stream, chunk, completion, event, last_chunk, with},
    sse::Sum,
    upstream::{Answer, Upstream},
};

async fn guarded(upstream: &Upstream, action: &str) -> Gateway {
    let gateway = Gateway::start(upstream).await;
    gateway.raise_limits(&[("scan_output", json!({"on_detection": action}))]).await;
    gateway
}

/// A message of the assistant with the text in one of its channels.
fn channels(text: &str) -> Vec<(&'static str, Value)> {
    let call = json!({"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": json!({"q": text}).to_string()}});
    vec![
        ("content", json!({"content": text})),
        ("reasoning", json!({"reasoning_content": text})),
        ("refusal", json!({"refusal": text})),
        ("tool arguments", json!({"tool_calls": [call]})),
    ]
}

fn whole(fields: &Value) -> Value {
    let mut answer = completion("");
    let message = answer["choices"][0]["message"].as_object_mut().unwrap();
    message.extend(fields.as_object().unwrap().clone());
    answer
}

#[tokio::test]
async fn a_secret_in_any_channel_of_a_plain_answer_is_redacted_or_refused() {
    let upstream = Upstream::start();
    for action in ["redact", "block"] {
        let gateway = guarded(&upstream, action).await;
        for (channel, fields) in channels(&format!("the key is {AWS_KEY}, keep it")) {
            upstream.then(Answer::json(200, &whole(&fields)));
            let reply = gateway.chat(&ask("hi")).await;
            assert!(!reply.text().contains(AWS_KEY), "{action} {channel}: {}", reply.text());
            if action == "redact" {
                let reply = reply.expect(200);
                assert!(reply.text().contains("the key is ") && reply.text().contains(", keep it"), "{}", reply.text());
                assert_eq!(reply.header("content-length"), Some(reply.body.len().to_string().as_str()));
            } else {
                assert_eq!(reply.expect(403).json()["blocked_by"], "scan_output", "{channel}");
            }
        }
        gateway.settled().await;
    }
}

/// The same text in the same channel, one character per chunk.
fn drip(channel: &str, text: &str) -> Vec<String> {
    let arguments = json!({"q": text}).to_string();
    let text = if channel == "tool arguments" { arguments.as_str() } else { text };
    let mut events: Vec<String> = Vec::new();
    for (number, character) in text.chars().enumerate() {
        let piece = character.to_string();
        let delta = match channel {
            "content" => json!({"content": piece}),
            "reasoning" => json!({"reasoning_content": piece}),
            "refusal" => json!({"refusal": piece}),
            _ if number == 0 => json!({"tool_calls": [{"index": 0, "id": "c", "type": "function",
                "function": {"name": "f", "arguments": piece}}]}),
            _ => json!({"tool_calls": [{"index": 0, "function": {"arguments": piece}}]}),
        };
        events.push(event(&chunk(&delta)));
    }
    events.push(event(&last_chunk("stop")));
    events.push(openai::DONE.to_owned());
    events
}

fn channel_text(sum: &Sum, channel: &str) -> String {
    match channel {
        "content" => sum.text.get(&0).cloned().unwrap_or_default(),
        "reasoning" => sum.reasoning.get(&0).cloned().unwrap_or_default(),
        "refusal" => sum.refusal.get(&0).cloned().unwrap_or_default(),
        _ => sum.tools.get(&(0, 0)).map(|tool| tool.arguments.clone()).unwrap_or_default(),
    }
}

#[tokio::test]
async fn a_secret_dripped_over_chunks_is_redacted_in_every_channel() {
    let upstream = Upstream::start();
    let gateway = guarded(&upstream, "redact").await;
    let mut redacted = Vec::new();
    for channel in ["content", "reasoning", "refusal", "tool arguments"] {
        upstream.then(Answer::stream(drip(channel, &format!("the key is {AWS_KEY}, keep it"))));
        let reply = gateway.chat(&ask_stream("hi")).await.expect(200);
        let sum = Sum::of(&reply.body);
        let text = channel_text(&sum, channel);
        assert!(sum.done && !text.contains(AWS_KEY), "{channel}: {text}");
        assert!(text.contains("the key is ") && text.contains(", keep it"), "{channel}: {text}");
        if channel == "tool arguments" {
            assert!(serde_json::from_str::<Value>(&text).is_ok(), "still JSON: {text}");
        } else {
            redacted.push(text);
        }
    }
    // The same as of the whole text.
    let plain = json!({"content": format!("the key is {AWS_KEY}, keep it")});
    upstream.then(Answer::json(200, &whole(&plain)));
    let reply = gateway.chat(&ask("hi")).await.expect(200).content();
    assert!(redacted.iter().all(|text| *text == reply), "{redacted:?} and {reply}");
}

#[tokio::test]
async fn a_refused_stream_releases_nothing_of_the_secret_and_ends_in_an_error() {
    let upstream = Upstream::start();
    let gateway = guarded(&upstream, "block").await;
    for channel in ["content", "reasoning", "refusal", "tool arguments"] {
        let events = drip(channel, &format!("the key is {AWS_KEY}, keep it"));
        upstream.then(Answer::stream(events));
        // Nothing was released before the refusal, so it is an ordinary one.
        let reply = gateway.chat(&ask_stream("hi")).await.expect(403);
        assert_eq!(reply.json()["blocked_by"], "scan_output", "{channel}");
        assert!(!reply.text().contains("AKIA"), "{channel}: {}", reply.text());
    }
    for closing in gateway.settled().await.closings() {
        assert!(closing.outcome().contains("block") || closing.outcome().contains("refus"), "{}", closing.text);
    }
}

#[tokio::test]
async fn each_choice_is_scanned_by_itself() {
    let upstream = Upstream::start();
    let gateway = guarded(&upstream, "redact").await;
    let (left, right) = AWS_KEY.split_at(9);
    let choice = |index: u64, text: &str| {
        let mut chunk = chunk(&json!({"content": text}));
        chunk["choices"][0]["index"] = json!(index);
        event(&chunk)
    };
    // Interleaved: the secret of choice 1 must not hide behind choice 0, nor half of one and half of the other be one.
    let pieces =
        [choice(0, "safe "), choice(1, left), choice(0, left), choice(1, right), choice(0, " text"), choice(1, ".")];
    let mut ends = [last_chunk("stop"), last_chunk("stop")];
    ends[1]["choices"][0]["index"] = json!(1);
    let tail = ends.iter().map(event).chain([openai::DONE.to_owned()]);
    upstream.then(Answer::stream(pieces.into_iter().chain(tail)));
    let reply = gateway.chat(&with(ask_stream("hi"), "n", json!(2))).await.expect(200);
    let sum = Sum::of(&reply.body);
    assert_eq!(sum.text[&0], format!("safe {left} text"));
    assert!(!sum.text[&1].contains(AWS_KEY) && sum.text[&1].ends_with('.'), "{:?}", sum.text);
}

#[tokio::test]
async fn logprobs_do_not_repeat_what_was_redacted() {
    let upstream = Upstream::start();
    let gateway = guarded(&upstream, "redact").await;
    let tokens: Vec<Value> = AWS_KEY
        .as_bytes()
        .chunks(4)
        .map(|part| json!({"token": String::from_utf8_lossy(part), "logprob": -0.1, "bytes": part, "top_logprobs": []}))
        .collect();
    let mut answer = completion(AWS_KEY);
    answer["choices"][0]["logprobs"] = json!({"content": tokens});
    upstream.then(Answer::json(200, &answer));
    let reply = gateway.chat(&with(ask("hi"), "logprobs", json!(true))).await.expect(200);
    assert!(!reply.text().contains(AWS_KEY));
    assert!(!reply.text().contains("\"token\":\"AKIA\""), "{}", reply.text());
}

#[tokio::test]
async fn starter_logs_what_an_answer_contains_and_lets_it_through() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream).await;
    upstream.then(Answer::json(200, &completion(AWS_KEY)));
    assert_eq!(gateway.chat(&ask("hi")).await.expect(200).content(), AWS_KEY);
    let chain = gateway.settled().await;
    let closing = chain.last_closing().unwrap();
    assert!(closing.mentions("secret.") && !closing.mentions(AWS_KEY), "{}", closing.text);
}
