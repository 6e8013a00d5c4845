//! One row of the table, compiled: where it matches, and what its edges and its check say.
//!
//! Owns the automata of a row and how they are built. Lazy automata over bytes: built while they run, in memory that
//! the caller brings and that is bounded (see `scratch`). Never walks a text for triggers, never counts work: that is
//! the engine's. Fails only when it is built.

use regex_automata::{
    Anchored, Input,
    hybrid::{self, dfa::DFA},
    nfa::thompson,
    util::syntax,
};

use super::{
    DetectError,
    pattern::{At, Candidate, Pattern},
    scratch::{CACHE_BYTES, Row},
};
use crate::domain::detection::{Family, Finding};

/// In rows about phrases a space stands for this: up to four bytes between two words.
const BETWEEN_WORDS: &str = r#"(?:[\s"'`*_.,:;!?~()\[\]/|><#=-]{1,4})"#;

/// One row, compiled.
pub(super) struct Compiled {
    pub row: &'static Pattern,
    lead: Option<DFA>,
    value: Value,
}

enum Value {
    /// Tried where the row begins.
    Here(Box<DFA>),
    /// Searched in a window.
    Somewhere(Box<hybrid::regex::Regex>),
}

impl Compiled {
    pub(super) fn new(row: &'static Pattern) -> Result<Self, DetectError> {
        let failed = |source| DetectError::Expression { category: row.category, source: Box::new(source) };
        let phrase = row.family == Family::Injection;
        let written = |text: &str| if phrase { text.replace(' ', BETWEEN_WORDS) } else { text.to_owned() };
        let anchored = |text: &str| {
            DFA::builder().syntax(bytes()).thompson(small()).configure(bounded()).build(&written(text)).map_err(failed)
        };
        let value = if let At::Within { .. } = row.at {
            let mut builder = hybrid::regex::Regex::builder();
            builder.syntax(bytes()).thompson(small()).dfa(bounded());
            Value::Somewhere(Box::new(builder.build(&written(row.expression)).map_err(failed)?))
        } else {
            Value::Here(Box::new(anchored(row.expression)?))
        };
        let lead = if row.lead.is_empty() { None } else { Some(anchored(row.lead)?) };
        Ok(Self { row, lead, value })
    }

    /// What an anchored row finds at `at`.
    pub(super) fn at(&self, text: &[u8], at: usize, row: &mut Row) -> Option<Finding> {
        let Value::Here(value) = &self.value else { return None };
        let limit = text.len().min(at + self.row.reach);
        let mut start = at;
        if let Some(lead) = &self.lead {
            let cache = row.lead.get_or_insert_with(|| Box::new(lead.create_cache()));
            start = anchored_end(lead, cache, text, (at, limit))?;
        }
        let cache = row.value.get_or_insert_with(|| Box::new(value.create_cache()));
        let end = anchored_end(value, cache, text, (start, limit))?;
        self.judge(text, at, start, end)
    }

    /// The first match of a searched row in a window.
    pub(super) fn next(&self, text: &[u8], window: (usize, usize), row: &mut Row) -> Option<(usize, usize)> {
        let Value::Somewhere(regex) = &self.value else { return None };
        if window.0 >= window.1 {
            return None;
        }
        let cache = row.search.get_or_insert_with(|| Box::new(regex.create_cache()));
        let input = Input::new(text).span(window.0..window.1);
        // The automata quit on no byte and never give up, so this search has no error.
        regex.try_search(cache, &input).ok().flatten().map(|found| (found.start(), found.end()))
    }

    /// Edges and check.
    pub(super) fn judge(&self, text: &[u8], lead: usize, start: usize, end: usize) -> Option<Finding> {
        let row = self.row;
        let left = lead.checked_sub(1).and_then(|before| text.get(before).copied());
        if !row.left.admits(left) || !row.right.admits(text.get(end).copied()) {
            return None;
        }
        let verdict = (row.check)(&Candidate { text, lead, start, end, score: row.score })?;
        Some(Finding {
            family: row.family,
            category: row.category,
            severity: row.severity,
            label: row.label,
            score: verdict.score.min(10_000),
            start: verdict.start,
            end: verdict.end,
        })
    }
}

fn anchored_end(dfa: &DFA, cache: &mut hybrid::dfa::Cache, text: &[u8], span: (usize, usize)) -> Option<usize> {
    let input = Input::new(text).span(span.0..span.1.max(span.0)).anchored(Anchored::Yes);
    // The automaton quits on no byte and never gives up, so this search has no error.
    dfa.try_search_fwd(cache, &input).ok().flatten().map(|half| half.offset())
}

/// Expressions speak about bytes: classes stay small, and offsets are put on character borders at the end.
fn bytes() -> syntax::Config {
    syntax::Config::new().unicode(false).utf8(false)
}

fn small() -> thompson::Config {
    thompson::Config::new().utf8(false).nfa_size_limit(Some(1 << 20))
}

fn bounded() -> hybrid::dfa::Config {
    hybrid::dfa::Config::new().cache_capacity(CACHE_BYTES).skip_cache_capacity_check(true)
}

#[cfg(test)]
impl Compiled {
    /// What the row finds when it is tried at every byte.
    pub(super) fn everywhere(&self, text: &[u8], row: &mut Row) -> Vec<Finding> {
        let (mut found, mut from) = (Vec::new(), 0);
        while from < text.len() {
            let (next, finding) = match &self.value {
                Value::Here(_) => {
                    let finding = self.at(text, from, row);
                    (finding.as_ref().map_or(from + 1, |finding| finding.end), finding)
                }
                Value::Somewhere(_) => match self.next(text, (from, text.len()), row) {
                    Some((start, end)) => (end, self.judge(text, start, start, end)),
                    None => (text.len(), None),
                },
            };
            from = next.max(from + 1);
            found.extend(finding);
        }
        found
    }
}
