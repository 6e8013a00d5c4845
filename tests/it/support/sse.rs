//! Event streams as a client reads them, and what a chat stream amounts to.
//!
//! Owns a strict reader of our own output (LF only, since we make it) and the sum of a stream: texts, tool calls, finish
//! reasons, usage, errors, end. Never forgives: bytes that no client would understand fail the test.

use std::collections::BTreeMap;

use serde_json::Value;

/// One event, or a comment when only `comment` is set.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Event {
    pub name: Option<String>,
    pub id: Option<String>,
    pub data: String,
    pub comment: Option<String>,
}

impl Event {
    pub fn json(&self) -> Option<Value> {
        serde_json::from_str(&self.data).ok()
    }
}

/// Splits a stream into its events; an unfinished last event is kept.
pub fn events(bytes: &[u8]) -> Vec<Event> {
    let text = std::str::from_utf8(bytes).expect("event streams are UTF-8");
    let mut events = Vec::new();
    for block in text.replace("\r\n", "\n").split("\n\n").filter(|block| !block.trim().is_empty()) {
        let mut event = Event::default();
        let mut data = Vec::new();
        for line in block.split('\n').filter(|line| !line.is_empty()) {
            let (field, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value).to_owned();
            match field {
                "data" => data.push(value),
                "event" => event.name = Some(value),
                "id" => event.id = Some(value),
                "" => event.comment = Some(value),
                _ => {}
            }
        }
        event.data = data.join("\n");
        events.push(event);
    }
    events
}

/// A tool call put together from its deltas.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct ToolCall {
    pub id: String,
    pub name: String,
    pub arguments: String,
}

/// What a whole stream says, however it was cut.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Sum {
    pub text: BTreeMap<u64, String>,
    pub reasoning: BTreeMap<u64, String>,
    pub refusal: BTreeMap<u64, String>,
    pub tools: BTreeMap<(u64, u64), ToolCall>,
    pub finish: BTreeMap<u64, String>,
    pub usage: Option<String>,
    pub errors: Vec<String>,
    pub done: bool,
}

impl Sum {
    pub fn of(bytes: &[u8]) -> Self {
        let mut sum = Self::default();
        for event in events(bytes).iter().filter(|event| !event.data.is_empty()) {
            assert!(!sum.done, "nothing follows [DONE]");
            if event.data == "[DONE]" {
                sum.done = true;
                continue;
            }
            let chunk = event.json().unwrap_or_else(|| panic!("an event that is not JSON: {}", event.data));
            sum.add(&chunk);
        }
        sum
    }

    fn add(&mut self, chunk: &Value) {
        if let Some(error) = chunk.get("error").filter(|error| !error.is_null()) {
            self.errors.push(error["code"].as_str().or(error["type"].as_str()).unwrap_or("").to_owned());
        }
        if let Some(usage) = chunk.get("usage").filter(|usage| !usage.is_null()) {
            self.usage = Some(usage.to_string());
        }
        for choice in chunk["choices"].as_array().into_iter().flatten() {
            let index = choice["index"].as_u64().unwrap_or(0);
            let delta = &choice["delta"];
            for (field, texts) in [
                ("content", &mut self.text),
                ("reasoning_content", &mut self.reasoning),
                ("refusal", &mut self.refusal),
            ] {
                if let Some(text) = delta[field].as_str() {
                    texts.entry(index).or_default().push_str(text);
                }
            }
            if let Some(reason) = choice["finish_reason"].as_str() {
                self.finish.insert(index, reason.to_owned());
            }
            for call in delta["tool_calls"].as_array().into_iter().flatten() {
                let tool = self.tools.entry((index, call["index"].as_u64().unwrap_or(0))).or_default();
                for (part, into) in [
                    (&call["id"], &mut tool.id),
                    (&call["function"]["name"], &mut tool.name),
                    (&call["function"]["arguments"], &mut tool.arguments),
                ] {
                    into.push_str(part.as_str().unwrap_or(""));
                }
            }
        }
    }

    /// The text of the first choice.
    pub fn first(&self) -> &str {
        self.text.get(&0).map_or("", String::as_str)
    }
}
