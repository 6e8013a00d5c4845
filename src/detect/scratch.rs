//! Memory that a scan needs and the next one can use again.
//!
//! Owns the caches of the lazy automata and the bookkeeping of one walk, and a pool of both. The pool keeps at most
//! `KEPT` sets, and each cache is bounded by `CACHE_BYTES`, whatever a caller sends and however many threads scan.
//! Never holds text. Cannot fail: a poisoned pool is used on, since a half-used cache is still a valid cache.

use std::sync::{Mutex, PoisonError};

use regex_automata::hybrid;

/// How many sets wait for the next scan. More scans at a time than this make their own and drop them.
const KEPT: usize = 4;
/// The size of one lazy automaton's cache, in bytes. Small: an expression here has some dozen states, and what does not
/// fit is computed again.
pub(super) const CACHE_BYTES: usize = 48 * 1024;

/// What one walk needs, indexed by pattern.
#[derive(Default)]
pub(super) struct Scratch {
    pub rows: Vec<Row>,
    /// Patterns whose window is open.
    pub open: Vec<usize>,
}

/// What one walk needs for one pattern.
#[derive(Default)]
pub(super) struct Row {
    pub lead: Option<Box<hybrid::dfa::Cache>>,
    pub value: Option<Box<hybrid::dfa::Cache>>,
    pub search: Option<Box<hybrid::regex::Cache>>,
    pub marks: Marks,
}

/// Where a pattern stands in the present walk.
#[derive(Clone, Copy, Default)]
pub(super) struct Marks {
    /// One past the last place that was tried; the same place is not tried twice.
    pub tried: usize,
    /// End of the last match: the next begins no earlier.
    pub free: usize,
    /// The window that waits for verification, if the pattern is in `Scratch::open`.
    pub window: (usize, usize),
}

impl Scratch {
    fn ready_for(&mut self, patterns: usize) {
        self.open.clear();
        self.rows.resize_with(patterns, Row::default);
        for row in &mut self.rows {
            row.marks = Marks::default();
        }
    }
}

/// Sets of scratch memory between scans.
#[derive(Default)]
pub(super) struct Pool {
    waiting: Mutex<Vec<Scratch>>,
}

impl Pool {
    /// A set for so many patterns.
    pub(super) fn take(&self, patterns: usize) -> Scratch {
        let mut scratch = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default();
        scratch.ready_for(patterns);
        scratch
    }

    /// Gives a set back.
    pub(super) fn give(&self, scratch: Scratch) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() < KEPT {
            waiting.push(scratch);
        }
    }

    #[cfg(test)]
    pub(super) fn memory(&self) -> usize {
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let row = |row: &Row| {
            row.lead.as_ref().map_or(0, |c| c.memory_usage())
                + row.value.as_ref().map_or(0, |c| c.memory_usage())
                + row.search.as_ref().map_or(0, |c| c.memory_usage())
        };
        waiting.iter().flat_map(|scratch| &scratch.rows).map(row).sum()
    }
}
