//! The export: one chain in one file that needs no database to be verified.
//!
//! Owns the line format (NDJSON, written and read as a stream). Never changes a stored byte and never judges one: that
//! is `verify`. Order: header, closed boots, batches, checkpoints, entries by sequence, trailer with counts; so one
//! pass verifies it and a file that was cut is found. Reading is bounded by the line; what does not fit is an
//! `ExportError` that names the line.

use std::{
    borrow::Cow,
    collections::HashSet,
    io::{self, BufRead, Read as _, Write},
};

use serde::{Deserialize, Serialize};

use super::{
    StoredEntry,
    batch::BatchRow,
    chain::Head,
    verify::{Evidence, Report, Verifier},
};
use crate::{
    crypto::Jwks,
    domain::{
        ids::{BootId, OrgId},
        stamp::ConfigStamp,
    },
};

/// What the first line calls this format.
pub const FORMAT: &str = "tappass-audit-export/1";
/// Longest line that is read, in bytes: an entry of the largest size with every character escaped fits.
pub const MAX_LINE_BYTES: usize = 1024 * 1024;

/// Why an export cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The reader or the writer failed.
    #[error("the export cannot be read or written")]
    Io(#[from] io::Error),
    /// A line is no JSON of a known kind.
    #[error("line {line} is no line of an export: {source}")]
    Line {
        /// From 1.
        line: u64,
        /// What the JSON reader says.
        source: serde_json::Error,
    },
    /// A line says what it may in other bytes than the writer's.
    #[error("line {0} is not spelled as it was written")]
    Spelling(u64),
    /// A line is longer than `MAX_LINE_BYTES`.
    #[error("line {0} is longer than {MAX_LINE_BYTES} bytes")]
    TooLong(u64),
    /// A line stands where its kind may not.
    #[error("line {line} is out of order: {what}")]
    Order {
        /// From 1.
        line: u64,
        /// What was expected.
        what: &'static str,
    },
    /// The trailer is missing or counts other lines than there are.
    #[error("the export was cut or spliced: {0}")]
    Cut(&'static str),
}

/// The first line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExportHeader {
    /// `FORMAT`.
    pub format: String,
    /// Whose chain.
    pub org: OrgId,
    /// First line of its checkpoints.
    pub origin: String,
    /// The head row of the same moment.
    pub head: Option<Head>,
    /// The configuration stamp on that row.
    pub config: Option<ConfigStamp>,
}

impl ExportHeader {
    /// A header in the current format.
    pub fn new(org: OrgId, origin: String, head: Option<Head>, config: Option<ConfigStamp>) -> Self {
        Self { format: FORMAT.to_owned(), org, origin, head, config }
    }
}

/// A line between header and trailer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// A boot that writes no more.
    Closed(BootId),
    /// A batch with its signature.
    Batch(BatchRow),
    /// A checkpoint's note.
    Checkpoint(String),
    /// An entry.
    Entry(StoredEntry),
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
enum Line<'a> {
    Header(Cow<'a, ExportHeader>),
    Closed { boot: Cow<'a, BootId> },
    Batch(Cow<'a, BatchRow>),
    Checkpoint { note: Cow<'a, str> },
    Entry(Cow<'a, StoredEntry>),
    End(Counts),
}

/// How many lines of each kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Counts {
    closed: u64,
    batches: u64,
    checkpoints: u64,
    entries: u64,
}

impl Counts {
    /// Counts an item; false if one of a later kind came before.
    fn take(&mut self, item: &Line<'_>) -> bool {
        let Self { closed, batches, checkpoints, entries } = self;
        let (count, later) = match item {
            Line::Closed { .. } => (closed, *batches + *checkpoints + *entries),
            Line::Batch(_) => (batches, *checkpoints + *entries),
            Line::Checkpoint { .. } => (checkpoints, *entries),
            Line::Entry(_) => (entries, 0),
            Line::Header(_) | Line::End(_) => return false,
        };
        *count += 1;
        later == 0
    }
}

/// Writes an export, in many small pieces: hand it a buffered writer. Dropped before `finish` it leaves a file that
/// reads as cut.
pub struct Writer<W> {
    out: W,
    counts: Counts,
    line: u64,
}

impl<W: Write> Writer<W> {
    /// Writes the header.
    pub fn open(out: W, header: &ExportHeader) -> Result<Self, ExportError> {
        let mut writer = Self { out, counts: Counts::default(), line: 0 };
        writer.line(&Line::Header(Cow::Borrowed(header)))?;
        Ok(writer)
    }

    /// A boot that writes no more. All of them come first.
    pub fn closed(&mut self, boot: &BootId) -> Result<(), ExportError> {
        self.item(&Line::Closed { boot: Cow::Borrowed(boot) })
    }

    /// A batch. All of them come before the checkpoints.
    pub fn batch(&mut self, batch: &BatchRow) -> Result<(), ExportError> {
        self.item(&Line::Batch(Cow::Borrowed(batch)))
    }

    /// A checkpoint's note. All of them come before the entries.
    pub fn checkpoint(&mut self, note: &str) -> Result<(), ExportError> {
        self.item(&Line::Checkpoint { note: Cow::Borrowed(note) })
    }

    /// An entry, in the order of the chain.
    pub fn entry(&mut self, entry: &StoredEntry) -> Result<(), ExportError> {
        self.item(&Line::Entry(Cow::Borrowed(entry)))
    }

    /// Writes the trailer and hands the writer back, flushed.
    pub fn finish(mut self) -> Result<W, ExportError> {
        let counts = self.counts;
        self.line(&Line::End(counts))?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn item(&mut self, item: &Line<'_>) -> Result<(), ExportError> {
        if !self.counts.take(item) {
            return Err(ExportError::Order { line: self.line + 1, what: ORDER });
        }
        self.line(item)
    }

    fn line(&mut self, line: &Line<'_>) -> Result<(), ExportError> {
        self.line += 1;
        serde_json::to_writer(&mut self.out, line).map_err(io::Error::from)?;
        Ok(self.out.write_all(b"\n")?)
    }
}

const ORDER: &str = "closed boots, batches, checkpoints, entries";

/// Reads an export line by line; iterate it to the end, where the counts are checked.
pub struct Reader<R> {
    input: R,
    header: ExportHeader,
    counts: Counts,
    line: u64,
    ended: bool,
}

impl<R: BufRead> Reader<R> {
    /// Reads the header.
    pub fn open(mut input: R) -> Result<Self, ExportError> {
        let wrong = ExportError::Order { line: 1, what: "a header of the format `tappass-audit-export/1` is expected" };
        match read_line(&mut input, 1)? {
            Some(Line::Header(header)) if header.format == FORMAT => {
                let header = header.into_owned();
                Ok(Self { input, header, counts: Counts::default(), line: 1, ended: false })
            }
            _ => Err(wrong),
        }
    }

    /// The first line.
    pub fn header(&self) -> &ExportHeader {
        &self.header
    }

    fn read(&mut self) -> Result<Option<Item>, ExportError> {
        self.line += 1;
        let line = read_line(&mut self.input, self.line)?.ok_or(ExportError::Cut("the trailer is missing"))?;
        if let Line::End(counts) = line {
            return self.end(counts);
        }
        if !self.counts.take(&line) {
            return Err(ExportError::Order { line: self.line, what: ORDER });
        }
        Ok(match line {
            Line::Closed { boot } => Some(Item::Closed(boot.into_owned())),
            Line::Batch(batch) => Some(Item::Batch(batch.into_owned())),
            Line::Checkpoint { note } => Some(Item::Checkpoint(note.into_owned())),
            Line::Entry(entry) => Some(Item::Entry(entry.into_owned())),
            Line::Header(_) | Line::End(_) => None,
        })
    }

    fn end(&mut self, counts: Counts) -> Result<Option<Item>, ExportError> {
        if counts != self.counts {
            return Err(ExportError::Cut("the trailer counts other lines than there are"));
        }
        if !self.input.fill_buf()?.is_empty() {
            return Err(ExportError::Cut("something follows the trailer"));
        }
        Ok(None)
    }
}

impl<R: BufRead> Iterator for Reader<R> {
    type Item = Result<Item, ExportError>;

    /// The next line; after the trailer or an error, nothing.
    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let item = self.read().transpose();
        self.ended = !matches!(item, Some(Ok(_)));
        item
    }
}

/// Verifies an export in one pass. `anchors` are checkpoint notes that were kept outside.
pub fn verify<R: BufRead>(input: R, keys: &Jwks, anchors: Vec<String>) -> Result<Report, ExportError> {
    let mut reader = Reader::open(input)?;
    let ExportHeader { org, origin, head, config, .. } = reader.header().clone();
    let mut evidence =
        Evidence { org, origin, head, config, anchors, batches: vec![], checkpoints: vec![], closed: HashSet::new() };
    let mut first = None;
    for item in reader.by_ref() {
        match item? {
            Item::Closed(boot) => drop(evidence.closed.insert(boot)),
            Item::Batch(batch) => evidence.batches.push(batch),
            Item::Checkpoint(note) => evidence.checkpoints.push(note),
            Item::Entry(entry) => {
                first = Some(entry);
                break;
            }
        }
    }
    let mut verifier = Verifier::new(evidence, keys);
    if let Some(entry) = first {
        verifier.entry(&entry);
    }
    for item in reader {
        // Order is the reader's business: only entries are left.
        if let Item::Entry(entry) = item? {
            verifier.entry(&entry);
        }
    }
    Ok(verifier.finish())
}

/// One line; `None` at the end of the file. A last line without line feed was cut.
fn read_line<R: BufRead>(input: &mut R, line: u64) -> Result<Option<Line<'static>>, ExportError> {
    let mut bytes = Vec::new();
    input.by_ref().take(MAX_LINE_BYTES as u64 + 1).read_until(b'\n', &mut bytes)?;
    if bytes.is_empty() {
        return Ok(None);
    }
    if bytes.pop() != Some(b'\n') {
        let cut = ExportError::Cut("the last line has no end");
        return Err(if bytes.len() >= MAX_LINE_BYTES { ExportError::TooLong(line) } else { cut });
    }
    let read: Line<'static> = serde_json::from_slice(&bytes).map_err(|source| ExportError::Line { line, source })?;
    // One line has one spelling, so that no edit goes unseen, not even one of white space or of a digit's case.
    if serde_json::to_vec(&read).map_err(io::Error::from)? == bytes {
        Ok(Some(read))
    } else {
        Err(ExportError::Spelling(line))
    }
}
