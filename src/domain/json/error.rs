//! Why a text is not the JSON that we accept.
//!
//! Owns the kinds of refusal and their words for an API caller. Never quotes the text, except a repeated key, shortened.

/// A refusal and where it happened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{fault} at byte {offset}")]
pub struct JsonError {
    /// What is wrong.
    pub fault: JsonFault,
    /// Offset in bytes from the start of the text.
    pub offset: usize,
}

/// The kinds of refusal.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JsonFault {
    /// Nothing, or nothing but white space.
    #[error("empty text")]
    Empty,
    /// Longer than positions of 32 bits can say.
    #[error("text longer than 4 GiB")]
    TooLong,
    /// Not UTF-8.
    #[error("invalid UTF-8")]
    NotUtf8,
    /// The text stops inside a value.
    #[error("unexpected end of text")]
    End,
    /// Another token was due here.
    #[error("expected {0}")]
    Expected(&'static str),
    /// A backslash that begins nothing known.
    #[error("invalid escape")]
    Escape,
    /// Half of a surrogate pair: no character, and parsers disagree on what to make of it.
    #[error("lone surrogate escape")]
    Surrogate,
    /// A raw byte below 0x20 in a string.
    #[error("raw control character in a string")]
    Control,
    /// A number outside the grammar, such as `01` or `1.`.
    #[error("malformed number")]
    Number,
    /// Parsers disagree on which of the two wins. Holds the decoded key, cut at 64 characters.
    #[error("duplicate key `{0}`")]
    Duplicate(String),
    /// More containers inside one another than this.
    #[error("nesting deeper than {0}")]
    Depth(usize),
    /// More values and keys than this.
    #[error("more than {0} values and keys")]
    Nodes(usize),
}
