//! Finds a key that an object holds twice.
//!
//! Owns the keys of the objects that are open. Never compares each key with each other in a large object: those are
//! sorted, so that chosen keys cannot make it slow. Compares decoded keys: `"a"` and `"\u0061"` are the same one.

use std::cmp::Ordering;

use super::escape::decode;
use super::parse::narrow;
use super::{JsonError, JsonFault};

/// Up to here comparing each with each other is cheaper than sorting.
const FEW: usize = 8;

#[derive(Default)]
pub(super) struct Keys {
    seen: Vec<Seen>,
    /// The decoded form of the keys that have escapes.
    decoded: Vec<u8>,
}

/// How much belonged to the objects further out when an object was opened.
#[derive(Clone, Copy)]
pub(super) struct Mark {
    seen: usize,
    decoded: usize,
}

/// One key, as a range of the text or of `decoded`.
struct Seen {
    /// The first eight bytes, padded with zeros: decides nearly every comparison.
    head: u64,
    start: u32,
    end: u32,
    /// Where it stands in the text.
    offset: u32,
    is_decoded: bool,
}

impl Keys {
    /// Call when an object is opened.
    pub(super) fn mark(&self) -> Mark {
        Mark { seen: self.seen.len(), decoded: self.decoded.len() }
    }

    /// Notes a key whose quotes stand at `start` and `end - 1`.
    pub(super) fn add(&mut self, text: &[u8], start: usize, end: usize, escaped: bool) {
        let offset = narrow(start);
        let mut range = start + 1..end - 1;
        if escaped {
            let raw = std::str::from_utf8(&text[range]).unwrap_or_default();
            let from = self.decoded.len();
            self.decoded.extend_from_slice(decode(raw).as_bytes());
            range = from..self.decoded.len();
        }
        let (start, end) = (narrow(range.start), narrow(range.end));
        let head = head(if escaped { &self.decoded[range] } else { &text[range] });
        self.seen.push(Seen { head, start, end, offset, is_decoded: escaped });
    }

    /// Call when the object is closed: forgets its keys, or refuses the first that stands there again.
    pub(super) fn close(&mut self, text: &[u8], mark: Mark) -> Result<(), JsonError> {
        let (own, decoded) = (&mut self.seen[mark.seen..], self.decoded.as_slice());
        let twice = if own.len() <= FEW { among_few(own, text, decoded) } else { among_many(own, text, decoded) };
        if let Some(seen) = twice {
            let key = String::from_utf8_lossy(seen.bytes(text, decoded)).chars().take(64).collect();
            return Err(JsonError { fault: JsonFault::Duplicate(key), offset: seen.offset as usize });
        }
        self.seen.truncate(mark.seen);
        self.decoded.truncate(mark.decoded);
        Ok(())
    }
}

impl Seen {
    fn bytes<'a>(&self, text: &'a [u8], decoded: &'a [u8]) -> &'a [u8] {
        let source = if self.is_decoded { decoded } else { text };
        &source[self.start as usize..self.end as usize]
    }

    fn compare(&self, other: &Self, text: &[u8], decoded: &[u8]) -> Ordering {
        let by_head = self.head.cmp(&other.head);
        by_head.then_with(|| self.bytes(text, decoded).cmp(other.bytes(text, decoded)))
    }
}

fn among_few<'a>(own: &'a [Seen], text: &[u8], decoded: &[u8]) -> Option<&'a Seen> {
    own.iter().enumerate().find_map(|(count, seen)| {
        own[..count].iter().any(|other| seen.compare(other, text, decoded).is_eq()).then_some(seen)
    })
}

fn among_many<'a>(own: &'a mut [Seen], text: &[u8], decoded: &[u8]) -> Option<&'a Seen> {
    own.sort_unstable_by(|a, b| a.compare(b, text, decoded).then(a.offset.cmp(&b.offset)));
    let pairs = own.windows(2).filter(|pair| pair[0].compare(&pair[1], text, decoded).is_eq());
    pairs.map(|pair| &pair[1]).min_by_key(|seen| seen.offset)
}

fn head(key: &[u8]) -> u64 {
    if let Some(first) = key.first_chunk() {
        return u64::from_be_bytes(*first);
    }
    key.iter().enumerate().fold(0, |head, (place, &byte)| head | u64::from(byte) << (56 - 8 * place))
}
