//! Cuts a stream of server-sent events into events, whatever the chunks that it arrives in.
//!
//! Owns the framing of the WHATWG standard: LF, CRLF and CR, `data` over several lines, comments, one leading byte order
//! mark. Never looks into the data and never changes a byte: the `raw` parts of all events put together are the stream.
//! Copies only an event that is spread over several chunks. Fails when one event outgrows the bound, and stays failed.

use bytes::{Bytes, BytesMut};
use memchr::{memchr, memchr2};

/// The bound on one event unless told otherwise, in bytes: far above any chunk that a provider sends, an image included.
pub(crate) const DEFAULT_MOST_BYTES: usize = 4 << 20;

/// One event, or a group of lines up to a blank line that is none (comments, keep-alives).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Event {
    /// Exactly the bytes that came, with the blank line that ends the event (the last event of a stream may lack it).
    pub(crate) raw: Bytes,
    /// The values of the `data` lines, joined by LF; empty when there are none. Not checked to be UTF-8.
    pub(crate) data: Bytes,
    /// The value of the last `event` line unless empty.
    pub(crate) name: Option<Bytes>,
    /// No `data` line: a reader does nothing with it. Comments, keep-alives, `id` or `retry` alone.
    pub(crate) is_comment_only: bool,
}

/// Why a stream cannot be cut any further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SseError {
    /// An event without an end in sight. Holds the bound in bytes.
    #[error("stream event longer than {0} bytes")]
    TooLong(usize),
}

/// Takes chunks, gives events: after each [`push`](Self::push) call [`next_event`](Self::next_event) until it answers
/// `None`, after the last one [`finish`](Self::finish) until it does.
pub(crate) struct Splitter {
    most_bytes: usize,
    /// The beginning of an event whose end has not come; already searched.
    held: BytesMut,
    /// What came last and has not been searched.
    chunk: Bytes,
    line: Line,
    /// Nothing has been given out yet, so that a byte order mark may stand in front.
    at_stream_start: bool,
    failed: bool,
}

/// How much of the current line has come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Line {
    /// Something.
    Begun,
    /// Nothing.
    Empty,
    /// Nothing, and the last one ended in a CR to which an LF may still belong.
    EmptyAfterCr,
}

impl Default for Splitter {
    fn default() -> Self {
        Self::new(DEFAULT_MOST_BYTES)
    }
}

impl Splitter {
    /// `most_bytes` bounds one event and with it the bytes held.
    pub(crate) fn new(most_bytes: usize) -> Self {
        Self {
            most_bytes,
            held: BytesMut::new(),
            chunk: Bytes::new(),
            line: Line::Empty,
            at_stream_start: true,
            failed: false,
        }
    }

    /// Takes the next chunk. Events of the one before that were not fetched stay in front, at the price of a copy.
    pub(crate) fn push(&mut self, chunk: Bytes) {
        if self.failed {
            return;
        }
        self.chunk = if self.chunk.is_empty() { chunk } else { [&self.chunk[..], &chunk[..]].concat().into() };
    }

    /// The next whole event, or `None` when more bytes are needed.
    pub(crate) fn next_event(&mut self) -> Option<Result<Event, SseError>> {
        if self.failed {
            return None;
        }
        let end = self.find_end();
        let part = self.chunk.split_to(end.unwrap_or(self.chunk.len()));
        if self.held.len() + part.len() > self.most_bytes {
            (self.failed, self.held, self.chunk) = (true, BytesMut::new(), Bytes::new());
            return Some(Err(SseError::TooLong(self.most_bytes)));
        }
        if end.is_some() && self.held.is_empty() {
            return Some(Ok(self.give(part)));
        }
        self.held.extend_from_slice(&part);
        end?;
        let raw = self.held.split().freeze();
        Some(Ok(self.give(raw)))
    }

    /// What is left when no chunk will follow: the last event, even without its blank line, then `None`. After a failure
    /// the failure, so that it cannot pass for an end.
    pub(crate) fn finish(&mut self) -> Option<Result<Event, SseError>> {
        if self.failed {
            return Some(Err(SseError::TooLong(self.most_bytes)));
        }
        if let Some(event) = self.next_event() {
            return Some(event);
        }
        let raw = self.held.split().freeze();
        (!raw.is_empty()).then(|| Ok(self.give(raw)))
    }

    /// Searches the chunk for the end of an event: the offset behind its blank line. Each byte is searched once.
    ///
    /// A blank line that ends in CR is not made to wait for an LF, which may be seconds away or never come. If one does
    /// come with the next chunk it is part of the same line end, so it opens no line, and travels in front of the next
    /// event's `raw`.
    fn find_end(&mut self) -> Option<usize> {
        let bytes = self.chunk.as_ref();
        let belongs_to_cr = self.line == Line::EmptyAfterCr && bytes.first() == Some(&b'\n');
        let mut at = usize::from(belongs_to_cr);
        if belongs_to_cr {
            self.line = Line::Empty;
        }
        while let Some(length) = memchr2(b'\n', b'\r', &bytes[at..]) {
            let is_blank = self.line != Line::Begun && length == 0;
            at += length + 1;
            self.line = Line::Empty;
            if bytes[at - 1] == b'\r' {
                match bytes.get(at) {
                    Some(b'\n') => at += 1,
                    Some(_) => {}
                    None => self.line = Line::EmptyAfterCr,
                }
            }
            if is_blank {
                return Some(at);
            }
        }
        if at < bytes.len() {
            self.line = Line::Begun;
        }
        None
    }

    fn give(&mut self, raw: Bytes) -> Event {
        let has_mark = std::mem::take(&mut self.at_stream_start) && raw.starts_with(b"\xEF\xBB\xBF");
        read(raw, if has_mark { 3 } else { 0 })
    }
}

/// Reads the lines from `at` on. Blank ones are passed over, and with them the LF of each CRLF.
fn read(raw: Bytes, mut at: usize) -> Event {
    let (mut data, mut event_name): (Option<Bytes>, _) = (None, None);
    let mut joined: Option<Vec<u8>> = None;
    while at < raw.len() {
        let end = memchr2(b'\n', b'\r', &raw[at..]).map_or(raw.len(), |length| at + length);
        let line = &raw[at..end];
        let colon = memchr(b':', line);
        let field = &line[..colon.unwrap_or(line.len())];
        let space = colon.is_some_and(|colon| line.get(colon + 1) == Some(&b' '));
        let value = end.min(at + field.len() + 1 + usize::from(space))..end;
        at = end + 1;
        match (field, &data) {
            (b"event", _) => event_name = Some(raw.slice(value)).filter(|name| !name.is_empty()),
            (b"data", None) => data = Some(raw.slice(value)),
            (b"data", Some(first)) => {
                let joined = joined.get_or_insert_with(|| first.to_vec());
                joined.push(b'\n');
                joined.extend_from_slice(&raw[value]);
            }
            _ => {}
        }
    }
    let is_comment_only = data.is_none();
    let data = joined.map(Bytes::from).or(data).unwrap_or_default();
    Event { raw, data, name: event_name, is_comment_only }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    const CHAT: &[u8] = include_bytes!("../../tests/fixtures/sse/openai_chat.sse");
    const MESSAGES: &[u8] = include_bytes!("../../tests/fixtures/sse/anthropic_messages.sse");
    const UNUSUAL: &[u8] = include_bytes!("../../tests/fixtures/sse/unusual.sse");

    /// Each fixture with each line end, with and without a byte order mark, and one that mixes all.
    fn streams() -> Vec<Vec<u8>> {
        let mut all = vec![b"data: 1\r\rdata: 2\r\n\rdata: 3\n\r\n: c\r\n\n\r\r\n\ndata: 4\r\n\r\n".to_vec()];
        for fixture in [CHAT, MESSAGES, UNUSUAL] {
            for end in ["\n", "\r\n", "\r"] {
                let text = std::str::from_utf8(fixture).unwrap().replace('\n', end);
                all.push(format!("\u{feff}{text}").into_bytes());
                all.push(text.into_bytes());
            }
        }
        all
    }

    fn split<'a>(chunks: impl IntoIterator<Item = &'a [u8]>) -> Vec<Event> {
        let mut splitter = Splitter::default();
        let mut events = Vec::new();
        for chunk in chunks {
            splitter.push(Bytes::copy_from_slice(chunk));
            while let Some(event) = splitter.next_event() {
                events.push(event.unwrap());
            }
        }
        while let Some(event) = splitter.finish() {
            events.push(event.unwrap());
        }
        events
    }

    /// What a reader acts on.
    fn content(events: &[Event]) -> Vec<(Option<&[u8]>, &[u8])> {
        let dispatched = events.iter().filter(|event| !event.is_comment_only);
        dispatched.map(|event| (event.name.as_deref(), event.data.as_ref())).collect()
    }

    fn raw(events: &[Event]) -> Vec<u8> {
        events.iter().flat_map(|event| event.raw.iter().copied()).collect()
    }

    /// A reader written from the standard, line by line over the whole stream; the open event at the end counts.
    fn reference(stream: &[u8]) -> Vec<(Option<Vec<u8>>, Vec<u8>)> {
        let text = String::from_utf8_lossy(stream).replace("\r\n", "\n").replace('\r', "\n");
        let mut events = Vec::new();
        let (mut data, mut event) = (String::new(), String::new());
        for line in text.strip_prefix('\u{feff}').unwrap_or(&text).split('\n').chain([""]) {
            let (name, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match name {
                "data" => data.extend([value, "\n"]),
                "event" => value.clone_into(&mut event),
                "" if line.is_empty() => {
                    if let Some(data) = data.strip_suffix('\n') {
                        let event = Some(event.clone().into_bytes()).filter(|event| !event.is_empty());
                        events.push((event, data.as_bytes().to_vec()));
                    }
                    data.clear();
                    event.clear();
                }
                _ => {}
            }
        }
        events
    }

    fn as_reference(events: &[Event]) -> Vec<(Option<Vec<u8>>, Vec<u8>)> {
        content(events).into_iter().map(|(event, data)| (event.map(<[u8]>::to_vec), data.to_vec())).collect()
    }

    #[test]
    fn every_stream_cut_at_every_byte_gives_the_same_events() {
        for stream in streams() {
            let whole = split([&stream[..]]);
            assert_eq!(as_reference(&whole), reference(&stream));
            for cut in 0..=stream.len() {
                let (front, back) = stream.split_at(cut);
                let events = split([front, back]);
                assert_eq!(raw(&events), stream);
                assert_eq!(content(&events), content(&whole), "cut at {cut}");
            }
            let by_bytes = split(stream.chunks(1));
            assert_eq!((raw(&by_bytes), content(&by_bytes)), (stream.clone(), content(&whole)));
        }
    }

    #[test]
    fn fields_are_read_as_the_standard_says() {
        let events = split([UNUSUAL]);
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let read: Vec<_> = events
            .iter()
            .map(|event| (event.name.as_deref().map(text), (!event.is_comment_only).then(|| text(&event.data))))
            .collect();
        let said = |event: Option<&str>, data: Option<&str>| (event.map(str::to_owned), data.map(str::to_owned));
        assert_eq!(
            read,
            [
                said(None, None),
                said(None, Some("no space\n two spaces\n\n")),
                said(None, None),
                said(Some("named"), Some("{\"a\":\n1}")),
                said(None, None),
                said(Some("named without data"), None),
                said(None, Some("unnamed: with: colons")),
                said(None, Some("")),
                said(None, Some("the end without a blank line")),
            ]
        );
        assert_eq!(events[0].raw, ":\n: ping\n\n".as_bytes());
    }

    #[test]
    fn an_event_inside_one_chunk_is_not_copied() {
        let chunk = Bytes::from_static(b"data: one\n\nevent: e\ndata: two\n\n");
        let inside = chunk.as_ptr_range();
        let mut splitter = Splitter::default();
        splitter.push(chunk.clone());
        for data in ["one", "two"] {
            let event = splitter.next_event().unwrap().unwrap();
            assert_eq!(event.data, data);
            assert!(inside.contains(&event.raw.as_ptr()) && inside.contains(&event.data.as_ptr()));
        }
        assert_eq!((splitter.next_event(), splitter.finish()), (None, None));
    }

    #[test]
    fn an_event_is_given_out_at_once_when_its_blank_line_ends_in_cr() {
        let mut splitter = Splitter::default();
        splitter.push(Bytes::from_static(b"data: 1\r\n\r"));
        assert_eq!(splitter.next_event().unwrap().unwrap().data, "1");
        assert_eq!(splitter.next_event(), None);
        splitter.push(Bytes::from_static(b"\ndata: 2\r"));
        assert_eq!(splitter.next_event(), None, "a CR that ends a line of data is no blank line");
        splitter.push(Bytes::from_static(b"\n"));
        assert_eq!(splitter.next_event(), None, "nor is the LF that follows it");
        splitter.push(Bytes::from_static(b"\r"));
        let event = splitter.next_event().unwrap().unwrap();
        assert_eq!((&event.raw[..], &event.data[..]), (&b"\ndata: 2\r\n\r"[..], &b"2"[..]));
    }

    #[test]
    fn many_chunks_may_be_pushed_before_the_first_event_is_fetched() {
        let mut splitter = Splitter::default();
        CHAT.chunks(7).for_each(|chunk| splitter.push(Bytes::copy_from_slice(chunk)));
        let events: Vec<_> = std::iter::from_fn(|| splitter.finish()).map(Result::unwrap).collect();
        assert_eq!(events, split([CHAT]));
    }

    #[test]
    fn an_event_beyond_the_bound_is_an_error_for_good() {
        let stream = b"data: 12\n\ndata: 123\n\n";
        for size in 1..=stream.len() {
            let mut splitter = Splitter::new(10);
            let mut events = Vec::new();
            for chunk in stream.chunks(size) {
                splitter.push(Bytes::copy_from_slice(chunk));
                events.extend(std::iter::from_fn(|| splitter.next_event()));
            }
            assert_eq!(events.len(), 2);
            assert_eq!(events[0].as_ref().unwrap().data, "12");
            assert_eq!(events[1], Err(SseError::TooLong(10)));
            assert_eq!(splitter.next_event(), None);
            assert_eq!(splitter.finish(), Some(Err(SseError::TooLong(10))), "a failed stream has no clean end");
        }
    }

    #[test]
    fn a_long_event_arriving_byte_by_byte_is_searched_once() {
        let stream = [b"data: ".to_vec(), vec![b'x'; 1 << 20], b"\n\n".to_vec()].concat();
        let events = split(stream.chunks(1));
        assert_eq!((events.len(), events[0].data.len()), (1, 1 << 20));
    }

    proptest! {
        #[test]
        fn any_chunking_of_any_lines_gives_the_same_events(
            parts in vec(prop::sample::select(vec![
                "\n", "\r", "\r\n", "data", ":", " ", "data: x", "event: y", "data:", "é", ": c", "\u{feff}", "id: 1",
            ]), 0..40),
            sizes in vec(1..9_usize, 1..40),
        ) {
            let stream = parts.concat().into_bytes();
            let whole = split([&stream[..]]);
            prop_assert_eq!(raw(&whole), &stream[..]);
            prop_assert_eq!(as_reference(&whole), reference(&stream));
            let mut rest = &stream[..];
            let mut sizes = sizes.into_iter().cycle();
            let chunks = std::iter::from_fn(|| {
                let (chunk, after) = rest.split_at(sizes.next()?.min(rest.len()));
                rest = after;
                (!chunk.is_empty()).then_some(chunk)
            });
            let cut = split(chunks);
            prop_assert_eq!(raw(&cut), &stream[..]);
            prop_assert_eq!(content(&cut), content(&whole));
        }

        #[test]
        fn any_bytes_are_answered(bytes in vec(any::<u8>(), 0..300), size in 1..50_usize) {
            prop_assert_eq!(raw(&split(bytes.chunks(size))), &bytes[..]);
        }
    }
}
