//! What one row of the pattern table says.
//!
//! Owns the shape of a pattern and of a candidate match; decides nothing and runs nothing. A row is data: which literals
//! wake it, what must stand there, what may stand beside it, which check has the last word.

use crate::domain::detection::{Family, Severity};

/// Where a match of a pattern may begin.
#[derive(Clone, Copy)]
pub(super) enum At {
    /// Exactly where one of these literals begins (ASCII case does not matter here; the expression may care).
    Start(&'static [&'static str]),
    /// Anywhere from `back` bytes before one of these literals; every match contains one of them.
    Within { triggers: &'static [&'static str], back: usize },
    /// At a run of digits, or at what leads it.
    Digits(Digits),
}

/// Which runs of digits wake a pattern.
#[derive(Clone, Copy)]
pub(super) struct Digits {
    /// What stands before the run and belongs to the match.
    pub lead: Lead,
    /// Fewest digits in the run.
    pub least: u8,
    /// Most digits in the run.
    pub most: u8,
    /// Which byte may follow the run; empty for any, also the end of the text.
    pub next: &'static [u8],
}

/// What stands directly before a run of digits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Lead {
    /// Nothing that belongs to it.
    Bare,
    /// One `+`.
    Plus,
    /// One `(`.
    Paren,
    /// So many ASCII letters, and no word character before them.
    Letters(u8),
}

/// What may stand directly beside a match.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Edge {
    /// Anything.
    Any,
    /// No letter, digit or `_`.
    Word,
    /// Nothing that could continue a token: a word character, `-`, `+`, `/`, `=`, `%`, `.` or `\`.
    Token,
}

impl Edge {
    /// Whether `byte` (`None` at the end of the text) may stand there.
    pub(super) fn admits(self, byte: Option<u8>) -> bool {
        let Some(byte) = byte else { return true };
        match self {
            Self::Any => true,
            Self::Word => !is_word(byte),
            Self::Token => !is_word(byte) && !b"-+/=%.\\".contains(&byte),
        }
    }
}

/// One row of the table.
#[derive(Clone, Copy)]
pub(super) struct Pattern {
    pub family: Family,
    pub category: &'static str,
    pub label: &'static str,
    pub severity: Severity,
    /// Basis points; a check may lower or raise it.
    pub score: u16,
    pub at: At,
    pub left: Edge,
    pub right: Edge,
    /// What stands before the value and is no part of the finding (`password = "`); empty for none. Matched first, then
    /// the expression where it ended.
    pub lead: &'static str,
    pub expression: &'static str,
    /// How many bytes lead and expression together may look at, from the start of a match.
    pub reach: usize,
    pub check: Check,
}

/// The last word on a candidate: `None` rejects it.
pub(super) type Check = fn(&Candidate<'_>) -> Option<Verdict>;

/// What a check makes of a candidate: the span that counts, and how certain it is in basis points.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    pub start: usize,
    pub end: usize,
    pub score: u16,
}

/// Something that a pattern's expression matched. Offsets are bytes of `text`.
#[derive(Clone, Copy)]
pub(super) struct Candidate<'t> {
    pub text: &'t [u8],
    /// Where lead, or value if there is no lead, begins.
    pub lead: usize,
    pub start: usize,
    pub end: usize,
    /// The row's score.
    pub score: u16,
}

impl<'t> Candidate<'t> {
    /// What was matched, without its lead.
    pub(super) fn value(&self) -> &'t [u8] {
        self.text.get(self.start..self.end).unwrap_or_default()
    }

    /// The lead.
    pub(super) fn lead(&self) -> &'t [u8] {
        self.text.get(self.lead..self.start).unwrap_or_default()
    }

    /// At most `count` bytes before the lead.
    pub(super) fn before(&self, count: usize) -> &'t [u8] {
        self.text.get(self.lead.saturating_sub(count)..self.lead).unwrap_or_default()
    }

    /// At most `count` bytes after the match.
    pub(super) fn after(&self, count: usize) -> &'t [u8] {
        let end = self.text.len().min(self.end.saturating_add(count));
        self.text.get(self.end..end).unwrap_or_default()
    }

    /// The whole match at the row's score.
    pub(super) fn whole(&self) -> Verdict {
        Verdict { start: self.start, end: self.end, score: self.score }
    }

    /// The whole match at another score.
    pub(super) fn scored(&self, score: u16) -> Verdict {
        Verdict { score, ..self.whole() }
    }
}

impl Pattern {
    /// A row with the usual edges (words on both sides), no lead, 256 bytes of reach and no check.
    pub(super) const fn new(
        family: Family,
        category: &'static str,
        label: &'static str,
        at: At,
        expression: &'static str,
    ) -> Self {
        Self {
            family,
            category,
            label,
            severity: Severity::High,
            score: 9_000,
            at,
            left: Edge::Word,
            right: Edge::Word,
            lead: "",
            expression,
            reach: 256,
            check: accept,
        }
    }

    pub(super) const fn severity(self, severity: Severity) -> Self {
        Self { severity, ..self }
    }

    pub(super) const fn score(self, score: u16) -> Self {
        Self { score, ..self }
    }

    pub(super) const fn edges(self, left: Edge, right: Edge) -> Self {
        Self { left, right, ..self }
    }

    pub(super) const fn lead(self, lead: &'static str) -> Self {
        Self { lead, ..self }
    }

    pub(super) const fn reach(self, reach: usize) -> Self {
        Self { reach, ..self }
    }

    pub(super) const fn check(self, check: Check) -> Self {
        Self { check, ..self }
    }
}

/// The check of a row whose expression says it all.
#[expect(clippy::unnecessary_wraps, reason = "it is one of many checks, and they may reject")]
pub(super) fn accept(candidate: &Candidate<'_>) -> Option<Verdict> {
    Some(candidate.whole())
}

/// An ASCII letter, digit or `_`.
pub(super) fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}
