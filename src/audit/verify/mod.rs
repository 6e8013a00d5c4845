//! The offline verifier: is this record genuine, whole, fresh, and does its money add up?
//!
//! Owns the checks, one pass over the entries in order, with the signed pairs in memory (about 60 bytes each, 40 more
//! for an admission). It trusts the public keys and the checkpoints from outside, and nothing else. Never stops at a
//! finding and never fails: whatever is wrong is in the report. What came after the newest checkpoint from outside can
//! be cut off unseen, together with its batches and the head row; the report says how much that is.

use std::collections::{HashMap, HashSet};

use self::{
    signed::{Absence, Cover, Missing, Signed},
    walks::{Books, Freshness},
};
use super::{
    StoredEntry,
    batch::BatchRow,
    chain::{self, Head},
    checkpoint::{Checkpoint, CheckpointError},
    entry::{EntryBody, kind},
    merkle::Frontier,
};
use crate::{
    crypto::Jwks,
    domain::{
        digest::Digest,
        ids::{BootId, OrgId},
        stamp::ConfigStamp,
    },
};

mod follow;
mod report;
mod signed;
mod walks;

pub use self::{
    follow::Follow,
    report::{Counts, Finding, Report, Verdict},
};

/// All but the entries.
#[derive(Clone, Debug)]
pub struct Evidence {
    /// Whose chain.
    pub org: OrgId,
    /// First line of its checkpoints: `checkpoint::origin`.
    pub origin: String,
    /// The head row, if there is one.
    pub head: Option<Head>,
    /// The configuration stamp on the head row, if there is one.
    pub config: Option<ConfigStamp>,
    /// Every batch row of the chain, in any order.
    pub batches: Vec<BatchRow>,
    /// Checkpoint notes from the same store, in any order.
    pub checkpoints: Vec<String>,
    /// Checkpoint notes that were kept outside, in any order.
    pub anchors: Vec<String>,
    /// Boots that write no more, as far as known. Boots with a `boot.closed` on the chain are known anyhow.
    pub closed: HashSet<BootId>,
}

/// Verifies a whole chain. Entries come by sequence.
pub fn verify(evidence: Evidence, keys: &Jwks, entries: impl IntoIterator<Item = StoredEntry>) -> Report {
    let mut verifier = Verifier::new(evidence, keys);
    for entry in entries {
        verifier.entry(&entry);
    }
    verifier.finish()
}

/// The same one entry at a time, for entries that come by page.
pub struct Verifier {
    report: Report,
    signed: Signed,
    /// What boots had seen when they signed, newest first.
    seen: Vec<Head>,
    /// Checkpoints yet to come, largest first.
    checkpoints: Vec<Checkpoint>,
    head: Head,
    /// Up to this entry a signed link is the one that stands here, so nothing before it was taken out.
    confirmed: u64,
    frontier: Frontier,
    freshness: Freshness,
    books: Books,
    closed: HashSet<BootId>,
    /// Counters that a `boot.closed` gave up.
    given_up: HashMap<BootId, HashSet<u64>>,
    stored_head: Option<Head>,
    stored_config: Option<ConfigStamp>,
}

impl Verifier {
    /// Checks signatures: about 0.1 ms for each batch and checkpoint.
    pub fn new(evidence: Evidence, keys: &Jwks) -> Self {
        let Evidence { org, origin, head, config, batches, checkpoints, anchors, closed } = evidence;
        let mut verifier = Self {
            report: Report::new(org),
            signed: Signed::default(),
            seen: vec![],
            checkpoints: vec![],
            head: Head::START,
            confirmed: 0,
            frontier: Frontier::default(),
            freshness: Freshness { current: ConfigStamp::NONE },
            books: Books::default(),
            closed,
            given_up: HashMap::new(),
            stored_head: head,
            stored_config: config,
        };
        for row in &batches {
            verifier.batch(row, keys);
        }
        drop(batches);
        verifier.notes(&checkpoints, "stored checkpoint", &origin, keys);
        let counts = &mut verifier.report.counts;
        (counts.checkpoints, counts.checkpointed) = coverage(&verifier.checkpoints);
        let stored = verifier.checkpoints.len();
        verifier.notes(&anchors, "checkpoint from outside", &origin, keys);
        let outside = verifier.checkpoints.get(stored..).unwrap_or_default();
        (verifier.report.counts.anchors, verifier.report.counts.anchored) = coverage(outside);
        verifier.signed.sort();
        verifier.seen.sort_unstable_by_key(|seen| (std::cmp::Reverse(seen.seq), seen.link));
        verifier.seen.dedup();
        verifier.checkpoints.sort_by_key(|checkpoint| std::cmp::Reverse(checkpoint.head.seq));
        verifier.meet_start();
        verifier
    }

    /// Checks the next entry.
    pub fn entry(&mut self, entry: &StoredEntry) {
        self.report.counts.entries += 1;
        self.place(entry);
        let digest = chain::digest(entry.body.as_bytes());
        self.frontier.push(&digest);
        match EntryBody::parse(&entry.body) {
            Ok(body) => self.body(entry, &digest, &body),
            Err(error) => self.broken(Finding::at(entry.seq, format!("altered: its text is {error}"))),
        }
        self.meet_checkpoints();
    }

    /// Compares what must be there with what came, and reports.
    pub fn finish(mut self) -> Report {
        let Head { seq: last, .. } = self.head;
        for seen in std::mem::take(&mut self.seen) {
            let why = format!("truncated: a boot had seen entry {}, the chain ends at {last}", seen.seq);
            self.report.completeness.record(Finding::at(last.saturating_add(1), why));
        }
        for checkpoint in std::mem::take(&mut self.checkpoints) {
            let why = format!("truncated: a checkpoint covers {} entries, there are {last}", checkpoint.head.seq);
            self.report.completeness.record(Finding::at(last.saturating_add(1), why));
        }
        self.meet_head();
        let Self { signed, closed, given_up, report, confirmed, .. } = &mut self;
        signed.missing(*confirmed, |missing| {
            let over = closed.contains(&missing.id.boot);
            let excused = given_up.get(&missing.id.boot).is_some_and(|counters| counters.contains(&missing.id.counter));
            absent(report, missing, over, excused);
        });
        self.report
    }

    fn broken(&mut self, finding: Finding) {
        self.report.integrity.record(finding);
    }

    fn batch(&mut self, row: &BatchRow, keys: &Jwks) {
        let name = || format!("batch {} of {}", row.number, row.boot);
        if row.org != self.report.org {
            return self.broken(Finding::about(format!("{} belongs to another chain", name())));
        }
        match row.verify(keys) {
            Ok((batch, unwritten)) => {
                self.signed.insert(&batch, &unwritten);
                self.seen.push(batch.seen);
                self.report.counts.batches += 1;
            }
            Err(error) => self.broken(Finding::about(format!("{}: {error}", name()))),
        }
    }

    fn notes(&mut self, notes: &[String], what: &str, origin: &str, keys: &Jwks) {
        for note in notes {
            match Checkpoint::verify(note, origin, keys) {
                Ok(checkpoint) => self.checkpoints.push(checkpoint),
                Err(error) => self.broken(Finding::about(format!("{what}{}: {error}", size_of(note, &error)))),
            }
        }
    }

    /// Sequence and link, and whether the boots that saw this entry saw the same.
    fn place(&mut self, entry: &StoredEntry) {
        let StoredEntry { seq, link, digest, .. } = entry;
        let expected = self.head.seq.saturating_add(1);
        if *seq < expected {
            return self
                .broken(Finding::at(*seq, format!("reordered: entry {seq} comes after entry {}", self.head.seq)));
        }
        if *seq > expected {
            // What the link should be cannot be told; the chain goes on from what stands here.
            let why = format!("deleted: entries {expected} to {} are missing", seq - 1);
            self.report.completeness.record(Finding::at(expected, why));
        } else if chain::link(&self.head.link, *seq, digest) != *link {
            self.broken(Finding::at(
                *seq,
                "altered: its link does not follow from the one before and its digest".to_owned(),
            ));
        }
        self.head = Head { seq: *seq, link: *link };
        while let Some(seen) = self.seen.pop_if(|seen| seen.seq <= *seq) {
            if seen == self.head {
                self.confirmed = seen.seq;
            } else {
                let why = format!("rewritten: a boot saw another chain up to entry {}", seen.seq);
                self.broken(Finding::at(seen.seq, why));
            }
        }
    }

    /// Digest, chain, signature, and the two walks.
    fn body(&mut self, entry: &StoredEntry, digest: &Digest, body: &EntryBody) {
        let (seq, id) = (entry.seq, &body.id);
        let why = match self.signed.cover(&id.boot, id.counter, seq, digest) {
            _ if id.org != self.report.org => Some("forged: it belongs to another chain"),
            Cover::Signed if *digest != entry.digest => Some("altered: the stored digest is not that of its text"),
            Cover::Signed => None,
            Cover::Twice => Some("forged: an entry with this id came before"),
            Cover::Forged => Some("forged: no valid batch of its boot covers it"),
            Cover::Altered => Some("altered: its digest differs from the signed one"),
            Cover::LeftOut => Some("forged: it was signed, but no commit says that it wrote it"),
            Cover::TooEarly => Some("reordered: it stands before an entry that its boot had seen when it signed"),
        };
        if let Some(why) = why {
            self.report.integrity.record(Finding::of(seq, id, why.to_owned()));
        }
        self.freshness.walk(seq, &entry.link, body, &mut self.report);
        self.books.walk(seq, body, &mut self.report);
        if body.kind == kind::BOOT_CLOSED {
            self.close(body);
        }
    }

    /// Notes which boot ended and which counters it left behind for good.
    fn close(&mut self, body: &EntryBody) {
        let named = body.content.get("boot").and_then(|boot| BootId::parse(boot.as_str()?).ok());
        let boot = named.unwrap_or_else(|| body.id.boot.clone());
        let counters = body.content.get("unwritten").and_then(serde_json::Value::as_array);
        let counters = counters.into_iter().flatten().filter_map(serde_json::Value::as_u64);
        self.given_up.entry(boot.clone()).or_default().extend(counters);
        self.closed.insert(boot);
    }

    /// What speaks about the empty chain.
    fn meet_start(&mut self) {
        while let Some(seen) = self.seen.pop_if(|seen| seen.seq == 0) {
            if seen != Head::START {
                self.broken(Finding::at(0, "rewritten: a boot saw another beginning of the chain".to_owned()));
            }
        }
        self.meet_checkpoints();
    }

    /// Compares the checkpoints that end here with root and head.
    fn meet_checkpoints(&mut self) {
        let size = self.frontier.size();
        while let Some(checkpoint) = self.checkpoints.pop_if(|checkpoint| checkpoint.head.seq <= size) {
            if checkpoint.root != self.frontier.root() {
                let why = format!("rewritten: the root over the first {size} entries is not that of a checkpoint");
                self.broken(Finding::at(size, why));
            } else if checkpoint.head != self.head {
                let why = format!("rewritten: the link of entry {size} is not that of a checkpoint");
                self.broken(Finding::at(size, why));
            } else {
                self.confirmed = size;
            }
        }
    }

    fn meet_head(&mut self) {
        let ends = self.head;
        match self.stored_head {
            Some(head) if head.seq > ends.seq => {
                let why = format!("truncated: the head row is at {}, the chain ends at {}", head.seq, ends.seq);
                self.report.completeness.record(Finding::at(ends.seq.saturating_add(1), why));
            }
            Some(head) if head != ends => {
                let why = format!("the head row is at {} and not at the last entry, or has another link", head.seq);
                self.broken(Finding::at(ends.seq, why));
            }
            Some(_) | None => {}
        }
        if self.stored_config.is_some_and(|config| config != self.freshness.current) {
            let why = "the head row has another configuration than the last change made".to_owned();
            self.report.freshness.record(Finding::at(ends.seq, why));
        }
    }
}

/// How many checkpoints, and how far the newest reaches.
fn coverage(checkpoints: &[Checkpoint]) -> (u64, u64) {
    (checkpoints.len() as u64, checkpoints.iter().map(|checkpoint| checkpoint.head.seq).max().unwrap_or(0))
}

/// ` of N entries`, as far as a note that did not verify can be read.
fn size_of(note: &str, error: &CheckpointError) -> String {
    match (Checkpoint::parse(note), error) {
        (Ok(checkpoint), CheckpointError::Signature) => format!(" of {} entries", checkpoint.head.seq),
        _ => String::new(),
    }
}

/// `over`: the boot writes no more. `excused`: its `boot.closed` gave the counter up.
fn absent(report: &mut Report, missing: Missing, over: bool, excused: bool) {
    let Missing { id, seq, batch, what } = missing;
    let finding = |why| Finding { seq: Some(seq), entry: Some(id), why };
    match what {
        Absence::Deleted => {
            let why = format!("deleted: batch {batch} wrote it, and no readable entry has this id");
            report.completeness.record(finding(why));
        }
        Absence::Replaced => {
            let why = format!("replaced: batch {batch} says that it wrote another entry under this id");
            report.integrity.record(finding(why));
        }
        Absence::NeverWritten if excused => {}
        Absence::NeverWritten if over => {
            let why = format!("signed in batch {batch} of a closed boot and never written");
            report.completeness.record(finding(why));
        }
        Absence::NeverWritten => report.counts.pending += 1,
    }
}

#[cfg(test)]
mod tests;
