//! `tappass/echo`: a model without a provider, for development and for checks.
//!
//! Owns its answers: the last user message, said again. Never leaves the process. It answers like any other provider, also
//! in streams and with usage, so that everything around it is the real thing.

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode};

use super::{Call, KeyCheck, Provider, ProviderError, UpstreamBody, UpstreamReply};
use crate::{
    domain::json::{Limits, Tape, Value, escape_into},
    vault::SecretText,
};

/// Its name.
pub const ECHO_MODEL: &str = "tappass/echo";
/// Characters per piece of a stream.
const PIECE: usize = 24;

/// The built-in model.
pub struct Echo {
    models: [String; 1],
}

impl Default for Echo {
    fn default() -> Self {
        Self { models: [ECHO_MODEL.to_owned()] }
    }
}

/// What was asked of it.
struct Asked {
    text: String,
    stream: bool,
    usage: bool,
    prompt_tokens: usize,
}

#[async_trait]
impl Provider for Echo {
    fn name(&self) -> &'static str {
        "tappass"
    }

    fn needs_key(&self) -> bool {
        false
    }

    fn models(&self) -> &[String] {
        &self.models
    }

    async fn chat(&self, call: Call) -> Result<UpstreamReply, ProviderError> {
        if !(call.may_start)() {
            return Err(ProviderError::NotStarted);
        }
        let asked = read(&call.body);
        let pieces = if asked.stream { streamed(&asked) } else { vec![whole(&asked)] };
        let mut headers = HeaderMap::new();
        headers.insert("x-provider-request-id", HeaderValue::from_static("echo"));
        Ok(UpstreamReply {
            status: StatusCode::OK,
            headers,
            is_event_stream: asked.stream,
            body: UpstreamBody::made(pieces),
        })
    }

    async fn validate(&self, _: &SecretText) -> KeyCheck {
        KeyCheck::Unknown
    }
}

fn read(body: &[u8]) -> Asked {
    let tape = Tape::parse(body, &Limits::default()).ok();
    let root = tape.as_ref().map(|tape| tape.root(body));
    let last = root.and_then(|root| {
        let messages = root.get("messages")?;
        let users = messages.items().filter(|m| m.get("role").and_then(Value::as_str).is_some_and(|r| r == "user"));
        users.last()?.get("content")
    });
    let text = last.map_or_else(String::new, |content| match content.as_str() {
        Some(text) => text.into_owned(),
        None => content.items().filter_map(|part| part.get("text")?.as_str()).collect::<Vec<_>>().join("\n"),
    });
    let flag = |value: Option<Value<'_>>| value.and_then(Value::as_bool).unwrap_or(false);
    Asked {
        text: format!("echo: {text}"),
        stream: flag(root.and_then(|root| root.get("stream"))),
        usage: flag(root.and_then(|root| root.get("stream_options")?.get("include_usage"))),
        prompt_tokens: body.len().div_ceil(4),
    }
}

fn usage(asked: &Asked) -> String {
    let (prompt, answer) = (asked.prompt_tokens, asked.text.len().div_ceil(4));
    let total = prompt + answer;
    format!("{{\"prompt_tokens\":{prompt},\"completion_tokens\":{answer},\"total_tokens\":{total}}}")
}

fn quoted(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len() + 2);
    escape_into(&mut out, text);
    String::from_utf8(out).unwrap_or_default()
}

fn whole(asked: &Asked) -> Bytes {
    let (content, usage) = (quoted(&asked.text), usage(asked));
    Bytes::from(format!(
        "{{\"id\":\"chatcmpl-echo\",\"object\":\"chat.completion\",\"created\":0,\"model\":\"{ECHO_MODEL}\",\
         \"choices\":[{{\"index\":0,\"message\":{{\"role\":\"assistant\",\"content\":{content}}},\
         \"finish_reason\":\"stop\"}}],\"usage\":{usage}}}"
    ))
}

fn streamed(asked: &Asked) -> Vec<Bytes> {
    let chunk = |choices: &str, more: &str| {
        Bytes::from(format!(
            "data: {{\"id\":\"chatcmpl-echo\",\"object\":\"chat.completion.chunk\",\"created\":0,\
             \"model\":\"{ECHO_MODEL}\",\"choices\":{choices}{more}}}\n\n"
        ))
    };
    let mut pieces = vec![chunk(r#"[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]"#, "")];
    let characters: Vec<char> = asked.text.chars().collect();
    for part in characters.chunks(PIECE) {
        let content = quoted(&part.iter().collect::<String>());
        let choices = format!("[{{\"index\":0,\"delta\":{{\"content\":{content}}},\"finish_reason\":null}}]");
        pieces.push(chunk(&choices, ""));
    }
    pieces.push(chunk(r#"[{"index":0,"delta":{},"finish_reason":"stop"}]"#, ""));
    if asked.usage {
        pieces.push(chunk("[]", &format!(",\"usage\":{}", usage(asked))));
    }
    pieces.push(Bytes::from_static(b"data: [DONE]\n\n"));
    pieces
}
