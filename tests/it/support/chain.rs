//! The record, as an export tells it.
//!
//! Owns the reading of `tappass audit export` and the questions that tests ask of it. Never checks a digest or a
//! signature: `tappass audit verify` does, and tests of tampering ask it. All knowledge of field names stands here.

use std::collections::HashSet;

use serde_json::Value;

/// One entry of the organization's chain.
#[derive(Clone, Debug)]
pub struct Entry {
    pub body: Value,
    pub text: String,
}

impl Entry {
    pub fn kind(&self) -> &str {
        self.body["kind"].as_str().unwrap_or("")
    }

    /// (boot, counter), which names the entry for ever.
    pub fn id(&self) -> (String, u64) {
        (self.body["boot"].as_str().unwrap_or("").to_owned(), self.body["counter"].as_u64().unwrap_or(0))
    }

    /// The same as answers name it.
    pub fn name(&self) -> String {
        let (boot, counter) = self.id();
        format!("{boot}-{counter}")
    }

    /// The configuration version under which it was made; of a change, the one that it started from.
    pub fn version(&self) -> u64 {
        self.body["config"]["version"].as_u64().unwrap_or(0)
    }

    /// The configuration version that a change made.
    pub fn produced(&self) -> Option<u64> {
        self.content()["produced"]["version"].as_u64()
    }

    pub fn content(&self) -> &Value {
        &self.body["content"]
    }

    pub fn is_admission(&self) -> bool {
        self.kind() == "admission"
    }

    pub fn is_refusal(&self) -> bool {
        self.kind() == "refusal"
    }

    /// A completion, also one that recovery wrote for a request whose end nobody knows.
    pub fn is_closing(&self) -> bool {
        self.kind() == "completion"
    }

    /// How the request ended, of a closing entry.
    pub fn outcome(&self) -> &str {
        self.content()["outcome"].as_str().unwrap_or("")
    }

    /// What the request cost, in nano-dollars, of a closing entry.
    pub fn settled(&self) -> u64 {
        self.content()["settled_nano"].as_u64().expect("a closing entry settles")
    }

    /// What an admission holds, in nano-dollars.
    pub fn reserved(&self) -> u64 {
        self.content()["reserved_nano"].as_u64().expect("an admission reserves")
    }

    /// Whether usage was counted by us because the provider did not say.
    pub fn is_estimated(&self) -> bool {
        self.text.contains("\"estimated\":true")
    }

    /// The admission that this entry closes.
    pub fn closes(&self) -> Option<(String, u64)> {
        let admission = &self.content()["admission"];
        Some((admission["boot"].as_str()?.to_owned(), admission["counter"].as_u64()?))
    }

    /// Whether a text (an id, a step, an outcome) stands anywhere in the entry.
    pub fn mentions(&self, text: &str) -> bool {
        self.text.contains(text)
    }
}

/// One organization's chain, in its order.
#[derive(Clone, Debug)]
pub struct Chain {
    pub entries: Vec<Entry>,
}

impl Chain {
    /// Reads an export: one JSON value per line, entries among other records.
    pub fn parse(export: &str) -> Self {
        let mut entries = Vec::new();
        for line in export.lines().filter(|line| !line.trim().is_empty()) {
            let record: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("an export line: {line}"));
            // Entries stand among batches, checkpoints and heads; each has its exact text.
            let Some(text) = record["body"].as_str().or(record["entry"]["body"].as_str()) else { continue };
            let body: Value = serde_json::from_str(text).expect("a body is canonical JSON");
            entries.push(Entry { body, text: text.to_owned() });
        }
        Self { entries }
    }

    pub fn admissions(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(|entry| entry.is_admission())
    }

    pub fn refusals(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(|entry| entry.is_refusal())
    }

    pub fn closings(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(|entry| entry.is_closing())
    }

    /// The closing entries of one admission.
    pub fn closings_of(&self, admission: &Entry) -> Vec<&Entry> {
        self.closings().filter(|entry| entry.closes().as_ref() == Some(&admission.id())).collect()
    }

    /// Admissions that nothing has closed yet.
    pub fn open(&self) -> Vec<&Entry> {
        let closed: HashSet<_> = self.closings().filter_map(Entry::closes).collect();
        self.admissions().filter(|admission| !closed.contains(&admission.id())).collect()
    }

    /// No entry stands twice, and every admission has exactly one closing entry, which has its admission. Answers what
    /// the closing entries settled together.
    #[track_caller]
    pub fn assert_whole(&self) -> u64 {
        let mut ids = HashSet::new();
        for entry in &self.entries {
            assert!(ids.insert(entry.id()), "an entry stands twice: {}", entry.text);
        }
        let mut open: HashSet<_> = self.admissions().map(Entry::id).collect();
        for closing in self.closings() {
            let closed = closing.closes().is_some_and(|admission| open.remove(&admission));
            assert!(closed, "closed twice, or never admitted: {}", closing.text);
        }
        assert!(open.is_empty(), "admissions that nothing closed: {open:?}");
        self.closings().map(Entry::settled).sum()
    }

    /// The admission that an answer names.
    pub fn admission(&self, id: &str) -> Option<&Entry> {
        self.admissions().find(|entry| entry.name() == id)
    }

    /// By how much late ends corrected what recovery had settled, in nano-dollars.
    pub fn corrected(&self) -> i64 {
        let late = self.entries.iter().filter(|entry| entry.kind() == "late");
        late.map(|entry| entry.content()["by_nano"].as_i64().expect("a late end corrects")).sum()
    }

    /// Checks the order of decisions and changes alone: between two changes every decision carries the version that the
    /// first one made.
    #[track_caller]
    pub fn assert_fresh(&self) {
        let mut current = None;
        for entry in &self.entries {
            if let (true, Some(version)) = (entry.is_admission() || entry.is_refusal(), current) {
                assert_eq!(entry.version(), version, "a stale decision: {}", entry.text);
            }
            current = entry.produced().or(current);
        }
    }

    /// The newest closing entry.
    pub fn last_closing(&self) -> Option<&Entry> {
        self.closings().last()
    }
}
