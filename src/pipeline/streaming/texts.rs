//! The texts of a streamed answer, put together from their fragments.
//!
//! Owns their places and the tool calls among them; pure.

use crate::providers::openai::{DeltaChannel, ToolCall};

/// One text of the answer, as far as it has come.
pub(super) struct Text {
    pub(super) choice: u64,
    pub(super) channel: DeltaChannel,
    pub(super) fragments: String,
}

/// Where a text of a stream stands, in the words of a whole answer.
pub(super) fn place(text: &Text) -> String {
    let choice = text.choice;
    match text.channel {
        DeltaChannel::Content => format!("choices[{choice}].message.content"),
        DeltaChannel::Refusal => format!("choices[{choice}].message.refusal"),
        DeltaChannel::Reasoning => format!("choices[{choice}].message.reasoning_content"),
        DeltaChannel::Other => format!("choices[{choice}]"),
        DeltaChannel::ToolName(i) => format!("choices[{choice}].message.tool_calls[{i}].function.name"),
        DeltaChannel::ToolArguments(i) => format!("choices[{choice}].message.tool_calls[{i}].function.arguments"),
    }
}

/// Tool calls put together from their fragments.
pub(super) fn tool_calls(texts: &[Text]) -> Vec<ToolCall> {
    let names = texts.iter().filter_map(|text| match text.channel {
        DeltaChannel::ToolName(index) => Some((text.choice, index, &text.fragments)),
        DeltaChannel::Content
        | DeltaChannel::Refusal
        | DeltaChannel::Reasoning
        | DeltaChannel::ToolArguments(_)
        | DeltaChannel::Other => None,
    });
    names
        .map(|(choice, index, name)| {
            let own = |t: &&Text| t.choice == choice && t.channel == DeltaChannel::ToolArguments(index);
            let arguments = texts.iter().find(own).map(|t| t.fragments.clone()).unwrap_or_default();
            ToolCall { name: name.clone(), arguments }
        })
        .collect()
}
