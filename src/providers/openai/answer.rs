//! A whole chat answer.
//!
//! Owns which members are usage, tool calls and text. Never changes a byte by itself.

use std::borrow::Cow;

use bytes::Bytes;

use crate::{
    domain::json::{JsonError, Limits, Tape, Value},
    usage::Usage,
};

/// A tool that the model wants to call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToolCall {
    /// Its name.
    pub name: String,
    /// Its arguments, as the model wrote them.
    pub arguments: String,
}

/// An answer as it came.
#[derive(Debug)]
pub struct ChatAnswer {
    /// The bytes.
    pub body: Bytes,
    tape: Tape,
}

impl ChatAnswer {
    /// Reads a body that must be JSON.
    pub fn read(body: Bytes) -> Result<Self, JsonError> {
        let tape = Tape::parse(&body, &Limits::default())?;
        Ok(Self { body, tape })
    }

    /// The view over the whole body.
    pub fn root(&self) -> Value<'_> {
        self.tape.root(&self.body)
    }

    /// The value that has this number on the tape.
    pub fn value(&self, id: usize) -> Option<Value<'_>> {
        self.tape.value(&self.body, id)
    }

    /// What the provider says that it used.
    pub fn usage(&self) -> Option<Usage> {
        usage_of(self.root())
    }

    /// Every tool call of every choice.
    pub fn tool_calls(&self) -> Vec<ToolCall> {
        let Some(choices) = self.root().get("choices") else { return Vec::new() };
        let messages = choices.items().filter_map(|choice| choice.get("message"));
        messages.flat_map(|message| calls_of(message).collect::<Vec<_>>()).collect()
    }

    /// Bytes of text in the answer, to count with when the provider does not.
    pub fn text_bytes(&self) -> u64 {
        let Some(choices) = self.root().get("choices") else { return 0 };
        choices.strings().filter_map(Value::as_str).map(|text| text.len() as u64).sum()
    }
}

fn calls_of(message: Value<'_>) -> impl Iterator<Item = ToolCall> {
    let newer = message.get("tool_calls").into_iter().flat_map(|calls| calls.items().collect::<Vec<_>>());
    let newer = newer.filter_map(|call| call.get("function").or_else(|| call.get("custom")));
    newer.chain(message.get("function_call")).map(|function| {
        let text = |key| function.get(key).and_then(Value::as_str).map(Cow::into_owned).unwrap_or_default();
        let arguments = if function.get("arguments").is_some() { text("arguments") } else { text("input") };
        ToolCall { name: text("name"), arguments }
    })
}

/// Reads `usage`; reasoning tokens are part of the completion's.
pub(super) fn usage_of(root: Value<'_>) -> Option<Usage> {
    let usage = root.get("usage").filter(|usage| !usage.is_null())?;
    let count = |key| usage.get(key).and_then(Value::as_u64);
    let prompt_tokens = count("prompt_tokens")?;
    let completion_tokens = count("completion_tokens").unwrap_or(0);
    Some(Usage { prompt_tokens, completion_tokens, estimated: false })
}
