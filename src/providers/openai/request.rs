//! A chat request, read once.
//!
//! Owns its shape and the edits that a gateway may make to it. Never copies a text that it does not have to.

use std::borrow::Cow;

use bytes::Bytes;

use crate::domain::json::{Edits, Limits, Tape, Value, escape_into};

/// The roles that a message may have.
const ROLES: [&str; 6] = ["system", "developer", "user", "assistant", "tool", "function"];
/// Longest model name, in bytes.
const MAX_MODEL_BYTES: usize = 256;
/// Most choices that may be asked for at once.
const MAX_CHOICES: u64 = 128;

/// What is wrong with a request, for the caller.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct InvalidRequest {
    /// A sentence.
    pub message: String,
    /// The member that it is about.
    pub param: Option<String>,
}

impl InvalidRequest {
    fn at(param: &str, message: impl Into<String>) -> Self {
        Self { message: message.into(), param: Some(param.to_owned()) }
    }
}

/// A tool that the request offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tool {
    /// Its name.
    pub name: String,
    /// Its place in `tools`, or in the older `functions`.
    pub index: usize,
    /// Whether it stands in `functions`.
    pub legacy: bool,
}

/// A request as it came, with what the gateway has to know about it.
#[derive(Debug)]
pub struct ChatRequest {
    /// The bytes.
    pub body: Bytes,
    tape: Tape,
    /// The model, as the caller wrote it.
    pub model: String,
    /// Whether the answer is to be streamed.
    pub stream: bool,
    /// Whether the caller asked for usage in the stream.
    pub include_usage: bool,
    /// How many choices.
    pub choices: u64,
    /// The bound on one choice's tokens, if the caller named one.
    pub max_tokens: Option<u64>,
    /// How many messages.
    pub messages: usize,
    /// How many parts are pictures, sound or files: they cost tokens that their bytes do not show.
    pub media: u64,
    /// The tools that are offered.
    pub tools: Vec<Tool>,
}

/// What to change on the way to the provider.
#[derive(Debug, Default)]
pub struct Upstream<'a> {
    /// The name under which the provider knows the model.
    pub model: Option<&'a str>,
    /// A bound on the answer, where the caller named none.
    pub max_tokens: Option<u64>,
    /// Tools to take away.
    pub without: Vec<&'a Tool>,
    /// Strings to replace, by their number on the tape.
    pub texts: Vec<(usize, String)>,
}

impl ChatRequest {
    /// Reads a body.
    pub fn read(body: Bytes) -> Result<Self, InvalidRequest> {
        let tape = Tape::parse(&body, &Limits::default())
            .map_err(|error| InvalidRequest { message: format!("invalid JSON: {error}"), param: None })?;
        let root = tape.root(&body);
        if root.get("model").is_none() && root.get("messages").is_none() && !is_object(root) {
            return Err(InvalidRequest { message: "the body must be a JSON object".to_owned(), param: None });
        }
        let model = model(root)?;
        let messages = messages(root)?;
        let stream = flag(root, "stream")?;
        let options = root.get("stream_options").filter(|options| !options.is_null());
        let include_usage = options.map_or(Ok(false), |options| flag(options, "include_usage"))?;
        // A provider may honour either, so the larger one counts.
        let max_tokens = number(root, "max_completion_tokens")?.max(number(root, "max_tokens")?);
        let media = media(root);
        let choices = number(root, "n")?.unwrap_or(1).max(number(root, "best_of")?.unwrap_or(1));
        if choices > MAX_CHOICES {
            return Err(InvalidRequest::at("n", format!("`n` must be at most {MAX_CHOICES}")));
        }
        let tools = tools(root)?;
        Ok(Self { body, tape, model, stream, include_usage, choices, max_tokens, messages, media, tools })
    }

    /// The view over the whole body.
    pub fn root(&self) -> Value<'_> {
        self.tape.root(&self.body)
    }

    /// The value that has this number on the tape.
    pub fn value(&self, id: usize) -> Option<Value<'_>> {
        self.tape.value(&self.body, id)
    }

    /// The tool that the request insists on, if it names one.
    pub fn forced_tool(&self) -> Option<Cow<'_, str>> {
        let root = self.root();
        let chosen = root.get("tool_choice").and_then(|choice| choice.get("function")?.get("name"));
        let legacy = || root.get("function_call").and_then(|choice| choice.get("name"));
        chosen.or_else(legacy)?.as_str()
    }

    /// The bytes for the provider: the caller's own where nothing changes.
    pub fn upstream(&self, change: &Upstream<'_>) -> Bytes {
        let root = self.root();
        let mut edits = Edits::default();
        if let Some((name, model)) = change.model.zip(root.get("model")).filter(|(name, _)| *name != self.model) {
            edits.replace(model.span(), quoted(name));
        }
        if self.stream && !self.include_usage {
            ask_for_usage(root, &mut edits);
        }
        if let Some(bound) = change.max_tokens {
            let bound = bound.to_string();
            match root.get("max_tokens") {
                Some(null) => edits.replace(null.span(), bound.into_bytes()),
                None => drop(edits.insert_member(root, "max_tokens", bound.as_bytes())),
            }
        }
        self.take_tools(root, change, &mut edits);
        for (id, text) in &change.texts {
            if let Some(value) = self.value(*id) {
                edits.replace(value.span(), quoted(text));
            }
        }
        if edits.is_empty() { self.body.clone() } else { Bytes::from(edits.apply(&self.body)) }
    }

    fn take_tools(&self, root: Value<'_>, change: &Upstream<'_>, edits: &mut Edits) {
        for (legacy, list, choice) in [(false, "tools", "tool_choice"), (true, "functions", "function_call")] {
            let gone: Vec<_> = change.without.iter().filter(|tool| tool.legacy == legacy).collect();
            let offered = self.tools.iter().filter(|tool| tool.legacy == legacy).count();
            let Some(array) = root.get(list).filter(|_| !gone.is_empty()) else { continue };
            if gone.len() == offered {
                edits.remove_member(root, list);
                edits.remove_member(root, choice);
                if !legacy {
                    edits.remove_member(root, "parallel_tool_calls");
                }
                continue;
            }
            for tool in gone {
                edits.remove_item(array, tool.index);
            }
        }
    }
}

fn ask_for_usage(root: Value<'_>, edits: &mut Edits) {
    match root.get("stream_options") {
        None => drop(edits.insert_member(root, "stream_options", b"{\"include_usage\":true}")),
        Some(options) if options.is_null() => edits.replace(options.span(), b"{\"include_usage\":true}".to_vec()),
        Some(options) => match options.get("include_usage") {
            Some(flag) => edits.replace(flag.span(), b"true".to_vec()),
            None => drop(edits.insert_member(options, "include_usage", b"true")),
        },
    }
}

fn quoted(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() + 2);
    escape_into(&mut out, text);
    out
}

fn is_object(value: Value<'_>) -> bool {
    value.kind() == crate::domain::json::Kind::Object
}

fn is_array(value: Value<'_>) -> bool {
    value.kind() == crate::domain::json::Kind::Array
}

fn model(root: Value<'_>) -> Result<String, InvalidRequest> {
    let model = root.get("model").ok_or_else(|| InvalidRequest::at("model", "`model` is required"))?;
    let model = model.as_str().ok_or_else(|| InvalidRequest::at("model", "`model` must be a string"))?;
    let fits = (1..=MAX_MODEL_BYTES).contains(&model.len()) && !model.chars().any(char::is_control);
    if !fits {
        let most = format!("`model` must have 1 to {MAX_MODEL_BYTES} bytes and no control characters");
        return Err(InvalidRequest::at("model", most));
    }
    Ok(model.into_owned())
}

fn messages(root: Value<'_>) -> Result<usize, InvalidRequest> {
    let messages = root.get("messages").ok_or_else(|| InvalidRequest::at("messages", "`messages` is required"))?;
    if !is_array(messages) || messages.is_empty() {
        return Err(InvalidRequest::at("messages", "`messages` must be an array of at least one message"));
    }
    let mut count = 0;
    for (i, message) in messages.items().enumerate() {
        let at = || format!("messages[{i}]");
        if !is_object(message) {
            return Err(InvalidRequest::at(&at(), format!("`{}` must be an object", at())));
        }
        let role = message.get("role").and_then(Value::as_str);
        if !role.as_deref().is_some_and(|role| ROLES.contains(&role)) {
            let right = ROLES.join(", ");
            return Err(InvalidRequest::at(
                &format!("{}.role", at()),
                format!("`{}.role` must be one of {right}", at()),
            ));
        }
        let content = message.get("content");
        let fits = content.is_none_or(|c| c.is_null() || c.as_str().is_some() || is_array(c));
        if !fits {
            let words = format!("`{}.content` must be a string, an array of parts or null", at());
            return Err(InvalidRequest::at(&format!("{}.content", at()), words));
        }
        count += 1;
    }
    Ok(count)
}

fn media(root: Value<'_>) -> u64 {
    let contents = root.get("messages").into_iter().flat_map(Value::items).filter_map(|message| message.get("content"));
    let parts = contents.flat_map(Value::items).filter_map(|part| part.get("type").and_then(Value::as_str));
    parts.filter(|kind| !matches!(&**kind, "text" | "input_text" | "refusal")).count() as u64
}

fn flag(object: Value<'_>, key: &str) -> Result<bool, InvalidRequest> {
    let Some(value) = object.get(key).filter(|value| !value.is_null()) else { return Ok(false) };
    value.as_bool().ok_or_else(|| InvalidRequest::at(key, format!("`{key}` must be true or false")))
}

fn number(object: Value<'_>, key: &str) -> Result<Option<u64>, InvalidRequest> {
    let Some(value) = object.get(key).filter(|value| !value.is_null()) else { return Ok(None) };
    match value.as_u64() {
        Some(number) if number > 0 => Ok(Some(number)),
        _ => Err(InvalidRequest::at(key, format!("`{key}` must be a whole number of at least 1"))),
    }
}

fn tools(root: Value<'_>) -> Result<Vec<Tool>, InvalidRequest> {
    let mut found = Vec::new();
    for (list, legacy) in [("tools", false), ("functions", true)] {
        let Some(array) = root.get(list).filter(|array| !array.is_null()) else { continue };
        if !is_array(array) {
            return Err(InvalidRequest::at(list, format!("`{list}` must be an array")));
        }
        for (index, tool) in array.items().enumerate() {
            let inside = if legacy { Some(tool) } else { tool.get("function").or_else(|| tool.get("custom")) };
            // A tool of a kind that has no name of its own (web search, …) goes by its kind.
            let name = inside.and_then(|inside| inside.get("name")).or_else(|| tool.get("type"));
            let name = name.and_then(Value::as_str).ok_or_else(|| {
                InvalidRequest::at(&format!("{list}[{index}]"), format!("`{list}[{index}]` must name its tool"))
            })?;
            found.push(Tool { name: name.into_owned(), index, legacy });
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str) -> Result<ChatRequest, InvalidRequest> {
        ChatRequest::read(Bytes::copy_from_slice(body.as_bytes()))
    }

    const PLAIN: &str = r#"{ "model":"m", "x":1.0, "messages":[{"role":"user","content":"hi"}] }"#;

    #[test]
    fn bytes_that_nothing_changes_are_the_callers_own() {
        let request = read(PLAIN).unwrap();
        assert_eq!(request.upstream(&Upstream::default()).as_ptr(), request.body.as_ptr());
    }

    #[test]
    fn a_stream_asks_for_usage_in_each_of_the_four_cases() {
        for (options, want) in [
            ("", r#","stream_options":{"include_usage":true}}"#),
            (r#","stream_options":null"#, r#","stream_options":{"include_usage":true}}"#),
            (r#","stream_options":{"a":1}"#, r#","stream_options":{"a":1,"include_usage":true}}"#),
            (r#","stream_options":{"include_usage":false}"#, r#","stream_options":{"include_usage":true}}"#),
            (r#","stream_options":{"include_usage":true}"#, r#","stream_options":{"include_usage":true}}"#),
        ] {
            let body = format!(r#"{{"model":"m","messages":[{{"role":"user"}}],"stream":true{options}}}"#);
            let sent = read(&body).unwrap().upstream(&Upstream::default());
            assert!(sent.ends_with(want.as_bytes()), "{options}: {}", String::from_utf8_lossy(&sent));
        }
    }

    #[test]
    fn the_last_tool_takes_its_choice_with_it() {
        let body = r#"{"model":"m","messages":[{"role":"user"}],"tools":[{"type":"function","function":{"name":"a"}},{"type":"function","function":{"name":"b"}}],"tool_choice":"auto"}"#;
        let request = read(body).unwrap();
        let one = request.upstream(&Upstream { without: vec![&request.tools[0]], ..Upstream::default() });
        let text = String::from_utf8(one.to_vec()).unwrap();
        assert!(
            text.contains(r#""tools":[{"type":"function","function":{"name":"b"}}],"tool_choice":"auto""#),
            "{text}"
        );
        let none = request.upstream(&Upstream { without: request.tools.iter().collect(), ..Upstream::default() });
        assert_eq!(none.as_ref(), br#"{"model":"m","messages":[{"role":"user"}]}"#);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (body, param) in [
            (r#"{"messages":[]}"#, "model"),
            (r#"{"model":"m"}"#, "messages"),
            (r#"{"model":"m","messages":[]}"#, "messages"),
            (r#"{"model":"m","messages":[{"role":"king"}]}"#, "messages[0].role"),
            (r#"{"model":"m","messages":[{"role":"user","content":5}]}"#, "messages[0].content"),
            (r#"{"model":"m","messages":[{"role":"user"}],"stream":"yes"}"#, "stream"),
            (r#"{"model":"m","messages":[{"role":"user"}],"n":0}"#, "n"),
            (r#"{"model":"m","messages":[{"role":"user"}],"max_tokens":-1}"#, "max_tokens"),
            (r#"{"model":"m","messages":[{"role":"user"}],"tools":{}}"#, "tools"),
        ] {
            assert_eq!(read(body).unwrap_err().param.as_deref(), Some(param), "{body}");
        }
        assert!(read("[]").unwrap_err().message.contains("object"));
        assert!(read(r#"{"model":"a","model":"b"}"#).unwrap_err().message.contains("duplicate"));
    }
}
