//! Bodies in the shapes of `OpenAI`: what agents ask and what providers answer.
//!
//! Owns the examples that most tests use. Never more than the shape: odd ones stand in the tests that need them.

use serde_json::{Value, json};

use crate::support::upstream::{Answer, Seen};

/// A model name that the gateway routes to the OpenAI-compatible provider and knows a price for.
pub const MODEL: &str = "gpt-4o-mini";

/// A key of the shape that every detector of secrets must know, and a documented example besides.
pub const AWS_KEY: &str = "AKIAIOSFODNN7EXAMPLE";

/// One user turn.
pub fn ask(text: &str) -> Value {
    json!({"model": MODEL, "messages": [{"role": "user", "content": text}]})
}

/// One user turn, streamed.
pub fn ask_stream(text: &str) -> Value {
    with(ask(text), "stream", json!(true))
}

/// The same body with one field set.
pub fn with(mut body: Value, field: &str, value: Value) -> Value {
    body[field] = value;
    body
}

/// A function that the model may call.
pub fn tool(name: &str) -> Value {
    json!({"type": "function", "function": {"name": name, "description": "does what its name says",
        "parameters": {"type": "object", "properties": {"q": {"type": "string"}}}}})
}

/// A whole answer.
pub fn completion(text: &str) -> Value {
    json!({"id": "chatcmpl-fake", "object": "chat.completion", "created": 1_700_000_000, "model": MODEL,
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
        "usage": usage()})
}

pub fn usage() -> Value {
    json!({"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12})
}

/// One chunk of a stream.
pub fn chunk(delta: &Value) -> Value {
    json!({"id": "chatcmpl-fake", "object": "chat.completion.chunk", "created": 1_700_000_000, "model": MODEL,
        "choices": [{"index": 0, "delta": delta, "finish_reason": null}]})
}

pub fn text_chunk(text: &str) -> Value {
    chunk(&json!({"content": text}))
}

pub fn last_chunk(reason: &str) -> Value {
    let mut chunk = chunk(&json!({}));
    chunk["choices"][0]["finish_reason"] = json!(reason);
    chunk
}

pub fn usage_chunk() -> Value {
    let mut chunk = chunk(&json!({}));
    chunk["choices"] = json!([]);
    chunk["usage"] = usage();
    chunk
}

/// One event with these bytes as data.
pub fn event(data: &Value) -> String {
    format!("data: {data}\n\n")
}

pub const DONE: &str = "data: [DONE]\n\n";

/// The events of a stream that says `parts`, with its end.
pub fn events(parts: &[&str]) -> Vec<String> {
    let mut events = vec![event(&chunk(&json!({"role": "assistant", "content": ""})))];
    events.extend(parts.iter().map(|part| event(&text_chunk(part))));
    events.push(event(&last_chunk("stop")));
    events.push(event(&usage_chunk()));
    events.push(DONE.to_owned());
    events
}

/// What a decent provider answers: the same words whole or streamed, usage where it was asked for.
pub fn well_behaved(seen: &Seen) -> Answer {
    let body: Value = serde_json::from_slice(&seen.body).unwrap_or(Value::Null);
    if seen.method == "GET" {
        return Answer::json(
            200,
            &json!({"object": "list", "data": [
            {"id": MODEL, "object": "model", "created": 1_700_000_000, "owned_by": "fake"}]}),
        );
    }
    if body["stream"] != json!(true) {
        return Answer::json(200, &completion("hello world"));
    }
    let mut events = events(&["hello", " world"]);
    if body["stream_options"]["include_usage"] != json!(true) {
        events.remove(events.len() - 2);
    }
    Answer::stream(events)
}
