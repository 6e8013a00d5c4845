//! The writer: one task that turns what waits into commits.
//!
//! Owns the order of commits, this boot's batches per chain and the latch. Takes what waits (at most `max_batch`) and
//! commits it at once; a completion alone lingers for a few milliseconds so that it can share an admission's commit.
//! After a commit of unknown outcome everything in it is asked again under the same ids until the database has answered.
//! When the database cannot be written, admissions and refusals are answered `Unavailable`, completions are kept, and the
//! latch stays until a commit succeeds.

use std::{
    collections::{HashMap, VecDeque},
    sync::atomic::Ordering,
    time::Duration,
};

use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, timeout_at},
};

use super::{
    append::{Commit, Group},
    change::{ChangeJob, Maker},
    outbox::{Outbox, Reserve},
    question::{Answer, Question},
};
use crate::{
    audit::{Batch, Entry, Head},
    crypto::SigningKey,
    domain::{
        clock::Clock,
        digest::Digest,
        ids::{BootId, EntryId, OrgId},
        money::NanoUsd,
        stamp::ConfigStamp,
    },
    storage::{Sql, StorageError, sql::BatchRow},
};

/// How long the writer waits before it tries a database again that could not be written.
const RETRY: Duration = Duration::from_millis(200);

/// Bounds of the writer.
#[derive(Clone, Copy, Debug)]
pub struct WriterConfig {
    /// Most entries in one commit.
    pub max_batch: usize,
    /// How long a completion waits for company.
    pub linger: Duration,
    /// Bytes that may wait before admissions are refused.
    pub max_backlog_bytes: usize,
}

/// Something that waits for the writer.
#[expect(clippy::large_enum_variant, reason = "nearly every item is an append; boxing each would cost more")]
pub(super) enum Item {
    Append(Append),
    Change(ChangeJob),
    Flush(oneshot::Sender<bool>),
}

/// An entry that waits for its commit.
pub(super) struct Append {
    pub(super) entry: Entry,
    pub(super) stamp: ConfigStamp,
    pub(super) what: What,
    /// An earlier attempt may have been committed: look the id up first.
    pub(super) may_be_stored: bool,
}

/// What an entry does besides being recorded, and who waits for it.
pub(super) enum What {
    Admission { question: Question, reserve: Reserve, reply: oneshot::Sender<Answer> },
    Refusal { question: Question, reply: oneshot::Sender<Answer> },
    Completion { id: EntryId, admission: EntryId, settle: NanoUsd },
    Plain { id: EntryId, kind: &'static str },
}

impl Append {
    pub(super) fn id(&self) -> &EntryId {
        match &self.what {
            What::Admission { question, .. } | What::Refusal { question, .. } => question.id(),
            What::Completion { id, .. } | What::Plain { id, .. } => id,
        }
    }

    pub(super) fn kind(&self) -> &'static str {
        match &self.what {
            What::Admission { .. } => crate::audit::kind::ADMISSION,
            What::Refusal { .. } => crate::audit::kind::REFUSAL,
            What::Completion { .. } => crate::audit::kind::COMPLETION,
            What::Plain { kind, .. } => kind,
        }
    }

    /// Whether somebody waits for it.
    fn is_urgent(&self) -> bool {
        matches!(self.what, What::Admission { .. } | What::Refusal { .. })
    }
}

/// What this boot knows of one chain.
pub(super) struct ChainState {
    /// The head that this boot saw last.
    pub(super) seen: Head,
    next_batch: u64,
}

impl Default for ChainState {
    fn default() -> Self {
        Self { seen: Head::START, next_batch: 1 }
    }
}

impl ChainState {
    /// Signs what is about to be appended. A lost commit leaves a gap in the numbers, never a number twice.
    pub(super) fn sign(
        &mut self,
        org: &OrgId,
        boot: &BootId,
        items: Vec<(u64, Digest)>,
        key: &SigningKey,
    ) -> Result<BatchRow, StorageError> {
        let number = self.next_batch;
        self.next_batch += 1;
        let batch = Batch::new(org.clone(), boot.clone(), number, self.seen, items);
        let batch = batch.map_err(|_| StorageError::Inconsistent { table: "audit_batch" })?.sign(key);
        Ok(BatchRow {
            boot: batch.boot.as_str().to_owned(),
            number,
            message: batch.message,
            kid: batch.kid,
            signature: batch.signature,
            unwritten: batch.unwritten,
        })
    }
}

/// The writer.
pub struct Writer {
    sql: Sql,
    outbox: Outbox,
    items: mpsc::UnboundedReceiver<Item>,
    key: SigningKey,
    config: WriterConfig,
    chains: HashMap<OrgId, ChainState>,
    /// What has to be asked again, before anything newer.
    again: VecDeque<Append>,
    stop: tokio_util::sync::CancellationToken,
}

impl Writer {
    /// A writer and the handle on it. It ends when `stop` is cancelled and everything that waits has been committed, or
    /// cannot be.
    pub fn new(
        sql: Sql,
        boot: BootId,
        clock: std::sync::Arc<dyn Clock>,
        key: SigningKey,
        config: WriterConfig,
        stop: tokio_util::sync::CancellationToken,
    ) -> (Self, Outbox) {
        let (outbox, items) = Outbox::new(boot, clock, config.max_backlog_bytes);
        let writer = Self {
            sql,
            outbox: outbox.clone(),
            items,
            key,
            config,
            chains: HashMap::new(),
            again: VecDeque::new(),
            stop,
        };
        (writer, outbox)
    }

    /// Runs until stopped; answers whether everything was written.
    pub async fn run(mut self) -> bool {
        let stop = self.stop.clone();
        loop {
            let first = if self.again.is_empty() {
                tokio::select! {
                    biased;
                    item = self.items.recv() => item,
                    () = stop.cancelled() => self.items.try_recv().ok(),
                }
            } else {
                self.items.try_recv().ok()
            };
            if first.is_none() && self.again.is_empty() {
                return true;
            }
            let round = self.gather(first).await;
            self.commit(round).await;
            if !self.outbox.is_writable() {
                if stop.is_cancelled() {
                    return self.last_try().await;
                }
                tokio::time::sleep(RETRY).await;
            }
        }
    }

    /// Takes what waits. Lingers only if nobody waits for an answer.
    async fn gather(&mut self, first: Option<Item>) -> Round {
        let mut round = Round::default();
        let take = self.again.len().min(self.config.max_batch);
        round.appends.extend(self.again.drain(..take));
        let mut next = first;
        let until = Instant::now() + self.config.linger;
        loop {
            let urgent = match next {
                Some(Item::Append(append)) => {
                    let urgent = append.is_urgent();
                    round.appends.push(append);
                    urgent || round.urgent
                }
                Some(Item::Change(job)) => {
                    round.changes.push(job);
                    true
                }
                Some(Item::Flush(reply)) => {
                    round.flushes.push(reply);
                    true
                }
                None => true,
            };
            round.urgent = urgent;
            if round.appends.len() >= self.config.max_batch || !round.changes.is_empty() || !round.flushes.is_empty() {
                return round;
            }
            next = match self.items.try_recv() {
                Ok(item) => Some(item),
                Err(_) if round.urgent || self.stop.is_cancelled() => return round,
                Err(_) => match timeout_at(until, self.items.recv()).await {
                    Ok(Some(item)) => Some(item),
                    Ok(None) | Err(_) => return round,
                },
            };
        }
    }

    async fn commit(&mut self, round: Round) {
        self.append(round.appends).await;
        for job in round.changes {
            self.change(job).await;
        }
        for reply in round.flushes {
            let done = self.again.is_empty() && self.outbox.is_writable();
            if reply.send(done).is_err() {
                tracing::debug!("nobody waits for a flush any more");
            }
        }
    }

    async fn change(&mut self, job: ChangeJob) {
        let chain = self.chains.entry(job.org.clone()).or_default();
        let maker = Maker { sql: &self.sql, outbox: &self.outbox, key: &self.key };
        let result = maker.make(&job.org, job.make, chain).await;
        drop(job.reply.send(result));
    }

    /// Commits appends: one transaction, one group per chain, an answer per entry.
    ///
    /// A statement that the database refuses fails its transaction; so that one such entry cannot stop the others, the
    /// batch is halved until the entry stands alone.
    async fn append(&mut self, appends: Vec<Append>) {
        let mut left = vec![appends];
        while let Some(appends) = left.pop() {
            if appends.is_empty() {
                continue;
            }
            let several = appends.len() > 1;
            if let Some(mut first) = self.attempt(appends, several).await {
                let second = first.split_off(first.len() / 2);
                left.push(second);
                left.push(first);
            }
        }
    }

    /// One transaction. Answers the entries again if they are to be tried in smaller parts.
    async fn attempt(&mut self, appends: Vec<Append>, several: bool) -> Option<Vec<Append>> {
        let mut groups = match self.groups(appends) {
            Ok(groups) => groups,
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "a batch cannot be signed");
                return None;
            }
        };
        let result = Commit { sql: &self.sql, key: &self.key }.run(&mut groups).await;
        match result {
            Ok(()) => {
                self.outbox.shared.latched.store(false, Ordering::Release);
                for group in groups {
                    if let Some(chain) = self.chains.get_mut(&group.org) {
                        chain.seen = group.head_after();
                    }
                    self.answer(group);
                }
            }
            Err(StorageError::Unknown(error)) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "the outcome of a commit is unknown: asking again"
                );
                self.latch();
                for group in groups {
                    let appends = group.into_appends();
                    self.again.extend(appends.map(|append| Append { may_be_stored: true, ..append }));
                }
            }
            Err(error) if several && !error.is_outage() => {
                tracing::error!(error = &error as &dyn std::error::Error, "an entry is refused by the database");
                return Some(groups.into_iter().flat_map(Group::into_appends).collect());
            }
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "the record cannot be written");
                self.latch();
                for group in groups {
                    self.give_up(group);
                }
            }
        }
        None
    }

    fn latch(&self) {
        self.outbox.shared.latched.store(true, Ordering::Release);
    }

    fn groups(&mut self, appends: Vec<Append>) -> Result<Vec<Group>, StorageError> {
        let mut by_org: Vec<(OrgId, Vec<Append>)> = Vec::with_capacity(1);
        for append in appends {
            let org = &append.id().org;
            match by_org.iter_mut().find(|(o, _)| o == org) {
                Some((_, appends)) => appends.push(append),
                None => by_org.push((org.clone(), vec![append])),
            }
        }
        // In order of id, so that two writers lock heads in the same order.
        by_org.sort_by(|(a, _), (b, _)| a.cmp(b));
        let boot = self.outbox.boot().clone();
        let mut groups = Vec::with_capacity(by_org.len());
        for (org, appends) in by_org {
            let chain = self.chains.entry(org.clone()).or_default();
            let pairs = appends.iter().map(|append| (append.id().counter, append.entry.digest)).collect();
            let batch = chain.sign(&org, &boot, pairs, &self.key)?;
            groups.push(Group::new(org, boot.clone(), batch, appends));
        }
        Ok(groups)
    }

    /// Hands out what the database said.
    fn answer(&mut self, group: Group) {
        for (append, verdict) in group.into_verdicts() {
            self.outbox.shared.queued_bytes.fetch_sub(append.entry.body.len(), Ordering::Relaxed);
            super::append::answer(append, verdict, &self.outbox);
        }
    }

    /// Nothing was written: callers are told, completions are kept.
    fn give_up(&mut self, group: Group) {
        for append in group.into_appends() {
            // An earlier attempt may have been committed, so only the database can say what becomes of it.
            if append.may_be_stored || !append.is_urgent() {
                self.again.push_back(append);
                continue;
            }
            self.outbox.shared.queued_bytes.fetch_sub(append.entry.body.len(), Ordering::Relaxed);
            if let What::Admission { reply, .. } | What::Refusal { reply, .. } = append.what {
                drop(reply.send(Answer::Unavailable));
            }
        }
    }

    /// Once more at shutdown, as long as it works; what cannot be written then is left to recovery.
    async fn last_try(&mut self) -> bool {
        loop {
            let first = self.items.try_recv().ok();
            if first.is_none() && self.again.is_empty() {
                return true;
            }
            let round = self.gather(first).await;
            self.commit(round).await;
            if !self.outbox.is_writable() {
                return false;
            }
        }
    }
}

/// What one round of the writer handles.
#[derive(Default)]
struct Round {
    appends: Vec<Append>,
    changes: Vec<ChangeJob>,
    flushes: Vec<oneshot::Sender<bool>>,
    urgent: bool,
}
