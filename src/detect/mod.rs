//! One pass over a text, all findings.
//!
//! Owns the scanner, its pattern table (data, in `patterns/`), unicode attacks, the normalised twin, and what follows
//! from findings: classification and redaction. Pure: no I/O, no clock, no configuration; whether a finding refuses
//! anything is for policy. Never keeps or reports a matched value, only where it stands.
//!
//! A text is walked once for all families: an automaton finds the literals that wake a pattern, a class walk finds runs
//! of digits, and only there the pattern's expression runs, on a bounded window. A text that is not ASCII is also
//! scanned as its normalised twin (see `twin`), and findings are mapped back.
//!
//! Fails in one way only: building a scanner from a table that does not compile. Scanning is total; when the caller's
//! budget of work runs out it stops and says how much it saw.

mod chars;
mod checks;
mod classify;
mod compiled;
mod engine;
mod pattern;
mod patterns;
mod redact;
mod resolve;
mod scratch;
mod twin;
mod unicode;

#[cfg(test)]
mod tests;

pub use classify::classify;
pub use redact::redact;

use crate::domain::detection::{Family, Finding};
use engine::Engine;
use twin::Twin;

/// Why no scanner could be built. Both are mistakes in the pattern table, found at start.
#[derive(Debug, thiserror::Error)]
pub enum DetectError {
    /// An expression does not compile.
    #[error("the expression of pattern `{category}` does not compile")]
    Expression {
        /// Whose expression it is.
        category: &'static str,
        /// What the engine says.
        #[source]
        source: Box<regex_automata::hybrid::BuildError>,
    },
    /// The automaton over all literals cannot be built.
    #[error("the automaton over all trigger literals cannot be built")]
    Triggers(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// A small set of families.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Families(u8);

impl Families {
    /// None of them.
    pub const NONE: Self = Self(0);
    /// All of them.
    pub const ALL: Self = Self::NONE
        .with(Family::PersonalData)
        .with(Family::Secrets)
        .with(Family::Unicode)
        .with(Family::Injection)
        .with(Family::Classification);

    /// This set and one more family.
    #[must_use]
    pub const fn with(self, family: Family) -> Self {
        Self(self.0 | 1 << (family as u8))
    }

    /// Whether `family` is in the set.
    pub const fn contains(self, family: Family) -> bool {
        self.0 & (1 << (family as u8)) != 0
    }

    /// Whether the set is empty.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether anything but unicode attacks is asked for, which alone needs the pattern table.
    const fn needs_patterns(self) -> bool {
        self.0 & !Self::NONE.with(Family::Unicode).0 != 0
    }
}

impl FromIterator<Family> for Families {
    fn from_iter<I: IntoIterator<Item = Family>>(families: I) -> Self {
        families.into_iter().fold(Self::NONE, Self::with)
    }
}

/// A budget of work, shared by the texts of one request. One unit is about one byte looked at.
///
/// Ordinary text costs 1 to 4 units per byte, dense personal data about 30, hostile text up to some hundred.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Work {
    /// Units that may be spent.
    pub limit: u64,
    /// Units spent so far; never above `limit`.
    pub used: u64,
}

impl Work {
    /// A fresh budget of `limit` units.
    pub const fn new(limit: u64) -> Self {
        Self { limit, used: 0 }
    }

    /// Takes `units`, or says no and takes nothing.
    fn charge(&mut self, units: usize) -> bool {
        let Some(used) = self.used.checked_add(units as u64).filter(|used| *used <= self.limit) else { return false };
        self.used = used;
        true
    }
}

/// How much of a text was scanned, in bytes; the two add up to the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Coverage {
    /// Bytes from the start that every asked detector saw.
    pub seen: usize,
    /// Bytes after them, which some detector did not see because the work ran out.
    pub unseen: usize,
}

/// The kinds of personal data that the pattern table knows, each as `email` and as `pii.email`.
pub fn personal_data_kinds() -> Vec<&'static str> {
    let rows = patterns::TABLES.iter().flat_map(|table| table.iter());
    let personal = rows.filter(|row| row.family == Family::PersonalData).map(|row| row.category);
    let mut kinds: Vec<_> =
        personal.flat_map(|category| [category.strip_prefix("pii."), Some(category)]).flatten().collect();
    kinds.sort_unstable();
    kinds.dedup();
    kinds
}

/// All detectors, built once, shared by all threads. They never change, but for a bounded pool of scratch memory.
pub struct Scanner {
    engine: Engine,
}

impl Scanner {
    /// Compiles the pattern table.
    pub fn new() -> Result<Self, DetectError> {
        Ok(Self { engine: Engine::new(patterns::TABLES)? })
    }

    /// Scans `text` for `families` and appends what it finds to `out`: ordered by start, without overlaps within a
    /// family, offsets in bytes of `text` on character borders.
    pub fn scan(&self, text: &str, families: Families, work: &mut Work, out: &mut Vec<Finding>) -> Coverage {
        let first = out.len();
        let seen = self.collect(text, families, work, out);
        resolve::resolve(text, first, out);
        Coverage { seen, unseen: text.len() - seen }
    }

    /// All findings, unordered and overlapping; returns how many bytes were seen.
    fn collect(&self, text: &str, families: Families, work: &mut Work, out: &mut Vec<Finding>) -> usize {
        let mut seen = text.len();
        if families.needs_patterns() {
            seen = self.engine.scan(text, families, work, out);
        }
        if text.is_ascii() || families.is_empty() {
            return seen;
        }
        if families.contains(Family::Unicode) {
            if !work.charge(text.len()) {
                return 0;
            }
            unicode::scan(text, out);
        }
        if families.needs_patterns() && seen > 0 {
            seen = seen.min(self.scan_twin(text, families, work, out));
        }
        seen
    }

    /// Scans what `text` looks like rather than what it is, if that differs.
    fn scan_twin(&self, text: &str, families: Families, work: &mut Work, out: &mut Vec<Finding>) -> usize {
        if !work.charge(text.len()) {
            return 0;
        }
        let Some(twin) = Twin::of(text) else { return text.len() };
        let first = out.len();
        let seen = self.engine.scan(twin.text(), families, work, out);
        for finding in out.iter_mut().skip(first) {
            (finding.start, finding.end) = twin.original(finding.start, finding.end);
        }
        if seen == twin.text().len() { text.len() } else { twin.original(seen, seen + 1).0 }
    }
}
