//! What the verifier says.
//!
//! Owns the four verdicts, kept apart (a chain can be genuine and yet short, whole and yet stale), their first findings
//! and the counts that a reader needs to trust an `ok`. Never decides anything. Nothing here can fail.

use std::fmt;

use serde::Serialize;

use crate::{
    audit::entry::EntryRef,
    domain::{
        ids::{EntryId, OrgId},
        money::NanoUsd,
    },
};

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Where: the entry's sequence number or, for something absent, the earliest place where it can have stood. `None`
    /// if it concerns no place (a spoiled batch or checkpoint).
    pub seq: Option<u64>,
    /// Which entry, if it can be told.
    pub entry: Option<EntryRef>,
    /// What is wrong, in words.
    pub why: String,
}

impl Finding {
    /// About no place.
    pub fn about(why: String) -> Self {
        Self { seq: None, entry: None, why }
    }

    /// At a place whose entry cannot be told.
    pub fn at(seq: u64, why: String) -> Self {
        Self { seq: Some(seq), entry: None, why }
    }

    /// About an entry.
    pub fn of(seq: u64, id: &EntryId, why: String) -> Self {
        Self { seq: Some(seq), entry: Some(EntryRef { boot: id.boot.clone(), counter: id.counter }), why }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(seq) = self.seq {
            write!(f, "at {seq}")?;
        }
        if let Some(entry) = &self.entry {
            write!(f, " ({}/{})", entry.boot, entry.counter)?;
        }
        write!(f, "{}{}", if self.seq.is_some() { ": " } else { "" }, self.why)
    }
}

/// One question, answered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// How many things are wrong.
    pub findings: u64,
    /// The one that stands first in the chain; what has no place comes before all.
    pub first: Option<Finding>,
}

impl Verdict {
    /// Whether nothing is wrong.
    pub fn is_ok(&self) -> bool {
        self.findings == 0
    }

    /// Counts a finding and keeps it if it stands before the first so far.
    pub fn record(&mut self, finding: Finding) {
        self.findings += 1;
        if self.first.as_ref().is_none_or(|first| finding.seq < first.seq) {
            self.first = Some(finding);
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.first {
            None => write!(f, "ok"),
            Some(first) => write!(f, "BROKEN, {} found, first {first}", self.findings),
        }
    }
}

/// What was looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Entries in the chain.
    pub entries: u64,
    /// Batches whose signature holds.
    pub batches: u64,
    /// Stored checkpoints whose signature holds.
    pub checkpoints: u64,
    /// Entries that the newest of them covers.
    pub checkpointed: u64,
    /// Checkpoints from outside whose signature holds.
    pub anchors: u64,
    /// Entries that the newest of them covers.
    pub anchored: u64,
    /// Changes of configuration.
    pub changes: u64,
    /// Admissions.
    pub admissions: u64,
    /// Refusals.
    pub refusals: u64,
    /// Completions.
    pub completions: u64,
    /// Admissions without a closing entry.
    pub open: u64,
    /// Counters that live boots signed and have yet to write.
    pub pending: u64,
    /// What open admissions hold.
    pub held_nano: NanoUsd,
    /// What completions settled.
    pub settled_nano: NanoUsd,
}

/// The verifier's answer about one chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Whose chain.
    pub org: OrgId,
    /// Is every entry what was recorded, by whom, and in its place?
    pub integrity: Verdict,
    /// Is nothing missing?
    pub completeness: Verdict,
    /// Was every decision made under the configuration that was in force?
    pub freshness: Verdict,
    /// Does the money add up?
    pub budget: Verdict,
    /// What was looked at.
    pub counts: Counts,
}

impl Report {
    /// Nothing looked at yet.
    pub fn new(org: OrgId) -> Self {
        let ok = Verdict::default;
        Self { org, integrity: ok(), completeness: ok(), freshness: ok(), budget: ok(), counts: Counts::default() }
    }

    /// Whether all four verdicts are.
    pub fn is_ok(&self) -> bool {
        [&self.integrity, &self.completeness, &self.freshness, &self.budget].into_iter().all(Verdict::is_ok)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counts { entries, batches, checkpoints, checkpointed, anchors, anchored, .. } = self.counts;
        let Counts { changes, admissions, refusals, completions, open, pending, held_nano, settled_nano, .. } =
            self.counts;
        writeln!(f, "chain {}: {entries} entries in {batches} signed batches", self.org)?;
        writeln!(f, "  integrity:        {}", self.integrity)?;
        writeln!(f, "  completeness:     {}", self.completeness)?;
        writeln!(
            f,
            "    {checkpoints} stored checkpoints cover {checkpointed} entries, {pending} counters are pending"
        )?;
        if anchors == 0 {
            writeln!(f, "    no checkpoint from outside was given: entries cut off at the end cannot be missed")?;
        } else {
            let after = entries.saturating_sub(anchored);
            write!(f, "    {anchors} checkpoints from outside cover {anchored} entries; ")?;
            writeln!(f, "{after} are younger and could be cut off unseen")?;
        }
        writeln!(f, "  policy freshness: {}", self.freshness)?;
        writeln!(f, "    {changes} changes, {admissions} admissions, {refusals} refusals")?;
        writeln!(f, "  budget:           {}", self.budget)?;
        writeln!(f, "    {completions} completions settled {settled_nano}; {open} open admissions hold {held_nano}")
    }
}
