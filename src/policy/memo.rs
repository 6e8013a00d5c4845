//! Remembered decisions.
//!
//! Owns a bounded map from the values that were read to the decision they led to. Never expires by time: it lives inside
//! a snapshot, which is replaced as a whole. When one generation is full the older one is dropped, so a caller that varies
//! its values costs evaluations and never memory.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::Decision;

/// Most entries of one generation; two are kept.
const MAX_ENTRIES: usize = 2_048;
/// Most key bytes of one generation.
const MAX_BYTES: usize = 512 * 1_024;
/// A longer key is not remembered.
pub(super) const MAX_KEY_BYTES: usize = 8 * 1_024;

type Generation = HashMap<Box<[u8]>, Decision>;

#[derive(Debug, Default)]
pub(super) struct Memo {
    generations: Mutex<Generations>,
}

#[derive(Debug, Default)]
struct Generations {
    current: Generation,
    previous: Generation,
    bytes: usize,
}

impl Memo {
    /// What was decided for this key.
    pub(super) fn find(&self, key: &[u8]) -> Option<Decision> {
        let mut generations = self.lock();
        if let Some(decision) = generations.current.get(key) {
            return Some(decision.clone());
        }
        let (key, decision) = generations.previous.remove_entry(key)?;
        generations.insert(key, decision.clone());
        Some(decision)
    }

    /// Remembers a decision, unless its key is too long.
    pub(super) fn insert(&self, key: &[u8], decision: Decision) {
        if key.len() <= MAX_KEY_BYTES {
            self.lock().insert(Box::from(key), decision);
        }
    }

    /// The lock is held for a lookup or an insertion, never for an evaluation. A map that a panic left behind is intact.
    fn lock(&self) -> MutexGuard<'_, Generations> {
        self.generations.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many decisions are remembered.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        let generations = self.lock();
        generations.current.len() + generations.previous.len()
    }
}

impl Generations {
    fn insert(&mut self, key: Box<[u8]>, decision: Decision) {
        if self.current.len() >= MAX_ENTRIES || self.bytes + key.len() > MAX_BYTES {
            self.previous = std::mem::take(&mut self.current);
            self.bytes = 0;
        }
        self.bytes += key.len();
        self.current.insert(key, decision);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decision() -> Decision {
        Decision::refused_by_error("tool_permissions")
    }

    #[test]
    fn the_memo_is_bounded_and_keeps_what_is_used() {
        let memo = Memo::default();
        memo.insert(b"kept", decision());
        for i in 0..20_000_u32 {
            memo.insert(&i.to_le_bytes(), decision());
            assert!(memo.find(b"kept").is_some());
        }
        assert!(memo.len() <= 2 * MAX_ENTRIES);
        assert!(memo.find(&0_u32.to_le_bytes()).is_none());
        assert!(memo.find(&19_999_u32.to_le_bytes()).is_some());
    }

    #[test]
    fn long_keys_are_bounded_in_bytes() {
        let memo = Memo::default();
        memo.insert(&[0; MAX_KEY_BYTES + 1], decision());
        assert_eq!(memo.len(), 0);
        for i in 0..1_000_u32 {
            let mut key = vec![0; 4_096];
            key.extend(i.to_le_bytes());
            memo.insert(&key, decision());
        }
        assert!(memo.len() <= 2 * MAX_BYTES / 4_096);
    }
}
