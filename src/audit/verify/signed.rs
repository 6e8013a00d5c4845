//! Which (counter, digest) pairs were signed, by which batch, and which entry answers to each.
//!
//! Owns the index over all batches of a chain: about 60 bytes for each signed pair. Never checks a signature: only
//! batches that verified come in. Nothing here can fail; it answers.

use std::collections::HashMap;

use crate::{
    audit::{batch::Batch, entry::EntryRef},
    domain::{digest::Digest, ids::BootId},
};

/// Boots as small numbers.
#[derive(Default)]
pub(super) struct Boots {
    numbers: HashMap<BootId, usize>,
}

impl Boots {
    pub(super) fn number(&mut self, boot: &BootId) -> usize {
        let next = self.numbers.len();
        // A boot writes many entries: the key is copied only when it is new.
        if let Some(known) = self.numbers.get(boot) {
            return *known;
        }
        self.numbers.insert(boot.clone(), next);
        next
    }
}

/// A pair as one batch signed it.
struct Pair {
    counter: u64,
    /// The entry that has this id; 0 if none came yet.
    seq: u64,
    digest: Digest,
    batch: u32,
    /// Whether that entry has this digest.
    same: bool,
    /// Whether the batch's own commit left it out.
    unwritten: bool,
}

/// Whether and how an entry is covered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cover {
    /// A batch of its boot signed it and wrote it here.
    Signed,
    /// An entry of this id came before.
    Twice,
    /// No batch of its boot signed this counter.
    Forged,
    /// This counter was signed with another digest.
    Altered,
    /// It was signed, but every commit that signed it left it out.
    LeftOut,
    /// It stands before an entry that its boot had seen when it signed.
    TooEarly,
}

/// A signed pair whose counter no entry has, or whose batch claims another digest than the entry has.
pub(super) struct Missing {
    pub(super) id: EntryRef,
    /// Earliest place; the entry's own if there is one.
    pub(super) seq: u64,
    pub(super) batch: u64,
    pub(super) what: Absence,
}

pub(super) enum Absence {
    /// A batch wrote it, and it is gone.
    Deleted,
    /// No commit wrote it.
    NeverWritten,
    /// Another batch's digest stands under this id.
    Replaced,
}

/// The index.
#[derive(Default)]
pub(super) struct Signed {
    boots: HashMap<BootId, Vec<Pair>>,
    batches: Vec<BatchFacts>,
}

struct BatchFacts {
    number: u64,
    seen: u64,
}

impl Signed {
    /// Takes a batch that verified. `unwritten` ascends.
    pub(super) fn insert(&mut self, batch: &Batch, unwritten: &[u64]) {
        // A row takes hundreds of bytes, so 2³² of them do not come.
        let index = u32::try_from(self.batches.len()).unwrap_or(u32::MAX);
        self.batches.push(BatchFacts { number: batch.number, seen: batch.seen.seq });
        let pairs = self.boots.entry(batch.boot.clone()).or_default();
        pairs.extend(batch.items().iter().map(|(counter, digest)| Pair {
            counter: *counter,
            seq: 0,
            digest: *digest,
            batch: index,
            same: false,
            unwritten: unwritten.binary_search(counter).is_ok(),
        }));
    }

    /// After the last batch, before the first entry.
    pub(super) fn sort(&mut self) {
        for pairs in self.boots.values_mut() {
            pairs.sort_by_key(|pair| pair.counter);
            pairs.shrink_to_fit();
        }
    }

    /// Marks an entry as found and says how it is covered.
    pub(super) fn cover(&mut self, boot: &BootId, counter: u64, seq: u64, digest: &Digest) -> Cover {
        let pairs = self.boots.get_mut(boot).map(Vec::as_mut_slice).unwrap_or_default();
        let start = pairs.partition_point(|pair| pair.counter < counter);
        let end = pairs.partition_point(|pair| pair.counter <= counter);
        let Some(pairs) = pairs.get_mut(start..end).filter(|pairs| !pairs.is_empty()) else { return Cover::Forged };
        if pairs.iter().any(|pair| pair.seq != 0) {
            return Cover::Twice;
        }
        let mut cover = Cover::Altered;
        for pair in pairs {
            pair.seq = seq;
            pair.same = pair.digest == *digest;
            let seen = self.batches.get(pair.batch as usize).map_or(0, |batch| batch.seen);
            cover = match (cover, pair.same, pair.unwritten) {
                (Cover::Signed, ..) => Cover::Signed,
                (_, true, false) if seen < seq => Cover::Signed,
                (_, true, false) => Cover::TooEarly,
                (Cover::Altered, true, true) => Cover::LeftOut,
                (other, ..) => other,
            };
        }
        cover
    }

    /// What was signed and has no entry, after the last entry. `confirmed`: up to there nothing can be missing.
    pub(super) fn missing(&self, confirmed: u64, mut report: impl FnMut(Missing)) {
        for (boot, pairs) in &self.boots {
            // The place after the last entry found in the same batch is the earliest for what follows it there.
            let mut last = (u32::MAX, 0);
            for group in pairs.chunk_by(|a, b| a.counter == b.counter) {
                if let Some(found) = group.iter().find(|pair| pair.same && !pair.unwritten) {
                    last = (found.batch, found.seq);
                }
                let claim = group.iter().find(|pair| !pair.unwritten && !pair.same);
                let Some(pair) = claim.or(group.first()) else { continue };
                let what = match (claim, pair.seq, group.iter().any(|pair| pair.same)) {
                    (Some(_), 0, _) => Absence::Deleted,
                    (None, 0, _) => Absence::NeverWritten,
                    (Some(_), _, true) => Absence::Replaced,
                    // Found in order, or an altered entry that was reported where it stands.
                    (None, ..) | (Some(_), _, false) => continue,
                };
                let Some(batch) = self.batches.get(pair.batch as usize) else { continue };
                let after = if last.0 == pair.batch { last.1 } else { batch.seen };
                let seq = if pair.seq == 0 { after.max(confirmed).saturating_add(1) } else { pair.seq };
                let id = EntryRef { boot: boot.clone(), counter: pair.counter };
                report(Missing { id, seq, batch: batch.number, what });
            }
        }
    }
}
