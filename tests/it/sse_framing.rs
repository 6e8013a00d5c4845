//! Event streams however they are spelled and cut (edge cases 1 to 5, 7, 23): the caller gets the same answer.

use std::{path::Path, sync::Arc};

use serde_json::{Value, json};

use crate::support::{
    gateway::Gateway,
    openai::{self, ask_stream, chunk, event, last_chunk, text_chunk, usage_chunk, with},
    sse::Sum,
    upstream::{Answer, Gate, Upstream},
};

/// Two choices' worth of everything: text with many-byte characters, reasoning, two interleaved tool calls, usage.
fn story() -> Vec<Value> {
    let call = |index: u64, id: Value, name: Value, arguments: &str| {
        let mut call = json!({"index": index, "function": {"arguments": arguments}});
        if id.is_string() {
            call["id"] = id;
            call["type"] = json!("function");
            call["function"]["name"] = name;
        }
        chunk(&json!({"tool_calls": [call]}))
    };
    vec![
        chunk(&json!({"role": "assistant", "content": ""})),
        chunk(&json!({"reasoning_content": "hm, "})),
        chunk(&json!({"reasoning_content": "größer"})),
        text_chunk("Grüße "),
        text_chunk("an 🦀 \"all\"\n"),
        call(0, json!("call_a"), json!("first"), ""),
        call(1, json!("call_b"), json!("second"), "{\"x\""),
        call(0, Value::Null, Value::Null, "{\"q\":\"a\\u00e9"),
        call(1, Value::Null, Value::Null, ":[1,2]}"),
        call(0, Value::Null, Value::Null, "🦀\"}"),
        last_chunk("tool_calls"),
        usage_chunk(),
    ]
}

/// A space after the colon.
const SPACE: u8 = 1;
/// Comments, ids, unknown fields, and data over several lines.
const EXTRAS: u8 = 2;
/// A byte order mark.
const BOM: u8 = 4;
/// A blank line after the last event.
const LAST_BLANK: u8 = 8;

/// The story in one spelling of event streams.
fn spell(newline: &str, how: u8) -> Vec<u8> {
    let (space, extras) = (how & SPACE > 0, how & EXTRAS > 0);
    let (bom, last_blank) = (how & BOM > 0, how & LAST_BLANK > 0);
    let mut text = if bom { "\u{feff}".to_owned() } else { String::new() };
    let field = |name: &str, value: &str| format!("{name}:{}{value}{newline}", if space { " " } else { "" });
    let data: Vec<String> = story().iter().map(Value::to_string).chain(["[DONE]".to_owned()]).collect();
    let last = data.len() - 1;
    for (number, data) in data.iter().enumerate() {
        if extras {
            text.push_str(&format!(": ping{newline}{newline}"));
            text.push_str(&field("id", &number.to_string()));
            text.push_str(&field("unknown", "ignored"));
        }
        // JSON may be broken over lines wherever white space may stand.
        match data.split_once(",\"object\"").filter(|_| extras) {
            Some((left, right)) => {
                text.push_str(&field("data", &format!("{left},")));
                text.push_str(&field("data", &format!("\"object\"{right}")));
            }
            None => text.push_str(&field("data", data)),
        }
        if number < last || last_blank {
            text.push_str(newline);
        }
    }
    text.into_bytes()
}

/// Serves the fixtures: the user's text says which and where to cut.
fn serve(upstream: &Upstream, fixtures: Vec<Vec<u8>>) {
    let fixtures = Arc::new(fixtures);
    upstream.script(move |seen| {
        let body = seen.json();
        let (number, cut) = body["messages"][0]["content"].as_str().unwrap().split_once(' ').unwrap();
        let whole = &fixtures[number.parse::<usize>().unwrap()];
        match cut {
            "whole" => Answer::stream([whole.clone()]),
            "everywhere" => Answer::stream(whole.iter().map(|byte| vec![*byte])),
            cut => {
                let (left, right) = whole.split_at(cut.parse().unwrap());
                Answer::stream([left, right])
            }
        }
    });
}

async fn sums(gateway: &Arc<Gateway>, asks: Vec<String>) -> Vec<(String, Sum)> {
    let queue = Arc::new(std::sync::Mutex::new(asks));
    let worker = |_| {
        let (gateway, queue) = (Arc::clone(gateway), Arc::clone(&queue));
        tokio::spawn(async move {
            let mut results = Vec::new();
            loop {
                let Some(text) = queue.lock().unwrap().pop() else { return results };
                let body = with(ask_stream(&text), "stream_options", json!({"include_usage": true}));
                let reply = gateway.chat(&body).await.expect(200);
                assert!(reply.whole, "{text}");
                results.push((text, Sum::of(&reply.body)));
            }
        })
    };
    let workers: Vec<_> = (0..16).map(worker).collect();
    let mut all = Vec::new();
    for worker in workers {
        all.extend(worker.await.unwrap());
    }
    all
}

async fn assert_cuts_change_nothing(fixtures: Vec<Vec<u8>>, expected: Vec<Sum>) {
    let upstream = Upstream::start();
    let lengths: Vec<usize> = fixtures.iter().map(Vec::len).collect();
    serve(&upstream, fixtures);
    let gateway = Arc::new(Gateway::start(&upstream).await);
    let mut asks = Vec::new();
    for (number, length) in lengths.iter().enumerate() {
        asks.extend((1..*length).map(|cut| format!("{number} {cut}")));
        asks.push(format!("{number} everywhere"));
    }
    for (cuts, sum) in sums(&gateway, asks).await {
        let number: usize = cuts.split(' ').next().unwrap().parse().unwrap();
        assert_eq!(sum, expected[number], "fixture and cut {cuts}");
    }
}

fn story_sum() -> Sum {
    let mut whole = String::new();
    for chunk in story() {
        whole.push_str(&event(&chunk));
    }
    whole.push_str(openai::DONE);
    let sum = Sum::of(whole.as_bytes());
    assert_eq!(sum.tools[&(0, 0)].arguments, "{\"q\":\"a\\u00e9🦀\"}");
    assert_eq!(sum.tools[&(0, 1)].arguments, "{\"x\":[1,2]}");
    sum
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_cut_at_every_byte_says_the_same() {
    assert_cuts_change_nothing(vec![spell("\n", SPACE | LAST_BLANK)], vec![story_sum()]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_oddest_spelling_cut_at_every_byte_says_the_same() {
    // CRLF, comments, ids, unknown fields, data over several lines, a byte order mark, no blank line at the end.
    assert_cuts_change_nothing(vec![spell("\r\n", EXTRAS | BOM)], vec![story_sum()]).await;
}

#[tokio::test]
async fn every_spelling_of_an_event_stream_says_the_same() {
    let upstream = Upstream::start();
    let mut fixtures = Vec::new();
    for newline in ["\n", "\r\n", "\r"] {
        for how in 0..16 {
            fixtures.push(spell(newline, how));
        }
    }
    let asks = (0..fixtures.len()).map(|number| format!("{number} whole")).collect();
    serve(&upstream, fixtures);
    let gateway = Arc::new(Gateway::start(&upstream).await);
    let expected = story_sum();
    for (number, sum) in sums(&gateway, asks).await {
        assert_eq!(sum, expected, "spelling {number}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn recorded_streams_cut_at_every_byte_say_the_same() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/sse");
    let mut fixtures: Vec<Vec<u8>> = Vec::new();
    for file in std::fs::read_dir(folder).into_iter().flatten() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        // Chat streams that come to their end; the others are for unit tests of the framing.
        let is_chat = bytes.windows(21).any(|window| window == b"chat.completion.chunk");
        if is_chat && bytes.windows(6).any(|window| window == b"[DONE]") && bytes.len() < 4096 {
            fixtures.push(bytes);
        }
    }
    let upstream = Upstream::start();
    serve(&upstream, fixtures.clone());
    let gateway = Arc::new(Gateway::start(&upstream).await);
    let uncut = sums(&gateway, (0..fixtures.len()).map(|number| format!("{number} whole")).collect()).await;
    let mut expected = vec![Sum::default(); fixtures.len()];
    for (number, sum) in uncut {
        expected[number.split(' ').next().unwrap().parse::<usize>().unwrap()] = sum;
    }
    assert_cuts_change_nothing(fixtures, expected).await;
}

#[tokio::test]
async fn names_and_ids_of_events_are_kept() {
    let upstream = Upstream::start();
    let named = format!("event: delta\nid: 42\nretry: 1500\ndata: {}\n\n", text_chunk("hi"));
    upstream.always(Answer::stream([named, event(&last_chunk("stop")), openai::DONE.to_owned()]));
    let gateway = Gateway::start(&upstream).await;
    let reply = gateway.chat(&ask_stream("hi")).await.expect(200);
    let events = reply.events();
    let kept = events.iter().find(|event| event.data.contains("\"hi\"")).expect("the event");
    assert_eq!((kept.name.as_deref(), kept.id.as_deref()), (Some("delta"), Some("42")));
    assert!(reply.text().contains("retry:"), "{}", reply.text());
}

#[tokio::test]
async fn each_event_leaves_before_the_next_one_comes() {
    let upstream = Upstream::start();
    let gates: Vec<Gate> = (0..3).map(|_| Gate::new()).collect();
    let mut answer = Answer::stream(Vec::<String>::new());
    for (gate, word) in gates.iter().zip(["alpha ", "beta ", "gamma "]) {
        answer = answer.piece(event(&text_chunk(word))).pause(gate);
    }
    upstream.always(answer.piece(event(&last_chunk("stop"))).piece(openai::DONE));
    let gateway = Gateway::start(&upstream).await;
    let mut wire = gateway.chat_begin(&ask_stream("hi")).await;
    assert_eq!(wire.head().await.status, 200);
    for (gate, word) in gates.iter().zip(["alpha", "beta", "gamma"]) {
        wire.read_until(word).await;
        gate.open();
    }
    let (rest, whole) = wire.rest().await;
    assert!(whole && rest.ends_with(openai::DONE.as_bytes()));
}

#[tokio::test]
async fn a_silent_provider_is_bridged_by_comments() {
    let upstream = Upstream::start();
    let gate = Gate::new();
    let start = event(&text_chunk("thinking"));
    upstream.always(Answer::stream([start]).pause(&gate).piece(event(&last_chunk("stop"))).piece(openai::DONE));
    let gateway = Gateway::builder(&upstream).env("TAPPASS_PROVIDERS__HEARTBEAT_MS", "20").start().await;
    let mut wire = gateway.chat_begin(&ask_stream("hi")).await;
    assert_eq!(wire.head().await.status, 200);
    wire.read_until("thinking").await;
    for _ in 0..3 {
        wire.read_until("\n:").await;
    }
    gate.open();
    let (rest, whole) = wire.rest().await;
    assert!(whole && rest.ends_with(openai::DONE.as_bytes()), "{}", String::from_utf8_lossy(&rest));
}

#[tokio::test]
async fn comments_of_the_provider_do_not_disturb_the_answer() {
    let upstream = Upstream::start();
    let pieces = [": OPENROUTER PROCESSING\n\n".to_owned(), event(&text_chunk("hi")), ":\n\n".to_owned()];
    upstream.always(Answer::stream(pieces).piece(event(&last_chunk("stop"))).piece(openai::DONE));
    let gateway = Gateway::start(&upstream).await;
    let reply = gateway.chat(&ask_stream("hi")).await.expect(200);
    let sum = Sum::of(&reply.body);
    assert_eq!((sum.first(), sum.done), ("hi", true));
}

#[tokio::test]
async fn thousands_of_events_in_one_read_and_one_event_over_many_reads_arrive_whole() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream).await;
    let words: Vec<String> = (0..6500).map(|number| format!("w{number} ")).collect();
    let together: String = words.iter().map(|word| event(&text_chunk(word))).collect();
    assert!(together.len() > 1 << 20);
    upstream.then(Answer::stream([together + &event(&last_chunk("stop")) + openai::DONE]));
    let sum = Sum::of(&gateway.chat(&ask_stream("hi")).await.expect(200).body);
    assert_eq!((sum.first(), sum.done), (words.concat().as_str(), true));

    let long = "word ".repeat(60_000);
    let single = event(&text_chunk(&long)) + &event(&last_chunk("stop")) + openai::DONE;
    upstream.then(Answer::stream(single.as_bytes().chunks(1000).map(<[u8]>::to_vec)));
    let sum = Sum::of(&gateway.chat(&ask_stream("hi")).await.expect(200).body);
    assert!(sum.done && sum.first() == long);
}

#[tokio::test]
async fn an_event_without_end_is_an_error_and_not_an_answer() {
    let upstream = Upstream::start();
    let endless = vec![b'a'; 1 << 20];
    let mut answer = Answer::stream([b"data: {\"choices\":[{\"delta\":{\"content\":\"".to_vec()]);
    for _ in 0..96 {
        answer = answer.piece(endless.clone());
    }
    upstream.always(answer);
    let gateway = Gateway::start(&upstream).await;
    let reply = gateway.chat(&ask_stream("hi")).await;
    if reply.status == 200 {
        let sum = Sum::of(&reply.body);
        assert!(!sum.done && sum.errors.len() == 1, "{:?}", sum.errors);
    } else {
        assert_eq!(reply.status, 502);
    }
    assert!(reply.body.len() < 1 << 20, "{} bytes were passed on", reply.body.len());
    gateway.settled().await;
}
