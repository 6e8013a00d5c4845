//! Views over a tape and its text.
//!
//! Owns reading: children, strings, numbers, paths. Never copies text, except a string that has escapes. A view over
//! another text than the parsed one reads empty strings.

use std::borrow::Cow;
use std::ops::Range;
use std::{fmt, iter};

use super::escape::{decode, escape_into};
use super::{Node, Tag};

/// What a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `null`
    Null,
    /// `true` or `false`
    Bool,
    /// Any number; its text is kept.
    Number,
    /// A string.
    String,
    /// An array.
    Array,
    /// An object.
    Object,
}

/// One value of a parsed text; cheap to copy.
#[derive(Clone, Copy)]
pub struct Value<'a> {
    text: &'a [u8],
    nodes: &'a [Node],
    index: usize,
}

/// One key of an object.
#[derive(Clone, Copy, Debug)]
pub struct Key<'a> {
    at: Value<'a>,
}

impl<'a> Value<'a> {
    pub(super) fn new(text: &'a [u8], nodes: &'a [Node], index: usize) -> Self {
        Self { text, nodes, index }
    }

    /// What it is.
    pub fn kind(self) -> Kind {
        match self.node().tag {
            Tag::Null => Kind::Null,
            Tag::False | Tag::True => Kind::Bool,
            Tag::Number => Kind::Number,
            Tag::String | Tag::Key => Kind::String,
            Tag::Array => Kind::Array,
            Tag::Object => Kind::Object,
        }
    }

    /// Its number in the tape, for [`Tape::value`](super::Tape::value).
    pub fn id(self) -> usize {
        self.index
    }

    /// The member named `key` (compared decoded); `None` also when this is no object.
    pub fn get(self, key: &str) -> Option<Value<'a>> {
        self.keys_here().find(|own| own.is(key)).map(Key::value)
    }

    /// The values of an array; of anything else, none.
    pub fn items(self) -> impl Iterator<Item = Value<'a>> {
        let (mut at, end) = self.children(Tag::Array);
        iter::from_fn(move || {
            let item = (at < end).then(|| self.at(at))?;
            at = item.after();
            Some(item)
        })
    }

    /// The decoded keys and values of an object, in order; of anything else, none.
    pub fn members(self) -> impl Iterator<Item = (Cow<'a, str>, Value<'a>)> {
        self.keys_here().map(|key| (key.decoded(), key.value()))
    }

    /// The keys of an object, in order; of anything else, none.
    pub fn keys_here(self) -> impl Iterator<Item = Key<'a>> {
        let (mut at, end) = self.children(Tag::Object);
        iter::from_fn(move || {
            let key = (at < end).then(|| Key { at: self.at(at) })?;
            at = key.value().after();
            Some(key)
        })
    }

    /// How many values a container holds (counted on demand); 0 for a scalar.
    pub fn len(self) -> usize {
        if self.node().tag == Tag::Object { self.keys_here().count() } else { self.items().count() }
    }

    /// No values inside; true for a scalar.
    pub fn is_empty(self) -> bool {
        self.after() == self.index + 1
    }

    /// A string, decoded; borrowed when nothing is escaped.
    pub fn as_str(self) -> Option<Cow<'a, str>> {
        (self.node().tag == Tag::String).then(|| self.decoded())
    }

    /// A boolean.
    pub fn as_bool(self) -> Option<bool> {
        (self.kind() == Kind::Bool).then(|| self.node().tag == Tag::True)
    }

    /// A number without fraction and exponent that fits; `1.0` and `1e2` are none.
    pub fn as_u64(self) -> Option<u64> {
        self.number()?.parse().ok()
    }

    /// A number without fraction and exponent that fits; `1.0` and `1e2` are none.
    pub fn as_i64(self) -> Option<i64> {
        self.number()?.parse().ok()
    }

    /// Any number, rounded to the nearest double; `None` beyond its range.
    pub fn as_f64(self) -> Option<f64> {
        self.number()?.parse().ok().filter(|number: &f64| number.is_finite())
    }

    /// Whether it is `null`.
    pub fn is_null(self) -> bool {
        self.node().tag == Tag::Null
    }

    /// Its exact source text, with the quotes of a string.
    pub fn raw(self) -> &'a str {
        self.slice(self.span())
    }

    /// Its place in the source, in bytes, with the quotes of a string.
    pub fn span(self) -> Range<usize> {
        self.node().start as usize..self.node().end as usize
    }

    /// Where it stands, like `messages[2].content[0].text`; the root is the empty path. Long keys are cut.
    ///
    /// Found by walking down from the root, past each earlier sibling: for reports, not for every value of a text.
    pub fn path(self) -> String {
        let mut out = String::new();
        let mut here = self.at(0);
        while here.index != self.index {
            let holds = |child: Value<'_>| self.index < child.after();
            let next = if here.node().tag == Tag::Object {
                let key = here.keys_here().find(|key| holds(key.value()));
                key.map(|key| {
                    push_key(&mut out, &key.decoded());
                    key.value()
                })
            } else {
                let item = here.items().enumerate().find(|(_, item)| holds(*item));
                item.map(|(place, item)| {
                    out.extend(["[", &place.to_string(), "]"]);
                    item
                })
            };
            let Some(next) = next else { break };
            here = next;
        }
        out
    }

    /// Every string value in this subtree, itself included, in order; keys are not among them.
    pub fn strings(self) -> impl Iterator<Item = Value<'a>> {
        self.tagged(Tag::String)
    }

    /// Every object key in this subtree, in order.
    pub fn keys(self) -> impl Iterator<Item = Key<'a>> {
        self.tagged(Tag::Key).map(|at| Key { at })
    }

    fn tagged(self, tag: Tag) -> impl Iterator<Item = Value<'a>> {
        (self.index..self.after()).map(move |index| self.at(index)).filter(move |value| value.node().tag == tag)
    }

    /// The run of nodes inside a container of this tag; an empty run for all else.
    fn children(self, tag: Tag) -> (usize, usize) {
        (self.index + 1, if self.node().tag == tag { self.after() } else { 0 })
    }

    fn at(self, index: usize) -> Self {
        Self { index, ..self }
    }

    fn node(self) -> &'a Node {
        &self.nodes[self.index]
    }

    fn after(self) -> usize {
        self.node().next as usize
    }

    fn number(self) -> Option<&'a str> {
        (self.node().tag == Tag::Number).then(|| self.raw())
    }

    fn decoded(self) -> Cow<'a, str> {
        let content = self.slice(self.content());
        if self.node().escaped { decode(content) } else { Cow::Borrowed(content) }
    }

    /// The span of a string without its quotes.
    fn content(self) -> Range<usize> {
        let span = self.span();
        span.start + 1..span.end - 1
    }

    fn slice(self, range: Range<usize>) -> &'a str {
        self.text.get(range).and_then(|bytes| std::str::from_utf8(bytes).ok()).unwrap_or_default()
    }
}

impl<'a> Key<'a> {
    /// The key without quotes and escapes.
    pub fn decoded(self) -> Cow<'a, str> {
        self.at.decoded()
    }

    /// Its place in the source, in bytes, with its quotes.
    pub fn span(self) -> Range<usize> {
        self.at.span()
    }

    /// The value that it names; its path says where the key stands.
    pub fn value(self) -> Value<'a> {
        self.at.at(self.at.index + 1)
    }

    /// Compares without copying where nothing is escaped.
    pub(super) fn is(self, key: &str) -> bool {
        if self.at.node().escaped {
            return self.decoded() == key;
        }
        self.at.text.get(self.at.content()) == Some(key.as_bytes())
    }
}

/// Shows no content: values are prompts.
impl fmt::Debug for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} at {:?}", self.kind(), self.span())
    }
}

fn push_key(out: &mut String, key: &str) {
    let short: String = key.chars().take(64).collect();
    let is_plain = !short.is_empty() && short.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
    if is_plain {
        if !out.is_empty() {
            out.push('.');
        }
        out.push_str(&short);
        return;
    }
    let mut quoted = Vec::new();
    escape_into(&mut quoted, &short);
    out.extend(["[", &String::from_utf8_lossy(&quoted), "]"]);
}
