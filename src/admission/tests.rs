//! The embedded rules and those of the SQL function are the same ones, and money adds up under both.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use proptest::{
    collection::vec,
    prelude::*,
    sample::subsequence,
    test_runner::{TestCaseError, TestRunner},
};

use super::{append::append, change, outbox::Outbox, writer::Writer, writer::WriterConfig};
use crate::{
    audit::{chain, kind},
    crypto::SigningKey,
    domain::{
        clock::{Clock as _, SystemClock, rfc3339},
        digest::Digest,
        ids::{BootId, EntryId, OrgId},
        money::NanoUsd,
        rows::{Table, Write},
        stamp::ConfigStamp,
    },
    storage::sql::{
        Act, Appended, BatchRow, ChangeRow, Changed, Group, Item, NewEntry, Seen, Verdict, Window, tests::Database,
    },
};

/// Windows keep their limits through a case, so that nothing ever stands above one.
const WINDOWS: [(&str, Option<i64>); 5] = [
    ("total:1", Some(100)),
    ("total:2", None),
    ("day:1:{day}", Some(150)),
    ("month:1:{month}", Some(60)),
    ("odd:{month}/{day}", Some(90)),
];

/// What a group says that it saw last.
#[derive(Clone, Copy, Debug)]
enum Known {
    Start,
    Newest,
    Earlier(usize),
    Foreign(usize),
    Ahead,
}

/// The stamp that a decision carries.
#[derive(Clone, Copy, Debug)]
enum Label {
    Right,
    Version,
    Tag,
    Digest,
    Nothing,
}

#[derive(Clone, Debug)]
enum What {
    Plain,
    Refusal(Label),
    /// `until`: in microseconds from now; 0: never.
    Admission {
        label: Label,
        amount: i64,
        windows: Vec<usize>,
        until: i64,
    },
    /// `of`: counts admissions from the newest; one too many is none. `settle`: in fourths of what was reserved.
    Completion {
        of: usize,
        settle: i64,
    },
    Extension {
        of: usize,
        amount: i64,
    },
    Late {
        by: i64,
        windows: Vec<usize>,
    },
}

#[derive(Clone, Debug)]
struct ItemPlan {
    what: What,
    /// Asks under an id that was given out before, counted from the newest, as after an unknown outcome.
    again: Option<usize>,
}

#[derive(Clone, Debug)]
struct GroupPlan {
    org: usize,
    boot: usize,
    known: Known,
    items: Vec<ItemPlan>,
}

#[derive(Clone, Debug)]
enum Step {
    Commit(Vec<GroupPlan>),
    Change { org: usize, boot: usize, known: Known, label: Label, again: bool },
    Close(usize),
}

/// `wild`: settles more than was reserved and corrects by anything, so that sums saturate and only equality is promised.
#[derive(Clone, Debug)]
struct Plan {
    wild: bool,
    steps: Vec<Step>,
}

fn label() -> impl Strategy<Value = Label> {
    prop_oneof![
        12 => Just(Label::Right),
        1 => Just(Label::Version),
        1 => Just(Label::Tag),
        1 => Just(Label::Digest),
        1 => Just(Label::Nothing),
    ]
}

fn known() -> impl Strategy<Value = Known> {
    prop_oneof![
        10 => Just(Known::Newest),
        4 => Just(Known::Start),
        4 => (0..9_usize).prop_map(Known::Earlier),
        1 => (0..9_usize).prop_map(Known::Foreign),
        1 => Just(Known::Ahead),
    ]
}

fn amount() -> impl Strategy<Value = i64> {
    prop_oneof![8 => 0..70_i64, 1 => Just(i64::MAX), 1 => Just(i64::MAX / 2)]
}

fn windows() -> impl Strategy<Value = Vec<usize>> {
    prop_oneof![
        1 => Just(vec![]),
        6 => subsequence((0..WINDOWS.len()).collect::<Vec<_>>(), 1..=3),
    ]
}

fn what() -> impl Strategy<Value = What> {
    let until = prop_oneof![4 => Just(0), 2 => Just(3_600_000_000), 1 => Just(-1), 1 => Just(-3_600_000_000)];
    let admission = (label(), amount(), windows(), until);
    prop_oneof![
        1 => Just(What::Plain),
        2 => label().prop_map(What::Refusal),
        8 => admission.prop_map(|(label, amount, windows, until)| What::Admission { label, amount, windows, until }),
        5 => (0..7_usize, 0..=4_i64).prop_map(|(of, settle)| What::Completion { of, settle }),
        3 => (0..7_usize, amount()).prop_map(|(of, amount)| What::Extension { of, amount }),
        2 => (-90..=0_i64, windows()).prop_map(|(by, windows)| What::Late { by, windows }),
    ]
}

fn wild_what() -> impl Strategy<Value = What> {
    let by = prop_oneof![Just(i64::MIN), Just(i64::MAX), -100..100_i64];
    prop_oneof![
        6 => what(),
        1 => (0..7_usize, 0..=40_i64).prop_map(|(of, settle)| What::Completion { of, settle }),
        1 => (by, windows()).prop_map(|(by, windows)| What::Late { by, windows }),
    ]
}

fn step(what: impl Strategy<Value = What>) -> impl Strategy<Value = Step> {
    let again = prop_oneof![5 => Just(None), 1 => (0..5_usize).prop_map(Some)];
    let item = (what, again).prop_map(|(what, again)| ItemPlan { what, again });
    let group = (0..2_usize, 0..2_usize, known(), vec(item, 1..13)).prop_map(|(org, boot, known, items)| GroupPlan {
        org,
        boot,
        known,
        items,
    });
    let change = (0..2_usize, 0..2_usize, known(), label(), any::<bool>());
    prop_oneof![
        12 => vec(group, 1..4).prop_map(Step::Commit),
        4 => change.prop_map(|(org, boot, known, label, again)| Step::Change { org, boot, known, label, again }),
        1 => (0..2_usize).prop_map(Step::Close),
    ]
}

fn plan() -> impl Strategy<Value = Plan> {
    let tame = vec(step(what()), 1..14).prop_map(|steps| Plan { wild: false, steps });
    let wild = vec(step(wild_what()), 1..14).prop_map(|steps| Plan { wild: true, steps });
    prop_oneof![3 => tame, 1 => wild]
}

/// One item, ready to be handed to either database.
struct Built {
    counter: u64,
    body: String,
    again: bool,
    act: OwnAct,
}

enum OwnAct {
    Plain,
    Refusal(ConfigStamp),
    Admission { stamp: ConfigStamp, amount: NanoUsd, windows: Vec<Window>, until: i64 },
    Completion { admission: EntryId, settle: NanoUsd },
    Extension { admission: EntryId, amount: NanoUsd },
    Late { by: NanoUsd, windows: Vec<Window> },
}

impl Built {
    fn item(&self) -> Item<'_> {
        let (kind, act) = match &self.act {
            OwnAct::Plain => ("note", Act::Plain),
            OwnAct::Refusal(stamp) => (kind::REFUSAL, Act::Refusal(*stamp)),
            OwnAct::Admission { stamp, amount, windows, until } => {
                (kind::ADMISSION, Act::Admission { stamp: *stamp, amount: *amount, windows, until: *until })
            }
            OwnAct::Completion { admission, settle } => {
                (kind::COMPLETION, Act::Completion { admission, settle: *settle })
            }
            OwnAct::Extension { admission, amount } => (kind::EXTENSION, Act::Extension { admission, amount: *amount }),
            OwnAct::Late { by, windows } => (kind::LATE, Act::Late { by: *by, windows }),
        };
        let digest = chain::digest(self.body.as_bytes());
        Item { counter: self.counter, kind, body: &self.body, digest, may_be_stored: self.again, act }
    }
}

struct BuiltGroup {
    org: usize,
    boot: BootId,
    batch: BatchRow,
    seen: Seen,
    items: Vec<Built>,
}

/// What is expected of one chain.
struct Chain {
    org: OrgId,
    heads: Vec<Seen>,
    stamp: ConfigStamp,
    /// Every id that asked for an admission, what for, and the windows once it is stored.
    asked: Vec<(EntryId, i64, Option<Vec<String>>)>,
    settled: BTreeMap<String, i128>,
    counters: [u64; 2],
    batches: u64,
    changes: Vec<(u64, String)>,
}

struct World<'a> {
    both: [&'a Database; 2],
    boots: [BootId; 2],
    chains: [Chain; 2],
    wild: bool,
}

impl<'a> World<'a> {
    async fn new(both: [&'a Database; 2], wild: bool) -> Self {
        static CASE: AtomicU64 = AtomicU64::new(0);
        let case = CASE.fetch_add(1, Ordering::Relaxed);
        let boots = ["b", "a"].map(|name| BootId::parse(&format!("boot_{case}_{name}")).unwrap());
        for database in both {
            for boot in &boots {
                database.sql.register_boot(boot, "1", Duration::from_secs(30)).await.unwrap();
            }
        }
        let chain = |name| Chain {
            org: OrgId::parse(&format!("org_{case}_{name}")).unwrap(),
            heads: vec![],
            stamp: ConfigStamp::NONE,
            asked: vec![],
            settled: BTreeMap::new(),
            counters: [0, 0],
            batches: 0,
            changes: vec![],
        };
        Self { both, boots, chains: [chain("B"), chain("a")], wild }
    }

    async fn step(&mut self, step: &Step) -> Result<(), TestCaseError> {
        match step {
            Step::Commit(groups) => self.commit(groups).await?,
            Step::Change { org, boot, known, label, again } => {
                self.change(*org, *boot, (*known, *label, *again)).await?;
            }
            Step::Close(boot) => {
                for database in self.both {
                    database.sql.close_boot(&self.boots[*boot]).await.unwrap();
                }
            }
        }
        for chain in &self.chains {
            same_rows(self.both, &chain.org).await?;
            if !self.wild {
                self.adds_up(chain).await?;
            }
        }
        Ok(())
    }

    async fn commit(&mut self, plans: &[GroupPlan]) -> Result<(), TestCaseError> {
        let mut places = BTreeSet::new();
        let mut built: Vec<BuiltGroup> = Vec::new();
        for plan in plans {
            if places.insert((plan.org, plan.boot)) {
                built.push(self.build(plan));
            }
        }
        built.sort_by(|a, b| (a.org, &a.boot).cmp(&(b.org, &b.boot)));
        // As the writer does.
        let alone = built.len() == 1;
        let now = SystemClock.now();
        let mut answers: Vec<Vec<Appended>> = Vec::new();
        for database in self.both {
            let mut groups: Vec<Group<'_>> = built.iter().map(|group| self.group(group)).collect();
            answers.push(append(&database.sql, &mut groups, alone, now).await.unwrap());
        }
        for (group, (embedded, shared)) in built.iter().zip(answers[0].iter().zip(&answers[1])) {
            let kinds: Vec<&str> = group.items.iter().map(|built| built.item().kind).collect();
            prop_assert_eq!(&embedded.verdicts, &shared.verdicts, "of {:?}", kinds);
            prop_assert_eq!(embedded.head, shared.head);
            self.learn(group, embedded);
        }
        Ok(())
    }

    fn group<'b>(&'b self, built: &'b BuiltGroup) -> Group<'b> {
        Group {
            org: &self.chains[built.org].org,
            boot: &built.boot,
            batch: &built.batch,
            seen: built.seen,
            items: built.items.iter().map(Built::item).collect(),
        }
    }

    fn build(&mut self, plan: &GroupPlan) -> BuiltGroup {
        let boot = self.boots[plan.boot].clone();
        let wild = self.wild;
        let chain = &mut self.chains[plan.org];
        chain.batches += 1;
        let batch = batch(&boot, chain.batches);
        let seen = chain.seen(plan.known);
        let mut used = BTreeSet::new();
        let mut items = Vec::new();
        for item in &plan.items {
            let newest = chain.counters[plan.boot];
            let old = item.again.and_then(|again| newest.checked_sub(again as u64));
            let old = old.filter(|counter| *counter > 0 && !used.contains(counter));
            let counter = old.unwrap_or(newest + 1);
            chain.counters[plan.boot] = newest.max(counter);
            used.insert(counter);
            let id = EntryId { org: chain.org.clone(), boot: boot.clone(), counter };
            let act = chain.act(&item.what, id, wild);
            let body = format!("{{\"{counter}\": \"ü\\\\ {}\"}}", items.len());
            items.push(Built { counter, body, again: old.is_some(), act });
        }
        BuiltGroup { org: plan.org, boot, batch, seen, items }
    }

    fn learn(&mut self, group: &BuiltGroup, said: &Appended) {
        let chain = &mut self.chains[group.org];
        if let Some((seq, link)) = said.head {
            chain.heads.push(Seen { seq, link });
        }
        for (built, verdict) in group.items.iter().zip(&said.verdicts) {
            let Verdict::Stored(names) = verdict else { continue };
            match &built.act {
                OwnAct::Admission { .. } => {
                    let id = EntryId { org: chain.org.clone(), boot: group.boot.clone(), counter: built.counter };
                    let names = names.split_whitespace().map(str::to_owned).collect();
                    let asked = chain.asked.iter_mut().rev().find(|(asked, _, _)| *asked == id).unwrap();
                    asked.2 = Some(names);
                }
                OwnAct::Completion { admission, settle } => {
                    let (_, _, names) = chain.asked.iter().rev().find(|(id, _, _)| id == admission).unwrap();
                    for name in names.iter().flatten() {
                        *chain.settled.entry(name.clone()).or_default() += i128::from(settle.0);
                    }
                }
                OwnAct::Late { by, windows } => {
                    for window in windows {
                        *chain.settled.entry(window.name.clone()).or_default() += i128::from(by.0);
                    }
                }
                OwnAct::Plain | OwnAct::Refusal(_) | OwnAct::Extension { .. } => {}
            }
        }
    }

    async fn change(
        &mut self,
        org: usize,
        boot: usize,
        (known, label, again): (Known, Label, bool),
    ) -> Result<(), TestCaseError> {
        let boot_id = self.boots[boot].clone();
        let chain = &mut self.chains[org];
        let stored = chain.changes.last().cloned().filter(|(_, of)| again && of == boot_id.as_str());
        let counter = stored.map_or(chain.counters[boot] + 1, |(counter, _)| counter);
        chain.counters[boot] = chain.counters[boot].max(counter);
        chain.batches += 1;
        let (seen, from) = (chain.seen(known), chain.label(label));
        let id = EntryId { org: chain.org.clone(), boot: boot_id.clone(), counter };
        let body = format!("{{\"change\": {counter}}}");
        let digest = chain::digest(body.as_bytes());
        let entry = NewEntry { seq: 0, id: &id, kind: "policy.published", body: &body, digest, link: Digest::ZERO };
        let produced = chain::digest(&[7, u8::try_from(counter % 200).unwrap()]);
        let put = |table, id: &str, body: Option<String>| Write { table, id: id.to_owned(), body };
        let writes = [
            put(Table::Agent, "one", Some(format!("{{\"n\": {counter}}}"))),
            put(Table::Policy, "two", (counter % 2 == 0).then(|| "{}".to_owned())),
        ];
        let batch = batch(&boot_id, chain.batches);
        let row = ChangeRow { entry: &entry, batch: &batch, seen, from, produced, writes: &writes };
        let embedded = change::write(&self.both[0].sql, &row).await.unwrap();
        let shared = change::write(&self.both[1].sql, &row).await;
        prop_assert!(shared.is_ok(), "{:?}", shared);
        let shared = shared.unwrap();
        prop_assert_eq!(&embedded, &shared);
        if let Changed::Stored(seq, link) = shared
            && chain.heads.last().is_none_or(|head| seq > head.seq)
        {
            chain.heads.push(Seen { seq, link });
            chain.stamp = ConfigStamp { version: from.version + 1, tag: link, digest: produced };
            chain.changes.push((counter, boot_id.to_string()));
        }
        Ok(())
    }

    /// Holds and settlements make up the sums, and nothing stands above its limit.
    async fn adds_up(&self, chain: &Chain) -> Result<(), TestCaseError> {
        for database in self.both {
            let mut sums: BTreeMap<String, (i128, i128)> = BTreeMap::new();
            for (name, settled) in &chain.settled {
                sums.entry(name.clone()).or_default().0 += settled;
            }
            for hold in database.holds(&chain.org).await {
                for window in hold.windows {
                    sums.entry(window.name).or_default().1 += i128::from(hold.amount.0);
                }
            }
            sums.retain(|_, sums| *sums != (0, 0));
            let spent = database.spent(&chain.org).await.into_iter();
            let spent: BTreeMap<String, (i128, i128)> =
                spent.map(|(name, sums)| (name, (sums.settled.0.into(), sums.held.0.into()))).collect();
            prop_assert_eq!(&spent, &sums);
            for (name, (settled, held)) in &spent {
                let kind = name.split([':', '/']).next().unwrap();
                let limit = WINDOWS.iter().find(|(other, _)| match kind {
                    "total" => other == name,
                    _ => other.starts_with(kind),
                });
                if let Some(limit) = limit.and_then(|(_, limit)| *limit) {
                    prop_assert!(settled + held <= limit.into(), "{}: {} and {}", name, settled, held);
                }
            }
        }
        Ok(())
    }
}

impl Chain {
    fn seen(&self, known: Known) -> Seen {
        let start = Seen { seq: 0, link: Digest::ZERO };
        let newest = self.heads.last().copied().unwrap_or(start);
        let earlier = |at: usize| self.heads.iter().rev().nth(at).copied().unwrap_or(start);
        match known {
            Known::Start => start,
            Known::Newest => newest,
            Known::Earlier(at) => earlier(at),
            Known::Foreign(at) => Seen { link: Digest([9; 32]), ..earlier(at) },
            Known::Ahead => Seen { seq: newest.seq + 1, ..newest },
        }
    }

    fn label(&self, label: Label) -> ConfigStamp {
        let right = self.stamp;
        match label {
            Label::Right => right,
            Label::Version => ConfigStamp { version: right.version + 1, ..right },
            Label::Tag => ConfigStamp { tag: Digest([8; 32]), ..right },
            Label::Digest => ConfigStamp { digest: Digest([8; 32]), ..right },
            Label::Nothing => ConfigStamp::NONE,
        }
    }

    fn target(&self, of: usize) -> (EntryId, i64) {
        let found = self.asked.iter().rev().nth(of).map(|(id, amount, _)| (id.clone(), *amount));
        found.unwrap_or_else(|| {
            (EntryId { org: self.org.clone(), boot: BootId::parse("boot_nobody").unwrap(), counter: 1 }, 5)
        })
    }

    fn act(&mut self, what: &What, id: EntryId, wild: bool) -> OwnAct {
        let named = |windows: &[usize]| -> Vec<Window> {
            let all = windows.iter().map(|at| WINDOWS[*at]);
            all.map(|(name, limit)| Window { name: name.to_owned(), limit: limit.map(NanoUsd) }).collect()
        };
        match what {
            What::Plain => OwnAct::Plain,
            What::Refusal(label) => OwnAct::Refusal(self.label(*label)),
            What::Admission { label, amount, windows, until } => {
                match self.asked.iter_mut().find(|(asked, _, _)| *asked == id) {
                    Some((_, _, Some(_))) => {}
                    Some((_, asked, None)) => *asked = *amount,
                    None => self.asked.push((id, *amount, None)),
                }
                let until = if *until == 0 { 0 } else { SystemClock.now() + until };
                OwnAct::Admission {
                    stamp: self.label(*label),
                    amount: NanoUsd(*amount),
                    windows: named(windows),
                    until,
                }
            }
            What::Completion { of, settle } => {
                let (admission, amount) = self.target(*of);
                let settle = if wild { amount.saturating_mul(*settle) } else { amount / 4 * settle };
                OwnAct::Completion { admission, settle: NanoUsd(settle) }
            }
            What::Extension { of, amount } => {
                OwnAct::Extension { admission: self.target(*of).0, amount: NanoUsd(*amount) }
            }
            What::Late { by, windows } => {
                // By their full names, which its admission was told.
                let now = rfc3339(SystemClock.now());
                let (day, month) = (now.get(..10).unwrap(), now.get(..7).unwrap());
                let mut windows = named(windows);
                for window in &mut windows {
                    window.name = window.name.replace("{day}", day).replace("{month}", month);
                }
                OwnAct::Late { by: NanoUsd(*by), windows }
            }
        }
    }
}

fn batch(boot: &BootId, number: u64) -> BatchRow {
    BatchRow {
        boot: boot.as_str().to_owned(),
        number,
        message: vec![1, 0, 255],
        kid: format!("key {}", number % 3),
        signature: vec![2, 0],
        unwritten: "[]".to_owned(),
    }
}

/// Everything that an append or a change writes, in both databases.
async fn same_rows(both: [&Database; 2], org: &OrgId) -> Result<(), TestCaseError> {
    let mut seen = Vec::new();
    for database in both {
        let mut tx = database.sql.begin_read().await.unwrap();
        // A chain without entries may have a head already.
        let head = tx.head(org).await.unwrap().filter(|head| head.seq > 0);
        let entries = tx.entries_after(org, 0, 10_000).await.unwrap();
        let batches = tx.batches_after(org, ("", 0), 10_000).await.unwrap();
        let rows = tx.config_rows(org).await.unwrap().digest();
        tx.end().await;
        let batches: Vec<_> = batches.into_iter().map(|row| format!("{row:?}")).collect();
        let entries: Vec<_> = entries.into_iter().map(|row| format!("{row:?}")).collect();
        seen.push((head, entries, batches, rows, database.holds(org).await, database.spent(org).await));
    }
    let (embedded, shared) = (&seen[0], &seen[1]);
    prop_assert_eq!(&embedded.0, &shared.0);
    prop_assert_eq!(&embedded.1, &shared.1);
    prop_assert_eq!(&embedded.2, &shared.2);
    prop_assert_eq!(&embedded.3, &shared.3);
    prop_assert_eq!(&embedded.4, &shared.4);
    prop_assert_eq!(&embedded.5, &shared.5);
    Ok(())
}

fn today() -> i64 {
    SystemClock.now() / 86_400_000_000
}

#[test]
fn the_embedded_rules_and_the_sql_function_say_and_write_the_same() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let both = runtime.block_on(async { (Database::new().await, Database::postgres().await) });
    let config =
        ProptestConfig { cases: 40, failure_persistence: None, max_shrink_iters: 400, ..ProptestConfig::default() };
    let outcome = TestRunner::new(config).run(&plan(), |plan| {
        let day = today();
        let outcome = runtime.block_on(async {
            let mut world = World::new([&both.0, &both.1], plan.wild).await;
            for step in &plan.steps {
                world.step(step).await?;
            }
            Ok(())
        });
        // At midnight the two databases may name their windows after different days.
        if day == today() { outcome } else { Ok(()) }
    });
    runtime.block_on(async {
        both.0.sql.close().await;
        both.1.sql.close().await;
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
}

/// Runs a test beside a writer, which has another boot to go on as.
async fn beside_a_writer(database: &Database, test: impl AsyncFnOnce(Outbox)) {
    let (sql, next) = (database.sql.clone(), BootId::parse("boot_next").unwrap());
    let boot = BootId::parse("boot_first").unwrap();
    for boot in [&boot, &next] {
        sql.register_boot(boot, "1", Duration::from_secs(30)).await.unwrap();
    }
    let key = Arc::new(SigningKey::from_seed(&SigningKey::generate().unwrap()).unwrap());
    let bounds = WriterConfig { max_batch: 12, linger: Duration::ZERO, max_backlog_bytes: 1 << 20 };
    let reborn = Box::new(move || {
        let next = next.clone();
        Box::pin(async { Ok(next) }) as _
    });
    let (writer, outbox) = Writer::new(
        sql,
        boot,
        Arc::new(SystemClock),
        key,
        (bounds, reborn),
        tokio_util::sync::CancellationToken::new(),
    );
    tokio::select! {
        _ = writer.run() => panic!("nobody stopped the writer"),
        () = test(outbox) => {}
    }
}

#[tokio::test]
async fn a_history_that_was_lost_stops_its_chain_for_good_also_under_the_next_boot() {
    for database in [Database::new().await, Database::postgres().await] {
        beside_a_writer(&database, async |outbox| {
            let org = OrgId::parse("org_a").unwrap();
            let note = async || {
                outbox.note(&org, "note", &serde_json::json!({})).unwrap();
                assert!(outbox.flush().await);
                database.sql.head(&org).await.unwrap().map_or(0, |head| head.seq)
            };
            assert_eq!((note().await, note().await), (1, 2));
            // A restore from before the second entry, after which somebody else wrote two.
            database.tamper("UPDATE audit_entry SET link = digest WHERE seq = 2").await;
            database.tamper("UPDATE audit_head SET seq = 3").await;
            assert_eq!((note().await, note().await), (3, 3));
            database.tamper("UPDATE boot SET closed = 1 WHERE id = 'boot_first'").await;
            assert_eq!((note().await, note().await), (3, 3));
            assert_eq!(outbox.boot().as_str(), "boot_next");
            // Nothing of the chain is left at all.
            database.tamper("DELETE FROM audit_head").await;
            assert_eq!((note().await, note().await), (0, 0));
        })
        .await;
    }
}
