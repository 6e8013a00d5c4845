//! JSON with positions: one pass over a text yields a flat tape of where every value stands.
//!
//! Owns strict reading (RFC 8259, no duplicate keys, bounded depth and size), views over the tape, byte-exact edits and
//! the escaping that keeps an event stream in one line. Never builds a tree, never recurses, never rewrites a byte that
//! no edit names: what is forwarded is what was read. Fails with a kind and a byte offset; views over a text that is not
//! the parsed one answer with empty strings, never with a panic.

mod error;
mod parse;
mod keys;
mod value;
mod escape;
mod edits;

pub use edits::Edits;
pub use error::{JsonError, JsonFault};
pub use escape::{escape_into, line_safe};
pub use value::{Key, Kind, Value};

/// What a text may cost before it is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Containers inside one another; a bare scalar has depth 0.
    pub max_depth: usize,
    /// Values and keys together; each costs 16 bytes of tape.
    pub max_nodes: usize,
}

impl Default for Limits {
    /// Chat bodies stay below depth 20 even with tool schemas; a million nodes are 16 MB of tape.
    fn default() -> Self {
        Self { max_depth: 64, max_nodes: 1_000_000 }
    }
}

/// Where everything stands in one JSON text. Owns no text, so it can live beside the bytes that it describes.
#[derive(Clone)]
pub struct Tape {
    nodes: Vec<Node>,
}

impl Tape {
    /// Reads the whole text, in time linear in its length (n log n in the keys of one object).
    pub fn parse(text: &[u8], limits: &Limits) -> Result<Self, JsonError> {
        Ok(Self { nodes: parse::parse(text, limits)? })
    }

    /// The outermost value. `text` must be the text that was parsed.
    pub fn root<'a>(&'a self, text: &'a [u8]) -> Value<'a> {
        Value::new(text, &self.nodes, 0)
    }

    /// The value that answered `id` to [`Value::id`]; `None` when no value has this number.
    pub fn value<'a>(&'a self, text: &'a [u8], id: usize) -> Option<Value<'a>> {
        let node = self.nodes.get(id)?;
        (node.tag != Tag::Key).then(|| Value::new(text, &self.nodes, id))
    }
}

/// Prints no position list: a tape can have a million nodes.
impl std::fmt::Debug for Tape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tape").field("nodes", &self.nodes.len()).finish_non_exhaustive()
    }
}

/// One value or key. Children follow their container directly, so a subtree is the run `index..next`.
#[derive(Clone, Copy)]
struct Node {
    /// First byte, of a string its opening quote.
    start: u32,
    /// The byte after the last.
    end: u32,
    /// Index of the first node after this subtree.
    next: u32,
    tag: Tag,
    /// A string or key with at least one backslash.
    escaped: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Tag {
    Key,
    Null,
    False,
    True,
    Number,
    String,
    Array,
    Object,
}

#[cfg(test)]
mod tests;
