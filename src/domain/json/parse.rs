//! The one pass: text in, nodes out.
//!
//! Owns the grammar and the limits. Never recurses (open containers are a stack of at most `max_depth` entries) and
//! never allocates per node. Fails at the first byte that cannot belong to an accepted text.

use super::keys::{Keys, Mark};
use super::{JsonError, JsonFault, Limits, Node, Tag};

/// Reads a whole text into nodes; the root is node 0.
pub(super) fn parse(text: &[u8], limits: &Limits) -> Result<Vec<Node>, JsonError> {
    // Positions are 32 bits wide; a longer text would wrap them.
    if u32::try_from(text.len()).is_err() {
        return Err(JsonError { fault: JsonFault::TooLong, offset: 0 });
    }
    if let Err(wrong) = std::str::from_utf8(text) {
        return Err(JsonError { fault: JsonFault::NotUtf8, offset: wrong.valid_up_to() });
    }
    // About one node per 32 bytes in chat bodies; the cap keeps one huge string from reserving for nothing.
    let nodes = Vec::with_capacity((text.len() / 32).clamp(8, 4096));
    let mut parser = Parser { text, at: 0, limits, nodes, open: Vec::new(), keys: Keys::default() };
    parser.skip_space();
    if parser.peek().is_none() {
        return parser.fail(JsonFault::Empty);
    }
    loop {
        let complete = parser.value()?;
        if complete && !parser.after_value()? {
            return Ok(parser.nodes);
        }
    }
}

struct Parser<'a> {
    text: &'a [u8],
    at: usize,
    limits: &'a Limits,
    nodes: Vec<Node>,
    open: Vec<Open>,
    keys: Keys,
}

/// A container whose end has not come yet.
struct Open {
    index: usize,
    is_object: bool,
    keys: Mark,
}

impl Parser<'_> {
    /// Reads a scalar, an empty container (true), or the opening of a container up to its first value (false).
    fn value(&mut self) -> Result<bool, JsonError> {
        let start = self.at;
        match self.peek() {
            Some(b'"') => {
                let escaped = self.string()?;
                self.push(Tag::String, start, escaped)?;
            }
            Some(b'{') => return self.enter(Tag::Object),
            Some(b'[') => return self.enter(Tag::Array),
            Some(b'-' | b'0'..=b'9') => {
                self.number()?;
                self.push(Tag::Number, start, false)?;
            }
            Some(b't') => self.word(b"true", Tag::True)?,
            Some(b'f') => self.word(b"false", Tag::False)?,
            Some(b'n') => self.word(b"null", Tag::Null)?,
            _ => return self.expected("a value"),
        }
        Ok(true)
    }

    /// Closes what ends here and moves to the next value (true), or finds the end of the text (false).
    fn after_value(&mut self) -> Result<bool, JsonError> {
        loop {
            self.skip_space();
            let Some(open) = self.open.last() else {
                return if self.peek().is_none() { Ok(false) } else { self.expected("the end of the text") };
            };
            match (self.peek(), open.is_object) {
                (Some(b','), true) => {
                    self.at += 1;
                    self.skip_space();
                    self.key()?;
                    return Ok(true);
                }
                (Some(b','), false) => {
                    self.at += 1;
                    self.skip_space();
                    return Ok(true);
                }
                (Some(b'}'), true) | (Some(b']'), false) => self.leave()?,
                (_, true) => return self.expected("`,` or `}`"),
                (_, false) => return self.expected("`,` or `]`"),
            }
        }
    }

    fn enter(&mut self, tag: Tag) -> Result<bool, JsonError> {
        if self.open.len() >= self.limits.max_depth {
            return self.fail(JsonFault::Depth(self.limits.max_depth));
        }
        let is_object = tag == Tag::Object;
        self.open.push(Open { index: self.nodes.len(), is_object, keys: self.keys.mark() });
        self.push(tag, self.at, false)?;
        self.at += 1;
        self.skip_space();
        match (self.peek(), is_object) {
            (Some(b'}'), true) | (Some(b']'), false) => self.leave().map(|()| true),
            (_, true) => self.key().map(|()| false),
            (_, false) => Ok(false),
        }
    }

    fn leave(&mut self) -> Result<(), JsonError> {
        self.at += 1;
        let Some(open) = self.open.pop() else { return Ok(()) };
        let (end, next) = (narrow(self.at), narrow(self.nodes.len()));
        let node = &mut self.nodes[open.index];
        (node.end, node.next) = (end, next);
        if open.is_object { self.keys.close(self.text, open.keys) } else { Ok(()) }
    }

    /// Reads a key and its colon, up to the value.
    fn key(&mut self) -> Result<(), JsonError> {
        let start = self.at;
        if self.peek() != Some(b'"') {
            return self.expected("a quoted key");
        }
        let escaped = self.string()?;
        self.push(Tag::Key, start, escaped)?;
        self.keys.add(self.text, start, self.at, escaped);
        self.skip_space();
        if self.peek() != Some(b':') {
            return self.expected("`:`");
        }
        self.at += 1;
        self.skip_space();
        Ok(())
    }

    /// Reads a string from its opening to behind its closing quote; true when it holds escapes.
    fn string(&mut self) -> Result<bool, JsonError> {
        let mut escaped = false;
        self.at += 1;
        loop {
            self.at += plain_run(&self.text[self.at..]);
            match self.peek() {
                Some(b'"') => break,
                Some(b'\\') => self.escape()?,
                Some(_) => return self.fail(JsonFault::Control),
                None => return self.fail(JsonFault::End),
            }
            escaped = true;
        }
        self.at += 1;
        Ok(escaped)
    }

    fn escape(&mut self) -> Result<(), JsonError> {
        let rest = &self.text[self.at..];
        let length = match rest.get(1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => 2,
            Some(b'u') => match hex4(rest) {
                Some(0xD800..=0xDBFF) => match rest.get(6..).and_then(hex4) {
                    Some(0xDC00..=0xDFFF) => 12,
                    _ => return self.fail(JsonFault::Surrogate),
                },
                Some(0xDC00..=0xDFFF) => return self.fail(JsonFault::Surrogate),
                Some(_) => 6,
                None => return self.fail(JsonFault::Escape),
            },
            Some(_) => return self.fail(JsonFault::Escape),
            None => return self.fail(JsonFault::End),
        };
        self.at += length;
        Ok(())
    }

    fn number(&mut self) -> Result<(), JsonError> {
        self.at += usize::from(self.peek() == Some(b'-'));
        if self.peek() == Some(b'0') {
            self.at += 1;
            if matches!(self.peek(), Some(b'0'..=b'9')) {
                return self.fail(JsonFault::Number);
            }
        } else {
            self.digits()?;
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            self.at += usize::from(matches!(self.peek(), Some(b'+' | b'-')));
            self.digits()?;
        }
        Ok(())
    }

    fn digits(&mut self) -> Result<(), JsonError> {
        let start = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        if self.at == start { self.fail(JsonFault::Number) } else { Ok(()) }
    }

    fn word(&mut self, word: &[u8], tag: Tag) -> Result<(), JsonError> {
        if !self.text[self.at..].starts_with(word) {
            return self.expected("a value");
        }
        let start = self.at;
        self.at += word.len();
        self.push(tag, start, false)
    }

    fn push(&mut self, tag: Tag, start: usize, escaped: bool) -> Result<(), JsonError> {
        if self.nodes.len() >= self.limits.max_nodes {
            return self.fail(JsonFault::Nodes(self.limits.max_nodes));
        }
        let next = narrow(self.nodes.len() + 1);
        self.nodes.push(Node { start: narrow(start), end: narrow(self.at), next, tag, escaped });
        Ok(())
    }

    fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\n' | b'\r' | b'\t')) {
            self.at += 1;
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    #[cold]
    fn expected<T>(&self, what: &'static str) -> Result<T, JsonError> {
        self.fail(if self.at < self.text.len() { JsonFault::Expected(what) } else { JsonFault::End })
    }

    #[cold]
    fn fail<T>(&self, fault: JsonFault) -> Result<T, JsonError> {
        Err(JsonError { fault, offset: self.at })
    }
}

/// Positions and counts are below the text's length, which was checked to fit.
pub(super) fn narrow(position: usize) -> u32 {
    u32::try_from(position).unwrap_or(u32::MAX)
}

/// How many bytes pass before a quote, a backslash, a control character or the end.
fn plain_run(text: &[u8]) -> usize {
    let (words, rest) = text.as_chunks::<8>();
    for (count, word) in words.iter().enumerate() {
        let found = special(u64::from_le_bytes(*word));
        if found != 0 {
            return count * 8 + (found.trailing_zeros() / 8) as usize;
        }
    }
    let tail = rest.iter().position(|&byte| byte == b'"' || byte == b'\\' || byte < 0x20);
    words.len() * 8 + tail.unwrap_or(rest.len())
}

/// Eight bytes at once: the lowest bit set is the top bit of the first special byte. (A borrow can set bits above it.)
fn special(word: u64) -> u64 {
    const ONES: u64 = u64::MAX / 0xFF;
    let quote = word ^ (ONES * 0x22);
    let backslash = word ^ (ONES * 0x5C);
    let control = word.wrapping_sub(ONES * 0x20) & !word;
    let quote = quote.wrapping_sub(ONES) & !quote;
    let backslash = backslash.wrapping_sub(ONES) & !backslash;
    (control | quote | backslash) & (ONES * 0x80)
}

/// The code unit of a text that begins with `\uXXXX`.
fn hex4(text: &[u8]) -> Option<u32> {
    let (b"\\u", digits) = text.get(..6)?.split_at(2) else { return None };
    digits.iter().try_fold(0, |unit, &digit| Some(unit * 16 + char::from(digit).to_digit(16)?))
}
