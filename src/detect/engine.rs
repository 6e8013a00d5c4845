//! The walk: literals and runs of digits wake patterns, patterns are verified where they woke.
//!
//! Owns the automata, compiled once from the table, and the order of the walk. Never decides what a match means (that is
//! the row's check) nor which of two findings wins (that is `resolve`). Every step is charged before it is taken; when
//! the budget says no, the walk stops and answers with the first byte that some pattern has not seen.
//!
//! Two ways to verify. A row that begins at its literal or at digits is tried there, anchored. A row whose literal
//! stands in its middle searches a window; windows that touch become one, so that a text full of triggers is searched
//! once per row and not once per trigger.

use super::{
    DetectError, Families, Work,
    compiled::Compiled,
    pattern::{At, Digits, Lead, Pattern},
    scratch::{Pool, Scratch},
};
use crate::domain::detection::Finding;
use aho_corasick::{
    Anchored, MatchKind, StartKind,
    automaton::{Automaton as _, StateID},
    dfa::DFA as TriggerDfa,
};

/// Bytes between two looks at the budget.
const BLOCK: usize = 4 * 1024;
/// Bytes in which a block is asked whether it has any digit at all.
const STRIDE: usize = 32;
/// Bytes of a literal that the automaton knows, where the rest need not be seen. Fewer states, at 512 bytes each.
const LONGEST_TRIGGER: usize = 8;
/// Longest run of digits whose length is told apart.
const LONGEST_RUN: usize = 48;
/// Most letters that lead a run of digits.
const MOST_LETTERS: u8 = 6;
/// What one verification costs besides the bytes that it may look at.
const TRY: usize = 16;
/// All patterns, compiled.
pub(super) struct Engine {
    patterns: Vec<Compiled>,
    triggers: TriggerDfa,
    /// Which patterns a trigger wakes, by trigger.
    woken: Vec<Vec<usize>>,
    /// Which patterns a run of digits may wake, by its length.
    numeric: Vec<Vec<(usize, Digits)>>,
    pool: Pool,
}

/// Distinct literals, and which patterns each wakes.
#[derive(Default)]
struct Literals {
    texts: Vec<&'static [u8]>,
    woken: Vec<Vec<usize>>,
}

/// One walk over one text.
struct Walk<'w> {
    text: &'w [u8],
    families: Families,
    work: &'w mut Work,
    scratch: &'w mut Scratch,
    out: &'w mut Vec<Finding>,
}

/// The budget said no.
struct Exhausted;

impl Engine {
    pub(super) fn new(tables: &[&'static [Pattern]]) -> Result<Self, DetectError> {
        let mut patterns = Vec::new();
        let mut literals = Literals::default();
        let mut numeric = vec![Vec::new(); LONGEST_RUN + 1];
        for (index, row) in tables.iter().copied().flatten().enumerate() {
            patterns.push(Compiled::new(row)?);
            match row.at {
                // A row is tried where its literal begins, so the literal's first bytes wake it just as well.
                At::Start(triggers) => triggers.iter().for_each(|t| literals.add(head(t.as_bytes()), index)),
                At::Within { triggers, .. } => triggers.iter().for_each(|t| literals.add(t.as_bytes(), index)),
                At::Digits(digits) => {
                    let lengths = usize::from(digits.least)..=usize::from(digits.most).min(LONGEST_RUN);
                    lengths.for_each(|length| numeric[length].push((index, digits)));
                }
            }
        }
        let triggers = TriggerDfa::builder()
            .match_kind(MatchKind::Standard)
            .start_kind(StartKind::Unanchored)
            .ascii_case_insensitive(true)
            .prefilter(false)
            .build(&literals.texts)
            .map_err(|source| DetectError::Triggers(Box::new(source)))?;
        Ok(Self { patterns, triggers, woken: literals.woken, numeric, pool: Pool::default() })
    }

    /// Appends every candidate of the asked families to `out`. Returns how many bytes all patterns have seen.
    pub(super) fn scan(&self, text: &str, families: Families, work: &mut Work, out: &mut Vec<Finding>) -> usize {
        let mut scratch = self.pool.take(self.patterns.len());
        let mut walk = Walk { text: text.as_bytes(), families, work, scratch: &mut scratch, out };
        let seen = self.walk(&mut walk);
        self.pool.give(scratch);
        seen
    }

    fn walk(&self, walk: &mut Walk<'_>) -> usize {
        let text = walk.text;
        let Ok(mut state) = self.triggers.start_state(Anchored::No) else { return 0 };
        let mut from = 0;
        while from < text.len() {
            let to = text.len().min(from + BLOCK);
            let walked = walk.charge(to - from).and_then(|()| {
                self.digits(walk, from, to)?;
                self.literals(walk, from, to, &mut state)
            });
            if walked.is_err() {
                return walk.seen(from);
            }
            from = to;
        }
        while let Some(pattern) = walk.scratch.open.pop() {
            let window = walk.scratch.rows[pattern].marks.window;
            if self.search(walk, pattern, window).is_err() {
                return walk.seen(window.0);
            }
        }
        text.len()
    }

    /// The pass over literals.
    fn literals(&self, walk: &mut Walk<'_>, from: usize, to: usize, state: &mut StateID) -> Result<(), Exhausted> {
        let text = walk.text;
        for (offset, byte) in text.get(from..to).unwrap_or_default().iter().enumerate() {
            *state = self.triggers.next_state(Anchored::No, *state, *byte);
            if !self.triggers.is_special(*state) || !self.triggers.is_match(*state) {
                continue;
            }
            for nth in 0..self.triggers.match_len(*state) {
                let trigger = self.triggers.match_pattern(*state, nth);
                let end = from + offset + 1;
                let start = end - self.triggers.pattern_len(trigger);
                for &pattern in &self.woken[trigger.as_usize()] {
                    self.wake(walk, pattern, start, end)?;
                }
            }
        }
        Ok(())
    }

    /// The pass over runs of digits. Most text has none, and is asked 32 bytes at a time.
    fn digits(&self, walk: &mut Walk<'_>, from: usize, to: usize) -> Result<(), Exhausted> {
        let text = walk.text;
        let mut at = from;
        for stride in text.get(from..to).unwrap_or_default().chunks(STRIDE) {
            let any = stride.iter().fold(false, |any, byte| any | byte.is_ascii_digit());
            let ends = if any { at + stride.len() } else { at };
            for here in at..ends {
                if text[here].is_ascii_digit() && (here == 0 || !text[here - 1].is_ascii_digit()) {
                    self.number(walk, here)?;
                }
            }
            at += stride.len();
        }
        Ok(())
    }

    /// Wakes what a run of digits at `at` wakes.
    fn number(&self, walk: &mut Walk<'_>, at: usize) -> Result<(), Exhausted> {
        let text = walk.text;
        let run = text[at..].iter().take(LONGEST_RUN).take_while(|byte| byte.is_ascii_digit()).count();
        walk.charge(run)?;
        let next = text.get(at + run);
        let lead = lead_before(text, at);
        for (pattern, digits) in &self.numeric[run] {
            let fits = digits.next.is_empty() || next.is_some_and(|next| digits.next.contains(next));
            if fits && let Some(length) = digits.lead.length(lead) {
                self.attempt(walk, *pattern, at - length)?;
            }
        }
        Ok(())
    }

    fn wake(&self, walk: &mut Walk<'_>, pattern: usize, start: usize, end: usize) -> Result<(), Exhausted> {
        let row = self.patterns[pattern].row;
        let At::Within { back, .. } = row.at else { return self.attempt(walk, pattern, start) };
        if !walk.families.contains(row.family) {
            return Ok(());
        }
        let window = (start.saturating_sub(back), walk.text.len().min(end + row.reach));
        let open = walk.scratch.open.contains(&pattern);
        let marks = &mut walk.scratch.rows[pattern].marks;
        if open && window.0 <= marks.window.1 {
            marks.window = (marks.window.0.min(window.0), marks.window.1.max(window.1));
            return Ok(());
        }
        let closed = std::mem::replace(&mut marks.window, window);
        if !open {
            walk.scratch.open.push(pattern);
            return Ok(());
        }
        self.search(walk, pattern, closed).inspect_err(|Exhausted| {
            // What was not searched is not seen.
            walk.scratch.rows[pattern].marks.window.0 = closed.0;
        })
    }

    /// Tries a row where it would begin.
    fn attempt(&self, walk: &mut Walk<'_>, pattern: usize, at: usize) -> Result<(), Exhausted> {
        let compiled = &self.patterns[pattern];
        let marks = &mut walk.scratch.rows[pattern].marks;
        let left = at.checked_sub(1).map(|before| walk.text[before]);
        if at < marks.free
            || at < marks.tried
            || !walk.families.contains(compiled.row.family)
            || !compiled.row.left.admits(left)
        {
            return Ok(());
        }
        marks.tried = at + 1;
        walk.charge(TRY + compiled.row.reach.min(walk.text.len() - at))?;
        if let Some(finding) = compiled.at(walk.text, at, &mut walk.scratch.rows[pattern]) {
            walk.scratch.rows[pattern].marks.free = finding.end;
            walk.keep(finding)?;
        }
        Ok(())
    }

    /// Searches a row in a window.
    fn search(&self, walk: &mut Walk<'_>, pattern: usize, window: (usize, usize)) -> Result<(), Exhausted> {
        let compiled = &self.patterns[pattern];
        walk.charge(TRY + window.1 - window.0)?;
        let mut from = window.0;
        while let Some((start, end)) = compiled.next(walk.text, (from, window.1), &mut walk.scratch.rows[pattern]) {
            from = end.max(from + 1);
            if let Some(finding) = compiled.judge(walk.text, start, start, end) {
                walk.keep(finding)?;
            }
            walk.charge(TRY)?;
        }
        Ok(())
    }
}

impl Literals {
    fn add(&mut self, text: &'static [u8], pattern: usize) {
        let known = self.texts.iter().position(|known| *known == text);
        let place = known.unwrap_or_else(|| {
            self.texts.push(text);
            self.woken.push(Vec::new());
            self.texts.len() - 1
        });
        if self.woken[place].last() != Some(&pattern) {
            self.woken[place].push(pattern);
        }
    }
}

impl Walk<'_> {
    fn charge(&mut self, units: usize) -> Result<(), Exhausted> {
        if self.work.charge(units) { Ok(()) } else { Err(Exhausted) }
    }

    fn keep(&mut self, finding: Finding) -> Result<(), Exhausted> {
        self.charge(finding.end.saturating_sub(finding.start))?;
        self.out.push(finding);
        Ok(())
    }

    /// How much was seen, if the walk stops in the block at `block`: windows that still wait were not.
    fn seen(&self, block: usize) -> usize {
        self.scratch.open.iter().map(|pattern| self.scratch.rows[*pattern].marks.window.0).fold(block, usize::min)
    }
}

impl Lead {
    /// How many bytes this row's lead takes, if `found` stands there. A number in parentheses or with letters before it
    /// is not bare for the edge check, which sees the byte itself.
    fn length(self, found: Self) -> Option<usize> {
        match self {
            Self::Bare => Some(0),
            Self::Plus | Self::Paren => (self == found).then_some(1),
            Self::Letters(count) => (self == found).then_some(usize::from(count)),
        }
    }
}

fn head(literal: &[u8]) -> &[u8] {
    literal.get(..LONGEST_TRIGGER).unwrap_or(literal)
}

fn lead_before(text: &[u8], at: usize) -> Lead {
    let before = text.get(..at).unwrap_or_default();
    match before.last() {
        Some(b'+') => Lead::Plus,
        Some(b'(') => Lead::Paren,
        Some(byte) if byte.is_ascii_alphabetic() => {
            let letters = before.iter().rev().take(usize::from(MOST_LETTERS)).take_while(|b| b.is_ascii_alphabetic());
            Lead::Letters(letters.fold(0, |count, _| count + 1))
        }
        _ => Lead::Bare,
    }
}

#[cfg(test)]
impl Engine {
    /// Every row tried at every byte: the yardstick for the walk.
    pub(super) fn everywhere(&self, text: &str) -> Vec<Finding> {
        let mut scratch = self.pool.take(self.patterns.len());
        let rows = self.patterns.iter().zip(&mut scratch.rows);
        rows.flat_map(|(compiled, row)| compiled.everywhere(text.as_bytes(), row)).collect()
    }

    /// Bytes of scratch memory that wait.
    pub(super) fn memory(&self) -> usize {
        self.pool.memory()
    }
}
