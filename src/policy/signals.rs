//! What conditional rules may look at, and how each value reaches the evaluator and the memo.
//!
//! Owns the list of signals with their types and operators, and the one reading of a value (`Seen`) from which both the
//! memo's key and the evaluator's input are made, so that the two cannot differ. Never passes on a caller's JSON as it
//! came: tool arguments are read as bounded lists of plain values. An argument that is too large to judge is an error.

use std::{borrow::Cow, sync::Arc};

use serde::{Serialize, Serializer};
use serde_json::Value as Json;

use crate::domain::detection::Classification;

/// Most plain values that one tool argument may hold to be judged.
const MAX_LEAVES: usize = 1_024;
/// Most text, in bytes, that one tool argument may hold to be judged.
const MAX_LEAF_BYTES: usize = 256 * 1_024;
/// What a rule writes before the name of an argument.
const ARGUMENT: &str = "request.tool_args.";

/// The request as rules see it. No field has a default: a forgotten one would be a rule that silently never fires.
#[derive(Clone, Debug)]
pub struct Signals<'a> {
    /// `request.model`: the model as the caller named it.
    pub model: &'a str,
    /// `request.provider`, once it is known.
    pub provider: Option<&'a str>,
    /// `request.stream`.
    pub stream: bool,
    /// `request.tool`: names of the tools offered or called.
    pub tools: Vec<&'a str>,
    /// `request.messages`: how many.
    pub messages: u64,
    /// `request.bytes`: size of the body.
    pub bytes: u64,
    /// `request.max_tokens`, where the caller set a bound.
    pub max_tokens: Option<u64>,
    /// `request.classification`.
    pub classification: Classification,
    /// `detection.category`: dotted categories of what was found.
    pub categories: Vec<&'a str>,
    /// `detection.count`.
    pub detections: u64,
    /// `agent.id`.
    pub agent_id: &'a str,
    /// `agent.framework`, where the agent declared one.
    pub framework: Option<&'a str>,
    /// `project.id`, where the agent is in a project.
    pub project_id: Option<&'a str>,
}

/// One thing that a condition may look at.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Signal {
    /// `request.model`
    Model,
    /// `request.provider`
    Provider,
    /// `request.stream`
    Stream,
    /// `request.tool`
    Tool,
    /// `request.tool_args.<name>`: every plain value inside that argument
    Argument(Arc<str>),
    /// `request.messages`
    Messages,
    /// `request.bytes`
    Bytes,
    /// `request.max_tokens`
    MaxTokens,
    /// `request.classification`
    Classification,
    /// `detection.category`
    Category,
    /// `detection.count`
    Detections,
    /// `agent.id`
    AgentId,
    /// `agent.framework`
    Framework,
    /// `project.id`
    ProjectId,
}

/// What values a signal has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignalType {
    /// One text.
    Text,
    /// True or false.
    Flag,
    /// A whole number from 0.
    Number,
    /// Any number of texts.
    Texts,
    /// A classification, ordered.
    Rank,
    /// Plain values of any kind.
    Any,
}

/// The signals with a fixed name.
const NAMED: [(&str, Signal, SignalType); 13] = [
    ("request.model", Signal::Model, SignalType::Text),
    ("request.provider", Signal::Provider, SignalType::Text),
    ("request.stream", Signal::Stream, SignalType::Flag),
    ("request.tool", Signal::Tool, SignalType::Texts),
    ("request.messages", Signal::Messages, SignalType::Number),
    ("request.bytes", Signal::Bytes, SignalType::Number),
    ("request.max_tokens", Signal::MaxTokens, SignalType::Number),
    ("request.classification", Signal::Classification, SignalType::Rank),
    ("detection.category", Signal::Category, SignalType::Texts),
    ("detection.count", Signal::Detections, SignalType::Number),
    ("agent.id", Signal::AgentId, SignalType::Text),
    ("agent.framework", Signal::Framework, SignalType::Text),
    ("project.id", Signal::ProjectId, SignalType::Text),
];

/// Every name that a rule may write, for suggestions.
pub fn signal_names() -> impl Iterator<Item = &'static str> {
    NAMED.iter().map(|(name, _, _)| *name).chain([ARGUMENT])
}

impl Signal {
    /// Reads a name. An argument's name is 1 to 64 of letters, digits, `_` and `-`.
    pub fn parse(text: &str) -> Option<Self> {
        if let Some(name) = text.strip_prefix(ARGUMENT) {
            let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
            let fits = (1..=64).contains(&name.len()) && name.bytes().all(plain);
            return fits.then(|| Self::Argument(Arc::from(name)));
        }
        NAMED.iter().find(|(name, _, _)| *name == text).map(|(_, signal, _)| signal.clone())
    }

    /// The name that rules write.
    pub fn name(&self) -> Cow<'static, str> {
        if let Self::Argument(name) = self {
            return Cow::Owned(format!("{ARGUMENT}{name}"));
        }
        Cow::Borrowed(self.named().map_or("", |(name, _)| name))
    }

    /// What values it has.
    pub fn kind(&self) -> SignalType {
        self.named().map_or(SignalType::Any, |(_, kind)| kind)
    }

    /// Is it about one tool call, so that it must be judged again when a call appears?
    pub fn is_about_tools(&self) -> bool {
        matches!(self, Self::Tool | Self::Argument(_))
    }

    fn named(&self) -> Option<(&'static str, SignalType)> {
        NAMED.iter().find(|(_, signal, _)| signal == self).map(|(name, _, kind)| (*name, *kind))
    }

    /// Reads the value. `call` holds the arguments of the call that is judged, if one is.
    pub(super) fn read<'a>(&self, from: &'a Signals<'a>, call: Option<Call<'a>>) -> Result<Seen<'a>, TooLarge> {
        let text = |value: Option<&'a str>| value.map_or(Seen::Absent, Seen::Text);
        Ok(match self {
            Self::Model => Seen::Text(from.model),
            Self::Provider => text(from.provider),
            Self::Stream => Seen::Flag(from.stream),
            Self::Tool => match call {
                Some(call) => Seen::Text(call.tool),
                None => Seen::Texts(&from.tools),
            },
            Self::Argument(name) => match call.and_then(|call| call.arguments) {
                Some(arguments) => argument(arguments, name)?,
                None => Seen::Absent,
            },
            Self::Messages => Seen::Number(from.messages),
            Self::Bytes => Seen::Number(from.bytes),
            Self::MaxTokens => from.max_tokens.map_or(Seen::Absent, Seen::Number),
            Self::Classification => Seen::Rank(rank(from.classification)),
            Self::Category => Seen::Texts(&from.categories),
            Self::Detections => Seen::Number(from.detections),
            Self::AgentId => Seen::Text(from.agent_id),
            Self::Framework => text(from.framework),
            Self::ProjectId => text(from.project_id),
        })
    }
}

impl Serialize for Signal {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.name())
    }
}

/// The five classifications in ascending order.
pub(super) const CLASSES: [Classification; 5] = [
    Classification::Public,
    Classification::Internal,
    Classification::Confidential,
    Classification::Restricted,
    Classification::TopSecret,
];

/// Place of a classification in the order, 0 to 4.
pub(super) fn rank(class: Classification) -> u8 {
    match class {
        Classification::Public => 0,
        Classification::Internal => 1,
        Classification::Confidential => 2,
        Classification::Restricted => 3,
        Classification::TopSecret => 4,
    }
}

/// A tool call that is judged.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call<'a> {
    pub(super) tool: &'a str,
    pub(super) arguments: Option<&'a Json>,
}

/// An argument that is too large, or not in the shape, to be judged.
#[derive(Debug)]
pub(super) struct TooLarge;

/// A value as it was read, before it becomes a key or an input.
#[derive(Debug)]
pub(super) enum Seen<'a> {
    Absent,
    Text(&'a str),
    Texts(&'a [&'a str]),
    Flag(bool),
    Number(u64),
    Rank(u8),
    Leaves(Vec<&'a Json>),
}

/// Every plain value inside one argument, so that wrapping a value in a list or an object does not hide it.
fn argument<'a>(arguments: &'a Json, name: &str) -> Result<Seen<'a>, TooLarge> {
    let object = match arguments {
        Json::Object(object) => object,
        Json::Null => return Ok(Seen::Absent),
        // Arguments that are not an object cannot be looked into: refuse rather than miss.
        Json::Bool(_) | Json::Number(_) | Json::String(_) | Json::Array(_) => return Err(TooLarge),
    };
    let Some(value) = object.get(name) else { return Ok(Seen::Absent) };
    let (mut leaves, mut open, mut bytes, mut steps) = (Vec::new(), vec![value], 0, 0);
    while let Some(next) = open.pop() {
        steps += 1;
        match next {
            Json::Array(items) => open.extend(items.iter().take(MAX_LEAVES + 1)),
            Json::Object(fields) => open.extend(fields.values().take(MAX_LEAVES + 1)),
            Json::String(text) => {
                bytes += text.len();
                leaves.push(next);
            }
            Json::Null | Json::Bool(_) | Json::Number(_) => leaves.push(next),
        }
        if steps > MAX_LEAVES || open.len() > MAX_LEAVES || bytes > MAX_LEAF_BYTES {
            return Err(TooLarge);
        }
    }
    Ok(Seen::Leaves(leaves))
}

impl Seen<'_> {
    /// Appends the value to a memo key, unambiguously. A number appears as its place among the numbers that rules compare
    /// it with (ascending): two numbers in one place give equal answers to every comparison.
    pub(super) fn append_key(&self, thresholds: &[u64], key: &mut Vec<u8>) {
        match self {
            Self::Absent => key.push(b'-'),
            Self::Text(text) => append_text(text, key),
            Self::Texts(texts) => {
                key.push(b'[');
                for text in *texts {
                    append_text(text, key);
                }
                key.push(b']');
            }
            Self::Flag(flag) => key.push(if *flag { b'1' } else { b'0' }),
            Self::Rank(rank) => key.extend([b'r', *rank]),
            Self::Number(number) => {
                key.push(b'#');
                let place = thresholds.partition_point(|t| t < number);
                let on_it = thresholds.get(place) == Some(number);
                key.extend((place * 2 + usize::from(on_it)).to_le_bytes());
            }
            Self::Leaves(leaves) => {
                key.push(b'{');
                for leaf in leaves {
                    append_leaf(leaf, key);
                }
                key.push(b'}');
            }
        }
    }

    /// The list of values for the evaluator; `None` where the signal is absent.
    pub(super) fn into_values(self) -> Option<Vec<regorus::Value>> {
        let values: Vec<_> = match self {
            Self::Absent => return None,
            Self::Text(text) => vec![text.into()],
            Self::Texts(texts) => texts.iter().map(|text| regorus::Value::from(*text)).collect(),
            Self::Flag(flag) => vec![flag.into()],
            Self::Number(number) => vec![number.into()],
            Self::Rank(rank) => vec![u64::from(rank).into()],
            Self::Leaves(leaves) => leaves.into_iter().map(leaf_value).collect(),
        };
        // An empty set is an absent signal: `not_in` over no tools holds for no tool.
        (!values.is_empty()).then_some(values)
    }
}

fn append_text(text: &str, key: &mut Vec<u8>) {
    key.push(b's');
    key.extend((text.len() as u64).to_le_bytes());
    key.extend(text.as_bytes());
}

fn append_leaf(leaf: &Json, key: &mut Vec<u8>) {
    match leaf {
        Json::String(text) => append_text(text, key),
        Json::Number(number) => {
            key.push(b'n');
            append_text(&number.to_string(), key);
        }
        Json::Bool(flag) => key.push(if *flag { b'1' } else { b'0' }),
        // Containers are never leaves.
        Json::Null | Json::Array(_) | Json::Object(_) => key.push(b'~'),
    }
}

fn leaf_value(leaf: &Json) -> regorus::Value {
    match leaf {
        Json::String(text) => text.as_str().into(),
        Json::Bool(flag) => (*flag).into(),
        Json::Number(number) => match (number.as_u64(), number.as_i64(), number.as_f64()) {
            (Some(whole), _, _) => whole.into(),
            (None, Some(whole), _) => whole.into(),
            (None, None, Some(real)) => real.into(),
            (None, None, None) => regorus::Value::Null,
        },
        Json::Null | Json::Array(_) | Json::Object(_) => regorus::Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn every_name_reads_back() {
        for name in signal_names().filter(|name| *name != ARGUMENT) {
            assert_eq!(Signal::parse(name).unwrap().name(), name);
        }
        assert_eq!(Signal::parse("request.tool_args.path").unwrap().name(), "request.tool_args.path");
        assert_eq!(Signal::parse("request.tool_args.a.b"), None);
        assert_eq!(Signal::parse("request.modle"), None);
    }

    fn leaves(arguments: &Json) -> Option<Vec<regorus::Value>> {
        argument(arguments, "a").unwrap().into_values()
    }

    #[test]
    fn a_value_cannot_hide_in_a_list_or_an_object() {
        let found = leaves(&json!({"a": [{"x": "/etc/shadow"}, [1, [true]]], "b": "unread"})).unwrap();
        assert_eq!(found.len(), 3);
        assert!(found.contains(&"/etc/shadow".into()));
        assert_eq!(leaves(&json!({"b": 1})), None);
        assert_eq!(leaves(&json!({"a": []})), None);
    }

    #[test]
    fn an_argument_that_is_too_large_or_has_no_shape_is_an_error() {
        assert!(argument(&json!({"a": vec![0; 2_000]}), "a").is_err());
        assert!(argument(&json!({"a": "x".repeat(MAX_LEAF_BYTES + 1)}), "a").is_err());
        assert!(argument(&json!("{\"a\": 1}"), "a").is_err());
        assert!(argument(&json!({"a": vec![0; 1_000]}), "a").is_ok());
    }

    fn key(seen: &Seen, thresholds: &[u64]) -> Vec<u8> {
        let mut key = Vec::new();
        seen.append_key(thresholds, &mut key);
        key
    }

    #[test]
    fn different_values_have_different_keys() {
        let (ab, a_b) = (["ab"], ["a", "b"]);
        assert_ne!(key(&Seen::Texts(&ab), &[]), key(&Seen::Texts(&a_b), &[]));
        assert_ne!(key(&Seen::Text("5"), &[]), key(&argument(&json!({"a": 5}), "a").unwrap(), &[]));
        let (five, text) = (json!({"a": 5}), json!({"a": "5"}));
        assert_ne!(key(&argument(&five, "a").unwrap(), &[]), key(&argument(&text, "a").unwrap(), &[]));
        assert_ne!(key(&Seen::Absent, &[]), key(&Seen::Text(""), &[]));
    }

    proptest! {
        #[test]
        fn numbers_share_a_key_exactly_when_no_comparison_tells_them_apart(
            mut thresholds in proptest::collection::vec(0_u64..12, 0..4), a in 0_u64..14, b in 0_u64..14,
        ) {
            thresholds.sort_unstable();
            thresholds.dedup();
            let alike = thresholds.iter().all(|t| a.cmp(t) == b.cmp(t));
            prop_assert_eq!(key(&Seen::Number(a), &thresholds) == key(&Seen::Number(b), &thresholds), alike);
        }
    }
}
