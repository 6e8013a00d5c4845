//! Self-verification: what is new on each chain is what was signed.
//!
//! Owns how far this process has followed each chain, in memory: a place that could be edited beside the record would be worth
//! nothing, so each process begins at the beginning once. Goes by pages and rests as long as it works. A finding is an alarm
//! (a log line, a number, a degraded health) until the same place is in order; the chain is not followed beyond it. Never
//! changes anything, and never replaces `tappass audit verify`, which needs no word of this database.

use std::{
    collections::{BTreeMap, HashMap},
    time::{Duration, Instant},
};

use tokio_util::sync::CancellationToken;

use super::lease::{Cluster, Job};
use crate::{
    audit::{self, Head, StoredEntry, verify::Follow},
    crypto::Jwks,
    domain::{
        digest::Digest,
        ids::{BootId, OrgId},
    },
    storage::{
        Sql, StorageError,
        sql::{BatchRow, EntryRow, ReadTx},
    },
};

/// Entries that are read at once.
const PAGE: u32 = 200;

/// Batches that are read at once.
const BATCHES: u32 = 100;

/// Batches of a boot are committed nearly in order of their numbers: so far back another one is looked for first.
const SLACK: u64 = 64;

/// Follows every chain.
pub(super) struct Verification {
    keys: Jwks,
    chains: HashMap<OrgId, Followed>,
    findings: HashMap<OrgId, String>,
}

struct Followed {
    follow: Follow,
    /// Up to which batch each boot was read.
    marks: HashMap<BootId, u64>,
}

/// The digests that stand in entries, by boot and counter, until a signature is found for them.
type Wanted = BTreeMap<String, BTreeMap<u64, Digest>>;

impl Verification {
    /// With the public keys that sign the record.
    pub(super) fn new(keys: Jwks) -> Self {
        Self { keys, chains: HashMap::new(), findings: HashMap::new() }
    }

    /// Verifies until stopped.
    pub(super) async fn look(&mut self, cluster: &Cluster, seconds: u64, stop: CancellationToken) {
        if seconds == 0 {
            return;
        }
        let every = Duration::from_secs(seconds);
        let job = Job { name: "verify", every, hold: every * 5 / 6 };
        let looks = async {
            loop {
                cluster.try_run(job, async |_| self.all(&cluster.sql).await).await;
                let found = i64::try_from(self.findings.len()).unwrap_or(i64::MAX);
                cluster.metrics.audit_findings.set(found);
                tokio::time::sleep(job.look()).await;
            }
        };
        tokio::select! {
            () = looks => {}
            () = stop.cancelled() => {}
        }
    }

    async fn all(&mut self, sql: &Sql) -> Result<(), StorageError> {
        let mut chains = sql.chains().await?;
        // A chain whose head row is gone was there before.
        chains.extend(self.chains.keys().filter(|known| !chains.contains(known)).cloned().collect::<Vec<_>>());
        for org in chains {
            // Kept where it is: a run that is ended in the middle goes on from there.
            let new = || Followed { follow: Follow::new(org.clone()), marks: HashMap::new() };
            let chain = self.chains.entry(org.clone()).or_insert_with(new);
            match chain.go_on(sql, &org, &self.keys).await? {
                Ok(()) => drop(self.findings.remove(&org)),
                Err(why) => {
                    tracing::error!(org.id = %org, finding = why, "alarm: the record does not verify");
                    self.findings.insert(org, why);
                }
            }
        }
        Ok(())
    }
}

impl Followed {
    async fn go_on(&mut self, sql: &Sql, org: &OrgId, keys: &Jwks) -> Result<Result<(), String>, StorageError> {
        loop {
            let began = Instant::now();
            let mut tx = sql.begin_read().await?;
            let paged = self.page(&mut tx, org, keys).await?;
            tx.end().await;
            match paged {
                Ok(true) => tokio::time::sleep(began.elapsed()).await,
                Ok(false) => return Ok(Ok(())),
                Err(why) => return Ok(Err(why)),
            }
        }
    }

    /// Whether there is more.
    async fn page(&mut self, tx: &mut ReadTx, org: &OrgId, keys: &Jwks) -> Result<Result<bool, String>, StorageError> {
        let before = self.follow.head().seq;
        let Some(head) = tx.head(org).await? else { return Ok(Err("its head is gone".to_owned())) };
        // The last one that was verified comes along: it must still be the same.
        let rows = tx.entries_after(org, before.saturating_sub(1), PAGE + 1).await?;
        if before > 0 && rows.first().is_none_or(|row| row.seq != before) {
            return Ok(Err(format!("entry {before} was there and is gone")));
        }
        let mut wanted = Wanted::new();
        for row in rows.iter().filter(|row| row.seq > before) {
            wanted.entry(row.boot.clone()).or_default().insert(row.counter, row.digest);
        }
        for (boot, counters) in &mut wanted {
            self.find_batches(tx, org, boot, counters, keys).await?;
        }
        let more = rows.len() > PAGE as usize;
        for row in rows {
            let EntryRow { boot, counter, .. } = &row;
            let found = wanted.get(boot).is_some_and(|left| !left.contains_key(counter));
            let (boot, counter) = (boot.clone(), *counter);
            let stored = StoredEntry { seq: row.seq, link: row.link, digest: row.digest, body: row.body };
            let followed = self.follow.entry(&stored, |id| found && id.boot.as_str() == boot && id.counter == counter);
            if let Err(why) = followed {
                return Ok(Err(why));
            }
        }
        if more {
            return Ok(Ok(true));
        }
        Ok(self.follow.end(Head { seq: head.seq, link: head.link }).map(|()| false))
    }

    /// Takes away what a batch with a valid signature wrote. Looks where the last ones were, then from the beginning.
    async fn find_batches(
        &mut self,
        tx: &mut ReadTx,
        org: &OrgId,
        name: &str,
        counters: &mut BTreeMap<u64, Digest>,
        keys: &Jwks,
    ) -> Result<(), StorageError> {
        let Ok(boot) = BootId::parse(name) else { return Ok(()) };
        let mark = self.marks.get(&boot).copied().unwrap_or(0);
        let mut furthest = 0;
        for from in [mark.saturating_sub(SLACK), 0] {
            furthest = furthest.max(read_batches(tx, org, &boot, from, counters, keys).await?);
            if counters.is_empty() || from == 0 {
                break;
            }
        }
        self.marks.insert(boot, mark.max(furthest));
        Ok(())
    }
}

/// The same, in a boot's batches from a number on until nothing is left; answers the last number that did it.
async fn read_batches(
    tx: &mut ReadTx,
    org: &OrgId,
    boot: &BootId,
    from: u64,
    counters: &mut BTreeMap<u64, Digest>,
    keys: &Jwks,
) -> Result<u64, StorageError> {
    let (mut after, mut furthest) = (from, 0);
    while !counters.is_empty() {
        let page = tx.batches_after(org, (boot.as_str(), after), BATCHES).await?;
        let its: Vec<BatchRow> = page.into_iter().filter(|row| row.boot == boot.as_str()).collect();
        let Some(last) = its.last() else { break };
        after = last.number;
        for row in its {
            let number = row.number;
            furthest = if cover(org, boot, row, counters, keys) { furthest.max(number) } else { furthest };
        }
    }
    Ok(furthest)
}

/// Whether a batch wrote any of these, which are taken away. Only such a batch's signature is checked: that is what costs.
fn cover(org: &OrgId, boot: &BootId, row: BatchRow, counters: &mut BTreeMap<u64, Digest>, keys: &Jwks) -> bool {
    let wrote = |batch: &audit::Batch, unwritten: &[u64], counters: &BTreeMap<u64, Digest>| -> Vec<u64> {
        let its = batch.items().iter().filter(|(counter, digest)| {
            counters.get(counter) == Some(digest) && unwritten.binary_search(counter).is_err()
        });
        its.map(|(counter, _)| *counter).collect()
    };
    let Ok(batch) = audit::Batch::parse(&row.message) else { return false };
    if wrote(&batch, &[], counters).is_empty() {
        return false;
    }
    let BatchRow { number, message, kid, signature, unwritten, .. } = row;
    let row = audit::BatchRow { org: org.clone(), boot: boot.clone(), number, message, kid, signature, unwritten };
    let Ok((batch, unwritten)) = row.verify(keys) else { return false };
    let written = wrote(&batch, &unwritten, counters);
    for counter in &written {
        counters.remove(counter);
    }
    !written.is_empty()
}
