//! Honest chains of several boots, for the tests of the verifier beside this file.

use std::{collections::VecDeque, fmt};

use serde_json::{Value, json};

use super::*;
use crate::{
    audit::{
        batch::{Batch, render_counters},
        entry::{Entry, EntryRef, Header, Produced},
        export::{ExportHeader, Writer},
    },
    crypto::{Seed, SigningKey, sha256},
};

mod files;
mod properties;
mod tampering;
mod verdicts;

/// What a boot asks the writer for.
#[derive(Clone)]
struct Ask {
    counter: u64,
    kind: &'static str,
    content: Value,
    config: ConfigStamp,
    /// Signed, and left out by the commit.
    left_out: bool,
}

struct Boot {
    id: BootId,
    key: SigningKey,
    counter: u64,
    batches: u64,
    seen: Head,
}

/// A gateway with several boots on one chain, as far as the record shows it.
struct World {
    org: OrgId,
    boots: Vec<Boot>,
    head: Head,
    config: ConfigStamp,
    old_config: ConfigStamp,
    entries: Vec<StoredEntry>,
    batches: Vec<BatchRow>,
    checkpoints: Vec<String>,
    frontier: Frontier,
    open: VecDeque<EntryRef>,
}

/// What a failing property shows of its world.
impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts = self.entries.iter().map(|entry| entry.body.as_str());
        let left_out = self.batches.iter().map(|row| (row.boot.as_str(), row.number, row.unwritten.as_str()));
        f.debug_list().entries(texts).entries(left_out).finish()
    }
}

const ORIGIN: &str = "gateway.example/audit/org_a";

impl World {
    fn new() -> Self {
        let boot = |n: u8| Boot {
            id: BootId::parse(&format!("boot_{n}")).unwrap(),
            key: SigningKey::from_seed(&Seed::new([n; 32])).unwrap(),
            counter: 0,
            batches: 0,
            seen: Head::START,
        };
        let mut world = Self {
            org: OrgId::parse("org_a").unwrap(),
            boots: vec![boot(1), boot(2), boot(3)],
            head: Head::START,
            config: ConfigStamp::NONE,
            old_config: ConfigStamp::NONE,
            entries: vec![],
            batches: vec![],
            checkpoints: vec![],
            frontier: Frontier::default(),
            open: VecDeque::new(),
        };
        world.change(0);
        world
    }

    /// A chain with something of everything, a checkpoint in the middle and one near the end.
    fn busy() -> Self {
        let mut world = Self::new();
        for round in 0..6 {
            world.admit(0, 3);
            world.stale(1);
            world.refuse(2);
            world.complete(1);
            world.change(round % 3);
            world.asked_again(1);
            world.complete(0);
            if round % 3 == 2 {
                world.checkpoint();
            }
        }
        world.admit(2, 2);
        world.complete(2);
        world
    }

    fn keys(&self) -> Jwks {
        Jwks::new(self.boots.iter().map(|boot| boot.key.public().clone()))
    }

    fn evidence(&self) -> Evidence {
        Evidence {
            org: self.org.clone(),
            origin: ORIGIN.to_owned(),
            head: Some(self.head),
            config: Some(self.config),
            batches: self.batches.clone(),
            checkpoints: self.checkpoints.clone(),
            anchors: self.checkpoints.iter().rev().take(1).cloned().collect(),
            closed: HashSet::new(),
        }
    }

    fn report(&self) -> Report {
        verify(self.evidence(), &self.keys(), self.entries.clone())
    }

    fn counter(&mut self, boot: usize) -> u64 {
        self.boots[boot].counter += 1;
        self.boots[boot].counter
    }

    fn ask(&mut self, boot: usize, kind: &'static str, content: Value) -> Ask {
        Ask { counter: self.counter(boot), kind, content, config: self.config, left_out: false }
    }

    fn build(&self, boot: usize, ask: &Ask) -> Entry {
        let Ask { counter, kind, ref content, config, .. } = *ask;
        let time = 1_700_000_000_000_000 + i64::try_from(self.entries.len()).unwrap();
        Entry::build(&Header { org: &self.org, boot: &self.boots[boot].id, counter, config, kind, time }, content)
            .unwrap()
    }

    /// One commit: signs everything, appends what is not left out.
    fn commit(&mut self, boot: usize, asks: &[Ask]) {
        let entries: Vec<Entry> = asks.iter().map(|ask| self.build(boot, ask)).collect();
        self.commit_built(boot, asks, entries);
    }

    fn commit_built(&mut self, boot: usize, asks: &[Ask], entries: Vec<Entry>) {
        let items = asks.iter().zip(&entries).map(|(ask, entry)| (ask.counter, entry.digest)).collect();
        let Boot { id, key, batches, seen, .. } = &mut self.boots[boot];
        *batches += 1;
        let mut row = Batch::new(self.org.clone(), id.clone(), *batches, *seen, items).unwrap().sign(key);
        let left_out: Vec<u64> = asks.iter().filter(|ask| ask.left_out).map(|ask| ask.counter).collect();
        row.unwritten = render_counters(&left_out);
        self.batches.push(row);
        for (_, entry) in asks.iter().zip(entries).filter(|(ask, _)| !ask.left_out) {
            self.head = self.head.next(&entry.digest);
            self.frontier.push(&entry.digest);
            let Head { seq, link } = self.head;
            self.entries.push(StoredEntry { seq, link, digest: entry.digest, body: entry.body });
        }
        self.boots[boot].seen = self.head;
    }

    fn change(&mut self, boot: usize) {
        let produced = Produced { digest: sha256(&[&self.head.link.0]), version: self.config.version + 1 };
        let ask = self.ask(boot, "policy.published", json!({ "produced": produced }));
        self.commit(boot, &[ask]);
        self.old_config = self.config;
        self.config = ConfigStamp { version: produced.version, tag: self.head.link, digest: produced.digest };
    }

    fn admit(&mut self, boot: usize, count: usize) {
        let asks: Vec<Ask> = (0..count)
            .map(|_| self.ask(boot, kind::ADMISSION, json!({"reserved_nano": 900, "model": "größe"})))
            .collect();
        let id = self.boots[boot].id.clone();
        self.open.extend(asks.iter().map(|ask| EntryRef { boot: id.clone(), counter: ask.counter }));
        self.commit(boot, &asks);
    }

    /// Asked under an old version beside an honest refusal, then under the same id as it is now.
    fn stale(&mut self, boot: usize) {
        let mut stale = self.ask(boot, kind::ADMISSION, json!({"reserved_nano": 7}));
        let honest = self.ask(boot, kind::REFUSAL, json!({"rule": "r"}));
        stale.config = self.old_config;
        stale.left_out = true;
        self.commit(boot, &[stale.clone(), honest]);
        stale.config = self.config;
        stale.left_out = false;
        self.open.push_back(EntryRef { boot: self.boots[boot].id.clone(), counter: stale.counter });
        self.commit(boot, &[stale]);
    }

    /// The commit's answer was lost: asked again with the same bytes and found to be there.
    fn asked_again(&mut self, boot: usize) {
        let mut ask = self.ask(boot, kind::REFUSAL, json!({"rule": "again"}));
        let entry = self.build(boot, &ask);
        self.commit_built(boot, &[ask.clone()], vec![entry.clone()]);
        let other = self.ask(boot, kind::REFUSAL, json!({"rule": "new"}));
        let built = self.build(boot, &other);
        ask.left_out = true;
        self.commit_built(boot, &[ask, other], vec![entry, built]);
    }

    fn refuse(&mut self, boot: usize) {
        let ask = self.ask(boot, kind::REFUSAL, json!({"rule": "block"}));
        self.commit(boot, &[ask]);
    }

    fn complete(&mut self, boot: usize) {
        if let Some(admission) = self.open.pop_front() {
            let ask = self.ask(boot, kind::COMPLETION, json!({"admission": admission, "settled_nano": 7}));
            self.commit(boot, &[ask]);
        }
    }

    fn checkpoint(&mut self) {
        let checkpoint = Checkpoint { origin: ORIGIN.to_owned(), root: self.frontier.root(), head: self.head };
        self.checkpoints.push(checkpoint.sign(&self.boots[0].key));
    }

    fn position(&self, wanted: &str) -> usize {
        let middle = self.entries.len() / 3;
        middle + self.entries[middle..].iter().position(|entry| entry.body.contains(wanted)).unwrap()
    }
}

/// Numbers the entries anew and computes all links, as somebody with the database can.
fn relink(entries: &mut [StoredEntry]) -> Head {
    let mut head = Head::START;
    for entry in entries {
        head = head.next(&entry.digest);
        (entry.seq, entry.link) = (head.seq, head.link);
    }
    head
}

/// The same, digests included.
fn rehash(entries: &mut [StoredEntry]) -> Head {
    for entry in &mut *entries {
        entry.digest = chain::digest(entry.body.as_bytes());
    }
    relink(entries)
}

fn first(verdict: &Verdict) -> (Option<u64>, &str) {
    let finding = verdict.first.as_ref().expect("a finding");
    (finding.seq, finding.why.split(':').next().unwrap())
}

fn exported(world: &World) -> Vec<u8> {
    let evidence = world.evidence();
    let header = ExportHeader::new(evidence.org, evidence.origin, evidence.head, evidence.config);
    let mut writer = Writer::open(Vec::new(), &header).unwrap();
    for row in &evidence.batches {
        writer.batch(row).unwrap();
    }
    for note in &evidence.checkpoints {
        writer.checkpoint(note).unwrap();
    }
    for entry in &world.entries {
        writer.entry(entry).unwrap();
    }
    writer.finish().unwrap()
}
