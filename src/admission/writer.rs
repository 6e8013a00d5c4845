//! The writer: one task that turns what waits into commits.
//!
//! Owns the order of commits and the latch. Takes what waits (at most `max_batch`) and commits it at once; a completion
//! alone lingers for a few milliseconds so that it can share an admission's commit. After a commit of unknown outcome
//! everything in it is asked again under the same ids until the database has answered. A head that somebody else has locked is
//! skipped while the batch has another to serve, and then waited for beside what comes for others. When the database cannot be written, admissions
//! and refusals are answered `Unavailable`, completions are kept, and the latch stays until a commit succeeds. A process
//! whose boot was closed goes on under a new one, and what it ends late is recorded as such.

use std::{
    collections::{HashSet, VecDeque},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::{
    sync::mpsc,
    time::{Instant, timeout_at},
};

use super::{
    answer,
    attempt::{Attempt, Tried, Waiting, waited},
    outbox::Outbox,
    question::Answer,
    queue::{Append, Item, Round, Together, What},
    run::Run,
};
use crate::{
    audit::Head,
    crypto::SigningKey,
    domain::{
        clock::Clock,
        ids::{BootId, OrgId},
    },
    storage::{
        Sql, StorageError,
        sql::{Appended, Verdict},
    },
};

/// How long the writer waits before it tries a database again that could not be written.
const RETRY: Duration = Duration::from_millis(200);

/// So many connections in a row may break during a commit before admissions are refused at once.
const BREAKS: u32 = 3;

/// A commit that takes so long and fails has hung: those who wait for the next would wait in vain.
const HANGS: Duration = Duration::from_secs(2);

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

/// The writer.
pub struct Writer {
    sql: Sql,
    outbox: Outbox,
    items: mpsc::UnboundedReceiver<Item>,
    key: Arc<SigningKey>,
    config: WriterConfig,
    /// Makes a boot of its own for a process that was closed.
    reborn: Reborn,
    /// What has to be asked again, before anything newer.
    again: VecDeque<Append>,
    /// What waits for a head that somebody else has locked, beside everything else.
    waiting: Option<Waiting>,
    /// Commits of unknown outcome in a row.
    unknown: u32,
    stop: tokio_util::sync::CancellationToken,
}

/// Registers another boot for this process.
pub type Reborn = Box<dyn Fn() -> futures_util::future::BoxFuture<'static, Result<BootId, StorageError>> + Send + Sync>;

impl Writer {
    /// A writer over the outbox's end of the queue. It ends when `stop` is cancelled and everything that waits has been
    /// committed, or cannot be.
    pub fn new(
        sql: Sql,
        boot: BootId,
        clock: Arc<dyn Clock>,
        key: Arc<SigningKey>,
        (config, reborn): (WriterConfig, Reborn),
        stop: tokio_util::sync::CancellationToken,
    ) -> (Self, Outbox) {
        let (outbox, items) = Outbox::new(boot, clock, config.max_backlog_bytes);
        let (again, waiting, unknown) = (VecDeque::new(), None, 0);
        let writer = Self { sql, outbox: outbox.clone(), items, key, config, reborn, again, waiting, unknown, stop };
        (writer, outbox)
    }

    /// Runs until stopped; answers whether everything was written.
    pub async fn run(mut self) -> bool {
        let stop = self.stop.clone();
        loop {
            let busy = self.has_work();
            let first = tokio::select! {
                biased;
                tried = waited(&mut self.waiting) => {
                    self.has_waited(tried).await;
                    None
                }
                () = std::future::ready(()), if busy => self.items.try_recv().ok(),
                item = self.items.recv() => item,
                () = stop.cancelled(), if self.waiting.is_none() => self.items.try_recv().ok(),
            };
            if first.is_none() && self.again.is_empty() && self.waiting.is_none() && stop.is_cancelled() {
                return true;
            }
            self.round(first).await;
            if !self.outbox.is_writable() {
                if stop.is_cancelled() {
                    return self.last_try().await;
                }
                tokio::time::sleep(RETRY).await;
            }
        }
    }

    /// Whether something can be tried again now. What is busy waits for its turn to wait.
    fn has_work(&self) -> bool {
        self.again.iter().any(|append| !append.was_busy || self.waiting.is_none())
    }

    /// Commits what waits; what waits for a head that somebody else has locked does so beside it, one chain at a time.
    async fn round(&mut self, first: Option<Item>) {
        let round = self.gather(first).await;
        self.commit(round).await;
        if self.waiting.is_some() {
            return;
        }
        let Some(org) = self.again.iter().find(|append| append.was_busy).map(|append| append.id().org.clone()) else {
            return;
        };
        let all = std::mem::take(&mut self.again).into_iter();
        let (mut alone, others): (Vec<Append>, Vec<Append>) =
            all.partition(|append| append.was_busy && append.id().org == org);
        self.again = others.into();
        let rest = alone.split_off(alone.len().min(self.config.max_batch));
        self.again.extend(rest);
        if let Some(attempt) = self.sign(alone) {
            let attempt = Box::pin(attempt.make(self.sql.clone(), self.outbox.clock().now()));
            self.waiting = Some(Waiting { org, attempt });
        }
    }

    async fn has_waited(&mut self, tried: Tried) {
        let Some(Waiting { org, .. }) = self.waiting.take() else { return };
        let all = std::mem::take(&mut self.again).into_iter();
        let (newer, others): (VecDeque<_>, VecDeque<_>) = all.partition(|a| a.was_busy && a.id().org == org);
        self.again = others;
        if let Some(refused) = self.has_tried(tried).await {
            self.append(refused).await;
        }
        // What came meanwhile stays behind what has waited; both are behind other chains.
        self.again.extend(newer);
    }

    /// Takes what waits. Lingers only if nobody waits for an answer.
    async fn gather(&mut self, first: Option<Item>) -> Round {
        let mut round = Round::default();
        while round.appends.len() < self.config.max_batch
            && let Some(at) = self.again.iter().position(|append| !append.was_busy)
        {
            round.appends.extend(self.again.remove(at));
        }
        // Others that wait are not kept waiting for company.
        round.urgent = !self.again.is_empty() || !round.appends.is_empty();
        let busy = self.busy();
        let mut next = first;
        let until = Instant::now() + self.config.linger;
        loop {
            let urgent = match next {
                // Its chain is waited for already: it goes behind what waits there.
                Some(Item::Append(append)) if busy.contains(&append.id().org) => {
                    self.again.push_back(Append { was_busy: true, ..append });
                    round.urgent
                }
                Some(Item::Append(append)) => {
                    let urgent = append.is_urgent();
                    round.appends.push(append);
                    urgent || round.urgent
                }
                Some(Item::Closed(boot)) => {
                    round.closed = Some(boot);
                    true
                }
                Some(Item::Flush(reply)) => {
                    round.flushes.push(reply);
                    true
                }
                None => true,
            };
            round.urgent = urgent;
            if round.appends.len() >= self.config.max_batch || round.closed.is_some() || !round.flushes.is_empty() {
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
        if let Some(boot) = round.closed {
            self.goes_on(&boot).await;
        }
        for reply in round.flushes {
            let done = self.again.is_empty() && self.waiting.is_none() && self.outbox.is_writable();
            if reply.send(done).is_err() {
                tracing::debug!("nobody waits for a flush any more");
            }
        }
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
            let Some(attempt) = self.sign(appends) else { continue };
            let tried = attempt.make(self.sql.clone(), self.outbox.clock().now()).await;
            if let Some(mut first) = self.has_tried(tried).await {
                let second = first.split_off(first.len() / 2);
                left.push(second);
                left.push(first);
            }
        }
    }

    fn sign(&self, appends: Vec<Append>) -> Option<Attempt> {
        let signed = Attempt::sign(self.outbox.run(), appends, &self.key);
        signed
            .inspect_err(|error| {
                tracing::error!(error = error as &dyn std::error::Error, "a batch cannot be signed");
            })
            .ok()
    }

    /// Organizations whose heads are waited for, or were found to have to be.
    fn busy(&self) -> HashSet<OrgId> {
        let again = self.again.iter().filter(|append| append.was_busy).map(|append| &append.id().org);
        self.waiting.iter().map(|waiting| &waiting.org).chain(again).cloned().collect()
    }

    /// Reads what came of one transaction. Answers the entries again if they are to be tried in smaller parts.
    async fn has_tried(&mut self, Tried { run, together, took, result }: Tried) -> Option<Vec<Append>> {
        let several = together.iter().map(|group| group.appends.len()).sum::<usize>() > 1;
        match result {
            Ok(appended) => {
                self.unknown = 0;
                self.outbox.shared.latched.store(false, Ordering::Release);
                self.answer(&run, together, appended).await;
            }
            Err(StorageError::Unknown(error)) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "the outcome of a commit is unknown: asking again"
                );
                // Connections may break, and so may the next; one that hangs, or a row of them, is an outage.
                self.unknown += 1;
                if self.unknown > BREAKS || took >= HANGS {
                    self.latch();
                }
                let appends = together.into_iter().flat_map(|group| group.appends);
                self.again.extend(appends.map(|append| Append { may_be_stored: true, ..append }));
            }
            Err(error) if error.is_lock_timeout() => {
                // Only a head that was waited for alone can time out: it stays locked, and is asked for again, after others.
                let appends = together.into_iter().flat_map(|group| group.appends);
                self.again.extend(appends.map(|append| Append { was_busy: true, ..append }));
            }
            Err(error) if several && !error.is_outage() => {
                tracing::error!(error = &error as &dyn std::error::Error, "an entry is refused by the database");
                return Some(together.into_iter().flat_map(|group| group.appends).collect());
            }
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "the record cannot be written");
                self.latch();
                for append in together.into_iter().flat_map(|group| group.appends) {
                    self.give_up(append);
                }
            }
        }
        None
    }

    fn latch(&self) {
        self.outbox.shared.latched.store(true, Ordering::Release);
    }

    /// Hands out what the database said.
    async fn answer(&mut self, run: &Run, together: Vec<Together>, appended: Vec<Appended>) {
        let fenced = together
            .iter()
            .zip(&appended)
            .any(|(group, said)| group.boot == *run.boot() && said.verdicts.contains(&Verdict::Fenced));
        // First, so that what ends late is recorded under the new boot.
        if fenced {
            self.goes_on(run.boot()).await;
        }
        let boot = self.outbox.boot();
        for (group, said) in together.into_iter().zip(appended) {
            // What is stored stands on what this boot saw. Any other head may be that of another history, and to go by it
            // would end the alarm (rule 24).
            if let Some((seq, link)) = said.head
                && group.boot == *run.boot()
                && said.verdicts.iter().any(Verdict::is_stored)
            {
                run.sees(&group.org, Head { seq, link });
            }
            for (append, verdict) in group.appends.into_iter().zip(said.verdicts) {
                if verdict == Verdict::Busy {
                    self.again.push_back(Append { was_busy: true, ..append });
                    continue;
                }
                // No new boot could be registered yet: what has ended stays to be told.
                if verdict == Verdict::Fenced && group.boot == boot && !append.is_urgent() {
                    self.again.push_back(append);
                    continue;
                }
                self.outbox.shared.queued_bytes.fetch_sub(append.entry.body.len(), Ordering::Relaxed);
                answer::answer(append, verdict, &self.outbox);
            }
        }
    }

    /// This process was closed by recovery and lives: it goes on under a boot of its own (rule 19).
    async fn goes_on(&mut self, closed: &BootId) {
        if self.outbox.boot() != *closed {
            return;
        }
        match (self.reborn)().await {
            Ok(boot) => {
                tracing::error!(boot.closed = %closed, boot.id = %boot, "this process was taken for dead: it goes on under a new boot");
                self.outbox.goes_on_as(self.outbox.run().successor(boot));
            }
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "a new boot cannot be registered");
                self.latch();
                self.outbox.was_closed(closed.clone());
            }
        }
    }

    /// Nothing was written: callers are told, completions are kept.
    fn give_up(&mut self, append: Append) {
        // An earlier attempt may have been committed, so only the database can say what becomes of it.
        if append.may_be_stored || !append.is_urgent() {
            self.again.push_back(append);
            return;
        }
        self.outbox.shared.queued_bytes.fetch_sub(append.entry.body.len(), Ordering::Relaxed);
        match append.what {
            What::Admission { reply, .. } | What::Refusal { reply, .. } => drop(reply.send(Answer::Unavailable)),
            // Dropping the reply says the same.
            What::Extension { reply, .. } => drop(reply),
            What::Completion { .. } | What::Late { .. } | What::Plain { .. } => {}
        }
    }

    /// Once more at shutdown, as long as it works; what cannot be written then is left to recovery.
    async fn last_try(&mut self) -> bool {
        loop {
            let first = self.items.try_recv().ok();
            if self.waiting.is_some() {
                let tried = waited(&mut self.waiting).await;
                self.has_waited(tried).await;
            }
            if first.is_none() && self.again.is_empty() {
                return true;
            }
            self.round(first).await;
            if !self.outbox.is_writable() {
                return false;
            }
        }
    }
}
