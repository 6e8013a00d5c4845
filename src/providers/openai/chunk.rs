//! One chunk of a streamed answer.
//!
//! Owns which members are text, tool-call fragments, usage and errors. Never changes a byte by itself.

use std::borrow::Cow;

use bytes::Bytes;

use super::answer::usage_of;
use crate::{
    domain::json::{JsonError, Limits, Tape, Value},
    usage::Usage,
};

/// Which text a fragment belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DeltaChannel {
    /// What the model says.
    Content,
    /// That it refuses.
    Refusal,
    /// What it thinks.
    Reasoning,
    /// The name of the tool call with this index.
    ToolName(u64),
    /// The arguments of the tool call with this index.
    ToolArguments(u64),
    /// Any other text of the choice.
    Other,
}

/// The index under which the older `function_call` stands.
const LEGACY: u64 = u64::MAX;

/// A fragment of text.
#[derive(Debug)]
pub struct Delta<'a> {
    /// Which choice.
    pub choice: u64,
    /// Which text.
    pub channel: DeltaChannel,
    /// The fragment.
    pub text: Cow<'a, str>,
    /// Where its JSON string stands in the chunk.
    pub span: std::ops::Range<usize>,
}

/// A chunk as it came.
#[derive(Debug)]
pub struct ChatChunk {
    /// The JSON.
    pub data: Bytes,
    tape: Tape,
}

impl ChatChunk {
    /// Reads an event's data that must be JSON.
    pub fn read(data: Bytes) -> Result<Self, JsonError> {
        let tape = Tape::parse(&data, &Limits::default())?;
        Ok(Self { data, tape })
    }

    /// The view over the chunk.
    pub fn root(&self) -> Value<'_> {
        self.tape.root(&self.data)
    }

    /// The provider's error, if the chunk is one.
    pub fn error(&self) -> Option<Value<'_>> {
        self.root().get("error").filter(|error| !error.is_null())
    }

    /// What the provider says that it used.
    pub fn usage(&self) -> Option<Usage> {
        usage_of(self.root())
    }

    /// Whether the chunk has nothing but usage: no choice speaks in it.
    pub fn is_usage_only(&self) -> bool {
        self.root().get("choices").is_some_and(Value::is_empty) && self.usage().is_some()
    }

    /// Hands every fragment of text to `each`.
    pub fn deltas<'a>(&'a self, mut each: impl FnMut(Delta<'a>)) {
        let Some(choices) = self.root().get("choices") else { return };
        for choice in choices.items() {
            let index = choice.get("index").and_then(Value::as_u64).unwrap_or(0);
            let Some(delta) = choice.get("delta") else { continue };
            let mut give = |channel, value: Option<Value<'a>>| {
                let Some(value) = value else { return };
                if let Some(text) = value.as_str().filter(|text| !text.is_empty()) {
                    each(Delta { choice: index, channel, text, span: value.span() });
                }
            };
            for (key, value) in delta.members() {
                match &*key {
                    "content" => give(DeltaChannel::Content, Some(value)),
                    "refusal" => give(DeltaChannel::Refusal, Some(value)),
                    "reasoning_content" | "reasoning" => give(DeltaChannel::Reasoning, Some(value)),
                    "tool_calls" => value.items().enumerate().for_each(|(place, call)| {
                        let at = call.get("index").and_then(Value::as_u64).unwrap_or(place as u64);
                        let function = call.get("function").or_else(|| call.get("custom"));
                        give(DeltaChannel::ToolName(at), function.and_then(|f| f.get("name")));
                        let arguments = function.and_then(|f| f.get("arguments").or_else(|| f.get("input")));
                        give(DeltaChannel::ToolArguments(at), arguments);
                    }),
                    "function_call" => {
                        give(DeltaChannel::ToolName(LEGACY), value.get("name"));
                        give(DeltaChannel::ToolArguments(LEGACY), value.get("arguments"));
                    }
                    "role" => {}
                    _ => value.strings().for_each(|text| give(DeltaChannel::Other, Some(text))),
                }
            }
            // A provider may put a text where no client looks for it; it is looked at all the same.
            for (key, value) in choice.members() {
                if !matches!(&*key, "delta" | "finish_reason" | "index" | "logprobs") {
                    value.strings().for_each(|text| give(DeltaChannel::Other, Some(text)));
                }
            }
        }
    }
}
